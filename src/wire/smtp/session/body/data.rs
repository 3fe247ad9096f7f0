//! A message by DATA: buffered, streamed or discarded.

use super::inspector::Inspector;
use super::step::{BodySettings, BodyStep, with_header};
use crate::envelope::bounce::Scanner;
use crate::envelope::rules::ContentCheck;
use crate::wire::smtp::data::{DataScanner, Progress};
use crate::wire::smtp::incoming_header::HeaderFilter;
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::returned_content::ContentStripper;
use crate::wire::smtp::session::types::SessionLimits;

/// A message by DATA, from 354 to the final dot and the reply to it.
#[derive(Debug)]
pub(crate) struct DataBody {
    text: Text,
    stage: DataStage,
    /// Whether the final dot was received.
    ended: bool,
}

/// What is done with the octets of a message.
#[derive(Debug)]
enum DataStage {
    /// They are buffered; the next hop has not been sent DATA.
    Held(Vec<u8>),
    /// They wait for the next hop's reply to DATA. No more can be accepted now.
    Released(Vec<u8>),
    /// They are passed on as they arrive.
    Streamed,
    /// The header block has been passed on. These octets wait until the evidence header is known, which ends the block.
    BehindHeader(Vec<u8>),
    /// They are discarded; at the end, this reply is sent.
    Unwanted(Reply),
}

/// The parsers that every octet passes through.
#[derive(Debug)]
struct Text {
    scanner: DataScanner,
    inspector: Inspector,
    /// Removes Countersign's own headers.
    filter: Option<HeaderFilter>,
    /// Removes the content of a returned message.
    stripper: Option<ContentStripper>,
    /// Finds the end of the header block.
    head: Option<HeadReader>,
}

impl Text {
    /// Appends the octets to be passed on to `out`. Returns the position in `out` at which the header block ended, if
    /// it is looked for and has ended.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> (Progress, Option<usize>) {
        let Self { scanner, inspector, filter, stripper, head } = self;
        let mut head_ends = None;
        let mut pass = |part: &[u8], out: &mut Vec<u8>| match stripper {
            Some(stripper) => stripper.push(part, out),
            None => out.extend_from_slice(part),
        };
        let progress = scanner.push(input, |part| {
            inspector.push(part);
            match (&mut *filter, &mut *head) {
                (Some(filter), _) if !filter.is_done() => filter.push(part, |part| pass(part, out)),
                (None, Some(head)) => head_ends = head_ends.or(head.push(part, out)),
                _ => pass(part, out),
            }
        });
        if let Progress::End(_) = progress {
            if let Some(filter) = filter {
                filter.finish(|part| pass(part, out));
            }
            if let Some(stripper) = stripper {
                stripper.finish(out);
            }
            if let Some(head) = head {
                head_ends = head_ends.or(head.finish(out));
            }
            inspector.finish();
        }
        (progress, head_ends)
    }
}

impl DataBody {
    fn new(limits: SessionLimits, stage: DataStage) -> Self {
        let inspector = Inspector::new(limits);
        let text = Text { scanner: DataScanner::default(), inspector, filter: None, stripper: None, head: None };
        Self { text, stage, ended: false }
    }

    /// A message whose content decides whether it is delivered.
    /// `strips`: a message that it returns is replaced by its headers.
    pub(crate) fn held(limits: SessionLimits, check: Option<ContentCheck>, strips: bool) -> Self {
        let mut body = Self::new(limits, DataStage::Held(Vec::new()));
        body.text.inspector = body.text.inspector.classifying(Scanner::of_data(), check);
        body.text.filter = Some(HeaderFilter::default());
        body.text.stripper = strips.then(ContentStripper::default);
        body
    }

    /// An inbound message that is delivered. `marked`: it was given a result header because of its envelope. The
    /// classifier then reads it to count what would have been refused.
    pub(crate) fn inbound(limits: SessionLimits, marked: bool) -> Self {
        let mut body = Self::new(limits, DataStage::Streamed);
        if marked {
            body.text.inspector = body.text.inspector.classifying(Scanner::of_data(), None);
        }
        body.text.filter = Some(if marked { HeaderFilter::behind_a_mark() } else { HeaderFilter::default() });
        body
    }

    /// An outbound message. `evidence`: an evidence header is added.
    pub(crate) fn outbound(limits: SessionLimits, evidence: bool) -> Self {
        let mut body = Self::new(limits, DataStage::Streamed);
        body.text.head = evidence.then(HeadReader::default);
        body
    }

    /// A message that is discarded; at its end, this reply is sent.
    pub(crate) fn unwanted(limits: SessionLimits, reply: Reply) -> Self {
        Self::new(limits, DataStage::Unwanted(reply))
    }

    /// The inspector of the message, with its findings so far.
    pub(crate) fn inspector(&self) -> &Inspector {
        &self.text.inspector
    }

    /// Whether the whole message was received.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the next hop has not been sent DATA, so that all can still be changed.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.stage, DataStage::Held(_))
    }

    /// Whether the message is buffered until the next hop sends 354.
    pub(crate) fn is_released(&self) -> bool {
        matches!(self.stage, DataStage::Released(_))
    }

    /// Whether the next hop has the beginning of the message.
    pub(crate) fn is_at_hop(&self) -> bool {
        matches!(self.stage, DataStage::Streamed | DataStage::BehindHeader(_))
    }

    /// Whether the message is discarded.
    pub(crate) fn is_unwanted(&self) -> bool {
        matches!(self.stage, DataStage::Unwanted(_))
    }

    /// The number of octets that are buffered.
    pub(crate) fn held_octets(&self) -> usize {
        match &self.stage {
            DataStage::Held(octets) => octets.len(),
            DataStage::Released(_) | DataStage::Streamed | DataStage::BehindHeader(_) | DataStage::Unwanted(_) => 0,
        }
    }

    /// Processes octets of the message, and returns how many were used.
    pub(crate) fn push(&mut self, input: &[u8], to_hop: &mut Vec<u8>, settings: BodySettings) -> (usize, BodyStep) {
        let Self { text, stage, ended } = self;
        let (input, progress, head_ends) = match stage {
            DataStage::Held(octets) => {
                let room = settings.hold.saturating_sub(octets.len()).max(1);
                let input = input.get(..room).unwrap_or(input);
                let (progress, _) = text.push(input, octets);
                (input, progress, None)
            }
            DataStage::Streamed => {
                let (progress, head_ends) = text.push(input, to_hop);
                (input, progress, head_ends)
            }
            DataStage::Unwanted(_) => (input, text.scanner.push(input, |_| {}), None),
            DataStage::Released(_) | DataStage::BehindHeader(_) => return (0, BodyStep::More),
        };
        let used = match progress {
            Progress::End(used) => used,
            Progress::More | Progress::Smuggling => input.len(),
        };
        if progress == Progress::Smuggling {
            return (used, BodyStep::Smuggling);
        }
        *ended = matches!(progress, Progress::End(_));
        (used, self.step(head_ends, to_hop, settings))
    }

    fn step(&mut self, head_ends: Option<usize>, to_hop: &mut Vec<u8>, settings: BodySettings) -> BodyStep {
        if let DataStage::Unwanted(reply) = &self.stage {
            return if self.ended { BodyStep::Refused(reply.clone()) } else { BodyStep::More };
        }
        if let Some(error) = self.text.inspector.error(Some(&self.text.scanner), settings.reject_stray) {
            return BodyStep::Error(error);
        }
        if let DataStage::Held(octets) = &self.stage {
            return if self.ended || octets.len() >= settings.hold { BodyStep::AskContent } else { BodyStep::More };
        }
        if let Some(head) = self.text.head.take_if(|head| head_ends.is_some() || head.is_done())
            && let Some(at) = head_ends
        {
            self.stage = DataStage::BehindHeader(to_hop.split_off(at.min(to_hop.len())));
            return BodyStep::AskEvidence(Box::new(head));
        }
        match self.ended {
            false => BodyStep::More,
            true if self.text.inspector.check().is_some() => BodyStep::AskContent,
            true => BodyStep::Complete,
        }
    }

    /// Adds the evidence header, without its line end, at the end of the header block. Returns whether the message is
    /// then complete.
    pub(crate) fn add_evidence(&mut self, header: Option<String>, to_hop: &mut Vec<u8>) -> bool {
        let DataStage::BehindHeader(behind) = &self.stage else { return false };
        if let Some(header) = header {
            to_hop.extend_from_slice(header.as_bytes());
            to_hop.extend_from_slice(b"\r\n");
        }
        to_hop.extend_from_slice(behind);
        self.stage = DataStage::Streamed;
        self.ended
    }

    /// Releases the buffered message, with this header in front. Returns whether it was buffered.
    pub(crate) fn release(&mut self, header: Option<String>, decided: bool) -> bool {
        if decided {
            self.text.inspector.decided();
        }
        let DataStage::Held(octets) = &self.stage else { return false };
        self.stage = DataStage::Released(with_header(header, octets));
        true
    }

    /// Sends the released message after the next hop's 354. Returns whether the message is then complete.
    pub(crate) fn send_released(&mut self, to_hop: &mut Vec<u8>) -> bool {
        if let DataStage::Released(octets) = &self.stage {
            to_hop.extend_from_slice(octets);
            self.stage = DataStage::Streamed;
        }
        self.ended
    }

    /// Discards the rest of the message; at its end, this reply is sent.
    pub(crate) fn refuse(&mut self, reply: Reply) {
        self.text.filter = None;
        self.text.stripper = None;
        self.text.head = None;
        self.text.inspector.stop_classifying();
        self.stage = DataStage::Unwanted(reply);
    }
}
