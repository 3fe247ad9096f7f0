//! SRS: senders of forwarded mail are rewritten, so that bounces return through this site.
//!
//! `SRS0=HHHH=TT=host=user@ours` wraps a sender. `SRS1=HHHH=host=rest@ours` points past other forwarders to the first
//! of them, so that addresses do not grow with each forwarder. There is no RFC; the form is that of Mail::SRS, which
//! all other programs follow. Own keys use the same form with another MAC: it has separated fields, covers the full
//! signing day and the SRS domain, and is written in base32 instead of base64 without case.

mod alias;
mod form;
mod own;
mod peer;

pub use self::alias::{forward_alias, looks_like_alias};
use self::form::{KeyAnswer, unproven};
pub use self::form::{Srs, SrsError, SrsParams, looks_tagged};
pub use self::peer::sign_own_pysrs;
use super::verdict::{Defect, SignError, Signed, Verdict};
use crate::envelope::address::{Address, canonical_domain};
use crate::envelope::keyring::{Algorithm, Key, Purpose};
use crate::envelope::time::Day;

/// The result of rewriting a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarded {
    /// The sender is in the SRS domain already.
    Unchanged,
    /// The rewritten sender.
    Rewritten(Signed),
}

/// Rewrites a foreign sender into an SRS domain.
///
/// An SRS0 sender becomes SRS1; an SRS1 sender keeps its host and rest, with a new hash. `alias` is the SRS domain; if
/// it is an address, only its domain counts, as in Mail::SRS.
///
/// ```
/// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
/// # use countersign::envelope::time::Timestamp;
/// # let now = Timestamp(1_795_382_400);
/// # let secret = Secret::new(vec![7; 32].into());
/// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
/// # let ring = Keyring::create(key, now)?;
/// use countersign::envelope::address::Address;
/// use countersign::envelope::tag::Verdict;
/// use countersign::envelope::tag::srs::{Forwarded, SrsParams, forward, verify};
///
/// let (params, bob) = (SrsParams::default(), Address::parse("bob@third.example")?);
/// let signer = ring.srs_signer().ok_or("a key that signs")?;
/// let Forwarded::Rewritten(signed) = forward(signer, &params, now.day(), &bob, "srs.our.example")? else {
///     return Err("it is not in the SRS domain".into());
/// };
/// let Verdict::Valid(found) = verify(ring.keys(), &params, now.day().plus(21), signed.address()) else {
///     return Err("it is valid for 21 days".into());
/// };
/// assert_eq!(found.address(), &bob);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The result is not an address, an SRS1 sender is malformed, the domain contains `=`, or the key is for BATV only.
pub fn forward(
    key: &Key,
    params: &SrsParams,
    today: Day,
    sender: &Address,
    alias: &str,
) -> Result<Forwarded, SrsError> {
    if key.algorithm.purpose() == Purpose::Batv {
        return Err(SignError::WrongKey(key.id.clone()).into());
    }
    let alias = alias.rsplit_once('@').map_or(alias, |(_, domain)| domain);
    if !params.always_rewrite && sender.canonical_domain() == canonical_domain(alias) {
        return Ok(Forwarded::Unchanged);
    }
    if sender.domain().contains('=') {
        return Err(SrsError::EqualsInDomain);
    }
    let address = match key.algorithm {
        Algorithm::HmacSha256 => own::forward(key, params, today, sender, alias)?,
        Algorithm::EximSrs => peer::forward_exim(key, params, today, sender, alias)?,
        _ => peer::forward_shevek(key, params, today, sender, alias)?,
    };
    Ok(Forwarded::Rewritten(Signed::new(address, key.id.clone())))
}

/// Verifies an SRS address with the keys of a ring. The hash is checked before the date, so that the answer to a forged
/// address reveals nothing.
#[must_use]
pub fn verify(keys: &[Key], params: &SrsParams, today: Day, address: &Address) -> Verdict {
    let content = address.content();
    let form = match Srs::parse(&content) {
        Ok(Some(form)) => form,
        Ok(None) => return Verdict::Untagged,
        Err(defect) => return Verdict::Malformed(defect),
    };
    // Programs of imported keys hash quotes within the local part as they find them.
    let raw = Srs::parse(address.local()).ok().flatten().unwrap_or(form);
    let mut readable = false;
    for key in keys.iter().filter(|k| k.algorithm.purpose() != Purpose::Batv) {
        let verdict = match key.algorithm {
            Algorithm::HmacSha256 => own::verify(key, params, today, &form, address.domain()),
            Algorithm::EximSrs => peer::verify_exim(key, params, today, address.local()),
            _ => peer::verify_shevek(key, params, today, &raw, address.domain()),
        };
        match verdict {
            KeyAnswer::Decided(verdict) => return verdict,
            KeyAnswer::OtherHash => readable = true,
            KeyAnswer::NotOfThisKind => {}
        }
    }
    match Srs::parse(address.local()) {
        _ if readable => Verdict::Forged(unproven(&form)),
        Ok(None) => Verdict::Untagged,
        _ => Verdict::Malformed(Defect::Syntax),
    }
}
