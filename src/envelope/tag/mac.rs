//! The MACs of the tags: those of own keys, and those of the programs whose secrets can be imported.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::envelope::keyring::Secret;

/// HMAC-SHA-256 with 0x00 between the fields. Addresses cannot contain 0x00 (the parser refuses it), so a character
/// cannot move from one field to the next.
pub(in crate::envelope) fn own(secret: &Secret, fields: &[&str]) -> [u8; 32] {
    run::<Hmac<Sha256>>(secret, fields.iter().enumerate().flat_map(|(i, f)| [if i == 0 { "" } else { "\0" }, f])).into()
}

/// HMAC-SHA-1 over fields without separators, as in all programs whose secrets can be imported.
pub(in crate::envelope::tag) fn sha1(secret: &Secret, fields: &[&str]) -> [u8; 20] {
    run::<Hmac<Sha1>>(secret, fields.iter().copied()).into()
}

/// HMAC-MD5 over one text, for Exim's SRS.
pub(in crate::envelope::tag) fn md5(secret: &Secret, text: &str) -> [u8; 16] {
    run::<Hmac<Md5>>(secret, [text].into_iter()).into()
}

fn run<'a, M: Mac + KeyInit>(
    secret: &Secret,
    parts: impl Iterator<Item = &'a str>,
) -> hmac::digest::array::Array<u8, M::OutputSize> {
    // HMAC accepts keys of any length, so this cannot fail. The fallback is not a MAC under any key.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret.expose()) else { return Default::default() };
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes()
}

/// Whether two texts are equal. The time depends only on their lengths, which are not secret.
pub(in crate::envelope) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
