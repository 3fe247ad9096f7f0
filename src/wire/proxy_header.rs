//! PROXY headers, by which a load balancer names the client of a connection (HAProxy's proxy-protocol.txt, versions 1
//! and 2).

use core::net::{IpAddr, SocketAddr};

use ppp::v2::{Builder, Command, Protocol, Version};
use ppp::{HeaderResult, v1, v2};

/// The number of octets that show which kind of header a connection begins with.
pub const PREFIX: usize = 12;
/// The longest header of version 1, in octets with its line end.
const MAX_V1: usize = 107;
/// The longest header of version 2 that is accepted, in octets. Extensions are skipped, so 64 KiB are not needed.
const MAX_V2: usize = 4096;

/// Why a connection does not begin with a valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The connection begins with something else.
    #[error("it begins with no PROXY header")]
    None,
    /// The header cannot be parsed, or has another protocol than TCP.
    #[error("its PROXY header is broken")]
    Broken,
    /// A header of version 1 ends in LF instead of CR LF.
    #[error("its PROXY header of version 1 ends in LF alone; CR LF is needed")]
    BareLf,
    /// The header is about a client without a TCP address: AF_UNSPEC or AF_UNIX of version 2.
    #[error("its PROXY header brings a client that is not on TCP")]
    NotTcp,
    /// The header is longer than any valid one that is needed.
    #[error("its PROXY header is too long")]
    TooLong,
}

/// The number of octets that are known to be missing, given the beginning of a connection; 0: the header is complete.
/// No more may be read, because the octets after the header belong to the client.
///
/// # Errors
/// See [`ProxyError`].
pub fn missing(head: &[u8]) -> Result<usize, ProxyError> {
    let Some(prefix) = head.get(..PREFIX) else { return Ok(PREFIX - head.len()) };
    if prefix == v2::PROTOCOL_PREFIX {
        let Some(&[high, low]) = head.get(14..16) else { return Ok(16 - head.len()) };
        let whole = 16 + usize::from(u16::from_be_bytes([high, low]));
        return if whole > MAX_V2 { Err(ProxyError::TooLong) } else { Ok(whole.saturating_sub(head.len())) };
    }
    if !prefix.starts_with(b"PROXY ") {
        return Err(ProxyError::None);
    }
    match head.ends_with(b"\n") {
        true => Ok(0),
        // One octet at a time: what follows the line end belongs to the client.
        false if head.len() < MAX_V1 => Ok(1),
        false => Err(ProxyError::TooLong),
    }
}

/// On whose behalf a proxy has opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A client with this address.
    Client(SocketAddr),
    /// The proxy itself, for example for a health check: LOCAL of version 2.
    Proxy,
    /// Not stated: `UNKNOWN` of version 1. Proxies send it for health checks, and for clients without a TCP address.
    Unknown,
}

/// Parses a complete header.
///
/// # Errors
/// See [`ProxyError`].
pub fn parse(header: &[u8]) -> Result<Source, ProxyError> {
    if header.starts_with(b"PROXY ") && header.ends_with(b"\n") && !header.ends_with(b"\r\n") {
        return Err(ProxyError::BareLf);
    }
    let source = match HeaderResult::parse(header) {
        HeaderResult::V1(header) => match header.map_err(|_| ProxyError::Broken)?.addresses {
            v1::Addresses::Tcp4(a) => SocketAddr::new(a.source_address.into(), a.source_port),
            v1::Addresses::Tcp6(a) => SocketAddr::new(a.source_address.into(), a.source_port),
            v1::Addresses::Unknown => return Ok(Source::Unknown),
        },
        HeaderResult::V2(header) => {
            let header = header.map_err(|_| ProxyError::Broken)?;
            match (header.command, header.addresses) {
                (Command::Local, _) => return Ok(Source::Proxy),
                (Command::Proxy, v2::Addresses::IPv4(a)) => SocketAddr::new(a.source_address.into(), a.source_port),
                (Command::Proxy, v2::Addresses::IPv6(a)) => SocketAddr::new(a.source_address.into(), a.source_port),
                (Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => {
                    return Err(ProxyError::NotTcp);
                }
            }
        }
    };
    Ok(Source::Client(SocketAddr::new(source.ip().to_canonical(), source.port())))
}

/// A header of version 1 for a connection from `source` to `destination`. If one of them is missing, the header is
/// `UNKNOWN`.
#[must_use]
pub fn v1(source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    match (source, destination.map(|d| same_family(d, source))) {
        (Some(source), Some(to)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", source.ip(), to.ip(), source.port(), to.port()).into_bytes()
        }
        _ => b"PROXY UNKNOWN\r\n".to_vec(),
    }
}

/// A header of version 2 for a connection from `source` to `destination`. If one of them is missing, the header is
/// LOCAL.
#[must_use]
pub fn v2(source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let header = match (source, destination.map(|d| same_family(d, source))) {
        (Some(source), Some(to)) => {
            Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, (source, to)).build()
        }
        _ => {
            Builder::new(Version::Two | Command::Local, v2::AddressFamily::Unspecified | Protocol::Unspecified).build()
        }
    };
    // Its only error is a header of more than 64 KiB.
    header.unwrap_or_default()
}

/// The destination in the address family of the source, because a header has one family for both. An IPv4 client of an
/// IPv6 socket has an IPv4 destination in IPv6 form.
fn same_family(destination: SocketAddr, source: Option<SocketAddr>) -> SocketAddr {
    let ip = match (source.map(|s| s.ip()), destination.ip().to_canonical()) {
        (Some(IpAddr::V6(_)), IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
        (Some(IpAddr::V4(_)), IpAddr::V6(_)) => IpAddr::from([0, 0, 0, 0]),
        (_, ip) => ip,
    };
    SocketAddr::new(ip, destination.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        for (source, destination) in [
            (address("192.0.2.1:1000"), address("198.51.100.2:25")),
            (address("[2001:db8::1]:1000"), address("[2001:db8::2]:25")),
            (address("[2001:db8::1]:1000"), address("127.0.0.1:25")),
            (address("192.0.2.1:1000"), address("[::1]:25")),
            (None, address("127.0.0.1:25")),
        ] {
            for header in [v1(source, destination), v2(source, destination)] {
                assert_eq!(missing(&header), Ok(0));
                let itself = if header.starts_with(b"PROXY ") { Source::Unknown } else { Source::Proxy };
                assert_eq!(parse(&header), Ok(source.map_or(itself, Source::Client)), "{header:?}");
                for end in 0..header.len() {
                    let more = missing(&header[..end]).unwrap();
                    assert!(more > 0 && end + more <= header.len(), "reads into what follows: {end} + {more}");
                }
            }
        }
        assert_eq!(
            v1(address("192.0.2.1:1000"), address("127.0.0.1:25")),
            b"PROXY TCP4 192.0.2.1 127.0.0.1 1000 25\r\n"
        );
    }

    #[test]
    fn what_is_no_header_is_refused() {
        assert_eq!(missing(b"EHLO client.example\r\n"), Err(ProxyError::None));
        assert_eq!(missing(&[b'x'; 12]), Err(ProxyError::None));
        assert_eq!(missing(format!("PROXY TCP4 {}", "1".repeat(100)).as_bytes()), Err(ProxyError::TooLong));
        assert_eq!(parse(b"PROXY TCP4 nowhere 127.0.0.1 1 2\r\n"), Err(ProxyError::Broken));
        assert_eq!(parse(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n"), Err(ProxyError::BareLf));
        let unspecified =
            Builder::new(Version::Two | Command::Proxy, v2::AddressFamily::Unspecified | Protocol::Unspecified);
        assert_eq!(parse(&unspecified.build().unwrap()), Err(ProxyError::NotTcp));
        let unix = Builder::new(Version::Two | Command::Proxy, v2::AddressFamily::Unix | Protocol::Stream);
        let unix = unix.write_payload([b'/'; 216].as_slice()).unwrap().build().unwrap();
        assert_eq!(parse(&unix), Err(ProxyError::NotTcp));
        let mut long = v2(None, None);
        long[14] = 0xff;
        assert_eq!(missing(&long), Err(ProxyError::TooLong));
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets in prop::collection::vec(any::<u8>(), 0..200), two: bool) {
            let octets = if two { [v2::PROTOCOL_PREFIX, octets.as_slice()].concat() } else { octets };
            let _ = missing(&octets);
            let _ = parse(&octets);
        }
    }
}
