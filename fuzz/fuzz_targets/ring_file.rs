//! Key ring files: a parsed ring is unchanged after it is written and parsed again.
#![no_main]

use std::path::Path;

use countersign::state::ring_text::{self, Secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let path = Path::new("ring.toml");
    let Ok(ring) = ring_text::parse(path, text) else { return };
    let written = ring_text::to_text(&ring, Secrets::Revealed);
    let again = ring_text::parse(path, &written).expect("what was written can be read");
    assert_eq!(*ring_text::to_text(&again, Secrets::Revealed), *written);
});
