//! The next hop's side: connections, replies, and the consequences for the client if the next hop is lost.

use super::body::Message;
use super::client::Input;
use super::mail::Transaction;
use super::next_hop::{Connection, Purpose};
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::{Event, Session};
use crate::wire::message::{Direction, Finished, NextHopChoice};
use crate::wire::smtp::extensions::{self, Extensions};
use crate::wire::smtp::replies::{HOP_LACKS_EXTENSION, HOP_LOST, NEED_MAIL, NO_SENSE, TOO_MANY_REFUSED};
use crate::wire::smtp::reply::{Reply, is_unknown_user};

impl Session {
    /// The connection requested by [`Event::Open`] is open. `encrypted`: with TLS from the first octet.
    pub fn hop_connected(&mut self, encrypted: bool) {
        let Connection::Opening(opening) = &mut self.hop.connection else { return };
        if opening.is_connected {
            return;
        }
        opening.is_connected = true;
        self.pipeline.queue.push(match opening.purpose {
            Purpose::Greeting => Item::Forwarded(ClientCommand::Greeting),
            Purpose::Hello(_) | Purpose::Silent => Item::Swallowed(ProxyCommand::Greeting),
        });
        self.out.progress += 1;
        self.hop.facts.encrypted = encrypted;
    }

    /// The next hop has closed the connection, or the connection has failed.
    pub fn hop_eof(&mut self) {
        self.hop_lost();
        self.resume();
        self.settle();
    }

    /// The next hop did not reply in time.
    pub fn hop_timeout(&mut self) {
        if self.hop.connection.is_opening() {
            self.hop_failed();
        } else {
            self.hop_eof();
        }
    }

    /// Processes octets from the next hop.
    pub fn hop_data(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() && !self.is_closed() {
            match self.hop.replies.push(octets) {
                Ok((used, reply)) => {
                    octets = octets.get(used..).unwrap_or_default();
                    if let Some(reply) = reply {
                        self.out.progress += 1;
                        self.take_reply(reply);
                    }
                }
                Err(_) => {
                    self.hop_lost();
                    break;
                }
            }
            if self.hop.connection.is_closed() || self.hop.connection.is_connecting() {
                // Further input of that connection is discarded.
                break;
            }
            if self.hop.connection.is_securing() {
                if !octets.is_empty() {
                    // Sent before the TLS handshake, possibly by an attacker (CVE-2011-0411, from the other side).
                    self.hop_failed();
                }
                break;
            }
        }
        self.resume();
        self.settle();
    }

    fn take_reply(&mut self, reply: Reply) {
        match self.pipeline.queue.answered() {
            Some(Item::Forwarded(kind)) => self.answered(kind, reply),
            Some(Item::Swallowed(quiet)) => self.answered_quietly(quiet, reply),
            Some(Item::Local(_)) | None => self.unasked(reply),
        }
        self.end_refused_transaction();
        if self.hop.dropping && !self.pipeline.queue.is_waiting() {
            self.drop_hop();
        }
        self.flush_local();
        if let Some(command) = self.pipeline.queue.next_unsent() {
            self.out.to_hop.extend_from_slice(&command);
        }
    }

    fn answered(&mut self, kind: ClientCommand, mut reply: Reply) {
        let command = match kind {
            ClientCommand::Mail { .. } => "MAIL",
            ClientCommand::Rcpt { .. } => "RCPT",
            ClientCommand::Data => "DATA",
            ClientCommand::Chunk { .. } => "BDAT",
            ClientCommand::Auth => "AUTH",
            ClientCommand::Greeting
            | ClientCommand::Hello { .. }
            | ClientCommand::EndOfData
            | ClientCommand::Quit
            | ClientCommand::Other => "",
        };
        if reply.code >= 400 && !command.is_empty() {
            self.out.events.push_back(Event::Refused { command, reply: reply.first_line() });
        }
        let mut senseless = false;
        match kind {
            ClientCommand::Greeting | ClientCommand::Quit => {
                self.hop.connection = Connection::Ready;
                self.out.to_client.extend_from_slice(&reply.text);
                if kind == ClientCommand::Quit || reply.code != 220 {
                    self.end();
                }
                return;
            }
            ClientCommand::Hello { extended } => self.client_hello_answered(extended, &mut reply),
            ClientCommand::Mail { transaction } => self.mail_answered(transaction, &reply),
            ClientCommand::Rcpt { transaction } => {
                reply = self.rcpt_answered(transaction, reply);
                if self.settings.direction == Direction::Inbound {
                    let unknown = is_unknown_user(&reply.first_line());
                    self.out.events.push_back(Event::RecipientAnswered { unknown });
                }
                if reply.is_positive() {
                    self.client.refused_recipients = 0;
                } else if self.is_one_too_many(reply.code) {
                    // All earlier commands are answered.
                    return self.say_last(TOO_MANY_REFUSED);
                }
            }
            ClientCommand::Data if reply.code == 354 && self.begin_stream() => {}
            ClientCommand::Data if reply.code < 400 => {
                // An unexpected positive reply: the state of the transaction at the next hop is unknown.
                reply = NO_SENSE.reply();
                self.mail.end();
                senseless = true;
            }
            ClientCommand::Auth if reply.code == 334 => self.client.input = Input::AuthAnswer,
            ClientCommand::Auth if reply.is_positive() => {
                self.client.authenticated = true;
                self.out.events.push_back(Event::LoggedIn);
            }
            ClientCommand::Chunk { transaction } => {
                reply = self.mail.known(transaction).and_then(|t| t.chunk_refused.clone()).unwrap_or(reply);
            }
            ClientCommand::EndOfData => (reply, senseless) = self.message_answered(reply),
            ClientCommand::Data | ClientCommand::Auth | ClientCommand::Other => {}
        }
        let awaited = matches!((kind, reply.code), (ClientCommand::Data, 354) | (ClientCommand::Auth, 334));
        if (300..400).contains(&reply.code) && !awaited {
            reply = NO_SENSE.reply();
        }
        self.out.to_client.extend_from_slice(&reply.text);
        if senseless {
            self.hop_lost();
        } else if reply.code == 421 {
            // The next hop closes the connection, so the session ends.
            self.end();
        }
    }

    /// Handles the reply to the client's HELO or EHLO on a connection that has had one before.
    fn client_hello_answered(&mut self, extended: bool, reply: &mut Reply) {
        let asked = self.client.hello_asked.take();
        if reply.is_positive() {
            let before = std::mem::take(&mut self.hop.facts.offer);
            // After HELO, XCLIENT and XFORWARD are still available.
            let kept = Extensions { xclient: before.xclient, xforward: before.xforward, ..Extensions::default() };
            self.hop.facts.offer = if extended { extensions::read(reply) } else { kept };
            self.hop.facts.hello_reply = Some(reply.clone());
        } else {
            // The previous EHLO stays in force, and the transaction at the next hop has to be reset.
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
            self.hop.facts.offer.pipelining &= extended;
        }
        match (&self.hop.facts.hello_reply, reply.code) {
            // A client repeats EHLO after STARTTLS, but some servers accept only one, or only HELO.
            (Some(before), 500 | 502 | 503) => *reply = before.clone(),
            _ if !reply.is_positive() => return,
            _ => {}
        }
        self.client.offered_chunking = extended && self.hop.facts.offer.chunking && !self.settings.strips_content;
        reply.text = self.greeting_of(reply, extended);
        self.client.hello = asked;
    }

    /// The reply to the client about its message, and whether the connection to the next hop stays usable.
    fn message_answered(&mut self, mut reply: Reply) -> (Reply, bool) {
        let ended = self.mail.ended.front();
        if let Some(refused) = ended.and_then(|ended| ended.chunk_refused.as_ref()) {
            reply = refused.clone();
        }
        // A reply before the end of the message was sent: a negative one is accepted, a positive one is not.
        let senseless = ended.is_some_and(|ended| self.out.hop_sent < ended.ends_at);
        if reply.code < 400 && (senseless || reply.code >= 300) {
            reply = NO_SENSE.reply();
        }
        let mark = self.mail.ended.front().and_then(|ended| ended.group.mark);
        let reply = self.reply_about_copy(mark, reply);
        self.count_reply(&reply);
        (reply, senseless)
    }

    /// Counts a reply to a message that has ended. The last one ends the transaction.
    pub(super) fn count_reply(&mut self, reply: &Reply) {
        let Some(ended) = self.mail.ended.front_mut() else { return };
        ended.replies_due = ended.replies_due.saturating_sub(1);
        if ended.worst.as_ref().is_none_or(|worst| worst.code < reply.code) {
            ended.worst = Some(reply.clone());
        }
        if reply.is_positive() {
            self.client.commands = 0;
        }
        if ended.replies_due == 0
            && let Some(mut ended) = self.mail.ended.pop_front()
        {
            let worst = ended.worst.take().unwrap_or_else(|| reply.clone());
            self.finished(ended, &worst);
        }
    }

    fn mail_answered(&mut self, id: u64, reply: &Reply) {
        if let Some(transaction) = self.mail.transaction_mut().filter(|transaction| transaction.id == id) {
            transaction.mail_pending = false;
            transaction.is_refused = !reply.is_positive();
        }
    }

    /// Ends a transaction whose MAIL the next hop has refused, when nothing of it is in progress.
    pub(super) fn end_refused_transaction(&mut self) {
        let Some(transaction) = self.mail.transaction().filter(|transaction| transaction.is_refused) else { return };
        let in_message = !matches!(transaction.message, Message::NotBegun);
        if in_message || transaction.asked.is_some() || self.pipeline.queue.has_data() {
            return;
        }
        if self.mail.end().is_some_and(|transaction| transaction.waiting.is_some()) {
            self.out.events.push_back(Event::RecipientNotSent);
            self.mistake(NEED_MAIL);
        }
    }

    /// The reply to the client about a recipient: the next hop's reply to RCPT, or its refusal of the MAIL that the
    /// recipient needed.
    fn rcpt_answered(&mut self, id: u64, reply: Reply) -> Reply {
        // With BDAT, the message may end before its recipients are answered.
        let Some(transaction) = self.mail.known(id) else { return reply };
        transaction.outstanding = transaction.outstanding.saturating_sub(1);
        if let Some(refused) = &transaction.refused {
            return refused.clone();
        }
        if reply.is_positive() {
            transaction.accepted += 1;
        }
        reply
    }

    fn answered_quietly(&mut self, quiet: ProxyCommand, reply: Reply) {
        match quiet {
            ProxyCommand::Greeting if reply.code == 220 => {
                let hello = self.hop.connection.opening().and_then(|opening| opening.purpose.hello());
                self.begin_handshake(hello.cloned());
            }
            ProxyCommand::Greeting => self.hop_failed(),
            ProxyCommand::Hello => self.hello_answered(reply),
            ProxyCommand::StartTls => self.starttls_answered(&reply),
            ProxyCommand::XClient => self.xclient_answered(reply),
            ProxyCommand::Rset if reply.is_positive() => {}
            // The next hop still has recipients that must not get the next message (RFC 5321 section 4.1.1.5: RSET is
            // answered 250).
            ProxyCommand::Rset => self.hop_lost(),
            // If the line was taken for a password, the client is authenticated.
            ProxyCommand::AuthCancelled if reply.is_positive() => self.client.authenticated = true,
            ProxyCommand::AuthCancelled if reply.code < 400 => self.hop_lost(),
            ProxyCommand::AuthCancelled => {}
            // XFORWARD does not change rights, so mail is sent without it.
            ProxyCommand::XForward if reply.is_positive() => {}
            ProxyCommand::XForward => {
                self.out.events.push_back(Event::Refused { command: "XFORWARD", reply: reply.first_line() });
            }
            ProxyCommand::Mail { transaction: id } => {
                let elsewhere = self.hop.target != NextHopChoice::Main;
                let transaction = self.mail.transaction_mut().filter(|t| t.id == id);
                if let Some(transaction) = transaction.filter(|_| !reply.is_positive()) {
                    transaction.in_effect = false;
                    // The client relied on the extensions of the first next hop; mail must not be lost because this one
                    // lacks them.
                    let lacks = elsewhere && reply.code == 555;
                    transaction.quarantine_failed(reply.code);
                    transaction.refused = Some(if lacks { HOP_LACKS_EXTENSION.reply() } else { reply });
                }
            }
            ProxyCommand::Rcpt => self.quarantine_answered(&reply),
            ProxyCommand::LateData => self.late_data(reply),
            ProxyCommand::Chunk { .. } if reply.is_positive() => {}
            ProxyCommand::Chunk { transaction: id } => {
                let reply = if reply.code < 400 { NO_SENSE.reply() } else { reply };
                self.out.events.push_back(Event::Refused { command: "BDAT", reply: reply.first_line() });
                let is_open = self.transaction() == Some(id);
                if let Some(transaction) = self.mail.known(id) {
                    transaction.chunk_refused.get_or_insert(reply.clone());
                }
                if is_open && self.mail.chunk_mut().is_some() {
                    // The message must not be completed, because the next hop would get it without this part.
                    self.drop_message(reply);
                }
            }
        }
    }

    /// Handles an unsolicited reply: a 421, or the refusal of a message that is still in progress.
    fn unasked(&mut self, reply: Reply) {
        let refusal = match reply.code {
            421 => Some(HOP_LOST.reply()),
            400.. => Some(reply),
            _ => None,
        };
        match refusal.filter(|_| self.mail.message().is_some_and(Message::is_at_hop)) {
            Some(reply) => {
                self.drop_hop();
                self.refuse_body(reply);
            }
            None => self.hop_lost(),
        }
    }

    /// Records the outcome of a message for the log.
    pub(super) fn finished(&mut self, mut transaction: Transaction, reply: &Reply) {
        transaction.note_message_id();
        self.out.events.push_back(Event::Finished(Finished {
            id: transaction.id,
            sender: transaction.sender,
            signed: transaction.at_hop.signed.then_some(transaction.at_hop.path),
            recipients: transaction.accepted,
            code: reply.code,
            // If a reply has several lines, the queue ID is in the last.
            reply: reply.last_line(),
            mark: transaction.group.mark,
            found: transaction.found,
            message_id: transaction.message_id,
        }));
    }
}
