//! Is this message a bounce? Read from its text as it goes by, dot-stuffed as it is on the wire, in bounded memory.
//!
//! Counted as one: a well-formed `multipart/report; report-type=delivery-status` (RFC 6522, RFC 3464, RFC 6533) whose
//! status part says `Action: failed` or `delayed`. Everything else is not: a wrong "yes" loses mail.

use super::rules::Kind;

/// The longest line looked at, in octets; what is beyond is skipped.
const MAX_LINE: usize = 2048;
/// The longest header kept, folded lines included.
const MAX_HEADER: usize = 8192;

/// Reads one message, line by line.
#[derive(Debug, Default)]
pub struct Scanner {
    stage: Stage,
    line: Vec<u8>,
    content_type: Vec<u8>,
    in_content_type: bool,
    boundary: Vec<u8>,
    failed: bool,
    delayed: bool,
    /// No dot is stuffing.
    plain: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The header block of the message.
    #[default]
    Head,
    /// A part of no interest, or the text before the first.
    Skip,
    /// The header block of a part.
    PartHead,
    /// The status part.
    Status,
    /// Nothing more can change the answer.
    Done,
}

impl Scanner {
    /// For a message that comes in chunks (RFC 3030), where nothing is stuffed.
    #[must_use]
    pub fn of_chunks() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// The message is over, perhaps without a last line end.
    pub fn finish(&mut self) {
        if !self.line.is_empty() {
            self.push(b"\n");
        }
    }

    /// Takes a piece of the message; line ends are LF or CR LF.
    pub fn push(&mut self, mut input: &[u8]) {
        while self.stage != Stage::Done && !input.is_empty() {
            let end = memchr::memchr(b'\n', input);
            let (part, rest) = input.split_at_checked(end.map_or(input.len(), |e| e + 1)).unwrap_or((input, &[]));
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            input = rest;
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                // The dot that begins a line is one that the next hop takes away (RFC 5321 section 4.5.2).
                let text = if self.plain { &line } else { line.strip_prefix(b".").unwrap_or(&line) };
                self.take_line(text.trim_ascii_end());
                self.line = line;
                self.line.clear();
            }
        }
    }

    /// What is known by now. It can only become more of a bounce.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.failed, self.delayed) {
            (true, _) => Kind::DsnFailed,
            (false, true) => Kind::DsnDelayed,
            (false, false) => Kind::Other,
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        match self.stage {
            Stage::Head if line.is_empty() => {
                self.stage = match Report::of(&self.content_type) {
                    Some(report) => {
                        self.boundary = report.boundary;
                        Stage::Skip
                    }
                    None => Stage::Done,
                }
            }
            Stage::Head => self.take_header(line),
            Stage::Skip | Stage::PartHead | Stage::Status if self.is_boundary(line) => {
                let last = line.len() > self.boundary.len() + 2;
                self.content_type.clear();
                self.in_content_type = false;
                self.stage = if last { Stage::Done } else { Stage::PartHead };
            }
            Stage::PartHead if line.is_empty() => {
                let kind = media_type(&self.content_type);
                let status = kind == b"message/delivery-status" || kind == b"message/global-delivery-status";
                self.stage = if status { Stage::Status } else { Stage::Skip };
            }
            Stage::PartHead => self.take_header(line),
            Stage::Status => self.take_status(line),
            Stage::Skip | Stage::Done => {}
        }
    }

    fn take_header(&mut self, line: &[u8]) {
        if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            if self.in_content_type && self.content_type.len() + line.len() < MAX_HEADER {
                self.content_type.extend_from_slice(line);
            }
            return;
        }
        let value = field(line, b"content-type");
        self.in_content_type = value.is_some() && self.content_type.is_empty();
        if let (true, Some(value)) = (self.in_content_type, value) {
            self.content_type.extend_from_slice(value);
        }
    }

    fn take_status(&mut self, line: &[u8]) {
        if let Some(value) = field(line, b"action") {
            let word = value.split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
            self.failed |= word.eq_ignore_ascii_case(b"failed");
            self.delayed |= word.eq_ignore_ascii_case(b"delayed");
        }
    }

    /// `--boundary`, or `--boundary--` at the end (RFC 2046 section 5.1.1).
    fn is_boundary(&self, line: &[u8]) -> bool {
        let rest = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(self.boundary.as_slice()));
        rest.is_some_and(|rest| rest.is_empty() || rest == b"--")
    }
}

/// The value of a header field of that name.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = line.split_at_checked(name.len())?;
    let value = rest.trim_ascii_start().strip_prefix(b":")?;
    head.eq_ignore_ascii_case(name).then_some(value.trim_ascii())
}

/// `type/subtype` in lower case.
fn media_type(value: &[u8]) -> Vec<u8> {
    value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
}

struct Report {
    boundary: Vec<u8>,
}

impl Report {
    fn of(content_type: &[u8]) -> Option<Self> {
        if media_type(content_type) != b"multipart/report" {
            return None;
        }
        let is_dsn = parameter(content_type, b"report-type")?.eq_ignore_ascii_case(b"delivery-status");
        let boundary = parameter(content_type, b"boundary")?;
        (is_dsn && !boundary.is_empty()).then_some(Self { boundary })
    }
}

/// A parameter of a Content-Type value, quoted or not. Comments are skipped where a `;` could stand.
fn parameter(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value;
    loop {
        // To the next `;` outside quotes.
        let mut quoted = false;
        let mut escaped = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(content_type: &str, action: &str) -> String {
        format!(
            "From: MAILER-DAEMON@mx.example\r\nContent-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n\
             preamble\r\n--b=1\r\nContent-Type: text/plain\r\n\r\nAction: failed, says the text\r\n--b=1\r\n\
             Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
             Final-Recipient: rfc822; x@else.example\r\nAction: {action}\r\nStatus: 5.1.1\r\n\r\n--b=1\r\n\
             Content-Type: message/rfc822\r\n\r\nSubject: hi\r\n\r\nAction: failed\r\n--b=1--\r\n"
        )
    }

    fn kind(text: &str) -> Kind {
        let mut whole = Scanner::default();
        whole.push(text.as_bytes());
        for size in [1, 7, 64] {
            let mut scanner = Scanner::default();
            text.as_bytes().chunks(size).for_each(|piece| scanner.push(piece));
            assert_eq!(scanner.kind(), whole.kind());
        }
        whole.kind()
    }

    const DSN: &str = "multipart/report; report-type=delivery-status;\r\n\tboundary=\"b=1\"";

    #[test]
    fn reports_of_failure_and_delay_are_bounces() {
        assert_eq!(kind(&report(DSN, "failed")), Kind::DsnFailed);
        assert_eq!(kind(&report(DSN, "Delayed (still trying)")), Kind::DsnDelayed);
        assert_eq!(kind(&report(DSN, "failed").replace("\r\n", "\n")), Kind::DsnFailed);
        let odd = "Multipart/Report;Boundary=\"b=1\" ; charset=\"a;b\"; REPORT-TYPE=\"Delivery-Status\"";
        assert_eq!(kind(&report(odd, "FAILED")), Kind::DsnFailed);
    }

    #[test]
    fn a_stuffed_dot_hides_nothing() {
        let stuffed: String = report(DSN, "failed").lines().map(|line| format!(".{line}\r\n")).collect();
        assert_eq!(kind(&stuffed), Kind::DsnFailed);
    }

    #[test]
    fn everything_else_is_not() {
        for action in ["delivered", "relayed", "expanded", ""] {
            assert_eq!(kind(&report(DSN, action)), Kind::Other, "{action}");
        }
        for other in [
            "multipart/report; report-type=disposition-notification; boundary=\"b=1\"",
            "multipart/report; report-type=delivery-status",
            "multipart/report; boundary=\"b=1\"",
            "multipart/mixed; report-type=delivery-status; boundary=\"b=1\"",
            "text/plain",
            "",
        ] {
            assert_eq!(kind(&report(other, "failed")), Kind::Other, "{other}");
        }
        assert_eq!(kind("Subject: no body"), Kind::Other);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_in_bounded_memory(text in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut scanner = Scanner::default();
            scanner.push(&report(DSN, "failed").as_bytes()[..120]);
            scanner.push(&text);
            prop_assert!(scanner.line.len() <= MAX_LINE && scanner.content_type.len() <= MAX_HEADER);
        }
    }
}
