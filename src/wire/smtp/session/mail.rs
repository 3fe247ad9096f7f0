//! The open transaction with its message, and transactions that wait for the reply to their message.

use std::collections::VecDeque;

use super::body::{ChunkedBody, DataBody, Message};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::ResultHeader;
use crate::wire::message::RecipientGroup;
use crate::wire::smtp::reply::Reply;

/// The mail transactions of a session.
#[derive(Debug, Default)]
pub(super) struct Mail {
    current: Current,
    /// Transactions whose message the next hop has not replied to.
    pub ended: VecDeque<Transaction>,
    /// The number of transactions so far, which is the number of the last one.
    pub transactions: u64,
}

/// The state of the current transaction.
#[derive(Debug, Default)]
enum Current {
    /// No transaction is open.
    #[default]
    Nothing,
    /// The rules are queried about the sender in MAIL.
    Asked(Box<AskedMail>),
    /// A transaction is open.
    Open(Box<Transaction>),
}

impl Mail {
    /// The open transaction.
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

    /// Opens a transaction.
    pub(super) fn begin(&mut self, transaction: Transaction) {
        self.current = Current::Open(Box::new(transaction));
    }

    /// Ends the open transaction and its message.
    pub(super) fn end(&mut self) -> Option<Transaction> {
        match std::mem::take(&mut self.current) {
            Current::Open(transaction) => Some(*transaction),
            Current::Nothing | Current::Asked(_) => None,
        }
    }

    /// The MAIL that the rules are queried about.
    pub(super) fn asked_sender(&self) -> Option<&AskedMail> {
        match &self.current {
            Current::Asked(asked) => Some(asked),
            Current::Nothing | Current::Open(_) => None,
        }
    }

    /// Waits for the verdict on a sender.
    pub(super) fn ask_about_sender(&mut self, asked: AskedMail) {
        self.current = Current::Asked(Box::new(asked));
    }

    /// Takes the MAIL that the rules have answered about.
    pub(super) fn take_asked_sender(&mut self) -> Option<AskedMail> {
        self.asked_sender()?;
        match std::mem::take(&mut self.current) {
            Current::Asked(asked) => Some(*asked),
            Current::Nothing | Current::Open(_) => None,
        }
    }

    /// Takes the question of the transaction, if `is_answered` is true for it.
    pub(super) fn take_asked(&mut self, is_answered: impl Fn(&Asked) -> bool) -> Option<Asked> {
        self.transaction_mut()?.asked.take_if(|asked| is_answered(asked))
    }

    /// Whether a question to the rules or to the next hop is open, so that client input has to wait.
    pub(super) fn is_asking(&self) -> bool {
        self.asked_sender().is_some() || self.transaction().is_some_and(|transaction| transaction.asked.is_some())
    }

    /// The message of the open transaction.
    pub(super) fn message(&self) -> Option<&Message> {
        self.transaction().map(|transaction| &transaction.message)
    }

    pub(super) fn message_mut(&mut self) -> Option<&mut Message> {
        self.transaction_mut().map(|transaction| &mut transaction.message)
    }

    /// Whether the client's octets belong to a message.
    pub(super) fn is_in_message(&self) -> bool {
        self.message().is_some_and(Message::is_under_way)
    }

    /// The message by DATA that is in progress.
    pub(super) fn data_mut(&mut self) -> Option<&mut DataBody> {
        match self.message_mut()? {
            Message::Data(body) => Some(body),
            Message::NotBegun | Message::Chunks(_) => None,
        }
    }

    /// The message by BDAT of which a chunk is being received.
    pub(super) fn chunk_mut(&mut self) -> Option<&mut ChunkedBody> {
        match self.message_mut()? {
            Message::Chunks(body) if body.is_in_chunk() => Some(body),
            Message::NotBegun | Message::Data(_) | Message::Chunks(_) => None,
        }
    }

    /// Drops a moot question about the message.
    pub(super) fn forget_question(&mut self) {
        self.take_asked(|asked| matches!(asked, Asked::Content | Asked::Evidence { .. } | Asked::Quarantine { .. }));
    }

    /// The transaction with this number, if it is open or waits for the reply to its message.
    pub(super) fn known(&mut self, id: u64) -> Option<&mut Transaction> {
        let open = match &mut self.current {
            Current::Open(transaction) => Some(&mut **transaction),
            Current::Nothing | Current::Asked(_) => None,
        };
        self.ended.iter_mut().chain(open).find(|transaction| transaction.id == id)
    }
}

/// What a transaction waits for. Until then, client input is not processed.
#[derive(Debug)]
pub(super) enum Asked {
    Rcpt(AskedRcpt),
    /// Memory for a message that begins with DATA, or with this chunk.
    Hold(Option<ChunkSize>),
    Content,
    /// The evidence header of a message with these header fields.
    Evidence {
        message_id: Option<String>,
        from: Option<String>,
    },
    /// The next hop's replies about the quarantine mailbox: the mark of the message, how many replies are due, and the
    /// code of the first negative one.
    Quarantine {
        mark: ResultHeader,
        due: u32,
        refused: Option<u16>,
    },
}

/// The size of a chunk in octets, and whether it is the last of its message (RFC 3030 section 2).
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkSize {
    pub octets: u64,
    pub last: bool,
}

/// A MAIL whose sender the rules are queried about: the line and the path as received, the sender, and the parameters
/// for the next hop.
#[derive(Debug)]
pub(super) struct AskedMail {
    pub line: Vec<u8>,
    pub sender: ReversePath,
    pub path: String,
    pub params: String,
}

/// A RCPT whose recipient the rules are queried about.
#[derive(Debug)]
pub(super) struct AskedRcpt {
    pub recipient: Address,
    /// The parameters as received, with a space before each.
    pub params: String,
    /// The command to the next hop if the recipient stays unchanged: the client's line without a source route.
    pub unchanged: Vec<u8>,
}

/// One mail transaction, from MAIL to the reply to its message.
#[derive(Debug)]
pub(super) struct Transaction {
    pub id: u64,
    pub sender: ReversePath,
    /// The path of MAIL as received, and the parameters that the next hop is sent.
    pub path: String,
    pub params: String,
    /// Whether MAIL has `BODY=BINARYMIME`.
    pub binary: bool,
    /// The sender that the next hop was last sent.
    pub at_hop: AtHop,
    /// Whether that MAIL is in effect: not refused, and its connection is open.
    pub in_effect: bool,
    /// Whether the next hop has not yet replied to MAIL.
    pub mail_pending: bool,
    /// Whether the next hop has refused MAIL. The transaction ends as soon as nothing of it is in progress.
    pub is_refused: bool,
    /// The open question of the transaction.
    pub asked: Option<Asked>,
    /// A recipient that waits for its next hop, or for the reply to MAIL. Until then, client input is not processed.
    pub waiting: Option<Box<Recipient>>,
    /// The refusal of a second MAIL. It becomes the reply to the RCPT that needed that MAIL.
    pub refused: Option<Reply>,
    pub outstanding: u32,
    pub accepted: u32,
    pub group: RecipientGroup,
    /// Whether evidence is added to the message.
    pub evidence: bool,
    /// The classifier's findings, if they do not decide about the message.
    pub found: Option<Box<Findings>>,
    /// The Message-ID of a message that has ended, for the log.
    pub message_id: Option<String>,
    pub message: Message,
    /// The refusal of a chunk whose reply is not passed on. It becomes the reply to the client's chunk.
    pub chunk_refused: Option<Reply>,
    /// For a message that has ended: the position of its end in the output to the next hop, the number of replies still
    /// due, and the worst reply so far.
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
    /// Records that MAIL for the quarantine mailbox was refused, so that its recipients cannot be accepted.
    pub(super) fn quarantine_failed(&mut self, code: u16) {
        if let Some(Asked::Quarantine { refused, .. }) = &mut self.asked {
            refused.get_or_insert(code);
        }
    }

    /// Whether a recipient was accepted, or still may be.
    pub(super) fn has_recipients(&self) -> bool {
        self.outstanding > 0 || self.accepted > 0
    }

    /// Whether the next hop was sent another sender than a recipient needs, or no sender.
    pub(super) fn has_another_sender(&self, wanted: &SenderAtHop) -> bool {
        let differs = match wanted {
            SenderAtHop::AsBefore => false,
            SenderAtHop::Unsigned => self.at_hop.signed,
            SenderAtHop::Signed(_) => !self.at_hop.signed,
        };
        differs || !self.in_effect
    }

    /// Whether a recipient needs another transaction than the recipients before it.
    pub(super) fn needs_another(&self, group: &RecipientGroup, sender: &SenderAtHop) -> bool {
        self.has_recipients() && (self.has_another_sender(sender) || !self.group.is_like(group))
    }

    /// Keeps the Message-ID when the message itself is dropped.
    pub(super) fn note_message_id(&mut self) {
        if let Some((inspector, _)) = self.message.inspected() {
            self.message_id = inspector.message_id();
        }
    }

    /// Whether the transaction exists at the next hop. It does not if its only recipient needed another sender that was
    /// refused.
    pub(super) fn is_begun(&self) -> bool {
        self.in_effect || self.has_recipients()
    }
}

/// A recipient that the rules have accepted, and that is to be sent to the next hop.
#[derive(Debug)]
pub(super) struct Recipient {
    /// The RCPT command for the next hop, without its line end.
    pub command: Vec<u8>,
    pub group: RecipientGroup,
    pub sender: SenderAtHop,
}

/// The sender that the next hop has to be sent before a recipient, where the sender depends on the recipient.
#[derive(Debug)]
pub(super) enum SenderAtHop {
    /// The sender that the next hop was sent with MAIL.
    AsBefore,
    /// The sender that the client sent.
    Unsigned,
    /// This signed sender.
    Signed(String),
}
