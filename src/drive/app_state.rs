//! State that all sessions share: config, keys, clock, the memory of the rules, and room for buffered messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::connection_limit::ConnectionLimit;
use super::hold_budget::HoldBudget;
use super::metrics::Metrics;
use crate::config::Config;
use crate::envelope::abuse::Memory;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::RampEvent;
use crate::envelope::time::Timestamp;

/// The shared state of the process.
#[derive(Debug)]
pub(crate) struct AppState {
    /// The config that the process was started with.
    pub config: Config,
    /// The ring in force; replaced as a whole.
    pub ring: ArcSwap<Keyring>,
    /// The number of sessions of each client network.
    pub clients: Arc<ConnectionLimit>,
    /// The counters of this process.
    pub metrics: Metrics,
    /// When the process started.
    pub started: Timestamp,
    memory: Mutex<Memory>,
    ramp: Mutex<RampNotes>,
    ramp_changed: Notify,
    /// Room for buffered messages.
    pub hold_budget: Arc<HoldBudget>,
    sessions: AtomicU64,
}

impl AppState {
    /// The state for this config and ring.
    #[must_use]
    pub(crate) fn new(config: Config, ring: Keyring) -> Self {
        let started = clock();
        let hold_budget = Arc::new(HoldBudget::new(config.limits.held, config.hold));
        Self {
            config,
            ring: ArcSwap::from_pointee(ring),
            clients: Arc::default(),
            metrics: Metrics::default(),
            started,
            memory: Mutex::new(Memory::since(started)),
            ramp: Mutex::default(),
            ramp_changed: Notify::new(),
            hold_budget,
            sessions: AtomicU64::new(0),
        }
    }

    /// The current time of this machine.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        clock()
    }

    /// The memory of the rules: tag guesses, bounce replays, surges.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a ring in force. Interrupted ramps that this process has noted apply to it, even if the file does not have
    /// them: it may be read-only.
    pub(crate) fn set_ring(&self, mut ring: Keyring) {
        for (domain, at) in &self.ramp.lock().unwrap_or_else(PoisonError::into_inner).gaps {
            ring.ramp_stop(domain, *at);
        }
        self.ring.store(Arc::new(ring));
    }

    /// Notes an event about a ramp, to be written into the ring. The same event is noted at most once an hour.
    pub(crate) fn note_ramp(&self, event: RampEvent) {
        let now = self.now();
        let mut notes = self.ramp.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.noted.get(&event).is_some_and(|at| now.0 - at.0 < HOUR) {
            return;
        }
        if let RampEvent::Gap(domain) = &event {
            notes.gaps.insert(domain.clone(), now);
        }
        notes.noted.insert(event.clone(), now);
        notes.to_write.push(event);
        drop(notes);
        self.ramp_changed.notify_one();
    }

    /// Waits for events that have to be written into the ring.
    pub(crate) async fn ramp_notes(&self) -> Vec<RampEvent> {
        loop {
            self.ramp_changed.notified().await;
            let notes = std::mem::take(&mut self.ramp.lock().unwrap_or_else(PoisonError::into_inner).to_write);
            if !notes.is_empty() {
                return notes;
            }
        }
    }

    /// The number of a new session for the log, from 1.
    pub(crate) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }
}

const HOUR: i64 = 3600;

/// Events about ramps. Their number is bounded by the domains in the config.
#[derive(Debug, Default)]
struct RampNotes {
    noted: HashMap<RampEvent, Timestamp>,
    to_write: Vec<RampEvent>,
    gaps: BTreeMap<String, Timestamp>,
}

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
}
