//! Which notices are due: each thing once when it begins, and at most once a day.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::notice::Notice;
use crate::envelope::rules::{Ramp, Waiting};
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};

/// Seconds for which a next hop has to be down.
const DOWN: i64 = 300;
/// Seconds before a certificate expires or a key is due.
const SOON: i64 = 14 * SECONDS_PER_DAY;
/// The most things that are remembered.
const MAX_KEYS: usize = 10_000;

/// A running daemon, as far as notices are about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub ramps: Vec<(String, Ramp)>,
    /// Domains that are in a surge.
    pub surges: BTreeSet<String>,
    /// Queries that were not answered because of a limit on guesses.
    pub limited: u64,
    pub ring_is_bad: bool,
    pub state_is_bad: bool,
    /// Next hops that are down.
    pub down: BTreeSet<String>,
    /// When certificates expire, by listener.
    pub certificates: Vec<(String, Timestamp)>,
    /// When the signing key should be rotated.
    pub key_due: Option<Timestamp>,
}

/// What was told, and what was seen last. It is kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Watcher {
    /// When each thing was last told, in seconds since 1970.
    told: BTreeMap<String, i64>,
    /// What was the case when last looked at.
    active: BTreeSet<String>,
    /// Domains that were enforced; `None`: nothing was looked at yet.
    enforced: Option<BTreeSet<String>>,
    /// The Monday of the last weekly digest, as a day since 1970.
    digest: Option<i64>,
    #[serde(skip)]
    surges: BTreeSet<String>,
    /// The number of unanswered queries that was seen last; `None`: none yet.
    #[serde(skip)]
    limited: Option<u64>,
    /// Since when next hops are down.
    #[serde(skip)]
    down: BTreeMap<String, i64>,
}

impl Watcher {
    /// The notices that are due.
    pub(super) fn look(&mut self, seen: &Snapshot, now: Timestamp) -> Vec<Notice> {
        let mut due = self.events(seen);
        let states = self.states(seen, now);
        let mut active: BTreeSet<String> = states.iter().map(Notice::key).collect();
        due.extend(states.into_iter().filter(|notice| !self.active.contains(&notice.key())));
        // What may not be told yet is told when a day is over, if it is still the case.
        due.retain(|notice| {
            let is_due = self.is_due(notice, now);
            if !is_due {
                active.remove(&notice.key());
            }
            is_due
        });
        self.active = active;
        due
    }

    /// Whether a notice was not given within a day. It counts as given then.
    fn is_due(&mut self, notice: &Notice, now: Timestamp) -> bool {
        let key = notice.key();
        let is_due = self.told.get(&key).is_none_or(|at| !(0..SECONDS_PER_DAY).contains(&(now.0 - at)));
        if is_due {
            self.told.retain(|_, at| now.0 - *at < SECONDS_PER_DAY);
            if self.told.len() >= MAX_KEYS {
                return false;
            }
            self.told.insert(key, now.0);
        }
        is_due
    }

    /// What has just happened.
    fn events(&mut self, seen: &Snapshot) -> Vec<Notice> {
        let is_enforced = |ramp: &&(String, Ramp)| ramp.1 == Ramp::Enforcing;
        let enforced: BTreeSet<String> = seen.ramps.iter().filter(is_enforced).map(|(name, _)| name.clone()).collect();
        let mut events = Vec::new();
        // Domains that were enforced before anybody looked are no news.
        if let Some(before) = &self.enforced {
            events.extend(enforced.difference(before).cloned().map(Notice::Enforced));
        }
        // While all domains are observed, nothing is forgotten: the end of that is no news.
        if !seen.ramps.iter().any(|(_, ramp)| matches!(ramp, Ramp::Paused(_))) {
            self.enforced = Some(enforced);
        }
        events.extend(seen.surges.difference(&self.surges).cloned().map(Notice::SurgeBegan));
        events.extend(self.surges.difference(&seen.surges).cloned().map(Notice::SurgeEnded));
        self.surges.clone_from(&seen.surges);
        // The number is kept over a restart, so the first one is no news.
        if self.limited.replace(seen.limited).is_some_and(|before| seen.limited > before) {
            events.push(Notice::Guessing);
        }
        events
    }

    /// What is the case.
    fn states(&mut self, seen: &Snapshot, now: Timestamp) -> Vec<Notice> {
        let mut states = Vec::new();
        for (name, ramp) in &seen.ramps {
            match ramp {
                Ramp::Waiting(Waiting { hold: Some(hold), .. }) => {
                    states.push(Notice::RampHeld(name.clone(), hold.clone()));
                }
                Ramp::Waiting(Waiting { until: Some(until), days: None, hold: None })
                    if until.0 - now.0 <= SECONDS_PER_DAY =>
                {
                    states.push(Notice::RampEnds(name.clone(), *until));
                }
                _ => {}
            }
        }
        self.down.retain(|hop, _| seen.down.contains(hop));
        for hop in &seen.down {
            let since = self.down.entry(hop.clone()).or_insert(now.0);
            if now.0 - *since >= DOWN {
                states.push(Notice::NextHopDown(hop.clone()));
            }
        }
        let is_soon = |at: &Timestamp| at.0 - now.0 <= SOON;
        let certificates = seen.certificates.iter().filter(|(_, at)| is_soon(at));
        states.extend(certificates.map(|(listener, at)| Notice::CertificateDue(listener.clone(), *at)));
        states.extend(seen.key_due.filter(is_soon).map(Notice::KeyDue));
        if seen.ring_is_bad {
            states.push(Notice::RingBad);
        }
        if seen.state_is_bad {
            states.push(Notice::StateUnwritable);
        }
        states
    }

    /// Whether the weekly digest is due: on Mondays, from six in the morning (UTC).
    pub(super) fn digest_is_due(&mut self, now: Timestamp) -> bool {
        let day = now.day().0;
        // 1970-01-01 was a Thursday.
        let is_monday = (day + 3).rem_euclid(7) == 0;
        let is_due = is_monday && now.0 - now.day().start().0 >= 6 * 3600 && self.digest != Some(day);
        if is_due {
            self.digest = Some(day);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::rules::RampHold;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn after(seconds: i64) -> Timestamp {
        Timestamp(NOW.0 + seconds)
    }

    fn waiting(hold: bool, until: i64) -> Ramp {
        let hold = hold.then(|| RampHold { host: "web1.our.example".into(), messages: 1, last: NOW, others: 0 });
        Ramp::Waiting(Waiting { until: Some(after(until)), days: None, hold })
    }

    fn keys(notices: &[Notice]) -> Vec<String> {
        notices.iter().map(|notice| notice.key().trim_end().to_owned()).collect()
    }

    #[test]
    fn each_thing_is_told_once() {
        let calm = Snapshot::default();
        let surge = Snapshot { surges: ["our.example".to_owned()].into(), ..Snapshot::default() };
        let ramp = |ramp| Snapshot { ramps: vec![("our.example".to_owned(), ramp)], ..Snapshot::default() };
        for (before, seen, want) in [
            (ramp(waiting(false, 500_000)), ramp(waiting(true, 500_000)), "ramp-held our.example"),
            (ramp(waiting(false, 500_000)), ramp(waiting(false, 80_000)), "ramp-ends our.example"),
            (ramp(waiting(false, 10)), ramp(Ramp::Enforcing), "enforced our.example"),
            (calm.clone(), surge.clone(), "surge-began our.example"),
            (surge, calm.clone(), "surge-ended our.example"),
            (calm.clone(), Snapshot { limited: 1, ..calm.clone() }, "guessing"),
            (calm.clone(), Snapshot { ring_is_bad: true, ..calm.clone() }, "ring-bad"),
            (calm.clone(), Snapshot { state_is_bad: true, ..calm.clone() }, "state-unwritable"),
            (calm.clone(), Snapshot { key_due: Some(after(14 * 86_400)), ..calm.clone() }, "key-due"),
            (
                calm.clone(),
                Snapshot { certificates: vec![("0.0.0.0:25".into(), after(14 * 86_400))], ..calm.clone() },
                "certificate-due 0.0.0.0:25",
            ),
        ] {
            let mut watcher = Watcher::default();
            watcher.look(&before, NOW);
            let told = watcher.look(&seen, after(1));
            assert_eq!(keys(&told), [want]);
            assert!(told.iter().all(|notice| notice.title().len() < 120 && notice.text().ends_with(['.', '?'])
                || notice.text().contains("countersign ")));
            for second in 2..10 {
                assert_eq!(watcher.look(&seen, after(second)), [], "{want}");
            }
            // It is kept over a restart.
            let text = serde_json::to_string(&watcher).unwrap();
            let mut later: Watcher = serde_json::from_str(&text).unwrap();
            later.surges.clone_from(&seen.surges);
            later.limited = Some(seen.limited);
            assert_eq!(later.look(&seen, after(20)), [], "{want}");
        }
    }

    #[test]
    fn what_flaps_makes_no_storm() {
        let (calm, bad) = (Snapshot::default(), Snapshot { ring_is_bad: true, ..Snapshot::default() });
        let mut watcher = Watcher::default();
        let mut told = 0;
        for minute in 0..3 * 24 * 60 {
            let seen = if minute % 2 == 0 { &bad } else { &calm };
            told += watcher.look(seen, after(minute * 60)).len();
        }
        assert_eq!(told, 3);
    }

    #[test]
    fn what_comes_back_within_a_day_and_stays_is_told_when_the_day_is_over() {
        let (calm, bad) = (Snapshot::default(), Snapshot { ring_is_bad: true, ..Snapshot::default() });
        let mut watcher = Watcher::default();
        assert_eq!(watcher.look(&bad, NOW), [Notice::RingBad]);
        watcher.look(&calm, after(3600));
        for hour in 2..24 {
            assert_eq!(watcher.look(&bad, after(hour * 3600)), [], "{hour}");
        }
        assert_eq!(watcher.look(&bad, after(24 * 3600)), [Notice::RingBad]);
        assert_eq!(watcher.look(&bad, after(72 * 3600)), []);
    }

    #[test]
    fn a_next_hop_is_down_after_five_minutes_in_a_row() {
        let down = Snapshot { down: ["127.0.0.1:10026".to_owned()].into(), ..Snapshot::default() };
        let mut watcher = Watcher::default();
        assert_eq!(watcher.look(&down, NOW), []);
        assert_eq!(watcher.look(&down, after(299)), []);
        watcher.look(&Snapshot::default(), after(299));
        assert_eq!(watcher.look(&down, after(301)), []);
        assert_eq!(keys(&watcher.look(&down, after(601))), ["next-hop-down 127.0.0.1:10026"]);
        assert_eq!(watcher.look(&down, after(700)), []);
    }

    #[test]
    fn what_is_enforced_from_the_first_is_no_news() {
        let seen = Snapshot { ramps: vec![("our.example".to_owned(), Ramp::Enforcing)], ..Snapshot::default() };
        let mut watcher = Watcher::default();
        assert_eq!(watcher.look(&seen, NOW), []);
        // All domains are observed for a while.
        let paused =
            Snapshot { ramps: vec![("our.example".to_owned(), Ramp::Paused(after(60)))], ..Snapshot::default() };
        assert_eq!(watcher.look(&paused, after(1)), []);
        assert_eq!(watcher.look(&seen, after(61)), []);
    }

    #[test]
    fn a_digest_on_each_monday() {
        // 2026-11-23 is a Monday.
        let monday = 1_795_392_000;
        assert_eq!(Timestamp(monday).day().start().0, monday);
        let mut watcher = Watcher::default();
        let due: Vec<i64> =
            (0..21 * 24).filter(|hour| watcher.digest_is_due(Timestamp(monday + hour * 3600))).collect();
        assert_eq!(due, [6, 6 + 7 * 24, 6 + 14 * 24]);
    }
}
