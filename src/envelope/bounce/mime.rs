//! The way through the parts of a message (RFC 2045, RFC 2046), line by line, in bounded memory.
//!
//! Real bounces break every rule there is. What is declared and not there, or there and not declared, is read as well
//! as it can be: a line that is no header ends no header block, a part that begins without a declared boundary is found
//! by its `Content-` lines.

use super::decode::Transfer;
use super::lines::Piece;

/// The most parts inside each other.
const MAX_DEPTH: usize = 50;
/// The longest value of a header that is kept, folded lines among it, in octets.
const MAX_VALUE: usize = 4096;
/// The longest boundary; RFC 2046 section 5.1.1 allows 70.
const MAX_BOUNDARY: usize = 150;

/// What a part is, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Media {
    /// Plain text, or nothing is said.
    #[default]
    Text,
    Html,
    Multipart,
    /// A whole message.
    Message,
    /// The header block of one.
    Headers,
    /// RFC 3464.
    Status,
    /// RFC 8098.
    Disposition,
    /// RFC 5965.
    Feedback,
    /// RFC 5545.
    Calendar,
    /// RFC 8460.
    TlsReport,
    Other,
}

/// One part: what its header block says.
#[derive(Debug, Clone, Default)]
pub(super) struct Entity {
    pub media: Media,
    /// How many messages stand around it: 0 for the parts of the message itself.
    pub nested: u8,
    /// Whether it is the message, not a part of it.
    pub top: bool,
    /// Nobody has declared the boundary around it: it may be part of an original that stands in the text.
    pub guessed: bool,
    has_type: bool,
    /// It is a multipart/report.
    pub is_report: bool,
    /// Of which type.
    pub report: Option<Vec<u8>>,
    pub charset: Option<Vec<u8>>,
    pub transfer: Transfer,
    pub file_name: Option<Vec<u8>>,
    boundary: Option<Vec<u8>>,
}

/// Who is told what stands on the way.
pub(super) trait EntitySink {
    /// A header of an entity.
    fn header(&mut self, entity: &Entity, name: &[u8], value: &[u8]);
    /// The header block of an entity is over.
    fn begin(&mut self, entity: &Entity);
    /// A line in the body of a leaf.
    fn body(&mut self, entity: &Entity, piece: Piece<'_>);
    /// Text before the first part, or behind the last.
    fn between(&mut self, piece: Piece<'_>);
    /// Any line that is not in the header block of the message itself, as it stands there.
    fn raw(&mut self, piece: Piece<'_>);
}

#[derive(Debug)]
struct Level {
    boundary: Vec<u8>,
    nested: u8,
    guessed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkState {
    Head,
    Body,
    Between,
}

#[derive(Debug)]
pub(super) struct Walker {
    state: WalkState,
    levels: Vec<Level>,
    entity: Entity,
    name: Vec<u8>,
    value: Vec<u8>,
    /// Nothing of the message has been read but blank lines.
    fresh: bool,
    /// A line that looks like a boundary nobody has declared.
    guess: Option<Vec<u8>>,
}

impl Default for Walker {
    fn default() -> Self {
        let entity = Entity { top: true, ..Entity::default() };
        let (name, value) = (Vec::new(), Vec::new());
        Self { state: WalkState::Head, levels: Vec::new(), entity, name, value, fresh: true, guess: None }
    }
}

impl Walker {
    pub(super) fn push(&mut self, piece: Piece<'_>, sink: &mut impl EntitySink) {
        if !(self.entity.top && self.state == WalkState::Head) {
            sink.raw(piece);
        }
        if piece.first
            && let Some((level, last)) = self.boundary_at(piece.text)
        {
            return self.at_boundary(level, last, sink);
        }
        match self.state {
            WalkState::Head => self.head_line(piece, sink),
            WalkState::Body => self.body_line(piece, sink),
            WalkState::Between => sink.between(piece),
        }
    }

    /// The message is over.
    pub(super) fn finish(&mut self, sink: &mut impl EntitySink) {
        if self.state == WalkState::Head {
            self.header_done(sink);
            self.head_done(sink);
        }
    }

    /// Which level a line is a boundary of, and whether it is its last. A part that declares the boundary of what is
    /// around it does not make it its own.
    fn boundary_at(&self, line: &[u8]) -> Option<(usize, bool)> {
        let rest = line.strip_prefix(b"--")?.trim_ascii_end();
        self.levels.iter().enumerate().find_map(|(at, level)| {
            let tail = rest.strip_prefix(level.boundary.as_slice())?;
            (tail.is_empty() || tail == b"--").then_some((at, !tail.is_empty()))
        })
    }

    fn at_boundary(&mut self, level: usize, last: bool, sink: &mut impl EntitySink) {
        if self.state == WalkState::Head {
            self.header_done(sink);
            self.head_done(sink);
        }
        self.levels.truncate(if last { level } else { level + 1 });
        if last {
            self.state = WalkState::Between;
        } else {
            self.begin_head(self.levels.last().map_or(0, |level| level.nested));
        }
    }

    fn begin_head(&mut self, nested: u8) {
        let guessed = self.levels.iter().any(|level| level.guessed);
        self.entity = Entity { nested, guessed, ..Entity::default() };
        self.state = WalkState::Head;
        self.guess = None;
    }

    fn head_line(&mut self, piece: Piece<'_>, sink: &mut impl EntitySink) {
        let line = piece.text;
        let folded = line.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        if !piece.first || (folded && !self.fresh) {
            // A folded line, or the rest of a long one.
            if !self.name.is_empty() && self.value.len() + line.len() < MAX_VALUE {
                if piece.first {
                    self.value.push(b' ');
                }
                self.value.extend_from_slice(line.trim_ascii());
            }
            return;
        }
        if line.trim_ascii().is_empty() {
            // Blank lines before the header block are somebody's mistake.
            if !(self.fresh && self.entity.top) {
                self.header_done(sink);
                self.head_done(sink);
            }
            return;
        }
        let began = std::mem::take(&mut self.fresh);
        self.header_done(sink);
        match field(line) {
            Some((name, value)) => {
                self.name = name.to_ascii_lowercase();
                self.value = value.get(..MAX_VALUE).unwrap_or(value).to_vec();
            }
            // What mailboxes and Unix mailers put first.
            None if began && (line.starts_with(b"From ") || line.starts_with(b">From ")) => {}
            // Some end the header block here, others look on for the headers behind it. A bounce must not hide there,
            // nor the words of a message that has no header block at all.
            None => sink.between(piece),
        }
    }

    fn header_done(&mut self, sink: &mut impl EntitySink) {
        if self.name.is_empty() {
            return;
        }
        let (name, value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
        match name.as_slice() {
            b"content-type" => self.content_type(&value),
            b"content-transfer-encoding" => self.entity.transfer = Transfer::named(&value),
            b"content-disposition" => {
                self.entity.file_name = parameter(&value, b"filename").or(self.entity.file_name.take());
            }
            _ => {}
        }
        sink.header(&self.entity, &name, &value);
    }

    fn content_type(&mut self, value: &[u8]) {
        let value = &without_comments(value);
        let kind = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let entity = &mut self.entity;
        // Of several, mail programs take one or the other: that with parts shows more.
        if entity.media == Media::Multipart || (entity.has_type && !kind.starts_with(b"multipart/")) {
            return;
        }
        entity.has_type = true;
        entity.media = match kind.as_slice() {
            b"text/html" => Media::Html,
            b"message/rfc822" | b"message/global" | b"message/news" => Media::Message,
            b"text/rfc822-headers" | b"message/rfc822-headers" | b"message/global-headers" | b"text/rfc822" => {
                Media::Headers
            }
            b"message/delivery-status" | b"message/global-delivery-status" => Media::Status,
            b"message/disposition-notification" | b"message/global-disposition-notification" => Media::Disposition,
            b"message/feedback-report" => Media::Feedback,
            b"text/calendar" => Media::Calendar,
            b"application/tlsrpt+gzip" | b"application/tlsrpt+json" => Media::TlsReport,
            b"multipart/report" => {
                entity.is_report = true;
                Media::Multipart
            }
            kind if kind.starts_with(b"multipart/") => Media::Multipart,
            kind if kind.starts_with(b"text") || kind.is_empty() => Media::Text,
            _ => Media::Other,
        };
        entity.charset = parameter(value, b"charset");
        entity.file_name = parameter(value, b"name").or(entity.file_name.take());
        entity.report = parameter(value, b"report-type").map(|kind| kind.to_ascii_lowercase());
        entity.boundary = parameter(value, b"boundary").map(|mut boundary| {
            boundary.truncate(boundary.trim_ascii_end().len());
            boundary
        });
    }

    /// A header block is over: what follows it?
    fn head_done(&mut self, sink: &mut impl EntitySink) {
        self.fresh = false;
        sink.begin(&self.entity);
        let nested = self.entity.nested;
        match (&self.entity.media, self.entity.boundary.take()) {
            (Media::Multipart, Some(boundary))
                if !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY && self.levels.len() < MAX_DEPTH =>
            {
                self.levels.push(Level { boundary, nested, guessed: false });
                self.state = WalkState::Between;
                self.entity.top = false;
            }
            // Encoded, it is read as any other leaf: RFC 6533 allows that for message/global.
            (Media::Message, _) if self.entity.transfer == Transfer::Identity && usize::from(nested) < MAX_DEPTH => {
                // A message that is nothing but a message is that message.
                let top = self.entity.top;
                self.begin_head(if top { nested } else { nested + 1 });
            }
            (Media::Multipart, _) => {
                self.entity.media = Media::Text;
                self.state = WalkState::Body;
            }
            _ => self.state = WalkState::Body,
        }
    }

    fn body_line(&mut self, piece: Piece<'_>, sink: &mut impl EntitySink) {
        if !piece.first || self.entity.media != Media::Text || self.levels.len() >= MAX_DEPTH {
            return sink.body(&self.entity, piece);
        }
        let begins_part = piece.text.get(..8).is_some_and(|begin| begin.eq_ignore_ascii_case(b"Content-"))
            && field(piece.text).is_some();
        if let (Some(boundary), true) = (self.guess.take(), begins_part) {
            let nested = self.entity.nested;
            self.levels.push(Level { boundary, nested, guessed: true });
            self.begin_head(nested);
            return self.head_line(piece, sink);
        }
        self.guess = piece.text.strip_prefix(b"--").map(|rest| rest.trim_ascii_end().to_vec()).filter(|boundary| {
            !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY && !boundary.iter().all(|&b| b == b'-')
        });
        sink.body(&self.entity, piece);
    }
}

/// The name and value of a header field (RFC 5322 section 2.2; white space before the colon is the old syntax).
pub(super) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let good = !name.is_empty() && name.iter().all(|&b| (33..127).contains(&b));
    good.then(|| (name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// A header value without its comments (RFC 5322 section 3.2.2).
pub(super) fn without_comments(value: &[u8]) -> Vec<u8> {
    if !value.contains(&b'(') {
        return value.to_vec();
    }
    let (mut out, mut depth, mut quoted, mut escaped) = (Vec::with_capacity(value.len()), 0u32, false, false);
    for &octet in value {
        let literal = escaped;
        escaped = octet == b'\\' && !literal;
        match octet {
            b'"' if depth == 0 && !literal => quoted = !quoted,
            b'(' if !quoted && !literal => depth += 1,
            b')' if depth > 0 && !literal => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            out.push(octet);
        }
    }
    // One that never ends was none.
    if depth > 0 { value.to_vec() } else { out }
}

/// A parameter of a header value, quoted or not. Comments are skipped where a `;` could stand.
pub(super) fn parameter(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value;
    loop {
        // To the next `;` outside quotes.
        let (mut quoted, mut escaped) = (false, false);
        let at = rest.iter().position(|&b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b';' if !quoted => return true,
                _ => {}
            }
            false
        })?;
        rest = rest.get(at + 1..)?.trim_ascii_start();
        let equals = rest.iter().position(|&b| b == b'=' || b == b';')?;
        let (key, tail) = rest.split_at_checked(equals)?;
        if tail.first() == Some(&b'=') && key.trim_ascii().eq_ignore_ascii_case(name) {
            return Some(unquote(tail.get(1..)?.trim_ascii_start()));
        }
    }
}

fn unquote(text: &[u8]) -> Vec<u8> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b';' | b'(')).unwrap_or(text.len());
        return text.get(..end).unwrap_or(text).to_vec();
    };
    let mut out = Vec::new();
    let mut octets = quoted.iter();
    while let Some(&b) = octets.next() {
        match b {
            b'"' => break,
            b'\\' => out.extend(octets.next()),
            b => out.push(b),
        }
    }
    out
}
