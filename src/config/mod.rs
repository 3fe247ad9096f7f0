//! The config file: one TOML file, read twice. `raw` is what was typed; [`Config`] is what the program needs, and cannot
//! be wrong any more.

mod raw;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raw::{Raw, SrsDomain};
pub use values::Endpoint;

use crate::envelope::policy::{
    Actions, AddressSet, AliasDomains, DomainSet, Domains, Inbound, Networks, Outbound, Policy, Reason,
};
use crate::envelope::tag::{Case, batv, srs};

/// Which way mail goes through a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leaves: senders are signed.
    Outbound,
    /// It comes in: recipients are judged.
    Inbound,
}

impl Role {
    /// The word in config and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP, to an SMTP next hop.
    Smtp,
}

/// What becomes of line ends that are not CR LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrayNewline {
    /// LF becomes CR LF, a lone CR a space.
    #[default]
    Normalize,
    /// 550 5.5.2 at the end of data, 500 for a command.
    Reject,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// One way in.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Which way mail goes.
    pub role: Role,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where.
    pub listen: Endpoint,
    /// The MTA behind.
    pub next_hop: Endpoint,
    /// Who may connect; empty: everybody (inbound only).
    pub clients: Networks,
    /// What becomes of odd line ends.
    pub stray_newline: StrayNewline,
}

/// How long to wait for whom.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection to the next hop, and its greeting.
    pub connect: Duration,
    /// For the client.
    pub command: Duration,
    /// For an answer of the next hop.
    pub next_hop: Duration,
    /// For transactions in progress, at the end.
    pub drain: Duration,
}

/// The whole config, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// What the rules ask.
    pub policy: Policy,
    /// The key ring.
    pub ring: PathBuf,
    /// The ways in.
    pub listeners: Vec<Listener>,
    /// Where reversed SRS recipients go.
    pub srs_next_hop: Option<Endpoint>,
    /// Days that the MTA keeps mail in its queue.
    pub queue_lifetime: u16,
    /// How much of a candidate is held, in octets.
    pub hold: usize,
    /// How much is held for all sessions together, in octets.
    pub held: usize,
    /// Sessions at a time.
    pub connections: usize,
    /// How long to wait for whom.
    pub timeouts: Timeouts,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are: a level, or a filter of tracing.
    pub log_level: String,
}

/// What is wrong with a config: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What.
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
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or says something that cannot be meant.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.to_owned(),
            line: None,
            text: format!("cannot be read: {error}"),
        })?;
        Self::parse(path, &text)
    }

    /// Checks a text as if it stood in that file. Relative paths in it are taken from the file's folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let at = |offset: usize| text.get(..offset).map(|head| head.matches('\n').count() + 1);
        let error = |line, text: String| ConfigError { path: path.to_owned(), line, text };
        let raw: Raw = toml::from_str(text)
            .map_err(|e| error(e.span().and_then(|span| at(span.start)), in_our_words(e.message().trim_end())))?;
        check(&raw).map_err(|(offset, text)| error(offset.and_then(at), text))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        build(raw, path, folder).map_err(|(offset, text)| error(offset.and_then(at), text))
    }
}

type Wrong = (Option<usize>, String);

/// What serde cannot see: values that do not fit together.
fn check(raw: &Raw) -> Result<(), Wrong> {
    if raw.domains.local.is_empty() && raw.domains.srs_domain.is_none() {
        return Err((
            None,
            "domains.local is empty: name the domains whose mail is yours, local = [\"our.example\"]".into(),
        ));
    }
    let days = |name: &str, value: &Option<toml::Spanned<u16>>, max: u16| match value {
        Some(days) if !(1..=max).contains(days.get_ref()) => {
            Err((Some(days.span().start), format!("{name} must be 1 to {max} days")))
        }
        _ => Ok(()),
    };
    // Half the day circle of the tag, less the clock tolerance: further ahead could not be told from long ago.
    days("batv.lifetime", &raw.batv.lifetime, 400)?;
    days("srs.lifetime", &raw.srs.lifetime, 400)?;
    if let Some(none) = raw.limits.connections.as_ref().filter(|n| *n.as_ref() == 0) {
        return Err((Some(none.span().start), "limits.connections must be at least 1".into()));
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

fn build(raw: Raw, path: &Path, folder: &Path) -> Result<Config, Wrong> {
    let tolerance = raw.clock_tolerance.unwrap_or(1);
    let mut listeners: Vec<Listener> = Vec::new();
    for raw in raw.listener {
        let start = Some(raw.span().start);
        let next = listener(raw)?;
        let fixed = !matches!(next.listen, Endpoint::Tcp { port: 0, .. });
        if fixed && listeners.iter().any(|other| other.listen == next.listen) {
            return Err((start, format!("two listeners on {}", next.listen)));
        }
        if fixed && next.next_hop == next.listen {
            return Err((
                start,
                format!("the next_hop {} is the listener itself: mail would go round for ever", next.next_hop),
            ));
        }
        listeners.push(next);
    }
    let entries = |list: Vec<values::Entry>| list.into_iter().map(|e| e.0).collect::<AddressSet>();
    let or = |list: Option<Vec<values::Entry>>, default: &[&str]| match list {
        Some(list) => entries(list),
        None => default.iter().collect(),
    };
    let names = |list: Vec<values::Name>| list.into_iter().map(|n| n.0).collect::<DomainSet>();
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
    let mut aliases = AliasDomains::default();
    match raw.domains.srs_domain {
        Some(SrsDomain::One(name)) => aliases.insert("*", &name.0),
        Some(SrsDomain::Table(table)) => table.iter().for_each(|(sender, alias)| aliases.insert(sender, &alias.0)),
        None => {}
    }
    let a = &inbound.actions;
    let reasons = Reason::ALL.into_iter().zip([a.forged, a.expired, a.future, a.untagged_ndr, a.daemon_ndr]);
    let hash_length = raw.srs.hash_length.map_or(6, toml::Spanned::into_inner);
    let policy = Policy {
        domains: Domains { local: names(raw.domains.local), relay: names(raw.domains.relay), srs: aliases },
        outbound: Outbound {
            mode: raw.outbound.mode.unwrap_or_default(),
            pilot: entries(raw.outbound.pilot),
            overflow: raw.outbound.overflow.unwrap_or_default(),
            mixed: raw.outbound.mixed.unwrap_or_default(),
            exempt_senders: or(raw.outbound.exempt_senders, &["double-bounce@", "postmaster@"]),
            exempt_recipients: entries(raw.outbound.exempt_recipients),
        },
        inbound: Inbound {
            mode: inbound.mode.unwrap_or_default(),
            reject_at: inbound.reject_at.unwrap_or_default(),
            actions: Actions {
                default: inbound.action.unwrap_or_default(),
                by_reason: reasons.filter_map(|(reason, action)| Some((reason, action?))).collect(),
            },
            exempt_recipients: or(inbound.exempt_recipients, &["postmaster@", "abuse@"]),
            exempt_clients: inbound.exempt_clients.iter().map(|n| n.0).collect(),
            pass_foreign: inbound.foreign.unwrap_or(false),
            srs_for_senders: inbound.srs_for_senders,
            srs_stays: inbound.srs_reverse.unwrap_or(false),
            daemon_senders: or(
                inbound.daemon_senders,
                &["mailer-daemon@", "postmaster@", "mail-daemon@", "double-bounce@"],
            ),
        },
        batv: batv::Params {
            lifetime: raw.batv.lifetime.map_or(7, toml::Spanned::into_inner),
            mac: raw.batv.mac.unwrap_or_default(),
            clock_tolerance: tolerance,
            case: Case::Fold,
        },
        srs: srs::Params {
            lifetime: raw.srs.lifetime.map_or(21, toml::Spanned::into_inner),
            separator: raw.srs.separator.unwrap_or('='),
            hash_length,
            hash_min: raw.srs.hash_min.map_or(hash_length, toml::Spanned::into_inner),
            clock_tolerance: tolerance,
            always_rewrite: raw.srs.always_rewrite,
            ..srs::Params::default()
        },
    };
    let (hold, held) = (inbound.hold.map_or(128 << 10, |s| s.0), raw.limits.held.map_or(64 << 20, |s| s.0));
    if held < hold || hold == 0 {
        return Err((
            None,
            format!("limits.held is {held} octets, and inbound.hold {hold}: not one message could be held"),
        ));
    }
    let span = |value: Option<values::Span>, default: u64| value.map_or(Duration::from_secs(default), |s| s.0);
    Ok(Config {
        path: path.to_owned(),
        policy,
        ring: folder.join(raw.keys.ring.as_deref().unwrap_or("keys/ring.toml")),
        listeners,
        srs_next_hop: inbound.srs_next_hop,
        queue_lifetime: raw.batv.queue_lifetime.unwrap_or(5),
        hold,
        held,
        connections: raw.limits.connections.map_or(1000, toml::Spanned::into_inner),
        timeouts: Timeouts {
            connect: span(raw.timeouts.connect, 30),
            command: span(raw.timeouts.command, 300),
            next_hop: span(raw.timeouts.next_hop, 600),
            drain: span(raw.timeouts.drain, 30),
        },
        log_format: raw.log.format.unwrap_or_default(),
        log_level: raw.log.level.map_or_else(|| "info".into(), |level| level.0),
    })
}

fn listener(raw: toml::Spanned<raw::Listener>) -> Result<Listener, Wrong> {
    let start = Some(raw.span().start);
    let raw = raw.into_inner();
    let missing =
        |name: &str, example: &str| (start, format!("this listener has no {name}; write {name} = \"{example}\""));
    let role = raw.role.ok_or_else(|| missing("role", "outbound"))?;
    let listen = raw.listen.ok_or_else(|| missing("listen", "127.0.0.1:10025"))?;
    let clients: Networks = if raw.clients.is_empty() && role == Role::Outbound {
        if !listen.is_loopback() {
            let text = format!(
                "the outbound listener {listen} can be reached from outside and would sign for everybody; \
                 name who may use it, for example clients = [\"192.0.2.0/24\"]"
            );
            return Err((start, text));
        }
        ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect()
    } else {
        raw.clients.iter().map(|n| n.0).collect()
    };
    Ok(Listener {
        role,
        protocol: raw.protocol.unwrap_or(Protocol::Smtp),
        listen,
        next_hop: raw.next_hop.ok_or_else(|| missing("next_hop", "127.0.0.1:10026"))?,
        clients,
        stray_newline: raw.stray_newline.unwrap_or_default(),
    })
}

/// `a`, `b` or `c`.
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, head)) if !head.is_empty() => format!("{} or {last}", head.join(", ")),
        _ => quoted.concat(),
    }
}

/// Keys that are known so that asking for them gets a better answer than "unknown".
const NOT_YET: [&str; 11] = [
    "status",
    "milter",
    "socketmap",
    "policy",
    "evidence",
    "trusted_proxies",
    "tls",
    "trusted_relays",
    "guesses_per_minute",
    "quarantine_to",
    "text-ndr",
];

/// The reader's messages, with what would be right: the nearest key for an unknown one, the form for a wrong type.
fn in_our_words(message: &str) -> String {
    let hint = match message.rsplit_once("expected ") {
        _ if !message.starts_with("invalid type") => "",
        Some((_, "a sequence")) => "; write a list, for example [\"our.example\"]",
        Some((_, "u8" | "u16" | "usize")) => "; write a number, without quotes and unit",
        Some((_, "a string")) => "; write it in quotes, times and sizes with their unit: \"30s\", \"128 KiB\"",
        _ => "",
    };
    if !hint.is_empty() {
        return format!("{message}{hint}");
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown field")) else {
        return message.to_owned();
    };
    let known = quoted.filter(|known| !NOT_YET.contains(known));
    let near = known.clone().map(|known| (strsim::damerau_levenshtein(unknown, known), known)).min();
    match near {
        Some((distance, known)) if distance <= unknown.len().div_ceil(3) + 1 => {
            format!("unknown key `{unknown}`; did you mean `{known}`?")
        }
        _ => format!("unknown key `{unknown}`; there are {}", one_of(&known.collect::<Vec<_>>())),
    }
}

#[cfg(test)]
mod tests;
