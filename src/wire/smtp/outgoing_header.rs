//! The header block of an outbound message: Message-ID and From are read, and its end is found, so that a header can be
//! added last.

use crate::envelope::evidence::message_id;

/// The longest line that is buffered, in octets. A longer line is passed on in pieces, and its value is not read.
const MAX_LINE: usize = 1000;
/// The longest value that is kept, in octets, including folded lines.
const MAX_VALUE: usize = 1000;

/// Passes a header block on line by line, and finds its end.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// Whether the stream is not dot-stuffed, and a line may end in a bare LF.
    plain: bool,
    line: Vec<u8>,
    /// Whether the beginning of the current line was passed on already, because it is long.
    inside: bool,
    current: Option<Field>,
    message_id: Option<Vec<u8>>,
    from: Option<Vec<u8>>,
    any: bool,
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    MessageId,
    From,
}

impl HeadReader {
    /// For a message in chunks (RFC 3030), which are neither dot-stuffed nor repaired.
    #[must_use]
    pub(crate) fn of_chunks() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// Appends a piece of input to `out`, except for an incomplete line, which is buffered. Returns, once, the position
    /// in `out` where the header block ends.
    pub(crate) fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut rest = part;
        while !rest.is_empty() && !self.done {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (piece, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = tail;
            if piece.ends_with(b"\n") {
                let at = out.len();
                let begun = !std::mem::take(&mut self.inside);
                let ends = if self.line.is_empty() {
                    // The usual case: nothing is buffered.
                    out.extend_from_slice(piece);
                    begun && self.ends_at(piece)
                } else {
                    self.line.extend_from_slice(piece);
                    let line = std::mem::take(&mut self.line);
                    out.extend_from_slice(&line);
                    begun && self.ends_at(&line)
                };
                if ends {
                    self.done = true;
                    out.extend_from_slice(rest);
                    // If there is no header block, none is added.
                    return self.any.then_some(at);
                }
            } else {
                self.line.extend_from_slice(piece);
                if self.line.len() <= MAX_LINE {
                    continue;
                }
                if !std::mem::replace(&mut self.inside, true) {
                    self.current = None;
                    if field(&self.line).is_none() {
                        // A long line that is not a header: the header block has ended, or there is none.
                        self.done = true;
                        let at = out.len();
                        out.append(&mut self.line);
                        out.extend_from_slice(rest);
                        return self.any.then_some(at);
                    }
                    self.any = true;
                }
                out.append(&mut self.line);
            }
        }
        if self.done {
            out.extend_from_slice(rest);
        }
        None
    }

    /// Whether the header block is over, so that all further input passes.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Ends the message. Returns where its header block ends, if there is nothing after it.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if std::mem::replace(&mut self.done, true) {
            return None;
        }
        let unended = !self.line.is_empty();
        out.append(&mut self.line);
        // A header cannot be added in the middle of a line.
        (!unended && self.any).then_some(out.len())
    }

    /// The Message-ID, with angle brackets.
    #[must_use]
    pub(crate) fn message_id(&self) -> Option<String> {
        message_id(&String::from_utf8_lossy(self.message_id.as_deref()?))
    }

    /// The value of the From header.
    #[must_use]
    pub(crate) fn from(&self) -> Option<String> {
        Some(String::from_utf8_lossy(self.from.as_deref()?).trim().to_owned())
    }

    /// Whether a line does not belong to the header block, so that the block has ended.
    fn ends_at(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = if self.plain { line } else { line.strip_prefix(b".").unwrap_or(line) };
        match line.first() {
            None => return true,
            Some(b' ' | b'\t') if self.any => {
                let value = match self.current {
                    Some(Field::MessageId) => &mut self.message_id,
                    Some(Field::From) => &mut self.from,
                    None => return false,
                };
                if let Some(value) = value.as_mut().filter(|value| value.len() + line.len() < MAX_VALUE) {
                    value.push(b' ');
                    value.extend_from_slice(line.trim_ascii());
                }
                return false;
            }
            _ => {}
        }
        let Some((name, value)) = field(line) else {
            // The first line of an mbox (`From `) is not a header, but does not end the header block.
            return self.any || !line.starts_with(b"From ");
        };
        self.any = true;
        self.current = match name {
            name if name.eq_ignore_ascii_case(b"message-id") => Some(Field::MessageId),
            name if name.eq_ignore_ascii_case(b"from") => Some(Field::From),
            _ => None,
        };
        match self.current {
            Some(Field::MessageId) => self.message_id = Some(value.to_vec()),
            Some(Field::From) => self.from = Some(value.to_vec()),
            None => {}
        }
        false
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    let name = name.trim_ascii_end();
    let good = !name.is_empty() && name.iter().all(|b| (33..127).contains(b));
    good.then(|| (name, value.get(1..).unwrap_or_default().trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The output, with `|` where the header block ends.
    fn run(mut reader: HeadReader, text: &str, size: usize) -> (String, HeadReader) {
        let (mut out, mut end) = (Vec::new(), None);
        for piece in text.as_bytes().chunks(size) {
            end = end.or(reader.push(piece, &mut out));
        }
        end = end.or(reader.finish(&mut out));
        if let Some(end) = end {
            out.insert(end, b'|');
        }
        (String::from_utf8(out).unwrap(), reader)
    }

    #[test]
    fn the_end_is_before_the_blank_line() {
        let text =
            "From: Ann\r\n <ann@our.example>\r\nMessage-ID:\r\n\t<1@our.example>\r\nTo: b\r\n\r\nHello\r\n\r\nyou\r\n";
        for size in 1..text.len() {
            let (out, reader) = run(HeadReader::default(), text, size);
            assert_eq!(out, text.replacen("\r\n\r\nHello", "\r\n|\r\nHello", 1));
            assert_eq!(reader.message_id().as_deref(), Some("<1@our.example>"));
            assert_eq!(reader.from().as_deref(), Some("Ann <ann@our.example>"));
        }
    }

    #[test]
    fn odd_messages() {
        for (text, want) in [
            ("A: b\r\nnot a header\r\n\r\nx", "A: b\r\n|not a header\r\n\r\nx"),
            ("Hello\r\n", "Hello\r\n"),
            ("\r\nbody\r\n", "\r\nbody\r\n"),
            ("A: b\r\n", "A: b\r\n|"),
            ("A: b", "A: b"),
            ("", ""),
            ("From x Mon\r\nA: b\r\n\r\n", "From x Mon\r\nA: b\r\n|\r\n"),
            ("..A: b\r\n.\tc\r\n\r\n", "..A: b\r\n.\tc\r\n|\r\n"),
        ] {
            assert_eq!(run(HeadReader::default(), text, 1).0, want);
        }
        assert_eq!(run(HeadReader::of_chunks(), "A: b\n.c: d\n\nx", 2).0, "A: b\n.c: d\n|\nx");
        let long = format!("{}\r\nA: b\r\n\r\n", "z".repeat(5000));
        assert_eq!(run(HeadReader::default(), &long, 700).0, long);
        let long = format!("A: b\r\n{}\r\n\r\n", "z".repeat(5000));
        assert_eq!(run(HeadReader::default(), &long, 700).0, long.replacen("b\r\n", "b\r\n|", 1));
        let long = format!("A: {}\r\n\r\nx", "y".repeat(5000));
        assert_eq!(run(HeadReader::default(), &long, 700).0, long.replace("\r\n\r\n", "\r\n|\r\n"));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_pieces_change_nothing(text in "[aF:. \t\r\n]{0,60}", size in 1usize..9) {
            let (out, reader) = run(HeadReader::default(), &text, size);
            prop_assert_eq!(out.replace('|', ""), text.clone());
            prop_assert_eq!(out, run(HeadReader::default(), &text, text.len().max(1)).0);
            prop_assert!(reader.line.is_empty());
        }
    }
}
