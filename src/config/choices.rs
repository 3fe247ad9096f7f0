//! Settings with a fixed set of values, and small groups of settings.

use std::path::PathBuf;

/// Direction of the mail that a listener carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Outbound mail: senders are signed.
    Outbound,
    /// Inbound mail: recipients are checked.
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

/// The mail protocol of a proxy listener. The next hop is spoken to in the same protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP (RFC 5321).
    Smtp,
    /// LMTP (RFC 2033). It needs an LMTP next hop, because an SMTP client cannot be sent one reply per recipient.
    Lmtp,
}

/// When TLS begins on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never: the connection is in plain text.
    #[default]
    Off,
    /// By STARTTLS (RFC 3207), if the other side supports it.
    May,
    /// By STARTTLS, before any mail.
    Require,
    /// From the first octet (implicit TLS).
    Implicit,
}

/// Treatment of `PROXY UNKNOWN` from a trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyUnknown {
    /// As a client without a name, which may be any host: the connection is closed.
    #[default]
    Refuse,
    /// As the proxy itself, for health checks.
    Proxy,
}

/// The PROXY header that a next hop is sent.
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

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate chain, the listener's own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// TLS towards the next hops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HopTls {
    /// When TLS begins.
    pub mode: TlsMode,
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The name that the certificate must be valid for; `None`: the host of the next hop.
    pub name: Option<String>,
    /// PEM file of the authorities that may have issued the certificate; `None`: the system's list.
    pub ca: Option<PathBuf>,
}

/// Treatment of bare CR and bare LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrayNewline {
    /// A bare LF becomes CR LF, a bare CR becomes a space.
    #[default]
    Normalize,
    /// The message or command is refused: 550 5.5.2 at the end of data, 500 5.5.2 for a command.
    Reject,
}

/// Access to a socket in the file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the socket; `None`: the default for this kind of listener.
    pub mode: Option<u32>,
    /// Group of the socket, by name or number.
    pub group: Option<String>,
    /// Users, by name or number, who may connect, in addition to root. `None`: everyone whom the permissions allow.
    pub users: Option<Vec<String>>,
}

/// Treatment of clients that send without waiting for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// The client is answered 554 5.5.0 and disconnected.
    Enforce,
    /// Early input waits until the reply has been sent.
    Off,
}

/// The protocol of a listener for queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// The mail filter protocol of Sendmail, also used by Postfix.
    Milter,
    /// Table lookups, see socketmap_table(5).
    Socketmap,
    /// Policy requests, see Postfix's SMTPD_POLICY_README.
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

/// Direction of the mail that an MTA queries about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Outbound mail.
    Outbound,
    /// Inbound mail.
    Inbound,
    /// Both; the direction is determined for each message.
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

/// The protocol of any listener: a proxy carries mail, a service for an MTA answers queries.
#[derive(Debug, Clone, Copy)]
pub(super) enum ListenerProtocol {
    Mail(Protocol),
    Query(ServiceProtocol),
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines of text, with colour on a terminal.
    #[default]
    Text,
    /// JSON, one object per line.
    Json,
}

pub(super) type LocatedError = (Option<usize>, String);

/// How much of addresses is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressDetail {
    /// All of it.
    #[default]
    Full,
    /// The first and last octet of the local part, and the domain.
    Masked,
    /// The domain only.
    None,
}

impl AddressDetail {
    /// An address with so much detail.
    #[must_use]
    pub fn shown(self, address: &str) -> String {
        let Some((local, domain)) = address.rsplit_once('@') else { return address.to_owned() };
        match self {
            Self::Full => address.to_owned(),
            Self::None => format!("…@{domain}"),
            Self::Masked => {
                let mut letters = local.chars();
                match (letters.next(), letters.next_back()) {
                    // Of two letters, nothing would be hidden.
                    (Some(first), Some(last)) if letters.next().is_some() => format!("{first}…{last}@{domain}"),
                    _ => format!("…@{domain}"),
                }
            }
        }
    }
}

/// Who has to know the secret of the status page in order to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenFor {
    /// All readers, if the listener can be reached from other machines; otherwise nobody.
    #[default]
    Elsewhere,
    /// All readers.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_of_an_address_is_kept_as_the_config_says() {
        let shown = |detail: AddressDetail, address: &str| detail.shown(address);
        assert_eq!(shown(AddressDetail::Full, "ann@our.example"), "ann@our.example");
        assert_eq!(shown(AddressDetail::Masked, "ann@our.example"), "a…n@our.example");
        assert_eq!(shown(AddressDetail::Masked, "a@our.example"), "…@our.example");
        assert_eq!(shown(AddressDetail::Masked, "jo@our.example"), "…@our.example");
        assert_eq!(shown(AddressDetail::None, "ann@our.example"), "…@our.example");
        assert_eq!(shown(AddressDetail::None, ""), "");
    }
}
