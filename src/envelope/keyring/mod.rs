//! The key ring: which key signs, which keys verify, and how long each is needed.
//!
//! Types and rules only; `state::ring_file` reads and writes the file. Every change is a function in `change` that
//! either returns its result or a reason for refusing it, so that a ring always meets its invariants.

mod change;
mod key;

use std::collections::BTreeMap;

pub use change::{ChangeError, NewKey, Pruned};
pub use key::{Algorithm, Key, KeyId, KeyState, Purpose, Secret, SrsLimits};

use super::time::Timestamp;

/// A set of keys that meets the invariants of a ring: ids are unique, and exactly one own key signs.
///
/// ```
/// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
/// # use countersign::envelope::time::Timestamp;
/// # let now = Timestamp(1_795_382_400);
/// # let secret = Secret::new(vec![7; 32].into());
/// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
/// # let ring = Keyring::create(key, now)?;
/// let id = ring.own_signer().map(|key| key.id.to_string());
/// assert_eq!(id.as_deref(), Some("1"));
/// assert_eq!(ring.keys().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<Key>,
    signing_since: BTreeMap<String, Timestamp>,
    ramps: BTreeMap<String, RampNote>,
}

/// What the ring notes of a domain's ramp, beside its start. All hosts that share the ring see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RampNote {
    /// Since when the domain is enforced. Nothing that a stranger sends ends that.
    pub enforced: Option<Timestamp>,
    /// What an administrator has decided, whatever the ramp says.
    pub decision: Option<RampDecision>,
    /// Whether the start was recorded by hand. Then the days since count, with or without signed mail.
    pub by_hand: bool,
    /// Whether the start was recorded by a daemon that counts days with signed mail. Rings of earlier versions have it
    /// not, and the days since count there, too.
    pub counted: bool,
}

/// A decision of an administrator about a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum RampDecision {
    /// The domain is enforced.
    Enforce,
    /// The domain is observed.
    Observe,
}

/// Why a set of keys is not a key ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Two keys have the same id.
    #[error("key {0} stands in the ring twice; give one of them another id")]
    DuplicateId(KeyId),
    /// No own key is in the state `signing`.
    #[error("no key of algorithm hmac-sha256 has the state signing; promote one with: countersign keys promote ID")]
    NoSigner,
    /// Two keys that serve the same purpose are in the state `signing`.
    #[error("keys {0} and {1} both have the state signing; exactly one may sign")]
    TwoSigners(KeyId, KeyId),
    /// The id of a BATV key is not a digit.
    #[error("key {0}: a key that signs or checks prvs tags needs one digit, 0 to 9, as its id")]
    IdIsNoDigit(KeyId),
    /// The id of an imported SRS secret is a digit.
    #[error("key {0}: an imported SRS secret needs a name as its id, for example postsrsd-1")]
    IdIsDigit(KeyId),
    /// An empty secret, with which anyone could sign.
    #[error("key {0}: the secret is empty")]
    EmptySecret(KeyId),
}

impl Keyring {
    /// Makes a ring from keys, after checking the invariants. `signing_since` is the start of the ramp, by domain.
    ///
    /// # Errors
    /// See [`RingError`].
    pub fn new(keys: Vec<Key>, signing_since: BTreeMap<String, Timestamp>) -> Result<Self, RingError> {
        let ring = Self { keys, signing_since, ramps: BTreeMap::new() };
        ring.check()?;
        Ok(ring)
    }

    /// The ring with these notes about ramps, by domain.
    #[must_use]
    pub fn with_ramps(self, ramps: BTreeMap<String, RampNote>) -> Self {
        Self { ramps, ..self }
    }

    fn check(&self) -> Result<(), RingError> {
        for (i, key) in self.keys.iter().enumerate() {
            if self.keys.iter().skip(i + 1).any(|other| other.id == key.id) {
                return Err(RingError::DuplicateId(key.id.clone()));
            }
            match (key.algorithm.purpose(), key.id.digit()) {
                (Purpose::All | Purpose::Batv, None) => return Err(RingError::IdIsNoDigit(key.id.clone())),
                (Purpose::Srs, Some(_)) => return Err(RingError::IdIsDigit(key.id.clone())),
                _ => {}
            }
            if key.secret.is_empty() {
                return Err(RingError::EmptySecret(key.id.clone()));
            }
        }
        for purpose in [Purpose::All, Purpose::Batv, Purpose::Srs] {
            let mut signing = self.signing_with(purpose);
            match (signing.next(), signing.next()) {
                (Some(a), Some(b)) => return Err(RingError::TwoSigners(a.id.clone(), b.id.clone())),
                (None, _) if purpose == Purpose::All => return Err(RingError::NoSigner),
                _ => {}
            }
        }
        Ok(())
    }

    fn signing_with(&self, purpose: Purpose) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |k| k.state == KeyState::Signing && k.algorithm.purpose() == purpose)
    }

    /// All keys, in the order of the file.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The key with this id.
    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&Key> {
        self.keys.iter().find(|k| k.id == *id)
    }

    /// The own key that signs. Never `None` in a checked ring; callers answer 4xx in that case.
    #[must_use]
    pub fn own_signer(&self) -> Option<&Key> {
        self.signing_with(Purpose::All).next()
    }

    /// The key that makes BATV tags: an imported key if one signs, otherwise the own one.
    #[must_use]
    pub fn batv_signer(&self) -> Option<&Key> {
        self.signing_with(Purpose::Batv).next().or_else(|| self.own_signer())
    }

    /// The key that makes SRS addresses: an imported key if one signs, otherwise the own one.
    #[must_use]
    pub fn srs_signer(&self) -> Option<&Key> {
        self.signing_with(Purpose::Srs).next().or_else(|| self.own_signer())
    }

    /// The last moment at which a key was added, or began or stopped signing. Never `None` in a checked ring.
    #[must_use]
    pub fn changed_at(&self) -> Option<Timestamp> {
        let moments = |key: &Key| [Some(key.created), key.signed_from, key.signed_until];
        self.keys.iter().flat_map(moments).flatten().max()
    }

    /// What is noted of the ramps of domains.
    #[must_use]
    pub fn ramps(&self) -> &BTreeMap<String, RampNote> {
        &self.ramps
    }

    /// What is noted of the ramp of a domain (canonical form).
    #[must_use]
    pub fn ramp_note(&self, domain: &str) -> RampNote {
        self.ramps.get(domain).copied().unwrap_or_default()
    }

    /// The moment since which mail is signed, by entry of `domains.local` or SRS domain; ramps are counted from it.
    #[must_use]
    pub fn signing_since(&self) -> &BTreeMap<String, Timestamp> {
        &self.signing_since
    }
}

#[cfg(test)]
mod tests;
