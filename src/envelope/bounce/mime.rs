//! Walks through the parts of a message (RFC 2045, RFC 2046), line by line and in bounded memory.
//!
//! Real bounces break all of the rules. Parts that are declared and missing, or present and not declared, are read as
//! far as possible: a line that is not a header does not end a header block, and a part without a declared boundary is
//! recognised by its `Content-` lines.

use super::decode::Transfer;
use super::lines::Piece;

/// Maximum depth of nested parts.
const MAX_DEPTH: usize = 50;
/// Maximum length of a header value, folded lines included, in octets.
pub(super) const MAX_VALUE: usize = 4096;
/// Maximum length of a boundary, in octets; RFC 2046 section 5.1.1 allows 70.
const MAX_BOUNDARY: usize = 150;

/// Media type of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Media {
    /// Plain text, or no type at all.
    #[default]
    Text,
    Html,
    Multipart,
    /// A whole message.
    Message,
    /// The header block of a message.
    Headers,
    /// A delivery status (RFC 3464).
    Status,
    /// A message disposition notification (RFC 8098).
    Disposition,
    /// A feedback report (RFC 5965).
    Feedback,
    /// A calendar object (RFC 5545).
    Calendar,
    /// A TLS report (RFC 8460).
    TlsReport,
    Other,
}

/// One part, as described by its header block.
#[derive(Debug, Clone, Default)]
pub(super) struct Entity {
    pub media: Media,
    /// Number of messages around this part: 0 for parts of the message itself.
    pub nested: u8,
    /// Whether this is the message itself, not a part of it.
    pub top: bool,
    /// Whether a boundary around this part was not declared. The part may belong to an original within the text.
    pub guessed: bool,
    has_type: bool,
    /// Whether this is a multipart/report.
    pub is_report: bool,
    /// The `report-type`, in lower case.
    pub report: Option<Vec<u8>>,
    pub charset: Option<Vec<u8>>,
    pub transfer: Transfer,
    pub file_name: Option<Vec<u8>>,
    boundary: Option<Vec<u8>>,
}

/// Receives the contents of a message in the order in which they occur.
pub(super) trait EntitySink {
    /// A header of an entity.
    fn header(&mut self, entity: &Entity, name: &[u8], value: &[u8]);
    /// The end of an entity's header block.
    fn begin(&mut self, entity: &Entity);
    /// A line in the body of an entity that has no parts.
    fn body(&mut self, entity: &Entity, piece: Piece<'_>);
    /// A line before the first part or after the last.
    fn between(&mut self, piece: Piece<'_>);
    /// Any line outside the header block of the message itself, not decoded.
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
    /// Whether only blank lines have been read so far.
    fresh: bool,
    /// A line that looks like the beginning of a part whose boundary was not declared.
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

    /// Reads the end of the message.
    pub(super) fn finish(&mut self, sink: &mut impl EntitySink) {
        if self.state == WalkState::Head {
            self.header_done(sink);
            self.head_done(sink);
        }
    }

    /// The level that a line is a boundary of, and whether it is the closing boundary. The outermost level wins, so
    /// that a part cannot take over the boundary of the parts around it.
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
            // Blank lines before the header block are ignored.
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
            // The first line of a message in an mbox file.
            None if began && (line.starts_with(b"From ") || line.starts_with(b">From ")) => {}
            // Some programs end the header block here, others continue to read headers. The line is read as text and
            // the header block continues, so that neither headers nor words of a bounce can be hidden here.
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
        // Mail programs do not agree which of several Content-Type headers counts. A multipart is preferred, because it
        // shows more.
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

    /// Handles the end of a header block.
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
            // An encoded message is read like any other leaf: RFC 6533 allows encoding for message/global.
            (Media::Message, _) if self.entity.transfer == Transfer::Identity && usize::from(nested) < MAX_DEPTH => {
                // A message whose whole body is a message is treated as that message.
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

/// The name and value of a header field (RFC 5322 section 2.2). White space before the colon is the obsolete syntax.
pub(crate) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let good = !name.is_empty() && name.iter().all(|&b| (33..127).contains(&b));
    good.then(|| (name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// A header value without its comments (RFC 5322 section 3.2.2).
pub(crate) fn without_comments(value: &[u8]) -> Vec<u8> {
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
    // A comment without an end is not a comment.
    if depth > 0 { value.to_vec() } else { out }
}

/// A parameter of a header value (RFC 2045 section 5.1), without quotes. Comments between parameters are skipped.
pub(crate) fn parameter(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value;
    loop {
        // Up to the next `;` outside quotes.
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
