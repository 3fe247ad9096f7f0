//! How many sessions each client network has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use crate::envelope::memory::network;

/// The sessions of each network. Those without any are not kept.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<IpNet, usize>>);

/// One session of a network, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    clients: Arc<Clients>,
    network: IpNet,
}

impl Clients {
    /// One more session of this client. `None`: it would be more than `limit`.
    #[must_use]
    pub fn admit(self: &Arc<Self>, client: IpAddr, limit: usize) -> Option<Counted> {
        let network = network(client);
        let mut counts = self.0.lock().ok()?;
        let count = counts.entry(network).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { clients: Arc::clone(self), network })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Ok(mut counts) = self.clients.0.lock()
            && let Some(count) = counts.get_mut(&self.network)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_sessions_and_no_other_is_touched() {
        let clients = Arc::new(Clients::default());
        let admit = |ip: &str| clients.admit(ip.parse().unwrap(), 2);
        let (first, second) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.200").unwrap());
        assert!(admit("192.0.2.3").is_none());
        assert!(admit("192.0.3.3").is_some());
        let _six = (admit("2001:db8:0:1::1").unwrap(), admit("2001:db8:0:ff::1").unwrap());
        assert!(admit("2001:db8:0:2::2").is_none() && admit("2001:db8:0:100::1").is_some());
        drop(first);
        assert!(admit("192.0.2.3").is_some());
        drop(second);
        assert_eq!(clients.0.lock().unwrap().len(), 1);
    }
}
