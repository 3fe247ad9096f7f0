//! The key ring: which key signs, which keys verify, and how long each is needed.
//!
//! Only types and rules; the file is `state::ring_file`. Every change of a ring is a function in `change` that returns
//! a new fact or a reason why not, so that a ring that breaks its invariants cannot be built.

mod change;
mod key;

use std::collections::BTreeMap;

pub use change::{ChangeError, NewKey, Pruned};
pub use key::{Algorithm, Key, KeyId, KeyState, Purpose, Secret, SrsLimits};

use super::time::Timestamp;

/// A set of keys that holds what a ring promises: ids are unique, and exactly one own key signs.
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
}

/// Why a set of keys is no key ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Two entries with one id.
    #[error("key {0} stands in the ring twice; give one of them another id")]
    DuplicateId(KeyId),
    /// No key of the ring is in the state `signing`.
    #[error("no key of algorithm hmac-sha256 has the state signing; promote one with: countersign keys promote ID")]
    NoSigner,
    /// Two keys would sign the same scheme.
    #[error("keys {0} and {1} both have the state signing; exactly one may sign")]
    TwoSigners(KeyId, KeyId),
    /// An id that does not fit what the key is for.
    #[error("key {0}: a key that signs or checks prvs tags needs one digit, 0 to 9, as its id")]
    IdIsNoDigit(KeyId),
    /// A digit for a key that has a name.
    #[error("key {0}: an imported SRS secret needs a name as its id, for example postsrsd-1")]
    IdIsDigit(KeyId),
    /// Empty secrets sign for everybody.
    #[error("key {0}: the secret is empty")]
    EmptySecret(KeyId),
}

impl Keyring {
    /// Checks the invariants of a set of keys.
    ///
    /// # Errors
    /// See [`RingError`].
    pub fn new(keys: Vec<Key>, signing_since: BTreeMap<String, Timestamp>) -> Result<Self, RingError> {
        let ring = Self { keys, signing_since };
        ring.check()?;
        Ok(ring)
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

    /// The own key that signs. `None` cannot happen in a checked ring; who signs refuses by 4xx then.
    #[must_use]
    pub fn own_signer(&self) -> Option<&Key> {
        self.signing_with(Purpose::All).next()
    }

    /// The key that makes BATV tags: an imported one if it signs, else the own one.
    #[must_use]
    pub fn batv_signer(&self) -> Option<&Key> {
        self.signing_with(Purpose::Batv).next().or_else(|| self.own_signer())
    }

    /// The key that makes SRS addresses: an imported one if it signs, else the own one.
    #[must_use]
    pub fn srs_signer(&self) -> Option<&Key> {
        self.signing_with(Purpose::Srs).next().or_else(|| self.own_signer())
    }

    /// When a key was last made, or began or ceased to sign. `None` cannot happen in a checked ring.
    #[must_use]
    pub fn changed_at(&self) -> Option<Timestamp> {
        let moments = |key: &Key| [Some(key.created), key.signed_from, key.signed_until];
        self.keys.iter().flat_map(moments).flatten().max()
    }

    /// Since when mail of a local domain (in canonical spelling) leaves signed; what a ramp counts from.
    #[must_use]
    pub fn signing_since(&self) -> &BTreeMap<String, Timestamp> {
        &self.signing_since
    }
}

#[cfg(test)]
mod tests;
