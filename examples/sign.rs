//! Signs an address and verifies it, as a library: `cargo run --example sign -- ann@our.example`.
//!
//! Prints the signed address, the verdict on a bounce to it today and in nine days, and the verdict on a forged tag.

use anyhow::{Context, Result};
use countersign::envelope::address::Address;
use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
use countersign::envelope::tag::{Verdict, batv};
use countersign::envelope::time::Timestamp;

fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "ann@our.example".to_owned());
    let address = Address::parse(&address).context("that is not an address: write local-part@domain")?;
    // A real site loads its ring with `countersign::state::ring_file::load`, and has a random secret.
    let now = Timestamp(1_795_382_400);
    let secret = Secret::new(b"not a secret".to_vec().into());
    let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
    let ring = Keyring::create(key, now)?;
    let params = batv::BatvParams::default();

    let signer = ring.batv_signer().context("a new ring has a key that signs")?;
    let signed = batv::sign(signer, &params, now.day(), &address)?;
    println!("signed    {}", signed.address());
    for (when, day) in [("today", now.day()), ("in 9 days", now.day().plus(9))] {
        let verdict = batv::verify(ring.keys(), &params, day, signed.address());
        match &verdict {
            Verdict::Valid(found) => println!("{when:<9} {}: deliver to {}", verdict.name(), found.address()),
            _ => println!("{when:<9} {}", verdict.name()),
        }
    }
    let forged = Address::parse(&format!("prvs=1786000000={address}"))?;
    println!("forged    {}", batv::verify(ring.keys(), &params, now.day(), &forged).name());
    Ok(())
}
