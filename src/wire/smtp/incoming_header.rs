//! The header block of an inbound message: forged headers with our names are removed, and our own are put first.

/// The prefix of all our header names, in lower case.
const OURS: &[u8; 12] = b"countersign-";

/// Removes `Countersign-*` headers from the header block of a stream of CR LF lines. Everything else passes.
///
/// The stream is dot-stuffed (RFC 5321 section 4.5.2). The next hop may remove a dot at the beginning of a line, so
/// each line is compared without it.
#[derive(Debug, Default)]
pub(crate) struct HeaderFilter {
    state: HeaderPosition,
    /// Whether this line began with a dot. The dot is buffered until the line is decided on.
    dot: bool,
    /// Whether a header of ours precedes the message, whose first line must not continue it.
    guard: bool,
    /// The number of octets of the current line that match [`OURS`] so far, and are buffered.
    matched: usize,
    /// These octets, in their original case.
    held: [u8; 12],
    /// Whether a header is being removed, with its folded lines.
    dropping: bool,
    /// Whether the stream is not dot-stuffed, and a line may end in a bare LF.
    plain: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum HeaderPosition {
    /// At the first octet of a line.
    #[default]
    Start,
    /// At a CR that was the first octet of a line: the header block ends here if an LF follows.
    Blank,
    /// In a line whose beginning matches so far.
    Matching,
    /// In a line that has been decided on.
    Decided,
    /// In the body.
    Body,
}

impl HeaderFilter {
    /// A filter for a message that one of our headers precedes.
    #[must_use]
    pub(crate) fn behind_a_mark() -> Self {
        Self::default().guarded()
    }

    /// A filter for a message in chunks (RFC 3030), which are neither dot-stuffed nor repaired.
    #[must_use]
    pub(crate) fn of_chunks() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// The filter for a message that one of our headers precedes.
    #[must_use]
    pub(crate) fn guarded(self) -> Self {
        Self { guard: true, ..self }
    }

    /// Whether the header block is over, so that all further input passes.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        self.state == HeaderPosition::Body
    }

    /// Filters a piece of input, and passes the rest to `out`.
    pub(crate) fn push(&mut self, input: &[u8], mut out: impl FnMut(&[u8])) {
        let mut from = 0;
        for (at, &octet) in input.iter().enumerate() {
            if self.state == HeaderPosition::Body {
                break;
            }
            from = at + 1;
            self.step(octet, &mut out);
        }
        if let Some(rest) = input.get(from..).filter(|rest| !rest.is_empty() && self.is_done()) {
            out(rest);
        }
    }

    /// Ends the message: what was buffered is not one of our headers.
    pub(crate) fn finish(&mut self, mut out: impl FnMut(&[u8])) {
        self.release(&mut out);
        self.release_dot(&mut out);
    }

    fn step(&mut self, octet: u8, out: &mut impl FnMut(&[u8])) {
        let first = std::mem::take(&mut self.guard);
        match self.state {
            HeaderPosition::Start if octet == b'\n' && self.plain => {
                out(b"\n");
                self.state = HeaderPosition::Body;
            }
            HeaderPosition::Start if octet == b'.' && !self.dot && !self.plain => {
                (self.dot, self.guard) = (true, first);
            }
            // A message that begins with white space has no header block. An empty line keeps it from continuing our
            // header.
            HeaderPosition::Start if first && matches!(octet, b' ' | b'\t') => {
                out(b"\r\n");
                self.release_dot(out);
                out(&[octet]);
                self.state = HeaderPosition::Body;
            }
            HeaderPosition::Start if octet == b'\r' && !self.dot => {
                self.dropping = false;
                self.state = HeaderPosition::Blank;
                out(b"\r");
            }
            // A folded line belongs to the header before it.
            HeaderPosition::Start if matches!(octet, b' ' | b'\t') => self.decided(octet, out),
            HeaderPosition::Start | HeaderPosition::Matching => {
                if self.state == HeaderPosition::Start {
                    self.dropping = false;
                }
                self.compare(octet, out);
            }
            HeaderPosition::Blank => {
                out(&[octet]);
                self.state = if octet == b'\n' { HeaderPosition::Body } else { HeaderPosition::Decided };
            }
            HeaderPosition::Decided => self.decided(octet, out),
            HeaderPosition::Body => out(&[octet]),
        }
    }

    fn compare(&mut self, octet: u8, out: &mut impl FnMut(&[u8])) {
        let agrees = OURS.get(self.matched).is_some_and(|ours| ours.eq_ignore_ascii_case(&octet));
        match self.held.get_mut(self.matched) {
            Some(place) if agrees => {
                *place = octet;
                self.matched += 1;
                self.state = HeaderPosition::Matching;
                if self.matched == OURS.len() {
                    (self.matched, self.dropping, self.dot, self.state) = (0, true, false, HeaderPosition::Decided);
                }
            }
            _ => {
                self.release(out);
                self.decided(octet, out);
            }
        }
    }

    fn release_dot(&mut self, out: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.dot) && !self.dropping {
            out(b".");
        }
    }

    fn release(&mut self, out: &mut impl FnMut(&[u8])) {
        if self.matched > 0 {
            self.release_dot(out);
        }
        if let Some(held) = self.held.get(..self.matched).filter(|held| !held.is_empty()) {
            out(held);
        }
        self.matched = 0;
    }

    fn decided(&mut self, octet: u8, out: &mut impl FnMut(&[u8])) {
        self.release_dot(out);
        if !self.dropping {
            out(&[octet]);
        }
        self.state = if octet == b'\n' { HeaderPosition::Start } else { HeaderPosition::Decided };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, size: usize) -> String {
        let (mut filter, mut out) = (HeaderFilter::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            filter.push(piece, |part| out.extend_from_slice(part));
        }
        filter.finish(|part| out.extend_from_slice(part));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn our_headers_from_outside_are_dropped_with_their_folds() {
        let text = "Countersign-Result: v=1\r\n\tfolded\r\nFrom: a\r\nCOUNTERSIGN-evidence : x\r\n y\r\nCount: 1\r\n\
                    Subject: Countersign-Result: x\r\n folded\r\n\r\nCountersign-Result: body\r\n";
        let want =
            "From: a\r\nCount: 1\r\nSubject: Countersign-Result: x\r\n folded\r\n\r\nCountersign-Result: body\r\n";
        for size in 1..text.len() {
            assert_eq!(run(text, size), want, "pieces of {size}");
        }
    }

    #[test]
    fn a_stuffed_dot_hides_no_header() {
        let text = ".Countersign-Result: v=1\r\n. folded\r\n.From: a\r\n. b\r\n..x: y\r\n.count: 1\r\n\r\n.Countersign-A: b\r\n";
        for size in 1..text.len() {
            assert_eq!(
                run(text, size),
                ".From: a\r\n. b\r\n..x: y\r\n.count: 1\r\n\r\n.Countersign-A: b\r\n",
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn nothing_continues_our_mark() {
        for (text, want) in [
            (" ; verdict=valid\r\n", "\r\n ; verdict=valid\r\n"),
            (".\tx\r\n\r\ny", "\r\n.\tx\r\n\r\ny"),
            ("From: a\r\n b\r\n", "From: a\r\n b\r\n"),
            ("\r\n body", "\r\n body"),
        ] {
            let (mut filter, mut out) = (HeaderFilter::behind_a_mark(), Vec::new());
            filter.push(text.as_bytes(), |part| out.extend_from_slice(part));
            filter.finish(|part| out.extend_from_slice(part));
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn chunks_are_not_stuffed() {
        let text = ".Countersign-A: b\nCountersign-A: b\n c\nA: b\n\nCountersign-A: b\r\n\r\n";
        for size in 1..text.len() {
            let (mut filter, mut out) = (HeaderFilter::of_chunks(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                filter.push(piece, |part| out.extend_from_slice(part));
            }
            assert_eq!(String::from_utf8(out).unwrap(), ".Countersign-A: b\nA: b\n\nCountersign-A: b\r\n\r\n");
        }
    }

    #[test]
    fn a_message_without_a_body_keeps_what_it_has() {
        for text in ["", "From: a\r\n", "Countersig", "\r\nbody", "Counter", "\r", "a\r\n\r\n"] {
            assert_eq!(run(text, 1), text);
        }
    }
}
