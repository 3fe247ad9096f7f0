//! The machine between a client and a next hop.
//!
//! Two halves: `edge` reads what the client says, `hop` what the next hop answers, `content` what happens to a message
//! body. Between them stands one bounded queue of what is in flight, so that each command is answered once, in order.
//! Nothing here knows a socket or a clock. Who drives it feeds bytes in, carries [`Session::to_client`] and
//! [`Session::to_hop`] out, and acts on each [`Event`] in order.

mod content;
mod edge;
mod hop;
mod queue;

use std::collections::VecDeque;

use self::content::Phase;
use self::edge::Asking;
use self::hop::Hop;
use self::queue::{Item, Queue};
use super::reply::{Reply, ReplyReader};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::{Judge, Kind, Mark, Route};

/// Which way mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It leaves: MAIL is asked about, and RCPT for what changes with the recipient.
    Outbound,
    /// It comes in: RCPT is asked about, and the content of candidates.
    Inbound,
}

/// What a session is told once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which way mail goes.
    pub direction: Direction,
    /// Whether line ends other than CR LF are refused; else they are mended.
    pub reject_stray: bool,
    /// How much of a candidate is held, in octets.
    pub hold: usize,
    /// Whether reversed SRS recipients have a next hop of their own.
    pub has_srs_next_hop: bool,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Event {
    /// Ask the rules, and give the answer back; nothing is read from the client until then.
    Ask(Ask),
    /// Connect to this next hop.
    Open(Route),
    /// Send what is in [`Session::to_hop`] if that goes at once, and close the connection to the next hop.
    CloseHop,
    /// Send what is in [`Session::to_client`] and end the session.
    CloseClient,
    /// For the log: the next hop has refused a command.
    Refused {
        /// MAIL, RCPT or DATA.
        command: &'static str,
        /// What it said.
        reply: String,
    },
    /// For the log: the recipient last asked about has to come again, in a transaction of its own.
    OwnTransaction,
    /// For the log: what became of a message.
    Finished(Finished),
}

/// A question for the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What becomes of this sender? Answer by [`Session::answer_mail`].
    Mail {
        /// Who.
        sender: ReversePath,
    },
    /// What becomes of this recipient? Answer by [`Session::answer_outbound_rcpt`], [`Session::answer_same_sender`] or
    /// [`Session::answer_inbound_rcpt`].
    Rcpt {
        /// Whose mail.
        sender: ReversePath,
        /// For whom.
        recipient: Address,
    },
    /// Is there room to hold a message? Answer by [`Session::answer_hold`].
    Hold,
    /// What becomes of this message? Answer by [`Session::answer_content`].
    Content {
        /// Why it is asked.
        judge: Judge,
        /// What it is.
        kind: Kind,
    },
}

/// What became of a message, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Whose it was.
    pub sender: ReversePath,
    /// How many recipients the next hop had taken.
    pub recipients: u32,
    /// The reply code that the client got.
    pub code: u16,
    /// The first line of that reply.
    pub reply: String,
    /// The mark it carries.
    pub mark: Option<Mark>,
}

/// One mail transaction, from MAIL to the end of data.
#[derive(Debug)]
struct Transaction {
    id: u64,
    sender: ReversePath,
    /// The path and parameters of MAIL as they came.
    path: String,
    params: String,
    /// Whether the next hop has a MAIL of this transaction in effect, and with which path.
    at_hop: Option<AtHop>,
    /// The next hop's answer to MAIL is not here yet.
    mail_pending: bool,
    /// A swallowed second MAIL was refused with this; it answers the RCPT that needed it.
    refused: Option<Reply>,
    outstanding: u32,
    accepted: u32,
    class: Class,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AtHop {
    path: String,
    signed: bool,
}

/// Recipients of different classes do not share a transaction: what becomes of the message would differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Class {
    judge: Judge,
    mark: Option<Mark>,
    route: Route,
}

impl Transaction {
    fn has_recipients(&self) -> bool {
        self.outstanding > 0 || self.accepted > 0
    }
}

/// One client, and the next hop behind it.
#[derive(Debug)]
pub struct Session {
    /// What is to be written to the client.
    pub to_client: Vec<u8>,
    /// What is to be written to the next hop.
    pub to_hop: Vec<u8>,
    settings: Settings,
    events: VecDeque<Event>,
    /// What the client sent and has not been looked at.
    pending: Vec<u8>,
    /// In the middle of a line that is too long.
    skipping: bool,
    bad_commands: u32,
    asking: Option<Asking>,
    replies: ReplyReader,
    queue: Queue,
    /// The client waits for an answer before it says more, or its next line waits for one.
    barrier: bool,
    hop: Hop,
    route: Route,
    /// The client's HELO or EHLO line, for a second connection.
    hello: Option<Vec<u8>>,
    /// One that the next hop has not answered.
    hello_asked: Option<Vec<u8>>,
    pipelining: bool,
    phase: Phase,
    transaction: Option<Transaction>,
    /// The transaction whose end of data the next hop has not answered.
    ended: Option<Transaction>,
    transactions: u64,
    draining: bool,
    /// Nothing more of the client is looked at; the session ends when all is answered.
    ending: bool,
    closed: bool,
}

impl Session {
    /// A session that has just begun. Its first event opens the next hop, whose greeting becomes ours.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            to_client: Vec::new(),
            to_hop: Vec::new(),
            settings,
            events: VecDeque::from([Event::Open(Route::NextHop)]),
            pending: Vec::new(),
            skipping: false,
            bad_commands: 0,
            asking: None,
            replies: ReplyReader::default(),
            queue: Queue::default(),
            barrier: false,
            hop: Hop::Connecting { first: true },
            route: Route::NextHop,
            hello: None,
            hello_asked: None,
            pipelining: false,
            phase: Phase::Command,
            transaction: None,
            ended: None,
            transactions: 0,
            draining: false,
            ending: false,
            closed: false,
        }
    }

    /// The next thing to do, until there is none.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The client has sent this.
    pub fn client_data(&mut self, octets: &[u8]) {
        if self.closed {
            return;
        }
        if self.pending.is_empty() {
            let used = self.consume(octets);
            self.pending.extend_from_slice(octets.get(used..).unwrap_or_default());
        } else {
            self.pending.extend_from_slice(octets);
            self.resume();
        }
        self.settle();
    }

    /// The client will send no more; it may still be listening, so what is owed to it is waited for.
    pub fn client_eof(&mut self) {
        if matches!(self.phase, Phase::Command | Phase::Release(_)) && self.queue.is_waiting() && !self.closed {
            self.ending = true;
        } else {
            self.client_lost();
        }
    }

    /// The client is gone.
    pub fn client_lost(&mut self) {
        if !self.closed {
            self.leave_hop();
            self.end();
        }
    }

    /// The client was silent for too long.
    pub fn client_timeout(&mut self) {
        self.say_last("421", "4.4.2 timeout, nothing was heard from you for too long");
    }

    /// The daemon is about to stop: the session ends when no transaction is open.
    pub fn drain(&mut self) {
        self.draining = true;
        self.settle();
    }

    /// Whether more octets of the client are of use now.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        !self.closed
            && self.asking.is_none()
            && match self.phase {
                Phase::Command => self.may_parse(),
                Phase::Stream(_) | Phase::Hold(_) | Phase::Discard { .. } => true,
                Phase::Release(_) => false,
            }
    }

    /// Whether a message body is under way: large reads pay.
    #[must_use]
    pub fn in_body(&self) -> bool {
        !matches!(self.phase, Phase::Command)
    }

    /// Whether part of a message is held in memory.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        matches!(self.phase, Phase::Hold(_) | Phase::Release(_))
    }

    /// Whether it is the next hop's turn.
    #[must_use]
    pub fn waits_for_hop(&self) -> bool {
        self.hop.is_opening() || self.queue.is_waiting()
    }

    /// Whether the next hop is being connected to, or has not greeted yet.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.hop.is_opening()
    }

    /// Whether the session is over, but for what is still to be written.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Looks at what the client sent earlier, now that something has changed.
    fn resume(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.consume(&pending);
        // What was put back stands before what was not reached.
        if self.pending.is_empty() {
            pending.drain(..used.min(pending.len()));
            self.pending = pending;
        } else {
            self.pending.extend_from_slice(pending.get(used..).unwrap_or_default());
        }
        if self.pending.is_empty() && self.pending.capacity() > 4096 {
            self.pending = Vec::new();
        }
    }

    /// Takes as much of the input as can be dealt with now.
    fn consume(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if !self.wants_client() || !self.pending.is_empty() {
                break;
            }
            let used = match self.phase {
                Phase::Command => self.take_line(rest),
                _ => self.take_body(rest),
            };
            if used == 0 {
                break;
            }
            at += used;
        }
        at
    }

    /// Whether a line of the client may be looked at.
    fn may_parse(&self) -> bool {
        !self.ending
            && !self.barrier
            && self.hop.is_usable()
            && !self.queue.is_full()
            && (self.pipelining || !self.queue.is_waiting())
    }

    /// After every input: what can go, goes.
    fn settle(&mut self) {
        if self.ending && !self.closed && self.queue.is_empty() && matches!(self.phase, Phase::Command) {
            self.client_lost();
        }
        if self.draining && !self.closed && self.is_idle() {
            self.say_last("421", "4.3.2 closing for a restart, try again later");
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Command)
            && self.transaction.is_none()
            && self.queue.is_empty()
            && self.asking.is_none()
            && self.hop.is_usable()
    }

    /// A reply of ours, in its turn.
    fn reply(&mut self, code: u16, status: &str, text: &str) {
        self.reply_with(Reply::new(code, status, text));
    }

    fn reply_with(&mut self, reply: Reply) {
        self.queue.push(Item::Local(reply.text));
        self.flush_local();
    }

    fn flush_local(&mut self) {
        while let Some(text) = self.queue.take_local() {
            self.to_client.extend_from_slice(&text);
        }
        if self.queue.is_empty() {
            self.barrier = false;
        }
    }

    /// A last word, out of turn, and the end.
    fn say_last(&mut self, code: &str, text: &str) {
        if !self.closed {
            self.to_client.extend_from_slice(format!("{code} {text}\r\n").as_bytes());
            self.leave_hop();
            self.end();
        }
    }

    fn end(&mut self) {
        self.closed = true;
        self.phase = Phase::Command;
        self.pending = Vec::new();
        self.events.push_back(Event::CloseHop);
        self.events.push_back(Event::CloseClient);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
