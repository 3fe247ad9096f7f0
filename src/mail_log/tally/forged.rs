//! What forgers have used.

use core::net::IpAddr;
use std::collections::HashMap;

use super::super::fields::text_of;
use crate::envelope::abuse::network;
use crate::envelope::top::Top;

/// Names that are counted before the rarest are forgotten.
const MAX_NAMES: usize = 20_000;

/// Names that forgers have used, and the networks whose servers have believed them.
#[derive(Debug, Default)]
pub(crate) struct Forged {
    pub names: Top<MAX_NAMES>,
    pub networks: Top<MAX_NAMES>,
    /// The name of a client in some of the networks.
    pub network_names: HashMap<String, String>,
}

impl Forged {
    pub(super) fn count(&mut self, to: &[u8], client: Option<IpAddr>, name: Option<&[u8]>, times: u64) {
        if !to.is_empty() {
            self.names.count_text(&without_tag(&text_of(to).to_ascii_lowercase()), times);
        }
        if let Some(client) = client {
            let network = network(client).to_string();
            if let Some(name) = name
                && self.network_names.len() < MAX_NAMES
                && !self.network_names.contains_key(&network)
            {
                self.network_names.insert(network.clone(), text_of(name));
            }
            self.networks.count_text(&network, times);
        }
    }
}

/// An address behind a BATV tag.
fn without_tag(address: &str) -> String {
    match address.strip_prefix("prvs=").and_then(|rest| rest.split_once('=')) {
        Some((_, plain)) if plain.contains('@') => plain.to_owned(),
        _ => address.to_owned(),
    }
}
