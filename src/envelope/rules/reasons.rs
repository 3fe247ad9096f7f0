//! Reasons for the decisions of the rules: types for programs, each with a word for logs, metrics, headers and JSON.

use strum::IntoStaticStr;

use crate::envelope::site_policy::FailureReason;

/// Why a sender is signed, rewritten, left unchanged or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum OutboundReason {
    /// The sender is local, and was signed.
    Signed,
    /// The sender is foreign, and was rewritten to an SRS address.
    Forwarded,
    /// The sender is foreign and too long for an SRS address, and was rewritten to one with an alias.
    Aliased,
    /// The null sender: there is no address to sign.
    NullSender,
    /// The client is in `outbound.exempt_clients`.
    ExemptClient,
    /// The sender is in `outbound.exempt_senders`.
    ExemptSender,
    /// The recipient is in `outbound.exempt_recipients`.
    ExemptRecipient,
    /// The sender is foreign, and the recipient is in a local domain: the mail does not leave.
    LocalRecipient,
    /// `outbound.mode` is `off`.
    ModeOff,
    /// `outbound.mode` is `pilot`, and the sender is not in `outbound.pilot`.
    NotInPilot,
    /// The sender has a valid tag already.
    SignedAlready,
    /// The sender is an SRS address of this site.
    OwnSrsAddress,
    /// The sender's domain is in `domains.relay`.
    RelayDomain,
    /// The sender is foreign, and no SRS domain is configured for it.
    ForeignSender,
    /// The sender is in the SRS domain already.
    SameDomain,
    /// The signed local part would be longer than 64 octets (RFC 5321 section 4.5.3.1.1).
    Overflow,
    /// The ring has no signing key.
    NoKey,
}

/// Why a recipient is accepted, inspected or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum InboundReason {
    /// The tag is valid.
    Valid,
    /// The content has to be inspected.
    Candidate,
    /// The message is not from the null sender or a daemon.
    NotABounce,
    /// The recipient is in `inbound.exempt_recipients`.
    ExemptRecipient,
    /// Mail of this recipient leaves unsigned, so bounces to it have no tag.
    LeavesUnsigned,
    /// The recipient's domain is in `domains.relay`.
    RelayDomain,
    /// The recipient is foreign, and left to the mail server.
    ForeignRecipient,
    /// The postmaster or abuse mailbox of an SRS domain.
    SrsDomainPostmaster,
    /// A rule has a reason for refusal. If it is only observed, the recipient is accepted.
    Against(RefusalReason),
}

/// Why a sender, a recipient or a message is refused or marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RefusalReason {
    /// A reason with an action in the config.
    Site(FailureReason),
    /// The recipient's domain is foreign, or its local part asks for further relaying.
    RelayingDenied,
    /// The SRS domain has no such mailbox.
    NoMailbox,
    /// The sender is from outside and in a local domain, and has no valid tag.
    OwnSender,
    /// SRS addresses accept mail from the null sender only.
    SrsSender,
    /// The message to an SRS address is neither a bounce nor another report.
    SrsNoBounce,
    /// The tag names a key that is not in the ring yet.
    UnknownKey,
    /// The tag has an alias that is not stored here.
    UnknownAlias,
    /// Too many bad tags were tried.
    Guessing,
    /// Too many bounces were sent to the tag, or to the message.
    Replayed,
    /// The domain receives far more bounces than usual.
    Surge,
    /// The client's network has found out about too many unknown recipients.
    Harvest,
    /// The recipient does not exist.
    UnknownRecipient,
    /// Whether the recipient exists cannot be found out at the moment.
    RecipientUndecided,
    /// A bounce of this site, which sends none.
    OwnBounce,
    /// A bounce of this site to somebody who is not known to have sent the original.
    OwnBounceUnverified,
    /// A bounce of this site beyond the limit of an hour.
    OwnBounceLimit,
    /// A bounce to a reversed SRS address: there is nothing against it.
    SrsBounce,
    /// Another message from the null sender that was accepted: there is nothing against it.
    AcceptedBounce,
    /// The address cannot be parsed.
    Unreadable,
    /// The ring has no signing key.
    NoKey,
    /// The signed sender would be too long.
    #[strum(serialize = "overflow")]
    TooLong,
    /// The recipient needs a transaction of its own.
    OwnTransaction,
    /// The message has too many recipients.
    Recipients,
    /// The message has too many forged headers with names that this program uses.
    Headers,
}

/// Why a map answers as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum MapReason {
    /// The address is not a tagged address of this site.
    Untagged,
    /// The tag was removed without verification.
    NotVerified,
    /// The reason of the answer about a bounce to the address.
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

    /// Whether it is about a bounce of this site, which is answered 250 in any case: a refusal would be bounced in turn.
    #[must_use]
    pub fn is_of_own_bounce(self) -> bool {
        matches!(self, Self::OwnBounce | Self::OwnBounceUnverified | Self::OwnBounceLimit)
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
