//! The MACs under the tags: ours, and those of the peers whose secrets can be imported.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::envelope::keyring::Secret;

/// HMAC-SHA-256 with 0x00 between the fields. No field can contain 0x00 (the address parser refuses it), so no field
/// can lend a character to its neighbour.
pub(in crate::envelope) fn own(secret: &Secret, fields: &[&str]) -> [u8; 32] {
    run::<Hmac<Sha256>>(secret, fields.iter().enumerate().flat_map(|(i, f)| [if i == 0 { "" } else { "\0" }, f])).into()
}

/// HMAC-SHA-1 over fields that stand bare beside each other, as every peer does it.
pub(in crate::envelope::tag) fn sha1(secret: &Secret, fields: &[&str]) -> [u8; 20] {
    run::<Hmac<Sha1>>(secret, fields.iter().copied()).into()
}

/// HMAC-MD5 over one text: Exim's SRS.
pub(in crate::envelope::tag) fn md5(secret: &Secret, text: &str) -> [u8; 16] {
    run::<Hmac<Md5>>(secret, [text].into_iter()).into()
}

fn run<'a, M: Mac + KeyInit>(
    secret: &Secret,
    parts: impl Iterator<Item = &'a str>,
) -> hmac::digest::array::Array<u8, M::OutputSize> {
    // HMAC takes keys of every length, so this arm is never taken; a MAC under no key would be the worse answer.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret.expose()) else { return Default::default() };
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes()
}

/// Whether two texts are equal, in time that depends on their lengths only. Lengths are public: they stand in the
/// address.
pub(in crate::envelope) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
