//! Surges: so much untagged null-sender mail for one domain that inspecting each message would take too much work
//! (`reject_at = "auto"`).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use ipnet::IpNet;

use crate::envelope::time::Timestamp;

/// A surge has more than this number of messages in a minute.
const MIN_PER_MINUTE: u32 = 20;
/// A surge has more than this multiple of the mean of the last day.
const MEAN_FACTOR: u64 = 10;
/// A surge ends this number of minutes after its last minute above the thresholds.
const QUIET: i64 = 15;
/// Messages of one client network that count in a minute. A real surge comes from many networks.
const MAX_PER_NETWORK: u32 = 5;
/// Maximum number of client networks that are told apart within a minute.
const MAX_NETWORKS: usize = 4096;
/// Maximum number of domains.
const MAX_DOMAINS: usize = 10_000;
/// Of the networks beyond [`MAX_NETWORKS`], one in this number is let through, chosen anew each second.
const ONE_IN: u64 = 8;
const MINUTES: u64 = 24 * 60;

/// The beginning or end of a surge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurgeChange {
    /// The domain, as an entry of `domains.local`.
    pub domain: String,
    /// Whether its untagged null-sender mail is deferred at RCPT from now on.
    pub at_rcpt: bool,
}

#[derive(Debug, Default)]
struct Domain {
    minute: i64,
    in_minute: u32,
    /// The client networks of this minute. `None` stands for clients that are not known.
    networks: HashMap<Option<IpNet>, NetworkMinute>,
    /// Messages in each hour of the last day.
    hours: [u32; 24],
    /// The latest hour in `hours`, counted from 1970-01-01.
    hour: i64,
    /// The last minute above the thresholds, during a surge.
    in_surge: Option<i64>,
}

/// Mail of one client network in the current minute.
#[derive(Debug, Default)]
struct NetworkMinute {
    counted: u32,
    /// Whether one of its messages has been let through in spite of the surge.
    seen: bool,
}

/// Untagged null-sender mail by domain: bounces if the caller sees content, otherwise recipients.
#[derive(Debug, Default)]
pub struct Surges {
    domains: HashMap<String, Domain>,
    hasher: RandomState,
    flips: Vec<SurgeChange>,
}

impl Surges {
    /// Counts one message or recipient of a client network.
    pub fn count(&mut self, domain: &str, network: Option<IpNet>, now: Timestamp) {
        if !self.domains.contains_key(domain) && self.domains.len() < MAX_DOMAINS {
            self.domains.insert(domain.to_owned(), Domain::default());
        }
        let Some(state) = self.domains.get_mut(domain) else { return };
        let before = state.in_surge.is_some();
        let minute = now.0.div_euclid(60);
        if state.is_one_more(minute, network) {
            state.count(minute);
        }
        let at_rcpt = state.in_surge.is_some();
        if before != at_rcpt {
            self.flips.push(SurgeChange { domain: domain.to_owned(), at_rcpt });
        }
    }

    /// Whether to defer another message of a client network. During a surge, one message per network and minute is let
    /// through, so that the source of the surge delays mail of other networks only briefly.
    pub fn defers(&mut self, domain: &str, network: Option<IpNet>, now: Timestamp) -> bool {
        self.tick(now);
        let Some(state) = self.domains.get_mut(domain).filter(|state| state.in_surge.is_some()) else { return false };
        state.turn_to_minute(now.0.div_euclid(60));
        if state.networks.len() >= MAX_NETWORKS && !state.networks.contains_key(&network) {
            // The remaining networks are not told apart. Some messages still get through, and each network soon has
            // one.
            return !self.hasher.hash_one((network, now)).is_multiple_of(ONE_IN);
        }
        std::mem::replace(&mut state.networks.entry(network).or_default().seen, true)
    }

    /// Ends the surges of domains that receive no more mail.
    pub fn tick(&mut self, now: Timestamp) {
        let minute = now.0.div_euclid(60);
        for (domain, state) in &mut self.domains {
            if state.in_surge.is_some() && !state.is_pressed(minute) {
                state.in_surge = None;
                self.flips.push(SurgeChange { domain: domain.clone(), at_rcpt: false });
            }
        }
    }

    /// Returns the surges that have begun or ended since the last call.
    pub fn take_flips(&mut self) -> Vec<SurgeChange> {
        std::mem::take(&mut self.flips)
    }

    /// The domains in a surge, whose untagged null-sender mail is deferred at RCPT.
    pub fn in_surge(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().filter(|(_, state)| state.in_surge.is_some()).map(|(domain, _)| domain.as_str())
    }
}

impl Domain {
    fn turn_to_minute(&mut self, minute: i64) {
        if minute != self.minute {
            (self.minute, self.in_minute) = (minute, 0);
            self.networks.clear();
        }
    }

    /// Whether another message of this client network counts in this minute.
    fn is_one_more(&mut self, minute: i64, network: Option<IpNet>) -> bool {
        self.turn_to_minute(minute);
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&network) {
            return true;
        }
        let known = self.networks.entry(network).or_default();
        known.counted = known.counted.saturating_add(1);
        known.counted <= MAX_PER_NETWORK
    }

    fn count(&mut self, minute: i64) {
        self.turn_to_minute(minute);
        let hour = minute.div_euclid(60);
        self.turn_to(hour);
        self.in_minute = self.in_minute.saturating_add(1);
        // The mean does not include the current minute, so that a surge does not hide itself.
        let earlier: u64 =
            self.hours.iter().map(|&n| u64::from(n)).sum::<u64>().saturating_sub(u64::from(self.in_minute) - 1);
        if self.in_minute > MIN_PER_MINUTE && u64::from(self.in_minute) * MINUTES > MEAN_FACTOR * earlier {
            self.in_surge = Some(minute);
        }
        // Mail of a surge does not count in the mean of the day.
        if self.in_surge.is_none()
            && let Some(place) = self.hours.get_mut(usize::try_from(hour.rem_euclid(24)).unwrap_or(0))
        {
            *place = place.saturating_add(1);
        }
        if self.in_surge.is_some() && !self.is_pressed(minute) {
            self.in_surge = None;
        }
    }

    fn is_pressed(&self, minute: i64) -> bool {
        self.in_surge.is_some_and(|last| minute - last <= QUIET)
    }

    /// Drops counts that are more than a day old.
    fn turn_to(&mut self, hour: i64) {
        let steps = (hour - self.hour).clamp(0, 24);
        for step in 0..steps {
            if let Some(place) = self.hours.get_mut(usize::try_from((hour - step).rem_euclid(24)).unwrap_or(0)) {
                *place = 0;
            }
        }
        self.hour = self.hour.max(hour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_382_400;

    fn net(n: u32) -> Option<IpNet> {
        IpNet::new(core::net::Ipv4Addr::from(n << 8).into(), 24).ok()
    }

    /// Counts `many` messages, each from another network, in the minute `minute` from now. Returns whether the second
    /// message of one more network is deferred.
    fn burst(surges: &mut Surges, minute: i64, many: u32) -> bool {
        let now = Timestamp(NOW + minute * 60);
        (0..many).for_each(|n| surges.count("our.example", net(n), now));
        surges.defers("our.example", net(9999), now);
        surges.defers("our.example", net(9999), now)
    }

    #[test]
    fn one_network_makes_no_surge() {
        let (mut surges, now) = (Surges::default(), Timestamp(NOW));
        for n in 0..4 {
            (0..1000).for_each(|_| surges.count("our.example", net(n), now));
        }
        assert_eq!(surges.in_surge().count(), 0, "four networks count twenty");
        surges.count("our.example", net(4), now);
        assert_eq!(surges.in_surge().count(), 1);
    }

    #[test]
    fn in_a_surge_each_network_has_one_a_minute() {
        let mut surges = Surges::default();
        assert!(burst(&mut surges, 0, 30));
        for minute in 0..3 {
            let now = Timestamp(NOW + minute * 60);
            for network in [net(500), net(501), None] {
                assert!(!surges.defers("our.example", network, now), "{minute} {network:?}");
                assert!(surges.defers("our.example", network, now), "{minute} {network:?}");
            }
            assert!(!surges.defers("other.example", net(500), now));
        }
    }

    #[test]
    fn more_networks_than_are_told_apart_stop_no_other_for_long() {
        let mut surges = Surges::default();
        assert!(burst(&mut surges, 0, 30));
        let now = Timestamp(NOW);
        let let_through = (100..6000).filter(|n| !surges.defers("our.example", net(*n), now)).count();
        assert!((4000..5000).contains(&let_through), "{let_through}");
        let waits = |n: u32, surges: &mut Surges| {
            (0..59).position(|second| !surges.defers("our.example", net(n), Timestamp(NOW + second)))
        };
        let waits: Vec<Option<usize>> = (7000..7100).map(|n| waits(n, &mut surges)).collect();
        assert!(waits.iter().filter(|wait| wait.is_none()).count() <= 2, "{waits:?}");
    }

    #[test]
    fn a_quiet_domain_turns_at_more_than_twenty_and_back_after_a_quarter_of_an_hour() {
        let mut surges = Surges::default();
        assert!(!burst(&mut surges, 0, 20));
        assert!(burst(&mut surges, 0, 21));
        assert_eq!(surges.take_flips(), [SurgeChange { domain: "our.example".into(), at_rcpt: true }]);
        assert!(burst(&mut surges, 15, 1));
        assert!(!burst(&mut surges, 16, 1));
        assert_eq!(surges.take_flips(), [SurgeChange { domain: "our.example".into(), at_rcpt: false }]);
    }

    #[test]
    fn a_busy_domain_needs_ten_times_its_mean() {
        let mut surges = Surges::default();
        // Ten messages a minute, all day.
        for minute in 0..1440 {
            assert!(!burst(&mut surges, minute, 10), "{minute}");
        }
        assert!(!burst(&mut surges, 1440, 95));
        assert!(burst(&mut surges, 1441, 120));
    }

    #[test]
    fn time_passes_without_mail() {
        let mut surges = Surges::default();
        assert!(burst(&mut surges, 0, 30));
        assert_eq!(surges.in_surge().collect::<Vec<_>>(), ["our.example"]);
        surges.tick(Timestamp(NOW + 15 * 60));
        assert_eq!(surges.in_surge().count(), 1);
        surges.tick(Timestamp(NOW + 16 * 60));
        assert_eq!((surges.in_surge().count(), surges.take_flips().len()), (0, 2));
    }

    #[test]
    fn a_surge_does_not_become_the_mean() {
        let mut surges = Surges::default();
        for minute in 0..600 {
            assert!(burst(&mut surges, minute, 200), "{minute}");
        }
    }
}
