//! Messages by BDAT (RFC 3030), which are never converted to DATA.
//!
//! The size of a chunk is sent before its octets, so all changes must be known first. A header block that may change is
//! gathered and sent in small pieces, each as a separate chunk. Messages to be inspected are buffered as with DATA. If
//! such a message exceeds the buffer, the rest is streamed without LAST; after the verdict, an empty last chunk is
//! sent.

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

/// The size of a piece of a header block, in octets.
const PIECE: usize = 4096;

/// A message in chunks, while a chunk is received and between two chunks.
#[derive(Debug)]
pub(crate) struct ChunkedMessage {
    /// The inspector of the message, with its findings so far.
    inspector: Inspector,
    /// `None` for a binary message (RFC 3030 section 3), which has no lines.
    text: Option<DataScanner>,
    /// Removes Countersign's own headers.
    filter: Option<HeaderFilter>,
    /// Finds the end of the header block.
    head: Option<HeadReader>,
    stage: ChunkStage,
    /// Buffered octets: of a message to be inspected, or of a header block.
    held: Vec<u8>,
}

/// What is done with the octets of a message in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkStage {
    /// They are buffered; the next hop has not been sent the message.
    Held,
    /// They are passed on in pieces, because the header block may still change, and with it the size.
    Head,
    /// They are passed on as they arrive.
    Streamed,
}

impl ChunkedMessage {
    fn new(limits: SessionLimits, binary: bool, stage: ChunkStage) -> Self {
        let text = (!binary).then(DataScanner::of_chunks);
        Self { inspector: Inspector::new(limits), text, filter: None, head: None, stage, held: Vec::new() }
    }

    /// An outbound message. `evidence`: an evidence header is added.
    pub(crate) fn outbound(limits: SessionLimits, binary: bool, evidence: bool) -> Self {
        let stage = if evidence { ChunkStage::Head } else { ChunkStage::Streamed };
        Self { head: evidence.then(HeadReader::of_chunks), ..Self::new(limits, binary, stage) }
    }

    /// A message whose content decides whether it is delivered.
    pub(crate) fn held_for(limits: SessionLimits, binary: bool, check: Option<ContentCheck>) -> Self {
        let message = Self::new(limits, binary, ChunkStage::Held);
        let inspector = message.inspector.classifying(Scanner::of_text(), check);
        Self { inspector, filter: Some(HeaderFilter::of_chunks()), ..message }
    }

    /// An inbound message that is delivered, with this header in front if there is one.
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
            // A NUL before the ambiguous line end refuses the message, regardless of how the input is split.
            && !scanner.saw_nul()
        {
            return Some(BodyStep::Smuggling);
        }
        self.inspector.push(part);
        self.inspector.error(self.text.as_ref(), reject_stray).map(BodyStep::Error)
    }

    /// Ends the header block, because the message ends.
    fn finish_filter(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.finish(|part| self.held.extend_from_slice(part));
        }
    }
}

/// A message by BDAT, from its first chunk to the reply to its last.
#[derive(Debug)]
pub(crate) struct ChunkedBody {
    message: ChunkedMessage,
    /// Whether a chunk is being received. The fields below are about that chunk, or about the previous one.
    in_chunk: bool,
    /// The number of octets still to come, and the size of the chunk in octets.
    left: u64,
    size: u64,
    last: bool,
    /// Whether the next hop was sent the size of this chunk.
    announced: bool,
    /// Whether the client's reply to this chunk is in the queue already.
    answered: bool,
    /// If the message is refused or discarded: the reply at the end of the chunk.
    refused: Option<Reply>,
    /// The position in the buffer at which the header block ends, while the rules are queried for evidence.
    head_ends: Option<usize>,
}

/// What the session has to do at the end of a chunk.
#[derive(Debug)]
pub(crate) enum ChunkEnd {
    /// Reply to the chunk; another one follows.
    Next(ChunkAnswer),
    /// Query the rules about the message, which was received and is buffered.
    AskContent,
    /// Query the rules about the message, which was passed on without LAST. `owed`: the next hop will send a reply to a
    /// chunk that is not for the client.
    AskBeforeLast { owed: bool },
    /// Query the rules for the evidence header; the header block is complete.
    AskEvidence(Box<HeadReader>),
    /// Wait for the next hop's reply to the message, which was passed on.
    MessageSent,
    /// Send this reply; the message is not delivered.
    Refused { reply: Reply, last: bool },
}

/// The source of the reply to the client's chunk.
#[derive(Debug)]
pub(crate) enum ChunkAnswer {
    /// The next hop's reply to the chunk that was sent last.
    ByHop,
    /// A reply of this program.
    Ours(Reply),
    /// A reply that was sent or queued already.
    Given,
}

impl ChunkedBody {
    /// A message whose first chunk begins.
    pub(crate) fn new(message: ChunkedMessage, size: u64, last: bool) -> Self {
        let (announced, answered) = (false, false);
        Self { message, in_chunk: true, left: size, size, last, announced, answered, refused: None, head_ends: None }
    }

    /// Begins the next chunk.
    pub(crate) fn begin_next(&mut self, size: u64, last: bool) {
        self.in_chunk = true;
        self.left = size;
        self.size = size;
        self.last = last;
        self.announced = false;
        self.answered = false;
    }

    /// Ends a chunk whose reply was sent or queued. Another chunk follows.
    pub(crate) fn end_chunk(&mut self) {
        self.in_chunk = false;
    }

    /// Whether a chunk is being received.
    pub(crate) fn is_in_chunk(&self) -> bool {
        self.in_chunk
    }

    /// The inspector of the message, with its findings so far.
    pub(crate) fn inspector(&self) -> &Inspector {
        &self.message.inspector
    }

    /// The number of octets that are buffered.
    pub(crate) fn held_octets(&self) -> usize {
        self.message.held.len()
    }

    /// Whether the whole chunk was received.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Whether the whole message was received.
    pub(crate) fn ends_the_message(&self) -> bool {
        self.last && self.left == 0
    }

    /// Whether the next hop has not been sent the message, and may still be.
    pub(crate) fn is_held(&self) -> bool {
        self.message.is_held() && self.refused.is_none()
    }

    /// Whether octets are passed on as they arrive.
    pub(crate) fn is_streamed(&self) -> bool {
        self.message.stage == ChunkStage::Streamed && self.refused.is_none()
    }

    /// Whether the next hop was sent the size of this chunk.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced
    }

    /// Discards the rest of the message. At the end of the chunk this reply is sent, unless another reply is already
    /// set.
    pub(crate) fn refuse(&mut self, reply: Reply) {
        self.refused.get_or_insert(reply);
        self.message.held = Vec::new();
        self.message.inspector.stop_classifying();
    }

    /// Sends the size of this chunk to the next hop, if its octets are passed on as they arrive.
    pub(crate) fn begin(&mut self, to_hop: &mut Vec<u8>) {
        if self.is_streamed() {
            self.announce(&[], to_hop);
        }
    }

    /// Sends the next hop the size of the rest of this chunk, and the buffered octets in `held` with it.
    fn announce(&mut self, held: &[u8], to_hop: &mut Vec<u8>) {
        let last = self.last && self.message.inspector.check().is_none();
        let size = self.left.saturating_add(held.len() as u64);
        // Some servers refuse an empty chunk that is not the last.
        if size > 0 || last {
            write_chunk(size, last, held, to_hop);
            self.announced = true;
        }
    }

    /// Processes octets of the chunk, and returns how many were used.
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
                    // Without a header block, evidence cannot be added.
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

    /// Passes on what was gathered of a header block. If the block is `done`, that is all of it, with the rest of the
    /// chunk.
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

    /// Ends the chunk, and returns what the session has to do.
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
            // The octets of the chunk were sent with the buffered ones.
            ChunkStage::Streamed if self.answered => ChunkEnd::Next(ChunkAnswer::Given),
            // The chunk is empty.
            ChunkStage::Streamed => ChunkEnd::Next(ChunkAnswer::Ours(EMPTY_CHUNK_RECEIVED.reply())),
        }
    }

    /// Ends a header block that ends with the message.
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

    /// Ends a message that was passed on. If its content is inspected, the next hop was not sent LAST.
    fn end_message(&mut self) -> ChunkEnd {
        self.message.inspector.finish();
        match self.message.inspector.check() {
            None => ChunkEnd::MessageSent,
            Some(_) => ChunkEnd::AskBeforeLast { owed: std::mem::take(&mut self.announced) },
        }
    }

    /// Adds the evidence header, without its line end, at the end of the header block. All buffered octets are passed
    /// on, and further ones as they arrive.
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

    /// Passes on the buffered message, with this header in front if there is one. `decided`: the rest of the content
    /// cannot change the verdict.
    pub(crate) fn release(&mut self, header: Option<String>, decided: bool, to_hop: &mut Vec<u8>) -> Released {
        if decided {
            self.message.inspector.decided();
        }
        if !self.message.is_held() {
            // The LAST that was withheld.
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
        // If the chunk ends with the buffered octets, the next hop's reply is for the client.
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

/// What was passed on of a buffered message.
#[derive(Debug)]
pub(crate) enum Released {
    /// The whole message.
    Message,
    /// The whole chunk, and the source of its reply.
    Chunk(ChunkAnswer),
    /// A part of the chunk. The next hop's reply is not for the client.
    Piece,
    /// Nothing, because nothing was buffered.
    Nothing,
}

/// Sends the buffered octets as a separate chunk, and returns the source of the reply to the client's chunk that ends
/// with them.
fn send_held(held: &[u8], to_hop: &mut Vec<u8>) -> ChunkAnswer {
    if held.is_empty() {
        return ChunkAnswer::Ours(CHUNK_RECEIVED.reply());
    }
    write_chunk(held.len() as u64, false, held, to_hop);
    ChunkAnswer::ByHop
}

/// Takes the gathered octets except the last, if they exceed a piece. One octet remains for the chunk whose reply the
/// client is sent.
fn all_but_the_last(held: &mut Vec<u8>) -> Option<Vec<u8>> {
    if held.len() <= PIECE {
        return None;
    }
    let last = held.split_off(held.len() - 1);
    Some(std::mem::replace(held, last))
}

/// Writes a BDAT command and `octets`, which are the available ones of the chunk.
fn write_chunk(size: u64, last: bool, octets: &[u8], to_hop: &mut Vec<u8>) {
    to_hop.extend_from_slice(format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" }).as_bytes());
    to_hop.extend_from_slice(octets);
}
