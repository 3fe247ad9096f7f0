//! Every change of a ring. Each function takes the current time as an argument. A change that fails leaves the ring as
//! it was.

use subtle::ConstantTimeEq as _;

use super::key::{Algorithm, Key, KeyId, KeyState, Purpose, Secret, SrsLimits};
use super::{Keyring, RampDecision, RampNote, RingError};
use crate::envelope::time::Timestamp;

/// Why a ring was not changed. Each message says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The ring has no key with this id.
    #[error("there is no key {0} in the ring; see: countersign keys list")]
    NoSuchKey(KeyId),
    /// All ten digits are in use.
    #[error(
        "all ten key digits are in use; retire and prune old keys first (countersign keys list says which are free to go)"
    )]
    NoFreeDigit,
    /// The id is in use.
    #[error("key {0} exists already; give another id with --id, or retire and prune that one first")]
    IdInUse(KeyId),
    /// The secret is in the ring already.
    #[error("this secret is in the ring already, as key {0}")]
    SecretKnown(KeyId),
    /// A retired key cannot be promoted.
    #[error("key {0} is retired and can never sign again; make a new one with: countersign keys rotate")]
    Retired(KeyId),
    /// The key to promote signs already.
    #[error("key {0} signs already")]
    SignsAlready(KeyId),
    /// A key that signs cannot be retired.
    #[error("key {0} signs; put another in its place first with: countersign keys rotate")]
    StillSigns(KeyId),
    /// Bounces to tags of the key may still arrive.
    #[error("key {id} is needed until {until}: bounces to mail signed with it may still come back")]
    StillNeeded {
        /// The key that is still needed.
        id: KeyId,
        /// The first moment at which the key is not needed.
        until: TimestampText,
    },
    /// Only a retired key can be pruned.
    #[error("key {0} is not retired; retire it first with: countersign keys retire {0}")]
    NotRetired(KeyId),
    /// The result would not be a key ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// A moment that errors show as the beginning of its UTC day, without a calendar library in the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampText(pub Timestamp);

impl std::fmt::Display for TimestampText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = civil(self.0.day().0);
        write!(f, "{year:04}-{month:02}-{day:02} 00:00 UTC")
    }
}

/// Year, month and day of a number of days since 1970-01-01 (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is the last day of a year.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// A key to be added.
#[derive(Debug)]
pub struct NewKey {
    /// The algorithm of its tags.
    pub algorithm: Algorithm,
    /// The secret for the MAC.
    pub secret: Secret,
    /// The BATV lifetime that it signs with, or was used with elsewhere, in days.
    pub lifetime: u16,
    /// The SRS lifetime that it signs with, in days.
    pub srs_lifetime: u16,
    /// Whether it makes prvs tags of six hex digits.
    pub short_tags: bool,
}

/// The ids of the keys that [`Keyring::prune`] removed.
pub type Pruned = Vec<KeyId>;

impl Keyring {
    /// Makes a ring with one own key, which signs.
    ///
    /// # Errors
    /// The secret is empty.
    pub fn create(key: NewKey, now: Timestamp) -> Result<Self, RingError> {
        let mut key = build(key, KeyId::Digit(1), now);
        key.state = KeyState::Signing;
        key.signed_from = Some(now);
        Self::new(vec![key], std::collections::BTreeMap::new())
    }

    /// Adds an own key in the state [`KeyState::Next`] and returns its id.
    ///
    /// # Errors
    /// All ten digits are in use.
    pub fn add(&mut self, key: NewKey, now: Timestamp) -> Result<KeyId, ChangeError> {
        let id = self.next_digit().ok_or(ChangeError::NoFreeDigit)?;
        self.keys.push(build(key, id.clone(), now));
        Ok(id)
    }

    /// The first free digit after that of the newest own key, in the order 1 to 9, 0.
    fn next_digit(&self) -> Option<KeyId> {
        let own = self.keys.iter().filter(|k| k.algorithm.purpose() == Purpose::All);
        // Of keys created at the same moment, the last one in the file is the newest.
        let newest = own.max_by_key(|k| k.created).and_then(|k| k.id.digit()).unwrap_or(0);
        (1..=10u8).map(|step| KeyId::Digit((newest + step) % 10)).find(|id| self.key(id).is_none())
    }

    /// Makes a key sign. An own key replaces the signing keys of all schemes, an imported key only that of its own
    /// scheme.
    ///
    /// # Errors
    /// The key does not exist, signs already, or is retired.
    pub fn promote(&mut self, id: &KeyId, now: Timestamp) -> Result<(), ChangeError> {
        let key = self.key(id).ok_or_else(|| ChangeError::NoSuchKey(id.clone()))?;
        let purpose = key.algorithm.purpose();
        match key.state {
            KeyState::Retired => return Err(ChangeError::Retired(id.clone())),
            KeyState::Signing => return Err(ChangeError::SignsAlready(id.clone())),
            KeyState::Next | KeyState::Verifying => {}
        }
        for other in self.keys.iter_mut().filter(|k| k.state == KeyState::Signing) {
            if purpose == Purpose::All || other.algorithm.purpose() == purpose {
                other.state = KeyState::Verifying;
                other.signed_until = Some(now);
            }
        }
        for key in self.keys.iter_mut().filter(|k| k.id == *id) {
            key.state = KeyState::Signing;
            key.signed_from = key.signed_from.or(Some(now));
            key.signed_until = None;
        }
        Ok(())
    }

    /// Adds an own key and makes it sign at once.
    ///
    /// ```
    /// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    /// # use countersign::envelope::time::Timestamp;
    /// # let now = Timestamp(1_795_382_400);
    /// # let secret = Secret::new(vec![7; 32].into());
    /// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
    /// # let ring = Keyring::create(key, now)?;
    /// let mut ring = ring;
    /// let secret = Secret::new(vec![8; 32].into());
    /// let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
    /// let id = ring.rotate(key, Timestamp(now.0 + 60))?;
    /// assert_eq!(ring.own_signer().map(|key| &key.id), Some(&id));
    /// assert_eq!(ring.keys().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Keyring::add`] and [`Keyring::promote`].
    pub fn rotate(&mut self, key: NewKey, now: Timestamp) -> Result<KeyId, ChangeError> {
        let id = self.add(key, now)?;
        self.promote(&id, now)?;
        Ok(id)
    }

    /// Retires a key: its tags are `expired` from now on. With `force`, even if bounces to them may still arrive.
    ///
    /// # Errors
    /// The key does not exist, signs, or is still needed and `force` is not set.
    pub fn retire(&mut self, id: &KeyId, now: Timestamp, force: bool) -> Result<(), ChangeError> {
        let key = self.key(id).ok_or_else(|| ChangeError::NoSuchKey(id.clone()))?;
        if key.state == KeyState::Signing {
            return Err(ChangeError::StillSigns(id.clone()));
        }
        match key.needed_until() {
            Some(until) if now < until && !force => {
                return Err(ChangeError::StillNeeded { id: id.clone(), until: TimestampText(until) });
            }
            _ => {}
        }
        for key in self.keys.iter_mut().filter(|k| k.id == *id) {
            // A key in the state `next` has never signed, so it can be retired at any time.
            key.state = KeyState::Retired;
        }
        Ok(())
    }

    /// Removes one retired key, or all retired keys whose tags have expired. Returns the ids of the removed keys.
    ///
    /// # Errors
    /// The named key does not exist, is not retired, or is still needed.
    pub fn prune(&mut self, id: Option<&KeyId>, now: Timestamp) -> Result<Pruned, ChangeError> {
        let needed = |k: &Key| {
            if k.signed_from.is_none() && k.algorithm.purpose() == Purpose::All { None } else { k.needed_until() }
        };
        if let Some(id) = id {
            let key = self.key(id).ok_or_else(|| ChangeError::NoSuchKey(id.clone()))?;
            match needed(key) {
                _ if key.state != KeyState::Retired => return Err(ChangeError::NotRetired(id.clone())),
                Some(until) if now < until => {
                    return Err(ChangeError::StillNeeded { id: id.clone(), until: TimestampText(until) });
                }
                _ => {}
            }
        }
        let goes = |k: &Key| {
            let free = k.state == KeyState::Retired && needed(k).is_none_or(|until| until <= now);
            free && id.is_none_or(|id| k.id == *id)
        };
        let pruned = self.keys.iter().filter(|k| goes(k)).map(|k| k.id.clone()).collect();
        self.keys.retain(|k| !goes(k));
        Ok(pruned)
    }

    /// Imports the secret of another program for verifying; with `sign`, also for signing in its scheme.
    ///
    /// # Errors
    /// The id or secret is in the ring already, or the id does not fit the algorithm.
    pub fn import(
        &mut self,
        key: NewKey,
        id: &KeyId,
        limits: SrsLimits,
        sign: bool,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        if self.key(id).is_some() {
            return Err(ChangeError::IdInUse(id.clone()));
        }
        let same = |k: &&Key| k.algorithm == key.algorithm && k.secret.expose().ct_eq(key.secret.expose()).into();
        if let Some(known) = self.keys.iter().find(same) {
            return Err(ChangeError::SecretKnown(known.id.clone()));
        }
        let mut key = build(key, id.clone(), now);
        key.state = KeyState::Verifying;
        key.srs = limits;
        // The other program signed with the key until now.
        key.signed_until = Some(now);
        self.keys.push(key);
        if let Err(error) = self.check() {
            self.keys.pop();
            return Err(error.into());
        }
        if sign { self.promote(id, now) } else { Ok(()) }
    }

    /// A free name for an imported SRS secret: the name of its algorithm and a number.
    #[must_use]
    pub fn free_name(&self, algorithm: Algorithm) -> KeyId {
        let names = (1u32..).map(|n| KeyId::Name(format!("{}-{n}", algorithm.name())));
        names.into_iter().find(|id| self.key(id).is_none()).unwrap_or(KeyId::Name(algorithm.name().to_owned()))
    }

    /// Records since when mail of a domain (canonical form) is signed, unless an earlier moment is recorded. Returns
    /// whether the ring changed.
    pub fn ramp_start(&mut self, domain: &str, now: Timestamp) -> bool {
        match self.signing_since.get(domain) {
            Some(&since) if since <= now => false,
            _ => {
                self.signing_since.insert(domain.to_owned(), now);
                true
            }
        }
    }

    /// As [`ramp_start`](Self::ramp_start), by an administrator, who knows that all mail is signed: the days since then
    /// count, whether this host has signed mail on them or not.
    pub fn ramp_start_by_hand(&mut self, domain: &str, now: Timestamp) -> bool {
        let changed = self.ramp_start(domain, now);
        self.note_ramp(domain, |note| note.by_hand = true) || changed
    }

    /// As [`ramp_start`](Self::ramp_start), by a daemon that counts days with signed mail from now on.
    pub fn ramp_start_counted(&mut self, domain: &str, now: Timestamp) -> bool {
        let changed = self.ramp_start(domain, now);
        if changed {
            self.note_ramp(domain, |note| note.counted = true);
        }
        changed
    }

    /// Records that a domain is enforced from now on. Returns whether the ring changed.
    pub fn ramp_enforced(&mut self, domain: &str, now: Timestamp) -> bool {
        self.note_ramp(domain, |note| note.enforced = note.enforced.or(Some(now)))
    }

    /// Records what an administrator has decided about a domain; `None`: the ramp decides again. Returns whether the
    /// ring changed.
    pub fn ramp_decide(&mut self, domain: &str, decision: Option<RampDecision>) -> bool {
        self.note_ramp(domain, |note| note.decision = decision)
    }

    fn note_ramp(&mut self, domain: &str, change: impl Fn(&mut RampNote)) -> bool {
        let before = self.ramp_note(domain);
        let mut note = before;
        change(&mut note);
        if note == RampNote::default() {
            self.ramps.remove(domain);
        } else {
            self.ramps.insert(domain.to_owned(), note);
        }
        note != before
    }

    /// Removes the start of a domain's signing if it is not after `at`, because mail has left unsigned. A decision of
    /// an administrator stays. Returns whether the ring changed.
    pub fn ramp_stop(&mut self, domain: &str, at: Timestamp) -> bool {
        match self.signing_since.get(domain) {
            Some(&since) if since <= at => {
                self.signing_since.remove(domain);
                self.note_ramp(domain, |note| {
                    note.enforced = None;
                    note.by_hand = false;
                    note.counted = false;
                });
                true
            }
            _ => false,
        }
    }

    /// Records the lifetimes, in days, and tag lengths that the signing keys use; lifetimes only grow. Returns whether
    /// the ring changed.
    pub fn record_lifetimes(&mut self, lifetime: u16, srs_lifetime: u16, short_tags: bool) -> bool {
        let mut changed = false;
        for key in self.keys.iter_mut().filter(|k| k.state == KeyState::Signing) {
            let before = (key.longest_lifetime, key.longest_srs_lifetime, key.short_tags);
            key.longest_lifetime = key.longest_lifetime.max(lifetime);
            key.longest_srs_lifetime = key.longest_srs_lifetime.max(srs_lifetime);
            key.short_tags |= short_tags;
            changed |= before != (key.longest_lifetime, key.longest_srs_lifetime, key.short_tags);
        }
        changed
    }
}

fn build(key: NewKey, id: KeyId, now: Timestamp) -> Key {
    Key {
        id,
        algorithm: key.algorithm,
        state: KeyState::Next,
        secret: key.secret,
        created: now,
        signed_from: None,
        signed_until: None,
        longest_lifetime: key.lifetime,
        longest_srs_lifetime: key.srs_lifetime,
        short_tags: key.short_tags,
        srs: key.algorithm.srs_limits(),
    }
}
