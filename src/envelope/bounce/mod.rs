//! What is this message? Read as it goes by, in one pass and bounded memory: its header block, its MIME structure, its
//! words, and whatever of a returned original stands in it.
//!
//! - `lines` and `mime` take it apart, `decode` makes words of octets;
//! - `dsn` reads the fields of RFC 3464, `original` finds the message that is returned;
//! - `phrases` and `wording` know what mail servers say, `author` and `text_excerpt` who says it and what; `classify` weighs all that,
//!   and `findings` is the result.
//!
//! Malformed mail is judged by what can be read. A wrong "bounce" loses mail, so that takes several signs that agree.

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
mod wording;

pub use self::dsn::{DsnAction, DsnRecipient, DsnStatus};
use self::features::Seen;
pub use self::findings::{Findings, MessageKind};
use self::lines::{Lines, Piece};
use self::mime::Walker;
pub use self::original::{ReceivedHop, Returned};

/// Reads one message.
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
    /// For a message as DATA carries it, dot-stuffed (RFC 5321 section 4.5.2).
    #[must_use]
    pub fn of_data() -> Self {
        Self { lines: Lines::stuffed(), walker: Walker::default(), seen: Box::default() }
    }

    /// For a message as it is: in a file, or in chunks (RFC 3030). Line ends are LF or CR LF.
    #[must_use]
    pub fn of_text() -> Self {
        Self { lines: Lines::default(), walker: Walker::default(), seen: Box::default() }
    }

    /// Takes a piece of the message.
    pub fn push(&mut self, input: &[u8]) {
        let Self { lines, walker, seen } = self;
        lines.push(input, |piece: Piece<'_>| walker.push(piece, seen.as_mut()));
    }

    /// The message is over.
    pub fn finish(&mut self) {
        let Self { lines, walker, seen } = self;
        lines.finish(|piece: Piece<'_>| walker.push(piece, seen.as_mut()));
        walker.finish(seen.as_mut());
        seen.finish();
    }

    /// What is known by now.
    #[must_use]
    pub fn found(&self) -> Findings {
        classify::judge(&self.seen)
    }
}

#[cfg(test)]
mod tests;
