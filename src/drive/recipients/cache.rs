//! Answers about recipients that are remembered.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use crate::envelope::address::Address;
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};

/// Seconds for which an unknown recipient is not asked for again.
const UNKNOWN_FOR: i64 = 600;
/// The most known recipients that are remembered.
const MAX_KNOWN: usize = 80_000;
/// The most unknown recipients that are remembered. Harvesters make up as many as they like, and must not push out the
/// known ones.
const MAX_UNKNOWN: usize = 20_000;

/// Identifies a recipient at a server.
pub(crate) type CacheKey = [u8; 16];

/// The key of a recipient at a server, which is asked about exactly this address. `server`: its own address, as the
/// config names it.
pub(super) fn key_of(server: &str, recipient: &Address) -> CacheKey {
    let mut hash = Sha256::new();
    for part in [server, recipient.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut key = [0; 16];
    key.iter_mut().zip(hash.finalize()).for_each(|(octet, from)| *octet = from);
    key
}

/// What is remembered of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remembered {
    /// It was known within a day.
    Known,
    /// It was unknown ten minutes ago or later.
    Unknown,
    /// It was known longer ago. It is asked for again, and counts as known if there is no answer.
    KnownOnce,
}

/// What a server has answered about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownOrNot {
    /// Whether the recipient is known.
    pub known: bool,
    /// When that was answered.
    pub at: Timestamp,
}

/// Answers about recipients.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: HashMap<CacheKey, i64>,
    unknown: HashMap<CacheKey, i64>,
    /// Answers that have changed since they were last kept.
    changed: HashSet<CacheKey>,
}

impl Cache {
    pub(super) fn get(&self, key: &CacheKey, now: Timestamp) -> Option<Remembered> {
        let is_recent = |at: i64, seconds: i64| (0..seconds).contains(&(now.0 - at));
        if self.unknown.get(key).is_some_and(|at| is_recent(*at, UNKNOWN_FOR)) {
            return Some(Remembered::Unknown);
        }
        self.known.get(key).map(|at| match is_recent(*at, SECONDS_PER_DAY) {
            true => Remembered::Known,
            false => Remembered::KnownOnce,
        })
    }

    /// Remembers an answer in place of an earlier one.
    pub(super) fn insert(&mut self, key: CacheKey, answer: KnownOrNot) {
        let (into, from, most) = match answer.known {
            true => (&mut self.known, &mut self.unknown, MAX_KNOWN),
            false => (&mut self.unknown, &mut self.known, MAX_UNKNOWN),
        };
        let had_other = from.remove(&key).is_some();
        if into.len() >= most && !into.contains_key(&key) {
            let gone = forget_the_oldest(into);
            self.changed.extend(gone.into_iter().filter(|_| answer.known));
        }
        into.insert(key, answer.at.0);
        // Unknown ones are asked for again within minutes, and are not kept.
        if answer.known || had_other {
            self.changed.insert(key);
        }
    }

    /// Puts back a recipient that was known at this moment.
    pub(super) fn restore(&mut self, key: CacheKey, at: Timestamp) {
        if self.known.len() < MAX_KNOWN {
            self.known.insert(key, at.0);
        }
    }

    /// When the recipients became known that have since the last call. `None`: they are not known any more.
    pub(super) fn take_changes(&mut self) -> Vec<(CacheKey, Option<Timestamp>)> {
        let answer = |key: &CacheKey| self.known.get(key).copied().map(Timestamp);
        let changes = self.changed.iter().map(|key| (*key, answer(key))).collect();
        self.changed.clear();
        changes
    }
}

/// Drops the older half, and returns it.
fn forget_the_oldest(answers: &mut HashMap<CacheKey, i64>) -> Vec<CacheKey> {
    let mut all: Vec<i64> = answers.values().copied().collect();
    all.sort_unstable();
    let median = all.get(all.len() / 2).copied().unwrap_or(i64::MAX);
    let (mut spare, mut gone) = (answers.len() / 2, Vec::new());
    answers.retain(|key, at| {
        let stays = *at > median || spare == 0;
        if !stays {
            spare -= 1;
            gone.push(*key);
        }
        stays
    });
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn key(n: usize) -> CacheKey {
        key_of("127.0.0.1:25", &Address::parse(&format!("user{n}@our.example")).unwrap())
    }

    fn answer(known: bool, at: i64) -> KnownOrNot {
        KnownOrNot { known, at: Timestamp(NOW.0 + at) }
    }

    #[test]
    fn answers_are_of_use_for_some_time() {
        let mut cache = Cache::default();
        cache.insert(key(1), answer(true, 0));
        cache.insert(key(2), answer(false, 0));
        let at = |cache: &Cache, n, seconds| cache.get(&key(n), Timestamp(NOW.0 + seconds));
        assert_eq!(at(&cache, 1, 86_399), Some(Remembered::Known));
        assert_eq!(at(&cache, 1, 86_400 * 30), Some(Remembered::KnownOnce));
        assert_eq!(at(&cache, 2, 599), Some(Remembered::Unknown));
        assert_eq!((at(&cache, 2, 600), at(&cache, 3, 0)), (None, None));
        // The last answer counts.
        cache.insert(key(1), answer(false, 10));
        assert_eq!((at(&cache, 1, 20), at(&cache, 1, 700)), (Some(Remembered::Unknown), None));
        cache.insert(key(1), answer(true, 30));
        assert_eq!(at(&cache, 1, 40), Some(Remembered::Known));
    }

    #[test]
    fn an_answer_is_about_one_address_at_one_server() {
        let address = |text: &str| Address::parse(text).unwrap();
        let one = key_of("10.0.0.1:25", &address("ann@our.example"));
        // A server may know `ann` and not `ANN`: what a stranger asks for must not decide about others.
        assert_ne!(key_of("10.0.0.1:25", &address("ANN@our.example")), one);
        assert_ne!(key_of("10.0.0.2:25", &address("ann@our.example")), one);
        assert_ne!(key_of("10.0.0.1:25", &address("ann@your.example")), one);
    }

    #[test]
    fn unknown_ones_do_not_push_out_known_ones() {
        let mut cache = Cache::default();
        (0..1000).for_each(|n| cache.insert(key(n), answer(true, 0)));
        (1000..1000 + 3 * MAX_UNKNOWN).for_each(|n| cache.insert(key(n), answer(false, i64::try_from(n).unwrap())));
        assert!(cache.unknown.len() <= MAX_UNKNOWN);
        assert!((0..1000).all(|n| cache.get(&key(n), NOW) == Some(Remembered::Known)));
        assert!(cache.take_changes().iter().all(|(_, at)| at.is_some()), "unknown ones are not kept");
        assert!(cache.unknown.contains_key(&key(999 + 3 * MAX_UNKNOWN)));
    }

    #[test]
    fn what_is_kept_is_restored() {
        let mut cache = Cache::default();
        cache.insert(key(1), answer(true, 0));
        cache.insert(key(2), answer(false, 0));
        let mut later = Cache::default();
        for (key, at) in cache.take_changes() {
            later.restore(key, at.unwrap());
        }
        assert_eq!(later.get(&key(1), NOW), Some(Remembered::Known));
        assert_eq!((later.take_changes(), cache.take_changes()), (vec![], vec![]));
        // Who is not known any more is removed, and so is who is forgotten.
        cache.insert(key(1), answer(false, 1));
        assert_eq!(cache.take_changes(), [(key(1), None)]);
        (0..=MAX_KNOWN).for_each(|n| cache.insert(key(n), answer(true, i64::try_from(n).unwrap())));
        assert_eq!(cache.take_changes().iter().filter(|(_, at)| at.is_none()).count(), MAX_KNOWN / 2);
    }
}
