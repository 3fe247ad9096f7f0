//! Networks that ask for users who do not exist.

use core::net::IpAddr;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use ipnet::IpNet;

use super::super::stamp::Wall;
use crate::envelope::abuse::network;

/// Networks that are remembered. When there are more, the half with the fewest names is forgotten.
const MAX: usize = 40_000;
/// Unknown names in an hour from which a network counts as a harvester: the default of `unknown_recipients_per_hour`.
pub(crate) const LIMIT: u32 = 25;

/// Names of a network that are known again when they are asked for once more, such as those of gone members of a list.
const REMEMBERED: usize = 16;

/// What a network has asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Harvester {
    pub names: u64,
    pub first: Wall,
    pub last: Wall,
    hour: i64,
    in_hour: u32,
    /// The most in an hour.
    pub most: u32,
    /// Different names of this hour, and the most in an hour.
    different: u32,
    most_different: u32,
    /// Hashes of the last different names.
    recent: [u64; REMEMBERED],
}

/// All networks.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    networks: HashMap<IpNet, Harvester>,
    state: RandomState,
}

impl Harvest {
    pub(super) fn count(&mut self, client: IpAddr, name: &[u8], at: Wall, times: u64) {
        let network = network(client);
        if self.networks.len() >= MAX && !self.networks.contains_key(&network) {
            let mut names: Vec<u64> = self.networks.values().map(|it| it.names).collect();
            names.sort_unstable();
            let median = names.get(names.len() / 2).copied().unwrap_or(0);
            let mut spare = MAX / 2;
            self.networks.retain(|_, it| {
                let stays = it.names > median || spare == 0;
                spare -= usize::from(!stays);
                stays
            });
        }
        let hash = self.state.hash_one(name.to_ascii_lowercase());
        let new = Harvester {
            names: 0,
            first: at,
            last: at,
            hour: at.hour(),
            in_hour: 0,
            most: 0,
            different: 0,
            most_different: 0,
            recent: [0; REMEMBERED],
        };
        let it = self.networks.entry(network).or_insert(new);
        if it.hour != at.hour() {
            (it.hour, it.in_hour, it.different, it.recent) = (at.hour(), 0, 0, [0; REMEMBERED]);
        }
        if !it.recent.contains(&hash) {
            it.different = it.different.saturating_add(1);
            it.recent.rotate_right(1);
            if let Some(first) = it.recent.first_mut() {
                *first = hash;
            }
        }
        it.most_different = it.most_different.max(it.different);
        it.in_hour = it.in_hour.saturating_add(u32::try_from(times).unwrap_or(u32::MAX));
        it.most = it.most.max(it.in_hour);
        it.names += times;
        it.first = it.first.min(at);
        it.last = it.last.max(at);
    }

    /// The networks that have asked for more different names in an hour than the limit, those with the most names first.
    pub(crate) fn harvesters(&self) -> Vec<(IpNet, Harvester)> {
        let mut found: Vec<_> = self
            .networks
            .iter()
            .filter(|(_, it)| it.most_different > LIMIT)
            .map(|(network, it)| (*network, *it))
            .collect();
        found.sort_by(|a, b| b.1.names.cmp(&a.1.names).then_with(|| a.0.cmp(&b.0)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_by_network_and_hour() {
        let mut harvest = Harvest::default();
        for n in 0..100 {
            // 25 an hour are not too many.
            harvest.count("192.0.2.1".parse().unwrap(), format!("x{n}").as_bytes(), Wall(n * 3600 / 25), 1);
            harvest.count([198, 51, 100, u8::try_from(n).unwrap()].into(), format!("x{n}").as_bytes(), Wall(n), 1);
            // A list goes on writing to a few members that are gone.
            harvest.count(
                [203, 0, 113, 9].into(),
                ["ann", "bob", "Ann"][usize::try_from(n % 3).unwrap()].as_bytes(),
                Wall(n),
                1,
            );
        }
        let found = harvest.harvesters();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1.names, found[0].1.most), ("198.51.100.0/24".parse().unwrap(), 100, 100));
        assert_eq!((found[0].1.first, found[0].1.last), (Wall(0), Wall(99)));
    }

    #[test]
    fn memory_is_bounded_and_those_who_ask_most_stay() {
        let mut harvest = Harvest::default();
        for n in 0..100 {
            harvest.count([192, 0, 2, 1].into(), format!("x{n}").as_bytes(), Wall(0), 1);
        }
        for n in 0..2 * u32::try_from(MAX).unwrap() {
            harvest.count(IpAddr::from((n << 8).to_be_bytes()), b"x", Wall(0), 1);
        }
        assert!(harvest.networks.len() <= MAX);
        assert_eq!(harvest.harvesters().len(), 1);
    }
}
