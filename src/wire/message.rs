//! Types shared by the SMTP session and the milter: the direction of mail, groups of recipients that share a message,
//! and the outcome of a message.

use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::{ContentCheck, ResultHeader};

/// The direction of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Mail that leaves. The rules are queried about MAIL, and about RCPT where the sender depends on the recipient.
    Outbound,
    /// Mail that comes in. The rules are queried about RCPT, and about the content of messages to be inspected.
    Inbound,
}

impl Direction {
    /// The name of the direction in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// One of the next hops of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NextHopChoice {
    /// The next hop for all mail.
    #[default]
    Main,
    /// The next hop for reversed SRS recipients, which may relay. It is not sent XCLIENT, because it permits relaying
    /// to this program, not to the client.
    Srs,
    /// The next hop for the domain of the recipient, by its index.
    Domain(u16),
}

/// What is done with the message of a group of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::wire) enum Handling {
    /// The message is delivered.
    #[default]
    Deliver,
    /// The message is delivered if its content allows it.
    Inspect(ContentCheck),
    /// The message is accepted, but not delivered.
    Discard,
}

impl Handling {
    /// Why the content is inspected; `None` if it is not.
    pub(crate) fn check(self) -> Option<ContentCheck> {
        match self {
            Self::Inspect(check) => Some(check),
            Self::Deliver | Self::Discard => None,
        }
    }
}

/// Recipients that can share a transaction. Recipients of different groups cannot, because their messages would be
/// handled differently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::wire) struct RecipientGroup {
    pub handling: Handling,
    /// The recipient of a message to be inspected. Evidence may prove a bounce genuine for one recipient only.
    pub candidate: Option<Address>,
    pub mark: Option<ResultHeader>,
    pub target: NextHopChoice,
}

impl RecipientGroup {
    /// Whether recipients of both groups can share a transaction.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same_mailbox = match (&self.candidate, &other.candidate) {
            (Some(a), Some(b)) => a.same_mailbox(b),
            (None, None) => true,
            _ => false,
        };
        same_mailbox && (self.handling, self.mark, self.target) == (other.handling, other.mark, other.target)
    }
}

/// The outcome of a message, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The number of the transaction; see [`Session::transaction`](crate::wire::smtp::session::Session::transaction).
    pub id: u64,
    /// The sender in MAIL FROM.
    pub sender: ReversePath,
    /// The sender that the next hop was sent, if it differs.
    pub signed: Option<String>,
    /// The number of recipients that the next hop accepted.
    pub recipients: u32,
    /// The code of the reply that the client was sent.
    pub code: u16,
    /// The last line of that reply, which has the queue ID.
    pub reply: String,
    /// The result header that was added.
    pub mark: Option<ResultHeader>,
    /// The Message-ID, with its angle brackets.
    pub message_id: Option<String>,
    /// What the classifier found, for a message that was marked because of its envelope.
    pub found: Option<Box<Findings>>,
}
