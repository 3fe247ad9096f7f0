//! Mail that leaves: is its sender signed, rewritten, or left alone?

use core::net::IpAddr;

use super::{NO_KEY, OutboundReason, Refusal, RefusalReason, Rules};
use crate::envelope::abuse::{Memory, TagId};
use crate::envelope::address::{Address, MAX_LOCAL_PART, ReversePath};
use crate::envelope::evidence;
use crate::envelope::keyring::{Algorithm, Key};
use crate::envelope::site_policy::{OutboundMode, Overflow};
use crate::envelope::tag::srs::Forwarded;
use crate::envelope::tag::{Signed, Verdict, batv, srs};
use crate::envelope::time::Day;

/// What becomes of a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundAction {
    /// It is ours: BATV.
    Sign(Signed),
    /// It is not ours: SRS.
    Rewrite(Signed),
    /// It goes as it is.
    Pass,
    /// It does not go.
    Reject(Refusal),
}

/// What becomes of a sender, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// What is done with the sender.
    pub action: OutboundAction,
    /// Why it is done.
    pub reason: OutboundReason,
    /// Whether the message is to carry the evidence header.
    pub evidence: bool,
}

impl Outbound {
    /// The address to send with, where it is another than the one that came.
    #[must_use]
    pub fn signed(&self) -> Option<&Signed> {
        match &self.action {
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => Some(signed),
            OutboundAction::Pass | OutboundAction::Reject(_) => None,
        }
    }

    fn pass(reason: OutboundReason) -> Self {
        Self { action: OutboundAction::Pass, reason, evidence: false }
    }

    fn reject(reason: OutboundReason, refusal: Refusal) -> Self {
        Self { reason, action: OutboundAction::Reject(refusal), evidence: false }
    }
}

const TOO_LONG: Refusal = Refusal {
    code: 553,
    status: "5.1.7",
    text: "the sender's local part is too long to be signed",
    reason: RefusalReason::TooLong,
};

impl Rules<'_> {
    /// What becomes of this sender. `recipient` is absent at MAIL, where no recipient is known yet.
    #[must_use]
    pub fn outbound(&self, client: Option<IpAddr>, sender: &ReversePath, recipient: Option<&Address>) -> Outbound {
        let ReversePath::Mailbox(sender) = sender else { return Outbound::pass(OutboundReason::NullSender) };
        let outbound = &self.policy.outbound;
        if client.is_some_and(|client| outbound.exempt_clients.contains(client)) {
            return Outbound::pass(OutboundReason::ExemptClient);
        }
        match outbound.mode {
            OutboundMode::Off => return Outbound::pass(OutboundReason::ModeOff),
            OutboundMode::Pilot if !outbound.pilot.contains(sender) => {
                return Outbound::pass(OutboundReason::NotInPilot);
            }
            OutboundMode::Pilot | OutboundMode::Sign => {}
        }
        if outbound.exempt_senders.contains(sender) {
            return Outbound::pass(OutboundReason::ExemptSender);
        }
        if outbound.recipients_matter() && recipient.is_some_and(|r| outbound.exempt_recipients.contains(r)) {
            // What returns of it has no tag, so it carries evidence all the same.
            let evidence = outbound.evidence && self.policy.domains.is_local(sender.domain());
            return Outbound { evidence, ..Outbound::pass(OutboundReason::ExemptRecipient) };
        }
        self.by_domain(sender)
    }

    fn by_domain(&self, sender: &Address) -> Outbound {
        let domains = &self.policy.domains;
        let local = domains.is_local(sender.domain());
        let tagged = srs::looks_tagged(&sender.content());
        let untouched = !local && !self.policy.srs.always_rewrite;
        if domains.srs.contains(sender.domain()) && (untouched || tagged) {
            return Outbound::pass(OutboundReason::OwnSrsAddress);
        }
        if local {
            return self.sign(sender);
        }
        if domains.relay.contains(sender.domain()) {
            return Outbound::pass(OutboundReason::RelayDomain);
        }
        match domains.srs.alias_for(sender.domain()) {
            Some(alias) => self.rewrite(sender, alias),
            None => Outbound::pass(OutboundReason::ForeignSender),
        }
    }

    /// Ours: a tag in front, once.
    fn sign(&self, sender: &Address) -> Outbound {
        let today = self.now.day();
        let (keys, params) = (self.ring.keys(), &self.policy.batv);
        if matches!(batv::verify(keys, params, today, sender), Verdict::Valid(_)) {
            return Outbound::pass(OutboundReason::SignedAlready);
        }
        // A tag of ours that does not hold is taken off, as often as it stands there: never nested.
        let mut bare = sender.clone();
        while let Some(inner) = batv::strip(&bare) {
            bare = inner;
        }
        let Some(key) = self.signer(self.ring.batv_signer(), &bare) else {
            return Outbound::reject(OutboundReason::NoKey, NO_KEY);
        };
        match batv::sign(key, params, today, &bare) {
            Ok(signed) => self.within_length(signed, OutboundAction::Sign, OutboundReason::Signed),
            // What cannot be written as an address cannot be over the limit by less than everything.
            Err(_) => self.overflowing(None),
        }
    }

    /// Not ours: SRS0, or SRS1 where it is SRS already.
    fn rewrite(&self, sender: &Address, alias: &str) -> Outbound {
        let today = self.now.day();
        let Some(own) = self.ring.own_signer() else { return Outbound::reject(OutboundReason::NoKey, NO_KEY) };
        let key = self.signer(self.ring.srs_signer(), sender).unwrap_or(own);
        let params = &self.policy.srs;
        // A peer's scheme has no form for a broken SRS1; ours wraps it like any other local part.
        let forwarded = srs::forward(key, params, today, sender, alias)
            .or_else(|_| srs::forward(own, params, today, sender, alias));
        match forwarded {
            Ok(Forwarded::Rewritten(signed)) => {
                self.within_length(signed, OutboundAction::Rewrite, OutboundReason::Forwarded)
            }
            Ok(Forwarded::Unchanged) => Outbound::pass(OutboundReason::SameDomain),
            Err(_) => self.overflowing(None),
        }
    }

    /// The imported signer, except for addresses that need quotes: peers do not agree where those stand.
    fn signer<'k>(&'k self, signer: Option<&'k Key>, address: &Address) -> Option<&'k Key> {
        if address.local().contains('"') { self.ring.own_signer() } else { signer }
    }

    fn within_length(&self, signed: Signed, action: fn(Signed) -> OutboundAction, reason: OutboundReason) -> Outbound {
        if signed.address().local().len() <= MAX_LOCAL_PART {
            self.with_evidence(Outbound { action: action(signed), reason, evidence: false })
        } else {
            self.overflowing(Some(action(signed)))
        }
    }

    fn overflowing(&self, action: Option<OutboundAction>) -> Outbound {
        match (self.policy.outbound.overflow, action) {
            (Overflow::Sign, Some(action)) => {
                self.with_evidence(Outbound { action, reason: OutboundReason::Overflow, evidence: false })
            }
            (Overflow::Pass | Overflow::Sign, _) => self.with_evidence(Outbound::pass(OutboundReason::Overflow)),
            (Overflow::Reject, _) => Outbound::reject(OutboundReason::Overflow, TOO_LONG),
        }
    }

    /// Mail of our own carries evidence. What is only forwarded is somebody else's: its bounces go where SRS leads
    /// them.
    fn with_evidence(&self, outbound: Outbound) -> Outbound {
        let ours = match &outbound.action {
            OutboundAction::Sign(_) => true,
            OutboundAction::Pass => outbound.reason == OutboundReason::Overflow,
            OutboundAction::Rewrite(_) | OutboundAction::Reject(_) => false,
        };
        Outbound { evidence: ours && self.policy.outbound.evidence, ..outbound }
    }

    /// The evidence header for a message. `nonce` is 80 random bits; `message_id` and `from` are what stands
    /// in its header block.
    #[must_use]
    pub fn evidence(
        &self,
        nonce: [u8; 10],
        message_id: Option<&str>,
        from: Option<&str>,
        sender: &ReversePath,
    ) -> Option<evidence::EvidenceHeader> {
        let is_ours = |address: &Address| self.policy.domains.is_local(address.domain());
        let address = evidence::bounce_address(from, sender, is_ours).filter(is_ours)?;
        let key = self.ring.own_signer()?;
        evidence::header(key, &self.policy.batv, self.now.day(), nonce, message_id.unwrap_or_default(), &address)
    }

    /// What a message with this sender counts as, where the sender is one that this site has signed. It is not asked
    /// whether the tag holds.
    #[must_use]
    pub fn sent_as(&self, memory: &Memory, signed: &Address) -> Option<TagId> {
        let (today, content) = (self.now.day(), signed.content());
        let (from, until) = if let Some(tag) = batv::Prvs::parse(&content) {
            let expires = tag.day.nearest(today);
            (expires.plus(-i64::from(self.policy.batv.lifetime)), expires)
        } else if srs::looks_tagged(&content) {
            (today, today.plus(i64::from(self.policy.srs.lifetime)))
        } else {
            return None;
        };
        Some(self.tag_id(memory, signed, from, until))
    }

    /// What tells one tagged address from others, however it is spelled.
    pub(super) fn tag_id(&self, memory: &Memory, tagged: &Address, from: Day, until: Day) -> TagId {
        let content = tagged.content();
        match srs::Srs::parse(&content) {
            Ok(Some(form)) => {
                // Exim's hash leaves the day out.
                let proven = self.ring.keys().iter().all(|key| key.algorithm != Algorithm::EximSrs);
                memory.replay.id_of_srs(&form, tagged, proven, from, until)
            }
            _ => memory.replay.id_of_batv(tagged, from, until),
        }
    }

    /// Why mail of this address of ours leaves without a tag, so that its genuine bounces come back without one.
    /// `None`: it leaves signed.
    pub(super) fn leaves_unsigned(&self, address: &Address) -> Option<OutboundReason> {
        let outbound = self.outbound(None, &ReversePath::Mailbox(address.clone()), None);
        let unsigned =
            matches!(outbound.action, OutboundAction::Pass) && outbound.reason != OutboundReason::SignedAlready;
        unsigned.then_some(outbound.reason)
    }
}
