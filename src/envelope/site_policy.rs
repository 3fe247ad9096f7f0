//! The decisions of a site, in the form that the rules use: sets of domains, addresses and networks, and switches.
//!
//! `config` builds these values from the config file and reports its errors, so that the values here are valid.

use super::address::Address;
use super::bounce::MessageKind;
use super::match_lists::{AddressSet, AliasDomains, DomainSet, Networks};
use super::tag::{batv, srs};

/// Input of the rules, apart from keys and time.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The domains of the site.
    pub domains: SiteDomains,
    /// Settings for outbound mail.
    pub outbound: OutboundPolicy,
    /// Settings for inbound mail.
    pub inbound: InboundPolicy,
    /// Lifetime and form of prvs tags.
    pub batv: batv::BatvParams,
    /// Lifetime and form of SRS addresses.
    pub srs: srs::SrsParams,
}

/// The domains of the site.
#[derive(Debug, Clone, Default)]
pub struct SiteDomains {
    /// Local domains: their senders are signed, and bounces to them are checked.
    pub local: DomainSet,
    /// Domains whose mail is passed on for others, without tags and verdicts.
    pub relay: DomainSet,
    /// The SRS domains.
    pub srs: AliasDomains,
}

impl SiteDomains {
    /// Whether a domain is local. A wildcard does not include SRS domains: they have no mailboxes of their own, unless
    /// `local` names them.
    #[must_use]
    pub fn is_local(&self, domain: &str) -> bool {
        self.local.contains(domain) && (!self.srs.contains(domain) || self.local.names_exactly(domain))
    }

    /// The entry of `local` that includes a domain; see [`Self::is_local`].
    #[must_use]
    pub fn local_entry(&self, domain: &str) -> Option<String> {
        self.local.entry(domain).filter(|_| self.is_local(domain))
    }

    /// SRS domains that match a wildcard in `local` and are not local, sorted.
    #[must_use]
    pub fn srs_below_a_wildcard(&self) -> Vec<String> {
        let covered = |name: &String| self.local.contains(name) && !self.local.names_exactly(name);
        self.srs.names().into_iter().filter(covered).collect()
    }
}

/// Whether outbound mail is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutboundMode {
    /// No sender is signed.
    Off,
    /// Only senders in `pilot` are signed.
    Pilot,
    /// All senders of local domains are signed.
    #[default]
    Sign,
}

impl OutboundMode {
    /// The word in config and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Pilot => "pilot",
            Self::Sign => "sign",
        }
    }
}

/// What is done if the signed local part is longer than 64 octets (RFC 5321 section 4.5.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The sender is not signed.
    #[default]
    Pass,
    /// The sender is signed all the same.
    Sign,
    /// The message is refused with 553 5.1.7.
    Reject,
}

/// What is done with a foreign sender whose SRS address would be too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongSrs {
    /// It gets an alias; where none can be stored, it is treated like a local sender that is too long.
    #[default]
    Alias,
    /// It is treated like this.
    Overflow(Overflow),
}

/// What is done with recipients that need another sender than the first recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mixed {
    /// Each sender gets a transaction of its own.
    #[default]
    Split,
    /// Exemptions of recipients are ignored in such a message.
    Sign,
}

/// Settings for outbound mail.
#[derive(Debug, Clone, Default)]
pub struct OutboundPolicy {
    /// Whether it is signed.
    pub mode: OutboundMode,
    /// Senders that are signed under [`OutboundMode::Pilot`].
    pub pilot: AddressSet,
    /// What is done with senders that are too long to be signed.
    pub overflow: Overflow,
    /// What is done with foreign senders whose SRS address would be too long.
    pub long_srs: LongSrs,
    /// What is done with recipients that need different senders.
    pub mixed: Mixed,
    /// Senders that are never signed.
    pub exempt_senders: AddressSet,
    /// Recipients for whom nothing is signed.
    pub exempt_recipients: AddressSet,
    /// Clients whose mail is not signed.
    pub exempt_clients: Networks,
    /// Whether mail of local senders carries the evidence header.
    pub evidence: bool,
    /// Bounces that this site sends.
    pub ndr: OwnBounces,
}

/// Settings for bounces that this site sends to others.
#[derive(Debug, Clone, Default)]
pub struct OwnBounces {
    /// Which of them are sent.
    pub policy: OwnBouncePolicy,
    /// The name of this site's server in its Authentication-Results.
    pub authserv_id: String,
    /// Whether it adds them below its own Received header.
    pub results_below_received: bool,
    /// The most to one domain in an hour; 0: no limit.
    pub per_domain_per_hour: u32,
    /// The most in an hour; 0: no limit.
    pub per_hour: u32,
    /// Who gets those that are not sent.
    pub copy_to: Option<Address>,
    /// Whether they return the headers of the original alone.
    pub strip_content: bool,
}

impl OwnBounces {
    /// Whether any bounce may be changed or not sent, so that they are inspected.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.policy != OwnBouncePolicy::Pass || self.per_domain_per_hour > 0 || self.per_hour > 0 || self.strip_content
    }
}

/// Which bounces of this site are sent to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnBouncePolicy {
    /// All of them.
    #[default]
    Pass,
    /// Those whose recipient is known to have sent the original.
    Verified,
    /// None.
    Drop,
}

impl OutboundPolicy {
    /// Whether the sender may depend on the recipient. Otherwise one query per message is enough.
    #[must_use]
    pub fn recipients_matter(&self) -> bool {
        self.mixed == Mixed::Split && !self.exempt_recipients.is_empty()
    }
}

/// Whether verdicts are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InboundMode {
    /// Nothing is refused for its tag or content; it is marked instead.
    Observe,
    /// Each domain is observed until bounces to its unsigned mail can no longer arrive, and enforced from then on.
    #[default]
    Ramp,
    /// Verdicts are enforced.
    Enforce,
}

impl InboundMode {
    /// The word in config and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Ramp => "ramp",
            Self::Enforce => "enforce",
        }
    }
}

/// When null-sender mail to an address without a tag is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RejectAt {
    /// After its content has been inspected.
    #[default]
    Data,
    /// At RCPT, without inspection.
    Rcpt,
    /// After its content has been inspected; during a surge, most of it is deferred at RCPT.
    Auto,
}

/// What is done with false bounces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureAction {
    /// Refused with 550 5.7.1.
    #[default]
    Reject,
    /// Accepted with 250 and discarded.
    Discard,
    /// Delivered with a `Countersign-Result` header.
    Mark,
    /// Delivered to the quarantine mailbox with that header.
    Quarantine,
    /// Deferred with 451 4.7.1.
    Defer,
}

impl FailureAction {
    /// The word in config and headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Discard => "discard",
            Self::Mark => "mark",
            Self::Quarantine => "quarantine",
            Self::Defer => "defer",
        }
    }
}

/// Why a bounce is false, as config, headers and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The hash of the tag is wrong.
    Forged,
    /// The tag has expired, or its key is retired.
    Expired,
    /// The date of the tag is too far in the future.
    Future,
    /// A bounce from the null sender to an address without a tag.
    UntaggedNdr,
    /// A delivery status notification from a daemon sender to an address without a valid tag.
    DaemonNdr,
    /// A bounce in words only from a daemon sender to an address without a valid tag.
    TextNdr,
    /// A bounce from the null sender to an address that is too long to be signed.
    Overflow,
    /// A bounce in words only from the null sender to an address without a tag, without any hint of the message that it
    /// is about.
    DoubtfulNdr,
}

impl FailureReason {
    /// All reasons, in the order of the config.
    pub const ALL: [Self; 8] = [
        Self::Forged,
        Self::Expired,
        Self::Future,
        Self::UntaggedNdr,
        Self::DaemonNdr,
        Self::TextNdr,
        Self::Overflow,
        Self::DoubtfulNdr,
    ];

    /// The word in config, headers and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::UntaggedNdr => "untagged-ndr",
            Self::DaemonNdr => "daemon-ndr",
            Self::TextNdr => "text-ndr",
            Self::Overflow => "overflow",
            Self::DoubtfulNdr => "doubtful-ndr",
        }
    }
}

/// The configured actions, by reason, and by the kind of message that its content shows.
#[derive(Debug, Clone, Default)]
pub struct FailureActions {
    /// The action if there is no other entry.
    pub default: FailureAction,
    /// Actions by reason.
    pub by_reason: Vec<(FailureReason, FailureAction)>,
    /// Actions by kind of message.
    pub by_kind: Vec<(MessageKind, FailureAction)>,
}

impl FailureActions {
    /// The action for a reason. Bounces recognised by their words alone, from a daemon sender or without any hint of a
    /// message, are marked unless the config has an action for them.
    #[must_use]
    pub fn of(&self, reason: FailureReason) -> FailureAction {
        let by_words = matches!(reason, FailureReason::TextNdr | FailureReason::DoubtfulNdr);
        let default = if by_words { FailureAction::Mark } else { self.default };
        self.by_reason.iter().find(|(r, _)| *r == reason).map_or(default, |(_, action)| *action)
    }

    /// The action for a kind of message. An action for the kind takes precedence over one for the reason, except for
    /// `text-ndr` and `doubtful-ndr`, which imply both.
    #[must_use]
    pub fn of_kind(&self, reason: FailureReason, kind: MessageKind) -> FailureAction {
        let by_kind = self.by_kind.iter().find(|(k, _)| *k == kind).map(|(_, action)| *action);
        match by_kind {
            Some(action) if !matches!(reason, FailureReason::TextNdr | FailureReason::DoubtfulNdr) => action,
            _ => self.of(reason),
        }
    }

    /// Whether any entry has this action.
    #[must_use]
    pub fn any(&self, action: FailureAction) -> bool {
        let said = self.by_reason.iter().map(|(_, a)| *a).chain(self.by_kind.iter().map(|(_, a)| *a));
        self.default == action || said.into_iter().any(|a| a == action)
    }
}

/// Settings for inbound mail.
#[derive(Debug, Clone, Default)]
pub struct InboundPolicy {
    /// Whether verdicts are enforced.
    pub mode: InboundMode,
    /// When null-sender mail to an address without a tag is refused.
    pub reject_at: RejectAt,
    /// What is done with false bounces.
    pub actions: FailureActions,
    /// The quarantine mailbox.
    pub quarantine_to: Option<Address>,
    /// Senders in `daemon_senders` that are not checked all the same; with `own_senders_tagged`, senders that need no
    /// tag.
    pub exempt_senders: AddressSet,
    /// Recipients that accept all mail.
    pub exempt_recipients: AddressSet,
    /// Clients whose mail is marked at most, never refused as a false bounce.
    pub exempt_clients: Networks,
    /// Clients that relay mail of others; their bad tags and unknown recipients are not limited.
    pub trusted_relays: Networks,
    /// Bad tags per minute that one client network may try at one recipient; 0: no limit.
    pub guesses_per_minute: u32,
    /// Whether bounces to a tag are deferred if its mail cannot have earned them; otherwise they are only counted.
    pub replay_limit: bool,
    /// Whether bounces without a valid tag are searched for evidence.
    pub evidence: bool,
    /// Days that mail may wait in the mail server's queue before it bounces.
    pub queue_lifetime: u16,
    /// Whether recipients outside the site's domains are left to the next hop.
    pub pass_foreign: bool,
    /// Whether mail from outside with a local sender needs a valid tag.
    pub own_senders_tagged: bool,
    /// Whether SRS addresses are reversed for senders other than the null sender, too.
    pub srs_for_senders: bool,
    /// Whether a valid SRS recipient keeps its tag, so that the MTA reverses it.
    pub srs_stays: bool,
    /// Senders that are checked like the null sender, because bounces may come from them.
    pub daemon_senders: AddressSet,
    /// Where recipients are looked up.
    pub recipients: RecipientSources,
}

/// Where it is found out whether a recipient exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RecipientSource {
    /// From the next hop's reply to RCPT.
    #[default]
    NextHop,
    /// From the server with this number in the config.
    Server(usize),
    /// From the file with this number in the config.
    File(usize),
}

/// Where recipients are looked up, by domain.
#[derive(Debug, Clone, Default)]
pub struct RecipientSources {
    default: RecipientSource,
    by_domain: Vec<(DomainSet, RecipientSource)>,
}

impl RecipientSources {
    /// `default` for all domains that `by_domain` does not name. The first entry that includes a domain counts.
    #[must_use]
    pub fn new(default: RecipientSource, by_domain: Vec<(DomainSet, RecipientSource)>) -> Self {
        Self { default, by_domain }
    }

    /// Where recipients of a domain are looked up.
    #[must_use]
    pub fn of(&self, domain: &str) -> RecipientSource {
        let named = self.by_domain.iter().find(|(domains, _)| domains.contains(domain));
        named.map_or(self.default, |(_, source)| *source)
    }

    /// Whether the next hop decides about all recipients.
    #[must_use]
    pub fn are_left_to_the_next_hop(&self) -> bool {
        self.default == RecipientSource::NextHop && self.by_domain.is_empty()
    }
}
