//! The SMTP machine between a client and a next hop.
//!
//! The machine has no socket and no clock. A driver reports events to it, carries out what it requests, and writes its
//! output. Calls never block.
//!
//! # Input from the driver
//!
//! | event | call |
//! | --- | --- |
//! | the client has sent octets, has closed its side, or is lost | [`client_data`](Session::client_data), [`client_eof`](Session::client_eof), [`client_lost`](Session::client_lost) |
//! | a next hop is connected, or cannot be connected to | [`hop_connected`](Session::hop_connected), [`hop_failed`](Session::hop_failed) |
//! | the next hop has sent octets, or has closed | [`hop_data`](Session::hop_data), [`hop_eof`](Session::hop_eof) |
//! | a TLS handshake is done | [`client_secured`](Session::client_secured), [`hop_secured`](Session::hop_secured), [`hop_not_secured`](Session::hop_not_secured) |
//! | octets for the next hop have been written | [`wrote_to_hop`](Session::wrote_to_hop) |
//! | the rules have returned a verdict | [`answer`](Session::answer) |
//! | a time limit is reached | [`client_timeout`](Session::client_timeout), [`client_too_slow`](Session::client_too_slow), [`transaction_timeout`](Session::transaction_timeout), [`hop_timeout`](Session::hop_timeout) |
//! | the memory for buffered messages is exhausted | [`no_room`](Session::no_room) |
//! | the client is silent between two transactions | [`rest`](Session::rest), where [`can_rest`](Session::can_rest) |
//! | the daemon stops | [`drain`](Session::drain) |
//!
//! # What a driver has to do
//!
//! After each of these calls, in this order:
//!
//! 1. Call [`next_event`](Session::next_event) until it returns `None`, and carry out each [`Event`]. After
//!    [`Event::Ask`] there is a [`question`](Session::question), which may be answered at once or later; until then,
//!    nothing is read from the client.
//! 2. Write [`Session::out`] to both sides, in pieces of any size, and remove from the buffer what was written. Report
//!    octets written to the next hop, because a reply to the end of a message counts only if that end was written.
//! 3. Read the next hop whenever it has sent something. Read the client only while
//!    [`wants_client`](Session::wants_client). While [`expects_silence`](Session::expects_silence), read the client
//!    before the next hop, so that early input is seen before the reply that the client should have waited for.
//!
//! A session is over when [`is_closed`](Session::is_closed) is true and `out.to_client` is written.
//!
//! # Invariants
//!
//! - Each command of the client is answered once, in order. Octets that follow a 354, or belong to a BDAT chunk, are
//!   never read as commands.
//! - The client is sent 250 for a message only after the next hop has sent 250 for all of it, or if the rules discard
//!   it.
//! - A message that is refused or discarded is not completed at the next hop: its connection is closed, or RSET was
//!   answered.
//! - Memory is bounded by `Settings::hold`, by the length of a line, and by the commands in flight.
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
//!             Greeting                     first connection: 220 is sent to the client, whose EHLO begins the
//!                 │ 220                     handshake; later connections: the handshake begins at once
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
//!     │                          ^   │ content inspected at the end: refused, the connection is closed
//!     │                          │   v
//!     └── DATA, to be inspected ─> held ── content inspected: refused, RSET ─────> commands
//!                                    │ delivered or marked: DATA is sent to the next hop now
//!                                    v
//!                                 released ── 354 ──> streamed
//! ```
//!
//! BDAT passes through the same stages, chunk by chunk.
//!
//! # The parts
//!
//! [`Session`] keeps its state in five parts: `client`, `hop`, `mail`, `pipeline` (commands in flight) and `out`. They
//! do not depend on the session. A transaction owns its message and the question that it waits for, so neither can
//! outlive it. Message bodies (`body`) do not depend on the session either: each reads octets, writes what is passed
//! on, and returns a step for the session to act on.
//!
//! The other files are methods of the session, which act on the state of the parts:
//!
//! | file | what it does |
//! | --- | --- |
//! | `reading` | decides when octets of the client are read, and as what |
//! | `edge` | acts on the client's lines and commands |
//! | `transaction` | senders and recipients |
//! | `content` | messages, and the verdict about them |
//! | `chunk` | messages by BDAT |
//! | `sync` | clients that do not wait for replies |
//! | `hop` | the next hop's replies |
//! | `handshake` | commands to a next hop before the client's commands |
//! | `connection` | opening, leaving and losing connections to next hops |
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

/// The session of one client and its next hop. Each field keeps one part of the state.
#[derive(Debug)]
pub struct Session {
    /// The output to both sides. The driver writes it and removes what was written.
    pub out: Output,
    settings: Settings,
    client: Client,
    hop: NextHop,
    mail: Mail,
    pipeline: Pipeline,
    end: Ending,
}

/// Whether and when the session ends. Later variants take precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// The end is not planned.
    Open,
    /// Ends when no transaction is open and all commands are answered, because the daemon stops.
    WhenIdle,
    /// Ends when all commands so far are answered. No further client input is processed.
    WhenAnswered,
    /// Over, except for pending output.
    Closed,
}

impl Session {
    /// A new session. Its first event opens the connection to the next hop, whose greeting is sent to the client.
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

    /// The next event to be carried out, if any.
    pub fn next_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// The open question for the rules, if any.
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
                let found = Box::new(inspector.findings().unwrap_or_default());
                let message_id = inspector.message_id();
                Some(Question::Content { check, recipient, found, complete, message_id })
            }
            Asked::Evidence { message_id, from } => {
                Some(Question::Evidence { sender, message_id: message_id.as_deref(), from: from.as_deref() })
            }
            // This question is for the next hop.
            Asked::Quarantine { .. } => None,
        }
    }

    /// Accepts the rules' answer to [`Session::question`]. An answer has no effect if the question is moot (for
    /// example, because the next hop was lost), or if the answer is of another kind.
    pub fn answer(&mut self, answer: Answer<'_>) {
        match answer {
            Answer::Sender(outbound) => self.sender_answered(outbound),
            Answer::SenderFor(outbound, domain, check) => self.sender_for_answered(outbound, domain, check),
            Answer::Recipient(inbound, domain) => self.recipient_answered(inbound, domain),
            Answer::Hold(room) => self.hold_answered(room),
            Answer::Content(content) => self.content_answered(content),
            Answer::Evidence(header) => self.evidence_answered(header),
        }
        self.resume();
        self.settle();
    }

    /// Queries the rules about the open transaction.
    fn ask(&mut self, asked: Asked) {
        if let Some(transaction) = self.mail.transaction_mut() {
            transaction.asked = Some(asked);
            self.out.events.push_back(Event::Ask);
        }
    }

    /// Records that so many octets of [`Output::to_hop`] were written.
    pub fn wrote_to_hop(&mut self, octets: usize) {
        self.out.hop_sent += octets as u64;
    }

    /// The number of octets of a message that are buffered.
    #[must_use]
    pub fn held(&self) -> usize {
        self.mail.message().map_or(0, Message::held)
    }

    /// Whether part of a message is buffered.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.waits_to_send() || self.mail.message().is_some_and(Message::is_held)
    }

    /// Whether the session waits for the next hop.
    #[must_use]
    pub fn waits_for_hop(&self) -> bool {
        self.hop.connection.is_opening() || self.pipeline.queue.is_waiting()
    }

    /// Whether a connection to the next hop is being opened, or its handshake is not complete.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.hop.connection.is_opening()
    }

    /// Whether a TLS handshake with the client is in progress, or about to begin.
    #[must_use]
    pub fn is_securing(&self) -> bool {
        self.client.securing
    }

    /// The number of the open transaction.
    #[must_use]
    pub fn transaction(&self) -> Option<u64> {
        self.mail.transaction().map(|transaction| transaction.id)
    }

    /// A counter of progress: whole lines, whole replies, octets of a body. Only an increase extends a deadline.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.out.progress
    }

    /// Sets properties of the client that a trusted proxy has named by XCLIENT: whether that client is trusted, and
    /// whether it has to wait for replies.
    pub fn client_is(&mut self, trusted: bool, sync: bool) {
        self.settings.trusted = trusted;
        self.settings.sync = sync;
    }

    /// The client on whose behalf the mail is sent, as far as known.
    fn client(&self) -> Option<&Identity> {
        self.client.forwarded.as_ref().or(self.client.identity.as_ref())
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
