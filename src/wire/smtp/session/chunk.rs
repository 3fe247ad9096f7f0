//! BDAT (RFC 3030): the command, and what is due at the end of a chunk. [`body`](super::body) has what happens in
//! between.

use super::body::{
    BodyError, ChunkAnswer, ChunkEnd, ChunkedBody, ChunkedMessage, Message, Released, Swallow, accepted,
};
use super::client::Input;
use super::mail::{Asked, ChunkSize};
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::{Event, Session};
use crate::wire::message::Direction;
use crate::wire::message::Handling;
use crate::wire::smtp::command::Command;
use crate::wire::smtp::replies::{
    HOP_TAKES_NO_BDAT, MESSAGE_TOO_LONG, NEED_RCPT, NO_BDAT, NO_RECIPIENTS, NO_RECIPIENTS_YET,
};
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::size_limits::TooLong;

/// The most octets of a message where the config sets no limit: more than any server takes, and far from where sums
/// wrap.
const NO_LIMIT: u64 = 1 << 40;

impl Session {
    /// BDAT. Its octets follow whatever the answer is.
    pub(super) fn bdat(&mut self, size: u64, last: bool) -> bool {
        if size > self.most_octets().saturating_mul(4) {
            // Nobody waits for the end of that.
            self.out.events.push_back(Event::Limit("message"));
            self.say(MESSAGE_TOO_LONG);
            self.end_when_answered();
            return true;
        }
        if let Some(reply) = self.too_early(&Command::Bdat { size, last }) {
            return self.swallow_bad(size, reply.reply());
        }
        if self.settings.lmtp && !self.pipeline.queue.is_empty() {
            // How many replies a message gets, the answers to RCPT say.
            self.pipeline.barrier = true;
            return false;
        }
        if !self.hop.facts.offer.chunking && self.client.offered_chunking {
            let recipients = if last { self.mail.transaction().map_or(1, |t| t.accepted) } else { 1 };
            self.swallow(size, HOP_TAKES_NO_BDAT.reply(), recipients);
            if self.mail.transaction().is_some() {
                self.fail_transaction();
            }
            return true;
        }
        if !self.hop.facts.offer.chunking {
            return self.swallow_bad(size, NO_BDAT.reply());
        }
        let Some(transaction) = self.mail.transaction_mut().filter(|transaction| transaction.is_begun()) else {
            return self.swallow_bad(size, NEED_RCPT.reply());
        };
        if let Message::Chunks(body) = &mut transaction.message {
            body.begin_next(size, last);
            if let Some(reply) = &transaction.chunk_refused {
                // A piece of the message is missing at the next hop.
                body.refuse(reply.clone());
            }
            self.begin_chunk(size);
            return true;
        }
        if self.settings.lmtp && transaction.accepted == 0 {
            return self.swallow_bad(size, NO_RECIPIENTS_YET.reply());
        }
        if !self.pipeline.queue.is_empty() {
            // A reply too many must not be taken for the answer to a chunk: those to MAIL and RCPT are awaited.
            self.pipeline.barrier = true;
            return false;
        }
        let limits = self.settings.limits;
        if transaction.group.handling == Handling::Deliver {
            let (binary, mark) = (transaction.binary, transaction.group.mark);
            let message = match self.settings.direction {
                Direction::Outbound => ChunkedMessage::outbound(limits, binary, transaction.evidence),
                Direction::Inbound => ChunkedMessage::inbound(limits, binary, mark),
            };
            self.begin_chunks(message, ChunkSize { octets: size, last });
            return true;
        }
        if transaction.accepted == 0 {
            return self.swallow_bad(size, NO_RECIPIENTS.reply());
        }
        if transaction.group.handling == Handling::Discard {
            let recipients = if last { transaction.accepted } else { 1 };
            if last {
                self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
                self.end_transaction(&accepted());
            }
            self.swallow(size, accepted(), recipients);
            return true;
        }
        self.ask(Asked::Hold(Some(ChunkSize { octets: size, last })));
        true
    }

    fn most_octets(&self) -> u64 {
        match self.settings.limits.message {
            0 => NO_LIMIT,
            limit => limit,
        }
    }

    /// The first chunk of a message begins.
    pub(super) fn begin_chunks(&mut self, message: ChunkedMessage, chunk: ChunkSize) {
        if let Some(transaction) = self.mail.transaction_mut() {
            let body = ChunkedBody::new(message, chunk.octets, chunk.last);
            transaction.message = Message::Chunks(Box::new(body));
        }
        self.begin_chunk(chunk.octets);
    }

    fn begin_chunk(&mut self, size: u64) {
        let most = self.most_octets();
        let Some(body) = self.mail.chunk_mut() else { return };
        if body.inspector().octets().saturating_add(size) > most {
            // Known before it comes, so the next hop is sent nothing of it.
            let error = BodyError::Long(TooLong::Message);
            self.out.events.extend(error.limit().map(Event::Limit));
            body.refuse(error.reply());
        } else {
            body.begin(&mut self.out.to_hop);
        }
        self.chunk_over();
    }

    /// A chunk was sent whose reply is not for the client.
    pub(super) fn chunk_for_hop_alone(&mut self) {
        let transaction = self.transaction().unwrap_or_default();
        self.pipeline.queue.push(Item::Swallowed(ProxyCommand::Chunk { transaction }));
    }

    fn answer_chunk(&mut self, answer: ChunkAnswer) {
        match answer {
            ChunkAnswer::ByHop => {
                let transaction = self.transaction().unwrap_or_default();
                self.pipeline.queue.push(Item::Forwarded(ClientCommand::Chunk { transaction }));
            }
            ChunkAnswer::Ours(reply) => self.reply_with(reply),
            ChunkAnswer::Given => {}
        }
    }

    /// Does what is due at the end of a chunk, if all of it has come.
    pub(super) fn chunk_over(&mut self) {
        let Some(body) = self.mail.chunk_mut().filter(|body| body.is_complete()) else { return };
        match body.end(&mut self.out.to_hop) {
            ChunkEnd::AskContent => self.ask_content(),
            ChunkEnd::AskBeforeLast { owed } => {
                if owed {
                    self.chunk_for_hop_alone();
                }
                self.ask_content();
            }
            ChunkEnd::AskEvidence(head) => self.ask_evidence(&head),
            ChunkEnd::MessageSent => {
                self.note_findings();
                self.message_sent();
            }
            ChunkEnd::Next(answer) => {
                body.end_chunk();
                self.answer_chunk(answer);
            }
            ChunkEnd::Refused { reply, last } => self.refused_chunk_over(&reply, last),
        }
    }

    /// The message under way is wanted, with this header in front if there is one.
    pub(super) fn chunk_goes_on(&mut self, header: Option<String>, decided: bool) {
        let Some(body) = self.mail.chunk_mut() else { return };
        match body.release(header, decided, &mut self.out.to_hop) {
            Released::Message => return self.message_sent(),
            Released::Chunk(answer) => self.answer_chunk(answer),
            Released::Piece => self.chunk_for_hop_alone(),
            Released::Nothing => {}
        }
        self.chunk_over();
    }

    /// A chunk of a message that is refused: those that follow find no transaction (RFC 3030 section 2).
    fn refused_chunk_over(&mut self, reply: &Reply, last: bool) {
        if last {
            self.refuse_message(reply);
        } else if let (true, Some(transaction)) = (reply.is_positive(), self.mail.transaction_mut()) {
            // Discarded: the rest of it, too.
            transaction.message = Message::NotBegun;
            transaction.group.handling = Handling::Discard;
            self.reply_with(reply.clone());
        } else {
            self.end_transaction(reply);
            self.reply_with(reply.clone());
        }
        if self.hop.connection.is_ready() && !self.hop.dropping {
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
        }
    }

    fn end_transaction(&mut self, reply: &Reply) {
        if let Some(transaction) = self.mail.end() {
            self.finished(transaction, reply);
        }
    }

    /// Room is short: the message cannot be taken now, and RSET or MAIL comes next.
    pub(super) fn fail_transaction(&mut self) {
        self.mail.end();
        self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
    }

    /// The octets of a chunk that nobody wants, and a mistake of the client.
    fn swallow_bad(&mut self, size: u64, reply: Reply) -> bool {
        if self.one_more_mistake() {
            self.swallow(size, reply, 1);
        }
        true
    }

    /// The octets of a chunk go nowhere; the reply comes behind them.
    pub(super) fn swallow(&mut self, size: u64, reply: Reply, times: u32) {
        if size == 0 {
            self.reply_to_message(&reply, times);
        } else {
            self.client.input = Input::Swallow(Swallow::new(size, reply, times));
        }
    }
}
