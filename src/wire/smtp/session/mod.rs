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
//!                 │ 220                     begins the set-up; of later ones, the set-up begins at once
//!                 v
//!   ┌──────── Setup <────── Securing       EHLO, STARTTLS, XCLIENT, EHLO again after each
//!   │             │              ^
//!   │             └── STARTTLS ──┘
//!   │ the last EHLO is answered
//!   v
//! Ready ── hop_eof, rest, a message that must not end ──> Closed ── next command ──> Event::Open
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
//! The other files are methods of the session, which act on what the parts say. `edge` has the client's lines and commands,
//! `transaction` its senders and recipients, `hop` the next hop's replies, `setup` what a next hop is sent before the client's
//! commands, `connection` what becomes of a connection that is lost. `content` has the messages, `chunk` what is particular to BDAT,
//! and `sync` clients that do not wait.

mod body;
mod chunk;
mod client;
mod connection;
mod content;
mod edge;
mod hop;
mod mail;
mod next_hop;
mod output;
mod pipeline;
mod queue;
mod setup;
mod sync;
mod transaction;
mod types;

use self::body::Message;
use self::client::{Client, Input};
use self::mail::{Asked, Mail};
#[cfg(feature = "milter")]
pub(in crate::wire) use self::mail::{Handling, RecipientGroup};
use self::next_hop::NextHop;
pub use self::output::Output;
use self::pipeline::Pipeline;
use self::queue::Item;
pub use self::types::{Answer, Direction, Event, Finished, NextHopChoice, Question, SessionLimits, Settings, Tls};
use super::identity::Identity;
use super::reply::Reply;
use crate::wire::smtp::replies::{NO_ROOM_CLOSING, OwnReply, RESTART, SILENT_TOO_LONG, TOO_SLOW, TRANSACTION_TOO_LONG};

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
            Asked::Aside { .. } => None,
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

    /// The client has sent this.
    pub fn client_data(&mut self, octets: &[u8]) {
        if self.is_closed() {
            return;
        }
        if self.expects_silence() {
            if !octets.is_empty() {
                self.out_of_sync();
            }
            return;
        }
        if self.client.pending.is_empty() {
            let used = self.consume(octets);
            self.client.pending.extend_from_slice(octets.get(used..).unwrap_or_default());
        } else {
            self.client.pending.extend_from_slice(octets);
            self.resume();
        }
        self.settle();
    }

    /// The client will send no more; it may still be listening, so what is owed to it is waited for.
    pub fn client_eof(&mut self) {
        let waits = self.takes_commands() || self.waits_to_send();
        if waits && self.pipeline.queue.is_waiting() && !self.is_closed() {
            self.end_when_answered();
        } else {
            self.client_lost();
        }
    }

    /// The client is gone.
    pub fn client_lost(&mut self) {
        if !self.is_closed() {
            self.leave_hop();
            self.end();
        }
    }

    /// The TLS handshake with the client is done: what it said before is forgotten (RFC 3207 section 4.2).
    pub fn client_secured(&mut self) {
        self.client.securing = false;
        self.client.encrypted = true;
        self.client.hello = None;
        self.out.progress += 1;
        self.settle();
    }

    /// The client was silent for too long.
    pub fn client_timeout(&mut self) {
        self.say_last(SILENT_TOO_LONG);
    }

    /// The client sends its message slower than it may.
    pub fn client_too_slow(&mut self) {
        self.out.events.push_back(Event::Limit("octets_per_second"));
        self.say_last(TOO_SLOW);
    }

    /// There is no room any more for what is held of the message.
    pub fn no_room(&mut self) {
        self.say_last(NO_ROOM_CLOSING);
    }

    /// The client has had a transaction open for longer than it may.
    pub fn transaction_timeout(&mut self) {
        self.out.events.push_back(Event::Limit("transaction"));
        self.say_last(TRANSACTION_TOO_LONG);
    }

    /// A connection of this client is one too many, or it may not use this server after all.
    pub fn turn_away(&mut self, reply: OwnReply) {
        self.say_last(reply);
    }

    /// The daemon is about to stop: the session ends when no transaction is open.
    pub fn drain(&mut self) {
        self.end_at_least(Ending::WhenIdle);
        self.settle();
    }

    /// So many octets of [`Output::to_hop`] have been written.
    pub fn wrote_to_hop(&mut self, octets: usize) {
        self.out.hop_sent += octets as u64;
    }

    /// Whether more octets of the client are of use now.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        !self.is_closed()
            && !self.client.securing
            && !self.mail.is_asking()
            && !self.waits_to_send()
            && (self.in_body() || self.may_parse() || self.expects_silence())
    }

    /// Whether a message waits in memory until the next hop says 354.
    fn waits_to_send(&self) -> bool {
        matches!(self.mail.message(), Some(Message::Data(body)) if body.is_released())
    }

    /// Whether the client's octets are commands.
    fn takes_commands(&self) -> bool {
        matches!(self.client.input, Input::Commands) && !self.mail.is_in_message()
    }

    /// Whether a message body is under way: large reads pay.
    #[must_use]
    pub fn in_body(&self) -> bool {
        self.mail.is_in_message() || matches!(self.client.input, Input::Swallow(_))
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

    /// Whether the session is over, but for what is still to be written.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.end == Ending::Closed
    }

    /// Whether nothing more of the client is looked at.
    fn is_ending(&self) -> bool {
        self.end >= Ending::WhenAnswered
    }

    fn end_at_least(&mut self, end: Ending) {
        self.end = self.end.max(end);
    }

    /// Nothing more of the client is looked at.
    fn end_when_answered(&mut self) {
        self.end_at_least(Ending::WhenAnswered);
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

    /// Whether a message is being sent, or a further chunk of one is awaited.
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.in_body() || matches!(self.mail.message(), Some(Message::Data(_) | Message::Chunks(_)))
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

    /// Looks at what the client sent earlier, now that something has changed.
    fn resume(&mut self) {
        self.end_refused_transaction();
        self.resume_recipient();
        let mut pending = std::mem::take(&mut self.client.pending);
        let used = self.consume(&pending);
        pending.drain(..used.min(pending.len()));
        self.client.pending = pending;
        if self.client.pending.is_empty() && self.client.pending.capacity() > 4096 {
            self.client.pending = Vec::new();
        }
    }

    /// Takes as much of the input as can be dealt with now.
    fn consume(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.client.securing {
                // Said before the handshake by whoever could: dropped (RFC 3207 section 4.2).
                return input.len();
            }
            if !self.wants_client() {
                break;
            }
            let used = match self.in_body() {
                true => self.take_body(rest),
                false if self.may_parse() => self.take_line(rest),
                false => 0,
            };
            if used == 0 {
                break;
            }
            // A line without end gets nowhere.
            self.out.progress += u64::from(!self.client.skipping);
            at += used;
        }
        at
    }

    /// Whether a line of the client may be looked at.
    fn may_parse(&self) -> bool {
        !self.is_blocked()
            && self.mail.transaction().is_none_or(|transaction| transaction.waiting.is_none())
            && !self.pipeline.queue.is_full()
            && (self.hop.facts.offer.pipelining || !self.pipeline.queue.is_waiting())
    }

    /// Whether no command can be carried out before something else has happened.
    fn is_blocked(&self) -> bool {
        self.is_ending() || self.pipeline.barrier || self.hop.dropping || !self.hop.connection.is_usable()
    }

    /// After every input: what can go, goes.
    fn settle(&mut self) {
        match self.end {
            Ending::WhenAnswered if self.pipeline.queue.is_empty() && self.takes_commands() => self.client_lost(),
            Ending::WhenIdle if self.is_idle() => {
                self.say_last(RESTART);
            }
            Ending::Open | Ending::WhenIdle | Ending::WhenAnswered | Ending::Closed => {}
        }
    }

    /// Nothing is under way: no transaction, no command without an answer.
    fn is_idle(&self) -> bool {
        matches!(self.client.input, Input::Commands)
            && self.mail.transaction().is_none()
            && self.pipeline.queue.is_empty()
            && !self.mail.is_asking()
            && !self.client.securing
            && self.hop.connection.is_usable()
    }

    /// A reply of ours, in its turn.
    fn say(&mut self, reply: OwnReply) {
        self.reply_with(reply.reply());
    }

    /// A reply of ours, in its turn, whose text depends on the command.
    fn reply(&mut self, code: u16, status: &str, text: &str) {
        self.reply_with(Reply::new(code, status, text));
    }

    fn reply_with(&mut self, reply: Reply) {
        self.pipeline.queue.push(Item::Local(reply.text));
        self.flush_local();
    }

    /// A reply of ours to a whole message. LMTP has one for each recipient (RFC 2033 section 4.2).
    fn reply_to_message(&mut self, reply: &Reply, recipients: u32) {
        for _ in 0..if self.settings.lmtp { recipients.max(1) } else { 1 } {
            self.pipeline.queue.push(Item::Local(reply.text.clone()));
        }
        self.flush_local();
    }

    fn flush_local(&mut self) {
        while let Some(text) = self.pipeline.queue.take_local() {
            self.out.to_client.extend_from_slice(&text);
        }
        if self.pipeline.queue.is_empty() {
            (self.pipeline.barrier, self.pipeline.answer_is_awaited) = (false, false);
        }
    }

    /// A last word, out of turn, and the end.
    fn say_last(&mut self, reply: OwnReply) {
        if !self.is_closed() {
            self.out.to_client.extend_from_slice(&reply.reply().text);
            self.leave_hop();
            self.end();
        }
    }

    fn end(&mut self) {
        self.end_at_least(Ending::Closed);
        self.mail.end();
        self.client.input = Input::Commands;
        self.client.pending = Vec::new();
        self.out.events.push_back(Event::CloseHop);
        self.out.events.push_back(Event::CloseClient);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
