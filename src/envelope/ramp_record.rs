//! What a site has seen of its ramps: the days on which signed mail left, and bounces to mail that left unsigned.
//!
//! The record is an input of [`Rules::ramp`](super::rules::Rules::ramp). It has no clock and no file; who keeps it
//! stores it between two runs of the daemon.

use std::collections::{BTreeMap, BTreeSet};

use super::time::{SECONDS_PER_DAY, Timestamp};

/// The most days that are remembered of a domain: three times the longest lifetime of a tag, and some.
const MAX_DAYS: usize = 1300;
/// The most hosts that are remembered of a domain. The one that was seen longest ago gives way.
const MAX_HOSTS: usize = 100;
/// For how long a bounce to unsigned mail holds a ramp, in seconds.
pub const HOLD: i64 = 3 * SECONDS_PER_DAY;

/// What was seen of all domains. The names are entries of `domains.local`, or SRS domains, as in the key ring.
///
/// ```
/// use countersign::envelope::ramp_record::RampRecord;
/// use countersign::envelope::time::Timestamp;
///
/// let monday = Timestamp(1_795_392_000);
/// let mut record = RampRecord::default();
/// assert!(record.note_signed("our.example", monday));
/// assert!(!record.note_signed("our.example", Timestamp(monday.0 + 60)), "that day counts already");
/// let days = record.domain("our.example").map(|domain| domain.signed_days_between(monday, monday));
/// assert_eq!(days, Some(1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RampRecord {
    domains: BTreeMap<String, DomainRecord>,
    /// Whether this host signs mail. A host that signs none has only the calendar to go by.
    pub signs_here: bool,
    /// Until when all domains are observed, because an administrator wants so.
    pub paused_until: Option<Timestamp>,
}

/// What was seen of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainRecord {
    /// Days with signed mail, counted from 1970-01-01 in UTC.
    pub signed_days: BTreeSet<i64>,
    /// Hosts through which mail left unsigned, as bounces to it have shown.
    pub unsigned_hosts: BTreeMap<String, UnsignedMail>,
    /// The start of the ramp that has ended: the domain is enforced until its ramp begins anew. It stands here, too,
    /// because the ring may be read-only.
    pub ended_ramp: Option<Timestamp>,
}

/// Mail that a host has sent unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsignedMail {
    /// Number of bounces that returned such mail.
    pub messages: u64,
    /// When the last one came.
    pub last: Timestamp,
}

impl RampRecord {
    /// A record in which nothing was seen.
    pub const EMPTY: Self = Self { domains: BTreeMap::new(), signs_here: false, paused_until: None };

    /// What was seen of a domain.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<&DomainRecord> {
        self.domains.get(name)
    }

    /// All domains of which something was seen.
    pub fn domains(&self) -> impl Iterator<Item = (&str, &DomainRecord)> {
        self.domains.iter().map(|(name, record)| (name.as_str(), record))
    }

    /// Puts back what was stored of a domain.
    pub fn restore(&mut self, name: String, record: DomainRecord) {
        self.domains.insert(name, record);
    }

    /// Whether signed mail of the domain has left on the day of `now`.
    #[must_use]
    pub fn has_signed_on(&self, name: &str, now: Timestamp) -> bool {
        self.domains.get(name).is_some_and(|domain| domain.signed_days.contains(&day(now)))
    }

    /// Signed mail of the domain has left. Returns whether it is the first of its day.
    pub fn note_signed(&mut self, name: &str, now: Timestamp) -> bool {
        let days = &mut self.domains.entry(name.to_owned()).or_default().signed_days;
        let is_new = days.insert(day(now));
        while days.len() > MAX_DAYS {
            days.pop_first();
        }
        is_new
    }

    /// A bounce has returned mail of the domain that left unsigned through `host`.
    pub fn note_unsigned(&mut self, name: &str, host: &str, now: Timestamp) {
        let hosts = &mut self.domains.entry(name.to_owned()).or_default().unsigned_hosts;
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(host) {
            let oldest = hosts.iter().min_by_key(|(_, mail)| mail.last.0).map(|(host, _)| host.clone());
            if let Some(oldest) = oldest {
                hosts.remove(&oldest);
            }
        }
        let mail = hosts.entry(host.to_owned()).or_insert(UnsignedMail { messages: 0, last: now });
        mail.messages = mail.messages.saturating_add(1);
        mail.last = now;
    }

    /// The ramp that has begun at `start` has ended, and the domain is enforced from now on.
    pub fn note_ended(&mut self, name: &str, start: Timestamp) -> bool {
        let ended = &mut self.domains.entry(name.to_owned()).or_default().ended_ramp;
        ended.replace(start) != Some(start)
    }

    /// Mail of the domain has left unsigned by its own config: what was counted of its ramp counts no more.
    pub fn forget(&mut self, name: &str) -> bool {
        self.domains.remove(name).is_some()
    }
}

impl DomainRecord {
    /// The number of days with signed mail, from the day of `since` to that of `now`. Days of a clock that was ahead do
    /// not count.
    #[must_use]
    pub fn signed_days_between(&self, since: Timestamp, now: Timestamp) -> usize {
        let (first, last) = (day(since), day(now));
        if first > last { 0 } else { self.signed_days.range(first..=last).count() }
    }

    /// The first day with signed mail, from the day of `since` on, counted from 1970-01-01.
    #[must_use]
    pub fn first_signed_day(&self, since: Timestamp) -> Option<i64> {
        self.signed_days.range(day(since)..).next().copied()
    }

    /// The hosts that hold the ramp at `now`, the last seen first.
    #[must_use]
    pub fn holding_hosts(&self, now: Timestamp) -> Vec<(&str, UnsignedMail)> {
        let mut hosts: Vec<_> = self
            .unsigned_hosts
            .iter()
            .filter(|(_, mail)| (0..HOLD).contains(&now.0.saturating_sub(mail.last.0)))
            .map(|(host, mail)| (host.as_str(), *mail))
            .collect();
        hosts.sort_by_key(|(host, mail)| (-mail.last.0, *host));
        hosts
    }
}

/// The day of a moment, counted from 1970-01-01 in UTC.
#[must_use]
pub fn day(at: Timestamp) -> i64 {
    at.0.div_euclid(SECONDS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn at(days: i64) -> Timestamp {
        Timestamp(NOW.0 + days * SECONDS_PER_DAY)
    }

    #[test]
    fn a_day_counts_once_and_old_days_are_forgotten() {
        let mut record = RampRecord::default();
        for days in [0, 0, 1, 5] {
            record.note_signed("our.example", at(days));
        }
        let domain = record.domain("our.example").unwrap();
        assert_eq!((domain.signed_days_between(NOW, at(9)), domain.signed_days_between(at(1), at(4))), (3, 1));
        assert_eq!(domain.first_signed_day(at(1)), Some(day(at(1))));
        for days in 0..2000 {
            record.note_signed("our.example", at(days));
        }
        let domain = record.domain("our.example").unwrap();
        assert_eq!(domain.signed_days.len(), MAX_DAYS);
        assert!(record.has_signed_on("our.example", at(1999)) && !record.has_signed_on("our.example", NOW));
    }

    #[test]
    fn a_host_holds_for_three_days_after_its_last_mail() {
        let mut record = RampRecord::default();
        record.note_unsigned("our.example", "web1.our.example", NOW);
        record.note_unsigned("our.example", "web1.our.example", at(1));
        record.note_unsigned("our.example", "crm.vendor.example", NOW);
        let domain = record.domain("our.example").unwrap();
        let holding =
            |now| domain.holding_hosts(now).iter().map(|(host, mail)| (*host, mail.messages)).collect::<Vec<_>>();
        assert_eq!(holding(at(1)), [("web1.our.example", 2), ("crm.vendor.example", 1)]);
        assert_eq!(holding(at(3)), [("web1.our.example", 2)]);
        assert!(holding(at(4)).is_empty());
    }

    #[test]
    fn hosts_that_anybody_can_make_up_do_not_fill_memory() {
        let mut record = RampRecord::default();
        for n in 0..1000 {
            record.note_unsigned("our.example", &format!("h{n}.example"), Timestamp(NOW.0 + n));
        }
        let hosts = &record.domain("our.example").unwrap().unsigned_hosts;
        assert_eq!(hosts.len(), MAX_HOSTS);
        assert!(hosts.contains_key("h999.example") && !hosts.contains_key("h0.example"));
    }
}
