//! Recipients without a tag. Null-sender mail to them may be a bounce, and its content is inspected.

use core::net::IpAddr;

use super::answers::{deliver, inspect, refuse, untouched};
use super::query::RcptQuery;
use crate::envelope::abuse::{Memory, surge_network};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::refusals::refusal_of;
use crate::envelope::rules::{
    Caller, ContentCheck, Inbound, InboundReason, OutboundReason, RefusalReason, ResultHeader, Route, Rules,
};
use crate::envelope::site_policy::{FailureAction, FailureReason, RejectAt};
use crate::envelope::tag::Verdict;

impl Rules<'_> {
    pub(super) fn untagged_recipient(
        &self,
        asked: RcptQuery<'_>,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Inbound {
        let inbound = &self.policy.inbound;
        let check = match sender {
            ReversePath::Null => ContentCheck::NullSender,
            ReversePath::Mailbox(address) if self.is_daemon(address) => ContentCheck::DaemonSender,
            ReversePath::Mailbox(_) => return untouched(recipient, InboundReason::NotABounce),
        };
        if inbound.exempt_recipients.contains(recipient) {
            return untouched(recipient, InboundReason::ExemptRecipient);
        }
        let check = match self.leaves_unsigned(recipient) {
            None => check,
            // Genuine bounces to this address have no tag. An address that is too long to be signed is inspected all
            // the same, because anyone can make one up.
            Some(OutboundReason::Overflow) => ContentCheck::Unsignable,
            Some(_) => return untouched(recipient, InboundReason::LeavesUnsigned),
        };
        let in_surge = inbound.reject_at == RejectAt::Auto;
        let at_once = check == ContentCheck::NullSender
            && self.refuses_at_once(asked.memory, asked.caller, asked.client, recipient);
        if at_once && asked.lenient {
            let action = if in_surge { FailureAction::Defer } else { inbound.actions.of(FailureReason::UntaggedNdr) };
            let reason = RefusalReason::Site(FailureReason::UntaggedNdr);
            let mark = ResultHeader { verdict: "untagged", would: action.name(), reason, observed: true };
            return deliver(
                Verdict::Untagged,
                recipient.clone(),
                Route::NextHop,
                Some(mark),
                InboundReason::Against(mark.reason),
            );
        }
        if at_once {
            let refusal = refusal_of(FailureReason::UntaggedNdr);
            // A surge ends, and deferred mail is sent again.
            let defer = in_surge || inbound.actions.of(FailureReason::UntaggedNdr) == FailureAction::Defer;
            let refused = refuse(Verdict::Untagged, if defer { refusal.later() } else { refusal });
            let reason = if in_surge { InboundReason::Against(RefusalReason::Surge) } else { refused.reason };
            return Inbound { reason, ..refused };
        }
        inspect(Verdict::Untagged, recipient.clone(), check, InboundReason::Candidate)
    }

    /// Whether null-sender mail to an address without a tag is refused at RCPT. All actions but `reject` and `defer`
    /// need the content.
    pub(super) fn refuses_at_once(
        &self,
        memory: &mut Memory,
        caller: Caller,
        client: Option<IpAddr>,
        recipient: &Address,
    ) -> bool {
        let inbound = &self.policy.inbound;
        let refused =
            matches!(inbound.actions.of(FailureReason::UntaggedNdr), FailureAction::Reject | FailureAction::Defer);
        match inbound.reject_at {
            RejectAt::Data => false,
            RejectAt::Rcpt => refused,
            RejectAt::Auto => {
                let Some(domain) = self.policy.domains.local_entry(recipient.domain()) else { return false };
                let network = client.map(surge_network);
                if !caller.sees_content() {
                    // For callers that see content, `content` counts the bounces instead.
                    memory.surges.count(&domain, network, self.now);
                }
                memory.surges.defers(&domain, network, self.now) && refused
            }
        }
    }
}
