//! How long a message and its header block are, against what they may be.

/// What is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// The header block.
    Header,
    /// The message is longer than `limits.message`.
    Message,
}

/// What is known of the current line of a header block.
#[derive(Debug, Clone, Default)]
struct HeaderLine {
    /// It has anything but a CR in it.
    begun: bool,
    /// It belongs to a header: it has a colon, or is the rest of the line before.
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

/// Measures one message as it goes by. Its header block ends with an empty line, or before one that is no header.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    octets: u64,
    max_header: u64,
    /// 0: none.
    max_message: u64,
    line: HeaderLine,
    in_header: bool,
}

impl Meter {
    /// With these limits, in octets; a message limit of 0 is none.
    #[must_use]
    pub(crate) fn new(max_header: u64, max_message: u64) -> Self {
        Self { octets: 0, max_header, max_message, line: HeaderLine::default(), in_header: true }
    }

    /// How many octets it has seen.
    #[must_use]
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// Takes a piece of the message, as it goes on to the next hop.
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

    /// How much of the input is header.
    fn header_part(&mut self, input: &[u8]) -> usize {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', input) {
            self.line.push(input.get(start..newline).unwrap_or_default());
            start = newline + 1;
            if !std::mem::take(&mut self.line).header {
                self.in_header = false;
                return start;
            }
        }
        self.line.push(input.get(start..).unwrap_or_default());
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
