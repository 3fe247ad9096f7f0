//! What is at the top of a returned original: Authentication-Results, and the topmost Received header.
//!
//! Only an original that is a part of its own is read (`message/rfc822` or `text/rfc822-headers`): a failed recipient's
//! server chooses the words in the text of a bounce, and could quote such a header there.

use super::lines::Piece;
use super::mime::field;

/// Maximum number of headers that are kept.
const MAX_KEPT: usize = 8;
/// Maximum length of a value, folded lines included, in octets.
const MAX_VALUE: usize = 4096;

/// Reads the headers of the first original until the topmost Received header.
#[derive(Debug, Default)]
pub(super) struct TopResults {
    values: Vec<String>,
    received_by: Option<String>,
    is_over: bool,
    /// A header of a `text/rfc822-headers` part that may continue.
    pending: Option<(Vec<u8>, Vec<u8>)>,
}

impl TopResults {
    /// Reads a header of an original.
    pub(super) fn header(&mut self, name: &[u8], value: &[u8]) {
        if self.is_over {
            return;
        }
        if name.eq_ignore_ascii_case(b"received") {
            let text = String::from_utf8_lossy(value);
            let mut words = text.split_ascii_whitespace();
            let by = words.find(|word| word.eq_ignore_ascii_case("by")).and_then(|_| words.next());
            self.received_by = by.map(|host| host.trim_end_matches([';', ',']).to_ascii_lowercase());
            self.is_over = true;
        } else if name.eq_ignore_ascii_case(b"authentication-results") && self.values.len() < MAX_KEPT {
            self.values.push(String::from_utf8_lossy(value).into_owned());
        }
    }

    /// Reads a line of a part that consists of the headers of an original.
    pub(super) fn line(&mut self, piece: Piece<'_>) {
        if self.is_over {
            return;
        }
        let continues = !piece.first || piece.text.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        if let (true, Some((_, value))) = (continues, &mut self.pending) {
            if value.len() + piece.text.len() < MAX_VALUE {
                value.push(b' ');
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
        self.pending.is_some() || !self.values.is_empty() || self.is_over
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

    /// The host that has added the topmost Received header, as it says, in lower case.
    pub(super) fn received_by(&self) -> Option<String> {
        self.received_by.clone()
    }

    /// The values, from the top.
    pub(super) fn values(&self) -> Vec<String> {
        self.values.clone()
    }
}
