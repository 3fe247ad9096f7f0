//! What is this message? Read as it goes by, in one pass and bounded memory: its header block, its MIME structure, its words,
//! and whatever of a returned original stands in it.
//!
//! - `lines` and `walk` take it apart, `decode` makes words of octets;
//! - `status` reads the fields of RFC 3464, `returned` finds the original that came back;
//! - `words` knows what mail servers say, `author` and `text` look who says it and what, `judge` weighs all that.
//!
//! Malformed mail is judged by what can be read. A wrong "bounce" loses mail, so that takes several signs that agree.

mod author;
mod classify;
mod decode;
mod dsn;
mod features;
mod lines;
mod mime;
mod original;
mod phrases;
mod text_excerpt;
mod wording;

pub use self::dsn::{DsnAction, DsnRecipient, DsnStatus};
use self::features::Seen;
use self::lines::{Lines, Piece};
use self::mime::Walker;
pub use self::original::{ReceivedHop, Returned};

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// A delivery status notification (RFC 3464) that says failed for a recipient.
    DsnFailed,
    /// One that says delayed, and failed for nobody.
    DsnDelayed,
    /// One that says delivered, relayed or expanded.
    DsnSuccess,
    /// A notice that mail was not, or not yet, delivered, in words only.
    TextBounce,
    /// A receipt (RFC 8098).
    Mdn,
    /// A machine answers for a person (RFC 3834): absences, tickets, challenges.
    AutoReply,
    /// An invitation, or an answer to one (RFC 5546).
    Calendar,
    /// A complaint of a recipient (RFC 5965).
    Arf,
    /// A report about a domain: DMARC (RFC 7489), TLS (RFC 8460).
    Report,
    /// Any other message: a person's, a list's, a program's.
    Ordinary,
}

impl MessageKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DsnFailed,
        Self::DsnDelayed,
        Self::DsnSuccess,
        Self::TextBounce,
        Self::Mdn,
        Self::AutoReply,
        Self::Calendar,
        Self::Arf,
        Self::Report,
        Self::Ordinary,
    ];

    /// The word for it in logs, config and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DsnFailed => "dsn-failed",
            Self::DsnDelayed => "dsn-delayed",
            Self::DsnSuccess => "dsn-success",
            Self::TextBounce => "text-bounce",
            Self::Mdn => "mdn",
            Self::AutoReply => "auto-reply",
            Self::Calendar => "calendar",
            Self::Arf => "arf",
            Self::Report => "report",
            Self::Ordinary => "ordinary",
        }
    }

    /// Whether it says that mail was not, or not yet, delivered.
    #[must_use]
    pub fn is_ndr(self) -> bool {
        match self {
            Self::DsnFailed | Self::DsnDelayed | Self::TextBounce => true,
            Self::DsnSuccess
            | Self::Mdn
            | Self::AutoReply
            | Self::Calendar
            | Self::Arf
            | Self::Report
            | Self::Ordinary => false,
        }
    }
}

/// What was found in a message. Nothing of it is proven: it is what somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// What it is.
    pub kind: MessageKind,
    /// A [`MessageKind::TextBounce`] that shows nothing of what it is about: no original, no headers, no address that it failed for.
    pub doubtful: bool,
    /// What that was seen by, the weightiest first, as words for people and logs.
    pub reasons: Vec<&'static str>,
    /// What it says of each recipient, where it has the fields of RFC 3464.
    pub recipients: Vec<DsnRecipient>,
    /// The original that came back with it.
    pub returned: Returned,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            kind: MessageKind::Ordinary,
            doubtful: false,
            reasons: Vec::new(),
            recipients: Vec::new(),
            returned: Returned::default(),
        }
    }
}

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
