//! Handling of message bodies. [`body`](super::body) returns a step for the octets that it was given, and the rules
//! return a verdict; both are carried out here. Only the end of a chunk is particular to BDAT.

use super::body::{BodySettings, BodyStep, DataBody, Message, MessageFate, accepted};
use super::client::Input;
use super::mail::Asked;
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::{Event, Session};
use crate::envelope::rules::{ContentVerdict, ResultHeader};
use crate::wire::message::Direction;
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::replies::{HOP_UNEXPECTED_DATA_REPLY, NO_QUARANTINE, SMUGGLING};
use crate::wire::smtp::reply::Reply;

impl Session {
    /// Handles a 354 reply to the client's DATA. Returns `false` if there is no transaction for it.
    pub(super) fn begin_stream(&mut self) -> bool {
        let limits = self.settings.limits;
        let Some(transaction) = self.mail.transaction() else { return false };
        let (mark, evidence) = (transaction.group.mark, transaction.evidence);
        if let Some(mark) = mark {
            self.out.to_hop.extend_from_slice(mark.header().as_bytes());
            self.out.to_hop.extend_from_slice(b"\r\n");
        }
        self.begin_data(match self.settings.direction {
            Direction::Inbound => DataBody::inbound(limits, mark.is_some()),
            Direction::Outbound => DataBody::outbound(limits, evidence),
        });
        true
    }

    /// Makes the client's input the body of the message.
    pub(super) fn begin_data(&mut self, body: DataBody) {
        if let Some(message) = self.mail.message_mut() {
            *message = Message::Data(Box::new(body));
        }
    }

    /// Processes octets of a body, and returns how many were used.
    pub(super) fn take_body(&mut self, input: &[u8]) -> usize {
        let settings = BodySettings { hold: self.settings.hold, reject_stray: self.settings.reject_stray };
        let (used, step) = match (self.mail.message_mut(), &mut self.client.input) {
            (_, Input::Swallow(swallow)) => swallow.push(input),
            (Some(Message::Data(body)), _) => body.push(input, &mut self.out.to_hop, settings),
            (Some(Message::Chunks(body)), _) => body.push(input, &mut self.out.to_hop, settings),
            (Some(Message::NotBegun) | None, _) => return 0,
        };
        if matches!(step, BodyStep::Smuggling) {
            self.smuggling();
            return input.len();
        }
        self.take_step(step);
        if !self.mail.is_asking() {
            self.chunk_over();
        }
        used
    }

    fn take_step(&mut self, step: BodyStep) {
        match step {
            BodyStep::More => {}
            BodyStep::PieceSent => self.chunk_for_hop_alone(),
            BodyStep::AskContent => self.ask_content(),
            BodyStep::AskEvidence(head) => self.ask_evidence(&head),
            BodyStep::Complete => {
                self.note_findings();
                self.end_of_data();
            }
            BodyStep::Error(error) => {
                self.out.events.extend(error.limit().map(Event::Limit));
                self.drop_message(error.reply());
            }
            BodyStep::Refused(reply) => self.refuse_message(&reply),
            BodyStep::Swallowed(reply, times) => {
                self.client.input = Input::Commands;
                self.reply_to_message(&reply, times);
            }
            BodyStep::Smuggling => self.smuggling(),
        }
    }

    /// Queries the rules about the content of the message.
    pub(super) fn ask_content(&mut self) {
        self.ask(Asked::Content);
    }

    pub(super) fn ask_evidence(&mut self, head: &HeadReader) {
        self.ask(Asked::Evidence { message_id: head.message_id(), from: head.from() });
    }

    pub(super) fn evidence_answered(&mut self, header: Option<String>) {
        if self.mail.take_asked(|asked| matches!(asked, Asked::Evidence { .. })).is_none() {
            return;
        }
        match self.mail.message_mut() {
            Some(Message::Data(body)) => {
                if body.add_evidence(header, &mut self.out.to_hop) {
                    self.end_of_data();
                }
            }
            Some(Message::Chunks(body)) => {
                body.add_evidence(header, &mut self.out.to_hop);
                self.chunk_over();
            }
            Some(Message::NotBegun) | None => {}
        }
    }

    pub(super) fn content_answered(&mut self, content: &ContentVerdict) {
        if self.mail.take_asked(|asked| matches!(asked, Asked::Content)).is_none() {
            return;
        }
        match MessageFate::of(content, self.mail.message().is_some_and(Message::is_held)) {
            MessageFate::GoOn(mark) => self.message_goes_on(mark, *content != ContentVerdict::Later),
            MessageFate::Quarantine(to, mark) => self.redirect(to, &mark),
            MessageFate::End(reply) => self.drop_message(reply),
        }
    }

    /// Handles a reply of the next hop about the quarantine mailbox.
    pub(super) fn quarantine_answered(&mut self, reply: &Reply) {
        let asked = self.mail.transaction_mut().and_then(|transaction| transaction.asked.as_mut());
        let Some(Asked::Quarantine { mark, due, refused }) = asked else { return };
        *due = due.saturating_sub(1);
        if !reply.is_positive() {
            refused.get_or_insert(reply.code);
            self.out.events.push_back(Event::Refused { command: "RCPT", reply: reply.first_line() });
        }
        if *due > 0 {
            return;
        }
        let (mark, refused) = (*mark, *refused);
        self.mail.forget_question();
        match refused {
            None => self.message_goes_on(Some(mark), true),
            // A bounce of this site is not sent, with or without a copy.
            Some(500..) if mark.reason.is_of_own_bounce() => self.drop_message(accepted()),
            Some(_) => self.drop_message(NO_QUARANTINE.reply()),
        }
    }

    /// Delivers the message, with this mark in front, or else with that of its recipients. `decided`: the rest of the
    /// content cannot change the verdict.
    fn message_goes_on(&mut self, mark: Option<ResultHeader>, decided: bool) {
        let mark = mark.or(self.mail.transaction().and_then(|transaction| transaction.group.mark));
        if let Some(transaction) = self.mail.transaction_mut() {
            transaction.group.mark = mark;
        }
        let header = mark.map(|mark| mark.header());
        match self.mail.message_mut() {
            Some(Message::Data(body)) => {
                if body.release(header, decided) {
                    self.send(b"DATA", Item::Swallowed(ProxyCommand::LateData));
                } else {
                    self.end_of_data();
                }
            }
            Some(Message::Chunks(_)) => self.chunk_goes_on(header, decided),
            Some(Message::NotBegun) | None => {}
        }
    }

    /// Handles the next hop's reply to the DATA of a message that was buffered.
    pub(super) fn late_data(&mut self, reply: Reply) {
        let Some(body) = self.mail.data_mut() else { return };
        if !body.is_released() {
            return;
        }
        if reply.code == 354 {
            if body.send_released(&mut self.out.to_hop) {
                self.end_of_data();
            }
            return;
        }
        let reply = if reply.code < 400 { HOP_UNEXPECTED_DATA_REPLY.reply() } else { reply };
        let mark = self.mail.transaction().and_then(|transaction| transaction.group.mark);
        let reply = self.reply_about_copy(mark, reply);
        self.refuse_body(reply);
        self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
    }

    /// The reply to the client about a message with this mark. If it is the copy of a bounce of this site, a permanent
    /// refusal is not passed on: it would be bounced in turn.
    pub(super) fn reply_about_copy(&mut self, mark: Option<ResultHeader>, reply: Reply) -> Reply {
        if reply.code < 500 || !mark.is_some_and(|mark| mark.reason.is_of_own_bounce()) {
            return reply;
        }
        self.out.events.push_back(Event::Refused { command: "DATA", reply: reply.first_line() });
        accepted()
    }

    /// Refuses or discards the message, with this reply at its end. A message that the next hop has begun to read is
    /// not completed.
    pub(super) fn drop_message(&mut self, reply: Reply) {
        match self.mail.message() {
            Some(Message::Data(body)) if body.is_at_hop() => {
                self.drop_hop();
                self.refuse_body(reply);
            }
            Some(Message::Data(_)) => {
                self.refuse_body(reply);
                self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
            }
            Some(Message::Chunks(body)) => {
                if body.is_announced() {
                    self.drop_hop_when_answered();
                }
                self.refuse_body(reply);
            }
            Some(Message::NotBegun) | None => {}
        }
    }

    /// Discards the rest of the body. At its end this reply is sent, unless another reply is already set.
    pub(super) fn refuse_body(&mut self, reply: Reply) {
        self.mail.forget_question();
        if let Some(body) = self.mail.data_mut() {
            match (body.is_unwanted(), body.has_ended()) {
                (true, _) => {}
                (false, true) => self.refuse_message(&reply),
                (false, false) => body.refuse(reply),
            }
        } else if let Some(body) = self.mail.chunk_mut() {
            body.refuse(reply);
            self.chunk_over();
        }
    }

    /// Sends the reply to a message that is not delivered, and ends its transaction.
    pub(super) fn refuse_message(&mut self, reply: &Reply) {
        let Some(transaction) = self.mail.end() else { return };
        let recipients = transaction.accepted;
        self.finished(transaction, reply);
        self.reply_to_message(reply, recipients);
    }

    /// Records for the log what was found in the message, where that does not decide about it.
    pub(super) fn note_findings(&mut self) {
        let Some(transaction) = self.mail.transaction_mut() else { return };
        let found = transaction.message.inspected().and_then(|(inspector, _)| inspector.findings());
        if let Some(found) = found {
            transaction.found = Some(Box::new(found));
        }
    }

    fn end_of_data(&mut self) {
        self.out.to_hop.extend_from_slice(b".\r\n");
        self.message_sent();
    }

    /// The whole message is in the output to the next hop.
    pub(super) fn message_sent(&mut self) {
        let Some(mut transaction) = self.mail.end() else { return };
        transaction.note_message_id();
        transaction.message = Message::NotBegun;
        transaction.ends_at = self.out.hop_sent + self.out.to_hop.len() as u64;
        // RFC 2033 section 4.2: LMTP answers for each recipient that was accepted.
        transaction.replies_due = if self.settings.lmtp { transaction.accepted.max(1) } else { 1 };
        for _ in 0..transaction.replies_due {
            self.pipeline.queue.push(Item::Forwarded(ClientCommand::EndOfData));
        }
        self.mail.ended.push_back(transaction);
    }

    /// Refuses a message with ambiguous line ends and ends the session: neither the message nor the commands that seem
    /// to follow can be trusted.
    fn smuggling(&mut self) {
        self.drop_hop_when_answered();
        // The reply to an earlier message may be due first.
        self.refuse_message(&SMUGGLING.reply());
        self.end_when_answered();
    }
}
