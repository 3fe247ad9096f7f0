//! Messages in the queue of a server, from the line that received them to the one that removes them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};

use super::own_bounces::{Cause, Failure};

/// Messages in a generation. The younger one becomes the older one when it is full, and the older one is forgotten.
const MAX: usize = 60_000;

/// What is known of a message.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    /// Whether it has the null sender; `None`: not known yet.
    pub has_null_sender: Option<bool>,
    pub origin: Origin,
    /// Whether it is among the messages that came in.
    pub is_counted: bool,
    /// Why a recipient could not be delivered.
    pub failure: Option<Box<Failure>>,
    pub bounce: Option<OwnBounce>,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Unknown,
    /// A user who has logged in, or a program of this machine.
    User,
    /// This machine, or a private network.
    Inside,
    World,
}

/// A bounce that the server has made.
#[derive(Debug, Clone)]
pub(super) struct OwnBounce {
    pub cause: Cause,
    /// Where the cause is: a domain and a server.
    pub place: Box<str>,
    /// The origin of the message that it is about.
    pub about: Origin,
    pub is_counted: bool,
    pub has_result: bool,
}

/// For keys that are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.0 = self.0.rotate_left(8) ^ u64::from(*octet));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type ByKey = HashMap<u64, Message, BuildHasherDefault<Hashed>>;

/// Messages by the host and their name.
#[derive(Debug)]
pub(super) struct Queue {
    young: ByKey,
    old: ByKey,
    /// Makes the keys differ from run to run.
    seed: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { young: ByKey::default(), old: ByKey::default(), seed: RandomState::new().hash_one(0) }
    }
}

/// Goes on with a hash. Names of messages are chosen by the server, so this need not withstand an attack.
fn mixed(hash: u64, text: &[u8]) -> u64 {
    let mut octets = [0; 8];
    text.chunks(8).fold(hash ^ text.len() as u64, |hash, chunk| {
        octets.fill(0);
        octets.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        let mixed = (hash ^ u64::from_le_bytes(octets)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    })
}

impl Queue {
    pub(super) fn key(&self, host: &[u8], id: &[u8]) -> u64 {
        mixed(mixed(self.seed, host), id)
    }

    /// A message, which is new if nothing is known of it.
    pub(super) fn message(&mut self, key: u64) -> &mut Message {
        if self.young.len() >= MAX && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let Self { young, old, .. } = self;
        let mut known = || if old.is_empty() { None } else { old.remove(&key) };
        young.entry(key).or_insert_with(|| known().unwrap_or_default())
    }

    pub(super) fn find(&self, key: u64) -> Option<&Message> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    pub(super) fn remove(&mut self, key: u64) {
        if self.young.remove(&key).is_none() && !self.old.is_empty() {
            self.old.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut queue = Queue::default();
        let first = queue.key(b"mx", b"first");
        for n in 0..3 * MAX {
            let key = queue.key(b"mx", n.to_string().as_bytes());
            queue.message(key).is_counted = true;
            queue.message(first).origin = Origin::World;
        }
        assert!(queue.young.len() + queue.old.len() <= 2 * MAX);
        assert_eq!(queue.find(first).unwrap().origin, Origin::World);
        assert!(queue.find(queue.key(b"mx", b"1")).is_none());
        queue.remove(first);
        assert!(queue.find(first).is_none());
    }
}
