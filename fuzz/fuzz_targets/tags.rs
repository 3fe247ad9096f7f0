//! BATV and SRS: what was signed is valid and leads back; nothing else is valid, whatever it looks like.
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
    // No input has the MAC of this key but by a chance of 1 in 2^24, which libFuzzer does not find.
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
