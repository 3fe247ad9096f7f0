//! One line of a log: who has written it, when, and what it says.

use super::countersign::{self, Fields};
use super::event::{Event, Software};
use super::fields::{after, cut, cut_at, until};
use super::stamp::{Stamps, Wall};
use super::{exim, opensmtpd, postfix, sendmail};

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It is of a mail server or of Countersign.
    Of(Software, Wall),
    /// It is of another program.
    Foreign(Wall),
    /// It has no time or no program, as far as can be seen.
    NotUnderstood,
}

/// What is passed on of a line with an event.
pub(crate) struct Told<'a> {
    pub at: Wall,
    pub software: Software,
    /// The host, which tells queues apart whose messages may have the same name.
    pub host: &'a [u8],
    /// How many times it has happened: syslog writes the same line once.
    pub times: u64,
    pub event: Event<'a>,
}

/// Reads the lines of one log.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    stamps: Stamps,
}

impl Lines {
    pub(crate) fn new(stamps: Stamps) -> Self {
        Self { stamps }
    }

    /// Reads a line without its end. If something has happened, `tell` is told.
    pub(crate) fn read<'a>(&mut self, line: &'a [u8], tell: &mut dyn FnMut(Told<'a>)) -> Read {
        if line.starts_with(b"{") {
            return self.json(line, tell).unwrap_or(Read::NotUnderstood);
        }
        let line = without_priority(line);
        let Some((at, rest)) = self.stamps.split(line) else { return Read::NotUnderstood };
        // Behind the time there is a host; in Exim's own log, a message or a client; in ours, a level.
        let bare = rest.strip_prefix(b"[").and_then(|rest| cut_at(rest, b"] ")).map_or(rest, |(_, rest)| rest);
        let has_id = || bare.get(6) == Some(&b'-') && exim::is_message_id(until(bare, b' '));
        if has_id() || bare.starts_with(b"H=") {
            return self.tell(at, Software::Exim, b"", exim::parse(rest), 1, tell);
        }
        if countersign::is_text(rest) {
            return self.ours(at, rest, tell);
        }
        let Some((host, rest)) = cut(rest, b' ') else { return Read::NotUnderstood };
        self.message(at, host, rest, tell)
    }

    /// Reads what stands in the journal of systemd. `seconds`: since 1970, in UTC.
    pub(crate) fn journal<'a>(
        &mut self,
        seconds: i64,
        host: &'a [u8],
        identifier: &[u8],
        text: &'a [u8],
        tell: &mut dyn FnMut(Told<'a>),
    ) -> Read {
        let at = self.stamps.wall_of(seconds);
        if text.starts_with(b"{") && identifier == b"countersign" {
            return self.json(text, tell).unwrap_or(Read::NotUnderstood);
        }
        self.program(at, host, identifier, text, tell)
    }

    /// `program[pid]: text`, or a message in the form of RFC 5424 (`program pid id structure text`).
    fn message<'a>(&mut self, at: Wall, host: &'a [u8], rest: &'a [u8], tell: &mut dyn FnMut(Told<'a>)) -> Read {
        let word = until(rest, b' ');
        if let Some(tag) = word.strip_suffix(b":") {
            let text = rest.get(word.len() + 1..).unwrap_or(b"");
            return self.program(at, host, until(tag, b'['), text, tell);
        }
        let Some((tag, rest)) = cut(rest, b' ') else { return Read::NotUnderstood };
        let mut parts = rest.splitn(4, |octet| *octet == b' ');
        let (_pid, _id, data) = (parts.next(), parts.next(), parts.next());
        let text = match data {
            Some(b"-") => parts.next(),
            Some(data) if data.starts_with(b"[") => after(rest, b"] "),
            _ => None,
        };
        let text = text.map(|text| text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
        match text {
            Some(text) => self.program(at, host, until(tag, b'['), text, tell),
            None if tag == b"last" || tag == b"---" => Read::Foreign(at),
            None => Read::NotUnderstood,
        }
    }

    fn program<'a>(
        &mut self,
        at: Wall,
        host: &'a [u8],
        tag: &[u8],
        text: &'a [u8],
        tell: &mut dyn FnMut(Told<'a>),
    ) -> Read {
        // Solaris writes `[ID 197553 mail.info] ` in front.
        let text = text.strip_prefix(b"[ID ").and_then(|rest| after(rest, b"] ")).unwrap_or(text);
        let (text, times) = if text.starts_with(b"m") { repeated(text) } else { (text, 1) };
        if let Some(slash) = tag.iter().rposition(|octet| *octet == b'/') {
            let (instance, name) = (tag.get(..slash).unwrap_or(b""), tag.get(slash + 1..).unwrap_or(b""));
            if !instance.starts_with(b"postfix") {
                return Read::Foreign(at);
            }
            return self.tell(at, Software::Postfix, host, postfix::parse(name, text), times, tell);
        }
        let (software, event) = match tag {
            b"exim" | b"exim4" => {
                // Exim may write its own time behind that of syslog.
                let text = self.stamps.split(text).map_or(text, |(_, rest)| rest);
                (Software::Exim, exim::parse(text))
            }
            b"sm-mta" | b"sendmail" | b"sm-msp-queue" | b"sm-acceptingconnections" => {
                (Software::Sendmail, sendmail::parse(text))
            }
            b"smtpd" => (Software::Opensmtpd, opensmtpd::parse(text)),
            b"countersign" => return self.ours(at, text, tell),
            _ => return Read::Foreign(at),
        };
        self.tell(at, software, host, event, times, tell)
    }

    fn ours<'a>(&mut self, at: Wall, text: &'a [u8], tell: &mut dyn FnMut(Told<'a>)) -> Read {
        let event = Fields::of_text(text).and_then(Fields::into_event);
        self.tell(at, Software::Countersign, b"", event, 1, tell)
    }

    fn json<'a>(&mut self, line: &'a [u8], tell: &mut dyn FnMut(Told<'a>)) -> Option<Read> {
        let fields = Fields::of_json(line)?;
        let stamp = [fields.timestamp.as_deref()?.as_bytes(), b" "].concat();
        let (at, _) = self.stamps.split(&stamp)?;
        Some(self.tell(at, Software::Countersign, b"", fields.into_event(), 1, tell))
    }

    fn tell<'a>(
        &self,
        at: Wall,
        software: Software,
        host: &'a [u8],
        event: Option<Event<'a>>,
        times: u64,
        tell: &mut dyn FnMut(Told<'a>),
    ) -> Read {
        if let Some(event) = event {
            tell(Told { at, software, host, times, event });
        }
        Read::Of(software, at)
    }
}

/// `<22>` in front of a line that a syslog server has kept as it came; RFC 5424 adds a version.
fn without_priority(line: &[u8]) -> &[u8] {
    let Some((priority, rest)) = line.strip_prefix(b"<").and_then(|rest| cut(rest, b'>')) else { return line };
    if priority.len() > 3 || !priority.iter().all(u8::is_ascii_digit) {
        return line;
    }
    rest.strip_prefix(b"1 ").unwrap_or(rest)
}

/// More repetitions of a line are not believed: a stranger may have written it.
const MOST_REPEATED: u64 = 100_000;

/// `message repeated 3 times: [ text]` of rsyslog.
fn repeated(text: &[u8]) -> (&[u8], u64) {
    let found = text.strip_prefix(b"message repeated ").and_then(|rest| cut_at(rest, b" times: ["));
    let Some((times, inner)) = found else { return (text, 1) };
    let times = std::str::from_utf8(times).ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let times = u64::min(times, MOST_REPEATED);
    let inner = inner.strip_suffix(b"]").unwrap_or(inner);
    (inner.trim_ascii_start(), times)
}
