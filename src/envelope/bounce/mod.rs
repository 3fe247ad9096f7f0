//! Classification of a message: whether it is a bounce or another kind of automatic mail. The message is read in one
//! pass and in bounded memory: its header block, MIME structure and words, and the parts of a returned original.
//!
//! - `lines` and `mime` split the message into lines and parts, `decode` turns octets into text;
//! - `dsn` reads the fields of RFC 3464, `original` finds the returned original, `trace` reads its trace headers;
//! - `features` collects what is found, with `author` (the kind of sender), `text_excerpt` (the text that is kept), and
//!   `phrases` and `wording` (the words of mail servers); `classify` weighs it, `findings` has the result.
//!
//! Malformed mail is classified by the parts that can be read. A message wrongly taken for a bounce may be lost, so
//! several signs have to agree.

mod author;
mod classify;
mod decode;
mod dsn;
mod features;
mod findings;
mod lines;
mod mime;
mod original;
mod phrases;
mod text_excerpt;
mod trace;
mod wording;

pub use self::dsn::{DsnAction, DsnRecipient, DsnStatus};
use self::features::Seen;
pub use self::findings::{Findings, InboundMark, MessageKind};
use self::lines::{Lines, Piece};
use self::mime::Walker;
pub(crate) use self::mime::{field, parameter, without_comments};
pub use self::original::{ReceivedHop, Returned};
pub use self::trace::{Trace, TraceHeader};

/// Reads and classifies one message.
///
/// ```
/// use countersign::envelope::bounce::{MessageKind, Scanner};
///
/// let mut scanner = Scanner::of_text();
/// scanner.push(b"From: MAILER-DAEMON@third.example\nSubject: failure notice\n\nI was not able to ");
/// scanner.push(b"deliver your message.\n<bob@third.example>: no such user\n");
/// scanner.finish();
/// assert_eq!(scanner.found().kind, MessageKind::TextBounce);
/// ```
#[derive(Debug)]
pub struct Scanner {
    lines: Lines,
    walker: Walker,
    seen: Box<Seen>,
}

impl Scanner {
    /// For a message as sent by DATA, with dot-stuffing (RFC 5321 section 4.5.2).
    #[must_use]
    pub fn of_data() -> Self {
        Self { lines: Lines::stuffed(), walker: Walker::default(), seen: Box::default() }
    }

    /// For a message without dot-stuffing: from a file, or sent by BDAT (RFC 3030). Lines end in LF or CR LF.
    #[must_use]
    pub fn of_text() -> Self {
        Self { lines: Lines::default(), walker: Walker::default(), seen: Box::default() }
    }

    /// Reads the next part of the message. Parts may end anywhere.
    pub fn push(&mut self, input: &[u8]) {
        let Self { lines, walker, seen } = self;
        lines.push(input, |piece: Piece<'_>| walker.push(piece, seen.as_mut()));
    }

    /// Reads the end of the message.
    pub fn finish(&mut self) {
        let Self { lines, walker, seen } = self;
        lines.finish(|piece: Piece<'_>| walker.push(piece, seen.as_mut()));
        walker.finish(seen.as_mut());
        seen.finish();
    }

    /// The findings so far.
    #[must_use]
    pub fn found(&self) -> Findings {
        classify::classify(&self.seen)
    }
}

#[cfg(test)]
mod tests;
