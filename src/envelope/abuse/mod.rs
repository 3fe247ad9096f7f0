//! What the rules remember from one message to the next: guesses, replays, and how much untagged null-sender mail comes
//! in.
//!
//! Plain data behind plain functions: time is an argument, everything is bounded, nothing is stored. A front end keeps
//! one for the process; without one ([`Memory::default`] for each question) the rules answer as if nothing had happened
//! before.

mod bounce_replay;
mod surge;
mod tag_guessing;

pub use bounce_replay::{Replay, TagId};
pub use surge::{Flip, Surges};
pub use tag_guessing::{Guesser, Guesses};

use core::net::IpAddr;

use ipnet::IpNet;

use super::time::Timestamp;

/// What one customer of a provider usually has: /24 of IPv4, /56 of IPv6.
///
/// ```
/// use countersign::envelope::abuse::{network, site_network};
///
/// assert_eq!(network("192.0.2.7".parse()?), "192.0.2.0/24".parse()?);
/// assert_eq!(network("2001:db8:9:1234::1".parse()?), "2001:db8:9:1200::/56".parse()?);
/// assert_eq!(site_network("2001:db8:9:1234::1".parse()?), Some("2001:db8:9::/48".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn network(client: IpAddr) -> IpNet {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() { 24 } else { 56 };
    IpNet::new(client, bits).map_or_else(|_| client.into(), |net| net.trunc())
}

/// What a site of IPv6 usually has: the /48 (RFC 6177) that a client's [`network`] is a part of.
#[must_use]
pub fn site_network(client: IpAddr) -> Option<IpNet> {
    let client = client.to_canonical();
    client.is_ipv6().then(|| IpNet::new(client, 48).ok()).flatten().map(|net| net.trunc())
}

/// Whose mail counts together in a surge: a network of IPv4, a site of IPv6.
#[must_use]
pub fn surge_network(client: IpAddr) -> IpNet {
    site_network(client).unwrap_or_else(|| network(client))
}

/// The memory of one process.
#[derive(Debug, Default)]
pub struct Memory {
    /// Bad tags by client network.
    pub guesses: Guesses,
    /// Recipients and bounces by tag.
    pub replay: Replay,
    /// Untagged null-sender recipients by domain.
    pub surges: Surges,
}

impl Memory {
    /// For a process that started at this moment.
    #[must_use]
    pub fn since(started: Timestamp) -> Self {
        Self { replay: Replay::since(started), ..Self::default() }
    }
}
