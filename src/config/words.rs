//! Values of the config file that have a form of their own. Each type parses itself, so that an error points at the
//! line and says how to correct it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

/// An address to listen on or to connect to: `host:port`, `unix:/path` or `systemd:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// A host name or address, and a port.
    Tcp {
        /// The host name or address, as written in the config.
        host: String,
        /// 1 to 65535; 0 to listen on any free port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
    /// For listening only: a socket opened by systemd, by its name (`FileDescriptorName=`).
    Systemd(String),
}

impl Endpoint {
    /// Whether the endpoint is known to be reachable only from this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            // The address is set in the socket unit and not known here.
            Self::Systemd(_) => false,
            Self::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        }
    }
}

impl Endpoint {
    /// Whether connections to this endpoint end at a listener on `listen`.
    pub(crate) fn leads_to(&self, listen: &Self) -> bool {
        match (self, listen) {
            (Self::Tcp { host, port }, Self::Tcp { host: listening, port: on }) if port == on => {
                let everywhere = listening.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
                let is_localhost = host == "localhost" && matches!(listening.as_str(), "127.0.0.1" | "::1");
                host == listening || is_localhost || (everywhere && self.is_loopback())
            }
            _ => self == listen,
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither host:port (\"127.0.0.1:10225\", \"[::1]:25\") nor unix:/path");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return if name.is_empty() { Err(wrong()) } else { Ok(Self::Systemd(name.to_owned())) };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let named =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        match port.parse() {
            Ok(port) if named => Ok(Self::Tcp { host: host.to_owned(), port }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// One next hop, or several in the order in which they are tried.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(untagged, expecting = "expected \"host:port\" or \"unix:/path\", or a list of them")]
pub enum NextHops {
    /// `next_hop = "HOST:PORT"`.
    One(Endpoint),
    /// `next_hop = ["HOST:PORT", …]`.
    Several(Vec<Endpoint>),
}

/// Next hops as text, for logs.
#[must_use]
pub fn listed(hops: &[Endpoint]) -> String {
    hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then ")
}

impl From<NextHops> for Vec<Endpoint> {
    fn from(hops: NextHops) -> Self {
        match hops {
            NextHops::One(hop) => vec![hop],
            NextHops::Several(hops) => hops,
        }
    }
}

/// A duration of up to 30 days: `"30s"`, `"5m"`, `"2h"`, `"1d"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time; write a number and s, m, h or d, for example \"30s\"");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text.get(digits.len()..).map(str::trim) {
            Some("s") => 1,
            Some("m") => 60,
            Some("h") => 3600,
            Some("d") => 86_400,
            _ => return Err(wrong()),
        };
        let seconds =
            digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0 && n <= 30 * 86_400);
        seconds.map(|n| Self(Duration::from_secs(n))).ok_or_else(wrong)
    }
}

/// A delay of up to one minute: as a [`Span`], or `"0s"` for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delay(pub Duration);

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0s" {
            return Ok(Self(Duration::ZERO));
        }
        // A client waits five minutes for the reply to RCPT (RFC 5321 section 4.5.3.2.3).
        let longest = Duration::from_secs(60);
        match text.parse::<Span>()?.0 {
            delay if delay <= longest => Ok(Self(delay)),
            _ => Err(format!("`{text}` is too long; write \"0s\" to \"60s\"")),
        }
    }
}

/// A size in octets: `"128 KiB"`, `"1 MiB"`, `"1000"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size; write a number and B, KiB, MiB or GiB, for example \"128 KiB\"");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit: usize = match text.get(digits.len()..).map(str::trim) {
            Some("" | "B") => 1,
            Some("KiB") => 1 << 10,
            Some("MiB") => 1 << 20,
            Some("GiB") => 1 << 30,
            _ => return Err(wrong()),
        };
        digits.parse::<usize>().ok().and_then(|n| n.checked_mul(unit)).map(Self).ok_or_else(wrong)
    }
}

/// A domain name; a leading dot or `*.` means its subdomains.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(pub String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
        let label = |l: &str| {
            !l.is_empty() && l.bytes().all(|b| b >= 0x80 || b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if text == "*" || bare.split('.').all(label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is no domain name; write our.example, or .our.example for its subdomains"))
        }
    }
}

/// An entry of a list of addresses: an address, `local-part@`, or a domain.
#[derive(Debug, Clone)]
pub(super) struct AddressEntry(pub String);

impl FromStr for AddressEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, domain) = text.rsplit_once('@').unwrap_or(("", text));
        let names_something = !local.is_empty() || !domain.is_empty();
        if names_something && (domain.is_empty() || domain.parse::<Name>().is_ok()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is neither an address, nor local-part@, nor a domain"))
        }
    }
}

/// A network such as `192.0.2.0/24`, or one address.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetworkWord(pub ipnet::IpNet);

impl FromStr for NetworkWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<IpAddr>().map(Into::into));
        net.map(|net| Self(net.trunc()))
            .map_err(|_| format!("`{text}` is no network; write 192.0.2.0/24 or 2001:db8::/32"))
    }
}

/// Permissions of a socket in the file system, in octal: `"0660"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() >= 3);
        mode.map(Self).ok_or_else(|| format!("`{text}` is no mode of a file; write it in octal, for example \"0660\""))
    }
}

/// Which log lines are written: a level, or levels by target (`warn,countersign=debug`).
#[derive(Debug)]
pub(super) struct LogLevel(pub String);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // `EnvFilter` would accept any other word as the name of a target, and then show nothing.
        let good = text.split(',').all(|part| LEVELS.contains(&part.rsplit_once('=').map_or(part, |(_, level)| level)));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is no log level; write {}, or levels by target: \"warn,countersign=debug\"",
                one_of(&LEVELS)
            ))
        }
    }
}

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

from_text!(Endpoint, Span, Delay, Size, Name, AddressEntry, NetworkWord, Mode, LogLevel);

/// Declares a function that reads a setting with a fixed set of words.
macro_rules! words {
    ($read:ident -> $type:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        pub(super) fn $read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            let known: &[&str] = &[$($word),+];
            let text = String::deserialize(deserializer)?;
            match text.as_str() {
                $($word => Ok(Some($value)),)+
                word => Err(de::Error::custom(format!("`{word}` is none of {}", one_of(known)))),
            }
        }
    };
}

use super::choices::{
    AddressDetail, ListenerProtocol, LogFormat, Protocol, ProxyUnknown, SendProxy, ServiceProtocol, Side, StrayNewline,
    SyncMode, TlsMode, TokenFor,
};
use crate::envelope::site_policy::{
    FailureAction, InboundMode, LongSrs, Mixed, OutboundMode, Overflow, OwnBouncePolicy, RejectAt,
};
use crate::envelope::tag::batv::MacLength;

words!(role -> Side { "outbound" => Side::Outbound, "inbound" => Side::Inbound, "auto" => Side::Auto });
words!(protocol -> ListenerProtocol {
    "smtp" => ListenerProtocol::Mail(Protocol::Smtp),
    "lmtp" => ListenerProtocol::Mail(Protocol::Lmtp),
    "milter" => ListenerProtocol::Query(ServiceProtocol::Milter),
    "socketmap" => ListenerProtocol::Query(ServiceProtocol::Socketmap),
    "policy" => ListenerProtocol::Query(ServiceProtocol::Policy),
});
words!(tls -> TlsMode { "off" => TlsMode::Off, "may" => TlsMode::May, "require" => TlsMode::Require, "implicit" => TlsMode::Implicit });
words!(send_proxy -> SendProxy { "off" => SendProxy::Off, "v1" => SendProxy::V1, "v2" => SendProxy::V2 });
words!(proxy_unknown -> ProxyUnknown { "refuse" => ProxyUnknown::Refuse, "proxy" => ProxyUnknown::Proxy });
words!(stray_newline -> StrayNewline { "normalize" => StrayNewline::Normalize, "reject" => StrayNewline::Reject });
words!(sync -> SyncMode { "enforce" => SyncMode::Enforce, "off" => SyncMode::Off });
words!(outbound_mode -> OutboundMode { "off" => OutboundMode::Off, "pilot" => OutboundMode::Pilot, "sign" => OutboundMode::Sign });
words!(overflow -> Overflow { "pass" => Overflow::Pass, "sign" => Overflow::Sign, "reject" => Overflow::Reject });
words!(long_srs -> LongSrs {
    "alias" => LongSrs::Alias,
    "pass" => LongSrs::Overflow(Overflow::Pass),
    "sign" => LongSrs::Overflow(Overflow::Sign),
    "reject" => LongSrs::Overflow(Overflow::Reject),
});
words!(own_bounces -> OwnBouncePolicy { "pass" => OwnBouncePolicy::Pass, "verified" => OwnBouncePolicy::Verified, "drop" => OwnBouncePolicy::Drop });
words!(mixed -> Mixed { "split" => Mixed::Split, "sign" => Mixed::Sign });
words!(inbound_mode -> InboundMode { "observe" => InboundMode::Observe, "ramp" => InboundMode::Ramp, "enforce" => InboundMode::Enforce });
words!(reject_at -> RejectAt { "data" => RejectAt::Data, "rcpt" => RejectAt::Rcpt, "auto" => RejectAt::Auto });
words!(action -> FailureAction { "reject" => FailureAction::Reject, "discard" => FailureAction::Discard, "mark" => FailureAction::Mark, "quarantine" => FailureAction::Quarantine, "defer" => FailureAction::Defer });
words!(replay -> bool { "limit" => true, "count" => false });
words!(own_senders -> bool { "any" => false, "tagged" => true });
words!(foreign -> bool { "reject" => false, "pass" => true });
words!(srs_stays -> bool { "proxy" => false, "mta" => true });
words!(mac -> MacLength { "short" => MacLength::Short, "long" => MacLength::Long });
words!(separator -> char { "=" => '=', "+" => '+', "-" => '-' });
words!(address_detail -> AddressDetail { "full" => AddressDetail::Full, "masked" => AddressDetail::Masked, "none" => AddressDetail::None });
words!(token_for -> TokenFor { "elsewhere" => TokenFor::Elsewhere, "all" => TokenFor::All });
words!(log_format -> LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json });

/// The words as text: `a`, `b` or `c`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, head)) if !head.is_empty() => format!("{} or {last}", head.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for text in ["127.0.0.1:25", "[::1]:25", "mail.example:25", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "25", "host", "host:", "host:99999", "unix:relative", "a b:25", ":25"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!("5m".parse::<Span>().unwrap().0.as_secs(), 300);
        assert_eq!("128 KiB".parse::<Size>().unwrap().0, 131_072);
        for text in ["", "5", "m", "-1s", "1.5h", "99999999999999999999d", "0s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "KiB", "1 kb", "99999999999999999999 GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
