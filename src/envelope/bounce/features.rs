//! The features of a message that [`classify`](super::classify) weighs, all of bounded size.

use super::decode::{Transfer, fold, shown_lines, text, without_tags, words};
use super::dsn::DsnStatus;
use super::findings::InboundMark;
use super::lines::{Lines, Piece};
use super::mime::{Entity, EntitySink, Media};
use super::original::{Finder, Returned, shown_line};
use super::text_excerpt::TextExcerpt;
use super::trace::TraceReader;

/// Maximum length of the text that is searched for phrases, in octets. Servers put their notice at the beginning.
const MAX_TEXT: usize = 8 << 10;
/// Maximum number of text parts.
const MAX_PARTS: usize = 4;
/// Maximum number of recipient headers that are kept.
const MAX_ADDRESSES: usize = 8;
/// The fields that say what a message is.
const SHOWN: [&str; 6] =
    ["Content-Type", "From", "Subject", "Auto-Submitted", "X-Failed-Recipients", "X-MS-Journal-Report"];
/// The reason in our own mark of a bounce to a reversed SRS address.
const FORWARDED_BOUNCE: &str = "reason=srs-bounce";

/// Fields of the message's header block.
#[derive(Debug, Default)]
pub(super) struct HeaderFields {
    pub from: Option<String>,
    pub subject: Option<String>,
    /// Values of recipient headers, folded.
    pub to: Vec<String>,
    /// Whether the `Return-Path` is the null sender; `None` if it is missing.
    pub null_return_path: Option<bool>,
    /// The value of Auto-Submitted (RFC 3834), in lower case.
    pub auto_submitted: Option<String>,
    pub precedence: Option<String>,
    /// Whether a header names a failed recipient, as Exim and Google write it.
    pub names_failed: bool,
    /// Whether there is a de facto header of automatic replies.
    pub answers_itself: bool,
    /// Whether the message came through a mailing list.
    pub list: bool,
    /// Whether the message was written with a mail client.
    pub client: bool,
    pub calendar: bool,
    /// Whether it is a journal report of Exchange.
    pub journal: bool,
    /// Our own mark.
    pub inbound_mark: Option<InboundMark>,
    /// The fields that say what the message is, as they are shown to people.
    pub shown: Vec<String>,
}

impl HeaderFields {
    /// Keeps a field for people: the first of its name, shortened.
    fn show(&mut self, name: &str, value: &str) {
        let is_new = !self.shown.iter().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
        if is_new {
            self.shown.push(shown_line(name, value));
        }
    }
}

#[derive(Debug)]
pub(super) struct Seen {
    pub heads: HeaderFields,
    /// The `report-type` of the message, or of the first part that has one; `delivery-status` takes precedence.
    pub report: Option<Vec<u8>>,
    /// Fields of RFC 3464 in the message itself.
    pub status: DsnStatus,
    /// Fields of RFC 3464 in messages inside it.
    pub inner_status: DsnStatus,
    /// Whether it is declared as `multipart/report`, of any type.
    pub is_report: bool,
    pub has_status: bool,
    pub has_disposition: bool,
    pub has_feedback: bool,
    pub has_calendar: bool,
    pub has_tls_report: bool,
    pub has_dmarc_report: bool,
    /// Whether an original is attached as a part of its own.
    pub attached: bool,
    pub returned: Returned,
    pub trace: TraceReader,
    texts: Vec<TextExcerpt>,
    between: Vec<u8>,
    raw: Finder,
    /// Whether the current part is HTML. An original in it is read without markup.
    in_html: bool,
    decoded: Finder,
    /// Lines of a part with a transfer encoding.
    lines: Lines,
    transfer: Transfer,
    /// Buffer for one decoded piece.
    scratch: Vec<u8>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            heads: HeaderFields::default(),
            report: None,
            status: DsnStatus::default(),
            inner_status: DsnStatus::default(),
            is_report: false,
            has_status: false,
            has_disposition: false,
            has_feedback: false,
            has_calendar: false,
            has_tls_report: false,
            has_dmarc_report: false,
            attached: false,
            returned: Returned::default(),
            trace: TraceReader::default(),
            texts: Vec::new(),
            between: Vec::new(),
            raw: Finder::default(),
            in_html: false,
            decoded: Finder::default(),
            lines: Lines::default(),
            transfer: Transfer::Identity,
            scratch: Vec::new(),
        }
    }
}

impl Seen {
    /// The text of the message, folded, by lines.
    pub(super) fn text(&self) -> Vec<String> {
        let mut all = Vec::new();
        for part in &self.texts {
            all.extend(lines_of(part, &part.begin));
        }
        // A multipart without parts has all of its text in the preamble.
        if all.iter().all(|line| line.trim().is_empty()) {
            all.extend(text(&self.between, None).lines().map(fold));
        }
        all
    }

    /// The last lines of the first part, if it is too long to be kept as a whole.
    pub(super) fn last_lines(&self) -> Vec<String> {
        // The first line may be incomplete.
        self.texts.first().map_or_else(Vec::new, |part| lines_of(part, part.end()).into_iter().skip(1).collect())
    }

    pub(super) fn finish(&mut self) {
        let Self { lines, decoded, returned, raw, status, inner_status, trace, .. } = self;
        lines.finish(|piece| decoded.line(piece, returned));
        decoded.finish(returned);
        raw.finish(returned);
        trace.end();
        status.recipient_done();
        inner_status.recipient_done();
    }

    fn top_header(&mut self, name: &[u8], value: &[u8]) {
        let heads = &mut self.heads;
        let lower = || fold(&words(value));
        if let Some(name) = SHOWN.into_iter().find(|shown| shown.as_bytes().eq_ignore_ascii_case(name)) {
            heads.show(name, &words(value));
        }
        match name {
            b"from" => {
                heads.from.get_or_insert_with(|| words(value));
            }
            b"subject" => {
                heads.subject.get_or_insert_with(lower);
            }
            b"to" | b"delivered-to" | b"x-original-to" | b"envelope-to" | b"x-envelope-to"
                if heads.to.len() < MAX_ADDRESSES =>
            {
                heads.to.push(lower());
            }
            b"return-path" => {
                let path = value.trim_ascii();
                heads.null_return_path.get_or_insert(path == b"<>" || path.is_empty());
            }
            b"auto-submitted" => heads.auto_submitted = Some(lower()),
            b"precedence" => heads.precedence = Some(lower()),
            b"x-failed-recipients" | b"x-actual-recipients" => heads.names_failed |= !value.trim_ascii().is_empty(),
            b"x-autoreply" | b"x-auto-reply" | b"x-autorespond" | b"x-autoresponder" | b"x-autoreply-from"
            | b"x-mail-autoreply" | b"x-autogenerated" | b"x-vacation" | b"x-autoresponse" | b"x-away" => {
                heads.answers_itself = true;
            }
            b"list-id" | b"list-unsubscribe" | b"list-post" | b"x-mailing-list" | b"x-loop" => heads.list = true,
            b"user-agent" | b"x-newsreader" | b"x-originating-ip" => heads.client = true,
            b"x-ms-journal-report" => heads.journal = true,
            b"countersign-result" => {
                let forwarded = lower().contains(FORWARDED_BOUNCE);
                heads.inbound_mark = Some(if forwarded { InboundMark::Forwarded } else { InboundMark::Accepted });
            }
            b"content-class" => heads.calendar |= lower().contains("calendarmessage"),
            _ => {}
        }
    }
}

impl EntitySink for Seen {
    fn header(&mut self, entity: &Entity, name: &[u8], value: &[u8]) {
        if entity.top {
            self.top_header(name, value);
        } else if entity.nested == 1 && !entity.guessed {
            self.trace.header(name, value);
        }
    }

    fn begin(&mut self, entity: &Entity) {
        // The rest of an encoded part must not run into the next part.
        let Self { lines, decoded, returned, .. } = self;
        lines.finish(|piece| decoded.line(piece, returned));
        decoded.finish(returned);
        (self.lines, self.transfer) = (Lines::default(), entity.transfer.clone());
        self.in_html = entity.media == Media::Html;
        if entity.nested > 0 || self.trace.has_begun() {
            self.trace.end();
        }
        if let Some(report) = entity.report.as_ref().filter(|_| entity.nested == 0 && !entity.guessed) {
            // A delivery status takes precedence over other report types.
            if self.report.is_none() || report.ends_with(b"delivery-status") {
                self.report = Some(report.clone());
            }
        }
        let own = entity.nested == 0 && !entity.guessed;
        self.is_report |= entity.is_report && own;
        if let Some(name) = entity.file_name.as_ref().filter(|_| entity.nested == 0 && !entity.guessed) {
            self.has_dmarc_report |= is_dmarc_report(name);
        }
        match entity.media {
            Media::Message | Media::Headers if entity.nested == 0 && !entity.top => self.attached = true,
            Media::Text | Media::Html if entity.nested == 0 && self.texts.len() < MAX_PARTS => {
                let html = entity.media == Media::Html;
                self.texts.push(TextExcerpt::new(entity.charset.clone(), html, self.texts.is_empty()));
            }
            Media::Status => self.has_status |= entity.nested == 0,
            Media::Disposition => self.has_disposition |= own,
            Media::Feedback => self.has_feedback |= own,
            Media::Calendar => self.has_calendar |= own,
            Media::TlsReport => self.has_tls_report |= own,
            _ => {}
        }
    }

    fn body(&mut self, entity: &Entity, piece: Piece<'_>) {
        if entity.media == Media::Status && entity.transfer == Transfer::Identity {
            if entity.nested == 0 { &mut self.status } else { &mut self.inner_status }.line(piece);
            return;
        }
        if entity.media == Media::Headers && entity.nested == 0 && !entity.guessed {
            self.trace.line(piece);
        }
        let is_text = matches!(entity.media, Media::Text | Media::Html) && entity.nested == 0;
        let is_plain = entity.transfer == Transfer::Identity && entity.media != Media::Html;
        if is_plain && !is_text {
            return;
        }
        let used: usize = self.texts.iter().map(|text| text.begin.len()).sum();
        let room = MAX_TEXT.saturating_sub(used);
        let text = self.texts.last_mut().filter(|text| is_text && (room > 0 || text.wants_more()));
        // Plain text that is not kept needs no decoding.
        if is_plain && text.is_none() {
            return;
        }
        self.scratch.clear();
        self.transfer.decode(piece.text, piece.last, &mut self.scratch);
        if let Some(text) = text {
            text.push(&self.scratch, room);
        }
        if is_plain {
            return;
        }
        let Self { scratch, lines, decoded: finder, returned, status, .. } = self;
        lines.push(scratch, |piece| {
            if entity.media == Media::Html {
                let shown = shown_lines(&String::from_utf8_lossy(piece.text));
                for (nth, line) in shown.split('\n').enumerate() {
                    let first = piece.first || nth > 0;
                    finder.line(Piece { text: line.as_bytes(), first, last: piece.last }, returned);
                }
                return;
            }
            if entity.media == Media::Status && entity.nested == 0 {
                status.line(piece);
            }
            finder.line(piece, returned);
        });
    }

    fn between(&mut self, piece: Piece<'_>) {
        let room = (MAX_TEXT / 2).saturating_sub(self.between.len() + 1);
        self.between.extend_from_slice(piece.text.get(..room).unwrap_or(piece.text));
        self.between.extend((piece.last && room > 0).then_some(b'\n'));
    }

    fn raw(&mut self, piece: Piece<'_>) {
        if !self.in_html {
            self.raw.line(piece, &mut self.returned);
        }
    }
}

/// The text of a part, folded, by lines.
fn lines_of(part: &TextExcerpt, octets: &[u8]) -> Vec<String> {
    let text = text(octets, part.charset.as_deref());
    let text = if part.html { without_tags(&text).into() } else { text };
    text.lines().map(fold).collect()
}

/// Whether a file name is that of a DMARC report: `receiver!domain!begin!end`, with or without an id, as XML or
/// compressed (RFC 7489 section 7.2.1.1).
fn is_dmarc_report(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let ends: [&[u8]; 5] = [b".xml", b".xml.gz", b".zip", b".gz", b".xml.zip"];
    let fields: Vec<&[u8]> = name.split(|&b| b == b'!').collect();
    let times = fields.iter().skip(2).take(2).all(|field| field.first().is_some_and(u8::is_ascii_digit));
    fields.len() >= 4 && times && ends.iter().any(|end| name.ends_with(end))
}
