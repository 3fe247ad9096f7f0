//! State that the rules keep between messages: tag guesses, bounce counts per tag, the rate of untagged null-sender
//! mail, unknown recipients, and bounces that this site has sent.
//!
//! Time is an argument, every collection is bounded, and what is kept on disk is somebody else's matter. Each process
//! keeps one [`Memory`]. With a fresh one ([`Memory::default`]) for each query, the rules answer as if nothing had
//! happened before.

mod bounce_replay;
mod harvesting;
mod own_bounces;
mod surge;
mod tag_guessing;

pub use bounce_replay::{KeptCount, Replay, TagId};
pub use harvesting::{Admission, Harvests};
pub use own_bounces::OwnBounces;
pub use surge::{SurgeChange, Surges};
pub use tag_guessing::{ForgeryBudget, GuessAccount, Guesses};

use core::net::IpAddr;

use ipnet::IpNet;

use super::time::Timestamp;

/// The client network of an address, which is what one customer of a provider usually has: a /24 of IPv4, a /56 of
/// IPv6.
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

/// The /48 of an IPv6 address, which is what one site usually has (RFC 6177); it contains the client's [`network`].
/// `None` for IPv4.
#[must_use]
pub fn site_network(client: IpAddr) -> Option<IpNet> {
    let client = client.to_canonical();
    client.is_ipv6().then(|| IpNet::new(client, 48).ok()).flatten().map(|net| net.trunc())
}

/// The network whose mail is counted together in a surge: a /24 of IPv4, a /48 of IPv6.
#[must_use]
pub fn surge_network(client: IpAddr) -> IpNet {
    site_network(client).unwrap_or_else(|| network(client))
}

/// State of one process.
#[derive(Debug, Default)]
pub struct Memory {
    /// Bad tags by client network.
    pub guesses: Guesses,
    /// Recipients and bounces by tag.
    pub replay: Replay,
    /// Untagged null-sender mail by domain.
    pub surges: Surges,
    /// Unknown recipients by client network.
    pub harvests: Harvests,
    /// Bounces that this site has sent.
    pub own_bounces: OwnBounces,
}

impl Memory {
    /// Empty state of a process that started at `started`.
    #[must_use]
    pub fn since(started: Timestamp) -> Self {
        Self { replay: Replay::since(started), ..Self::default() }
    }
}
