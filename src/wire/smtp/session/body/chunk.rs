//! A message by BDAT (RFC 3030), never turned into DATA.
//!
//! A chunk says how long it is before it comes, so what is edited has to be known first: a header block that may change
//! is gathered in small pieces, each sent on as a chunk of its own. Messages that are to be inspected are held like
//! those of DATA. What streams on past the hold goes without LAST, which is said by an empty chunk once the verdict is
//! in.

use super::inspector::Inspector;
use super::step::{BodySettings, BodyStep, with_header};
use crate::envelope::bounce::Scanner;
use crate::envelope::rules::{ContentCheck, ResultHeader};
use crate::wire::smtp::data::{DataScanner, Progress};
use crate::wire::smtp::incoming_header::HeaderFilter;
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::replies::{CHUNK_RECEIVED, EMPTY_CHUNK_RECEIVED};
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::session::types::SessionLimits;

/// So much of a header block is gathered before it is sent on, in octets.
const PIECE: usize = 4096;

/// A message that comes in chunks: what is known of it, in a chunk and between two of them.
#[derive(Debug)]
pub(crate) struct ChunkedMessage {
    /// What was found in it so far.
    inspector: Inspector,
    /// `None`: the message is binary (RFC 3030 section 3), and has no lines.
    text: Option<DataScanner>,
    /// Takes our own headers out.
    filter: Option<HeaderFilter>,
    /// Looks for the end of the header block.
    head: Option<HeadReader>,
    stage: ChunkStage,
    /// What is held, or the part of a header block that is not sent yet.
    held: Vec<u8>,
}

/// Where the octets of a message in chunks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkStage {
    /// They are held; the next hop has heard nothing of the message.
    Held,
    /// They go on in pieces: the header block may still change, and its length with it.
    Head,
    /// They go on as they come.
    Streamed,
}

impl ChunkedMessage {
    fn new(limits: SessionLimits, binary: bool, stage: ChunkStage) -> Self {
        let text = (!binary).then(DataScanner::of_chunks);
        Self { inspector: Inspector::new(limits), text, filter: None, head: None, stage, held: Vec::new() }
    }

    /// One on its way out. `evidence`: it gets an evidence header.
    pub(crate) fn outbound(limits: SessionLimits, binary: bool, evidence: bool) -> Self {
        let stage = if evidence { ChunkStage::Head } else { ChunkStage::Streamed };
        Self { head: evidence.then(HeadReader::of_chunks), ..Self::new(limits, binary, stage) }
    }

    /// One whose content decides what becomes of it.
    pub(crate) fn held_for(limits: SessionLimits, binary: bool, check: Option<ContentCheck>) -> Self {
        let message = Self::new(limits, binary, ChunkStage::Held);
        let inspector = message.inspector.classifying(Scanner::of_text(), check);
        Self { inspector, filter: Some(HeaderFilter::of_chunks()), ..message }
    }

    /// One from outside that is delivered, with this header in front of it if there is one.
    pub(crate) fn inbound(limits: SessionLimits, binary: bool, mark: Option<ResultHeader>) -> Self {
        let mut message = Self::new(limits, binary, ChunkStage::Head);
        let mut filter = HeaderFilter::of_chunks();
        if let Some(mark) = mark {
            filter = filter.guarded();
            message.inspector = message.inspector.classifying(Scanner::of_text(), None);
            message.held = format!("{}\r\n", mark.header()).into_bytes();
        }
        Self { filter: Some(filter), ..message }
    }

    fn is_held(&self) -> bool {
        self.stage == ChunkStage::Held
    }

    fn push(&mut self, part: &[u8], reject_stray: bool) -> Option<BodyStep> {
        if let Some(scanner) = &mut self.text
            && scanner.push(part, |_| {}) == Progress::Smuggling
            // A NUL before it refuses the message, however the octets are cut; then this is not looked at.
            && !scanner.saw_nul()
        {
            return Some(BodyStep::Smuggling);
        }
        self.inspector.push(part);
        self.inspector.error(self.text.as_ref(), reject_stray).map(BodyStep::Error)
    }

    /// All of the header block has come that there is.
    fn finish_filter(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.finish(|part| self.held.extend_from_slice(part));
        }
    }
}

/// A message by BDAT, from its first chunk to the answer to its last.
#[derive(Debug)]
pub(crate) struct ChunkedBody {
    message: ChunkedMessage,
    /// Whether a chunk is under way. The fields that follow are about that chunk, or about the one before.
    in_chunk: bool,
    /// Octets still to come, and in all.
    left: u64,
    size: u64,
    last: bool,
    /// Whether the next hop knows how much of this chunk it gets.
    announced: bool,
    /// Whether the reply that the client waits for is on its way already.
    answered: bool,
    /// The message goes nowhere; at the end of the chunk this is the answer.
    refused: Option<Reply>,
    /// Where in what is held the header block ends, while the rules are asked which evidence comes there.
    head_ends: Option<usize>,
}

/// What is due at the end of a chunk.
#[derive(Debug)]
pub(crate) enum ChunkEnd {
    /// Another chunk follows. Its answer:
    Next(ChunkAnswer),
    /// All of the message has come and is held. The rules have to say whether it is wanted.
    AskContent,
    /// All of the message has gone on, but for LAST. The rules have to say whether it is wanted. `owed`: the next hop
    /// will answer a chunk, and that is not for the client.
    AskBeforeLast { owed: bool },
    /// The header block is complete, and gets an evidence header.
    AskEvidence(Box<HeadReader>),
    /// All of the message has gone on.
    MessageSent,
    /// The message goes nowhere: this is the answer.
    Refused { reply: Reply, last: bool },
}

/// How the client's chunk is answered.
#[derive(Debug)]
pub(crate) enum ChunkAnswer {
    /// By the next hop, to the chunk that was sent last.
    ByHop,
    /// By this program.
    Ours(Reply),
    /// It has been, or will be.
    Given,
}

impl ChunkedBody {
    /// One whose first chunk begins.
    pub(crate) fn new(message: ChunkedMessage, size: u64, last: bool) -> Self {
        let (announced, answered) = (false, false);
        Self { message, in_chunk: true, left: size, size, last, announced, answered, refused: None, head_ends: None }
    }

    /// The next chunk begins.
    pub(crate) fn begin_next(&mut self, size: u64, last: bool) {
        self.in_chunk = true;
        self.left = size;
        self.size = size;
        self.last = last;
        self.announced = false;
        self.answered = false;
    }

    /// The chunk is over and the client has its answer, or will have it. Another one follows.
    pub(crate) fn end_chunk(&mut self) {
        self.in_chunk = false;
    }

    /// Whether a chunk is under way, not between two of them.
    pub(crate) fn is_in_chunk(&self) -> bool {
        self.in_chunk
    }

    /// What was found in it so far.
    pub(crate) fn inspector(&self) -> &Inspector {
        &self.message.inspector
    }

    /// Octets of it that are held in memory.
    pub(crate) fn held_octets(&self) -> usize {
        self.message.held.len()
    }

    /// Whether all of the chunk has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Whether all of the message has come with it.
    pub(crate) fn ends_the_message(&self) -> bool {
        self.last && self.left == 0
    }

    /// Whether the next hop has heard nothing of the message, and may still.
    pub(crate) fn is_held(&self) -> bool {
        self.message.is_held() && self.refused.is_none()
    }

    /// Whether its octets go on as they come.
    pub(crate) fn is_streamed(&self) -> bool {
        self.message.stage == ChunkStage::Streamed && self.refused.is_none()
    }

    /// Whether the next hop waits for octets of it.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced
    }

    /// Nothing more of the message goes anywhere. At the end of the chunk this is the answer, unless there is one.
    pub(crate) fn refuse(&mut self, reply: Reply) {
        self.refused.get_or_insert(reply);
        self.message.held = Vec::new();
        self.message.inspector.stop_classifying();
    }

    /// Tells the next hop how many octets of this chunk it gets, where they go on as they come.
    pub(crate) fn begin(&mut self, to_hop: &mut Vec<u8>) {
        if self.is_streamed() {
            self.announce(&[], to_hop);
        }
    }

    /// Tells the next hop how many octets of this chunk it gets; `held` are those that are sent at once.
    fn announce(&mut self, held: &[u8], to_hop: &mut Vec<u8>) {
        let last = self.last && self.message.inspector.check().is_none();
        let size = self.left.saturating_add(held.len() as u64);
        // Some servers refuse an empty chunk that is not the last.
        if size > 0 || last {
            write_chunk(size, last, held, to_hop);
            self.announced = true;
        }
    }

    /// Takes octets of it, and says how many.
    pub(crate) fn push(&mut self, input: &[u8], to_hop: &mut Vec<u8>, settings: BodySettings) -> (usize, BodyStep) {
        let room = match self.message.stage {
            ChunkStage::Held => settings.hold.saturating_sub(self.message.held.len()).max(1),
            ChunkStage::Head | ChunkStage::Streamed => usize::MAX,
        };
        let room = room.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let part = input.get(..room).unwrap_or(input);
        self.left -= part.len() as u64;
        if self.refused.is_some() {
            return (part.len(), BodyStep::More);
        }
        let wrong = self.message.push(part, settings.reject_stray);
        (part.len(), wrong.unwrap_or_else(|| self.pass(part, to_hop, settings.hold)))
    }

    fn pass(&mut self, part: &[u8], to_hop: &mut Vec<u8>, hold: usize) -> BodyStep {
        let message = &mut self.message;
        match (message.stage, &mut message.filter, &mut message.head) {
            (ChunkStage::Held, Some(filter), _) => {
                filter.push(part, |part| message.held.extend_from_slice(part));
                let is_full = message.held.len() >= hold && !self.ends_the_message();
                if is_full { BodyStep::AskContent } else { BodyStep::More }
            }
            (ChunkStage::Head, _, Some(reader)) => {
                self.head_ends = reader.push(part, &mut message.held);
                let done = reader.is_done();
                match message.head.take_if(|_| done).filter(|_| self.head_ends.is_some()) {
                    Some(reader) => BodyStep::AskEvidence(Box::new(reader)),
                    // Without a header block there is no place for evidence.
                    None => self.pass_head(done, to_hop),
                }
            }
            (ChunkStage::Head, Some(filter), None) => {
                filter.push(part, |part| message.held.extend_from_slice(part));
                let done = filter.is_done();
                self.pass_head(done, to_hop)
            }
            (ChunkStage::Streamed, ..) | (_, None, None) | (ChunkStage::Held, None, _) => {
                to_hop.extend_from_slice(part);
                BodyStep::More
            }
        }
    }

    /// What has been gathered of a header block goes on: all of it with what is left of the chunk if the block is
    /// `done`.
    fn pass_head(&mut self, done: bool, to_hop: &mut Vec<u8>) -> BodyStep {
        if done {
            self.message.stage = ChunkStage::Streamed;
            let held = std::mem::take(&mut self.message.held);
            self.announce(&held, to_hop);
            return BodyStep::More;
        }
        let Some(piece) = all_but_the_last(&mut self.message.held) else { return BodyStep::More };
        write_chunk(piece.len() as u64, false, &piece, to_hop);
        BodyStep::PieceSent
    }

    /// All of it has come: what is due.
    pub(crate) fn end(&mut self, to_hop: &mut Vec<u8>) -> ChunkEnd {
        if let Some(reply) = self.refused.clone() {
            return ChunkEnd::Refused { reply, last: self.last };
        }
        match self.message.stage {
            ChunkStage::Held if self.last => {
                self.message.inspector.finish();
                ChunkEnd::AskContent
            }
            ChunkStage::Held => {
                let text = format!("{} octets received", self.size);
                ChunkEnd::Next(ChunkAnswer::Ours(Reply::new(250, "2.0.0", &text)))
            }
            ChunkStage::Head if self.last => self.end_head(to_hop),
            ChunkStage::Head if self.answered => ChunkEnd::Next(ChunkAnswer::Given),
            ChunkStage::Head => {
                let held = std::mem::take(&mut self.message.held);
                ChunkEnd::Next(send_held(&held, to_hop))
            }
            ChunkStage::Streamed if self.last => self.end_message(),
            ChunkStage::Streamed if self.announced => ChunkEnd::Next(ChunkAnswer::ByHop),
            // Its octets went with what was held.
            ChunkStage::Streamed if self.answered => ChunkEnd::Next(ChunkAnswer::Given),
            // It was empty.
            ChunkStage::Streamed => ChunkEnd::Next(ChunkAnswer::Ours(EMPTY_CHUNK_RECEIVED.reply())),
        }
    }

    /// The message has ended and its header block with it.
    fn end_head(&mut self, to_hop: &mut Vec<u8>) -> ChunkEnd {
        let message = &mut self.message;
        if let Some(mut reader) = message.head.take() {
            self.head_ends = reader.finish(&mut message.held);
            if self.head_ends.is_some() {
                return ChunkEnd::AskEvidence(Box::new(reader));
            }
        }
        message.finish_filter();
        message.stage = ChunkStage::Streamed;
        let held = std::mem::take(&mut message.held);
        self.announce(&held, to_hop);
        self.end_message()
    }

    /// All of the message has gone on. Of one whose content is inspected the next hop has not heard that it was the
    /// last chunk.
    fn end_message(&mut self) -> ChunkEnd {
        self.message.inspector.finish();
        match self.message.inspector.check() {
            None => ChunkEnd::MessageSent,
            Some(_) => ChunkEnd::AskBeforeLast { owed: std::mem::take(&mut self.announced) },
        }
    }

    /// The evidence header, without its line end, goes last in the header block. All that is held goes on, and the rest
    /// as it comes.
    pub(crate) fn add_evidence(&mut self, header: Option<String>, to_hop: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.message.held);
        if let (Some(at), Some(header)) = (self.head_ends.take(), header) {
            let at = at.min(held.len());
            held.splice(at..at, [header.as_bytes(), b"\r\n"].concat());
        }
        self.message.stage = ChunkStage::Streamed;
        if self.refused.is_none() {
            self.announce(&held, to_hop);
        }
    }

    /// The message is wanted, with this header in front if there is one. `decided`: whatever else is in it. What is
    /// held goes on.
    pub(crate) fn release(&mut self, header: Option<String>, decided: bool, to_hop: &mut Vec<u8>) -> Released {
        if decided {
            self.message.inspector.decided();
        }
        if !self.message.is_held() {
            // LAST, which was kept back.
            write_chunk(0, true, &[], to_hop);
            return Released::Message;
        }
        if self.ends_the_message() {
            self.message.finish_filter();
            let text = with_header(header, &self.message.held);
            write_chunk(text.len() as u64, true, &text, to_hop);
            return Released::Message;
        }
        let text = with_header(header, &std::mem::take(&mut self.message.held));
        let in_body = self.message.filter.as_ref().is_none_or(HeaderFilter::is_done);
        self.message.stage = if in_body { ChunkStage::Streamed } else { ChunkStage::Head };
        // Where the chunk ends with what was held, its reply is the client's to hear.
        self.answered = self.left == 0 && !self.last;
        let answer = send_held(&text, to_hop);
        if self.left > 0 && in_body {
            self.announce(&[], to_hop);
        }
        match (self.answered, text.is_empty()) {
            (true, _) => Released::Chunk(answer),
            (false, true) => Released::Nothing,
            (false, false) => Released::Piece,
        }
    }
}

/// What has gone on of a message that was held.
#[derive(Debug)]
pub(crate) enum Released {
    /// All of it.
    Message,
    /// All of this chunk, and how the client is answered.
    Chunk(ChunkAnswer),
    /// A part of this chunk. The next hop's reply is not for the client.
    Piece,
    /// There was nothing to send.
    Nothing,
}

/// Sends what is held as a chunk of its own, and says how the client's chunk is answered that ends with it.
fn send_held(held: &[u8], to_hop: &mut Vec<u8>) -> ChunkAnswer {
    if held.is_empty() {
        return ChunkAnswer::Ours(CHUNK_RECEIVED.reply());
    }
    write_chunk(held.len() as u64, false, held, to_hop);
    ChunkAnswer::ByHop
}

/// What has been gathered, where it is enough to be sent, but for an octet: something stays for the chunk that the
/// client is answered for.
fn all_but_the_last(held: &mut Vec<u8>) -> Option<Vec<u8>> {
    if held.len() <= PIECE {
        return None;
    }
    let last = held.split_off(held.len() - 1);
    Some(std::mem::replace(held, last))
}

/// `octets` are those of the chunk that are at hand.
fn write_chunk(size: u64, last: bool, octets: &[u8], to_hop: &mut Vec<u8>) {
    to_hop.extend_from_slice(format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" }).as_bytes());
    to_hop.extend_from_slice(octets);
}
