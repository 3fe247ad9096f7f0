//! Rules for messages whose content is inspected, most of them to an address without a valid tag and from the null
//! sender or a daemon.

use core::net::IpAddr;

use super::refusals::{GUESSING, SRS_NO_BOUNCE, TAG_USED_UP, refusal_of};
use super::{ContentCheck, Refusal, RefusalReason, ResultHeader, Rules};
use crate::envelope::abuse::{Memory, TagId, surge_network};
use crate::envelope::address::Address;
use crate::envelope::bounce::{Findings, MessageKind, Returned};
use crate::envelope::evidence::{Claim, Proof, author, verify};
use crate::envelope::site_policy::{FailureAction, FailureReason, Mixed, RejectAt};
use crate::envelope::tag::batv;

/// A message to be inspected, for one recipient.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The address of the client; `None` if it is not known.
    pub client: Option<IpAddr>,
    /// Why the content is inspected.
    pub check: ContentCheck,
    /// The recipient, without its tag.
    pub recipient: &'a Address,
    /// Whether the whole message has been read.
    pub complete: bool,
}

/// What is done with a message after inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentVerdict {
    /// Deliver the message: its content gives no reason for another action.
    Deliver,
    /// Deliver the bounce: evidence proves that this site sent the original. The bounce is counted for that original.
    Rescue(TagId),
    /// Wait: the verdict needs the rest of the message.
    Later,
    /// Deliver the bounce with a mark.
    Mark(ResultHeader),
    /// Deliver the bounce with a mark to this quarantine mailbox.
    Quarantine(Address, ResultHeader),
    /// Discard the bounce, without a notice to its sender.
    Discard(RefusalReason),
    /// Refuse the message.
    Refuse(Refusal),
}

impl ContentVerdict {
    /// The action, as a word for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Rescue(_) => "rescue",
            Self::Later => "later",
            Self::Mark(_) => "mark",
            Self::Quarantine(..) => "quarantine",
            Self::Discard(_) => "discard",
            Self::Refuse(refusal) if refusal.is_temporary() => "defer",
            Self::Refuse(_) => "reject",
        }
    }

    /// The reason, as a word for logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deliver => "no-bounce",
            Self::Rescue(_) => "evidence",
            Self::Later => "not-complete",
            Self::Mark(mark) | Self::Quarantine(_, mark) => mark.reason.name(),
            Self::Discard(reason) => reason.name(),
            Self::Refuse(refusal) => refusal.reason.name(),
        }
    }
}

const EVIDENCE_USED_UP: Refusal = Refusal {
    code: 451,
    status: "4.7.1",
    text: "more bounces of this message have come than it had recipients, try again later",
    reason: RefusalReason::Replayed,
};

impl Rules<'_> {
    /// Decides about a message by the findings in its content.
    #[must_use]
    pub fn content(&self, memory: &mut Memory, case: Candidate<'_>, found: &Findings) -> ContentVerdict {
        let content = match case.check {
            ContentCheck::Srs => self.returns_something(memory, case, found),
            ContentCheck::OwnBounce => self.own_bounce(memory, case, found),
            ContentCheck::UsedUp => self.only_with_evidence(memory, case, found, TAG_USED_UP),
            ContentCheck::Guessing => self.only_with_evidence(memory, case, found, GUESSING),
            ContentCheck::NullSender | ContentCheck::DaemonSender | ContentCheck::Unsignable => {
                self.untagged(memory, case, found)
            }
        };
        let counts = case.check == ContentCheck::NullSender && self.policy.inbound.reject_at == RejectAt::Auto;
        if counts
            && found.kind.is_ndr()
            && !matches!(content, ContentVerdict::Later | ContentVerdict::Rescue(_))
            && let Some(domain) = self.policy.domains.local_entry(case.recipient.domain())
        {
            memory.surges.count(&domain, case.client.map(surge_network), self.now);
        }
        content
    }

    /// Accepts a bounce only if it carries evidence, because an answer must not reveal whether its tag is valid.
    fn only_with_evidence(
        &self,
        memory: &Memory,
        case: Candidate<'_>,
        found: &Findings,
        otherwise: Refusal,
    ) -> ContentVerdict {
        match self.rescued(memory, case, found) {
            Some(content) => content,
            // The rest of the message may contain evidence.
            None if !case.complete => ContentVerdict::Later,
            None => ContentVerdict::Refuse(otherwise),
        }
    }

    /// The verdict on a bounce that carries evidence; `None` if it carries none.
    fn rescued(&self, memory: &Memory, case: Candidate<'_>, found: &Findings) -> Option<ContentVerdict> {
        let claim = self.proven(case.recipient, found)?;
        let tag = self.evidence_id(memory, claim.nonce());
        let lenient = self.is_lenient(case.client, case.recipient.domain());
        let used_up = self.policy.inbound.replay_limit && !lenient && memory.replay.is_used_up(tag);
        Some(if used_up { ContentVerdict::Refuse(EVIDENCE_USED_UP) } else { ContentVerdict::Rescue(tag) })
    }

    /// Decides about a message to an address without a valid tag.
    fn untagged(&self, memory: &Memory, case: Candidate<'_>, found: &Findings) -> ContentVerdict {
        let Some(reason) = reason(case.check, found) else { return ContentVerdict::Deliver };
        if !found.kind.is_ndr() {
            return if case.complete { ContentVerdict::Deliver } else { ContentVerdict::Later };
        }
        let inbound = &self.policy.inbound;
        let lenient = self.is_lenient(case.client, case.recipient.domain());
        if let Some(rescued) = self.rescued(memory, case, found) {
            return rescued;
        }
        let action = inbound.actions.of_kind(reason, found.kind);
        let would = if action == FailureAction::Mark && !lenient { FailureAction::Reject } else { action };
        let observed = lenient && action != FailureAction::Mark;
        let mark =
            ResultHeader { verdict: "untagged", would: would.name(), reason: RefusalReason::Site(reason), observed };
        if lenient || self.is_about_exempt_recipients(found) {
            return ContentVerdict::Mark(mark);
        }
        match action {
            FailureAction::Mark => ContentVerdict::Mark(mark),
            FailureAction::Quarantine => match &inbound.quarantine_to {
                Some(to) => ContentVerdict::Quarantine(to.clone(), mark),
                None => ContentVerdict::Mark(mark),
            },
            // The rest may contain evidence. A mark or quarantine cannot wait for it, because the header block is sent
            // now.
            FailureAction::Reject | FailureAction::Discard | FailureAction::Defer
                if !case.complete && inbound.evidence =>
            {
                ContentVerdict::Later
            }
            FailureAction::Reject => ContentVerdict::Refuse(refusal_of(reason)),
            FailureAction::Defer => ContentVerdict::Refuse(refusal_of(reason).later()),
            FailureAction::Discard => ContentVerdict::Discard(RefusalReason::Site(reason)),
        }
    }

    /// The evidence in a bounce that is valid for `recipient` and the Message-ID of the returned original.
    fn proven(&self, recipient: &Address, found: &Findings) -> Option<Claim> {
        if !self.policy.inbound.evidence {
            return None;
        }
        let today = self.now.day();
        let (keys, params) = (self.ring.keys(), &self.policy.batv);
        let holds = |claim: &Claim, id: &str| verify(keys, params, today, claim, id, recipient) == Proof::Valid;
        let ids = &found.returned.message_ids;
        let claims = found.returned.evidence.iter().filter_map(|value| Claim::parse(value));
        // Mail that left without a Message-ID may have been given one by another host.
        let good = |claim: &Claim| ids.iter().map(String::as_str).chain([""]).any(|id| holds(claim, id));
        claims.into_iter().find(good)
    }

    /// The id under which bounces to the message with this evidence are counted.
    #[must_use]
    pub fn evidence_id(&self, memory: &Memory, nonce: &str) -> TagId {
        memory.replay.id_of_evidence(nonce, self.now.day().plus(i64::from(self.policy.batv.lifetime)))
    }

    /// The state of the evidence in a bounce, as words for logs; `None` if there is none.
    #[must_use]
    pub fn evidence_says(&self, recipient: &Address, found: &Findings) -> Option<&'static str> {
        let (today, keys, params) = (self.now.day(), self.ring.keys(), &self.policy.batv);
        let claims: Vec<Claim> = found.returned.evidence.iter().filter_map(|value| Claim::parse(value)).collect();
        if found.returned.evidence.is_empty() {
            return None;
        }
        let ids = || found.returned.message_ids.iter().map(String::as_str).chain([""]);
        let proofs =
            claims.iter().flat_map(|claim| ids().map(move |id| verify(keys, params, today, claim, id, recipient)));
        let mut says = if claims.is_empty() { "unreadable" } else { "not of this message and recipient" };
        for proof in proofs {
            match proof {
                Proof::Valid => return Some("holds"),
                Proof::Expired => says = "expired",
                Proof::UnknownKey => says = "of a key that the ring does not have",
                Proof::Forged => {}
            }
        }
        Some(says)
    }

    /// Whether a bounce that was marked because of its envelope carries valid evidence.
    #[must_use]
    pub fn would_have_been_rescued(&self, recipient: &Address, found: &Findings) -> bool {
        self.proven(recipient, found).is_some()
    }

    /// The host through which an unsigned original of this site left: the original is from a local user and carries
    /// neither tag nor evidence. `None` if it is not from a local user, was signed, or no host is known. The headers it
    /// is taken from are not proven.
    #[must_use]
    pub fn unsigned_path(&self, found: &Findings) -> Option<String> {
        let received = &found.returned.received;
        let own = self.unsigned_own_host(found);
        let from = || received.iter().filter_map(|hop| hop.from.as_ref()).find(|host| self.is_own_host(host)).cloned();
        let first = || received.last().and_then(|hop| hop.from.clone().or(hop.by.clone()));
        let path = || from().or_else(first).filter(|_| self.is_unsigned_original(found));
        own.or_else(path).map(|host| host.chars().filter(|c| !c.is_control()).take(100).collect())
    }

    /// As [`unsigned_path`](Self::unsigned_path), if that host is one of this site: it is in a local domain, and says
    /// itself that it has received the original. Spam in the name of a local user, which other servers return, has not
    /// passed such a host, unless its sender has made that up.
    #[must_use]
    pub fn unsigned_own_host(&self, found: &Findings) -> Option<String> {
        let by = found.returned.received.iter().filter_map(|hop| hop.by.as_ref());
        let own = by.into_iter().find(|host| self.is_own_host(host)).filter(|_| self.is_unsigned_original(found))?;
        Some(own.chars().filter(|c| !c.is_control()).take(100).collect())
    }

    pub(super) fn is_own_host(&self, host: &str) -> bool {
        let local = &self.policy.domains.local;
        local.entry(host).is_some() || host.split_once('.').is_some_and(|(_, domain)| local.contains(domain))
    }

    /// Whether a bounce returns an original of a local user without tag and evidence.
    fn is_unsigned_original(&self, found: &Findings) -> bool {
        let returned = &found.returned;
        let Some(author) = returned.from.as_deref().and_then(author) else { return false };
        let path = returned.return_path.as_deref().and_then(|path| Address::parse(path).ok());
        let left_signed = !returned.evidence.is_empty() || path.is_some_and(|path| batv::strip(&path).is_some());
        !left_signed && self.policy.domains.is_local(author.domain())
    }

    /// Decides about null-sender mail to an SRS address. Null-sender mail of mail servers either returns something or is a
    /// recognised report. Any other message is from a sender who uses the address for relaying.
    fn returns_something(&self, memory: &mut Memory, case: Candidate<'_>, found: &Findings) -> ContentVerdict {
        if found.kind != MessageKind::Ordinary || found.returned != Returned::default() {
            self.forwarded_bounce(memory, case, found)
        } else if case.complete {
            ContentVerdict::Refuse(SRS_NO_BOUNCE)
        } else {
            ContentVerdict::Later
        }
    }

    /// Whether a bounce is only about exempt recipients. Mail to them leaves unsigned, so bounces to it have no tag.
    fn is_about_exempt_recipients(&self, found: &Findings) -> bool {
        let outbound = &self.policy.outbound;
        if outbound.exempt_recipients.is_empty() || outbound.mixed == Mixed::Sign || found.recipients.is_empty() {
            return false;
        }
        let exempt = |text: &Option<String>| {
            text.as_deref()
                .and_then(|text| Address::parse(text).ok())
                .is_some_and(|a| outbound.exempt_recipients.contains(&a))
        };
        found.recipients.iter().all(|r| exempt(&r.original_recipient) || exempt(&r.final_recipient))
    }
}

/// The reason against a bounce of this kind; `None` if its kind does not matter.
fn reason(check: ContentCheck, found: &Findings) -> Option<FailureReason> {
    match check {
        ContentCheck::NullSender if found.doubtful => Some(FailureReason::DoubtfulNdr),
        ContentCheck::Srs | ContentCheck::UsedUp | ContentCheck::Guessing | ContentCheck::OwnBounce => None,
        ContentCheck::NullSender => Some(FailureReason::UntaggedNdr),
        ContentCheck::Unsignable => Some(FailureReason::Overflow),
        ContentCheck::DaemonSender if found.kind == MessageKind::TextBounce => Some(FailureReason::TextNdr),
        ContentCheck::DaemonSender => Some(FailureReason::DaemonNdr),
    }
}
