//! The kind of a message, and the findings in it.

use super::dsn::DsnRecipient;
use super::original::Returned;
use super::trace::Trace;

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// A delivery status notification (RFC 3464) that says failed for at least one recipient.
    DsnFailed,
    /// A delivery status notification that says delayed, and does not say failed for any recipient.
    DsnDelayed,
    /// A delivery status notification that says delivered, relayed or expanded.
    DsnSuccess,
    /// A notice in words only that mail was not delivered, or not yet.
    TextBounce,
    /// A message disposition notification, such as a receipt (RFC 8098).
    Mdn,
    /// An automatic reply for a person (RFC 3834): absence notices, tickets, challenges.
    AutoReply,
    /// An invitation, or an answer to one (RFC 5546).
    Calendar,
    /// A complaint by a recipient (ARF, RFC 5965).
    Arf,
    /// A report about a domain: DMARC (RFC 7489) or TLS (RFC 8460).
    Report,
    /// Any other message, from a person, a mailing list or a program.
    Ordinary,
}

impl MessageKind {
    /// All kinds.
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

    /// The word in logs, config and JSON.
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

    /// Whether it is a non-delivery report: it says that mail was not delivered, or not yet.
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

/// How a listener of this site has marked a message that it accepted from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundMark {
    /// As a bounce to a reversed SRS address.
    Forwarded,
    /// In another way.
    Accepted,
}

/// The findings in a message. They are claims of its sender, not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The kind of the message.
    pub kind: MessageKind,
    /// Whether it is a [`MessageKind::TextBounce`] without any hint of the message that it is about: no original, no
    /// header block, no address of a failed recipient.
    pub doubtful: bool,
    /// The signs for this kind, as words for logs, in the order in which they were found.
    pub reasons: Vec<&'static str>,
    /// The lines of its header that say what it is, shortened: its type, who sent it, its subject, and whether it was sent
    /// automatically.
    pub header: Vec<String>,
    /// The status of each recipient, if there are fields of RFC 3464; at most twenty.
    pub recipients: Vec<DsnRecipient>,
    /// Headers of the original that the message returns.
    pub returned: Returned,
    /// The trace of an original that is a part of its own.
    pub trace: Trace,
    /// The mark of a listener of this site. Anyone who can send mail through the listener that asks could have written
    /// it.
    pub inbound_mark: Option<InboundMark>,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            kind: MessageKind::Ordinary,
            doubtful: false,
            reasons: Vec::new(),
            header: Vec::new(),
            recipients: Vec::new(),
            returned: Returned::default(),
            trace: Trace::default(),
            inbound_mark: None,
        }
    }
}
