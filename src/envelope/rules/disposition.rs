//! Answers about inbound mail: what is done with a recipient, and the header that marks a message.

use super::Refusal;
use super::reasons::{InboundReason, RefusalReason};
use crate::envelope::abuse::TagId;
use crate::envelope::address::Address;
use crate::envelope::site_policy::FailureAction;
use crate::envelope::tag::Verdict;

/// The verdict on a recipient's tag, and what is done with the recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The result of verifying the tag.
    pub verdict: Verdict,
    /// What is done with the recipient.
    pub disposition: Disposition,
    /// The reason for the disposition.
    pub reason: InboundReason,
    /// The id under which a bounce to a valid tag is counted.
    pub tag: Option<TagId>,
}

/// What is done with a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The recipient is accepted.
    Deliver(Delivery),
    /// The recipient is accepted if the content of the message allows it.
    Inspect(Delivery, ContentCheck),
    /// The recipient is accepted, and the message is discarded.
    Discard,
    /// The recipient is refused.
    Refuse(Refusal),
}

/// How a recipient is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The address for the next hop: as received, or the address behind the tag.
    pub to: Address,
    /// The next hop.
    pub route: Route,
    /// The mark for the message; `None` if there is nothing against it.
    pub mark: Option<ResultHeader>,
}

impl Disposition {
    /// How the recipient is delivered; `None` if it is discarded or refused.
    #[must_use]
    pub fn delivery(&self) -> Option<&Delivery> {
        match self {
            Self::Deliver(delivery) | Self::Inspect(delivery, _) => Some(delivery),
            Self::Discard | Self::Refuse(_) => None,
        }
    }

    /// The action, as a word for logs, metrics and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deliver(Delivery { mark: Some(mark), .. }) if mark.would != DELIVER => "mark",
            Self::Deliver(_) => DELIVER,
            Self::Inspect(..) => "content",
            Self::Discard => "discard",
            Self::Refuse(refusal) if refusal.is_temporary() => "defer",
            Self::Refuse(_) => "reject",
        }
    }
}

/// The next hop of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// The mail server behind the listener.
    #[default]
    NextHop,
    /// A listener of the mail server that relays to foreign recipients (`inbound.srs_next_hop`), if one is configured.
    SrsNextHop,
}

/// Why the content of a message is inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCheck {
    /// Null sender, and the recipient has no tag.
    NullSender,
    /// A daemon sender, and the recipient has no valid tag.
    DaemonSender,
    /// Null sender, and the recipient's address is too long to be signed: a bounce to it needs evidence.
    Unsignable,
    /// Null sender, and the recipient is a valid SRS address, which is relayed: a message that is not a report and
    /// returns nothing is refused.
    Srs,
    /// A valid tag that has received more bounces than its mail can have earned: a bounce needs evidence.
    UsedUp,
    /// A tag that is not verified, because the client has tried too many bad tags of this recipient: a bounce needs
    /// evidence.
    Guessing,
    /// Null sender, and the message leaves this site: it may be a bounce to a forged sender.
    OwnBounce,
}

/// The header that marks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultHeader {
    /// The verdict on the tag.
    pub verdict: &'static str,
    /// The action without the mark: `reject`, `defer`, `discard`, `quarantine`, `deliver`, or `mark` if marking is the
    /// configured action.
    pub would: &'static str,
    /// The reason for that action.
    pub reason: RefusalReason,
    /// Whether the message is only marked because its domain is observed or its client is exempt.
    pub observed: bool,
}

/// The action of a mark that says nothing against the message.
pub(super) const DELIVER: &str = "deliver";
/// The name of the header that marks a message.
pub const MARK: &str = "Countersign-Result";

impl ResultHeader {
    /// The header line, without its line end.
    #[must_use]
    pub fn header(&self) -> String {
        format!("{MARK}: {}", self.value())
    }

    /// The value of the header.
    #[must_use]
    pub fn value(&self) -> String {
        format!("v=1; verdict={}; would={}; reason={}", self.verdict, self.would, self.reason)
    }

    /// Whether the marked message goes to the quarantine mailbox.
    pub(super) fn is_quarantine(&self) -> bool {
        self.would == FailureAction::Quarantine.name() && !self.observed
    }
}
