//! How many bounces this site has sent, in total and to each domain.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::envelope::address::canonical_domain;
use crate::envelope::time::Timestamp;

/// Seconds for which bounces are counted, from the first.
const HOUR: i64 = 3600;
/// Minimum number of seconds between two searches for old domains.
const SWEEP: i64 = 60;
/// Maximum number of domains.
const MAX_DOMAINS: usize = 10_000;

/// Bounces of this hour, in total and by the domain that they are sent to.
#[derive(Debug, Default)]
pub struct OwnBounces {
    all: Count,
    domains: HashMap<String, Count>,
    /// Domains for which there was no room: they share one limit.
    others: Count,
    /// When old domains were removed last.
    swept: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    bounces: u32,
    since: i64,
}

impl Count {
    fn now(&mut self, now: Timestamp) -> &mut u32 {
        if !(0..HOUR).contains(&(now.0 - self.since)) {
            *self = Self { bounces: 0, since: now.0 };
        }
        &mut self.bounces
    }
}

impl OwnBounces {
    /// Counts a bounce to a domain, unless it would exceed a limit. Returns whether it does not. A limit of 0 is none.
    ///
    /// ```
    /// # use countersign::envelope::{abuse::OwnBounces, time::Timestamp};
    /// let (mut bounces, now) = (OwnBounces::default(), Timestamp(1_795_382_400));
    /// assert!(bounces.admits("third.example", 1, 0, now));
    /// assert!(!bounces.admits("third.example", 1, 0, now));
    /// assert!(bounces.admits("else.example", 1, 0, now));
    /// ```
    pub fn admits(&mut self, domain: &str, per_domain: u32, in_total: u32, now: Timestamp) -> bool {
        let fits = |bounces: u32, limit: u32| limit == 0 || bounces < limit;
        if !fits(*self.all.now(now), in_total) {
            return false;
        }
        if per_domain > 0 {
            let bounces = self.of_domain(domain, now);
            if !fits(*bounces, per_domain) {
                return false;
            }
            *bounces = bounces.saturating_add(1);
        }
        let all = self.all.now(now);
        *all = all.saturating_add(1);
        true
    }

    fn of_domain(&mut self, domain: &str, now: Timestamp) -> &mut u32 {
        let is_full = self.domains.len() >= MAX_DOMAINS;
        if is_full && !(0..SWEEP).contains(&(now.0 - self.swept)) {
            self.swept = now.0;
            self.domains.retain(|_, count| *count.now(now) > 0);
        }
        let has_room = self.domains.len() < MAX_DOMAINS;
        let domain = canonical_domain(domain).into_owned();
        match self.domains.entry(domain) {
            Entry::Occupied(known) => known.into_mut().now(now),
            Entry::Vacant(new) if has_room => new.insert(Count::default()).now(now),
            Entry::Vacant(_) => self.others.now(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn after(seconds: i64) -> Timestamp {
        Timestamp(NOW.0 + seconds)
    }

    #[test]
    fn bounces_are_limited_by_domain_and_in_total() {
        let mut bounces = OwnBounces::default();
        for _ in 0..3 {
            assert!(bounces.admits("third.example", 3, 5, NOW));
        }
        assert!(!bounces.admits("THIRD.example", 3, 5, after(3599)), "what is not sent is not counted");
        assert!(bounces.admits("a.example", 3, 5, after(1)) && bounces.admits("b.example", 3, 5, after(1)));
        assert!(!bounces.admits("c.example", 3, 5, after(1)));
        assert!(bounces.admits("third.example", 3, 5, after(3600)), "another hour");
        assert!(bounces.admits("third.example", 3, 5, after(-1)), "a clock that is set back");
    }

    #[test]
    fn no_limit_is_no_limit_and_memory_is_bounded() {
        let mut bounces = OwnBounces::default();
        assert!((0..100).all(|_| bounces.admits("third.example", 0, 0, NOW)));
        assert!(bounces.domains.is_empty());
        for n in 0..=MAX_DOMAINS {
            assert!(bounces.admits(&format!("d{n}.example"), 1, 0, NOW));
        }
        assert!(!bounces.admits("one-more.example", 1, 0, NOW), "the others share one limit");
        assert!(bounces.admits("one-more.example", 2, 0, NOW));
        assert_eq!(bounces.domains.len(), MAX_DOMAINS);
        assert!(!bounces.admits("d7.example", 1, 0, NOW));
        assert!(bounces.admits("d7.example", 1, 0, after(HOUR)));
    }
}
