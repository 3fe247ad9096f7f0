//! Guessing: how many bad tags a client network may try.
//!
//! A tag has 24 bits. Who may try as often as he likes finds one; who has a minute's worth of tries does not live long enough.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::envelope::time::Timestamp;

/// The most networks that are remembered.
const MAX_NETWORKS: usize = 20_000;

/// Networks whose alarms are remembered.
const MAX_ALARMS: usize = 1000;
/// An alarm is repeated after so many seconds.
const QUIET: i64 = 600;

/// Bad tags by client network, and what all of them together could have achieved.
#[derive(Debug, Default)]
pub struct Guesses {
    networks: HashMap<IpNet, Bucket>,
    /// Networks that have used up their guesses since this was last asked, and when each last did.
    alarms: Vec<IpNet>,
    alarmed: HashMap<IpNet, Timestamp>,
    seen: u64,
    limited: u64,
    /// The sum of the chances of all guesses.
    odds: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Guesses, less what time has forgiven, in sixtieths: a minute forgives as many as a minute allows.
    used: u64,
    at: Timestamp,
}

impl Bucket {
    fn used_now(self, per_minute: u32, now: Timestamp) -> u64 {
        let passed = u64::try_from(now.0.saturating_sub(self.at.0)).unwrap_or(0);
        self.used.saturating_sub(passed.saturating_mul(u64::from(per_minute)))
    }
}

impl Guesses {
    /// Whether a network has used up its guesses: nothing that it asks about a tag is answered, lest it be the lucky one.
    #[must_use]
    pub fn is_limited(&self, network: IpNet, per_minute: u32, now: Timestamp) -> bool {
        let used = self.networks.get(&network).map_or(0, |bucket| bucket.used_now(per_minute, now));
        // Sixtieths: a guess is forgiven each sixtieth of a minute's allowance.
        used > u64::from(per_minute.saturating_sub(1)).saturating_mul(60)
    }

    /// Counts a bad tag, and the chance that a blind guess would have been a good one.
    pub fn bad(&mut self, network: Option<IpNet>, per_minute: u32, chance: f64, now: Timestamp) {
        self.seen = self.seen.saturating_add(1);
        self.odds += chance;
        let Some(network) = network else { return };
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&network) {
            self.forget(per_minute, now);
        }
        let limited_before = self.is_limited(network, per_minute, now);
        let bucket = self.networks.entry(network).or_insert(Bucket { used: 0, at: now });
        *bucket = Bucket { used: bucket.used_now(per_minute, now).saturating_add(60), at: now };
        let fresh = !limited_before && self.is_limited(network, per_minute, now);
        // Once a network has guessed, it comes and goes: an alarm each time it has been quiet for a while is enough.
        if fresh && per_minute > 0 && self.alarmed.insert(network, now).is_none_or(|at| now.0 - at.0 > QUIET) {
            self.alarms.push(network);
        }
        if self.alarmed.len() > MAX_ALARMS {
            self.alarmed.clear();
        }
    }

    /// Networks that have used up their guesses since this was last asked.
    pub fn take_alarms(&mut self) -> Vec<IpNet> {
        std::mem::take(&mut self.alarms)
    }

    /// Counts an answer that was not given.
    pub fn turned_away(&mut self) {
        self.limited = self.limited.saturating_add(1);
    }

    /// Makes room: first those that time has forgiven, then those that have guessed least.
    fn forget(&mut self, per_minute: u32, now: Timestamp) {
        self.networks.retain(|_, bucket| bucket.used_now(per_minute, now) > 0);
        if self.networks.len() < MAX_NETWORKS {
            return;
        }
        let mut used: Vec<u64> = self.networks.values().map(|bucket| bucket.used_now(per_minute, now)).collect();
        used.sort_unstable();
        let median = used.get(used.len() / 2).copied().unwrap_or(0);
        let mut spare = MAX_NETWORKS / 2;
        self.networks.retain(|_, bucket| {
            let stays = bucket.used_now(per_minute, now) > median || spare == 0;
            spare -= usize::from(!stays);
            stays
        });
    }

    /// Bad tags so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Answers that were not given.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.limited
    }

    /// The forgery budget: the chance, 0 to 1, that one of all the guesses so far was a good tag.
    #[must_use]
    pub fn chance_of_one(&self) -> f64 {
        -(-self.odds).exp_m1()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u32) -> IpNet {
        IpNet::new(core::net::Ipv4Addr::from(n << 8).into(), 24).unwrap()
    }

    #[test]
    fn a_network_has_so_many_guesses_a_minute() {
        let mut guesses = Guesses::default();
        let now = Timestamp(1_000_000);
        for _ in 0..60 {
            assert!(!guesses.is_limited(net(1), 60, now));
            guesses.bad(Some(net(1)), 60, 0.0, now);
        }
        assert!(guesses.is_limited(net(1), 60, now));
        assert_eq!((guesses.take_alarms(), guesses.take_alarms()), (vec![net(1)], vec![]));
        assert!(!guesses.is_limited(net(2), 60, now));
        // One is forgiven a second.
        assert!(!guesses.is_limited(net(1), 60, Timestamp(now.0 + 1)));
        guesses.bad(Some(net(1)), 60, 0.0, Timestamp(now.0 + 1));
        assert!(guesses.is_limited(net(1), 60, Timestamp(now.0 + 1)));
        // A clock that goes back forgives nothing.
        assert!(guesses.is_limited(net(1), 60, Timestamp(now.0 - 500)));
        assert!(!guesses.is_limited(net(1), 60, Timestamp(now.0 + 120)));
    }

    #[test]
    fn the_budget_adds_up() {
        let mut guesses = Guesses::default();
        let chance = 1.0 / f64::from(1 << 24);
        for _ in 0..1000 {
            guesses.bad(None, 60, chance, Timestamp(0));
        }
        assert_eq!(guesses.seen(), 1000);
        assert!((guesses.chance_of_one() - 1000.0 * chance).abs() < 1e-8);
        guesses.bad(None, 60, 1e9, Timestamp(0));
        assert!((guesses.chance_of_one() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_kept() {
        let mut guesses = Guesses::default();
        let now = Timestamp(1_000_000);
        for _ in 0..100 {
            guesses.bad(Some(net(7)), 60, 0.0, now);
        }
        for n in 100..100 + u32::try_from(MAX_NETWORKS).unwrap() * 2 {
            guesses.bad(Some(net(n)), 60, 0.0, now);
        }
        assert!(guesses.networks.len() <= MAX_NETWORKS);
        assert!(guesses.is_limited(net(7), 60, now));
    }
}
