//! What a site has decided, in the form the rules ask it: sets of domains, addresses and networks, and the switches.
//!
//! Pure data. `config` builds it from the file and says what is wrong there; here nothing can be wrong any more.

use super::address::Address;
use super::bounce::MessageKind;
use super::match_lists::{AddressSet, AliasDomains, DomainSet, Networks};
use super::tag::{batv, srs};

/// Everything the rules need to know beside keys and time.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whose domain is whose.
    pub domains: SiteDomains,
    /// What happens to mail that leaves.
    pub outbound: OutboundPolicy,
    /// What happens to mail that comes in.
    pub inbound: InboundPolicy,
    /// Lifetime and form of prvs tags.
    pub batv: batv::BatvParams,
    /// Lifetime and form of SRS addresses.
    pub srs: srs::SrsParams,
}

/// Whose domain is whose.
#[derive(Debug, Clone, Default)]
pub struct SiteDomains {
    /// Ours: signed going out, judged coming in.
    pub local: DomainSet,
    /// Mail for others that we carry on: no tags, no verdicts.
    pub relay: DomainSet,
    /// Where SRS addresses live.
    pub srs: AliasDomains,
}

impl SiteDomains {
    /// Whether a domain is ours. A wildcard does not cover an SRS domain: that holds nothing but SRS addresses unless
    /// it is named itself.
    #[must_use]
    pub fn is_local(&self, domain: &str) -> bool {
        self.local.contains(domain) && (!self.srs.contains(domain) || self.local.names_exactly(domain))
    }

    /// The entry of `local` that a domain falls under; see [`Self::is_local`].
    #[must_use]
    pub fn local_entry(&self, domain: &str) -> Option<String> {
        self.local.entry(domain).filter(|_| self.is_local(domain))
    }

    /// SRS domains that a wildcard in `local` would cover, sorted.
    #[must_use]
    pub fn srs_below_a_wildcard(&self) -> Vec<String> {
        let covered = |name: &String| self.local.contains(name) && !self.local.names_exactly(name);
        self.srs.names().into_iter().filter(covered).collect()
    }
}

/// Whether mail that leaves is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutboundMode {
    /// No sender is signed.
    Off,
    /// Of those in `pilot`.
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

/// What to do when the signed local part is longer than 64 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It goes unsigned.
    #[default]
    Pass,
    /// It is signed all the same.
    Sign,
    /// 553 5.1.7.
    Reject,
}

/// What to do with recipients that want another sender than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mixed {
    /// A transaction for each sender.
    #[default]
    Split,
    /// Recipient exemptions are not looked at.
    Sign,
}

/// What happens to mail that leaves.
#[derive(Debug, Clone, Default)]
pub struct OutboundPolicy {
    /// Whether it is signed.
    pub mode: OutboundMode,
    /// Who is signed under [`OutboundMode::Pilot`].
    pub pilot: AddressSet,
    /// Signed local parts over 64 octets.
    pub overflow: Overflow,
    /// Recipients of two kinds in one transaction.
    pub mixed: Mixed,
    /// Senders that are never signed.
    pub exempt_senders: AddressSet,
    /// Recipients for whom nothing is signed.
    pub exempt_recipients: AddressSet,
    /// Clients whose mail is not signed.
    pub exempt_clients: Networks,
    /// Whether signed mail carries the evidence header.
    pub evidence: bool,
}

impl OutboundPolicy {
    /// Whether a recipient can make a difference to its sender. Where none can, nobody has to ask for each.
    #[must_use]
    pub fn recipients_matter(&self) -> bool {
        self.mixed == Mixed::Split && !self.exempt_recipients.is_empty()
    }
}

/// Whether verdicts are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InboundMode {
    /// Nothing is refused; what would have been is marked.
    Observe,
    /// Each domain is observed until every bounce to mail that left unsigned is dead, and enforced from then on.
    #[default]
    Ramp,
    /// Verdicts are carried out.
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

/// When a null-sender recipient without a tag is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RejectAt {
    /// When its content has been seen.
    #[default]
    Data,
    /// At RCPT, before the content is seen.
    Rcpt,
    /// When its content has been seen, but at once while far more of them come than usual.
    Auto,
}

/// What is done to mail that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureAction {
    /// 550.
    #[default]
    Reject,
    /// 250, and nobody ever sees it.
    Discard,
    /// Delivered, with a header that says why it should not be.
    Mark,
    /// Delivered to somebody else, with that header.
    Quarantine,
    /// 451.
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

/// Why mail fails, as config, headers and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The MAC is not ours.
    Forged,
    /// The tag is too old, or its key retired.
    Expired,
    /// The tag is dated further ahead than we sign.
    Future,
    /// A null-sender NDR to an address without a tag.
    UntaggedNdr,
    /// A delivery status notification of a daemon sender that is not null, to an address without a good tag.
    DaemonNdr,
    /// An NDR in words only, of a daemon sender that is not null, to an address without a good tag.
    TextNdr,
    /// A null-sender NDR to an address that is too long to be signed.
    Overflow,
    /// A null-sender NDR in words only that shows nothing of what it is about, to an address without a tag.
    DoubtfulNdr,
}

impl Reason {
    /// All of them.
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

/// What is done, by reason, and for what the content shows by kind.
#[derive(Debug, Clone, Default)]
pub struct FailureActions {
    /// Where nothing else is said.
    pub default: FailureAction,
    /// What is said of a reason.
    pub by_reason: Vec<(Reason, FailureAction)>,
    /// What is said of a kind of message.
    pub by_kind: Vec<(MessageKind, FailureAction)>,
}

impl FailureActions {
    /// The action for a reason. Words alone are not held against a sender that is not null unless the config says so,
    /// nor are those that show nothing.
    #[must_use]
    pub fn of(&self, reason: Reason) -> FailureAction {
        let by_words = matches!(reason, Reason::TextNdr | Reason::DoubtfulNdr);
        let default = if by_words { FailureAction::Mark } else { self.default };
        self.by_reason.iter().find(|(r, _)| *r == reason).map_or(default, |(_, action)| *action)
    }

    /// The action for a message of this kind: what is said of the kind goes before what is said of the reason, but for
    /// `text-ndr` and `doubtful-ndr`, which say both.
    #[must_use]
    pub fn of_kind(&self, reason: Reason, kind: MessageKind) -> FailureAction {
        let by_kind = self.by_kind.iter().find(|(k, _)| *k == kind).map(|(_, action)| *action);
        match by_kind {
            Some(action) if !matches!(reason, Reason::TextNdr | Reason::DoubtfulNdr) => action,
            _ => self.of(reason),
        }
    }

    /// Whether any of them is this one.
    #[must_use]
    pub fn any(&self, action: FailureAction) -> bool {
        let said = self.by_reason.iter().map(|(_, a)| *a).chain(self.by_kind.iter().map(|(_, a)| *a));
        self.default == action || said.into_iter().any(|a| a == action)
    }
}

/// What happens to mail that comes in.
#[derive(Debug, Clone, Default)]
pub struct InboundPolicy {
    /// Whether verdicts are carried out.
    pub mode: InboundMode,
    /// When untagged null-sender recipients are refused.
    pub reject_at: RejectAt,
    /// What is done to what fails.
    pub actions: FailureActions,
    /// Who gets what is quarantined.
    pub quarantine_to: Option<Address>,
    /// Senders that are not judged although they speak for a machine.
    pub exempt_senders: AddressSet,
    /// Recipients who get everything.
    pub exempt_recipients: AddressSet,
    /// Clients whose mail is never refused.
    pub exempt_clients: Networks,
    /// Clients that pass on what others send: their bad tags are not held against them.
    pub trusted_relays: Networks,
    /// How many bad tags a client network may try in a minute.
    pub guesses_per_minute: u32,
    /// Whether bounces to a tag are put off when they are more than its mail can have earned; else they are only
    /// counted.
    pub replay_limit: bool,
    /// Whether evidence is looked for.
    pub evidence: bool,
    /// Days that mail may wait in a queue before it bounces.
    pub queue_lifetime: u16,
    /// Whether recipients that are neither ours nor relayed pass on to the next hop's judgement.
    pub pass_foreign: bool,
    /// Whether mail from outside whose sender is in a domain of ours needs a good tag.
    pub own_senders_tagged: bool,
    /// Whether SRS addresses are reversed for senders other than the null sender, too.
    pub srs_for_senders: bool,
    /// Whether a valid SRS recipient keeps its tag, for the MTA to reverse.
    pub srs_stays: bool,
    /// Local parts of senders that speak for a machine.
    pub daemon_senders: AddressSet,
}
