//! Messages that come in chunks: BDAT (RFC 3030), never turned into DATA.
//!
//! A chunk says how long it is before it comes, so what is edited has to be known first: the header block of mail on its way
//! in is gathered in small pieces, each sent on as a chunk of its own whose reply is swallowed. Candidates are held like
//! those of DATA. What streams on past the hold goes without LAST, which is said by an empty chunk once the verdict is in.

use super::chunked::{ChunkError, ChunkState, Chunked};
use super::content::{BodyError, Phase, with_header};
use super::hop::Connection;
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::transaction::{Handling, Pending, taken};
use super::{Ask, Direction, Event, Session};
use crate::envelope::rules::{ContentVerdict, ResultHeader};
use crate::wire::smtp::command::Command;
use crate::wire::smtp::incoming_header::HeaderFilter;
use crate::wire::smtp::replies::{
    CHUNK_RECEIVED, EMPTY_CHUNK_RECEIVED, HOP_TAKES_NO_BDAT, MESSAGE_TOO_LONG, NEED_RCPT, NO_BDAT, NO_QUARANTINE,
    NO_RECIPIENTS, NO_RECIPIENTS_YET,
};
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::size_limits::TooLong;

/// The most octets of a message where the config sets no limit: more than any server takes, and far from where sums wrap.
const MOST: u64 = 1 << 40;
/// So much of a header block is gathered before it is sent on.
const PIECE: usize = 4096;

/// A chunk under way.
#[derive(Debug)]
pub(super) struct Chunk {
    left: u64,
    size: u64,
    last: bool,
    /// Whether the next hop knows how much of this chunk it gets.
    announced: bool,
    /// Whether the reply that the client waits for is on its way already.
    answered: bool,
    message: Box<Chunked>,
    /// The message is refused; the client hears of it at the end of the chunk.
    dead: Option<Reply>,
    /// Where in what is held the header block ends, while its last header is asked for.
    head_ends: Option<usize>,
}

impl Chunk {
    pub fn is_holding(&self) -> bool {
        self.message.is_holding() && self.dead.is_none()
    }

    /// Octets that are held.
    pub fn held(&self) -> usize {
        self.message.held.len()
    }

    /// Whether its octets go on as they come.
    pub fn is_open(&self) -> bool {
        self.message.state == ChunkState::Open && self.dead.is_none()
    }

    /// Nothing more of it goes anywhere.
    pub fn kill(&mut self, reply: Reply) {
        self.dead.get_or_insert(reply);
        self.message.held = Vec::new();
    }

    /// Whether LAST is kept back until the verdict.
    fn is_candidate(&self) -> bool {
        self.message.check.is_some()
    }
}

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
            let recipients = if last { self.mail.transaction.as_ref().map_or(1, |t| t.accepted) } else { 1 };
            self.swallow(size, HOP_TAKES_NO_BDAT.reply(), recipients);
            if self.mail.transaction.is_some() {
                self.fail_transaction();
            }
            return true;
        }
        if !self.hop.facts.offer.chunking {
            return self.swallow_bad(size, NO_BDAT.reply());
        }
        let Some(transaction) = self.mail.transaction.as_ref().filter(|transaction| transaction.is_begun()) else {
            return self.swallow_bad(size, NEED_RCPT.reply());
        };
        if let Some(message) = self.mail.chunked.take() {
            self.begin_chunk(message, size, last);
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
        if transaction.class.handling == Handling::Deliver {
            let message = match self.settings.direction {
                Direction::Outbound if transaction.evidence => Chunked::with_evidence(transaction, limits),
                Direction::Outbound => Chunked::new(transaction, limits),
                Direction::Inbound => Chunked::filtered(transaction, limits),
            };
            self.begin_chunk(Box::new(message), size, last);
            return true;
        }
        if transaction.accepted == 0 {
            return self.swallow_bad(size, NO_RECIPIENTS.reply());
        }
        if transaction.class.handling == Handling::Discard {
            let recipients = if last { transaction.accepted } else { 1 };
            if let Some(transaction) = self.mail.transaction.take_if(|_| last) {
                self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
                self.finished(transaction, &taken());
            }
            self.swallow(size, taken(), recipients);
            return true;
        }
        self.out.events.push_back(Event::Ask(Ask::Hold));
        self.mail.asking = Some(Pending::Hold(Some((size, last))));
        true
    }

    fn most_octets(&self) -> u64 {
        match self.settings.limits.message {
            0 => MOST,
            limit => limit,
        }
    }

    pub(super) fn begin_chunk(&mut self, message: Box<Chunked>, size: u64, last: bool) {
        let mut chunk =
            Chunk { left: size, size, last, announced: false, answered: false, message, dead: None, head_ends: None };
        if chunk.message.octets().saturating_add(size) > self.most_octets() {
            // Known before it comes, so nobody hears any of it.
            let fault = BodyError::Long(TooLong::Message);
            self.note_limit(fault);
            chunk.kill(fault.reply());
        } else if chunk.message.state == ChunkState::Open {
            self.announce(&mut chunk);
        }
        self.mail.phase = Phase::Chunk(Box::new(chunk));
        if size == 0 {
            self.chunk_over();
        }
    }

    /// Tells the next hop how much is left of a chunk that goes on as it comes.
    fn announce(&mut self, chunk: &mut Chunk) {
        self.announce_with(chunk, &[]);
    }

    /// The same, where some of it is at hand.
    fn announce_with(&mut self, chunk: &mut Chunk, held: &[u8]) {
        let last = chunk.last && !chunk.is_candidate();
        let size = chunk.left.saturating_add(held.len() as u64);
        if size == 0 && !last {
            // Some servers refuse an empty chunk that is not the last.
            return;
        }
        self.out.to_hop.extend_from_slice(&bdat_line(size, last));
        self.out.to_hop.extend_from_slice(held);
        chunk.announced = true;
    }

    /// Sends what is held as a chunk of its own. What it is an answer to decides who hears the reply.
    fn send_held(&mut self, held: &[u8], item: Item) {
        if held.is_empty() {
            if matches!(item, Item::Forwarded(_)) {
                self.say(CHUNK_RECEIVED);
            }
            return;
        }
        self.out.to_hop.extend_from_slice(&bdat_line(held.len() as u64, false));
        self.out.to_hop.extend_from_slice(held);
        self.pipeline.queue.push(item);
    }

    /// Takes octets of a chunk; says how many.
    pub(super) fn take_chunk(&mut self, mut chunk: Box<Chunk>, input: &[u8]) -> usize {
        let room = match chunk.message.state {
            ChunkState::Held => self.settings.hold.saturating_sub(chunk.message.held.len()).max(1),
            ChunkState::Head | ChunkState::Open => usize::MAX,
        };
        let room = room.min(usize::try_from(chunk.left).unwrap_or(usize::MAX));
        let part = input.get(..room).unwrap_or(input);
        chunk.left -= part.len() as u64;
        if chunk.dead.is_none() {
            match chunk.message.look(part, self.settings.reject_stray) {
                Ok(()) => self.pass(&mut chunk, part),
                Err(ChunkError::Smuggling) => return self.smuggling(input),
                Err(ChunkError::Fault(fault)) => {
                    self.note_limit(fault);
                    self.abandon(&mut chunk, fault.reply());
                }
            }
        }
        let over = chunk.left == 0;
        self.mail.phase = Phase::Chunk(chunk);
        if over && self.mail.asking.is_none() {
            self.chunk_over();
        }
        part.len()
    }

    fn pass(&mut self, chunk: &mut Chunk, part: &[u8]) {
        let Chunked { filter, head, held, state, .. } = &mut *chunk.message;
        if let (ChunkState::Head, Some(reader)) = (*state, head.as_mut()) {
            chunk.head_ends = reader.push(part, held);
            let done = reader.is_done();
            if chunk.head_ends.is_some() {
                if let Some(reader) = head.take() {
                    self.ask_evidence(&reader);
                }
            } else if done {
                // It has no header block, and gets none.
                (*head, *state) = (None, ChunkState::Open);
                let held = std::mem::take(held);
                self.announce_with(chunk, &held);
            } else if let Some(piece) = all_but_the_last(held) {
                let item = self.quiet_chunk();
                self.send_held(&piece, item);
            }
            return;
        }
        match (*state, filter) {
            (ChunkState::Open, _) | (_, None) => self.out.to_hop.extend_from_slice(part),
            (ChunkState::Held, Some(filter)) => {
                filter.push(part, |part| held.extend_from_slice(part));
                if held.len() >= self.settings.hold && !(chunk.last && chunk.left == 0) {
                    self.ask_content(chunk.message.check, chunk.message.found(), false);
                }
            }
            (ChunkState::Head, Some(filter)) => {
                filter.push(part, |part| held.extend_from_slice(part));
                let done = filter.is_done();
                if done {
                    *state = ChunkState::Open;
                    let held = std::mem::take(held);
                    // One chunk for both: the header block as it is now, and what is left as it comes.
                    self.announce_with(chunk, &held);
                } else if let Some(piece) = all_but_the_last(held) {
                    let item = self.quiet_chunk();
                    self.send_held(&piece, item);
                }
            }
        }
    }

    fn quiet_chunk(&self) -> Item {
        Item::Swallowed(ProxyCommand::Chunk { transaction: self.transaction().unwrap_or_default() })
    }

    fn forwarded_chunk(&self) -> Item {
        Item::Forwarded(ClientCommand::Chunk { transaction: self.transaction().unwrap_or_default() })
    }

    /// A chunk is complete.
    pub(super) fn chunk_over(&mut self) {
        let mut chunk = match std::mem::replace(&mut self.mail.phase, Phase::Command) {
            Phase::Chunk(chunk) => chunk,
            phase => {
                self.mail.phase = phase;
                return;
            }
        };
        if let Some(reply) = &chunk.dead {
            return self.dead_chunk_over(reply, chunk.last);
        }
        match chunk.message.state {
            ChunkState::Held if chunk.last => {
                chunk.message.finish();
                self.ask_content(chunk.message.check, chunk.message.found(), true);
                self.mail.phase = Phase::Chunk(chunk);
                return;
            }
            ChunkState::Held => {
                let size = chunk.size;
                self.reply(250, "2.0.0", &format!("{size} octets received"));
            }
            ChunkState::Head => {
                if let Some(mut reader) = chunk.message.head.take_if(|_| chunk.last) {
                    chunk.head_ends = reader.finish(&mut chunk.message.held);
                    if chunk.head_ends.is_none() {
                        // There is no place for it.
                        return self.chunk_has_evidence(chunk, None);
                    }
                    self.ask_evidence(&reader);
                    self.mail.phase = Phase::Chunk(chunk);
                    return;
                }
                if let (true, Some(filter)) = (chunk.last, &mut chunk.message.filter) {
                    filter.finish(|part| chunk.message.held.extend_from_slice(part));
                }
                let held = std::mem::take(&mut chunk.message.held);
                if chunk.last {
                    self.announce_with(&mut chunk, &held);
                    return self.last_chunk_over(chunk);
                }
                if !chunk.answered {
                    let item = self.forwarded_chunk();
                    self.send_held(&held, item);
                }
            }
            ChunkState::Open if chunk.last => return self.last_chunk_over(chunk),
            ChunkState::Open if chunk.announced => {
                let item = self.forwarded_chunk();
                self.pipeline.queue.push(item);
            }
            // Its octets went with what was held.
            ChunkState::Open if chunk.answered => {}
            // It was empty.
            ChunkState::Open => self.say(EMPTY_CHUNK_RECEIVED),
        }
        self.mail.chunked = Some(chunk.message);
    }

    /// All of a message has gone on. Of a candidate the next hop has not heard that it was the last.
    fn last_chunk_over(&mut self, mut chunk: Box<Chunk>) {
        chunk.message.finish();
        if !chunk.is_candidate() {
            if let (true, Some(transaction)) = (chunk.message.is_looked_at(), &mut self.mail.transaction) {
                transaction.found = Some(Box::new(chunk.message.found()));
            }
            return self.message_sent();
        }
        if std::mem::take(&mut chunk.announced) {
            let item = self.quiet_chunk();
            self.pipeline.queue.push(item);
        }
        chunk.message.state = ChunkState::Open;
        self.ask_content(chunk.message.check, chunk.message.found(), true);
        self.mail.phase = Phase::Chunk(chunk);
    }

    /// The header block of a message on its way out is complete: all that is held goes, and the rest as it comes.
    pub(super) fn chunk_has_evidence(&mut self, mut chunk: Box<Chunk>, header: Option<String>) {
        let mut held = std::mem::take(&mut chunk.message.held);
        if let (Some(at), Some(header)) = (chunk.head_ends.take(), header) {
            let at = at.min(held.len());
            held.splice(at..at, [header.as_bytes(), b"\r\n"].concat());
        }
        chunk.message.state = ChunkState::Open;
        if chunk.dead.is_none() {
            self.announce_with(&mut chunk, &held);
        }
        self.mail.phase = Phase::Chunk(chunk);
        if self.chunk_is_complete() {
            self.chunk_over();
        }
    }

    /// The verdict is in and the message is wanted: LAST, which was kept back.
    fn say_last_chunk(&mut self) {
        self.out.to_hop.extend_from_slice(&bdat_line(0, true));
        self.message_sent();
    }

    /// The answer to [`Ask::Content`] for a message in chunks.
    pub(super) fn chunk_judged(&mut self, mut chunk: Box<Chunk>, content: &ContentVerdict) {
        let mark = match content {
            ContentVerdict::Refuse(refusal) => {
                return self.chunk_dropped(chunk, Reply::new(refusal.code, refusal.status, refusal.text));
            }
            ContentVerdict::Discard(_) => return self.chunk_dropped(chunk, taken()),
            ContentVerdict::Deliver | ContentVerdict::Rescue(_) | ContentVerdict::Later => None,
            ContentVerdict::Mark(mark) | ContentVerdict::Quarantine(_, mark) => Some(*mark),
        };
        if chunk.message.state == ChunkState::Open {
            if let ContentVerdict::Quarantine(..) = content {
                return self.chunk_dropped(chunk, NO_QUARANTINE.reply());
            }
            // Too late for a header.
            return self.say_last_chunk();
        }
        if *content != ContentVerdict::Later {
            chunk.message.check = None;
        }
        if let ContentVerdict::Quarantine(to, mark) = content {
            self.redirect(to, mark);
            self.mail.phase = Phase::Chunk(chunk);
            return;
        }
        self.chunk_goes_on(chunk, mark);
    }

    /// What is held of a message in chunks goes on, perhaps with a mark.
    pub(super) fn chunk_goes_on(&mut self, mut chunk: Box<Chunk>, mark: Option<ResultHeader>) {
        if let Some(mark) = &mark {
            self.mark(mark);
        }
        let header = mark.map(|mark| mark.header());
        if chunk.last && chunk.left == 0 {
            if let Some(filter) = &mut chunk.message.filter {
                filter.finish(|part| chunk.message.held.extend_from_slice(part));
            }
            let text = with_header(header, &chunk.message.held);
            self.out.to_hop.extend_from_slice(&bdat_line(text.len() as u64, true));
            self.out.to_hop.extend_from_slice(&text);
            return self.message_sent();
        }
        self.release_chunk(&mut chunk, header);
        self.mail.phase = Phase::Chunk(chunk);
        if self.chunk_is_complete() {
            self.chunk_over();
        }
    }

    /// A message in chunks goes nowhere; the client hears this.
    pub(super) fn chunk_dropped(&mut self, mut chunk: Box<Chunk>, reply: Reply) {
        self.abandon(&mut chunk, reply);
        self.mail.phase = Phase::Chunk(chunk);
        if self.chunk_is_complete() {
            self.chunk_over();
        }
    }

    pub(super) fn chunk_is_complete(&self) -> bool {
        matches!(&self.mail.phase, Phase::Chunk(chunk) if chunk.left == 0)
    }

    /// Sends what is held of a message that is longer, and lets the rest follow as it comes.
    fn release_chunk(&mut self, chunk: &mut Chunk, header: Option<String>) {
        let text = with_header(header, &std::mem::take(&mut chunk.message.held));
        let in_body = chunk.message.filter.as_ref().is_none_or(HeaderFilter::is_done);
        chunk.message.state = if in_body { ChunkState::Open } else { ChunkState::Head };
        // Where the chunk ends with what was held, its reply is the client's to hear.
        chunk.answered = chunk.left == 0 && !chunk.last;
        let item = if chunk.answered { self.forwarded_chunk() } else { self.quiet_chunk() };
        self.send_held(&text, item);
        if chunk.left > 0 && in_body {
            self.announce(chunk);
        }
    }

    /// Nothing more of this message goes on. What the next hop has begun to read is never ended.
    fn abandon(&mut self, chunk: &mut Chunk, reply: Reply) {
        if chunk.announced {
            self.drop_hop_when_answered();
        }
        chunk.kill(reply);
    }

    /// A chunk of a message that is refused: those that follow find no transaction (RFC 3030 section 2).
    fn dead_chunk_over(&mut self, reply: &Reply, last: bool) {
        if last {
            self.refuse_message(reply);
        } else if let (true, Some(transaction)) = (reply.is_positive(), &mut self.mail.transaction) {
            // Thrown away: the rest of it, too.
            transaction.class.handling = Handling::Discard;
            self.reply_with(reply.clone());
        } else {
            if let Some(transaction) = self.mail.transaction.take() {
                self.finished(transaction, reply);
            }
            self.reply_with(reply.clone());
        }
        if self.hop.connection == Connection::Ready && !self.hop.dropping {
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
        }
    }

    /// Room is short: the message cannot be taken now, and RSET or MAIL comes next.
    pub(super) fn fail_transaction(&mut self) {
        (self.mail.transaction, self.mail.chunked) = (None, None);
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
            self.mail.phase = Phase::Swallow { left: size, reply, times };
        }
    }

    pub(super) fn take_swallow(&mut self, left: u64, reply: Reply, times: u32, input: &[u8]) -> usize {
        let used = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match left - used as u64 {
            0 => self.reply_to_message(&reply, times),
            left => self.mail.phase = Phase::Swallow { left, reply, times },
        }
        used
    }
}

/// What has been gathered, where it is enough to be sent, but for an octet: something stays for the chunk that the client hears of.
fn all_but_the_last(held: &mut Vec<u8>) -> Option<Vec<u8>> {
    if held.len() <= PIECE {
        return None;
    }
    let last = held.split_off(held.len() - 1);
    Some(std::mem::replace(held, last))
}

fn bdat_line(size: u64, last: bool) -> Vec<u8> {
    format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" }).into_bytes()
}
