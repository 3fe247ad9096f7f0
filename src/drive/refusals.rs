//! What the rules have refused since the process began: by reason, client network, recipient domain and hour. Memory is
//! bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::metrics::Top;
use crate::envelope::abuse::network;
use crate::envelope::time::Timestamp;

/// Hours that are kept.
const HOURS: usize = 24 * 7;
const SECONDS_PER_HOUR: i64 = 3600;

/// Refused recipients and messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    /// Their number, by the name of the reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Their number, by client network.
    pub networks: Top,
    /// Their number, by recipient domain.
    pub domains: Top,
    /// Their number by hour, counted from 1970-01-01 in UTC; the newest last. Hours without any are left out.
    hours: VecDeque<(i64, u64)>,
}

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&mut self, now: Timestamp, reason: &'static str, client: Option<IpAddr>, domain: &str) {
        *self.reasons.entry(reason).or_default() += 1;
        self.networks.count(client.map_or_else(|| "local".into(), |client| network(client).to_string()));
        self.domains.count(domain.to_owned());
        let hour = now.0.div_euclid(SECONDS_PER_HOUR);
        match self.hours.back_mut() {
            // A clock that was set back does not open an hour again.
            Some((last, count)) if *last >= hour => *count += 1,
            _ => self.hours.push_back((hour, 1)),
        }
        if self.hours.len() > HOURS {
            self.hours.pop_front();
        }
    }

    /// The number in each of the last `hours` hours, the current one last.
    #[must_use]
    pub(crate) fn by_hour(&self, now: Timestamp, hours: usize) -> Vec<u64> {
        let this = now.0.div_euclid(SECONDS_PER_HOUR);
        let mut counts = vec![0; hours];
        for (hour, count) in &self.hours {
            let at = usize::try_from(this - hour).ok().and_then(|ago| hours.checked_sub(ago + 1));
            if let Some(slot) = at.and_then(|at| counts.get_mut(at)) {
                *slot += count;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hour_has_its_count_and_old_hours_go() {
        let mut refusals = Refusals::default();
        let at = |hour: i64| Timestamp(1_795_392_000 + hour * SECONDS_PER_HOUR);
        for (hour, times) in [(0, 3), (2, 1), (3, 2)] {
            for _ in 0..times {
                refusals.count(at(hour), "forged", Some("192.0.2.7".parse().unwrap()), "our.example");
            }
        }
        // The clock is set back.
        refusals.count(at(1), "expired", None, "our.example");
        assert_eq!(refusals.by_hour(at(3), 4), [3, 0, 1, 3]);
        assert_eq!(refusals.by_hour(at(4), 3), [1, 3, 0]);
        assert_eq!(refusals.by_hour(at(1000), 3), [0, 0, 0]);
        assert_eq!(refusals.networks.first(2), [("192.0.2.0/24".to_owned(), 6), ("local".to_owned(), 1)]);
        for hour in 0..1000 {
            refusals.count(at(hour), "forged", None, "our.example");
        }
        assert!(refusals.hours.len() <= HOURS);
    }
}
