//! The answers about a recipient, and how they are built.

use crate::envelope::abuse::TagId;
use crate::envelope::address::Address;
use crate::envelope::rules::{
    ContentCheck, Delivery, Disposition, Inbound, InboundReason, Refusal, ResultHeader, Route,
};
use crate::envelope::tag::Verdict;

pub(super) fn disposition(
    to: Address,
    route: Route,
    mark: Option<ResultHeader>,
    check: Option<ContentCheck>,
) -> Disposition {
    let delivery = Delivery { to, route, mark };
    match check {
        Some(check) => Disposition::Inspect(delivery, check),
        None => Disposition::Deliver(delivery),
    }
}

pub(super) fn deliver(
    verdict: Verdict,
    to: Address,
    route: Route,
    mark: Option<ResultHeader>,
    reason: InboundReason,
) -> Inbound {
    Inbound { verdict, disposition: disposition(to, route, mark, None), reason, tag: None }
}

pub(super) fn inspect(verdict: Verdict, to: Address, check: ContentCheck, reason: InboundReason) -> Inbound {
    Inbound { verdict, disposition: disposition(to, Route::NextHop, None, Some(check)), reason, tag: None }
}

impl Inbound {
    pub(super) fn counted(self, tag: TagId) -> Self {
        Self { tag: Some(tag), ..self }
    }
}

/// The reason of a recipient that is accepted although there is something against it.
pub(super) fn against(refusal: Refusal) -> InboundReason {
    InboundReason::Against(refusal.reason)
}

pub(super) fn untouched(recipient: &Address, reason: InboundReason) -> Inbound {
    deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, None, reason)
}

pub(super) fn refuse(verdict: Verdict, refusal: Refusal) -> Inbound {
    Inbound {
        verdict,
        reason: InboundReason::Against(refusal.reason),
        disposition: Disposition::Refuse(refusal),
        tag: None,
    }
}
