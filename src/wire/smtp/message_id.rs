//! The Message-ID of a message that goes by, for the log.

use crate::envelope::evidence::message_id;

const NAME: &[u8] = b"message-id";
/// The longest value that is kept, in octets.
const MAX_VALUE: usize = 1000;

/// Reads the value of the first Message-ID header from the lines of a header block.
#[derive(Debug, Clone, Default)]
pub(super) struct MessageIdReader {
    line: Line,
    value: Vec<u8>,
}

/// What the current line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    /// At its beginning.
    #[default]
    Begins,
    /// Its beginning matches the name so far, in so many octets.
    Matches(usize),
    /// Its name is complete; white space and a colon follow.
    Named,
    /// It has the value.
    Value,
    /// At the beginning of the line after the value, which may continue it.
    Continues,
    /// It is something else.
    Other,
    /// The value is complete.
    Done,
}

impl MessageIdReader {
    /// Takes part of a line, without its line end.
    pub(super) fn push(&mut self, part: &[u8]) {
        let mut rest = part;
        while let Some((&octet, tail)) = rest.split_first() {
            match self.step(octet) {
                Line::Other | Line::Done => return,
                Line::Value => {
                    let room = MAX_VALUE.saturating_sub(self.value.len());
                    self.value.extend(tail.iter().take(room));
                    return;
                }
                Line::Begins | Line::Matches(_) | Line::Named | Line::Continues => rest = tail,
            }
        }
    }

    /// Takes one octet. In the value, this octet belongs to it; what follows is not taken.
    fn step(&mut self, octet: u8) -> Line {
        let is_space = matches!(octet, b' ' | b'\t');
        self.line = match self.line {
            Line::Continues if is_space => Line::Value,
            Line::Continues if !self.value.is_empty() => Line::Done,
            Line::Begins | Line::Continues => name(0, octet),
            Line::Matches(matched) => name(matched, octet),
            Line::Named if octet == b':' => Line::Value,
            Line::Named if is_space => Line::Named,
            Line::Named => Line::Other,
            Line::Value => {
                if self.value.len() < MAX_VALUE {
                    self.value.push(octet);
                }
                Line::Value
            }
            state @ (Line::Other | Line::Done) => state,
        };
        self.line
    }

    /// The line has ended.
    pub(super) fn end_line(&mut self) {
        self.line = match self.line {
            Line::Value => Line::Continues,
            // An empty line, which ends the header block.
            Line::Continues if !self.value.is_empty() => Line::Done,
            Line::Done => Line::Done,
            _ => Line::Begins,
        };
    }

    /// The Message-ID, with its angle brackets.
    pub(super) fn found(&self) -> Option<String> {
        message_id(&String::from_utf8_lossy(&self.value))
    }
}

/// The line after an octet of the name.
fn name(matched: usize, octet: u8) -> Line {
    match NAME.get(matched).is_some_and(|expected| expected.eq_ignore_ascii_case(&octet)) {
        true if matched + 1 == NAME.len() => Line::Named,
        true => Line::Matches(matched + 1),
        false => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, size: usize) -> Option<String> {
        let mut reader = MessageIdReader::default();
        for line in text.split("\r\n") {
            line.as_bytes().chunks(size).for_each(|part| reader.push(part));
            reader.end_line();
        }
        reader.found()
    }

    #[test]
    fn the_first_message_id_is_found_whatever_the_pieces() {
        for (text, want) in [
            ("From: a\r\nMessage-ID: <1@our.example>\r\nMessage-ID: <2@x>", Some("<1@our.example>")),
            ("MESSAGE-id :<1@our.example>\r\nTo: b", Some("<1@our.example>")),
            ("Message-ID:\r\n <1@our.example>\r\nTo: b", Some("<1@our.example>")),
            ("Message-ID: <1@our\r\nTo: b\r\n x>", Some("<1@our>")),
            ("X-Message-ID: <1@x>\r\nMessage-IDs: <2@x>\r\nMessage: 3", None),
            ("Subject: x\r\n Message-ID: <1@x>", None),
            ("Message-ID: 1@x", Some("<1@x>")),
            ("Message-ID:", None),
            ("", None),
        ] {
            for size in 1..=text.len().max(1) {
                assert_eq!(read(text, size).as_deref(), want, "{text:?} in pieces of {size}");
            }
        }
        assert!(read(&format!("Message-ID: <{}>", "x".repeat(5000)), 7).is_none_or(|id| id.len() <= MAX_VALUE + 2));
    }
}
