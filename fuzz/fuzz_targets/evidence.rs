//! Evidence headers: arbitrary input is never valid evidence.
#![no_main]

use countersign::envelope::address::Address;
use countersign::envelope::evidence::{Claim, Proof, author, message_id, verify};
use countersign_fuzz::{NOW, site};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (policy, ring) = site();
    let _ = (message_id(text), author(text));
    let ann = Address::parse("ann@our.example").expect("an address");
    if let Some(claim) = Claim::parse(text) {
        assert_ne!(verify(ring.keys(), &policy.batv, NOW.day(), &claim, "<1@our.example>", &ann), Proof::Valid);
    }
});
