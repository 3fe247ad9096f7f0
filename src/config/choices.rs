//! What a setting may be, where it is one of some words; and small groups of settings.

use std::path::PathBuf;

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
    /// LMTP, to an LMTP next hop: one reply per recipient cannot be told to an SMTP client.
    Lmtp,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// It is not.
    #[default]
    Off,
    /// By STARTTLS, where the other side can.
    May,
    /// By STARTTLS, before any mail.
    Require,
    /// From the first octet.
    Implicit,
}

/// What a trusted proxy means that says `PROXY UNKNOWN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyUnknown {
    /// A client that it does not name: it may be any host, so the connection is closed.
    #[default]
    Refuse,
    /// Itself: it is a health check.
    Proxy,
}

/// Which PROXY header a next hop gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendProxy {
    /// No PROXY header is sent.
    #[default]
    Off,
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

/// A certificate and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, its own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How next hops are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HopTls {
    /// When TLS begins, if at all.
    pub mode: TlsMode,
    /// Whether the certificate must be good for the name.
    pub verify: bool,
    /// The name, where it is not the host of the next hop.
    pub name: Option<String>,
    /// Who may have signed it; else the system's list.
    pub ca: Option<PathBuf>,
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

/// Who may connect to a socket in the file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Its permissions; else what the kind of listener has.
    pub mode: Option<u32>,
    /// Its group, by name or number.
    pub group: Option<String>,
    /// Users, by name or number, who alone may connect, and root. `None`: whoever the permissions let.
    pub users: Option<Vec<String>>,
}

/// What becomes of a client that does not wait for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// 554 5.5.0, and the connection is closed.
    Enforce,
    /// What it sends early waits for its turn.
    Off,
}

/// What the MTA speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// The mail filter protocol of Sendmail, which Postfix speaks, too.
    Milter,
    /// Table lookups, socketmap_table(5).
    Socketmap,
    /// Postfix's SMTPD_POLICY_README.
    Policy,
}

impl ServiceProtocol {
    /// The word in config and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Milter => "milter",
            Self::Socketmap => "socketmap",
            Self::Policy => "policy",
        }
    }
}

/// For which mail an MTA asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Mail that leaves.
    Outbound,
    /// Mail that comes in.
    Inbound,
    /// Either; found out for each message.
    Auto,
}

impl Side {
    /// The word in config and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Auto => "auto",
        }
    }
}

/// What a listener speaks: a proxy is one thing, an advisor another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spoken {
    Mail(Protocol),
    Advice(ServiceProtocol),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines of text, with colour on a terminal.
    #[default]
    Text,
    /// One object a line.
    Json,
}

pub(super) type Wrong = (Option<usize>, String);
