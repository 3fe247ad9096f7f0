//! BATV and SRS: a signed address is valid and leads back to the original; no other address is valid.
#![no_main]

use countersign::envelope::address::Address;
use countersign::envelope::tag::srs::{Forwarded, SrsParams};
use countersign::envelope::tag::{Verdict, batv, srs};
use countersign_fuzz::{NOW, site};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (policy, ring) = site();
    let (today, keys) = (NOW.day(), ring.keys());
    let Ok(address) = Address::parse(text) else { return };
    // An arbitrary input has a valid MAC with a probability of 2^-24, so libFuzzer does not find one.
    assert!(!matches!(batv::verify(keys, &policy.batv, today, &address), Verdict::Valid(_)), "{address}");
    let _ = srs::verify(keys, &policy.srs, today, &address);
    if let Some(bare) = batv::strip(&address) {
        assert!(bare.as_str().len() < address.as_str().len());
    }
    let signer = ring.own_signer().expect("a key that signs");
    if let Ok(signed) = batv::sign(signer, &policy.batv, today, &address) {
        let Verdict::Valid(found) = batv::verify(keys, &policy.batv, today, signed.address()) else {
            panic!("{} is not valid", signed.address())
        };
        assert!(found.address().same_mailbox(&address), "{address} became {}", found.address());
    }
    if let Ok(Forwarded::Rewritten(signed)) =
        srs::forward(signer, &SrsParams::default(), today, &address, "srs.example")
    {
        assert!(
            matches!(srs::verify(keys, &SrsParams::default(), today, signed.address()), Verdict::Valid(_)),
            "{} is not valid",
            signed.address()
        );
    }
});
