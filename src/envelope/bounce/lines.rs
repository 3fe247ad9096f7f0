//! Splits a stream of octets into lines, in bounded memory.

/// Maximum length of a piece, in octets. A longer line is passed on in several pieces.
pub(super) const MAX_PIECE: usize = 2048;

/// A line, or a piece of a long line, without its line end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub text: &'a [u8],
    /// Whether the line begins with this piece.
    pub first: bool,
    /// Whether the line ends with this piece.
    pub last: bool,
}

#[cfg(test)]
impl<'a> Piece<'a> {
    /// A piece that is a whole line.
    pub(super) fn whole(text: &'a [u8]) -> Self {
        Self { text, first: true, last: true }
    }
}

/// Splits a stream into lines. Lines end in LF or CR LF.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// Whether the beginning of the current line has been passed on.
    inside: bool,
    /// Whether the stream is dot-stuffed: a dot at the beginning of a line is then removed (RFC 5321 section 4.5.2).
    stuffed: bool,
}

impl Lines {
    pub(super) fn stuffed() -> Self {
        Self { stuffed: true, ..Self::default() }
    }

    /// Reads octets, and passes complete lines and pieces on.
    pub(super) fn push(&mut self, mut input: &[u8], mut take: impl FnMut(Piece<'_>)) {
        while !input.is_empty() {
            let room = MAX_PIECE.saturating_sub(self.line.len());
            let head = input.get(..room).unwrap_or(input);
            let (part, ended) = match memchr::memchr(b'\n', head) {
                Some(end) => (head.get(..=end).unwrap_or(head), true),
                None => (head, false),
            };
            input = input.get(part.len()..).unwrap_or_default();
            if self.line.is_empty() && ended {
                // The usual case, in which nothing has to be copied.
                let first = !std::mem::take(&mut self.inside);
                take(Piece { text: self.bare(part, first, true), first, last: true });
                continue;
            }
            self.line.extend_from_slice(part);
            if ended || self.line.len() >= MAX_PIECE {
                self.give(ended, &mut take);
            }
        }
    }

    /// Passes the last line on, if it has no line end.
    pub(super) fn finish(&mut self, mut take: impl FnMut(Piece<'_>)) {
        if !self.line.is_empty() {
            self.give(true, &mut take);
        }
    }

    fn give(&mut self, last: bool, take: &mut impl FnMut(Piece<'_>)) {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.inside, !last);
        take(Piece { text: self.bare(&line, first, last), first, last });
        self.line = line;
        self.line.clear();
    }

    fn bare<'a>(&self, line: &'a [u8], first: bool, last: bool) -> &'a [u8] {
        let line = if first && self.stuffed { line.strip_prefix(b".").unwrap_or(line) } else { line };
        if !last {
            return line;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(mut lines: Lines, text: &[u8], size: usize) -> Vec<(Vec<u8>, bool, bool)> {
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            lines.push(piece, |p| out.push((p.text.to_vec(), p.first, p.last)));
        }
        lines.finish(|p| out.push((p.text.to_vec(), p.first, p.last)));
        out
    }

    #[test]
    fn dots_and_line_ends_go() {
        let got = lines(Lines::stuffed(), b".a\r\n..b\nc\r\n\r\nd", 3);
        let texts: Vec<&[u8]> = got.iter().map(|(text, ..)| text.as_slice()).collect();
        assert_eq!(texts, [&b"a"[..], b".b", b"c", b"", b"d"]);
        assert!(got.iter().all(|(_, first, last)| *first && *last));
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let text = [vec![b'x'; MAX_PIECE * 2 + 5], b"\ny\n".to_vec()].concat();
        for size in [1, 7, text.len()] {
            let got = lines(Lines::default(), &text, size);
            let whole: usize = got.iter().filter(|(t, ..)| t.first() == Some(&b'x')).map(|(t, ..)| t.len()).sum();
            assert_eq!(whole, MAX_PIECE * 2 + 5);
            assert!(got[0].1 && !got[0].2 && !got[1].1 && got[got.len() - 2].2);
            assert_eq!(got.last().unwrap(), &(b"y".to_vec(), true, true));
        }
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[a.\r\n]{0,80}", size in 1usize..9) {
            let text = text.as_bytes();
            prop_assert_eq!(lines(Lines::stuffed(), text, size), lines(Lines::stuffed(), text, text.len().max(1)));
        }
    }
}
