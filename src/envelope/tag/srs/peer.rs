//! SRS with secrets of other programs: exactly what they write and accept.

use data_encoding::{BASE64_NOPAD, HEXLOWER};

use super::form::{KeyAnswer, Srs, SrsError, SrsParams, dated, onward, read, undated};
use crate::envelope::address::Address;
use crate::envelope::keyring::{Algorithm, Key, KeyState};
use crate::envelope::tag::verdict::SignError;
use crate::envelope::tag::{Defect, Signed, Tagged, Verdict, mac};
use crate::envelope::time::{Day, SrsStamp};

pub(super) fn forward_shevek(
    key: &Key,
    params: &SrsParams,
    today: Day,
    sender: &Address,
    alias: &str,
) -> Result<Address, SrsError> {
    let length = params.peer(key).hash_length;
    let sep = params.separator;
    let text = match onward(sender.local(), sender.domain())? {
        Some((host, rest)) => {
            let hash = shevek_hash(key, &[host, rest], length);
            format!("SRS1{sep}{hash}={host}={rest}@{alias}")
        }
        None => {
            let (stamp, host, user) = (today.srs().to_string(), sender.domain(), sender.local());
            let hash = shevek_hash(key, &[&stamp, host, user], length);
            format!("SRS0{sep}{hash}={stamp}={host}={user}@{alias}")
        }
    };
    Ok(Address::parse(&text).map_err(SignError::from)?)
}

pub(super) fn forward_exim(
    key: &Key,
    params: &SrsParams,
    today: Day,
    sender: &Address,
    alias: &str,
) -> Result<Address, SrsError> {
    let hash = exim_hash(key, sender.as_str(), params.peer(key).hash_length);
    let stamp = today.srs().to_string().to_ascii_lowercase();
    let text = format!("SRS0={hash}={stamp}={}={}@{alias}", sender.domain(), sender.local());
    Ok(Address::parse(&text).map_err(SignError::from)?)
}

/// Signs a local sender as pysrs does, with an empty host field and the real host under the hash.
///
/// # Errors
/// The result is not an address.
pub fn sign_own_pysrs(key: &Key, params: &SrsParams, today: Day, sender: &Address) -> Result<Signed, SrsError> {
    let (stamp, host, user) = (today.srs().to_string(), sender.domain(), sender.local());
    let hash = shevek_hash(key, &[&stamp, host, user], params.peer(key).hash_length);
    let text = format!("SRS0{}{hash}={stamp}=={user}@{host}", params.separator);
    Ok(Signed::new(Address::parse(&text).map_err(SignError::from)?, key.id.clone()))
}

pub(super) fn verify_shevek(key: &Key, params: &SrsParams, today: Day, form: &Srs<'_>, domain: &str) -> KeyAnswer {
    let limits = params.peer(key);
    // pysrs signs its own senders with an empty host field; the hash covers the domain after the `@`.
    let (form, other) = match *form {
        Srs::Zero { hash, stamp, host: "", user } if key.algorithm == Algorithm::Pysrs => {
            (&Srs::Zero { hash, stamp, host: domain, user }, KeyAnswer::NotOfThisKind)
        }
        _ => (form, KeyAnswer::OtherHash),
    };
    if !form.complete() {
        return KeyAnswer::NotOfThisKind;
    }
    let holds = |hash: &str, fields: &[&str]| {
        if hash.len() < usize::from(limits.hash_min) {
            return false;
        }
        let expected = shevek_hash(key, fields, u8::try_from(hash.len()).unwrap_or(u8::MAX));
        // PostSRSd 2 accepts both alphabets. All programs ignore case.
        let plain = |text: &str| text.replace('-', "+").replace('_', "/").to_ascii_lowercase();
        let (expected, received) = if key.algorithm == Algorithm::Postsrsd {
            (plain(&expected), plain(hash))
        } else {
            (expected.to_ascii_lowercase(), hash.to_ascii_lowercase())
        };
        mac::equal(expected.as_bytes(), received.as_bytes())
    };
    match *form {
        Srs::Zero { hash, stamp, host, user } => {
            if !holds(hash, &[stamp, host, user]) {
                return other;
            }
            if key.algorithm == Algorithm::Postsrsd && host == DATABASE {
                return KeyAnswer::Decided(Verdict::Malformed(Defect::DatabaseAlias));
            }
            KeyAnswer::Decided(verify_stamp(key, limits.max_age, today, form, stamp))
        }
        Srs::One { hash, host, rest } => {
            if !holds(hash, &[host, rest]) {
                return other;
            }
            KeyAnswer::Decided(undated(key, unproven_raw(form)))
        }
    }
}

/// The host field in addresses of PostSRSd's database mode (`srs-domain` with `original-envelope = database`). It is
/// not a valid host name.
const DATABASE: &str = "1";

pub(super) fn verify_exim(key: &Key, params: &SrsParams, today: Day, local: &str) -> KeyAnswer {
    // Exim accepts SRS0 with `=` only, and not in quotes.
    let form = Srs::parse(local).ok().flatten().filter(|_| local.as_bytes().get(4) == Some(&b'='));
    let Some(Srs::Zero { hash, stamp, host, user }) = form else { return KeyAnswer::NotOfThisKind };
    let limits = params.peer(key);
    let expected = exim_hash(key, &format!("{user}@{host}"), limits.hash_length);
    if !mac::equal(expected.as_bytes(), hash.to_ascii_lowercase().as_bytes()) {
        return KeyAnswer::OtherHash;
    }
    // Exim delivers to the lower-cased address.
    let (host, user) = (host.to_ascii_lowercase(), user.to_ascii_lowercase());
    let form = Srs::Zero { hash, stamp, host: &host, user: &user };
    KeyAnswer::Decided(verify_stamp(key, limits.max_age, today, &form, stamp))
}

/// The arithmetic of the other programs, mod 1024: without tolerance, so that an address becomes valid again after
/// 1,024 days.
fn verify_stamp(key: &Key, max_age: u16, today: Day, form: &Srs<'_>, stamp: &str) -> Verdict {
    let Some(stamp) = SrsStamp::parse(stamp) else { return Verdict::Malformed(Defect::BadStamp) };
    let age = stamp.age(today);
    let valid = age <= i64::from(max_age);
    let signed_on = if valid { today.plus(-age) } else { stamp.nearest(today) };
    let tagged = dated(key, unproven_raw(form), signed_on, i64::from(max_age));
    if key.state == KeyState::Retired || (!valid && age < 512) {
        Verdict::Expired(tagged)
    } else if valid {
        Verdict::valid(tagged)
    } else {
        Verdict::Future(tagged)
    }
}

/// Like `unproven`, for fields with or without their quotes, as the other program hashed them.
fn unproven_raw(form: &Srs<'_>) -> Tagged {
    read(form, |local, domain| {
        Address::parse(&format!("{local}@{domain}")).or_else(|_| Address::from_content(local, domain)).ok()
    })
}

/// HMAC-SHA-1 over the lower-cased fields without separators, in base64, truncated to `length` characters.
fn shevek_hash(key: &Key, fields: &[&str], length: u8) -> String {
    let lower: Vec<String> = fields.iter().map(|f| f.to_ascii_lowercase()).collect();
    let fields: Vec<&str> = lower.iter().map(String::as_str).collect();
    let mut text = BASE64_NOPAD.encode(&mac::sha1(&key.secret, &fields));
    text.truncate(usize::from(length));
    if key.algorithm == Algorithm::Postsrsd { text.replace('+', "-").replace('/', "_") } else { text }
}

/// Exim's hash: HMAC-MD5 over the lower-cased address, in hex, truncated to `length` digits.
fn exim_hash(key: &Key, address: &str, length: u8) -> String {
    let mut text = HEXLOWER.encode(&mac::md5(&key.secret, &address.to_ascii_lowercase()));
    text.truncate(usize::from(length));
    text
}
