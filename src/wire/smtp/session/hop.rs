//! The next hop's half: connecting, replies, and what becomes of a client when it is lost.

use super::content::Phase;
use super::queue::{Item, Kind, Quiet};
use super::transaction::Transaction;
use super::{Event, Finished, Session, Target};
use crate::wire::smtp::extensions::{self, Offer};
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// How far the connection to the next hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// Being opened. Of the first one the client sees the greeting.
    Connecting { first: bool },
    /// Connected; a later one greets us, not the client.
    Greeting { first: bool },
    /// Hears what it has to know first: see `setup`.
    Setup,
    /// Does a TLS handshake.
    Securing,
    /// At the client's service.
    Ready,
    /// Gone; opened again for the next command.
    Closed,
}

impl Hop {
    pub fn is_opening(self) -> bool {
        matches!(self, Self::Connecting { .. } | Self::Greeting { .. } | Self::Setup | Self::Securing)
    }

    /// Whether a command may be looked at: there is a next hop, or one can be had.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Ready | Self::Closed)
    }
}

/// What is true of one connection to a next hop.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// It has answered a hello.
    pub set_up: bool,
    pub encrypted: bool,
    /// Which identity of the client it was told by XCLIENT.
    pub told: Option<u32>,
    pub offer: Offer,
    /// Its last answer to a hello.
    pub hello_reply: Option<Reply>,
}

const LOST_AFTER_DATA: &str = "next hop was lost before it had confirmed the message, try again later";
const NO_SENSE: &str = "the next hop's answer makes no sense here, try again later";
pub(super) const LOST: &str = "next hop was lost, try again later";

impl Session {
    /// The connection asked for by [`Event::Open`] stands; `encrypted`: with TLS from its first octet.
    pub fn hop_connected(&mut self, encrypted: bool) {
        if let Hop::Connecting { first } = self.hop {
            self.progress += 1;
            self.facts.encrypted = encrypted;
            self.hop = Hop::Greeting { first };
            self.queue.push(if first { Item::Forwarded(Kind::Greeting) } else { Item::Swallowed(Quiet::Greeting) });
        }
    }

    /// The connection could not be made.
    pub fn hop_failed(&mut self) {
        self.no_hop("next hop cannot be reached, try again later");
    }

    /// There is none for what the client wants. Where that is one recipient, the others need not suffer for it.
    pub(super) fn no_hop(&mut self, text: &str) {
        let waiting = memchr::memchr(b'\n', &self.pending);
        let (Some(end), true) = (waiting, self.target != Target::Main && self.transaction.is_some()) else {
            return self.say_last("421", &format!("4.4.1 {text}"));
        };
        // The line that was put back is the recipient that needed it.
        self.pending.drain(..=end);
        while self.queue.answered().is_some() {}
        self.to_hop.clear();
        self.events.push_back(Event::CloseHop);
        self.to_client.extend_from_slice(format!("451 4.4.1 {text}\r\n").as_bytes());
        self.barrier = false;
        self.open(Target::Main);
    }

    /// The next hop has closed, or the connection broke.
    pub fn hop_eof(&mut self) {
        self.hop_lost();
        self.resume();
        self.settle();
    }

    /// The next hop owed an answer for too long.
    pub fn hop_timeout(&mut self) {
        if self.hop.is_opening() {
            self.hop_failed();
        } else {
            self.hop_eof();
        }
    }

    /// The next hop has sent this.
    pub fn hop_data(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() && !self.closed {
            match self.replies.push(octets) {
                Ok((used, reply)) => {
                    octets = octets.get(used..).unwrap_or_default();
                    if let Some(reply) = reply {
                        self.progress += 1;
                        self.take_reply(reply);
                    }
                }
                Err(_) => {
                    self.hop_lost();
                    break;
                }
            }
            if self.hop == Hop::Closed || matches!(self.hop, Hop::Connecting { .. }) {
                // What else it said belongs to nobody.
                break;
            }
            if self.hop == Hop::Securing {
                if !octets.is_empty() {
                    // Said before the handshake: by whom, nobody knows (CVE-2011-0411, from the other side).
                    self.hop_failed();
                }
                break;
            }
        }
        self.resume();
        self.settle();
    }

    fn take_reply(&mut self, reply: Reply) {
        match self.queue.answered() {
            Some(Item::Forwarded(kind)) => self.answered(kind, reply),
            Some(Item::Swallowed(quiet)) => self.answered_quietly(quiet, reply),
            Some(Item::Local(_)) | None => self.unasked(reply),
        }
        if self.dropping && !self.queue.is_waiting() {
            self.drop_hop();
        }
        self.flush_local();
        if let Some(command) = self.queue.next_unsent() {
            self.to_hop.extend_from_slice(&command);
        }
    }

    fn answered(&mut self, kind: Kind, mut reply: Reply) {
        let command = match kind {
            Kind::Mail { .. } => "MAIL",
            Kind::Rcpt { .. } => "RCPT",
            Kind::Data => "DATA",
            Kind::Chunk { .. } => "BDAT",
            Kind::Auth => "AUTH",
            Kind::Greeting | Kind::Hello { .. } | Kind::EndOfData | Kind::Quit | Kind::Other => "",
        };
        if reply.code >= 400 && !command.is_empty() {
            self.events.push_back(Event::Refused { command, reply: reply.first_line() });
        }
        let mut senseless = false;
        match kind {
            Kind::Greeting | Kind::Quit => {
                self.hop = Hop::Ready;
                self.to_client.extend_from_slice(&reply.text);
                if kind == Kind::Quit || reply.code != 220 {
                    self.end();
                }
                return;
            }
            Kind::Hello { extended } => self.client_hello_answered(extended, &mut reply),
            Kind::Mail { transaction } => self.mail_answered(transaction, &reply),
            Kind::Rcpt { transaction } => reply = self.rcpt_answered(transaction, reply),
            Kind::Data if reply.code == 354 => self.begin_stream(),
            Kind::Data if reply.code < 400 => {
                // Neither yes nor no: what it thinks of this transaction, nobody knows.
                reply = Reply::new(451, "4.5.0", NO_SENSE);
                self.transaction = None;
                senseless = true;
            }
            Kind::Auth if reply.code == 334 => self.phase = Phase::Auth,
            Kind::Auth if reply.is_positive() => {
                self.authenticated = true;
                self.events.push_back(Event::LoggedIn);
            }
            Kind::Chunk { transaction } => {
                reply = self.known(transaction).and_then(|t| t.chunk_refused.clone()).unwrap_or(reply);
            }
            Kind::EndOfData => (reply, senseless) = self.message_answered(reply),
            Kind::Data | Kind::Auth | Kind::Other => {}
        }
        let awaited = matches!((kind, reply.code), (Kind::Data, 354) | (Kind::Auth, 334));
        if (300..400).contains(&reply.code) && !awaited {
            reply = Reply::new(451, "4.5.0", NO_SENSE);
        }
        self.to_client.extend_from_slice(&reply.text);
        if senseless {
            self.hop_lost();
        } else if reply.code == 421 {
            // It closes, so do we.
            self.end();
        }
    }

    /// A hello of the client on a connection that has heard one before.
    fn client_hello_answered(&mut self, extended: bool, reply: &mut Reply) {
        let asked = self.hello_asked.take();
        if reply.is_positive() {
            let before = std::mem::take(&mut self.facts.offer);
            // HELO takes nothing back of what it may be told.
            let kept = Offer { xclient: before.xclient, xforward: before.xforward, ..Offer::default() };
            self.facts.offer = if extended { extensions::read(reply) } else { kept };
            self.facts.hello_reply = Some(reply.clone());
        } else {
            // The last one stays in force, and with it what the next hop knows of a transaction.
            self.send(b"RSET", Item::Swallowed(Quiet::Rset));
            self.facts.offer.pipelining &= extended;
        }
        match (&self.facts.hello_reply, reply.code) {
            // One who has done STARTTLS has to say EHLO again, and some servers listen to one only.
            (Some(before), 503) => *reply = before.clone(),
            _ if !reply.is_positive() => return,
            _ => {}
        }
        self.offered_chunking = extended && self.facts.offer.chunking;
        reply.text = self.greeting_of(reply, extended);
        self.hello = asked;
    }

    /// A transaction that is open, or whose message is not answered.
    fn known(&mut self, id: u64) -> Option<&mut Transaction> {
        self.ended.iter_mut().chain(&mut self.transaction).find(|transaction| transaction.id == id)
    }

    /// What the client hears about its message, and whether the next hop can be believed any more.
    fn message_answered(&mut self, mut reply: Reply) -> (Reply, bool) {
        let ended = self.ended.front();
        if let Some(refused) = ended.and_then(|ended| ended.chunk_refused.as_ref()) {
            reply = refused.clone();
        }
        // An answer to a message that it has not seen the end of: a no may be believed, a yes never.
        let senseless = ended.is_some_and(|ended| self.hop_sent < ended.ends_at);
        if reply.code < 400 && (senseless || reply.code >= 300) {
            reply = Reply::new(451, "4.5.0", NO_SENSE);
        }
        self.count_reply(&reply);
        (reply, senseless)
    }

    /// One of the replies to a message that has ended; with the last the transaction is over.
    fn count_reply(&mut self, reply: &Reply) {
        let Some(ended) = self.ended.front_mut() else { return };
        ended.replies_due = ended.replies_due.saturating_sub(1);
        if ended.worst.as_ref().is_none_or(|worst| worst.code < reply.code) {
            ended.worst = Some(reply.clone());
        }
        if reply.is_positive() {
            self.commands = 0;
        }
        if ended.replies_due == 0
            && let Some(mut ended) = self.ended.pop_front()
        {
            let worst = ended.worst.take().unwrap_or_else(|| reply.clone());
            self.finished(ended, &worst);
        }
    }

    fn mail_answered(&mut self, id: u64, reply: &Reply) {
        match &mut self.transaction {
            Some(transaction) if transaction.id == id => {
                transaction.mail_pending = false;
                if !reply.is_positive() {
                    self.transaction = None;
                }
            }
            _ => {}
        }
    }

    /// What the client hears about a recipient: the next hop's reply, or that to the MAIL which this recipient needed.
    fn rcpt_answered(&mut self, id: u64, reply: Reply) -> Reply {
        // With BDAT the message may have ended before its recipients are answered for.
        let Some(transaction) = self.known(id) else { return reply };
        transaction.outstanding = transaction.outstanding.saturating_sub(1);
        if let Some(refused) = &transaction.refused {
            return refused.clone();
        }
        if reply.is_positive() {
            transaction.accepted += 1;
        }
        reply
    }

    fn answered_quietly(&mut self, quiet: Quiet, reply: Reply) {
        match quiet {
            Quiet::Greeting if reply.code == 220 => {
                let asked = self.setup.take();
                self.begin_setup_again(asked);
            }
            Quiet::Greeting => self.hop_failed(),
            Quiet::Hello => self.hello_answered(reply),
            Quiet::StartTls => self.starttls_answered(&reply),
            Quiet::XClient => self.xclient_answered(reply),
            Quiet::Rset => {}
            // It gives no rights, so mail goes on without.
            Quiet::XForward if reply.is_positive() => {}
            Quiet::XForward => self.events.push_back(Event::Refused { command: "XFORWARD", reply: reply.first_line() }),
            Quiet::Mail { transaction: id } => {
                let transaction = self.transaction.as_mut().filter(|t| t.id == id);
                if let Some(transaction) = transaction.filter(|_| !reply.is_positive()) {
                    transaction.in_effect = false;
                    transaction.refused = Some(reply);
                }
            }
            Quiet::LateData => self.late_data(reply),
            Quiet::Chunk { .. } if reply.is_positive() => {}
            Quiet::Chunk { transaction: id } => {
                let reply = if reply.code < 400 { Reply::new(451, "4.5.0", NO_SENSE) } else { reply };
                self.events.push_back(Event::Refused { command: "BDAT", reply: reply.first_line() });
                if let Some(transaction) = self.known(id) {
                    transaction.chunk_refused.get_or_insert(reply);
                }
            }
        }
    }

    /// A reply that nobody asked for: a goodbye, or the refusal of a message that is still under way.
    fn unasked(&mut self, reply: Reply) {
        let refusal = match reply.code {
            421 => Some(Reply::new(451, "4.4.2", LOST)),
            400.. => Some(reply),
            _ => None,
        };
        match (std::mem::replace(&mut self.phase, Phase::Command), refusal) {
            (Phase::Stream(stream), Some(reply)) => {
                self.phase = Phase::Discard { scanner: stream.scanner, reply };
                self.drop_hop();
            }
            (Phase::Chunk(mut chunk), Some(reply)) if chunk.is_open() => {
                chunk.kill(reply);
                self.phase = Phase::Chunk(chunk);
                self.drop_hop();
            }
            (phase, _) => {
                self.phase = phase;
                self.hop_lost();
            }
        }
    }

    /// The connection is of no more use. Nobody is left without an answer, and no answer is a guess.
    pub(super) fn hop_lost(&mut self) {
        if self.closed || (self.hop == Hop::Closed && !self.queue.is_waiting()) {
            return;
        }
        if self.hop.is_opening() {
            self.hop_failed();
            return;
        }
        self.drop_hop();
        self.body_without_hop();
        while let Some(item) = self.queue.answered() {
            match item {
                Item::Local(text) => self.to_client.extend_from_slice(&text),
                Item::Swallowed(_) => {}
                Item::Forwarded(Kind::EndOfData) => {
                    let reply = Reply::new(451, "4.4.2", LOST_AFTER_DATA);
                    self.to_client.extend_from_slice(&reply.text);
                    self.count_reply(&reply);
                }
                Item::Forwarded(Kind::Quit) => return self.say_last("221", "2.0.0 bye"),
                Item::Forwarded(_) => return self.say_last("421", &format!("4.4.2 {LOST}")),
            }
        }
        self.barrier = false;
        if self.transaction.is_some() && matches!(self.phase, Phase::Command) || matches!(self.phase, Phase::Auth) {
            // The next hop has forgotten sender and recipients.
            self.say_last("421", &format!("4.4.2 {LOST}"));
        }
    }

    /// A body whose next hop is gone: the client hears of it at its end.
    fn body_without_hop(&mut self) {
        let lost = || Reply::new(451, "4.4.2", LOST);
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Stream(stream) => self.phase = Phase::Discard { scanner: stream.scanner, reply: lost() },
            Phase::Hold(hold) => self.phase = Phase::Discard { scanner: hold.into_scanner(), reply: lost() },
            Phase::Release(release) => match release.rest {
                Some(stream) => self.phase = Phase::Discard { scanner: stream.scanner, reply: lost() },
                None => {
                    self.refuse_message(&lost());
                }
            },
            Phase::Chunk(mut chunk) => {
                chunk.kill(lost());
                self.phase = Phase::Chunk(chunk);
            }
            phase @ (Phase::Command | Phase::Auth | Phase::Discard { .. } | Phase::Swallow { .. }) => {
                self.phase = phase
            }
        }
    }

    /// Connects again, or elsewhere. Only while nothing is in flight.
    pub(super) fn open(&mut self, target: Target) {
        if target != self.target {
            self.plain_only = false;
        }
        self.target = target;
        self.hop = Hop::Connecting { first: false };
        self.facts = Facts::default();
        self.dropping = false;
        self.setup = None;
        self.replies = ReplyReader::default();
        self.hop_sent = 0;
        self.events.push_back(Event::Open(target));
    }

    /// Another connection for this transaction. `false`, as the line that needs it comes again.
    pub(super) fn change_target(&mut self, target: Target) -> bool {
        if !self.queue.is_empty() {
            self.barrier = true;
        } else if self.authenticated {
            // Nobody can log in again on the client's behalf.
            self.say_last("421", "4.3.2 this needs another connection to the next hop, connect and log in again");
        } else {
            self.leave_hop();
            self.events.push_back(Event::CloseHop);
            if let Some(transaction) = &mut self.transaction {
                (transaction.in_effect, transaction.refused) = (false, None);
            }
            self.open(target);
        }
        false
    }

    /// Says goodbye to a next hop that is not in the middle of a message.
    pub(super) fn leave_hop(&mut self) {
        if self.hop != Hop::Ready || self.dropping || !matches!(self.phase, Phase::Command | Phase::Hold(_)) {
            self.to_hop.clear();
        } else {
            self.to_hop.extend_from_slice(b"QUIT\r\n");
        }
    }

    /// Closes without another word: what the next hop has of a message is never ended, so never delivered.
    pub(super) fn drop_hop(&mut self) {
        self.dropping = false;
        self.to_hop.clear();
        self.hop = Hop::Closed;
        self.replies = ReplyReader::default();
        self.events.push_back(Event::CloseHop);
    }

    /// The same, but not before it has answered what it owes: that may be the fate of another message.
    pub(super) fn drop_hop_when_answered(&mut self) {
        if self.hop == Hop::Ready && self.queue.is_waiting() {
            self.dropping = true;
        } else {
            self.drop_hop();
        }
    }

    /// For the log: what became of a message.
    pub(super) fn finished(&mut self, transaction: Transaction, reply: &Reply) {
        self.events.push_back(Event::Finished(Finished {
            sender: transaction.sender,
            recipients: transaction.accepted,
            code: reply.code,
            reply: reply.first_line(),
            mark: transaction.class.mark,
        }));
    }
}
