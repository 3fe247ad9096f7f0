//! The ramp (`inbound.mode = "ramp"`): a domain is observed until its mail has been signed for long enough, and no
//! genuine bounce to unsigned mail arrives any more.

use core::net::IpAddr;

use super::{Outbound, OutboundAction, OutboundReason, Rules};
use crate::envelope::address::{Address, ReversePath, canonical_domain};
use crate::envelope::keyring::{RampDecision, RampNote};
use crate::envelope::ramp_record::{DomainRecord, day};
use crate::envelope::site_policy::{InboundMode, OutboundMode};
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};

/// A domain with little mail is enforced after signed mail on this number of days, if the first of them is three ramps
/// ago.
const FEW_DAYS: usize = 3;

/// The state of a domain's ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ramp {
    /// No start of signing is recorded.
    NotStarted,
    /// The domain is observed, because something is missing.
    Waiting(Waiting),
    /// The domain is observed, because an administrator has decided so.
    Observed,
    /// All domains are observed until this moment, because an administrator has decided so.
    Paused(Timestamp),
    /// The domain is enforced.
    Enforcing,
}

/// What is missing before a domain is enforced. At least one of the fields is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The moment at which bounces to mail from before the ramp have died.
    pub until: Option<Timestamp>,
    /// Signed mail has left on too few days.
    pub days: Option<SignedDays>,
    /// Genuine bounces to unsigned mail have come in the last three days.
    pub hold: Option<RampHold>,
}

/// The days on which signed mail of a domain has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedDays {
    /// Their number so far.
    pub signed: usize,
    /// The number that is needed.
    pub needed: usize,
}

/// What holds a ramp: bounces that return mail of this site which left unsigned. A stranger can make such a bounce up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RampHold {
    /// The host through which the mail left, as the bounce shows it.
    pub host: String,
    /// Number of such bounces.
    pub messages: u64,
    /// When the last one came.
    pub last: Timestamp,
    /// Number of other hosts.
    pub others: usize,
}

/// A change of a ramp, as caused by outbound mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RampEvent {
    /// The first signed mail of this entry of `domains.local`, or of this SRS domain: the ramp begins.
    Started(String),
    /// The first signed mail of this entry on a day.
    SignedDay(String),
    /// Mail of this entry left unsigned because of `outbound.mode`: the ramp ends, and begins anew with the next signed
    /// mail.
    Gap(String),
    /// The ramp of this entry that has begun at this moment has ended: the entry is enforced from now on.
    Enforced(String, Timestamp),
}

impl Rules<'_> {
    /// The state of a domain's ramp. `domain` is a local domain or an SRS domain.
    #[must_use]
    pub fn ramp(&self, domain: &str) -> Ramp {
        if let Some(until) = self.ramps.paused_until.filter(|until| self.now < *until) {
            return Ramp::Paused(until);
        }
        let Some((entry, days)) = self.ramp_entry(domain) else { return Ramp::NotStarted };
        let note = self.ring.ramp_note(&entry);
        match note.decision {
            Some(RampDecision::Enforce) => return Ramp::Enforcing,
            Some(RampDecision::Observe) => return Ramp::Observed,
            None if note.enforced.is_some() => return Ramp::Enforcing,
            None => {}
        }
        let Some(&since) = self.ring.signing_since().get(&entry) else { return Ramp::NotStarted };
        let record = self.ramps.domain(&entry);
        if record.is_some_and(|record| record.ended_ramp == Some(since)) {
            return Ramp::Enforcing;
        }
        let waiting =
            Waiting { hold: record.and_then(|record| self.hold(record)), ..self.days(record, since, days, &note) };
        if waiting == Waiting::default() { Ramp::Enforcing } else { Ramp::Waiting(waiting) }
    }

    /// Whether mail of a domain has been signed for long enough.
    fn days(&self, record: Option<&DomainRecord>, since: Timestamp, needed: u16, note: &RampNote) -> Waiting {
        let until = Timestamp(since.0.saturating_add(i64::from(needed) * SECONDS_PER_DAY));
        let until = Some(until).filter(|until| self.now < *until);
        let signed = record.map_or(0, |record| record.signed_days_between(since, self.now));
        // A host that signs nothing itself has only the ring to go by, and in a ring of an earlier version nothing was
        // counted.
        if self.goes_by_calendar(note) || (signed == 0 && !note.counted) {
            return Waiting { until, ..Waiting::default() };
        }
        let needed = usize::from(needed);
        let first = record.and_then(|record| record.first_signed_day(since));
        let is_long_ago =
            first.is_some_and(|first| day(self.now) - first >= 3 * i64::try_from(needed).unwrap_or(i64::MAX / 3));
        let enough = signed >= needed || (signed >= FEW_DAYS && is_long_ago);
        let days = (!enough).then_some(SignedDays { signed, needed });
        Waiting { until, days, hold: None }
    }

    /// Whether the days since the start of a ramp count, with or without signed mail.
    fn goes_by_calendar(&self, note: &RampNote) -> bool {
        let signs = self.ramps.signs_here && self.policy.outbound.mode == OutboundMode::Sign;
        note.by_hand || (note.counted && !signs)
    }

    /// Whether a domain whose ramp has ended stays enforced. What a host knows from the calendar alone is nothing to
    /// tell others.
    #[must_use]
    pub fn stays_enforced(&self, domain: &str) -> bool {
        let note = self.ramp_entry(domain).map(|(entry, _)| self.ring.ramp_note(&entry)).unwrap_or_default();
        note.by_hand || !self.goes_by_calendar(&note)
    }

    fn hold(&self, record: &DomainRecord) -> Option<RampHold> {
        let hosts = record.holding_hosts(self.now);
        let (host, mail) = hosts.first()?;
        let others = hosts.len().saturating_sub(1);
        Some(RampHold { host: (*host).to_owned(), messages: mail.messages, last: mail.last, others })
    }

    /// The name under which a domain stands in the ring and in the record.
    #[must_use]
    pub fn ramp_name(&self, domain: &str) -> Option<String> {
        self.ramp_entry(domain).map(|(entry, _)| entry)
    }

    /// The name of a domain in the ring, and the length of its ramp in days.
    fn ramp_entry(&self, domain: &str) -> Option<(String, u16)> {
        let (domains, queue) = (&self.policy.domains, self.policy.inbound.queue_lifetime);
        if let Some(entry) = domains.local_entry(domain) {
            // A domain may have an entry of its own in the ring, even if the config has only a wildcard for it.
            let own = canonical_domain(domain).into_owned();
            let has_own = self.ring.signing_since().contains_key(&own) || self.ring.ramps().contains_key(&own);
            let entry = if has_own { own } else { entry };
            return Some((entry, self.policy.batv.lifetime.max(queue)));
        }
        let alias = canonical_domain(domain).into_owned();
        domains.srs.contains(domain).then(|| (alias, self.policy.srs.lifetime.max(queue)))
    }

    /// Whether verdicts are observed only, because of the mode, the domain's ramp, or an exempt client: mail is marked
    /// instead of refused.
    pub(super) fn is_lenient(&self, client: Option<IpAddr>, domain: &str) -> bool {
        let inbound = &self.policy.inbound;
        let paused = self.ramps.paused_until.is_some_and(|until| self.now < until);
        let observed = match inbound.mode {
            _ if paused => true,
            InboundMode::Observe => true,
            InboundMode::Enforce => false,
            InboundMode::Ramp => self.ramp(domain) != Ramp::Enforcing,
        };
        observed || client.is_some_and(|client| inbound.exempt_clients.contains(client))
    }

    /// The change of a ramp caused by this answer about a sender, unless it is recorded already.
    #[must_use]
    pub fn ramp_event(&self, sender: &ReversePath, outbound: &Outbound) -> Option<RampEvent> {
        let sender = sender.address()?;
        match (&outbound.action, self.policy.outbound.mode) {
            (OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed), OutboundMode::Sign) => {
                let (entry, _) = self.ramp_entry(signed.address().domain())?;
                if !self.ring.signing_since().contains_key(&entry) {
                    Some(RampEvent::Started(entry))
                } else if !self.ramps.has_signed_on(&entry, self.now) {
                    Some(RampEvent::SignedDay(entry))
                } else {
                    None
                }
            }
            (OutboundAction::Pass, OutboundMode::Off | OutboundMode::Pilot) if is_by_mode(outbound) => self.gap(sender),
            _ => None,
        }
    }

    fn gap(&self, sender: &Address) -> Option<RampEvent> {
        let (entry, _) = self.ramp_entry(sender.domain())?;
        self.ring.signing_since().contains_key(&entry).then_some(RampEvent::Gap(entry))
    }
}

/// Whether a sender is unsigned because of the mode alone. Bounces to senders that a list exempts are not checked, so
/// those do not affect the ramp.
fn is_by_mode(outbound: &Outbound) -> bool {
    matches!(outbound.reason, OutboundReason::ModeOff | OutboundReason::NotInPilot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::match_lists::DomainSet;
    use crate::envelope::ramp_record::RampRecord;
    use crate::envelope::site_policy::Policy;

    /// Noon, so that hours more or less stay on their day.
    const START: Timestamp = Timestamp(1_795_392_000 + 43_200);

    fn at(days: i64) -> Timestamp {
        Timestamp(START.0 + days * SECONDS_PER_DAY)
    }

    struct Site {
        policy: Policy,
        ring: Keyring,
        record: RampRecord,
    }

    impl Site {
        /// A site whose first mail was signed on day 0.
        fn new() -> Self {
            let mut policy = Policy::default();
            policy.domains.local = DomainSet::from_iter(["our.example", "*.branch.example"]);
            policy.inbound.mode = InboundMode::Ramp;
            let secret = Secret::new(vec![7; 32].into());
            let key =
                NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
            let mut ring = Keyring::create(key, START).unwrap();
            ring.ramp_start_counted("our.example", START);
            let mut record = RampRecord::default();
            record.signs_here = true;
            Self { policy, ring, record }
        }

        fn signed_on(&mut self, days: impl IntoIterator<Item = i64>) {
            for day in days {
                self.record.note_signed("our.example", at(day));
            }
        }

        fn on(&self, days: i64) -> Ramp {
            Rules::new(&self.policy, &self.ring, at(days)).with_ramps(&self.record).ramp("our.example")
        }

        fn missing_days(&self, days: i64) -> Option<(usize, usize)> {
            match self.on(days) {
                Ramp::Waiting(Waiting { days: Some(SignedDays { signed, needed }), .. }) => Some((signed, needed)),
                _ => None,
            }
        }
    }

    #[test]
    fn one_message_and_silent_days_enforce_nothing() {
        let mut site = Site::new();
        site.signed_on([0]);
        for days in [1, 7, 8, 30, 400] {
            assert_eq!(site.missing_days(days), Some((1, 7)), "{days}");
        }
    }

    #[test]
    fn signed_mail_on_each_day_ends_the_ramp() {
        let mut site = Site::new();
        for day in 0..7 {
            site.signed_on([day]);
            let Ramp::Waiting(waiting) = site.on(day) else { panic!("day {day}") };
            assert_eq!(waiting.until, Some(at(7)), "bounces to mail before the first signed one live that long");
        }
        assert_eq!(site.on(7), Ramp::Enforcing);
        // Weekends without mail: the ramp takes as long as it takes.
        let mut site = Site::new();
        site.signed_on([0, 1, 2, 3, 4]);
        assert_eq!(site.missing_days(7), Some((5, 7)));
        site.signed_on([7, 8]);
        assert_eq!(site.on(8), Ramp::Enforcing);
    }

    #[test]
    fn a_domain_with_little_mail_needs_three_days_within_three_ramps() {
        let mut site = Site::new();
        site.signed_on([0, 9]);
        assert_eq!(site.missing_days(25), Some((2, 7)));
        site.signed_on([15]);
        assert_eq!(site.missing_days(20), Some((3, 7)));
        assert_eq!(site.on(21), Ramp::Enforcing);
    }

    #[test]
    fn a_host_that_signs_nothing_goes_by_the_ring() {
        let mut site = Site::new();
        // Where the record was lost, nobody knows whether mail was signed.
        assert_eq!(site.missing_days(7), Some((0, 7)));
        site.record.signs_here = false;
        assert_eq!(site.on(6), Ramp::Waiting(Waiting { until: Some(at(7)), ..Waiting::default() }));
        assert_eq!(site.on(7), Ramp::Enforcing);
        let stays = |site: &Site| {
            Rules::new(&site.policy, &site.ring, at(7)).with_ramps(&site.record).stays_enforced("our.example")
        };
        assert!(!stays(&site), "the host that signs may know better");
        site.record.signs_here = true;
        assert!(stays(&site));
        // It could sign, and leaves that to another host.
        site.policy.outbound.mode = OutboundMode::Off;
        assert_eq!((site.on(7), stays(&site)), (Ramp::Enforcing, false));
        site.policy.outbound.mode = OutboundMode::Sign;
        // An administrator does.
        site.ring.ramp_start_by_hand("our.example", START);
        assert_eq!(site.on(7), Ramp::Enforcing);
        assert_eq!(Rules::new(&site.policy, &site.ring, at(99)).ramp("else.branch.example"), Ramp::NotStarted);
    }

    #[test]
    fn a_ring_of_an_earlier_version_goes_by_the_calendar_until_mail_is_counted() {
        let mut site = Site::new();
        site.ring.ramp_stop("our.example", at(0));
        site.ring.ramp_start("our.example", START);
        assert_eq!(site.on(7), Ramp::Enforcing);
        // The daemon notes that before it accepts mail.
        site.ring.ramp_enforced("our.example", at(7));
        site.signed_on([7]);
        assert_eq!(site.on(7), Ramp::Enforcing);
    }

    #[test]
    fn days_and_bounces_of_a_clock_that_was_ahead_do_not_count() {
        let mut site = Site::new();
        site.signed_on([0, 1, 2, 3, 400, 401, 402]);
        assert_eq!(site.missing_days(8), Some((4, 7)));
        site.record.note_unsigned("our.example", "web1.our.example", at(400));
        assert!(!matches!(site.on(8), Ramp::Waiting(Waiting { hold: Some(_), .. })));
    }

    #[test]
    fn genuine_bounces_to_unsigned_mail_hold_the_ramp_for_three_days() {
        let mut site = Site::new();
        site.signed_on(0..9);
        site.record.note_unsigned("our.example", "web1.our.example", at(5));
        site.record.note_unsigned("our.example", "web1.our.example", at(6));
        let hold = RampHold { host: "web1.our.example".into(), messages: 2, last: at(6), others: 0 };
        for days in [7, 8] {
            assert_eq!(
                site.on(days),
                Ramp::Waiting(Waiting { hold: Some(hold.clone()), ..Waiting::default() }),
                "{days}"
            );
        }
        assert_eq!(site.on(9), Ramp::Enforcing);
    }

    #[test]
    fn nothing_that_a_stranger_sends_ends_what_is_enforced() {
        let mut site = Site::new();
        site.signed_on([0]);
        for in_the_ring in [true, false] {
            let mut site = Site::new();
            site.signed_on([0]);
            match in_the_ring {
                true => assert!(site.ring.ramp_enforced("our.example", at(3))),
                false => assert!(site.record.note_ended("our.example", START)),
            }
            site.record.note_unsigned("our.example", "made.up.example", at(4));
            assert_eq!(site.on(4), Ramp::Enforcing);
            // A ramp that begins anew is another one.
            site.ring.ramp_stop("our.example", at(5));
            assert_eq!(site.on(5), Ramp::NotStarted);
            site.ring.ramp_start("our.example", at(5));
            assert!(matches!(site.on(6), Ramp::Waiting(_)), "{in_the_ring}");
        }
    }

    #[test]
    fn an_administrator_decides_whatever_the_ramp_says() {
        let mut site = Site::new();
        site.ring.ramp_decide("our.example", Some(RampDecision::Enforce));
        assert_eq!(site.on(0), Ramp::Enforcing);
        site.ring.ramp_decide("our.example", Some(RampDecision::Observe));
        site.ring.ramp_enforced("our.example", START);
        assert_eq!(site.on(99), Ramp::Observed);
        site.ring.ramp_decide("our.example", None);
        assert_eq!(site.on(99), Ramp::Enforcing);
        site.record.paused_until = Some(at(100));
        assert_eq!((site.on(99), site.on(100)), (Ramp::Paused(at(100)), Ramp::Enforcing));
    }

    #[test]
    fn each_day_with_signed_mail_is_noted_once() {
        let mut site = Site::new();
        let sender = ReversePath::parse("ann@our.example").unwrap();
        let event = |site: &Site, days| {
            let rules = Rules::new(&site.policy, &site.ring, at(days)).with_ramps(&site.record);
            rules.ramp_event(&sender, &rules.outbound(None, &sender, None))
        };
        assert_eq!(event(&site, 0), Some(RampEvent::SignedDay("our.example".into())));
        site.signed_on([0]);
        assert_eq!(event(&site, 0), None);
        assert_eq!(event(&site, 1), Some(RampEvent::SignedDay("our.example".into())));
        site.ring.ramp_stop("our.example", at(1));
        assert_eq!(event(&site, 1), Some(RampEvent::Started("our.example".into())));
    }
}
