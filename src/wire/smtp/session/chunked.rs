//! A message that comes in chunks: what is known of it between them.

use super::SessionLimits;
use super::content::BodyError;
use super::transaction::Transaction;
use crate::envelope::bounce::{self, Findings};
use crate::envelope::rules::ContentCheck;
use crate::wire::smtp::data::{DataScanner, Progress};
use crate::wire::smtp::incoming_header::HeaderFilter;
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::size_limits::Meter;

/// A message that comes in chunks.
#[derive(Debug)]
pub(super) struct Chunked {
    meter: Meter,
    /// None: the message is binary (RFC 3030 section 3), and no octet is odd.
    text: Option<DataScanner>,
    pub filter: Option<HeaderFilter>,
    /// Of a message that gets evidence: its header block.
    pub head: Option<HeadReader>,
    bounce: Option<bounce::Scanner>,
    /// Why its content decides, as long as it does.
    pub check: Option<ContentCheck>,
    pub state: ChunkState,
    /// The head of a candidate, or the part of a header block that is not sent yet.
    pub held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkState {
    /// A candidate's head is held.
    Held,
    /// The header block may still change, and its length with it.
    Head,
    /// Octets go on as they come.
    Open,
}

impl Chunked {
    pub fn new(transaction: &Transaction, limits: SessionLimits) -> Self {
        Self {
            meter: Meter::new(limits.header, limits.message),
            text: (!transaction.binary).then(DataScanner::of_chunks),
            filter: None,
            head: None,
            bounce: None,
            check: transaction.class.handling.check(),
            state: ChunkState::Open,
            held: Vec::new(),
        }
    }

    /// One on its way out that gets evidence: a header goes last in its header block.
    pub fn with_evidence(transaction: &Transaction, limits: SessionLimits) -> Self {
        Self { head: Some(HeadReader::of_chunks()), state: ChunkState::Head, ..Self::new(transaction, limits) }
    }

    /// A candidate: what it is decides what becomes of it.
    pub fn held(transaction: &Transaction, limits: SessionLimits) -> Self {
        Self {
            filter: Some(HeaderFilter::of_chunks()),
            bounce: Some(bounce::Scanner::of_text()),
            state: ChunkState::Held,
            ..Self::new(transaction, limits)
        }
    }

    /// One on its way in that is delivered: our own headers from outside are taken out of it.
    pub fn filtered(transaction: &Transaction, limits: SessionLimits) -> Self {
        let mark = transaction.class.mark;
        let filter = HeaderFilter::of_chunks();
        let filter = if mark.is_some() { filter.guarded() } else { filter };
        let held = mark.map(|mark| format!("{}\r\n", mark.header()).into_bytes()).unwrap_or_default();
        let bounce = mark.map(|_| bounce::Scanner::of_text());
        Self { filter: Some(filter), bounce, state: ChunkState::Head, held, ..Self::new(transaction, limits) }
    }

    pub fn is_holding(&self) -> bool {
        self.state == ChunkState::Held
    }

    /// The last octet has come.
    pub fn finish(&mut self) {
        if let Some(bounce) = &mut self.bounce {
            bounce.finish();
        }
    }

    /// Whether anything is to be found in it.
    pub fn is_looked_at(&self) -> bool {
        self.bounce.is_some()
    }

    /// How many octets have come.
    pub fn octets(&self) -> u64 {
        self.meter.octets()
    }

    pub fn found(&self) -> Findings {
        self.bounce.as_ref().map(bounce::Scanner::found).unwrap_or_default()
    }

    /// Looks at octets, whatever becomes of them.
    pub fn look(&mut self, part: &[u8], reject_stray: bool) -> Result<(), ChunkError> {
        if let Some(too_long) = self.meter.push(part) {
            return Err(ChunkError::Fault(BodyError::Long(too_long)));
        }
        if let Some(bounce) = &mut self.bounce {
            bounce.push(part);
        }
        let Some(scanner) = &mut self.text else { return Ok(()) };
        if scanner.push(part, |_| {}) == Progress::Smuggling {
            return Err(ChunkError::Smuggling);
        }
        if scanner.saw_nul() {
            return Err(ChunkError::Fault(BodyError::Nul));
        }
        if reject_stray && scanner.saw_stray() {
            return Err(ChunkError::Fault(BodyError::Stray));
        }
        Ok(())
    }
}

/// What may be wrong with the octets of a chunk.
pub(super) enum ChunkError {
    Fault(BodyError),
    Smuggling,
}
