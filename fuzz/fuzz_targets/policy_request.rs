//! Policy requests: a request ends at its empty line, and does not depend on the octets after it.
#![no_main]

use countersign::machines::policy_service::next;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(Some((request, length))) = next(input) else { return };
    assert!(length <= input.len() && input[length - 1] == b'\n');
    let (alone, same) = next(&input[..length]).expect("good").expect("complete");
    assert_eq!(
        (alone.sender, alone.recipient, alone.client, same),
        (request.sender, request.recipient, request.client, length)
    );
});
