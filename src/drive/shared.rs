//! What all sessions share: policy, keys, clock, and the room for held messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::config::{Config, Endpoint, Listener};
use crate::envelope::keyring::Keyring;
use crate::envelope::time::Timestamp;

/// One for the process.
#[derive(Debug)]
pub struct Shared {
    /// The config.
    pub config: Config,
    /// The ring in force; replaced as a whole.
    pub ring: ArcSwap<Keyring>,
    held: AtomicUsize,
    sessions: AtomicU64,
}

impl Shared {
    /// For this config and ring.
    #[must_use]
    pub fn new(config: Config, ring: Keyring) -> Self {
        let (held, sessions) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { config, ring: ArcSwap::from_pointee(ring), held, sessions }
    }

    /// The clock of this machine.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// A number for a session, for the log.
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Room to hold the head of one message; `None`: all of it is in use.
    #[must_use]
    pub fn room(self: &Arc<Self>) -> Option<Room> {
        let size = self.config.hold;
        let before = self.held.fetch_add(size, Ordering::Relaxed);
        let room = Room { shared: Arc::clone(self), size };
        // Dropping it gives the octets back.
        (before + size <= self.config.held).then_some(room)
    }
}

/// Room for one held message. It is given back when dropped.
#[derive(Debug)]
pub struct Room {
    shared: Arc<Shared>,
    size: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A way in, and the next hops behind it.
#[derive(Debug)]
pub struct Door {
    /// As configured.
    pub listener: Listener,
    /// Where reversed SRS recipients go.
    pub srs_next_hop: Option<Endpoint>,
}
