//! Aliases: short names for senders whose SRS address would be too long.
//!
//! The local part of an address has at most 64 octets (RFC 5321 section 4.5.3.1.1), and many return addresses of bulk
//! mail leave no room for the fields of SRS0. Such a sender gets `SRS0=HHHHHH=TT=alias=AAAAAAAAAAAAAAAA`. The host
//! `alias` has no dot, so it is not a host name on the internet. A names an entry in a store, which has the sender. Hash
//! and stamp are those of any other SRS0 address of an own key, so all rules for these apply.

use super::mac;
use crate::envelope::address::Address;
use crate::envelope::keyring::Key;
use crate::envelope::time::Day;

/// The host field of an alias.
pub(super) const ALIAS_HOST: &str = "alias";
/// Octets of an id.
const OCTETS: usize = 10;
/// Characters of an id in an address: base32 has five bits each.
const LENGTH: usize = 16;

/// The name of a sender on one day.
///
/// It is derived from the sender, the day and a key, so that hosts with the same key ring, and a host that has
/// restarted, give the same sender the same name. Without the key its 80 bits cannot be told from random ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Alias {
    id: [u8; OCTETS],
    day: Day,
}

impl Alias {
    /// The alias of a sender on this day.
    #[must_use]
    pub fn of(key: &Key, today: Day, sender: &Address) -> Self {
        let day = today.0.to_string();
        // Local parts that differ in case may be different mailboxes, and the sender is restored as it was.
        let mac = mac::own(&key.secret, &["countersign srs alias 1", &day, sender.as_str()]);
        let mut id = [0; OCTETS];
        id.iter_mut().zip(mac).for_each(|(octet, from)| *octet = from);
        Self { id, day: today }
    }

    /// The alias in the fields of an SRS0 address of this day. `None`: they name a host.
    pub(super) fn parse(host: &str, user: &str, day: Day) -> Option<Self> {
        if !is_alias_host(host) || user.len() != LENGTH {
            return None;
        }
        let octets = base32::decode(base32::Alphabet::Rfc4648 { padding: false }, &user.to_ascii_uppercase())?;
        Some(Self { id: octets.try_into().ok()?, day })
    }

    /// The day on which it was made.
    #[must_use]
    pub fn day(&self) -> Day {
        self.day
    }

    /// Its name in a store. Names of earlier days are less than those of later ones.
    #[must_use]
    pub fn key(&self) -> [u8; 14] {
        let mut key = [0; 4 + OCTETS];
        let octets = Self::first_key_of(self.day).into_iter().chain(self.id);
        key.iter_mut().zip(octets).for_each(|(octet, from)| *octet = from);
        key
    }

    /// What names of a day begin with. Names of earlier days are less.
    #[must_use]
    pub fn first_key_of(day: Day) -> [u8; 4] {
        u32::try_from(day.0).unwrap_or_default().to_be_bytes()
    }
}

impl std::fmt::Display for Alias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&base32::encode(base32::Alphabet::Rfc4648 { padding: false }, &self.id))
    }
}

/// Whether the host field of an SRS0 address says that it is an alias.
pub(super) fn is_alias_host(host: &str) -> bool {
    host.eq_ignore_ascii_case(ALIAS_HOST)
}
