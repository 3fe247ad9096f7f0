//! Messages: the findings do not depend on how the input is cut into pieces.
#![no_main]

use countersign::envelope::bounce::Scanner;
use countersign_fuzz::byte;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let dots = byte(&mut input) & 1 == 0;
    let new = || if dots { Scanner::of_data() } else { Scanner::of_text() };
    let (mut cuts, message) = input.split_at(usize::from(byte(&mut input)).min(input.len()));
    let mut whole = new();
    whole.push(message);
    whole.finish();
    let (mut pieces, mut rest) = (new(), message);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((usize::from(byte(&mut cuts)) + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.finish();
    assert_eq!(whole.found(), pieces.found());
});
