//! The ramp: a domain is observed until every bounce to mail that left unsigned is dead (`inbound.mode = "ramp"`).

use core::net::IpAddr;

use super::{Outbound, OutboundAction, OutboundReason, Rules};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::site_policy::{InboundMode, OutboundMode};
use crate::envelope::time::Timestamp;

/// How far a domain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ramp {
    /// Nobody has said since when its mail is signed.
    NotStarted,
    /// Bounces to mail that left unsigned may still come, until then.
    Until(Timestamp),
    /// Verdicts are carried out.
    Enforcing,
}

/// What mail that leaves says about a ramp.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RampEvent {
    /// The first signed mail of this entry of `domains.local` (or this SRS domain): its ramp begins.
    Started(String),
    /// Its mail leaves unsigned because the mode says so: the ramp is over, and begins anew with the next signature.
    Gap(String),
}

impl Rules<'_> {
    /// How far the ramp of a domain is. `domain`: in `domains.local`, or an SRS domain.
    #[must_use]
    pub fn ramp(&self, domain: &str) -> Ramp {
        let Some((entry, days)) = self.ramp_entry(domain) else { return Ramp::NotStarted };
        let Some(since) = self.ring.signing_since().get(&entry) else { return Ramp::NotStarted };
        let until = Timestamp(since.0.saturating_add(i64::from(days) * crate::envelope::time::SECONDS_PER_DAY));
        if self.now < until { Ramp::Until(until) } else { Ramp::Enforcing }
    }

    /// The name under which a domain stands in the ring, and how many days its ramp takes.
    fn ramp_entry(&self, domain: &str) -> Option<(String, u16)> {
        let (domains, queue) = (&self.policy.domains, self.policy.inbound.queue_lifetime);
        if let Some(entry) = domains.local_entry(domain) {
            // An address may be named by itself although the config has only its parent.
            let own = crate::envelope::address::canonical_domain(domain).into_owned();
            let entry = if self.ring.signing_since().contains_key(&own) { own } else { entry };
            return Some((entry, self.policy.batv.lifetime.max(queue)));
        }
        let alias = crate::envelope::address::canonical_domain(domain).into_owned();
        domains.srs.contains(domain).then(|| (alias, self.policy.srs.lifetime.max(queue)))
    }

    /// Whether nothing is refused for what it is: the site observes, or the domain's ramp does, or the client is
    /// exempt.
    pub(super) fn is_lenient(&self, client: Option<IpAddr>, domain: &str) -> bool {
        let inbound = &self.policy.inbound;
        let observed = match inbound.mode {
            InboundMode::Observe => true,
            InboundMode::Enforce => false,
            InboundMode::Ramp => self.ramp(domain) != Ramp::Enforcing,
        };
        observed || client.is_some_and(|client| inbound.exempt_clients.contains(client))
    }

    /// What this answer about a sender says about a ramp, where the ring does not say it already.
    #[must_use]
    pub fn ramp_event(&self, sender: &ReversePath, outbound: &Outbound) -> Option<RampEvent> {
        let sender = sender.address()?;
        let started = |domain: &str| {
            let (entry, _) = self.ramp_entry(domain)?;
            (!self.ring.signing_since().contains_key(&entry)).then_some(RampEvent::Started(entry))
        };
        match (&outbound.action, self.policy.outbound.mode) {
            (OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed), OutboundMode::Sign) => {
                started(signed.address().domain())
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

/// Unsigned for no other reason than the mode: whom a list exempts is not judged, so his bounces are safe.
fn is_by_mode(outbound: &Outbound) -> bool {
    matches!(outbound.reason, OutboundReason::ModeOff | OutboundReason::NotInPilot)
}
