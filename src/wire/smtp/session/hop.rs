//! The next hop's half: connecting, replies, and what becomes of a client when it is lost.

use super::content::Phase;
use super::queue::{Item, Kind, Quiet};
use super::{Event, Finished, Session};
use crate::envelope::rules::Route;
use crate::wire::smtp::extensions;
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// How far the connection to the next hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// Being opened. Of the first one the client sees the greeting.
    Connecting { first: bool },
    /// Connected; a later one greets us, not the client.
    Greeting { first: bool },
    /// A later one hears the client's EHLO again.
    Hello,
    /// At the client's service.
    Ready,
    /// Gone; opened again for the next command.
    Closed,
}

impl Hop {
    pub fn is_opening(self) -> bool {
        matches!(self, Self::Connecting { .. } | Self::Greeting { .. } | Self::Hello)
    }

    /// Whether a command may be looked at: there is a next hop, or one can be had.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Ready | Self::Closed)
    }
}

const LOST_AFTER_DATA: &str = "next hop was lost before it had confirmed the message, try again later";
const NO_SENSE: &str = "the next hop's answer makes no sense here, try again later";
const LOST: &str = "next hop was lost, try again later";

impl Session {
    /// The connection asked for by [`Event::Open`] stands.
    pub fn hop_connected(&mut self) {
        if let Hop::Connecting { first } = self.hop {
            self.hop = Hop::Greeting { first };
            self.queue.push(if first { Item::Forwarded(Kind::Greeting) } else { Item::Swallowed(Quiet::Greeting) });
        }
    }

    /// The connection could not be made.
    pub fn hop_failed(&mut self) {
        self.say_last("421", "4.4.1 next hop cannot be reached, try again later");
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
        self.flush_local();
        if let Some(command) = self.queue.next_unsent() {
            self.to_hop.extend_from_slice(&command);
        }
    }

    fn answered(&mut self, kind: Kind, mut reply: Reply) {
        let mut senseless = false;
        let command = match kind {
            Kind::Mail { .. } => "MAIL",
            Kind::Rcpt { .. } => "RCPT",
            Kind::Data => "DATA",
            Kind::Greeting | Kind::Hello { .. } | Kind::EndOfData | Kind::Quit | Kind::Other => "",
        };
        if reply.code >= 400 && !command.is_empty() {
            self.events.push_back(Event::Refused { command, reply: reply.first_line() });
        }
        match kind {
            Kind::Greeting => {
                self.hop = Hop::Ready;
                if reply.code != 220 {
                    self.to_client.extend_from_slice(&reply.text);
                    self.end();
                    return;
                }
            }
            Kind::Hello { extended } => {
                self.pipelining = false;
                let asked = self.hello_asked.take();
                if reply.is_positive() {
                    self.hello = asked;
                } else {
                    // The last one stays in force, and with it what the next hop knows of a transaction.
                    self.send(b"RSET", Item::Swallowed(Quiet::Rset));
                }
                if extended && reply.is_positive() {
                    let offer = extensions::filter(&reply);
                    (self.pipelining, reply.text) = (offer.pipelining, offer.reply);
                }
            }
            Kind::Mail { transaction } => self.mail_answered(transaction, &reply),
            Kind::Rcpt { transaction } => reply = self.rcpt_answered(transaction, reply),
            Kind::Data if reply.code == 354 => self.begin_stream(),
            Kind::Data if reply.code < 400 => {
                // Neither yes nor no: what it thinks of this transaction, nobody knows.
                reply = Reply::new(451, "4.5.0", NO_SENSE);
                self.transaction = None;
                senseless = true;
            }
            Kind::Data | Kind::Other => {}
            Kind::EndOfData => {
                // An answer to a message that it has not seen the end of: a no may be believed, a yes never.
                senseless = self.dot_is_unsent();
                if reply.code < 400 && (senseless || reply.code >= 300) {
                    reply = Reply::new(451, "4.5.0", NO_SENSE);
                }
                self.finished(&reply);
            }
            Kind::Quit => {
                self.to_client.extend_from_slice(&reply.text);
                self.end();
                return;
            }
        }
        if (300..400).contains(&reply.code) && kind != Kind::Data {
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

    /// Whether the end of the message is still to be written.
    fn dot_is_unsent(&self) -> bool {
        let unsent = self.to_hop.as_slice();
        [b".\r\n".as_slice(), b"\r\n", b"\n"].iter().any(|end| unsent.starts_with(end))
            || memchr::memmem::find(unsent, b"\n.\r\n").is_some()
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
        let Some(transaction) = self.transaction.as_mut().filter(|t| t.id == id) else { return reply };
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
            Quiet::Greeting if reply.code == 220 => match self.hello.clone() {
                Some(line) => {
                    self.hop = Hop::Hello;
                    self.pipelining = false;
                    self.send(&line, Item::Swallowed(Quiet::Hello));
                }
                None => self.hop = Hop::Ready,
            },
            Quiet::Hello if reply.is_positive() => {
                self.hop = Hop::Ready;
                // A HELO client was never offered it.
                let extended =
                    self.hello.as_ref().is_some_and(|h| h.first().is_some_and(|b| b.eq_ignore_ascii_case(&b'E')));
                self.pipelining = extended && extensions::filter(&reply).pipelining;
            }
            Quiet::Greeting | Quiet::Hello => self.hop_failed(),
            Quiet::Rset => {}
            Quiet::Mail { transaction: id } => {
                let transaction = self.transaction.as_mut().filter(|t| t.id == id);
                if let Some(transaction) = transaction.filter(|_| !reply.is_positive()) {
                    transaction.at_hop = None;
                    transaction.refused = Some(reply);
                }
            }
            Quiet::LateData => self.late_data(reply),
        }
    }

    /// A reply that nobody asked for: a goodbye, or the refusal of a message that is still under way.
    fn unasked(&mut self, reply: Reply) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Stream(stream) if reply.code >= 400 => {
                let answer = Reply { code: if reply.code == 421 { 451 } else { reply.code }, text: reply.text };
                let answer = if reply.code == 421 { Reply::new(451, "4.4.2", LOST) } else { answer };
                self.phase = Phase::Discard { scanner: stream.scanner, reply: answer };
                self.drop_hop();
            }
            phase => {
                self.phase = phase;
                self.hop_lost();
            }
        }
    }

    /// The connection is of no more use. Nobody is left without an answer, and no answer is a guess.
    fn hop_lost(&mut self) {
        if self.closed || self.hop == Hop::Closed {
            return;
        }
        if self.hop.is_opening() {
            self.hop_failed();
            return;
        }
        self.drop_hop();
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Command => {}
            Phase::Stream(stream) => self.phase = Phase::discard(stream.scanner, LOST),
            Phase::Hold(hold) => self.phase = Phase::discard(hold.into_scanner(), LOST),
            Phase::Release(release) => match release.rest {
                Some(stream) => self.phase = Phase::discard(stream.scanner, LOST),
                None => {
                    let reply = Reply::new(451, "4.4.2", LOST);
                    self.to_client.extend_from_slice(&reply.text);
                    self.finished(&reply);
                }
            },
            phase @ Phase::Discard { .. } => self.phase = phase,
        }
        while let Some(item) = self.queue.answered() {
            match item {
                Item::Local(text) => self.to_client.extend_from_slice(&text),
                Item::Swallowed(_) => {}
                Item::Forwarded(Kind::EndOfData) => {
                    let reply = Reply::new(451, "4.4.2", LOST_AFTER_DATA);
                    self.to_client.extend_from_slice(&reply.text);
                    self.finished(&reply);
                }
                Item::Forwarded(Kind::Quit) => return self.say_last("221", "2.0.0 bye"),
                Item::Forwarded(_) => return self.say_last("421", &format!("4.4.2 {LOST}")),
            }
        }
        self.barrier = false;
        if self.transaction.is_some() && matches!(self.phase, Phase::Command) {
            // The next hop has forgotten sender and recipients.
            self.say_last("421", &format!("4.4.2 {LOST}"));
        }
    }

    /// Connects again, or elsewhere. Only while nothing is in flight.
    pub(super) fn open(&mut self, route: Route) {
        self.route = route;
        self.hop = Hop::Connecting { first: false };
        self.replies = ReplyReader::default();
        self.events.push_back(Event::Open(route));
    }

    /// Another next hop for this transaction. `false`, as the line that needs it comes again.
    pub(super) fn change_route(&mut self, route: Route) -> bool {
        if self.queue.is_empty() {
            self.leave_hop();
            self.events.push_back(Event::CloseHop);
            if let Some(transaction) = &mut self.transaction {
                transaction.at_hop = None;
            }
            self.open(route);
        } else {
            self.barrier = true;
        }
        false
    }

    /// Says goodbye to a next hop that is not in the middle of a message.
    pub(super) fn leave_hop(&mut self) {
        if self.hop != Hop::Ready || !matches!(self.phase, Phase::Command | Phase::Hold(_)) {
            self.to_hop.clear();
        } else {
            self.to_hop.extend_from_slice(b"QUIT\r\n");
        }
    }

    /// Closes without another word: what the next hop has of a message is never ended, so never delivered.
    pub(super) fn drop_hop(&mut self) {
        self.to_hop.clear();
        self.hop = Hop::Closed;
        self.replies = ReplyReader::default();
        self.events.push_back(Event::CloseHop);
    }

    /// For the log; and the transaction is over.
    pub(super) fn finished(&mut self, reply: &Reply) {
        if let Some(transaction) = self.ended.take().or_else(|| self.transaction.take()) {
            self.events.push_back(Event::Finished(Finished {
                sender: transaction.sender,
                recipients: transaction.accepted,
                code: reply.code,
                reply: reply.first_line(),
                mark: transaction.class.mark,
            }));
        }
    }
}
