//! The trace of a returned original: who has received it last, and what its servers have found out about its sender.
//!
//! Only an original that is a part of its own is read (`message/rfc822` or `text/rfc822-headers`): a failed recipient's
//! server chooses the words in the text of a bounce, and could quote such headers there.

use super::lines::Piece;
use super::mime::field;

/// Maximum number of headers that are kept.
const MAX_KEPT: usize = 16;
/// Maximum length of a value, folded lines included, in octets. A longer one may have gaps, which could change what it
/// says.
const MAX_VALUE: usize = 2000;

/// A header that mail servers add at the top of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceHeader {
    /// `Received` (RFC 5321 section 4.4): the host after its `by`, in lower case; empty if it names none.
    Received(String),
    /// `Authentication-Results` (RFC 8601): its value.
    Results(String),
}

/// The trace of a returned original, from the top. A sender can write what it likes below the headers of the servers
/// that have received it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The first sixteen trace headers.
    pub headers: Vec<TraceHeader>,
    /// The value of its From header; `None` if it has none or several.
    pub from: Option<String>,
}

impl Trace {
    /// The host that has received it last, as that host says, in lower case.
    #[must_use]
    pub fn received_by(&self) -> Option<&str> {
        let hosts = self.headers.iter().filter_map(|header| match header {
            TraceHeader::Received(by) => Some(by.as_str()),
            TraceHeader::Results(_) => None,
        });
        hosts.into_iter().next().filter(|host| !host.is_empty())
    }
}

/// Reads the headers of the first original.
#[derive(Debug, Default)]
pub(super) struct TraceReader {
    trace: Trace,
    authors: usize,
    is_over: bool,
    /// A header of a `text/rfc822-headers` part that may continue.
    pending: Option<(Vec<u8>, Vec<u8>)>,
}

impl TraceReader {
    /// Reads a header of an original.
    pub(super) fn header(&mut self, name: &[u8], value: &[u8]) {
        if self.is_over {
            return;
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let text = || String::from_utf8_lossy(value).into_owned();
        if is("from") {
            self.authors += 1;
            self.trace.from = (self.authors == 1 && value.len() < MAX_VALUE).then(text);
        }
        let header = if is("received") {
            Some(TraceHeader::Received(host_after_by(&text())))
        } else if is("authentication-results") && value.len() < MAX_VALUE {
            Some(TraceHeader::Results(text()))
        } else {
            None
        };
        self.trace.headers.extend(header.filter(|_| self.trace.headers.len() < MAX_KEPT));
    }

    /// Reads a line of a part that consists of the headers of an original.
    pub(super) fn line(&mut self, piece: Piece<'_>) {
        if self.is_over {
            return;
        }
        let continues = !piece.first || piece.text.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        if let (true, Some((_, value))) = (continues, &mut self.pending) {
            if value.len() < MAX_VALUE {
                value.extend(piece.first.then_some(b' '));
                value.extend_from_slice(piece.text.trim_ascii());
            }
            return;
        }
        self.end_header();
        match field(piece.text) {
            Some((name, value)) => self.pending = Some((name.to_vec(), value.to_vec())),
            None => self.is_over = true,
        }
    }

    /// Whether a header of an original was read.
    pub(super) fn has_begun(&self) -> bool {
        self.pending.is_some() || self.authors > 0 || !self.trace.headers.is_empty() || self.is_over
    }

    /// Ends the headers of an original. Those of another one, or of its parts, are not read.
    pub(super) fn end(&mut self) {
        self.end_header();
        self.is_over = true;
    }

    fn end_header(&mut self) {
        if let Some((name, value)) = self.pending.take() {
            self.header(&name, &value);
        }
    }

    /// What was read.
    pub(super) fn trace(&self) -> Trace {
        self.trace.clone()
    }
}

fn host_after_by(received: &str) -> String {
    let mut words = received.split_ascii_whitespace();
    let by = words.find(|word| word.eq_ignore_ascii_case("by")).and_then(|_| words.next()).unwrap_or_default();
    // The date may follow at once: `by mx.our.example; Fri, 27 Nov`.
    by.trim_end_matches([';', ',']).to_ascii_lowercase()
}
