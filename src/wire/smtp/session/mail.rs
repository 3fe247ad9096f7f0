//! The mail under way: the transaction that is open, with its message, and those that wait for an answer.

use std::collections::VecDeque;

use super::body::{ChunkedBody, DataBody, Message};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::ResultHeader;
use crate::wire::message::RecipientGroup;
use crate::wire::smtp::reply::Reply;

/// The mail of a session.
#[derive(Debug, Default)]
pub(super) struct Mail {
    current: Current,
    /// Transactions whose end of data the next hop has not answered.
    pub ended: VecDeque<Transaction>,
    /// Transactions so far: the number of the last.
    pub transactions: u64,
}

/// What the client has under way.
#[derive(Debug, Default)]
enum Current {
    /// No transaction.
    #[default]
    Nothing,
    /// A MAIL whose sender the rules are asked about.
    Asked(Box<AskedMail>),
    /// A transaction.
    Open(Box<Transaction>),
}

impl Mail {
    /// The transaction that the client has open.
    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match &self.current {
            Current::Open(transaction) => Some(transaction),
            Current::Nothing | Current::Asked(_) => None,
        }
    }

    pub(super) fn transaction_mut(&mut self) -> Option<&mut Transaction> {
        match &mut self.current {
            Current::Open(transaction) => Some(transaction),
            Current::Nothing | Current::Asked(_) => None,
        }
    }

    /// Begins a transaction.
    pub(super) fn begin(&mut self, transaction: Transaction) {
        self.current = Current::Open(Box::new(transaction));
    }

    /// Ends the transaction, with its message if there is one.
    pub(super) fn end(&mut self) -> Option<Transaction> {
        match std::mem::take(&mut self.current) {
            Current::Open(transaction) => Some(*transaction),
            Current::Nothing | Current::Asked(_) => None,
        }
    }

    /// The sender that the rules are asked about.
    pub(super) fn asked_sender(&self) -> Option<&AskedMail> {
        match &self.current {
            Current::Asked(asked) => Some(asked),
            Current::Nothing | Current::Open(_) => None,
        }
    }

    /// Waits for the rules' answer about a sender.
    pub(super) fn ask_about_sender(&mut self, asked: AskedMail) {
        self.current = Current::Asked(Box::new(asked));
    }

    /// The rules have answered about a sender: which that was.
    pub(super) fn take_asked_sender(&mut self) -> Option<AskedMail> {
        self.asked_sender()?;
        match std::mem::take(&mut self.current) {
            Current::Asked(asked) => Some(*asked),
            Current::Nothing | Current::Open(_) => None,
        }
    }

    /// A question of the transaction that has been answered, if it is one of these.
    pub(super) fn take_asked(&mut self, is_answered: impl Fn(&Asked) -> bool) -> Option<Asked> {
        self.transaction_mut()?.asked.take_if(|asked| is_answered(asked))
    }

    /// Whether something is asked, of the rules or of the next hop, before more of the client can be read.
    pub(super) fn is_asking(&self) -> bool {
        self.asked_sender().is_some() || self.transaction().is_some_and(|transaction| transaction.asked.is_some())
    }

    /// The message of the transaction.
    pub(super) fn message(&self) -> Option<&Message> {
        self.transaction().map(|transaction| &transaction.message)
    }

    pub(super) fn message_mut(&mut self) -> Option<&mut Message> {
        self.transaction_mut().map(|transaction| &mut transaction.message)
    }

    /// Whether the client's octets are those of a message.
    pub(super) fn is_in_message(&self) -> bool {
        self.message().is_some_and(Message::is_under_way)
    }

    /// The message by DATA that is under way.
    pub(super) fn data_mut(&mut self) -> Option<&mut DataBody> {
        match self.message_mut()? {
            Message::Data(body) => Some(body),
            Message::NotBegun | Message::Chunks(_) => None,
        }
    }

    /// The message by BDAT of which a chunk is under way.
    pub(super) fn chunk_mut(&mut self) -> Option<&mut ChunkedBody> {
        match self.message_mut()? {
            Message::Chunks(body) if body.is_in_chunk() => Some(body),
            Message::NotBegun | Message::Data(_) | Message::Chunks(_) => None,
        }
    }

    /// Takes back a question about the message, which is moot.
    pub(super) fn forget_question(&mut self) {
        self.take_asked(|asked| matches!(asked, Asked::Content | Asked::Evidence { .. } | Asked::Quarantine { .. }));
    }

    /// A transaction that is open, or whose message is not answered.
    pub(super) fn known(&mut self, id: u64) -> Option<&mut Transaction> {
        let open = match &mut self.current {
            Current::Open(transaction) => Some(&mut **transaction),
            Current::Nothing | Current::Asked(_) => None,
        };
        self.ended.iter_mut().chain(open).find(|transaction| transaction.id == id)
    }
}

/// What a transaction waits for, before more of the client can be read.
#[derive(Debug)]
pub(super) enum Asked {
    Rcpt(AskedRcpt),
    /// Room for a message that begins with DATA, or with this chunk.
    Hold(Option<ChunkSize>),
    Content,
    /// Which evidence a message with these header fields gets.
    Evidence {
        message_id: Option<String>,
        from: Option<String>,
    },
    /// The next hop is asked whether somebody else gets the message, with this mark: so many answers are due, and
    /// whether one of them was no.
    Quarantine {
        mark: ResultHeader,
        due: u32,
        refused: bool,
    },
}

/// How long a chunk is, in octets, and whether it is the last of its message (RFC 3030 section 2).
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkSize {
    pub octets: u64,
    pub last: bool,
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
    /// The next hop has refused MAIL. The transaction ends as soon as nothing of it is under way.
    pub is_refused: bool,
    /// What is asked, and not answered.
    pub asked: Option<Asked>,
    /// A recipient that waits for its next hop, or for the reply to MAIL. Until then nothing more of the client is read.
    pub waiting: Option<Box<Recipient>>,
    /// A swallowed second MAIL was refused with this; it answers the RCPT that needed it.
    pub refused: Option<Reply>,
    pub outstanding: u32,
    pub accepted: u32,
    pub group: RecipientGroup,
    /// Whether the message is to carry evidence.
    pub evidence: bool,
    /// What was found in it, where that changes nothing any more.
    pub found: Option<Box<Findings>>,
    pub message: Message,
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

impl Transaction {
    /// The sender of a message that is to be quarantined was refused, so its recipients cannot be accepted.
    pub(super) fn quarantine_failed(&mut self) {
        if let Some(Asked::Quarantine { refused, .. }) = &mut self.asked {
            *refused = true;
        }
    }

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
        self.has_recipients() && (self.has_another_sender(sender) || !self.group.is_like(group))
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
