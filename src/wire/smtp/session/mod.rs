//! The SMTP machine between a client and a next hop.
//!
//! It has no socket and no clock. A driver tells it what has happened, does what it asks for, and writes what it has to
//! say. It never waits: each call returns at once.
//!
//! # What a driver tells it
//!
//! | what has happened | call |
//! | --- | --- |
//! | the client has sent octets, has sent its last, or is gone | [`client_data`](Session::client_data), [`client_eof`](Session::client_eof), [`client_lost`](Session::client_lost) |
//! | the connection to a next hop stands, or cannot be made | [`hop_connected`](Session::hop_connected), [`hop_failed`](Session::hop_failed) |
//! | the next hop has sent octets, or has closed | [`hop_data`](Session::hop_data), [`hop_eof`](Session::hop_eof) |
//! | a TLS handshake is done | [`client_secured`](Session::client_secured), [`hop_secured`](Session::hop_secured), [`hop_not_secured`](Session::hop_not_secured) |
//! | octets for the next hop have been written | [`wrote_to_hop`](Session::wrote_to_hop) |
//! | the rules have answered | [`answer`](Session::answer) |
//! | something took too long | [`client_timeout`](Session::client_timeout), [`client_too_slow`](Session::client_too_slow), [`transaction_timeout`](Session::transaction_timeout), [`hop_timeout`](Session::hop_timeout) |
//! | the room for held messages is gone | [`no_room`](Session::no_room) |
//! | the client is silent between two transactions | [`rest`](Session::rest), where [`can_rest`](Session::can_rest) |
//! | the daemon stops | [`drain`](Session::drain) |
//!
//! # What it wants
//!
//! After each of these calls, in this order:
//!
//! 1. [`next_event`](Session::next_event) until it says `None`, and each [`Event`] done in turn. After [`Event::Ask`] there is a
//!    [`question`](Session::question), answered at once or later; until then nothing is read from the client.
//! 2. [`Session::out`] written to both sides, in pieces of any size. What is written is taken out of the buffer. What was written
//!    to the next hop is reported, because a reply to the end of a message counts only once that end was written.
//! 3. The next hop is read whenever it has something. The client is read only while [`wants_client`](Session::wants_client). While
//!    [`expects_silence`](Session::expects_silence), the client is read before the next hop: what it says too early must be seen
//!    before the reply that it should have waited for.
//!
//! A session is over when [`is_closed`](Session::is_closed) and `out.to_client` is written.
//!
//! # What holds at any time
//!
//! - Each command of the client is answered once, in order. Octets that follow a 354, or belong to a
//!   BDAT, are never read as commands.
//! - The client is sent 250 for a message only after the next hop has sent 250 for all of it, or where the rules discard it.
//! - A message that is refused or discarded has no end at the next hop: its connection is closed, or RSET was answered.
//! - Memory is bounded by `Settings::hold`, by one line, and by the commands in flight.
//!
//! # The connection to the next hop
//!
//! ```text
//!            Event::Open
//!                 │
//!                 v
//!            Connecting ── hop_failed ──> 421 or 451 to the client
//!                 │ hop_connected
//!                 v
//!             Greeting                     of the first connection, 220 is the client's greeting, and its EHLO
//!                 │ 220                     begins the handshake; of later ones, it begins at once
//!                 v
//!   ┌───────── Handshake                   EHLO, STARTTLS, XCLIENT, EHLO again after each
//!   │ the last EHLO is answered
//!   v
//! Ready ── hop_eof, rest, a message that must not end ──> Closed ── next command ──> Event::Open
//!      └── hop_eof between the commands of a transaction ──> 421 to the client, and the end
//! ```
//!
//! # A message
//!
//! ```text
//! commands ── DATA, 354 ─────> streamed ── dot ──────────────────────────────────> commands
//!     │                          ^   │ content asked for at the end: refused, the connection is closed
//!     │                          │   v
//!     └── DATA, to be inspected ─> held ── content asked for: refused, RSET ─────> commands
//!                                    │ delivered or marked: DATA goes to the next hop now
//!                                    v
//!                                 released ── 354 ──> streamed
//! ```
//!
//! BDAT goes the same ways, chunk by chunk.
//!
//! # The parts
//!
//! [`Session`] keeps its state in five parts: `client`, `hop`, `mail`, `pipeline` (what is in flight) and `out`. Their
//! files know nothing of the session. A transaction owns its message and the question that it waits for, so neither can
//! outlive it. Message bodies (`body`) know nothing of the session either: each takes octets, writes what goes on, and
//! returns a step that says what that led to.
//!
//! The other files are methods of the session, which act on what the parts say:
//!
//! | file | what it does |
//! | --- | --- |
//! | `reading` | decides when octets of the client are read, and as what |
//! | `edge` | acts on the client's lines and commands |
//! | `transaction` | senders and recipients |
//! | `content` | messages, and the verdict about them |
//! | `chunk` | what is particular to BDAT |
//! | `sync` | clients that do not wait for replies |
//! | `hop` | the next hop's replies |
//! | `handshake` | what a next hop is sent before the client's commands |
//! | `connection` | connections that are opened, left or lost |
//! | `local_replies`, `ending` | replies of this program, and the end of the session |

mod body;
mod chunk;
mod client;
mod connection;
mod content;
mod edge;
mod ending;
mod handshake;
mod hop;
mod local_replies;
mod mail;
mod next_hop;
mod output;
mod pipeline;
mod queue;
mod reading;
mod sync;
mod transaction;
mod types;

use self::body::Message;
use self::client::Client;
use self::mail::{Asked, Mail};
use self::next_hop::NextHop;
pub use self::output::Output;
use self::pipeline::Pipeline;
pub use self::types::{Answer, Event, Question, SessionLimits, Settings, Tls};
use super::identity::Identity;

/// One client, and the next hop behind it. Each part keeps the state of one thing.
#[derive(Debug)]
pub struct Session {
    /// What it has to say to both sides. Whoever drives it writes it and takes it away.
    pub out: Output,
    settings: Settings,
    client: Client,
    hop: NextHop,
    mail: Mail,
    pipeline: Pipeline,
    end: Ending,
}

/// Whether the session is to end, and when. Later ones are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// Not as far as is known.
    Open,
    /// When no transaction is open and no command waits for an answer: the daemon is about to stop.
    WhenIdle,
    /// When all commands so far are answered. Nothing more of the client is looked at.
    WhenAnswered,
    /// It is over, but for what is still to be written.
    Closed,
}

impl Session {
    /// A session that has just begun. Its first event opens the next hop, whose greeting becomes ours.
    #[must_use]
    pub fn new(settings: Settings, identity: Option<Identity>) -> Self {
        Self {
            out: Output::opening(),
            client: Client::new(settings.encrypted, identity),
            hop: NextHop::default(),
            mail: Mail::default(),
            pipeline: Pipeline::default(),
            end: Ending::Open,
            settings,
        }
    }

    /// The next thing to do, until there is none.
    pub fn next_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// What the rules are asked at this moment, if anything.
    #[must_use]
    pub fn question(&self) -> Option<Question<'_>> {
        if let Some(asked) = self.mail.asked_sender() {
            return Some(Question::Mail { sender: &asked.sender });
        }
        let transaction = self.mail.transaction()?;
        let sender = &transaction.sender;
        match transaction.asked.as_ref()? {
            Asked::Rcpt(asked) => Some(Question::Rcpt { sender, recipient: &asked.recipient }),
            Asked::Hold(_) => Some(Question::Hold),
            Asked::Content => {
                let (inspector, complete) = transaction.message.inspected()?;
                let (check, recipient) = inspector.check().zip(transaction.group.candidate.as_ref())?;
                let found = inspector.findings().unwrap_or_default();
                Some(Question::Content { check, recipient, found, complete })
            }
            Asked::Evidence { message_id, from } => {
                Some(Question::Evidence { sender, message_id: message_id.as_deref(), from: from.as_deref() })
            }
            // That is for the next hop to answer.
            Asked::Quarantine { .. } => None,
        }
    }

    /// The rules' answer to [`Session::question`]. One that comes after the question is moot, because the next hop was
    /// lost for example, changes nothing; neither does an answer to a question of another kind.
    pub fn answer(&mut self, answer: Answer<'_>) {
        match answer {
            Answer::Sender(outbound) => self.sender_answered(outbound),
            Answer::SenderFor(outbound, domain) => self.sender_for_answered(outbound, domain),
            Answer::Recipient(inbound, domain) => self.recipient_answered(inbound, domain),
            Answer::Hold(room) => self.hold_answered(room),
            Answer::Content(content) => self.content_answered(content),
            Answer::Evidence(header) => self.evidence_answered(header),
        }
        self.resume();
        self.settle();
    }

    /// Asks about the transaction that is open.
    fn ask(&mut self, asked: Asked) {
        if let Some(transaction) = self.mail.transaction_mut() {
            transaction.asked = Some(asked);
            self.out.events.push_back(Event::Ask);
        }
    }

    /// So many octets of [`Output::to_hop`] have been written.
    pub fn wrote_to_hop(&mut self, octets: usize) {
        self.out.hop_sent += octets as u64;
    }

    /// Octets of a message that are held in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.mail.message().map_or(0, Message::held)
    }

    /// Whether part of a message is held in memory.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.waits_to_send() || self.mail.message().is_some_and(Message::is_held)
    }

    /// Whether it is the next hop's turn.
    #[must_use]
    pub fn waits_for_hop(&self) -> bool {
        self.hop.connection.is_opening() || self.pipeline.queue.is_waiting()
    }

    /// Whether the next hop is being connected to, or has not said all that is needed to begin.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.hop.connection.is_opening()
    }

    /// Whether a TLS handshake with the client is under way, or about to begin.
    #[must_use]
    pub fn is_securing(&self) -> bool {
        self.client.securing
    }

    /// The number of the transaction that the client has open.
    #[must_use]
    pub fn transaction(&self) -> Option<u64> {
        self.mail.transaction().map(|transaction| transaction.id)
    }

    /// Counts what one side can make happen only by going on: whole lines, whole replies, octets of a body. What does
    /// not change it is no reason to wait longer.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.out.progress
    }

    /// What holds for the client that a trusted proxy has named by XCLIENT: whether it is trusted itself, and whether
    /// it has to wait for answers as strangers do.
    pub fn client_is(&mut self, trusted: bool, sync: bool) {
        self.settings.trusted = trusted;
        self.settings.sync = sync;
    }

    /// Whose mail this is, as far as that is known.
    fn client(&self) -> Option<&Identity> {
        self.client.forwarded.as_ref().or(self.client.identity.as_ref())
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
