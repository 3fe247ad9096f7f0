//! Replaces the message that a bounce returns by its headers: `message/rfc822` becomes `text/rfc822-headers` (RFC 6522
//! section 4). The recipient of the bounce learns which message it is about, and does not get its content.

use crate::envelope::bounce::{field, parameter, without_comments};

/// The longest beginning of a line by which is decided, in octets. A boundary line has at most 74 (RFC 2046 section 5.1.1).
const MAX_LINE: usize = 1000;
/// The longest header block of a part, and the longest Content-Type, in octets. What is longer is passed on unchanged.
const MAX_HEAD: usize = 8 << 10;

/// Passes a message on, line by line, without the content of the message that it returns. Only reports are changed
/// (`multipart/report`), and only parts of the report itself.
///
/// The lines may be dot-stuffed: neither boundaries nor the headers that count begin with a dot.
#[derive(Debug, Default)]
pub(crate) struct ContentStripper {
    position: Position,
    /// The boundary of the report's parts, without the two hyphens before it.
    boundary: Vec<u8>,
    /// The beginning of the current line, until it is decided.
    line: Vec<u8>,
    /// Whether the current line was decided by its beginning, and whether its rest is passed on.
    decided: Option<bool>,
    /// The Content-Type of the current header block, folded lines joined; `None`: there was none.
    content_type: Option<Vec<u8>>,
    in_content_type: bool,
    /// The header block of a part, until its end.
    head: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Position {
    /// In the header block of the message.
    #[default]
    Top,
    /// Before, between or in parts that are passed on.
    Parts,
    /// In the header block of a part.
    Head,
    /// In the headers of the returned message.
    Returned,
    /// In its content.
    Content,
    /// All that follows is passed on.
    Done,
}

impl ContentStripper {
    /// Reads a piece of the message, and appends what is passed on.
    pub(crate) fn push(&mut self, part: &[u8], out: &mut Vec<u8>) {
        let mut rest = part;
        while !rest.is_empty() {
            if self.position == Position::Done && self.line.is_empty() && self.decided.is_none() {
                return out.extend_from_slice(rest);
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (piece, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = tail;
            let is_end = piece.ends_with(b"\n");
            if let Some(passes) = self.decided {
                self.pass(passes, piece, out);
            } else {
                self.line.extend_from_slice(piece);
                if !is_end && self.line.len() <= MAX_LINE {
                    continue;
                }
                let line = std::mem::take(&mut self.line);
                let passes = self.line_passes(&line, out);
                self.pass(passes, &line, out);
                self.decided = Some(passes);
            }
            if is_end {
                self.decided = None;
            }
        }
    }

    /// Reads the end of the message.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            let passes = self.line_passes(&line, out);
            self.pass(passes, &line, out);
        }
        out.append(&mut self.head);
        self.position = Position::Done;
    }

    /// Passes a piece of a line on. The header block of a part is kept until its end.
    fn pass(&mut self, passes: bool, piece: &[u8], out: &mut Vec<u8>) {
        if !passes {
            return;
        }
        if self.position == Position::Head {
            self.head.extend_from_slice(piece);
            if self.head.len() > MAX_HEAD {
                out.append(&mut self.head);
                self.position = Position::Parts;
            }
        } else {
            out.extend_from_slice(piece);
        }
    }

    /// Decides about a line, by its beginning if it is long.
    fn line_passes(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let bare = line.trim_ascii_end();
        if let Some(is_last) = self.boundary_at(bare) {
            out.append(&mut self.head);
            // The line itself does not belong to the head that it begins.
            out.extend_from_slice(line);
            (self.content_type, self.in_content_type) = (None, false);
            self.position = if is_last { Position::Done } else { Position::Head };
            return false;
        }
        match self.position {
            Position::Top if bare.is_empty() => {
                let boundary = self.content_type.as_deref().and_then(boundary_of_report);
                self.position = if boundary.is_some() { Position::Parts } else { Position::Done };
                self.boundary = boundary.unwrap_or_default();
            }
            Position::Head if bare.is_empty() => {
                let kind = self.content_type.as_deref().and_then(headers_only);
                self.position = if kind.is_some() { Position::Returned } else { Position::Parts };
                let head = std::mem::take(&mut self.head);
                match kind {
                    Some(kind) => write_head(&head, kind, out),
                    None => out.extend_from_slice(&head),
                }
            }
            Position::Top | Position::Head => self.header_line(bare),
            Position::Returned if bare.is_empty() => self.position = Position::Content,
            // Not a header: the content begins without an empty line, or the whole message is encoded.
            Position::Returned if !is_header(bare) => {
                self.position = Position::Content;
                return false;
            }
            Position::Content => return false,
            Position::Returned | Position::Parts | Position::Done => {}
        }
        // The empty line after the returned headers is passed on.
        true
    }

    /// Whether a line is a boundary of the report, and the last one.
    fn boundary_at(&self, line: &[u8]) -> Option<bool> {
        if self.boundary.is_empty() || matches!(self.position, Position::Top | Position::Done) {
            return None;
        }
        let tail = line.strip_prefix(b"--")?.strip_prefix(self.boundary.as_slice())?;
        (tail.is_empty() || tail == b"--").then_some(!tail.is_empty())
    }

    fn header_line(&mut self, line: &[u8]) {
        if line.first().is_some_and(|octet| matches!(octet, b' ' | b'\t')) {
            if let (true, Some(value)) = (self.in_content_type, &mut self.content_type)
                && value.len() + line.len() < MAX_HEAD
            {
                value.push(b' ');
                value.extend_from_slice(line.trim_ascii());
            }
            return;
        }
        let value = content_type(line);
        // The first one counts.
        self.in_content_type = value.is_some() && self.content_type.is_none();
        if let (true, Some(value)) = (self.in_content_type, value) {
            self.content_type = Some(value.trim_ascii().to_vec());
        }
    }
}

/// The value of a Content-Type line.
fn content_type(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    name.trim_ascii_end().eq_ignore_ascii_case(b"content-type").then(|| value.get(1..).unwrap_or_default())
}

/// Whether a line can be part of the headers of a returned message, or the line before them in a mailbox file.
fn is_header(line: &[u8]) -> bool {
    let begins = |prefix: &[u8]| line.starts_with(prefix);
    begins(b" ") || begins(b"\t") || begins(b"From ") || begins(b">From ") || field(line).is_some()
}

fn media_type(value: &[u8]) -> Vec<u8> {
    let value = without_comments(value);
    value.split(|octet| *octet == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
}

/// The boundary in the Content-Type of a report.
fn boundary_of_report(value: &[u8]) -> Option<Vec<u8>> {
    let boundary = parameter(&without_comments(value), b"boundary")?;
    (media_type(value) == b"multipart/report" && !boundary.is_empty()).then_some(boundary)
}

/// The type for the headers of a message alone, if this is the type of a whole message.
fn headers_only(value: &[u8]) -> Option<&'static [u8]> {
    match media_type(value).as_slice() {
        b"message/rfc822" => Some(b"text/rfc822-headers"),
        b"message/global" => Some(b"message/global-headers"),
        _ => None,
    }
}

/// Writes the header block of a part with another Content-Type.
fn write_head(head: &[u8], kind: &[u8], out: &mut Vec<u8>) {
    let mut in_content_type = false;
    for line in head.split_inclusive(|octet| *octet == b'\n') {
        let is_folded = line.first().is_some_and(|octet| matches!(octet, b' ' | b'\t'));
        in_content_type = if is_folded { in_content_type } else { content_type(line).is_some() };
        if !in_content_type {
            out.extend_from_slice(line);
        } else if !is_folded {
            out.extend_from_slice(&[b"Content-Type: ", kind, b"\r\n"].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripped(text: &str, size: usize) -> String {
        let (mut stripper, mut out) = (ContentStripper::default(), Vec::new());
        text.as_bytes().chunks(size).for_each(|piece| stripper.push(piece, &mut out));
        stripper.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    const REPORT: &str = "From: MAILER-DAEMON\r\nContent-Type: multipart/report;\r\n\treport-type=delivery-status;\r\n \
        boundary=\"b1/x\"\r\nSubject: failed\r\n\r\nThis is MIME.\r\n\r\n--b1/x\r\nContent-Type: text/plain\r\n\r\n\
        sorry\r\n--b1/x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\n";
    const RETURNED: &str =
        "Received: from x\r\n\tby y\r\nContent-Type: multipart/mixed; boundary=c\r\nSubject: buy\r\n\r\n";
    const CONTENT: &str = "--c\r\nContent-Type: message/rfc822\r\n\r\nSubject: z\r\n\r\n..spam\r\n--c--\r\n\r\n";

    fn report(kind: &str, content: &str) -> String {
        format!(
            "{REPORT}--b1/x\r\nContent-Description: Undelivered\r\n{kind}\r\n{RETURNED}{content}--b1/x--\r\nafter\r\n"
        )
    }

    #[test]
    fn a_bounce_returns_headers_instead_of_a_message() {
        for (kind, headers) in [
            ("Content-Type: message/rfc822\r\n", "text/rfc822-headers"),
            ("content-type :\r\n Message/RFC822 (all of it);\r\n x=y\r\n", "text/rfc822-headers"),
            ("Content-Type: message/global\r\n", "message/global-headers"),
        ] {
            let before = report(kind, CONTENT);
            let after = report(&format!("Content-Type: {headers}\r\n"), "");
            for size in 1..before.len() {
                assert_eq!(stripped(&before, size), after, "{kind} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_not_a_header_is_content() {
        for content in ["buy this\r\nUrl: x\r\n", "U3ViamVjdDogYnV5\r\n", "..\r\nA: b\r\n\r\nspam\r\n"] {
            let before = report("Content-Type: message/rfc822\r\n", CONTENT)
                .replace(&format!("{RETURNED}{CONTENT}"), &format!("From x\r\nA: b\r\n c\r\n{content}"));
            let after =
                report("Content-Type: text/rfc822-headers\r\n", "").replace(RETURNED, "From x\r\nA: b\r\n c\r\n");
            for size in [1, 7, before.len()] {
                assert_eq!(stripped(&before, size), after, "{content}");
            }
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let long = "x".repeat(3000);
        for text in [
            report("Content-Type: text/rfc822-headers\r\n", ""),
            report("", CONTENT),
            report("Content-Type: text/plain\r\nContent-Type: message/rfc822\r\n", CONTENT),
            report(&format!("X-Long: {}\r\nContent-Type: message/rfc822\r\n", "y ".repeat(5000)), CONTENT),
            report("Content-Type: message/rfc822\r\n", CONTENT).replace("multipart/report", "multipart/mixed"),
            report("Content-Type: message/rfc822\r\n", CONTENT).replace("boundary=\"b1/x\"", "boundary=\"\""),
            format!("Subject: {long}\r\n\r\n{long}\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx\r\n"),
            "no header\r\n".into(),
            String::new(),
        ] {
            for size in [1, 7, 1000, 100_000] {
                assert_eq!(stripped(&text, size), text);
            }
        }
        // The report ends within the message that it returns.
        let cut = report("Content-Type: message/rfc822\r\n", &format!("{long}\r\n{CONTENT}"));
        let cut = cut.split("--b1/x--").next().unwrap();
        let want = report("Content-Type: text/rfc822-headers\r\n", "");
        assert_eq!(stripped(cut, 11), want.split("--b1/x--").next().unwrap());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "([A-Z]: b|--b|--b--|Content-Type: message/rfc822| x=y|\r\n|x|\n){0,40}", size in 1..50usize) {
            let text = format!("Content-Type: multipart/report; boundary=b\r\n\r\n{text}");
            prop_assert_eq!(stripped(&text, size), stripped(&text, text.len()));
        }
    }
}
