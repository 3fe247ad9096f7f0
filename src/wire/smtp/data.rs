//! A message body in transit: finds the end of data, repairs line ends, and refuses SMTP smuggling.
//!
//! Servers differ in what they accept as a line end, and so in where a message ends. A dot on a line between bare CRs
//! or bare LFs can hide a second message in the first one ("SMTP smuggling", 2023). Here only CR LF `.` CR LF ends a
//! message. Bare CRs and bare LFs are repaired in the output, so that the next hop can read it in one way only. A lone
//! dot is refused if one of the line ends around it is not CR LF.
//!
//! Clean input, which is nearly all of it, is scanned in two vectorised passes and copied. Only the rest is processed
//! octet by octet.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The position of the scanner in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePosition {
    /// At the beginning of a line, or after a bare CR, which some servers accept as a line end.
    Start,
    /// Anywhere else in a line.
    Mid,
    /// After a CR.
    Cr,
    /// After a dot at the beginning of a line. The dot is buffered.
    Dot,
    /// After such a dot and a CR.
    DotCr,
}

/// The result for a piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All of it belongs to the body.
    More,
    /// The message has ended. This many octets of the input belong to it, including the final dot line.
    End(usize),
    /// A lone dot between line ends of which one is not CR LF. Nothing after it can be trusted.
    Smuggling,
}

/// Scans one message. The output is the body, still dot-stuffed, with CR LF at the end of each line, and without the
/// final dot line: the caller decides whether to send that.
#[derive(Debug)]
pub struct DataScanner {
    state: LinePosition,
    /// Whether the line end before this line was not CR LF.
    odd: bool,
    nul: bool,
    stray: bool,
    /// Whether the length was announced (BDAT), so that a lone dot is text.
    chunked: bool,
}

impl Default for DataScanner {
    fn default() -> Self {
        Self { state: LinePosition::Start, odd: false, nul: false, stray: false, chunked: false }
    }
}

static DOT_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n."));

impl DataScanner {
    /// For a message in chunks (RFC 3030 section 2). Its length ends it, so [`Progress::End`] is never returned.
    #[must_use]
    pub fn of_chunks() -> Self {
        Self { chunked: true, ..Self::default() }
    }

    /// Whether there was a NUL, which RFC 5321 section 4.5.2 excludes from text.
    #[must_use]
    pub fn saw_nul(&self) -> bool {
        self.nul
    }

    /// Whether there was a bare CR or bare LF.
    #[must_use]
    pub fn saw_stray(&self) -> bool {
        self.stray
    }

    /// Scans a piece of input, and passes the repaired body to `out` in one or more parts.
    pub fn push(&mut self, input: &[u8], mut out: impl FnMut(&[u8])) -> Progress {
        let mut at = 0;
        // The rest of the input is known to be clean up to this position.
        let mut clean_until = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if matches!(self.state, LinePosition::Start | LinePosition::Mid) && clean_until <= at {
                // A CR at the very end belongs to the next piece.
                let whole = rest.strip_suffix(b"\r").unwrap_or(rest);
                clean_until = if is_clean(whole) { at + whole.len() } else { 0 };
                if clean_until == 0 {
                    return self.push_octets(input, at, out);
                }
            }
            if matches!(self.state, LinePosition::Start | LinePosition::Mid) && at < clean_until {
                at += self.push_clean(input.get(at..clean_until).unwrap_or_default(), &mut out);
                if at >= clean_until {
                    continue;
                }
            }
            let Some(&octet) = input.get(at) else { break };
            at += 1;
            match self.step(octet, &mut out) {
                Some(Progress::End(_)) => return Progress::End(at),
                Some(progress) => return progress,
                None => {}
            }
        }
        Progress::More
    }

    /// Copies clean text up to a line that begins with a dot. Returns the length of the copied text.
    fn push_clean(&mut self, text: &[u8], out: &mut impl FnMut(&[u8])) -> usize {
        let part = if self.chunked && !(self.state == LinePosition::Start && self.odd) {
            // After a dot at the beginning of the last line, a bare CR or bare LF may follow in the next piece.
            let dot_is_last = text.ends_with(b"\n.") || (self.state == LinePosition::Start && text == b".");
            text.get(..text.len() - usize::from(dot_is_last)).unwrap_or(text)
        } else if self.state == LinePosition::Start && text.first() == Some(&b'.') {
            return 0;
        } else {
            let end = DOT_LINE.find(text).map_or(text.len(), |newline| newline + 1);
            text.get(..end).unwrap_or(text)
        };
        if let Some(&last) = part.last() {
            out(part);
            (self.state, self.odd) = (if last == b'\n' { LinePosition::Start } else { LinePosition::Mid }, false);
        }
        part.len()
    }

    fn push_octets(&mut self, input: &[u8], from: usize, mut out: impl FnMut(&[u8])) -> Progress {
        // The output is gathered, so that `out` is not called for each octet.
        let mut gathered = Vec::with_capacity(input.len() - from.min(input.len()) + 16);
        let mut progress = Progress::More;
        for (at, &octet) in input.iter().enumerate().skip(from) {
            match self.step(octet, &mut |part: &[u8]| gathered.extend_from_slice(part)) {
                Some(Progress::End(_)) => progress = Progress::End(at + 1),
                Some(other) => progress = other,
                None => continue,
            }
            break;
        }
        out(&gathered);
        progress
    }

    fn step(&mut self, octet: u8, out: &mut impl FnMut(&[u8])) -> Option<Progress> {
        match (self.state, octet) {
            (LinePosition::Start, b'.') => self.state = LinePosition::Dot,
            (LinePosition::Start | LinePosition::Mid, b'\r') => self.state = LinePosition::Cr,
            (LinePosition::Start | LinePosition::Mid, b'\n') => self.bare_newline(out),
            (LinePosition::Start | LinePosition::Mid, _) => self.text(octet, out),
            (LinePosition::Cr, b'\n') => {
                out(b"\r\n");
                (self.state, self.odd) = (LinePosition::Start, false);
            }
            (LinePosition::Cr, _) => {
                // A bare CR becomes a space. A dot after it counts as one at the beginning of a line.
                out(b" ");
                (self.state, self.odd, self.stray) = (LinePosition::Start, true, true);
                return self.step(octet, out);
            }
            (LinePosition::Dot, b'\r') => self.state = LinePosition::DotCr,
            (LinePosition::Dot, b'\n') => return Some(Progress::Smuggling),
            (LinePosition::Dot, _) => {
                out(b".");
                self.text(octet, out);
            }
            (LinePosition::DotCr, b'\n') if !self.odd => {
                self.state = LinePosition::Start;
                if !self.chunked {
                    return Some(Progress::End(0));
                }
                out(b".\r\n");
            }
            (LinePosition::DotCr, _) => return Some(Progress::Smuggling),
        }
        None
    }

    fn bare_newline(&mut self, out: &mut impl FnMut(&[u8])) {
        out(b"\r\n");
        (self.state, self.odd, self.stray) = (LinePosition::Start, true, true);
    }

    fn text(&mut self, octet: u8, out: &mut impl FnMut(&[u8])) {
        self.nul |= octet == 0;
        out(&[octet]);
        self.state = LinePosition::Mid;
    }
}

/// Whether each CR is followed by an LF, each LF preceded by a CR, and there is no NUL. There is no branch and no early
/// return, so that the compiler can vectorise it.
fn is_clean(text: &[u8]) -> bool {
    let Some((&first, tail)) = text.split_first() else { return false };
    let odd_pair = |(&a, &b): (&u8, &u8)| (u8::from(a == b'\r') ^ u8::from(b == b'\n')) | u8::from(b == 0);
    let bad = text.iter().zip(tail).map(odd_pair).fold(0, |all, pair| all | pair);
    bad == 0 && first != b'\n' && first != 0 && text.last() != Some(&b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scans a text in pieces of the given size. Returns the body, the result, and the scanner.
    fn run(text: &[u8], size: usize) -> (Vec<u8>, Progress, DataScanner) {
        let (mut scanner, mut out) = (DataScanner::default(), Vec::new());
        for (i, piece) in text.chunks(size.max(1)).enumerate() {
            match scanner.push(piece, |part| out.extend_from_slice(part)) {
                Progress::More => {}
                Progress::End(used) => return (out, Progress::End(i * size.max(1) + used), scanner),
                Progress::Smuggling => return (out, Progress::Smuggling, scanner),
            }
        }
        (out, Progress::More, scanner)
    }

    #[test]
    fn the_end_is_found_wherever_the_pieces_break() {
        let text = b"Subject: x\r\n\r\nHello\r\n..stuffed\r\n.x\r\n.\r\nQUIT\r\n";
        for size in 1..text.len() + 1 {
            let (out, progress, _) = run(text, size);
            assert_eq!(progress, Progress::End(text.len() - 6), "pieces of {size}");
            assert_eq!(out, b"Subject: x\r\n\r\nHello\r\n..stuffed\r\n.x\r\n", "pieces of {size}");
        }
        assert_eq!(run(b".\r\n", 1).1, Progress::End(3));
    }

    #[test]
    fn a_dot_between_odd_line_ends_is_never_an_end() {
        let ends: [&[u8]; 3] = [b"\r\n", b"\n", b"\r"];
        for before in ends {
            for after in ends {
                if before == b"\r\n" && after == b"\r\n" {
                    continue;
                }
                let text = [b"a", before, b".", after, b"MAIL FROM:<evil@x.example>\r\n"].concat();
                for size in [1, 2, 3, 4, 100] {
                    assert_eq!(run(&text, size).1, Progress::Smuggling, "{:?}", String::from_utf8_lossy(&text));
                }
            }
        }
        for odd in ["\r\n.\r\r\n", "\n.\r\r\n", "\r\r.\r\n", "\r\n.\r.\r\n", "\r.\r", "\n\n.\r\n"] {
            assert_eq!(run(format!("a{odd}b").as_bytes(), 2).1, Progress::Smuggling, "{odd:?}");
        }
    }

    /// Scans a chunked message in pieces of the given size. Returns the text and the scanner.
    fn run_chunks(text: &[u8], size: usize) -> Result<(Vec<u8>, DataScanner), Progress> {
        let (mut scanner, mut out) = (DataScanner::of_chunks(), Vec::new());
        for piece in text.chunks(size.max(1)) {
            match scanner.push(piece, |part| out.extend_from_slice(part)) {
                Progress::More => {}
                progress => return Err(progress),
            }
        }
        Ok((out, scanner))
    }

    #[test]
    fn in_chunks_a_dot_line_is_text() {
        let text = b".\r\nSubject: x\r\n\r\n.\r\n.\r\n..\r\n.x\r\n.\r\nend\r\n.\r\n";
        for size in 1..=text.len() {
            let (out, scanner) = run_chunks(text, size).unwrap();
            assert_eq!(out, text, "pieces of {size}");
            assert!(!scanner.saw_stray() && !scanner.saw_nul(), "pieces of {size}");
        }
    }

    #[test]
    fn in_chunks_a_dot_between_odd_line_ends_smuggles_all_the_same() {
        for odd in ["\n.\r\n", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\n.\n", "\r\n.\r\r\n"] {
            let text = format!("a\r\n.\r\nb{odd}MAIL FROM:<x@y.example>\r\n");
            for size in 1..=text.len() {
                assert_eq!(run_chunks(text.as_bytes(), size).err(), Some(Progress::Smuggling), "{odd:?} by {size}");
            }
        }
    }

    /// Each octet of clean text is scanned a fixed number of times, however many lines begin with a dot.
    #[test]
    fn dot_lines_in_chunks_are_passed_in_one_piece() {
        let text: Vec<u8> = b".\r\n".repeat(100_000);
        let (mut scanner, mut pieces) = (DataScanner::of_chunks(), 0);
        assert_eq!(scanner.push(&text, |_| pieces += 1), Progress::More);
        assert_eq!(pieces, 1);
    }

    #[test]
    fn stray_line_ends_are_mended() {
        let (out, progress, scanner) = run(b"a\nb\rc\r\n\r\r\nd\n\r\n.\r\n", 3);
        assert_eq!(String::from_utf8(out).unwrap(), "a\r\nb c\r\n \r\nd\r\n\r\n");
        assert!(matches!(progress, Progress::End(_)) && scanner.saw_stray() && !scanner.saw_nul());
        assert!(run(b"a\0b\r\n.\r\n", 100).2.saw_nul());
        assert!(!run(b"a\r\n.\r\n", 100).2.saw_stray());
    }

    /// A simple decoder for bodies whose line ends are all CR LF, as a reference.
    fn decode(stuffed: &[u8]) -> Vec<u8> {
        let text = stuffed.strip_prefix(b".").map_or(stuffed.to_vec(), <[u8]>::to_vec);
        String::from_utf8(text).unwrap().replace("\r\n.", "\r\n").into_bytes()
    }

    proptest! {
        #[test]
        fn what_comes_out_has_one_reading(text in "[a.\r\n\0]{0,60}", size in 1usize..9) {
            let text = format!("{text}\r\n.\r\n");
            let (out, progress, scanner) = run(text.as_bytes(), size);
            // The result does not depend on the pieces.
            let whole = run(text.as_bytes(), text.len());
            prop_assert_eq!(&out, &whole.0);
            prop_assert_eq!(progress, whole.1);
            // The only line end in the output is CR LF, so all servers find the same end of the message.
            let rest = String::from_utf8(out.clone()).unwrap().replace("\r\n", "");
            prop_assert!(!rest.contains(['\r', '\n']));
            prop_assert!(!String::from_utf8_lossy(&out).contains("\r\n.\r\n") && !out.starts_with(b".\r\n"));
            // Clean input decodes to the same message on both sides.
            if let (Progress::End(used), false) = (progress, scanner.saw_stray()) {
                prop_assert_eq!(decode(&out), decode(&text.as_bytes()[..used - 3]));
            }
        }

        #[test]
        fn chunks_are_read_alike_whatever_their_pieces(text in "[a.\r\n\0]{0,60}", size in 1usize..9) {
            let ends = |size| run_chunks(text.as_bytes(), size).map(|(out, s)| (out, s.saw_stray(), s.saw_nul()));
            prop_assert_eq!(ends(size), ends(text.len()));
        }

        #[test]
        fn clean_text_goes_the_fast_way_unchanged(lines in prop::collection::vec("[ab.]{0,9}", 0..20), size in 1usize..40) {
            let body: String = lines.iter().map(|l| format!("{}{l}\r\n", if l.starts_with('.') { "." } else { "" })).collect();
            let (out, progress, scanner) = run(format!("{body}.\r\n").as_bytes(), size);
            prop_assert_eq!(String::from_utf8(out).unwrap(), body.clone());
            prop_assert_eq!(progress, Progress::End(body.len() + 3));
            prop_assert!(!scanner.saw_stray());
        }
    }
}
