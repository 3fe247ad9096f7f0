//! The number of sessions of each client network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use crate::envelope::abuse::{network, site_network};

/// A site (/48 of IPv6) may have this many times the sessions of one network (/56), of which it contains 256.
const SITE_FACTOR: usize = 4;

/// Counts the sessions of each network. Networks without sessions have no entry.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimit(Mutex<HashMap<IpNet, usize>>);

/// One counted session of a network, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection {
    clients: Arc<ConnectionLimit>,
    network: IpNet,
    /// The site (/48) of the network, for IPv6 only.
    site: Option<IpNet>,
}

impl ConnectionLimit {
    /// Counts one more session of this client. `None`: its network would have more than `limit` sessions, or its IPv6
    /// site more than four times as many.
    #[must_use]
    pub(crate) fn admit(self: &Arc<Self>, client: IpAddr, limit: usize) -> Option<CountedConnection> {
        let (network, site) = (network(client), site_network(client));
        let mut counts = self.0.lock().ok()?;
        let open = |network: &IpNet| counts.get(network).copied().unwrap_or_default();
        let site_is_full = site.as_ref().is_some_and(|site| open(site) >= limit.saturating_mul(SITE_FACTOR));
        if open(&network) >= limit || site_is_full {
            return None;
        }
        for network in [network].into_iter().chain(site) {
            *counts.entry(network).or_default() += 1;
        }
        Some(CountedConnection { clients: Arc::clone(self), network, site })
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let Ok(mut counts) = self.clients.0.lock() else { return };
        for network in [self.network].into_iter().chain(self.site) {
            if let Some(count) = counts.get_mut(&network) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(&network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_sessions_and_no_other_is_touched() {
        let clients = Arc::new(ConnectionLimit::default());
        let admit = |ip: &str| clients.admit(ip.parse().unwrap(), 2);
        let (first, second) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.200").unwrap());
        assert!(admit("192.0.2.3").is_none());
        assert!(admit("192.0.3.3").is_some());
        let six = (admit("2001:db8:0:1::1").unwrap(), admit("2001:db8:0:ff::1").unwrap());
        assert!(admit("2001:db8:0:2::2").is_none() && admit("2001:db8:0:100::1").is_some());
        drop(first);
        assert!(admit("192.0.2.3").is_some());
        drop((second, six));
        assert!(clients.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_site_of_ipv6_does_not_multiply_its_sessions_by_its_networks() {
        let clients = Arc::new(ConnectionLimit::default());
        let admit = |n: usize| clients.admit(format!("2001:db8:7:{n:x}00::1").parse().unwrap(), 2);
        let open: Vec<CountedConnection> = (0..8).map(|n| admit(n / 2).unwrap()).collect();
        assert!(admit(9).is_none(), "four times the limit of a network");
        assert!(clients.admit("2001:db8:8::1".parse().unwrap(), 2).is_some(), "another site");
        drop(open);
        assert!(admit(9).is_some());
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
