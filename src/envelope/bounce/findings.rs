//! What a message is, and what was found in it.

use super::dsn::DsnRecipient;
use super::original::Returned;

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
    /// A [`MessageKind::TextBounce`] that shows nothing of what it is about: no original, no headers, no address that
    /// it failed for.
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
