//! Rules for the senders of outbound mail: signed, rewritten, or left unchanged.

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

/// What is done with a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundAction {
    /// A local sender is signed (BATV).
    Sign(Signed),
    /// A foreign sender is rewritten (SRS).
    Rewrite(Signed),
    /// The sender is left unchanged.
    Pass,
    /// The message is refused.
    Reject(Refusal),
}

/// What is done with a sender, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// What is done with the sender.
    pub action: OutboundAction,
    /// The reason for it.
    pub reason: OutboundReason,
    /// Whether the message carries the evidence header.
    pub evidence: bool,
}

impl Outbound {
    /// The signed address to send with; `None` if the sender is not changed.
    #[must_use]
    pub fn signed(&self) -> Option<&Signed> {
        match &self.action {
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => Some(signed),
            OutboundAction::Pass | OutboundAction::Reject(_) => None,
        }
    }

    /// Whether the message may all the same leave with the sender that its other recipients need: a foreign sender is
    /// better kept where the mail stays, but a rewritten one does no harm there.
    #[must_use]
    pub fn yields(&self) -> bool {
        self.reason == OutboundReason::LocalRecipient
    }

    fn pass(reason: OutboundReason) -> Self {
        Self { action: OutboundAction::Pass, reason, evidence: false }
    }

    pub(super) fn reject(reason: OutboundReason, refusal: Refusal) -> Self {
        Self { reason, action: OutboundAction::Reject(refusal), evidence: false }
    }
}

const TOO_LONG: Refusal = Refusal {
    code: 553,
    status: "5.1.7",
    text: "the sender's local part is too long to be signed",
    reason: RefusalReason::TooLong,
};

/// Whether a signed local part is short enough for all mail servers.
fn fits(signed: &Signed) -> bool {
    signed.address().local().len() <= MAX_LOCAL_PART
}

impl Rules<'_> {
    /// Decides about a sender. `recipient` is `None` at MAIL, before any recipient is known.
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
            // Bounces to this message have no tag, so it carries evidence.
            let evidence = outbound.evidence && self.policy.domains.is_local(sender.domain());
            return Outbound { evidence, ..Outbound::pass(OutboundReason::ExemptRecipient) };
        }
        let outbound = self.by_domain(sender);
        let stays = recipient.is_some_and(|recipient| self.policy.domains.is_local(recipient.domain()));
        if stays && matches!(outbound.action, OutboundAction::Rewrite(_)) {
            return Outbound::pass(OutboundReason::LocalRecipient);
        }
        outbound
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

    /// Signs a local sender, with one tag only.
    fn sign(&self, sender: &Address) -> Outbound {
        let today = self.now.day();
        let (keys, params) = (self.ring.keys(), &self.policy.batv);
        if matches!(batv::verify(keys, params, today, sender), Verdict::Valid(_)) {
            return Outbound::pass(OutboundReason::SignedAlready);
        }
        // Old tags that are not valid are removed, however many there are, so that tags are never nested.
        let mut bare = sender.clone();
        while let Some(inner) = batv::strip(&bare) {
            bare = inner;
        }
        let Some(key) = self.signer(self.ring.batv_signer(), &bare) else {
            return Outbound::reject(OutboundReason::NoKey, NO_KEY);
        };
        match batv::sign(key, params, today, &bare) {
            Ok(signed) if fits(&signed) => self.with_evidence(Outbound {
                action: OutboundAction::Sign(signed),
                reason: OutboundReason::Signed,
                evidence: false,
            }),
            Ok(signed) => self.overflowing(self.policy.outbound.overflow, Some(OutboundAction::Sign(signed))),
            // An address that cannot be signed at all is treated as too long.
            Err(_) => self.overflowing(self.policy.outbound.overflow, None),
        }
    }

    /// Rewrites a foreign sender as SRS0, or as SRS1 if it is an SRS address already.
    fn rewrite(&self, sender: &Address, alias: &str) -> Outbound {
        let today = self.now.day();
        let Some(own) = self.ring.own_signer() else { return Outbound::reject(OutboundReason::NoKey, NO_KEY) };
        let key = self.signer(self.ring.srs_signer(), sender).unwrap_or(own);
        let params = &self.policy.srs;
        // The schemes of other programs cannot express a malformed SRS1 address; an own key wraps it like any other
        // local part.
        let forwarded = srs::forward(key, params, today, sender, alias)
            .or_else(|_| srs::forward(own, params, today, sender, alias));
        match forwarded {
            Ok(Forwarded::Unchanged) => Outbound::pass(OutboundReason::SameDomain),
            Ok(Forwarded::Rewritten(signed)) if fits(&signed) => {
                Outbound { action: OutboundAction::Rewrite(signed), reason: OutboundReason::Forwarded, evidence: false }
            }
            Ok(Forwarded::Rewritten(signed)) => self.long_srs(sender, Some(signed), alias),
            Err(_) => self.long_srs(sender, None, alias),
        }
    }

    /// The key to sign with. Addresses that need quotes are signed by an own key, because other programs do not agree
    /// where to put the quotes.
    fn signer<'k>(&'k self, signer: Option<&'k Key>, address: &Address) -> Option<&'k Key> {
        if address.local().contains('"') { self.ring.own_signer() } else { signer }
    }

    /// What is done with a sender that is too long. `action` signs it all the same, if that is possible.
    pub(super) fn overflowing(&self, overflow: Overflow, action: Option<OutboundAction>) -> Outbound {
        match (overflow, action) {
            (Overflow::Sign, Some(action)) => {
                self.with_evidence(Outbound { action, reason: OutboundReason::Overflow, evidence: false })
            }
            (Overflow::Pass | Overflow::Sign, _) => self.with_evidence(Outbound::pass(OutboundReason::Overflow)),
            (Overflow::Reject, _) => Outbound::reject(OutboundReason::Overflow, TOO_LONG),
        }
    }

    /// Adds evidence to mail of local senders. Forwarded mail carries none, because its bounces are sent to the SRS
    /// address.
    fn with_evidence(&self, outbound: Outbound) -> Outbound {
        let ours = match &outbound.action {
            OutboundAction::Sign(_) => true,
            OutboundAction::Pass => outbound.reason == OutboundReason::Overflow,
            OutboundAction::Rewrite(_) | OutboundAction::Reject(_) => false,
        };
        Outbound { evidence: ours && self.policy.outbound.evidence, ..outbound }
    }

    /// The evidence header for a message. `nonce` is 80 random bits; `message_id` and `from` are the values of its
    /// headers. `None` if the message has no address of this site for bounces, or no own key signs.
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

    /// The id under which messages with this signed sender are counted; `None` if it is not a signed address. The tag
    /// is not verified.
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

    /// The id of a signed address, equal for all spellings of it.
    pub(super) fn tag_id(&self, memory: &Memory, tagged: &Address, from: Day, until: Day) -> TagId {
        let content = tagged.content();
        match srs::Srs::parse(&content) {
            Ok(Some(form)) => {
                // Exim's hash does not cover the day.
                let proven = self.ring.keys().iter().all(|key| key.algorithm != Algorithm::EximSrs);
                memory.replay.id_of_srs(&form, tagged, proven, from, until)
            }
            _ => memory.replay.id_of_batv(tagged, from, until),
        }
    }

    /// Why mail of a local address leaves without a tag, so that genuine bounces to it have none. `None` if it is
    /// signed.
    pub(super) fn leaves_unsigned(&self, address: &Address) -> Option<OutboundReason> {
        let outbound = self.outbound(None, &ReversePath::Mailbox(address.clone()), None);
        let unsigned =
            matches!(outbound.action, OutboundAction::Pass) && outbound.reason != OutboundReason::SignedAlready;
        unsigned.then_some(outbound.reason)
    }
}
