//! BDAT (RFC 3030): the command, and the end of a chunk. The octets between are handled by [`body`](super::body).

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

/// The maximum size of a message if the config sets no limit, in octets: more than any server accepts, and too small
/// for sums to overflow.
const NO_LIMIT: u64 = 1 << 40;

impl Session {
    /// Handles BDAT. The octets of the chunk follow regardless of the reply.
    pub(super) fn bdat(&mut self, size: u64, last: bool) -> bool {
        if size > self.most_octets().saturating_mul(4) {
            // The chunk is too long to be read to its end.
            self.out.events.push_back(Event::Limit("message"));
            self.say(MESSAGE_TOO_LONG);
            self.end_when_answered();
            return true;
        }
        if let Some(reply) = self.too_early(&Command::Bdat { size, last }) {
            return self.swallow_bad(size, reply.reply());
        }
        if self.settings.lmtp && !self.pipeline.queue.is_empty() {
            // The number of replies to a message depends on the replies to RCPT.
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
        if !self.hop.facts.offer.chunking || self.settings.strips_content {
            return self.swallow_bad(size, NO_BDAT.reply());
        }
        let Some(transaction) = self.mail.transaction_mut().filter(|transaction| transaction.is_begun()) else {
            return self.swallow_bad(size, NEED_RCPT.reply());
        };
        if let Message::Chunks(body) = &mut transaction.message {
            body.begin_next(size, last);
            if let Some(reply) = &transaction.chunk_refused {
                // A part of the message is missing at the next hop.
                body.refuse(reply.clone());
            }
            self.begin_chunk(size);
            return true;
        }
        if self.settings.lmtp && transaction.accepted == 0 {
            return self.swallow_bad(size, NO_RECIPIENTS_YET.reply());
        }
        if !self.pipeline.queue.is_empty() {
            // An unsolicited reply must not be taken for the reply to a chunk, so the replies to MAIL and RCPT are
            // awaited.
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

    /// Begins the first chunk of a message.
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
            // The size is known in advance, so the next hop is sent nothing of the chunk.
            let error = BodyError::Long(TooLong::Message);
            self.out.events.extend(error.limit().map(Event::Limit));
            body.refuse(error.reply());
        } else {
            body.begin(&mut self.out.to_hop);
        }
        self.chunk_over();
    }

    /// Records a chunk whose reply is not for the client.
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

    /// Acts on the end of a chunk, if the whole chunk was received.
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

    /// Passes on the message, with this header in front if there is one. `decided`: the rest of the content cannot
    /// change the verdict.
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

    /// Ends a chunk of a message that is refused. Further chunks have no transaction (RFC 3030 section 2).
    fn refused_chunk_over(&mut self, reply: &Reply, last: bool) {
        if last {
            self.refuse_message(reply);
        } else if let (true, Some(transaction)) = (reply.is_positive(), self.mail.transaction_mut()) {
            // The message is discarded, including its further chunks.
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

    /// Ends a transaction whose message cannot be buffered, because memory is exhausted.
    pub(super) fn fail_transaction(&mut self) {
        self.mail.end();
        self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
    }

    /// Counts a mistake of the client, and discards the octets of the chunk.
    fn swallow_bad(&mut self, size: u64, reply: Reply) -> bool {
        if self.one_more_mistake() {
            self.swallow(size, reply, 1);
        }
        true
    }

    /// Discards the octets of a chunk. The reply is sent after them.
    pub(super) fn swallow(&mut self, size: u64, reply: Reply, times: u32) {
        if size == 0 {
            self.reply_to_message(&reply, times);
        } else {
            self.client.input = Input::Swallow(Swallow::new(size, reply, times));
        }
    }
}
