//! Directory harvesting: how many unknown recipients the clients of a network may find out about in an hour.
//!
//! A spammer that tries made-up names learns from each answer whether the name exists. Unknown recipients are counted
//! by client network. A query that is not answered yet counts as one that will be, so that many queries at the same
//! time learn no more than many in a row. Each ten messages that are accepted from a network add one to its limit.

use core::net::IpAddr;
use std::collections::HashMap;

use ipnet::IpNet;

use super::{network, site_network};
use crate::envelope::time::Timestamp;

/// Seconds for which unknown recipients are counted, from the first.
const HOUR: i64 = 3600;
/// Maximum number of networks.
const MAX_NETWORKS: usize = 40_000;
/// The limit of an IPv6 site (/48), as a multiple of that of one of its 256 networks (/56).
const SITE_FACTOR: u32 = 4;
/// Accepted messages for which a network may find out about one more unknown recipient.
const EARNED_BY: u32 = 10;
/// Maximum number of networks whose alarm is not taken yet.
const MAX_ALARMS: usize = 1000;

/// Whether a query about a recipient may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The query may be answered. It counts as pending until [`Harvests::settle`].
    Answer,
    /// The limit would be exceeded if all pending queries were about unknown recipients. After one of them is settled,
    /// the query may be made again.
    Wait,
    /// The limit is reached for the rest of the hour.
    Limited,
}

/// Unknown recipients by client network.
#[derive(Debug, Default)]
pub struct Harvests {
    networks: HashMap<IpNet, Count>,
    /// Networks that have reached the limit since the last call of `take_alarms`.
    alarms: Vec<IpNet>,
    limited: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Unknown recipients of this hour.
    unknown: u32,
    /// Accepted messages of this hour.
    accepted: u32,
    /// Queries that are not answered yet.
    pending: u32,
    /// Whether queries wait for the pending ones.
    is_waited_for: bool,
    /// When the hour began.
    since: i64,
}

impl Count {
    fn is_of(&self, now: Timestamp) -> bool {
        (0..HOUR).contains(&(now.0 - self.since))
    }

    fn unknown_now(&self, now: Timestamp) -> u32 {
        if self.is_of(now) { self.unknown } else { 0 }
    }

    /// The limit of an account of this size: with `limit` for a network, and what it has earned.
    fn limit(&self, network: IpNet, limit: u32, now: Timestamp) -> u32 {
        let is_site = network.prefix_len() == 48;
        let earned = if self.is_of(now) { self.accepted / EARNED_BY } else { 0 };
        limit.saturating_mul(if is_site { SITE_FACTOR } else { 1 }).saturating_add(earned)
    }

    /// Whether nothing is known about the account that matters.
    fn is_idle(&self, now: Timestamp) -> bool {
        self.pending == 0 && !(self.is_of(now) && (self.unknown > 0 || self.accepted > 0))
    }

    /// Begins another hour, if this one is over.
    fn begin(&mut self, now: Timestamp) {
        if !self.is_of(now) {
            (self.unknown, self.accepted, self.since) = (0, 0, now.0);
        }
    }
}

/// The accounts of a client: its network, and the site of an IPv6 client.
fn accounts(client: IpAddr) -> impl Iterator<Item = IpNet> {
    std::iter::once(network(client)).chain(site_network(client))
}

impl Harvests {
    /// Whether a query of this client may be answered. `limit`: unknown recipients of a network in an hour; 0: no
    /// limit.
    ///
    /// ```
    /// # use countersign::envelope::{abuse::{Admission, Harvests}, time::Timestamp};
    /// let (mut harvests, client, now) = (Harvests::default(), [192, 0, 2, 7].into(), Timestamp(1_795_382_400));
    /// assert_eq!(harvests.admit(client, 1, now), Admission::Answer);
    /// assert_eq!(harvests.admit(client, 1, now), Admission::Wait);
    /// harvests.settle(client, true, 1, now);
    /// assert_eq!(harvests.admit(client, 1, now), Admission::Limited);
    /// ```
    pub fn admit(&mut self, client: IpAddr, limit: u32, now: Timestamp) -> Admission {
        if self.is_limited(client, limit, now) {
            self.limited = self.limited.saturating_add(1);
            return Admission::Limited;
        }
        let mut waits = false;
        for account in accounts(client).filter(|_| limit > 0) {
            if let Some(count) = self.networks.get_mut(&account)
                && count.unknown_now(now).saturating_add(count.pending) >= count.limit(account, limit, now)
            {
                count.is_waited_for = true;
                waits = true;
            }
        }
        if waits {
            return Admission::Wait;
        }
        for account in accounts(client) {
            if let Some(count) = self.count(account, now) {
                count.pending = count.pending.saturating_add(1);
            }
        }
        Admission::Answer
    }

    /// Whether the network of a client has reached its limit.
    #[must_use]
    pub fn is_limited(&self, client: IpAddr, limit: u32, now: Timestamp) -> bool {
        let reached = |account: IpNet| {
            self.networks.get(&account).is_some_and(|it| it.unknown_now(now) >= it.limit(account, limit, now))
        };
        limit > 0 && accounts(client).any(reached)
    }

    /// Ends a query that was admitted. `unknown`: the client was told that the recipient is unknown. Returns whether
    /// other queries wait for this.
    pub fn settle(&mut self, client: IpAddr, unknown: bool, limit: u32, now: Timestamp) -> bool {
        if unknown {
            self.unknown(client, limit, now);
        }
        let mut is_waited_for = false;
        for account in accounts(client) {
            let Some(count) = self.networks.get_mut(&account) else { continue };
            count.pending = count.pending.saturating_sub(1);
            is_waited_for |= std::mem::take(&mut count.is_waited_for);
            if count.is_idle(now) {
                self.networks.remove(&account);
            }
        }
        is_waited_for
    }

    /// Counts an unknown recipient of this client.
    pub fn unknown(&mut self, client: IpAddr, limit: u32, now: Timestamp) {
        for account in accounts(client) {
            let Some(count) = self.count(account, now) else { continue };
            count.begin(now);
            count.unknown = count.unknown.saturating_add(1);
            if count.unknown == count.limit(account, limit, now) && self.alarms.len() < MAX_ALARMS {
                self.alarms.push(account);
            }
        }
    }

    /// Counts a message of this client that was accepted.
    pub fn accepted(&mut self, client: IpAddr, now: Timestamp) {
        for account in accounts(client) {
            let Some(count) = self.count(account, now) else { continue };
            count.begin(now);
            count.accepted = count.accepted.saturating_add(1);
        }
    }

    /// Returns the networks that have reached the limit since the last call.
    pub fn take_alarms(&mut self) -> Vec<IpNet> {
        std::mem::take(&mut self.alarms)
    }

    /// The number of queries that were not answered because of the limit.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.limited
    }

    /// The networks that have reached the limit now.
    #[must_use]
    pub fn networks(&self, limit: u32, now: Timestamp) -> usize {
        let is_limited =
            |(account, count): &(&IpNet, &Count)| count.unknown_now(now) >= count.limit(**account, limit, now);
        if limit == 0 { 0 } else { self.networks.iter().filter(is_limited).count() }
    }

    /// The count of an account. `None`: there are too many that are in use.
    fn count(&mut self, account: IpNet, now: Timestamp) -> Option<&mut Count> {
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&account) {
            self.forget(now);
            if self.networks.len() >= MAX_NETWORKS {
                return None;
            }
        }
        Some(self.networks.entry(account).or_default())
    }

    /// Makes room: drops the networks whose hour is over, then half of those with the fewest unknown recipients.
    fn forget(&mut self, now: Timestamp) {
        self.networks.retain(|_, count| count.pending > 0 || count.unknown_now(now) > 0);
        if self.networks.len() < MAX_NETWORKS {
            return;
        }
        let mut all: Vec<u32> = self.networks.values().map(|count| count.unknown).collect();
        all.sort_unstable();
        let median = all.get(all.len() / 2).copied().unwrap_or(0);
        let mut spare = MAX_NETWORKS / 2;
        self.networks.retain(|_, count| {
            let stays = count.pending > 0 || count.unknown > median || spare == 0;
            spare -= usize::from(!stays);
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn client(n: u32) -> IpAddr {
        core::net::Ipv4Addr::from(n << 8 | 7).into()
    }

    fn after(seconds: i64) -> Timestamp {
        Timestamp(NOW.0 + seconds)
    }

    #[test]
    fn a_network_finds_out_about_so_many_in_an_hour() {
        let mut harvests = Harvests::default();
        for second in 0..25 {
            assert_eq!(harvests.admit(client(1), 25, after(second)), Admission::Answer);
            harvests.settle(client(1), true, 25, after(second));
        }
        assert_eq!(harvests.take_alarms(), [network(client(1))]);
        for second in [25, 3599] {
            assert_eq!(harvests.admit(client(1), 25, after(second)), Admission::Limited, "{second}");
        }
        assert_eq!((harvests.networks(25, after(3599)), harvests.limited()), (1, 2));
        assert_eq!(harvests.admit(client(2), 25, after(30)), Admission::Answer);
        assert_eq!(harvests.admit(client(1), 25, after(3600)), Admission::Answer);
        // A clock that is set back begins another hour.
        assert_eq!(harvests.admit(client(1), 25, after(-1)), Admission::Answer);
        assert_eq!(harvests.take_alarms(), []);
    }

    #[test]
    fn known_recipients_cost_nothing() {
        let mut harvests = Harvests::default();
        for _ in 0..1000 {
            assert_eq!(harvests.admit(client(1), 25, NOW), Admission::Answer);
            assert!(!harvests.settle(client(1), false, 25, NOW));
        }
        assert!(harvests.networks.is_empty());
    }

    #[test]
    fn a_network_that_sends_much_mail_may_err_more_often() {
        let mut harvests = Harvests::default();
        (0..100).for_each(|_| harvests.accepted(client(1), NOW));
        let admits = |harvests: &mut Harvests, n: u32, seconds| {
            let admitted = harvests.admit(client(n), 25, after(seconds)) == Admission::Answer;
            if admitted {
                harvests.settle(client(n), true, 25, after(seconds));
            }
            admitted
        };
        assert_eq!((0..100).filter(|_| admits(&mut harvests, 1, 10)).count(), 35);
        assert_eq!((0..100).filter(|_| admits(&mut harvests, 2, 10)).count(), 25);
        // What was earned is of that hour.
        assert_eq!((0..100).filter(|_| admits(&mut harvests, 1, HOUR)).count(), 25);
        // Others are not remembered for longer than their hour.
        harvests.accepted(client(3), NOW);
        assert_eq!(harvests.admit(client(3), 25, after(HOUR)), Admission::Answer);
        harvests.settle(client(3), false, 25, after(HOUR));
        assert!(!harvests.networks.contains_key(&network(client(3))));
    }

    #[test]
    fn what_is_asked_at_once_learns_no_more() {
        let mut harvests = Harvests::default();
        let admitted = (0..60).filter(|_| harvests.admit(client(1), 25, NOW) == Admission::Answer).count();
        assert_eq!(admitted, 25);
        // One of them is known, so another may be asked.
        assert!(harvests.settle(client(1), false, 25, NOW), "the others wait for it");
        assert_eq!(harvests.admit(client(1), 25, NOW), Admission::Answer);
        assert_eq!(harvests.admit(client(1), 25, NOW), Admission::Wait);
        for _ in 0..25 {
            harvests.settle(client(1), true, 25, NOW);
        }
        assert_eq!(harvests.admit(client(1), 25, NOW), Admission::Limited);
    }

    #[test]
    fn a_site_of_ipv6_does_not_multiply_its_limit_by_its_networks() {
        let mut harvests = Harvests::default();
        let of = |n: u32| format!("2001:db8:7:{n:x}00::1").parse().unwrap();
        let learned = (0..250).filter(|n| {
            let is_admitted = harvests.admit(of(n % 250), 25, NOW) == Admission::Answer;
            if is_admitted {
                harvests.settle(of(n % 250), true, 25, NOW);
            }
            is_admitted
        });
        assert_eq!(learned.count(), 100);
        assert_eq!(harvests.admit("2001:db8:8::1".parse().unwrap(), 25, NOW), Admission::Answer);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut harvests = Harvests::default();
        for _ in 0..100 {
            assert_eq!(harvests.admit(client(1), 0, NOW), Admission::Answer);
            harvests.settle(client(1), true, 0, NOW);
        }
        assert_eq!((harvests.take_alarms(), harvests.networks(0, NOW)), (vec![], 0));
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered() {
        let mut harvests = Harvests::default();
        (0..25).for_each(|_| harvests.unknown(client(0), 25, NOW));
        for n in 1..3 * u32::try_from(MAX_NETWORKS).unwrap() {
            harvests.unknown(client(n), 25, NOW);
        }
        assert!(harvests.networks.len() <= MAX_NETWORKS);
        assert_eq!(harvests.admit(client(0), 25, NOW), Admission::Limited);
        // An hour later, all make room.
        harvests.unknown(client(1), 25, after(HOUR));
        (0..MAX_NETWORKS).for_each(|n| harvests.unknown(client(7_000_000 + n as u32), 25, after(HOUR)));
        assert!(harvests.networks.len() <= MAX_NETWORKS);
    }

    proptest! {
        /// However queries of one network overlap, and whatever their answers are, no more are answered with "unknown"
        /// than the limit allows.
        #[test]
        fn no_order_of_queries_learns_more(steps in prop::collection::vec((any::<bool>(), any::<bool>()), 0..300)) {
            let (mut harvests, mut pending, mut unknown) = (Harvests::default(), 0, 0);
            for (asks, is_unknown) in steps {
                if asks {
                    pending += u32::from(harvests.admit(client(1), 25, NOW) == Admission::Answer);
                } else if pending > 0 {
                    harvests.settle(client(1), is_unknown, 25, NOW);
                    pending -= 1;
                    unknown += u32::from(is_unknown);
                }
                prop_assert!(unknown <= 25 && unknown + pending <= 25 || pending == 0);
            }
        }
    }
}
