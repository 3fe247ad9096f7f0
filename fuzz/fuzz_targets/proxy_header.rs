//! PROXY headers: no octet after the header is read, and every header that this crate writes can be parsed.
#![no_main]

use countersign::machines::proxy_header::{Source, missing, parse, v1, v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // Reads like the daemon: only as many octets as are known to be missing.
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
