//! What a site has decided, in the form the rules ask it: sets of domains, addresses and networks, and the switches.
//!
//! Pure data. `config` builds it from the file and says what is wrong there; here nothing can be wrong any more.

use core::net::IpAddr;
use std::collections::HashSet;

use ipnet::IpNet;

use super::address::{Address, canonical_domain};
use super::bounce::MessageKind;
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
    /// Whether a domain is ours. A wildcard does not cover an SRS domain: that holds nothing but SRS addresses unless it is
    /// named itself.
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

/// A set of domain names, some of them standing for all their subdomains.
#[derive(Debug, Clone, Default)]
pub struct DomainSet {
    exact: HashSet<String>,
    /// Without the leading dot.
    below: HashSet<String>,
}

impl DomainSet {
    /// Adds `our.example`, or `.our.example` or `*.our.example` for its subdomains.
    pub fn insert(&mut self, name: &str) {
        match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            Some(parent) => self.below.insert(canonical_domain(parent).into_owned()),
            None => self.exact.insert(canonical_domain(name).into_owned()),
        };
    }

    /// Whether a domain, in whatever spelling, is in the set.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        if self.exact.is_empty() && self.below.is_empty() {
            return false;
        }
        let domain = canonical_domain(domain);
        if self.exact.contains(domain.as_ref()) {
            return true;
        }
        let mut rest = domain.as_ref();
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// Whether a domain is in the set by its own name, not below another.
    #[must_use]
    pub fn names_exactly(&self, domain: &str) -> bool {
        self.exact.contains(canonical_domain(domain).as_ref())
    }

    /// The entry that a domain falls under, as it is written in a config: its own name, or `.parent`.
    #[must_use]
    pub fn entry(&self, domain: &str) -> Option<String> {
        let domain = canonical_domain(domain);
        if self.exact.contains(domain.as_ref()) {
            return Some(domain.into_owned());
        }
        let mut rest = domain.as_ref();
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return Some(format!(".{parent}"));
            }
            rest = parent;
        }
        None
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// The names as they are written in a config, sorted, for showing.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let below = self.below.iter().map(|parent| format!(".{parent}"));
        let mut names: Vec<String> = self.exact.iter().cloned().chain(below).collect();
        names.sort_unstable();
        names
    }
}

impl<S: AsRef<str>> FromIterator<S> for DomainSet {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut set = Self::default();
        names.into_iter().for_each(|name| set.insert(name.as_ref()));
        set
    }
}

/// Which alias domain a foreign sender is rewritten into.
#[derive(Debug, Clone, Default)]
pub struct AliasDomains {
    rules: Vec<(DomainSet, String)>,
    default: Option<String>,
    all: DomainSet,
}

impl AliasDomains {
    /// One alias domain for everybody.
    #[must_use]
    pub fn one(alias: &str) -> Self {
        let mut domains = Self::default();
        domains.insert("*", alias);
        domains
    }

    /// Senders of this domain (or `*`: of all others) get this alias domain. The first that fits decides.
    pub fn insert(&mut self, sender_domain: &str, alias: &str) {
        self.all.insert(alias);
        if sender_domain == "*" {
            self.default = Some(alias.to_owned());
        } else {
            self.rules.push((DomainSet::from_iter([sender_domain]), alias.to_owned()));
        }
    }

    /// The alias domain for a sender; `None`: SRS is off for it.
    #[must_use]
    pub fn alias_for(&self, sender_domain: &str) -> Option<&str> {
        let special = self.rules.iter().find(|(domains, _)| domains.contains(sender_domain)).map(|(_, alias)| alias);
        special.or(self.default.as_ref()).map(String::as_str)
    }

    /// The alias domains, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.all.names()
    }

    /// Whether a domain is one of the alias domains.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        self.all.contains(domain)
    }

    /// Whether SRS is off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// A set of addresses: whole ones, local parts in every domain (`postmaster@`), domains (`our.example`, `@our.example`,
/// `.our.example`).
#[derive(Debug, Clone, Default)]
pub struct AddressSet {
    whole: HashSet<(String, String)>,
    locals: HashSet<String>,
    domains: DomainSet,
}

impl AddressSet {
    /// Adds one entry; see the type for its forms.
    pub fn insert(&mut self, entry: &str) {
        match entry.rsplit_once('@') {
            Some(("", domain)) => self.domains.insert(domain),
            Some((local, "")) => {
                self.locals.insert(local.to_ascii_lowercase());
            }
            Some((local, domain)) => {
                self.whole.insert((local.to_ascii_lowercase(), canonical_domain(domain).into_owned()));
            }
            None => self.domains.insert(entry),
        }
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.locals.is_empty() && self.domains.is_empty()
    }

    /// Domains in it without a dot: more likely local parts whose `@` was forgotten.
    #[must_use]
    pub fn bare_words(&self) -> Vec<String> {
        self.domains.names().into_iter().filter(|name| !name.contains('.')).collect()
    }

    /// Whether an address is in the set, without case.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        if !self.locals.is_empty() || !self.whole.is_empty() {
            let local = address.content().to_ascii_lowercase();
            if self.locals.contains(&local) {
                return true;
            }
            if !self.whole.is_empty() && self.whole.contains(&(local, address.canonical_domain().into_owned())) {
                return true;
            }
        }
        self.domains.contains(address.domain())
    }
}

impl<S: AsRef<str>> FromIterator<S> for AddressSet {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut set = Self::default();
        entries.into_iter().for_each(|entry| set.insert(entry.as_ref()));
        set
    }
}

/// A list of client networks.
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether an address is in one of them. An IPv4 client on an IPv6 socket counts as IPv4.
    #[must_use]
    pub fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|net| net.contains(&client))
    }

    /// Whether it is loopback only (and not empty).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|net| net.network().is_loopback() && net.broadcast().is_loopback())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they are written in a config.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        Self(nets.into_iter().collect())
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
    /// The action for a reason. Words alone are not held against a sender that is not null unless the config says so, nor are
    /// those that show nothing.
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
    /// Whether bounces to a tag are put off when they are more than its mail can have earned; else they are only counted.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_their_subdomains() {
        let set = DomainSet::from_iter(["our.example", ".deep.example", "*.star.example", "bücher.example"]);
        for yes in [
            "our.example",
            "OUR.Example",
            "a.deep.example",
            "a.b.deep.example",
            "x.star.example",
            "xn--bcher-kva.example",
        ] {
            assert!(set.contains(yes), "{yes}");
        }
        for no in ["a.our.example", "deep.example", "star.example", "example", "our.example.", "xour.example", ""] {
            assert!(!set.contains(no), "{no}");
        }
        assert_eq!(set.entry("OUR.example").as_deref(), Some("our.example"));
        assert_eq!(set.entry("a.b.deep.example").as_deref(), Some(".deep.example"));
        assert_eq!(set.entry("deep.example"), None);
    }

    #[test]
    fn address_lists() {
        let set = AddressSet::from_iter(["postmaster@", "ann@our.example", "@list.example", ".sub.example"]);
        for yes in ["PostMaster@any.example", "Ann@OUR.example", "x@list.example", "x@a.sub.example"] {
            assert!(set.contains(&Address::parse(yes).unwrap()), "{yes}");
        }
        for no in ["bob@our.example", "ann@else.example", "x@sub.example"] {
            assert!(!set.contains(&Address::parse(no).unwrap()), "{no}");
        }
    }

    #[test]
    fn clients_by_network() {
        let nets: Networks = ["192.0.2.0/24", "2001:db8::/32"].iter().map(|n| n.parse().unwrap()).collect();
        assert!(nets.contains("192.0.2.9".parse().unwrap()));
        assert!(nets.contains("::ffff:192.0.2.9".parse().unwrap()));
        assert!(!nets.contains("192.0.3.9".parse().unwrap()));
        assert!(!nets.is_loopback());
    }
}
