//! PROXY headers: never more is read than belongs to one, and what we write can be read.
#![no_main]

use countersign::machines::proxy_header::{Source, missing, parse, v1, v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // As the daemon reads it: as much as is known to be missing, and no octet of what follows.
    let mut end = 0;
    while let Ok(more) = missing(&input[..end]) {
        if more == 0 {
            break;
        }
        end += more;
        if end > input.len() {
            return;
        }
    }
    if let Ok(Source::Client(client)) = parse(&input[..end]) {
        for written in [v1(Some(client), Some(client)), v2(Some(client), Some(client))] {
            assert_eq!(missing(&written), Ok(0));
            assert!(matches!(parse(&written), Ok(Source::Client(same)) if same == client));
        }
    }
});
