//! Socketmap requests: a request is as long as it announces, and does not depend on the octets after it.
#![no_main]

use countersign::machines::socketmap::next;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(Some((request, length))) = next(input) else { return };
    assert!(length <= input.len() && input[length - 1] == b',');
    let (alone, same) = next(&input[..length]).expect("good").expect("complete");
    assert_eq!((alone.map, alone.key, same), (request.map, request.key, length));
    for end in 0..length {
        assert!(!matches!(next(&input[..end]), Ok(Some(_))), "{end} of {length}");
    }
});
