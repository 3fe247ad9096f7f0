//! The config file, in TOML. It is read in two steps: `raw` holds the values as typed, [`Config`] the checked values
//! with their defaults.

mod choices;
mod every_mistake;
mod limits;
mod listeners;
mod mistakes;
mod mta_services;
mod ndr;
mod notify;
mod raw;
mod recipients;
mod reload;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::choices::LocatedError;
pub use self::choices::{
    Access, AddressDetail, Certificate, HopTls, LogFormat, Protocol, ProxyUnknown, Role, SendProxy, ServiceProtocol,
    Side, StrayNewline, SyncMode, TlsMode, TokenFor,
};
pub use self::limits::Limits;
pub use self::listeners::Listener;
pub use self::mta_services::MtaService;
pub use self::notify::Notify;
use self::raw::{Raw, SrsDomain};
pub use self::recipients::{RecipientLookups, RecipientServer};
pub use self::reload::ConfigChanges;
pub use self::words::{Endpoint, listed};
use crate::envelope::address::Address;
use crate::envelope::bounce::MessageKind;
use crate::envelope::match_lists::{AddressSet, AliasDomains, DomainSet, most_specific_first};
use crate::envelope::site_policy::{
    FailureAction, FailureActions, FailureReason, InboundPolicy, OutboundPolicy, Policy, SiteDomains,
};
use crate::envelope::tag::{CaseFolding, batv, srs};

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection to a next hop and its greeting, a TLS handshake, or a PROXY header.
    pub connect: Duration,
    /// For a whole command of the client, and for the next octets of a message.
    pub command: Duration,
    /// For a whole transaction, from MAIL to the end of the message.
    pub transaction: Duration,
    /// For a reply of the next hop.
    pub next_hop: Duration,
    /// For transactions in progress when the daemon stops.
    pub drain: Duration,
}

/// The whole config, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The config file.
    pub path: PathBuf,
    /// What the site has decided, for the rules.
    pub policy: Policy,
    /// The file of the key ring.
    pub ring: PathBuf,
    /// Listeners for mail.
    pub listeners: Vec<Listener>,
    /// Listeners for queries of an MTA.
    pub mta_services: Vec<MtaService>,
    /// Next hops for the recipients of reversed SRS addresses.
    pub srs_next_hop: Vec<Endpoint>,
    /// Where recipients are looked up.
    pub recipients: RecipientLookups,
    /// Octets of a message to be inspected that are buffered before its verdict.
    pub hold: usize,
    /// Limits on the use of resources by clients.
    pub limits: Limits,
    /// The address of the HTTP status listener.
    pub status: Option<Endpoint>,
    /// Host names by which clients may ask it, in addition to IP addresses and the name of this machine.
    pub status_hosts: Vec<String>,
    /// The secret of its page.
    pub status_token: StatusToken,
    /// Where the daemon keeps what must survive a restart.
    pub state: StateFile,
    /// The socket by which commands reach the running daemon.
    pub control: ControlSocket,
    /// Who is told when something needs doing.
    pub notify: Notify,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Which log lines are written: a level, or a filter of the `tracing` crate.
    pub log_level: String,
    /// The keys that the file sets, with their tables, and their values as text.
    pub settings: BTreeMap<String, String>,
}

/// The Unix socket by which commands reach the running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSocket {
    /// Its path; `None`: there is none.
    pub path: Option<PathBuf>,
    /// Whether the config names no path, so that a folder that the service manager gives goes first.
    pub is_default: bool,
}

impl ControlSocket {
    /// The path where the config names none, relative to its folder.
    pub const DEFAULT: &str = "run/countersign.sock";
}

/// The file with the secret of the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusToken {
    /// Its path.
    pub path: PathBuf,
    /// Whether the config names no path, so that a folder that the service manager gives goes first.
    pub is_default: bool,
    /// Who has to know it in order to read the page.
    pub needed_by: TokenFor,
}

/// The file in which the daemon keeps what must survive a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFile {
    /// Its path; `None`: in memory only.
    pub path: Option<PathBuf>,
    /// Whether the config names no path, so that a folder that the service manager gives goes first.
    pub is_default: bool,
    /// The largest size of the file, in octets.
    pub max_size: u64,
    /// The most recent decisions that are kept; 0: none.
    pub decisions: usize,
    /// How much of addresses is kept with them.
    pub addresses: AddressDetail,
}

/// An error in the config: its place, and how to correct it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The config file.
    pub path: PathBuf,
    /// The line, counted from 1, if it is known.
    pub line: Option<usize>,
    /// The error, and how to correct it.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.text),
            None => write!(f, "{}: {}", self.path.display(), self.text),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has a value that is not allowed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.to_owned(),
            line: None,
            text: format!("cannot be read: {error}"),
        })?;
        Self::parse(path, &text)
    }

    /// Checks `text` as the content of the file `path`. Relative paths in it are relative to the folder of that file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let at = |offset: usize| text.get(..offset).map(|head| head.matches('\n').count() + 1);
        let error = |line, text: String| ConfigError { path: path.to_owned(), line, text };
        let raw: Raw = toml::from_str(text).map_err(|e| {
            let line = e.span().and_then(|span| at(span.start));
            error(line, mistakes::in_our_words(e.message().trim_end(), text, line))
        })?;
        check(&raw).map_err(|(offset, text)| error(offset.and_then(at), text))?;
        let has_domains = !raw.domains.local.is_empty() || raw.domains.srs_domain.is_some();
        let folder = path.parent().unwrap_or(Path::new(""));
        let config = build(raw, path, folder).map_err(|(offset, text)| error(offset.and_then(at), text))?;
        // Asked last: it may be the only thing that is missing, but hides no other mistake.
        if !has_domains {
            let text = "domains.local is empty: name the domains whose mail is yours, local = [\"our.example\"]";
            return Err(error(None, text.into()));
        }
        Ok(Self { settings: reload::settings(text), ..config })
    }
}

impl Config {
    /// The differences to a newer version of this config.
    #[must_use]
    pub fn changes_to(&self, newer: &Self) -> ConfigChanges {
        self.versions(newer).changes()
    }

    /// A newer version of this config, as far as a running daemon can take it: keys that need a restart keep the values
    /// of this one.
    #[must_use]
    pub fn reloaded(&self, mut newer: Self) -> Self {
        if self.has_milter() {
            newer.policy.outbound.evidence = self.policy.outbound.evidence;
            newer.policy.outbound.exempt_recipients = self.policy.outbound.exempt_recipients.clone();
            newer.policy.outbound.mixed = self.policy.outbound.mixed;
            newer.timeouts.transaction = self.timeouts.transaction;
            newer.timeouts.drain = self.timeouts.drain;
            let actions = &mut newer.policy.inbound.actions.by_reason;
            actions.retain(|(reason, _)| *reason != FailureReason::Overflow);
            let old = self.policy.inbound.actions.by_reason.iter();
            actions.extend(old.filter(|(reason, _)| *reason == FailureReason::Overflow));
        }
        if self.has_outbound_milter() {
            newer.policy.outbound.ndr = self.policy.outbound.ndr.clone();
        }
        newer.policy.inbound.pass_foreign &= self.policy.inbound.pass_foreign;
        if self.versions(&newer).has_services_with_default() {
            let default = self.limits.connections;
            let is_default = |it: &Listener| it.connections == newer.limits.connections;
            newer.listeners.iter_mut().filter(|it| is_default(it)).for_each(|it| it.connections = default);
            newer.limits.connections = default;
        }
        newer.settings = self.versions(&newer).kept();
        listeners::keep_sockets(&self.listeners, &mut newer.listeners, &self.mta_services, &mut newer.mta_services);
        newer.state.path.clone_from(&self.state.path);
        (newer.state.is_default, newer.state.max_size) = (self.state.is_default, self.state.max_size);
        Self { status: self.status.clone(), control: self.control.clone(), log_format: self.log_format, ..newer }
    }

    fn versions<'a>(&'a self, newer: &'a Self) -> reload::Versions<'a> {
        let (has_milter, has_outbound_milter) = (self.has_milter(), self.has_outbound_milter());
        reload::Versions { old: &self.settings, new: &newer.settings, has_milter, has_outbound_milter }
    }

    fn has_outbound_milter(&self) -> bool {
        let is_one = |it: &MtaService| it.protocol == ServiceProtocol::Milter && it.side == Side::Outbound;
        self.mta_services.iter().any(is_one)
    }

    fn has_milter(&self) -> bool {
        self.mta_services.iter().any(|service| service.protocol == ServiceProtocol::Milter)
    }
}

/// Checks what serde cannot: ranges, and values that contradict each other.
fn check(raw: &Raw) -> Result<(), LocatedError> {
    let days = |name: &str, value: &Option<toml::Spanned<u16>>, max: u16| match value {
        Some(days) if !(1..=max).contains(days.get_ref()) => {
            Err((Some(days.span().start), format!("{name} must be 1 to {max} days")))
        }
        _ => Ok(()),
    };
    // Less than half of the tag's day range (1000 days for BATV, 1024 for SRS), with room for the clock tolerance. With
    // a longer lifetime, a day in the future could not be told from one in the past.
    days("batv.lifetime", &raw.batv.lifetime, 400)?;
    days("srs.lifetime", &raw.srs.lifetime, 400)?;
    let least = |name: &str, value: Option<(usize, usize)>, least: usize| match value {
        Some((n, at)) if n < least => Err((Some(at), format!("limits.{name} must be at least {least}"))),
        _ => Ok(()),
    };
    fn placed<T: Copy + TryInto<usize>>(value: &Option<toml::Spanned<T>>) -> Option<(usize, usize)> {
        value.as_ref().map(|v| ((*v.get_ref()).try_into().unwrap_or(usize::MAX), v.span().start))
    }
    least("connections", placed(&raw.limits.connections), 1)?;
    least("commands", placed(&raw.limits.commands), 10)?;
    // RFC 5321 sections 4.5.3.1.8 and 4.5.3.1.4.
    least("recipients", placed(&raw.limits.recipients), 100)?;
    least("line", placed(&raw.limits.line), 512)?;
    if let Some(status) = &raw.status.listen
        && !matches!(status.get_ref(), Endpoint::Tcp { .. })
    {
        return Err((Some(status.span().start), "status.listen must be host:port".into()));
    }
    if let Some(length) = raw.srs.hash_length.as_ref().filter(|n| !(4..=32).contains(n.as_ref())) {
        return Err((Some(length.span().start), "srs.hash_length must be 4 to 32 characters".into()));
    }
    let length = raw.srs.hash_length.as_ref().map_or(6, |n| *n.as_ref());
    if let Some(min) = raw.srs.hash_min.as_ref().filter(|n| !(4..=length).contains(n.as_ref())) {
        return Err((Some(min.span().start), format!("srs.hash_min must be 4 to srs.hash_length, which is {length}")));
    }
    Ok(())
}

fn build(raw: Raw, path: &Path, folder: &Path) -> Result<Config, LocatedError> {
    let tolerance = raw.clock_tolerance.unwrap_or(1);
    let limits = Limits::of(raw.limits);
    let (listeners, mta_services) = listeners::build(raw.listener, folder, limits.connections)?;
    let entries = |list: Vec<words::AddressEntry>| list.into_iter().map(|e| e.0).collect::<AddressSet>();
    let or = |list: Option<Vec<words::AddressEntry>>, default: &[&str]| match list {
        Some(list) => entries(list),
        None => default.iter().collect(),
    };
    let names = |list: Vec<words::Name>| list.into_iter().map(|n| n.0).collect::<DomainSet>();
    let inbound = raw.inbound;
    // `foreign = "pass"` must not make an open relay.
    let open = listeners.iter().find(|l| l.role == Role::Inbound && l.clients.is_empty());
    if let (Some(true), Some(listener)) = (inbound.foreign, open) {
        return Err((
            None,
            format!(
                "inbound.foreign = \"pass\" would relay for strangers: give the inbound listener {} its clients",
                listener.listen
            ),
        ));
    }
    // With port 0, the system chooses another port for each.
    if let Some(status) = &raw.status.listen
        && !matches!(status.get_ref(), Endpoint::Tcp { port: 0, .. })
        && (listeners.iter().map(|l| &l.listen))
            .chain(mta_services.iter().map(|a| &a.listen))
            .any(|l| l == status.get_ref())
    {
        return Err((Some(status.span().start), format!("status.listen and a listener are both {}", status.get_ref())));
    }
    let mut aliases = AliasDomains::default();
    match raw.domains.srs_domain {
        Some(SrsDomain::One(name)) => aliases.insert("*", &name.0),
        Some(SrsDomain::Table(table)) => {
            let mut table: Vec<_> = table.into_iter().collect();
            most_specific_first(&mut table);
            table.iter().for_each(|(sender, alias)| aliases.insert(sender, &alias.0));
        }
        None => {}
    }
    let a = &inbound.actions;
    let evidence = raw.outbound.evidence.unwrap_or(true) && inbound.evidence.unwrap_or(true);
    // Mail of senders that are too long to be signed carries evidence. Without evidence, genuine bounces to it cannot
    // be recognised.
    let overflow = a.overflow.or((!evidence).then_some(FailureAction::Mark));
    let reasons = FailureReason::ALL.into_iter().zip([
        a.forged,
        a.expired,
        a.future,
        a.untagged_ndr,
        a.daemon_ndr,
        a.text_ndr,
        overflow,
        a.doubtful_ndr,
    ]);
    let kinds = [
        (MessageKind::DsnFailed, a.dsn_failed),
        (MessageKind::DsnDelayed, a.dsn_delayed),
        (MessageKind::TextBounce, a.text_bounce),
    ];
    let actions = FailureActions {
        default: inbound.action.unwrap_or_default(),
        by_reason: reasons.filter_map(|(reason, action)| Some((reason, action?))).collect(),
        by_kind: kinds.into_iter().filter_map(|(kind, action)| Some((kind, action?))).collect(),
    };
    let quarantine_to = inbound.quarantine_to.map(quarantine_address).transpose()?;
    if actions.any(FailureAction::Quarantine) && quarantine_to.is_none() {
        return Err((
            None,
            "an action is \"quarantine\", and nobody is named for it: set inbound.quarantine_to = \"quarantine@our.example\"".into(),
        ));
    }
    let networks = |list: &[words::NetworkWord]| list.iter().map(|n| n.0).collect();
    let hash_length = raw.srs.hash_length.map_or(6, toml::Spanned::into_inner);
    let domains = SiteDomains { local: names(raw.domains.local), relay: names(raw.domains.relay), srs: aliases };
    let (recipients, sources) = RecipientLookups::of(inbound.recipients, &domains, folder)?;
    let policy = Policy {
        domains,
        outbound: OutboundPolicy {
            mode: raw.outbound.mode.unwrap_or_default(),
            pilot: entries(raw.outbound.pilot),
            overflow: raw.outbound.overflow.unwrap_or_default(),
            long_srs: raw.srs.long.unwrap_or_default(),
            mixed: raw.outbound.mixed.unwrap_or_default(),
            exempt_senders: or(raw.outbound.exempt_senders, &["double-bounce@", "postmaster@"]),
            exempt_recipients: entries(raw.outbound.exempt_recipients),
            exempt_clients: networks(&raw.outbound.exempt_clients),
            evidence: raw.outbound.evidence.unwrap_or(true),
            ndr: ndr::build(raw.outbound.ndr)?,
        },
        inbound: InboundPolicy {
            mode: inbound.mode.unwrap_or_default(),
            reject_at: inbound.reject_at.unwrap_or_default(),
            actions,
            quarantine_to,
            exempt_senders: entries(inbound.exempt_senders),
            exempt_recipients: or(inbound.exempt_recipients, &["postmaster@", "abuse@"]),
            exempt_clients: networks(&inbound.exempt_clients),
            trusted_relays: networks(&inbound.trusted_relays),
            guesses_per_minute: inbound.guesses_per_minute.unwrap_or(60),
            replay_limit: inbound.replay.unwrap_or(true),
            evidence: inbound.evidence.unwrap_or(true),
            queue_lifetime: raw.batv.queue_lifetime.unwrap_or(5),
            pass_foreign: inbound.foreign.unwrap_or(false),
            own_senders_tagged: inbound.own_senders.unwrap_or(false),
            srs_for_senders: inbound.srs_for_senders,
            srs_stays: inbound.srs_reverse.unwrap_or(false),
            recipients: sources,
            daemon_senders: or(
                inbound.daemon_senders,
                &["mailer-daemon@", "postmaster@", "mail-daemon@", "double-bounce@"],
            ),
        },
        batv: batv::BatvParams {
            lifetime: raw.batv.lifetime.map_or(7, toml::Spanned::into_inner),
            mac: raw.batv.mac.unwrap_or_default(),
            clock_tolerance: tolerance,
            case: CaseFolding::Fold,
        },
        srs: srs::SrsParams {
            lifetime: raw.srs.lifetime.map_or(21, toml::Spanned::into_inner),
            separator: raw.srs.separator.unwrap_or('='),
            hash_length,
            hash_min: raw.srs.hash_min.map_or(hash_length, toml::Spanned::into_inner),
            clock_tolerance: tolerance,
            always_rewrite: raw.srs.always_rewrite,
            ..srs::SrsParams::default()
        },
    };
    let hold = inbound.hold.map_or(128 << 10, |s| s.0);
    let held = limits.held;
    if held < hold || hold == 0 {
        return Err((
            None,
            format!("limits.held is {held} octets, and inbound.hold {hold}: not one message could be held"),
        ));
    }
    let span = |value: Option<words::Span>, default: u64| value.map_or(Duration::from_secs(default), |s| s.0);
    Ok(Config {
        path: path.to_owned(),
        policy,
        ring: folder.join(raw.keys.ring.as_deref().unwrap_or("keys/ring.toml")),
        listeners,
        mta_services,
        recipients,
        srs_next_hop: inbound.srs_next_hop.map(Into::into).unwrap_or_default(),
        hold,
        limits,
        status: raw.status.listen.map(toml::Spanned::into_inner),
        status_hosts: raw.status.hosts.into_iter().map(|name| name.0).collect(),
        status_token: StatusToken {
            is_default: raw.status.token_file.is_none(),
            path: folder.join(raw.status.token_file.as_deref().unwrap_or("state/status-token")),
            needed_by: raw.status.token_for.unwrap_or_default(),
        },
        state: StateFile {
            is_default: raw.state.path.is_none(),
            path: match raw.state.path.as_deref() {
                Some("none") => None,
                path => Some(folder.join(path.unwrap_or("state/countersign.db"))),
            },
            max_size: raw.state.max_size.map_or(512 << 20, |size| size.0 as u64),
            decisions: raw.state.decisions.unwrap_or(100_000),
            addresses: raw.state.addresses.unwrap_or_default(),
        },
        control: control_socket(raw.control.listen, folder)?,
        timeouts: Timeouts {
            connect: span(raw.timeouts.connect, 30),
            command: span(raw.timeouts.command, 300),
            transaction: span(raw.timeouts.transaction, 3600),
            next_hop: span(raw.timeouts.next_hop, 600),
            drain: span(raw.timeouts.drain, 30),
        },
        notify: notify::build(raw.notify)?,
        settings: BTreeMap::new(),
        log_format: raw.log.format.unwrap_or_default(),
        log_level: raw.log.level.map_or_else(|| "info".into(), |level| level.0),
    })
}

fn control_socket(listen: Option<toml::Spanned<String>>, folder: &Path) -> Result<ControlSocket, LocatedError> {
    let Some(listen) = listen else {
        return Ok(ControlSocket { path: Some(folder.join(ControlSocket::DEFAULT)), is_default: true });
    };
    let path = match (listen.get_ref().as_str(), listen.get_ref().strip_prefix("unix:")) {
        ("none", _) => None,
        (_, Some(path)) if !path.is_empty() => Some(folder.join(path)),
        _ => return Err((Some(listen.span().start), "control.listen must be unix:PATH or \"none\"".into())),
    };
    Ok(ControlSocket { path, is_default: false })
}

fn quarantine_address(text: toml::Spanned<String>) -> Result<Address, LocatedError> {
    let at = text.span().start;
    Address::parse(text.get_ref()).map_err(|error| (Some(at), format!("inbound.quarantine_to: {error}")))
}

#[cfg(test)]
mod tests;
