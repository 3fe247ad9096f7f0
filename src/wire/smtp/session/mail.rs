//! The mail under way: the transaction that is open, those that wait for an answer, and the message body.

use std::collections::VecDeque;

use super::body::{ChunkedMessage, Phase};
use super::types::NextHopChoice;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::{ContentCheck, ResultHeader};
use crate::wire::smtp::reply::Reply;

/// The mail of a session.
#[derive(Debug)]
pub(super) struct Mail {
    /// What the client's octets are.
    pub phase: Phase,
    /// The transaction that the client has open.
    pub transaction: Option<Transaction>,
    /// Transactions whose end of data the next hop has not answered.
    pub ended: VecDeque<Transaction>,
    /// Transactions so far: the number of the last.
    pub transactions: u64,
    /// A question to the rules that is not answered.
    pub asking: Option<Pending>,
    /// A recipient that waits for its next hop, or for the reply to MAIL. Until then nothing more of the client is read.
    pub waiting: Option<Box<Recipient>>,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            phase: Phase::Command,
            transaction: None,
            ended: VecDeque::new(),
            transactions: 0,
            asking: None,
            waiting: None,
        }
    }
}

impl Mail {
    /// The message of which the client has sent some chunks, between two of them.
    pub(super) fn between_chunks(&self) -> Option<&ChunkedMessage> {
        self.transaction.as_ref().and_then(|transaction| transaction.message.as_deref())
    }

    /// The body is over, commands follow. A message in chunks waits in its transaction for the next one.
    pub(super) fn end_body(&mut self, message_goes_on: bool) {
        let body = std::mem::replace(&mut self.phase, Phase::Command);
        if let (true, Phase::Chunk(chunk), Some(transaction)) = (message_goes_on, body, &mut self.transaction) {
            transaction.message = Some(chunk.message);
        }
    }

    /// Takes back a question about the body, which is moot.
    pub(super) fn forget_question(&mut self) {
        let about_body = |asking: &mut Pending| {
            matches!(asking, Pending::Content | Pending::Evidence { .. } | Pending::Aside { .. })
        };
        self.asking.take_if(about_body);
    }

    /// The sender of a message that is to be quarantined was refused, so its recipients cannot be accepted.
    pub(super) fn quarantine_failed(&mut self) {
        if let Some(Pending::Aside { refused, .. }) = &mut self.asking {
            *refused = true;
        }
    }

    /// A transaction that is open, or whose message is not answered.
    pub(super) fn known(&mut self, id: u64) -> Option<&mut Transaction> {
        self.ended.iter_mut().chain(&mut self.transaction).find(|transaction| transaction.id == id)
    }
}

/// What is being asked about, while no answer is here.
#[derive(Debug)]
pub(super) enum Pending {
    Mail(AskedMail),
    Rcpt(AskedRcpt),
    /// Room for a message that begins with DATA, or with a chunk of that size.
    Hold(Option<(u64, bool)>),
    Content,
    /// Which evidence a message with these header fields gets.
    Evidence {
        message_id: Option<String>,
        from: Option<String>,
    },
    /// The next hop is asked whether somebody else gets the message, with this mark: so many answers are due, and
    /// whether one of them was no.
    Aside {
        mark: ResultHeader,
        due: u32,
        refused: bool,
    },
}

/// A MAIL whose sender is asked about: the line as it came, the sender, its path as it came, and the parameters for the
/// next hop.
#[derive(Debug)]
pub(super) struct AskedMail {
    pub line: Vec<u8>,
    pub sender: ReversePath,
    pub path: String,
    pub params: String,
}

/// A RCPT whose recipient is asked about.
#[derive(Debug)]
pub(super) struct AskedRcpt {
    pub recipient: Address,
    /// The parameters as they came, with a space before each.
    pub params: String,
    /// The command for the next hop, where the recipient stays as it is: the client's line, less a source route.
    pub unchanged: Vec<u8>,
}

/// One mail transaction, from MAIL to the end of data.
#[derive(Debug)]
pub(super) struct Transaction {
    pub id: u64,
    pub sender: ReversePath,
    /// The path of MAIL as it came, and its parameters as the next hop hears them.
    pub path: String,
    pub params: String,
    /// Whether it has said `BODY=BINARYMIME`.
    pub binary: bool,
    /// The sender that the next hop was last told.
    pub at_hop: AtHop,
    /// Whether that MAIL is in effect there: not refused, and not on a connection that is gone.
    pub in_effect: bool,
    /// The next hop's answer to MAIL is not here yet.
    pub mail_pending: bool,
    /// A swallowed second MAIL was refused with this; it answers the RCPT that needed it.
    pub refused: Option<Reply>,
    pub outstanding: u32,
    pub accepted: u32,
    pub class: RecipientGroup,
    /// Whether the message is to carry evidence.
    pub evidence: bool,
    /// What was found in it, where that changes nothing any more.
    pub found: Option<Box<Findings>>,
    /// Its message, between two chunks of it.
    pub message: Option<Box<ChunkedMessage>>,
    /// A chunk whose reply was swallowed was refused with this; it answers the chunk that the client waits for.
    pub chunk_refused: Option<Reply>,
    /// Of a message that has ended: where that stands in what the next hop is sent, how many replies are still to come,
    /// and the worst so far.
    pub ends_at: u64,
    pub replies_due: u32,
    pub worst: Option<Reply>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AtHop {
    pub path: String,
    pub signed: bool,
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

/// Recipients of different classes do not share a transaction: what becomes of the message would differ.
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

impl Transaction {
    /// Whether a recipient was accepted, or may still be.
    pub(super) fn has_recipients(&self) -> bool {
        self.outstanding > 0 || self.accepted > 0
    }

    /// Whether the next hop knows of another sender than a recipient needs, or of none.
    pub(super) fn has_another_sender(&self, wanted: &SenderAtHop) -> bool {
        let differs = match wanted {
            SenderAtHop::AsBefore => false,
            SenderAtHop::Unsigned => self.at_hop.signed,
            SenderAtHop::Signed(_) => !self.at_hop.signed,
        };
        differs || !self.in_effect
    }

    /// Whether a recipient cannot share this transaction with those that it has.
    pub(super) fn needs_another(&self, group: &RecipientGroup, sender: &SenderAtHop) -> bool {
        self.has_recipients() && (self.has_another_sender(sender) || !self.class.is_like(group))
    }

    /// Whether the next hop knows of it: not where its only recipient wanted another that could not be had.
    pub(super) fn is_begun(&self) -> bool {
        self.in_effect || self.has_recipients()
    }
}

/// A recipient that the rules have accepted, on its way to the next hop.
#[derive(Debug)]
pub(super) struct Recipient {
    /// The RCPT command that the next hop is sent, without its line end.
    pub command: Vec<u8>,
    pub group: RecipientGroup,
    pub sender: SenderAtHop,
}

/// Which sender the next hop has to know before a recipient, where senders differ by recipient.
#[derive(Debug)]
pub(super) enum SenderAtHop {
    /// The one that MAIL went on with.
    AsBefore,
    /// The one that the client gave.
    Unsigned,
    /// This one.
    Signed(String),
}
