//! Rules for senders whose SRS address would be too long: they get an alias, which a store keeps.
//!
//! The rules do not see the store. A front end first learns here whether a query is about an alias, keeps or looks it
//! up, and then queries the rules with what is stored ([`Rules::with_alias`]).

use core::net::IpAddr;

use super::{Outbound, OutboundAction, OutboundReason, Refusal, RefusalReason, Rules};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::site_policy::{LongSrs, Overflow};
use crate::envelope::tag::{Alias, Signed, Verdict, srs};
use crate::envelope::time::Day;

const ALIAS_IS_LATE: Refusal = Refusal {
    code: 451,
    status: "4.3.0",
    text: "the sender is too long to be signed, and cannot be stored now, try again later",
    reason: RefusalReason::TooLong,
};

/// An alias and the address that it stands for, as a store has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlias {
    /// The alias.
    pub alias: Alias,
    /// The sender that it stands for.
    pub address: Address,
}

impl<'a> Rules<'a> {
    /// The same rules, with the alias that the query is about.
    #[must_use]
    pub fn with_alias(self, alias: Option<&'a StoredAlias>) -> Self {
        Self { alias, ..self }
    }

    /// The same rules, after the alias of the sender could not be stored, which may be possible later.
    #[must_use]
    pub fn with_late_alias(self) -> Self {
        Self { alias_is_late: true, ..self }
    }

    /// What has to be stored before a query about this sender, so that it can leave with an alias. `None`: it leaves
    /// without one.
    #[must_use]
    pub fn alias_to_store(&self, client: Option<IpAddr>, sender: &ReversePath) -> Option<StoredAlias> {
        let address = sender.address()?;
        let (policy, domains) = (self.policy, &self.policy.domains);
        if policy.outbound.long_srs != LongSrs::Alias || domains.srs.alias_for(address.domain()).is_none() {
            return None;
        }
        let is_too_long = self.outbound(client, sender, None).reason == OutboundReason::Overflow;
        if !is_too_long || domains.is_local(address.domain()) {
            return None;
        }
        let alias = Alias::of(self.ring.own_signer()?, self.now.day(), address);
        Some(StoredAlias { alias, address: address.clone() })
    }

    /// The alias that has to be looked up before a query about this recipient. `None`: it has none, or not a valid one.
    #[must_use]
    pub fn alias_to_look_up(&self, recipient: &Address) -> Option<Alias> {
        if !self.policy.domains.srs.contains(recipient.domain()) || !srs::looks_like_alias(&recipient.content()) {
            return None;
        }
        match srs::verify(self.ring.keys(), &self.policy.srs, self.now.day(), recipient) {
            Verdict::Alias(tag) => Some(*tag.alias()),
            _ => None,
        }
    }

    /// The first day whose aliases are still needed. What is older has expired on every host.
    #[must_use]
    pub fn first_day_of_aliases(&self) -> Day {
        let lifetimes = self.ring.keys().iter().map(|key| key.longest_srs_lifetime);
        let longest = lifetimes.fold(self.policy.srs.lifetime, u16::max);
        self.now.day().plus(-i64::from(longest) - 1)
    }

    /// The verdict on an SRS address. An alias that is stored stands for its address.
    pub(super) fn verify_srs(&self, recipient: &Address) -> Verdict {
        match srs::verify(self.ring.keys(), &self.policy.srs, self.now.day(), recipient) {
            Verdict::Alias(tag) => match self.alias.filter(|stored| stored.alias == *tag.alias()) {
                Some(stored) => tag.stands_for(stored.address.clone()),
                None => Verdict::Alias(tag),
            },
            verdict => verdict,
        }
    }

    /// Decides about a sender whose SRS address is too long. `signed` is that address, if it is one.
    pub(super) fn long_srs(&self, sender: &Address, signed: Option<Signed>, domain: &str) -> Outbound {
        let action = signed.map(OutboundAction::Rewrite);
        match self.policy.outbound.long_srs {
            LongSrs::Overflow(overflow) => self.overflowing(overflow, action),
            LongSrs::Alias => match self.aliased(sender, domain) {
                Some(signed) => Outbound {
                    action: OutboundAction::Rewrite(signed),
                    reason: OutboundReason::Aliased,
                    evidence: false,
                },
                // A fault that passes must not make the mail server bounce the message.
                None if self.alias_is_late && self.policy.outbound.overflow == Overflow::Reject => {
                    Outbound::reject(OutboundReason::Overflow, ALIAS_IS_LATE)
                }
                None => self.overflowing(self.policy.outbound.overflow, action),
            },
        }
    }

    /// The address with the alias of this sender, if it is stored.
    fn aliased(&self, sender: &Address, domain: &str) -> Option<Signed> {
        let key = self.ring.own_signer()?;
        let stored = self.alias.filter(|stored| stored.address.as_str() == sender.as_str())?;
        // Midnight may have passed, or the key may have changed, since it was stored; it is valid all the same.
        srs::forward_alias(key, &self.policy.srs, &stored.alias, domain).ok()
    }
}
