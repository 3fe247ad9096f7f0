//! The identity of a client, as one mail server tells it to another: the attributes of XCLIENT and XFORWARD (Postfix's
//! XCLIENT_README and XFORWARD_README).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::fmt::Write as _;

/// The longest value of an attribute, in octets as sent.
const MAX_VALUE: usize = 255;
/// The value of an attribute that is not known.
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// An attribute of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// NAME: the client's host name.
    Name,
    /// REVERSE_NAME: the name that the client's address resolves to.
    ReverseName,
    /// ADDR: the client's IP address.
    Addr,
    /// PORT: the client's TCP port.
    Port,
    /// PROTO: SMTP or ESMTP.
    Proto,
    /// HELO: the name in the client's HELO or EHLO.
    Helo,
    /// LOGIN: the name of the user who has logged in.
    Login,
    /// DESTADDR: the address that the client has connected to.
    DestAddr,
    /// DESTPORT: the port that the client has connected to.
    DestPort,
    /// IDENT: the queue id at the previous server.
    Ident,
    /// SOURCE: LOCAL or REMOTE.
    Source,
}

use Attribute::{Addr, DestAddr, DestPort, Helo, Ident, Login, Name, Port, Proto, ReverseName, Source};

const NAMES: [(Attribute, &str); 11] = [
    (Name, "NAME"),
    (ReverseName, "REVERSE_NAME"),
    (Addr, "ADDR"),
    (Port, "PORT"),
    (Proto, "PROTO"),
    (Helo, "HELO"),
    (Login, "LOGIN"),
    (DestAddr, "DESTADDR"),
    (DestPort, "DESTPORT"),
    (Ident, "IDENT"),
    (Source, "SOURCE"),
];

/// The XCLIENT line of our EHLO reply, with the attributes that are accepted.
pub(crate) const XCLIENT: &str = "XCLIENT NAME REVERSE_NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// The XFORWARD line of our EHLO reply, with the attributes that are accepted.
pub(crate) const XFORWARD: &str = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";

impl Attribute {
    /// Parses the name of an attribute, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(attribute, _)| *attribute)
    }

    fn name(self) -> &'static str {
        NAMES.iter().find(|(attribute, _)| *attribute == self).map_or("", |(_, name)| name)
    }
}

/// The known attributes of a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    values: Vec<(Attribute, String)>,
}

impl Identity {
    /// A client that has connected from this address and port.
    #[must_use]
    pub fn of(address: IpAddr, port: u16) -> Self {
        let mut identity = Self::default();
        identity.set(Addr, encoded(address));
        identity.set(Port, port.to_string());
        identity
    }

    /// The value of an attribute, if it is known.
    #[must_use]
    pub fn get(&self, attribute: Attribute) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == attribute).map(|(_, value)| value.as_str())
    }

    /// The IP address, if it is known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        decoded(self.get(Addr)?)
    }

    /// The client's address and port; port 0 if it is not known.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let port = self.get(Port).and_then(|port| port.parse().ok()).unwrap_or(0);
        self.address().map(|ip| SocketAddr::new(ip, port))
    }

    /// The identity without what other servers have said: only addresses and ports.
    #[must_use]
    pub fn by_address(&self) -> Self {
        let kept = |attribute| matches!(attribute, Addr | Port | DestAddr | DestPort);
        Self { values: self.values.iter().filter(|(attribute, _)| kept(*attribute)).cloned().collect() }
    }

    fn set(&mut self, attribute: Attribute, value: String) {
        self.values.retain(|(known, _)| *known != attribute);
        self.values.push((attribute, value));
    }

    /// Applies the argument of an XCLIENT or XFORWARD command: `NAME=value …`, with values as xtext (RFC 3461 section
    /// 4). `offered` is the line of the EHLO reply with the accepted attributes (`XCLIENT`, `XFORWARD`).
    ///
    /// # Errors
    /// What is wrong with the argument. The identity is then unchanged.
    pub fn update(&mut self, argument: &str, offered: &str) -> Result<(), &'static str> {
        let mut updated = self.clone();
        let mut words = argument.split_ascii_whitespace().peekable();
        if words.peek().is_none() {
            return Err("an attribute is missing");
        }
        for word in words {
            let (name, value) = word.split_once('=').ok_or("an attribute has no value")?;
            let attribute = Attribute::named(name)
                .filter(|attribute| offered.split(' ').skip(1).any(|offered| offered == attribute.name()))
                .ok_or("there is no such attribute")?;
            if value.len() > MAX_VALUE {
                return Err("a value is too long");
            }
            let value = from_xtext(value).ok_or("a value is no xtext")?;
            let known = !is_unavailable(&value);
            if attribute == Addr {
                if known && decoded(&value).is_none() {
                    return Err("ADDR is no address");
                }
                // Names belong to the earlier address.
                updated.values.retain(|(known, _)| !matches!(known, Name | ReverseName | Port));
            }
            updated.values.retain(|(known, _)| *known != attribute);
            if known {
                updated.set(attribute, value);
            }
        }
        // ADDR may follow NAME.
        for word in argument.split_ascii_whitespace() {
            if let Some((name, value)) = word.split_once('=')
                && let Some(attribute @ (Name | ReverseName | Port)) = Attribute::named(name)
                && let Some(value) = from_xtext(value).filter(|value| !is_unavailable(value))
            {
                updated.set(attribute, value);
            }
        }
        *self = updated;
        Ok(())
    }

    /// The command that tells this identity to a server that accepts the attributes in `taken`. `hello` and `protocol`
    /// are what this session knows of the client, for attributes that no other server has named. `None`: there is
    /// nothing to tell.
    #[must_use]
    pub fn command(&self, verb: &str, taken: &[Attribute], hello: &str, protocol: &str) -> Option<String> {
        let mut line = verb.to_owned();
        for attribute in taken {
            let value = match (attribute, self.get(*attribute)) {
                (_, Some(value)) => value,
                // A longer value is not a host name, and some servers would refuse the whole command.
                (Helo, None) if hello.is_empty() || to_xtext(hello).len() > MAX_VALUE => continue,
                (Helo, None) => hello,
                (Proto, None) => protocol,
                (Source, None) => "REMOTE",
                (Name | ReverseName | Addr, None) => UNAVAILABLE,
                (Port | Login | DestAddr | DestPort | Ident, None) => continue,
            };
            let _ = write!(line, " {}={}", attribute.name(), to_xtext(value));
        }
        (line.len() > verb.len()).then_some(line)
    }
}

fn is_unavailable(value: &str) -> bool {
    value.is_empty() || value.eq_ignore_ascii_case(UNAVAILABLE) || value.eq_ignore_ascii_case("[TEMPUNAVAIL]")
}

fn encoded(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("IPV6:{v6}"),
    }
}

fn decoded(value: &str) -> Option<IpAddr> {
    match value.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => {
            Some(IpAddr::from(rest.parse::<Ipv6Addr>().ok()?).to_canonical())
        }
        _ => Some(value.parse::<IpAddr>().ok()?.to_canonical()),
    }
}

/// Encodes a value as xtext (RFC 3461 section 4): printable ASCII except `+` and `=` stays, and other octets become `+`
/// and two hex digits.
fn to_xtext(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for octet in value.bytes() {
        match octet {
            b'+' | b'=' | 0..=32 | 127.. => {
                let _ = write!(out, "+{octet:02X}");
            }
            _ => out.push(char::from(octet)),
        }
    }
    out
}

fn from_xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'+' {
            octets.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        octets.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    let text = String::from_utf8(octets).ok()?;
    // A decoded value must not be able to end a line, wherever it is used next.
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_client_is_told_as_far_as_the_next_hop_wants_to_know() {
        let client = Identity::of("192.0.2.7".parse().unwrap(), 1234);
        let all = [Name, Addr, Port, Proto, Helo, Login];
        assert_eq!(
            client.command("XCLIENT", &all, "spam+ham.example", "ESMTP").unwrap(),
            "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=1234 PROTO=ESMTP HELO=spam+2Bham.example"
        );
        assert_eq!(client.command("XCLIENT", &[Login], "x", "SMTP"), None);
        assert_eq!(client.command("XCLIENT", &[Port, Helo], &"x".repeat(256), "").unwrap(), "XCLIENT PORT=1234");
        let six = Identity::of("2001:db8::1".parse().unwrap(), 25);
        assert_eq!(six.command("XCLIENT", &[Addr], "", "").unwrap(), "XCLIENT ADDR=IPV6:2001:db8::1");
        let mapped = Identity::of("::ffff:192.0.2.1".parse().unwrap(), 25);
        assert_eq!(mapped.address(), "192.0.2.1".parse().ok());
    }

    #[test]
    fn a_trusted_proxy_says_who_its_client_is() {
        let mut client = Identity::of("127.0.0.1".parse().unwrap(), 9);
        client.update("NAME=mx.example ADDR=ipv6:2001:DB8::7 HELO=a+20b PROTO=ESMTP", XCLIENT).unwrap();
        assert_eq!(client.address(), "2001:db8::7".parse().ok());
        assert_eq!((client.get(Name), client.get(Helo), client.get(Port)), (Some("mx.example"), Some("a b"), None));
        client.update("ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]", XFORWARD).unwrap();
        assert_eq!((client.address(), client.get(Name)), (None, None));
        let before = client.clone();
        for wrong in ["", "ADDR", "ADDR=nowhere", "WHAT=x", "HELO=a+0Db", "HELO=+0", "HELO=+zz", "LOGIN=root"] {
            assert!(client.update(wrong, XFORWARD).is_err(), "{wrong}");
        }
        assert!(client.update(&format!("HELO={}", "x".repeat(300)), XCLIENT).is_err());
        assert_eq!(client, before);
    }

    proptest! {
        #[test]
        fn any_value_survives(value in "[ -~äß]{0,40}") {
            prop_assert_eq!(from_xtext(&to_xtext(&value)), Some(value));
        }

        #[test]
        fn any_argument_is_read(argument in ".{0,80}") {
            let _ = Identity::default().update(&argument, XCLIENT);
        }
    }
}
