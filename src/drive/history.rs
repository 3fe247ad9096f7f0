//! What became of mail, hour by hour, for a week: how much was signed, which bounces were genuine, and what was
//! refused, by reason, client network, recipient domain and recipient; and minute by minute for an hour. Memory is
//! bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::envelope::abuse::network;
use crate::envelope::time::Timestamp;
use crate::envelope::top::Top;

/// Hours that are kept.
pub(crate) const HOURS: i64 = 24 * 7;
const SECONDS_PER_HOUR: i64 = 3600;
/// The number of hours, the current one included, whose minutes are kept.
const HOURS_WITH_MINUTES: i64 = 2;
/// The most networks, domains, and recipients of an hour.
const NAMES: usize = 100;

/// What became of mail in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// Local senders that were signed.
    pub signed: u64,
    /// Foreign senders that were rewritten.
    pub rewritten: u64,
    /// Bounces to a valid tag.
    pub genuine: u64,
    /// Bounces without a tag that evidence has rescued.
    pub rescued: u64,
    /// Other messages without a sender that were inspected and delivered: receipts, absence notices, reports.
    pub replies: u64,
    /// Recipients and messages that were only marked, because their domain is observed.
    pub marked: u64,
    /// Refused recipients and messages, by the name of the reason.
    pub refused: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds what became of mail in another time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.signed += other.signed;
        self.rewritten += other.rewritten;
        self.genuine += other.genuine;
        self.rescued += other.rescued;
        self.replies += other.replies;
        self.marked += other.marked;
        add_all(&mut self.refused, &other.refused);
    }

    /// The number of refused recipients and messages.
    pub(crate) fn all_refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// What became of mail in one hour, or in several together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hour {
    /// The numbers.
    #[serde(flatten)]
    pub counts: Counts,
    /// What enforcing would have refused, by the name of the reason.
    pub observed: BTreeMap<String, u64>,
    /// What was refused, by client network.
    pub networks: Top<NAMES>,
    /// What was refused, by recipient domain.
    pub domains: Top<NAMES>,
    /// What was refused, by recipient.
    pub recipients: Top<NAMES>,
    /// The numbers of each minute. Only recent hours have them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub minutes: BTreeMap<u8, Counts>,
}

impl Hour {
    /// Adds another hour, without its minutes.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        add_all(&mut self.observed, &other.observed);
        self.networks.add(&other.networks);
        self.domains.add(&other.domains);
        self.recipients.add(&other.recipients);
    }
}

fn add_all(sum: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (reason, times) in other {
        count(sum, reason, *times);
    }
}

fn count(counts: &mut BTreeMap<String, u64>, reason: &str, times: u64) {
    match counts.get_mut(reason) {
        Some(count) => *count += times,
        None => drop(counts.insert(reason.to_owned(), times)),
    }
}

/// A refused recipient or message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    /// The name of the reason.
    pub reason: &'a str,
    /// The client, if it is known.
    pub client: Option<IpAddr>,
    /// The domain of the recipient.
    pub domain: &'a str,
    /// The recipient, with as much detail as is kept of addresses.
    pub recipient: &'a str,
}

/// What became of mail in the last week. Hours are counted from 1970-01-01 in UTC.
///
/// A reader gets the hours without a copy; only the next change of such an hour makes one.
#[derive(Debug, Default)]
pub(crate) struct History {
    hours: BTreeMap<i64, Arc<Hour>>,
    changed: BTreeSet<i64>,
}

impl History {
    /// The current hour, to count in.
    fn now(&mut self, now: Timestamp) -> &mut Hour {
        let hour = number(now);
        if !self.hours.contains_key(&hour) {
            // The clock was ahead: what it counted then is in no week any more.
            self.hours.split_off(&(hour + 2));
            while self.hours.len() >= usize::try_from(HOURS).unwrap_or(usize::MAX) {
                self.hours.pop_first();
            }
            self.forget_minutes(hour - HOURS_WITH_MINUTES);
        }
        self.changed.insert(hour);
        Arc::make_mut(self.hours.entry(hour).or_default())
    }

    /// Forgets the minutes of this hour and of earlier ones.
    fn forget_minutes(&mut self, hour: i64) {
        for (number, old) in self.hours.range_mut(..=hour).filter(|(_, old)| !old.minutes.is_empty()) {
            Arc::make_mut(old).minutes.clear();
            self.changed.insert(*number);
        }
    }

    /// Counts something now, in the hour and in the minute.
    pub(crate) fn count(&mut self, now: Timestamp, change: impl Fn(&mut Counts)) {
        let hour = self.now(now);
        change(&mut hour.counts);
        change(hour.minutes.entry(minute(now)).or_default());
    }

    /// Counts a refused recipient or message.
    pub(crate) fn refuse(&mut self, now: Timestamp, refused: Refused<'_>) {
        self.count(now, |counts| count(&mut counts.refused, refused.reason, 1));
        let hour = self.now(now);
        hour.networks.count(refused.client.map_or_else(|| "local".into(), |client| network(client).to_string()));
        hour.domains.count_text(refused.domain, 1);
        hour.recipients.count_text(refused.recipient, 1);
    }

    /// Counts what enforcing would have refused.
    pub(crate) fn observe(&mut self, now: Timestamp, reason: &str) {
        self.count(now, |counts| counts.marked += 1);
        count(&mut self.now(now).observed, reason, 1);
    }

    /// The hours from one to another, both included, as far as anything has happened in them.
    #[must_use]
    pub(crate) fn hours(&self, first: i64, last: i64) -> Vec<(i64, Arc<Hour>)> {
        if first > last {
            return Vec::new();
        }
        self.hours.range(first..=last).map(|(number, hour)| (*number, Arc::clone(hour))).collect()
    }

    /// The hours that have changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<(i64, Arc<Hour>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|hour| Some((hour, Arc::clone(self.hours.get(&hour)?)))).collect()
    }

    /// Puts back an hour that was kept.
    pub(crate) fn restore(&mut self, hour: i64, counts: Hour) {
        self.hours.insert(hour, Arc::new(counts));
    }
}

/// The sum of hours.
#[must_use]
pub(crate) fn sum_of(hours: &[(i64, Arc<Hour>)]) -> Hour {
    let mut sum = Hour::default();
    hours.iter().for_each(|(_, hour)| sum.add(hour));
    sum
}

/// The minute of a moment within its hour.
fn minute(now: Timestamp) -> u8 {
    u8::try_from(now.0.rem_euclid(SECONDS_PER_HOUR) / 60).unwrap_or(0)
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

    fn last(history: &History, now: Timestamp, hours: i64) -> Hour {
        sum_of(&history.hours(number(now) - hours + 1, number(now)))
    }

    fn refused(client: Option<IpAddr>) -> Refused<'static> {
        Refused { reason: "forged", client, domain: "our.example", recipient: "ann@our.example" }
    }

    #[test]
    fn each_hour_has_its_count_and_old_hours_go() {
        let mut history = History::default();
        let client = Some("192.0.2.7".parse().unwrap());
        for (hour, times) in [(0, 3), (2, 1), (3, 2)] {
            for _ in 0..times {
                history.refuse(at(hour), refused(client));
            }
        }
        history.count(at(3), |counts| counts.signed += 1);
        history.observe(at(3), "untagged-ndr");
        let by_hour = |history: &History, first, last| {
            let hours = history.hours(number(at(first)), number(at(last)));
            hours.iter().map(|(n, hour)| (n - number(at(0)), hour.counts.all_refused())).collect::<Vec<_>>()
        };
        assert_eq!(by_hour(&history, 0, 3), [(0, 3), (2, 1), (3, 2)]);
        assert_eq!(by_hour(&history, 2, 4), [(2, 1), (3, 2)]);
        assert_eq!(by_hour(&history, 4, 2), []);
        let sum = last(&history, at(3), 2);
        assert_eq!((sum.counts.refused["forged"], sum.counts.signed, sum.observed["untagged-ndr"]), (3, 1, 1));
        assert_eq!(sum.networks.first(2), [("192.0.2.0/24".to_owned(), 3)]);
        assert_eq!(sum.recipients.first(2), [("ann@our.example".to_owned(), 3)]);
        assert_eq!(last(&history, at(1000), 24), Hour::default());
        for hour in 0..1000 {
            history.refuse(at(hour), refused(None));
        }
        assert_eq!(history.hours.len(), 168);
        // The clock is set back.
        history.refuse(at(500), refused(None));
        history.refuse(at(501), refused(None));
        assert_eq!(by_hour(&history, 0, 1000), [(500, 1), (501, 1)]);
    }

    #[test]
    fn minutes_are_kept_for_this_hour_and_the_one_before() {
        let mut history = History::default();
        for seconds in [0, 59, 60, 3599] {
            history.refuse(Timestamp(at(0).0 + seconds), refused(None));
        }
        history.count(at(1), |counts| counts.signed += 1);
        let minutes = |history: &History, hour: i64| {
            let hours = history.hours(number(at(hour)), number(at(hour)));
            hours[0].1.minutes.iter().map(|(m, counts)| (*m, counts.all_refused())).collect::<Vec<_>>()
        };
        assert_eq!(minutes(&history, 0), [(0, 2), (1, 1), (59, 1)]);
        history.take_changes();
        history.count(at(2), |counts| counts.signed += 1);
        assert_eq!(minutes(&history, 0), []);
        assert_eq!(minutes(&history, 1), [(0, 0)]);
        assert_eq!(history.take_changes().len(), 2, "the hour that lost its minutes is written again");
    }

    #[test]
    fn what_has_changed_is_given_once_and_put_back() {
        let mut history = History::default();
        history.refuse(at(0), refused(None));
        history.count(at(1), |counts| counts.genuine += 1);
        let changes = history.take_changes();
        assert_eq!((changes.len(), history.take_changes().len()), (2, 0));
        let mut other = History::default();
        for (hour, counts) in changes {
            let text = serde_json::to_string(&*counts).unwrap();
            other.restore(hour, serde_json::from_str(&text).unwrap());
        }
        assert_eq!(last(&other, at(1), 2), last(&history, at(1), 2));
        assert_eq!(other.take_changes(), []);
        assert_eq!(other.hours, history.hours);
    }

    #[test]
    fn hours_that_an_earlier_version_has_stored_are_read() {
        let old = r#"{"signed":2,"rewritten":1,"genuine":3,"rescued":0,"refused":{"forged":7},"observed":{},
            "networks":{"192.0.2.0/24":7},"domains":{"our.example":7}}"#;
        let hour: Hour = serde_json::from_str(old).unwrap();
        assert_eq!((hour.counts.signed, hour.counts.all_refused(), hour.networks.len()), (2, 7, 1));
        assert_eq!((hour.counts.replies, hour.minutes.len()), (0, 0));
    }
}
