//! What became of mail, hour by hour, for a week: how much was signed, which bounces were genuine, and what was
//! refused, by reason, client network and recipient domain. Memory is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::envelope::abuse::network;
use crate::envelope::time::Timestamp;
use crate::envelope::top::Top;

/// Hours that are kept.
pub(crate) const HOURS: i64 = 24 * 7;
const SECONDS_PER_HOUR: i64 = 3600;
/// The most networks, and the most domains, of an hour.
const NAMES: usize = 100;

/// What became of mail in one hour, or in several together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hour {
    /// Local senders that were signed.
    pub signed: u64,
    /// Foreign senders that were rewritten.
    pub rewritten: u64,
    /// Bounces to a valid tag.
    pub genuine: u64,
    /// Bounces without a tag that evidence has rescued.
    pub rescued: u64,
    /// Refused recipients and messages, by the name of the reason.
    pub refused: BTreeMap<String, u64>,
    /// What enforcing would have refused, by the name of the reason.
    pub observed: BTreeMap<String, u64>,
    /// What was refused, by client network.
    pub networks: Top<NAMES>,
    /// What was refused, by recipient domain.
    pub domains: Top<NAMES>,
}

impl Hour {
    fn add(&mut self, other: &Self) {
        self.signed += other.signed;
        self.rewritten += other.rewritten;
        self.genuine += other.genuine;
        self.rescued += other.rescued;
        for (sum, of_hour) in [(&mut self.refused, &other.refused), (&mut self.observed, &other.observed)] {
            for (reason, count) in of_hour {
                *sum.entry(reason.clone()).or_default() += count;
            }
        }
        self.networks.add(&other.networks);
        self.domains.add(&other.domains);
    }

    /// Counts a refused recipient or message.
    pub(crate) fn refuse(&mut self, reason: &str, client: Option<IpAddr>, domain: &str) {
        count(&mut self.refused, reason);
        self.networks.count(client.map_or_else(|| "local".into(), |client| network(client).to_string()));
        self.domains.count(domain.to_owned());
    }

    /// Counts what enforcing would have refused.
    pub(crate) fn observe(&mut self, reason: &str) {
        count(&mut self.observed, reason);
    }
}

fn count(counts: &mut BTreeMap<String, u64>, reason: &str) {
    match counts.get_mut(reason) {
        Some(count) => *count += 1,
        None => drop(counts.insert(reason.to_owned(), 1)),
    }
}

/// What became of mail in the last week. Hours are counted from 1970-01-01 in UTC.
#[derive(Debug, Default)]
pub(crate) struct History {
    hours: BTreeMap<i64, Hour>,
    changed: BTreeSet<i64>,
}

impl History {
    /// The current hour, to count in.
    pub(crate) fn now(&mut self, now: Timestamp) -> &mut Hour {
        let hour = number(now);
        while self.hours.len() >= usize::try_from(HOURS).unwrap_or(usize::MAX) && !self.hours.contains_key(&hour) {
            self.hours.pop_first();
        }
        self.changed.insert(hour);
        self.hours.entry(hour).or_default()
    }

    /// The sum of the last hours, the current one included.
    #[must_use]
    pub(crate) fn last(&self, now: Timestamp, hours: i64) -> Hour {
        let this = number(now);
        let mut sum = Hour::default();
        self.hours.range(this - hours + 1..=this).for_each(|(_, hour)| sum.add(hour));
        sum
    }

    /// The number of refusals in each of the last hours, the current one last.
    #[must_use]
    pub(crate) fn refused_by_hour(&self, now: Timestamp, hours: i64) -> Vec<u64> {
        let this = number(now);
        let of = |hour| self.hours.get(&hour).map_or(0, |hour: &Hour| hour.refused.values().sum());
        (this - hours + 1..=this).map(of).collect()
    }

    /// The hours that have changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<(i64, Hour)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|hour| Some((hour, self.hours.get(&hour)?.clone()))).collect()
    }

    /// Puts back an hour that was kept.
    pub(crate) fn restore(&mut self, hour: i64, counts: Hour) {
        self.hours.insert(hour, counts);
    }
}

/// The number of the hour of a moment.
pub(crate) fn number(now: Timestamp) -> i64 {
    now.0.div_euclid(SECONDS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp(1_795_392_000 + hour * SECONDS_PER_HOUR)
    }

    #[test]
    fn each_hour_has_its_count_and_old_hours_go() {
        let mut history = History::default();
        let client = Some("192.0.2.7".parse().unwrap());
        for (hour, times) in [(0, 3), (2, 1), (3, 2)] {
            for _ in 0..times {
                history.now(at(hour)).refuse("forged", client, "our.example");
            }
        }
        history.now(at(3)).signed += 1;
        history.now(at(3)).observe("untagged-ndr");
        assert_eq!(history.refused_by_hour(at(3), 4), [3, 0, 1, 2]);
        assert_eq!(history.refused_by_hour(at(4), 3), [1, 2, 0]);
        let sum = history.last(at(3), 2);
        assert_eq!((sum.refused["forged"], sum.signed, sum.observed["untagged-ndr"]), (3, 1, 1));
        assert_eq!(sum.networks.first(2), [("192.0.2.0/24".to_owned(), 3)]);
        assert_eq!(history.last(at(1000), 24), Hour::default());
        for hour in 0..1000 {
            history.now(at(hour)).refuse("forged", None, "our.example");
        }
        assert_eq!(history.hours.len(), 168);
    }

    #[test]
    fn what_has_changed_is_given_once_and_put_back() {
        let mut history = History::default();
        history.now(at(0)).refuse("forged", None, "our.example");
        history.now(at(1)).genuine += 1;
        let changes = history.take_changes();
        assert_eq!((changes.len(), history.take_changes().len()), (2, 0));
        let mut other = History::default();
        for (hour, counts) in changes {
            let text = serde_json::to_string(&counts).unwrap();
            other.restore(hour, serde_json::from_str(&text).unwrap());
        }
        assert_eq!(other.last(at(1), 2), history.last(at(1), 2));
        assert_eq!(other.take_changes(), []);
    }
}
