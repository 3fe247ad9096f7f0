//! Why the rules decide as they do: types for programs, and for each one word for logs, metrics, headers and JSON.

use strum::IntoStaticStr;

use crate::envelope::site_policy::Reason;

/// Why a sender is signed, rewritten, left alone or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum OutboundReason {
    /// It is ours, and has a tag now.
    Signed,
    /// It is not ours, and has an SRS address now.
    Forwarded,
    /// It is null: bounces and reports have no sender to sign.
    NullSender,
    /// `outbound.exempt_clients` names the client.
    ExemptClient,
    /// `outbound.exempt_senders` names it.
    ExemptSender,
    /// `outbound.exempt_recipients` names the recipient.
    ExemptRecipient,
    /// `outbound.mode` is `off`.
    ModeOff,
    /// `outbound.mode` is `pilot`, and the pilot does not name it.
    NotInPilot,
    /// Its tag is ours and holds.
    SignedAlready,
    /// It is an SRS address of ours.
    OwnSrsAddress,
    /// It is in a domain of `domains.relay`.
    RelayDomain,
    /// It is not ours, and there is no SRS domain for it.
    ForeignSender,
    /// It is in the SRS domain already.
    SameDomain,
    /// Signed, its local part would be longer than 64 octets (RFC 5321 section 4.5.3.1.1).
    Overflow,
    /// No key of the ring signs.
    NoKey,
}

/// Why a recipient is delivered, inspected or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum InboundReason {
    /// Its tag holds.
    Valid,
    /// The content decides.
    Candidate,
    /// The sender is a person's.
    NotABounce,
    /// `inbound.exempt_recipients` names it.
    ExemptRecipient,
    /// Its own mail leaves unsigned, so its bounces have no tag.
    LeavesUnsigned,
    /// It is in a domain of `domains.relay`.
    RelayDomain,
    /// It is not ours, and the mail server relays.
    ForeignRecipient,
    /// It is the postmaster of an SRS domain.
    SrsDomainPostmaster,
    /// A rule has something against it; delivered all the same where that is only observed.
    Against(RefusalReason),
}

/// What a rule has against a sender, a recipient or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RefusalReason {
    /// One of those for which the config has an action.
    Site(Reason),
    /// The recipient is not ours.
    RelayingDenied,
    /// An SRS domain has no such mailbox.
    NoMailbox,
    /// The sender is from outside and names a domain of ours without a tag.
    OwnSender,
    /// An SRS address takes bounces only.
    SrsSender,
    /// The message to an SRS address is neither a bounce nor another report.
    SrsNoBounce,
    /// The tag names a key that the ring does not have yet.
    UnknownKey,
    /// Too many bad tags were tried.
    Guessing,
    /// Too many bounces have come to the tag, or to the message.
    Replayed,
    /// Far more bounces than usual come to the domain.
    Surge,
    /// An address cannot be read.
    Unreadable,
    /// No key of the ring signs.
    NoKey,
    /// The signed sender would be too long.
    #[strum(serialize = "overflow")]
    TooLong,
    /// The recipient needs another transaction than those before it.
    OwnTransaction,
    /// There are too many recipients.
    Recipients,
    /// There are too many headers of ours that are not ours.
    Headers,
}

/// Why a map answers as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum MapReason {
    /// It is no tagged address of ours.
    Untagged,
    /// The tag is taken off whatever it is.
    NotLookedAt,
    /// As for a bounce to it.
    Asked(InboundReason),
}

impl OutboundReason {
    /// The word for logs, metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl InboundReason {
    /// The word for logs, metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Against(reason) => reason.name(),
            other => other.into(),
        }
    }
}

impl RefusalReason {
    /// The word for logs, metrics, headers and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Site(reason) => reason.name(),
            other => other.into(),
        }
    }
}

impl MapReason {
    /// The word for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Asked(reason) => reason.name(),
            other => other.into(),
        }
    }
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
