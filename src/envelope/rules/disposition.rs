//! The answers about mail that comes in: what becomes of a recipient, and what stands on a message that is not as it
//! should be.

use super::Refusal;
use super::reasons::{InboundReason, RefusalReason};
use crate::envelope::abuse::TagId;
use crate::envelope::address::Address;
use crate::envelope::site_policy::FailureAction;
use crate::envelope::tag::Verdict;

/// What becomes of a recipient, and what its tag proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// About the tag.
    pub verdict: Verdict,
    /// About the mail.
    pub disposition: Disposition,
    /// Why the disposition is as it is.
    pub reason: InboundReason,
    /// What a bounce to it counts as, where its tag holds.
    pub tag: Option<TagId>,
}

/// What becomes of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It goes on.
    Deliver(Delivery),
    /// It goes on if the content of the message allows it.
    Inspect(Delivery, ContentCheck),
    /// It is accepted and goes nowhere.
    Discard,
    /// It is refused.
    Refuse(Refusal),
}

/// Where a recipient goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The address for the next hop: the one that came, or the one behind its tag.
    pub to: Address,
    /// Which next hop.
    pub route: Route,
    /// What the message is marked with, because it would have been refused.
    pub mark: Option<ResultHeader>,
}

impl Disposition {
    /// Where it goes on to, perhaps.
    #[must_use]
    pub fn delivery(&self) -> Option<&Delivery> {
        match self {
            Self::Deliver(delivery) | Self::Inspect(delivery, _) => Some(delivery),
            Self::Discard | Self::Refuse(_) => None,
        }
    }

    /// What is done, as a word for logs, metrics and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deliver(Delivery { mark: Some(_), .. }) => "mark",
            Self::Deliver(Delivery { mark: None, .. }) => "deliver",
            Self::Inspect(..) => "content",
            Self::Discard => "discard",
            Self::Refuse(refusal) if refusal.is_temporary() => "defer",
            Self::Refuse(_) => "reject",
        }
    }
}

/// Which next hop a recipient has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// The MTA.
    #[default]
    NextHop,
    /// The listener of the MTA that may relay, where one is configured: the recipient is foreign.
    SrsNextHop,
}

/// Why the content of a message decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCheck {
    /// The sender is null and there is no tag.
    NullSender,
    /// The sender speaks for a machine, and there is no good tag.
    DaemonSender,
    /// The sender is null, and the address of this recipient is too long to be signed: a bounce needs evidence.
    Unsignable,
    /// The sender is null and the recipient a good SRS address, so that it leaves again: what is no report of any kind
    /// and returns nothing is refused.
    Srs,
    /// The tag holds and has had more bounces than its mail can have earned: only evidence passes.
    UsedUp,
    /// The client has tried too many bad tags of this recipient, so that its tag is not looked at: only evidence
    /// passes.
    Guessing,
}

/// The header that says what would have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultHeader {
    /// What the tag proved.
    pub verdict: &'static str,
    /// What would be done without it: `reject`, `defer`, `discard`, `quarantine`, or `mark` where that is all.
    pub would: &'static str,
    /// Why it would be done.
    pub reason: RefusalReason,
    /// Whether enforcing would not have delivered it: it is only observed.
    pub observed: bool,
}

/// The name of that header.
pub const MARK: &str = "Countersign-Result";

impl ResultHeader {
    /// The header line, without its line end.
    #[must_use]
    pub fn header(&self) -> String {
        format!("{MARK}: {}", self.value())
    }

    /// What stands behind the colon.
    #[must_use]
    pub fn value(&self) -> String {
        format!("v=1; verdict={}; would={}; reason={}", self.verdict, self.would, self.reason)
    }

    /// Whether it stands on what goes to the quarantine.
    pub(super) fn is_quarantine(&self) -> bool {
        self.would == FailureAction::Quarantine.name() && !self.observed
    }
}
