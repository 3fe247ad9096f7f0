//! What the SMTP session and the milter share: the direction of mail, recipients that share a message, and what became of
//! it.

use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::{ContentCheck, ResultHeader};

/// Which way mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It leaves: MAIL is asked about, and RCPT for what changes with the recipient.
    Outbound,
    /// It comes in: RCPT is asked about, and the content of candidates.
    Inbound,
}

impl Direction {
    /// The word in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Which of the next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NextHopChoice {
    /// The one for all mail.
    #[default]
    Main,
    /// The one that may relay, for reversed SRS recipients. It never hears who the client is by XCLIENT: its right to
    /// relay is ours.
    Srs,
    /// The one for the domain of the recipient, by its number.
    Domain(u16),
}

/// What is done with the message of a group of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::wire) enum Handling {
    /// It goes on.
    #[default]
    Deliver,
    /// It goes on if its content allows it.
    Inspect(ContentCheck),
    /// It is accepted and goes nowhere.
    Discard,
}

impl Handling {
    /// Why the content decides, where it does.
    pub(crate) fn check(self) -> Option<ContentCheck> {
        match self {
            Self::Inspect(check) => Some(check),
            Self::Deliver | Self::Discard => None,
        }
    }
}

/// Recipients of different groups do not share a transaction: what becomes of the message would differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::wire) struct RecipientGroup {
    pub handling: Handling,
    /// For whom a candidate is: evidence may rescue it for one recipient and not for another.
    pub candidate: Option<Address>,
    pub mark: Option<ResultHeader>,
    pub target: NextHopChoice,
}

impl RecipientGroup {
    /// Whether two recipients share the fate of a message.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same_mailbox = match (&self.candidate, &other.candidate) {
            (Some(a), Some(b)) => a.same_mailbox(b),
            (None, None) => true,
            _ => false,
        };
        same_mailbox && (self.handling, self.mark, self.target) == (other.handling, other.mark, other.target)
    }
}

/// What became of a message, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The number of its transaction; see [`Session::transaction`](crate::wire::smtp::session::Session::transaction).
    pub id: u64,
    /// Whose it was.
    pub sender: ReversePath,
    /// The sender that the next hop was told, where that is another.
    pub signed: Option<String>,
    /// How many recipients the next hop had taken.
    pub recipients: u32,
    /// The reply code that the client got.
    pub code: u16,
    /// The first line of that reply.
    pub reply: String,
    /// The mark it carries.
    pub mark: Option<ResultHeader>,
    /// What was found in it, where it was marked for what stands in its envelope.
    pub found: Option<Box<Findings>>,
}
