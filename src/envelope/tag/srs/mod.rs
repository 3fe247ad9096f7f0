//! SRS: foreign senders of forwarded mail, rewritten so that a bounce comes back through us.
//!
//! `SRS0=HHHH=TT=host=user@ours` wraps a sender; `SRS1=HHHH=host=rest@ours` points past other forwarders to the first of
//! them, so that chains never grow. There is no RFC; the shape is that of Mail::SRS, which every peer follows. Own keys
//! keep the shape and change the MAC: fields separated, the full signing day and our own domain under it, base32 instead
//! of case-blind base64.

mod form;
mod own;
mod peer;

use self::form::{KeyAnswer, unproven};
pub use self::form::{Srs, SrsError, SrsParams, looks_tagged};
pub use self::peer::sign_own_pysrs;
use super::verdict::{Defect, SignError, Signed, Verdict};
use crate::envelope::address::{Address, canonical_domain};
use crate::envelope::keyring::{Algorithm, Key, Purpose};
use crate::envelope::time::Day;

/// What became of a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarded {
    /// It is in the alias domain already.
    Unchanged,
    /// The address to send with.
    Rewritten(Signed),
}

/// Rewrites a foreign sender into the alias domain.
///
/// A sender that is SRS0 becomes SRS1; an SRS1 keeps its host and rest under a new hash. `alias` may be an address;
/// only its domain counts, as in Mail::SRS.
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
/// When the result would be no address, an SRS1 sender is broken, or the key makes no SRS.
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

/// Asks what an SRS address proves, under any key of a ring. The hash is checked before the date, so that a forgery
/// learns nothing from the answer.
#[must_use]
pub fn verify(keys: &[Key], params: &SrsParams, today: Day, address: &Address) -> Verdict {
    let content = address.content();
    let form = match Srs::parse(&content) {
        Ok(Some(form)) => form,
        Ok(None) => return Verdict::Untagged,
        Err(defect) => return Verdict::Malformed(defect),
    };
    // Imported keys hashed quotes as they stood inside the local part.
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
