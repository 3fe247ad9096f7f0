//! Key ring files: one that can be read is the same when it is written and read again.
#![no_main]

use std::path::Path;

use countersign::state::ring::{self, Secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let path = Path::new("ring.toml");
    let Ok(ring) = ring::parse(path, text) else { return };
    let written = ring::to_text(&ring, Secrets::Revealed);
    let again = ring::parse(path, &written).expect("what was written can be read");
    assert_eq!(*ring::to_text(&again, Secrets::Revealed), *written);
});
