//! The ramp (`inbound.mode = "ramp"`): a domain is observed until no more genuine bounces to its unsigned mail can
//! arrive.

use core::net::IpAddr;

use super::{Outbound, OutboundAction, OutboundReason, Rules};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::site_policy::{InboundMode, OutboundMode};
use crate::envelope::time::Timestamp;

/// The state of a domain's ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ramp {
    /// No start of signing is recorded.
    NotStarted,
    /// The domain is observed until this moment, because bounces to unsigned mail may still arrive.
    Until(Timestamp),
    /// The domain is enforced.
    Enforcing,
}

/// A change of a ramp, as caused by outbound mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RampEvent {
    /// The first signed mail of this entry of `domains.local`, or of this SRS domain: the ramp begins.
    Started(String),
    /// Mail of this entry left unsigned because of `outbound.mode`: the ramp ends, and begins anew with the next signed
    /// mail.
    Gap(String),
}

impl Rules<'_> {
    /// The state of a domain's ramp. `domain` is a local domain or an SRS domain.
    #[must_use]
    pub fn ramp(&self, domain: &str) -> Ramp {
        let Some((entry, days)) = self.ramp_entry(domain) else { return Ramp::NotStarted };
        let Some(since) = self.ring.signing_since().get(&entry) else { return Ramp::NotStarted };
        let until = Timestamp(since.0.saturating_add(i64::from(days) * crate::envelope::time::SECONDS_PER_DAY));
        if self.now < until { Ramp::Until(until) } else { Ramp::Enforcing }
    }

    /// The name of a domain in the ring, and the length of its ramp in days.
    fn ramp_entry(&self, domain: &str) -> Option<(String, u16)> {
        let (domains, queue) = (&self.policy.domains, self.policy.inbound.queue_lifetime);
        if let Some(entry) = domains.local_entry(domain) {
            // A domain may have an entry of its own in the ring, even if the config has only a wildcard for it.
            let own = crate::envelope::address::canonical_domain(domain).into_owned();
            let entry = if self.ring.signing_since().contains_key(&own) { own } else { entry };
            return Some((entry, self.policy.batv.lifetime.max(queue)));
        }
        let alias = crate::envelope::address::canonical_domain(domain).into_owned();
        domains.srs.contains(domain).then(|| (alias, self.policy.srs.lifetime.max(queue)))
    }

    /// Whether verdicts are observed only, because of the mode, the domain's ramp, or an exempt client: mail is marked
    /// instead of refused.
    pub(super) fn is_lenient(&self, client: Option<IpAddr>, domain: &str) -> bool {
        let inbound = &self.policy.inbound;
        let observed = match inbound.mode {
            InboundMode::Observe => true,
            InboundMode::Enforce => false,
            InboundMode::Ramp => self.ramp(domain) != Ramp::Enforcing,
        };
        observed || client.is_some_and(|client| inbound.exempt_clients.contains(client))
    }

    /// The change of a ramp caused by this answer about a sender, unless it is recorded in the ring already.
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

/// Whether a sender is unsigned because of the mode alone. Bounces to senders that a list exempts are not checked, so
/// those do not affect the ramp.
fn is_by_mode(outbound: &Outbound) -> bool {
    matches!(outbound.reason, OutboundReason::ModeOff | OutboundReason::NotInPilot)
}
