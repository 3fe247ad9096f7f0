//! The trace of a returned original: who has received it last, and what its servers have found out about its sender.
//!
//! Only an original that is a part of its own is read (`message/rfc822` or `text/rfc822-headers`): a failed recipient's
//! server chooses the words in the text of a bounce, and could quote such headers there.

use super::lines::{MAX_PIECE, Piece};
use super::mime::{self, field, without_comments};

/// Maximum number of headers that are kept.
const MAX_KEPT: usize = 16;
/// Maximum length of a value, folded lines included, in octets. A longer one may have gaps, which could change what it
/// says.
const MAX_VALUE: usize = 2000;
/// No shorter value has lost a piece.
const _: () = assert!(MAX_VALUE + MAX_PIECE <= mime::MAX_VALUE);

/// A header that mail servers add at the top of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceHeader {
    /// `Received` (RFC 5321 section 4.4): the hosts after each `by`, in lower case. There should be one, but a client
    /// can have another one written before it, by the name in its HELO.
    Received(Vec<String>),
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
    /// The host that has received it last, as that host says, in lower case; several if that is not certain, and none if
    /// it is unknown. Headers that name no host are those of programs between servers, such as qmail's.
    #[must_use]
    pub fn received_by(&self) -> &[String] {
        let hosts = self.headers.iter().filter_map(|header| match header {
            TraceHeader::Received(by) => Some(by.as_slice()),
            TraceHeader::Results(_) => None,
        });
        hosts.into_iter().find(|by| !by.is_empty()).unwrap_or_default()
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
            Some(TraceHeader::Received(hosts_after_by(value)))
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

/// The hosts after each `by` of a Received header, in lower case.
pub(super) fn hosts_after_by(received: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(&without_comments(received)).to_ascii_lowercase();
    let words = text.split_ascii_whitespace();
    let pairs = words.clone().zip(words.skip(1));
    // The date may follow at once: `by mx.our.example; Fri, 27 Nov`.
    pairs.filter(|(by, _)| *by == "by").map(|(_, host)| host.trim_end_matches([';', ',']).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_after_by_is_found_whatever_the_client_is_called() {
        for (received, hosts) in [
            (
                "from a (a [192.0.2.1]) by MX.our.example (Postfix) with ESMTP id 1; Fri, 27 Nov",
                &["mx.our.example"][..],
            ),
            ("by mx.our.example; Fri, 27 Nov", &["mx.our.example"]),
            ("from by (unknown [192.0.2.1]) by mx.our.example; x", &["by", "mx.our.example"]),
            ("from by x (unknown [192.0.2.1]) by mx.our.example; x", &["x", "mx.our.example"]),
            ("from ( (unknown [192.0.2.1]) by mx.our.example; x", &["mx.our.example"]),
            ("(qmail 1 invoked by uid 89); 27 Nov", &[]),
            ("from a", &[]),
            ("from a by", &[]),
        ] {
            assert_eq!(hosts_after_by(received.as_bytes()), hosts, "{received}");
        }
    }
}
