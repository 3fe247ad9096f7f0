//! The sizes of a message and its header block, and their limits.

use super::message_id::MessageIdReader;

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// The header block is longer than `limits.header`.
    Header,
    /// The message is longer than `limits.message`.
    Message,
}

/// State of the current line of a header block.
#[derive(Debug, Clone, Default)]
struct HeaderLine {
    /// Whether it contains anything but a CR.
    begun: bool,
    /// Whether it belongs to a header: it has a colon, or is a folded line.
    header: bool,
}

impl HeaderLine {
    fn push(&mut self, part: &[u8]) {
        // A CR at the end of a piece belongs to the LF that follows.
        let Some(first) = part.strip_suffix(b"\r").unwrap_or(part).first() else { return };
        self.header |= (!self.begun && matches!(first, b' ' | b'\t')) || memchr::memchr(b':', part).is_some();
        self.begun = true;
    }
}

/// Measures one message. Its header block ends with an empty line, or before a line that is not a header.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    octets: u64,
    max_header: u64,
    /// In octets; 0: no limit.
    max_message: u64,
    line: HeaderLine,
    in_header: bool,
    message_id: MessageIdReader,
}

impl Meter {
    /// With these limits, in octets. A message limit of 0 means that there is no limit.
    #[must_use]
    pub(crate) fn new(max_header: u64, max_message: u64) -> Self {
        Self {
            octets: 0,
            max_header,
            max_message,
            line: HeaderLine::default(),
            in_header: true,
            message_id: MessageIdReader::default(),
        }
    }

    /// The number of octets so far.
    #[must_use]
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// The Message-ID, with its angle brackets, as far as it was read.
    #[must_use]
    pub(crate) fn message_id(&self) -> Option<String> {
        self.message_id.found()
    }

    /// Measures a piece of the message, as it is sent to the next hop. Returns the limit that it exceeds.
    pub(crate) fn push(&mut self, input: &[u8]) -> Option<TooLong> {
        let before = self.octets;
        self.octets += input.len() as u64;
        if self.in_header {
            let header = before + self.header_part(input) as u64;
            if header > self.max_header {
                return Some(TooLong::Header);
            }
        }
        (self.max_message > 0 && self.octets > self.max_message).then_some(TooLong::Message)
    }

    /// The number of octets of the input that belong to the header block.
    fn header_part(&mut self, input: &[u8]) -> usize {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', input) {
            let part = input.get(start..newline).unwrap_or_default();
            self.line.push(part);
            self.message_id.push(part.strip_suffix(b"\r").unwrap_or(part));
            self.message_id.end_line();
            start = newline + 1;
            if !std::mem::take(&mut self.line).header {
                self.in_header = false;
                return start;
            }
        }
        let part = input.get(start..).unwrap_or_default();
        self.line.push(part);
        self.message_id.push(part.strip_suffix(b"\r").unwrap_or(part));
        input.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_header_is_told_from_a_long_message_whatever_the_pieces() {
        let text = b"A: b\r\nC: d\r\n\r\nbody that is much longer than the header\r\n";
        for size in 1..text.len() {
            let run = |header, message| {
                let mut meter = Meter::new(header, message);
                text.chunks(size).find_map(|piece| meter.push(piece))
            };
            assert_eq!(run(14, 0), None, "pieces of {size}");
            assert_eq!(run(13, 0), Some(TooLong::Header), "pieces of {size}");
            assert_eq!(run(14, text.len() as u64), None, "pieces of {size}");
            assert_eq!(run(14, text.len() as u64 - 1), Some(TooLong::Message), "pieces of {size}");
        }
        assert_eq!(Meter::new(9, 0).push(b"no headr\nat all, so nothing is too long"), None);
        assert_eq!(Meter::new(9, 0).push(b"A: b\r\n folded\r\n"), Some(TooLong::Header));
        assert_eq!(Meter::new(2, 0).push(b"\r\nno header at all"), None);
        assert_eq!(Meter::new(2, 0).push(b"\nno header at all"), None);
    }
}
