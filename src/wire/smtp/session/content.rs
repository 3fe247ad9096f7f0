//! Message bodies: streamed, held and judged, or thrown away.
//!
//! A candidate's DATA is answered by us and its head held, *before* the next hop hears of it: recipient and header can
//! still change, and a refusal costs one RSET. What is longer than the hold streams on; to refuse it then, the final dot
//! is not sent and the connection closed.

use super::chunk::Chunk;
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::transaction::{Pending, taken};
use super::{Ask, Event, Session, SessionLimits};
use crate::envelope::address::ReversePath;
use crate::envelope::bounce::{self, Findings};
use crate::envelope::rules::{ContentCheck, ContentVerdict, ResultHeader};
use crate::wire::smtp::data::{DataScanner, Progress};
use crate::wire::smtp::incoming_header::HeaderFilter;
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::replies::{
    HEADER_TOO_LONG, HOP_REFUSED_LATE, MESSAGE_TOO_LONG, NO_QUARANTINE, NUL, SMUGGLING, STRAY_LINE_END,
};
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::size_limits::{Meter, TooLong};

/// What the client's octets are.
#[derive(Debug)]
pub(super) enum Phase {
    /// Lines with commands.
    Command,
    /// The client's answer to a challenge of AUTH.
    Auth,
    /// A body that flows to the next hop.
    Stream(Box<StreamedBody>),
    /// The head of a candidate.
    Hold(Box<Hold>),
    /// Nothing for now: a held head waits for the next hop's answer to DATA.
    Release(Box<Release>),
    /// A body that goes nowhere; at its end the client hears this.
    Discard { scanner: DataScanner, reply: Reply },
    /// A chunk of BDAT.
    Chunk(Box<Chunk>),
    /// So many octets of a chunk that goes nowhere; at its end the client hears this, so many times.
    Swallow { left: u64, reply: Reply, times: u32 },
}

impl Phase {
    pub fn hold(check: Option<ContentCheck>, limits: SessionLimits) -> Self {
        let stream = StreamedBody {
            meter: Some(Meter::new(limits.header, limits.message)),
            filter: Some(HeaderFilter::default()),
            bounce: Some(bounce::Scanner::of_data()),
            check,
            ..StreamedBody::default()
        };
        Self::Hold(Box::new(Hold { stream, held: Vec::new(), complete: false }))
    }
}

/// A body under way.
#[derive(Debug, Default)]
pub(super) struct StreamedBody {
    pub scanner: DataScanner,
    meter: Option<Meter>,
    too_long: Option<TooLong>,
    filter: Option<HeaderFilter>,
    /// For a candidate: is it a bounce?
    bounce: Option<bounce::Scanner>,
    /// Why its content decides, as long as it does.
    check: Option<ContentCheck>,
    /// Of a message that gets evidence: its header block.
    head: Option<HeadReader>,
    /// Where in what is to be written that ends, once it is known.
    head_ends: Option<usize>,
    /// What waits behind it.
    waiting: Vec<u8>,
    ended: bool,
}

/// A head that is held.
#[derive(Debug)]
pub(super) struct Hold {
    stream: StreamedBody,
    held: Vec<u8>,
    /// Whether the whole message is in it.
    complete: bool,
}

impl Hold {
    pub fn octets(&self) -> usize {
        self.held.len()
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn into_scanner(self) -> DataScanner {
        self.stream.scanner
    }
}

/// A held head on its way, and what follows it.
#[derive(Debug)]
pub(super) struct Release {
    text: Vec<u8>,
    /// The body still to come; none when the whole message is in `text`.
    pub rest: Option<Box<StreamedBody>>,
}

/// Why a body cannot be taken, whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    Nul,
    Stray,
    Long(TooLong),
}

impl BodyError {
    pub fn reply(self) -> Reply {
        match self {
            Self::Nul => NUL.reply(),
            Self::Stray => STRAY_LINE_END.reply(),
            Self::Long(TooLong::Header) => HEADER_TOO_LONG.reply(),
            Self::Long(TooLong::Message) => MESSAGE_TOO_LONG.reply(),
        }
    }

    /// The limit that was reached, as the config calls it.
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::Long(TooLong::Header) => Some("header"),
            Self::Long(TooLong::Message) => Some("message"),
            Self::Nul | Self::Stray => None,
        }
    }
}

impl StreamedBody {
    /// Passes input through scanner, filter and bounce scanner.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let Self { scanner, filter, bounce, meter, too_long, head, head_ends, .. } = self;
        let progress = scanner.push(input, |part| {
            if let Some(meter) = meter {
                *too_long = too_long.or(meter.push(part));
            }
            if let Some(bounce) = bounce {
                bounce.push(part);
            }
            match (&mut *filter, &mut *head) {
                (Some(filter), _) if !filter.is_done() => filter.push(part, |part| out.extend_from_slice(part)),
                (None, Some(head)) => *head_ends = head_ends.or(head.push(part, out)),
                _ => out.extend_from_slice(part),
            }
        });
        if let Progress::End(_) = progress {
            if let Some(filter) = filter {
                filter.finish(|part| out.extend_from_slice(part));
            }
            if let Some(head) = head {
                *head_ends = head_ends.or(head.finish(out));
            }
            if let Some(bounce) = bounce {
                bounce.finish();
            }
        }
        progress
    }

    fn fault(&self, reject_stray: bool) -> Option<BodyError> {
        if let Some(too_long) = self.too_long {
            Some(BodyError::Long(too_long))
        } else if self.scanner.saw_nul() {
            Some(BodyError::Nul)
        } else if self.scanner.saw_stray() && reject_stray {
            Some(BodyError::Stray)
        } else {
            None
        }
    }

    fn found(&self) -> Findings {
        self.bounce.as_ref().map(bounce::Scanner::found).unwrap_or_default()
    }
}

impl Session {
    /// The next hop has said 354 to the client's DATA.
    pub(super) fn begin_stream(&mut self) {
        let inbound = self.settings.direction == super::Direction::Inbound;
        let mark = self.mail.transaction.as_ref().and_then(|t| t.class.mark);
        let evidence = self.mail.transaction.as_ref().is_some_and(|t| t.evidence);
        let filter = if mark.is_some() { HeaderFilter::behind_a_mark() } else { HeaderFilter::default() };
        if let Some(mark) = mark {
            self.out.to_hop.extend_from_slice(mark.header().as_bytes());
            self.out.to_hop.extend_from_slice(b"\r\n");
        }
        let limits = self.settings.limits;
        let meter = Some(Meter::new(limits.header, limits.message));
        let head = evidence.then(HeadReader::default);
        // Marked for its envelope, it is looked at all the same: what would have been lost?
        let bounce = (inbound && mark.is_some()).then(bounce::Scanner::of_data);
        let stream = StreamedBody { filter: inbound.then_some(filter), meter, head, bounce, ..StreamedBody::default() };
        self.mail.phase = Phase::Stream(Box::new(stream));
    }

    /// Takes octets of a body; says how many.
    pub(super) fn take_body(&mut self, input: &[u8]) -> usize {
        match std::mem::replace(&mut self.mail.phase, Phase::Command) {
            Phase::Stream(stream) => self.take_stream(stream, input),
            Phase::Hold(hold) => self.take_hold(hold, input),
            Phase::Discard { mut scanner, reply } => match scanner.push(input, |_| {}) {
                Progress::More => {
                    self.mail.phase = Phase::Discard { scanner, reply };
                    input.len()
                }
                Progress::End(used) => {
                    self.refuse_message(&reply);
                    used
                }
                Progress::Smuggling => self.smuggling(input),
            },
            Phase::Chunk(chunk) => self.take_chunk(chunk, input),
            Phase::Swallow { left, reply, times } => self.take_swallow(left, reply, times, input),
            phase @ (Phase::Command | Phase::Auth | Phase::Release(_)) => {
                self.mail.phase = phase;
                0
            }
        }
    }

    fn take_stream(&mut self, mut stream: Box<StreamedBody>, input: &[u8]) -> usize {
        let progress = stream.push(input, &mut self.out.to_hop);
        if progress == Progress::Smuggling {
            return self.smuggling(input);
        }
        if let Some(fault) = stream.fault(self.settings.reject_stray) {
            self.note_limit(fault);
            self.drop_hop();
            return self.discard(stream.scanner, fault.reply(), progress, input);
        }
        let used = match progress {
            Progress::End(used) => used,
            Progress::More | Progress::Smuggling => input.len(),
        };
        if let Some(at) = stream.head_ends.take()
            && let Some(head) = stream.head.take()
        {
            stream.waiting = self.out.to_hop.split_off(at.min(self.out.to_hop.len()));
            stream.ended = matches!(progress, Progress::End(_));
            self.ask_evidence(&head);
            self.mail.phase = Phase::Stream(stream);
            return used;
        }
        if stream.head.as_ref().is_some_and(HeadReader::is_done) {
            stream.head = None;
        }
        match progress {
            Progress::More => {
                self.mail.phase = Phase::Stream(stream);
                used
            }
            Progress::Smuggling => used,
            Progress::End(_) if stream.check.is_some() => {
                self.ask_content(stream.check, stream.found(), true);
                // Whatever the answer, there is no more body: see `answer_content`.
                self.mail.phase = Phase::Stream(stream);
                used
            }
            Progress::End(_) => {
                if let (Some(scanner), Some(transaction)) = (&stream.bounce, &mut self.mail.transaction) {
                    transaction.found = Some(Box::new(scanner.found()));
                }
                self.end_of_data();
                used
            }
        }
    }

    fn take_hold(&mut self, mut hold: Box<Hold>, input: &[u8]) -> usize {
        let room = self.settings.hold.saturating_sub(hold.held.len()).max(1);
        let input = input.get(..room).unwrap_or(input);
        let progress = hold.stream.push(input, &mut hold.held);
        if progress == Progress::Smuggling {
            return self.smuggling(input);
        }
        if let Some(fault) = hold.stream.fault(self.settings.reject_stray) {
            self.note_limit(fault);
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
            return self.discard(hold.stream.scanner, fault.reply(), progress, input);
        }
        let used = match progress {
            Progress::End(used) => {
                hold.complete = true;
                used
            }
            Progress::More | Progress::Smuggling => input.len(),
        };
        if hold.complete || hold.held.len() >= self.settings.hold {
            self.ask_content(hold.stream.check, hold.stream.found(), hold.complete);
        }
        self.mail.phase = Phase::Hold(hold);
        used
    }

    pub(super) fn ask_content(&mut self, check: Option<ContentCheck>, found: Findings, complete: bool) {
        let recipient = self.mail.transaction.as_ref().and_then(|t| t.class.candidate.clone());
        let Some((recipient, check)) = recipient.zip(check) else { return };
        self.out.events.push_back(Event::Ask(Ask::Content { check, recipient, found: Box::new(found), complete }));
        self.mail.asking = Some(Pending::Content);
    }

    pub(super) fn ask_evidence(&mut self, head: &HeadReader) {
        let sender = self.mail.transaction.as_ref().map_or(ReversePath::Null, |t| t.sender.clone());
        let (message_id, from) = (head.message_id(), head.from());
        self.out.events.push_back(Event::Ask(Ask::Evidence { sender, message_id, from }));
        self.mail.asking = Some(Pending::Evidence);
    }

    /// The answer to [`Ask::Evidence`]: the header line, without its end. It goes last in the header block.
    pub fn answer_evidence(&mut self, header: Option<String>) {
        if self.take_asking(|a| matches!(a, Pending::Evidence)).is_none() {
            return;
        }
        match std::mem::replace(&mut self.mail.phase, Phase::Command) {
            Phase::Stream(mut stream) => {
                if let Some(header) = header {
                    self.out.to_hop.extend_from_slice(header.as_bytes());
                    self.out.to_hop.extend_from_slice(b"\r\n");
                }
                self.out.to_hop.extend_from_slice(&std::mem::take(&mut stream.waiting));
                if stream.ended {
                    self.end_of_data();
                } else {
                    self.mail.phase = Phase::Stream(stream);
                }
            }
            Phase::Chunk(chunk) => self.chunk_has_evidence(chunk, header),
            phase => self.mail.phase = phase,
        }
        self.resume();
        self.settle();
    }

    pub(super) fn note_limit(&mut self, fault: BodyError) {
        self.out.events.extend(fault.limit().map(Event::Limit));
    }

    /// The answer to a message that goes nowhere, and the end of its transaction.
    pub(super) fn refuse_message(&mut self, reply: &Reply) {
        let recipients = self.mail.transaction.as_ref().map_or(1, |transaction| transaction.accepted);
        if let Some(transaction) = self.mail.transaction.take() {
            self.finished(transaction, reply);
        }
        self.reply_to_message(reply, recipients);
    }

    /// The answer to [`Ask::Content`].
    pub fn answer_content(&mut self, content: &ContentVerdict) {
        if self.take_asking(|a| matches!(a, Pending::Content)).is_none() {
            return;
        }
        match (std::mem::replace(&mut self.mail.phase, Phase::Command), content) {
            (Phase::Hold(hold), ContentVerdict::Refuse(refusal)) => {
                self.drop_held(*hold, Reply::new(refusal.code, refusal.status, refusal.text));
            }
            (Phase::Hold(hold), ContentVerdict::Discard(_)) => self.drop_held(*hold, taken()),
            (Phase::Hold(hold), ContentVerdict::Later) => self.release(*hold, None),
            (Phase::Hold(mut hold), ContentVerdict::Deliver | ContentVerdict::Rescue(_)) => {
                hold.stream.check = None;
                self.release(*hold, None);
            }
            (Phase::Hold(mut hold), ContentVerdict::Mark(mark)) => {
                hold.stream.check = None;
                self.mark(mark);
                self.release(*hold, Some(mark.header()));
            }
            (Phase::Hold(hold), ContentVerdict::Quarantine(to, mark)) => {
                self.redirect(to, mark);
                self.mail.phase = Phase::Hold(hold);
            }
            (Phase::Stream(_), ContentVerdict::Refuse(refusal)) => {
                // The next hop has the message and not its end: without that it is nothing.
                self.drop_hop();
                self.refuse_message(&Reply::new(refusal.code, refusal.status, refusal.text));
            }
            (Phase::Stream(_), ContentVerdict::Discard(_)) => {
                self.drop_hop();
                self.refuse_message(&taken());
            }
            (Phase::Stream(_), ContentVerdict::Quarantine(..)) => {
                // Too late for another recipient; its own must not see it.
                self.drop_hop();
                self.refuse_message(&NO_QUARANTINE.reply());
            }
            // Too late for a header.
            (
                Phase::Stream(_),
                ContentVerdict::Deliver | ContentVerdict::Rescue(_) | ContentVerdict::Later | ContentVerdict::Mark(_),
            ) => {
                self.end_of_data();
            }
            (Phase::Chunk(chunk), content) => self.chunk_judged(chunk, content),
            (phase, _) => self.mail.phase = phase,
        }
        self.resume();
        self.settle();
    }

    /// The next hop's answer about somebody who is to get a message instead of its recipient.
    pub(super) fn aside_answered(&mut self, reply: &Reply) {
        let Some(Pending::Aside { mark, due, refused }) = &mut self.mail.asking else { return };
        *due = due.saturating_sub(1);
        *refused |= !reply.is_positive();
        if !reply.is_positive() {
            self.out.events.push_back(Event::Refused { command: "RCPT", reply: reply.first_line() });
        }
        if *due > 0 {
            return;
        }
        let (mark, refused) = (*mark, *refused);
        self.mail.asking = None;
        match std::mem::replace(&mut self.mail.phase, Phase::Command) {
            Phase::Hold(hold) if refused => self.drop_held(*hold, NO_QUARANTINE.reply()),
            Phase::Hold(mut hold) => {
                hold.stream.check = None;
                self.mark(&mark);
                self.release(*hold, Some(mark.header()));
            }
            Phase::Chunk(chunk) if refused => self.chunk_dropped(chunk, NO_QUARANTINE.reply()),
            Phase::Chunk(chunk) => self.chunk_goes_on(chunk, Some(mark)),
            phase => self.mail.phase = phase,
        }
    }

    pub(super) fn mark(&mut self, mark: &ResultHeader) {
        if let Some(transaction) = &mut self.mail.transaction {
            transaction.class.mark = Some(*mark);
        }
    }

    /// A held message goes nowhere; at its end the client hears this.
    fn drop_held(&mut self, hold: Hold, reply: Reply) {
        if hold.complete {
            self.refuse_message(&reply);
        } else {
            self.mail.phase = Phase::Discard { scanner: hold.stream.scanner, reply };
        }
        self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
    }

    /// Tells the next hop of a message that was held.
    fn release(&mut self, hold: Hold, header: Option<String>) {
        let text = with_header(header, &hold.held);
        let rest = (!hold.complete).then(|| Box::new(hold.stream));
        self.send(b"DATA", Item::Swallowed(ProxyCommand::LateData));
        self.mail.phase = Phase::Release(Box::new(Release { text, rest }));
    }

    /// The next hop's answer to the DATA of a held message.
    pub(super) fn late_data(&mut self, reply: Reply) {
        let Phase::Release(release) = std::mem::replace(&mut self.mail.phase, Phase::Command) else { return };
        if reply.code == 354 {
            self.out.to_hop.extend_from_slice(&release.text);
            match release.rest {
                Some(stream) => self.mail.phase = Phase::Stream(stream),
                None => self.end_of_data(),
            }
            return;
        }
        let reply = if reply.code < 400 { HOP_REFUSED_LATE.reply() } else { reply };
        match release.rest {
            Some(stream) => self.mail.phase = Phase::Discard { scanner: stream.scanner, reply },
            None => self.refuse_message(&reply),
        }
        self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
    }

    fn end_of_data(&mut self) {
        self.out.to_hop.extend_from_slice(b".\r\n");
        self.message_sent();
    }

    /// The next hop has all of a message, or will have it when what is to be written is.
    pub(super) fn message_sent(&mut self) {
        self.mail.phase = Phase::Command;
        let Some(mut transaction) = self.mail.transaction.take() else {
            // The next hop has refused its sender while it was under way, and refuses it again now.
            self.pipeline.queue.push(Item::Forwarded(ClientCommand::Other));
            return;
        };
        transaction.ends_at = self.out.hop_sent + self.out.to_hop.len() as u64;
        // RFC 2033 section 4.2: LMTP answers for each recipient that was taken.
        transaction.replies_due = if self.settings.lmtp { transaction.accepted.max(1) } else { 1 };
        for _ in 0..transaction.replies_due {
            self.pipeline.queue.push(Item::Forwarded(ClientCommand::EndOfData));
        }
        self.mail.ended.push_back(transaction);
    }

    /// The rest of this body goes nowhere.
    fn discard(&mut self, scanner: DataScanner, reply: Reply, progress: Progress, input: &[u8]) -> usize {
        match progress {
            Progress::End(used) => {
                self.refuse_message(&reply);
                used
            }
            Progress::More | Progress::Smuggling => {
                self.mail.phase = Phase::Discard { scanner, reply };
                input.len()
            }
        }
    }

    /// Nothing after this may be believed: neither the message nor what looks like commands behind it.
    pub(super) fn smuggling(&mut self, input: &[u8]) -> usize {
        self.mail.phase = Phase::Command;
        self.drop_hop_when_answered();
        // In its turn: an earlier message may not be answered yet.
        self.refuse_message(&SMUGGLING.reply());
        self.end_when_answered();
        input.len()
    }
}

/// A header in front of a message.
pub(super) fn with_header(header: Option<String>, message: &[u8]) -> Vec<u8> {
    let mut text = header.map_or_else(Vec::new, |header| format!("{header}\r\n").into_bytes());
    // A message that begins with white space has no header block; it must not become the rest of our header.
    let first = message.strip_prefix(b".").unwrap_or(message).first();
    if !text.is_empty() && first.is_some_and(|b| matches!(b, b' ' | b'\t')) {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(message);
    text
}
