//! State that all sessions share: config, keys, clock, the memory of the rules, and room for buffered messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::aliases::Aliases;
use super::connection_limit::ConnectionLimit;
use super::decisions::Decisions;
use super::harvest_gate::HarvestGate;
use super::history::History;
use super::hold_budget::HoldBudget;
use super::metrics::Metrics;
use super::recipients::Recipients;
use super::session_id::{ProcessId, SessionId};
use crate::config::Config;
use crate::envelope::abuse::Memory;
use crate::envelope::keyring::Keyring;
use crate::envelope::ramp_record::{DomainRecord, RampRecord};
use crate::envelope::rules::RampEvent;
use crate::envelope::time::Timestamp;

/// The shared state of the process.
#[derive(Debug)]
pub(crate) struct AppState {
    config: ArcSwap<Config>,
    /// The ring in force; replaced as a whole.
    pub ring: ArcSwap<Keyring>,
    /// The number of sessions of each client network.
    pub clients: Arc<ConnectionLimit>,
    /// The counters of this process.
    pub metrics: Metrics,
    /// When the process started.
    pub started: Timestamp,
    /// The same, by a clock that nobody sets.
    steady_start: Instant,
    /// When the config in force was read, in seconds since 1970.
    config_read: AtomicI64,
    /// What was seen of ramps, for the rules; replaced as a whole.
    pub ramps: ArcSwap<RampRecord>,
    /// Recent decisions that are not written yet.
    pub decisions: Decisions,
    /// Aliases of long senders.
    pub aliases: Aliases,
    /// Domains that were asked about a made-up name, and whether they take mail for it.
    catch_alls: Mutex<BTreeMap<String, bool>>,
    /// Whether recipients exist.
    pub recipients: Recipients,
    /// Queries of strangers about recipients.
    pub harvest: HarvestGate,
    memory: Mutex<Memory>,
    history: Mutex<History>,
    ramp: Mutex<RampNotes>,
    ramp_changed: Notify,
    /// Room for buffered messages.
    pub hold_budget: ArcSwap<HoldBudget>,
    sessions: AtomicU64,
    process: ProcessId,
}

impl AppState {
    /// The state for this config and ring.
    #[must_use]
    pub(crate) fn new(config: Config, ring: Keyring) -> Self {
        let started = clock();
        let metrics = Metrics::default();
        metrics.gauges.started.set(started.0);
        metrics.gauges.state_written.set(1);
        metrics.gauges.ring_loaded.set(1);
        let hold_budget = ArcSwap::from_pointee(HoldBudget::new(config.limits.held, config.hold));
        Self {
            config: ArcSwap::from_pointee(config),
            ring: ArcSwap::from_pointee(ring),
            clients: Arc::default(),
            metrics,
            started,
            steady_start: Instant::now(),
            config_read: AtomicI64::new(started.0),
            ramps: ArcSwap::default(),
            memory: Mutex::new(Memory::since(started)),
            decisions: Decisions::default(),
            aliases: Aliases::default(),
            catch_alls: Mutex::default(),
            recipients: Recipients::default(),
            harvest: HarvestGate::default(),
            history: Mutex::default(),
            ramp: Mutex::default(),
            ramp_changed: Notify::new(),
            hold_budget,
            sessions: AtomicU64::new(0),
            process: ProcessId::now(),
        }
    }

    /// The config in force; replaced as a whole.
    #[must_use]
    pub(crate) fn config(&self) -> arc_swap::Guard<Arc<Config>> {
        self.config.load()
    }

    /// Puts a config in force, for new connections and new decisions.
    pub(crate) fn set_config(&self, config: Config) {
        let before = self.config();
        if (before.limits.held, before.hold) != (config.limits.held, config.hold) {
            // What is buffered now keeps its room until its end.
            self.hold_budget.store(Arc::new(HoldBudget::new(config.limits.held, config.hold)));
        }
        self.config.store(Arc::new(config));
        self.config_read.store(self.now().0, Ordering::Relaxed);
    }

    /// When the config in force was read.
    #[must_use]
    pub(crate) fn config_read(&self) -> Timestamp {
        Timestamp(self.config_read.load(Ordering::Relaxed))
    }

    /// The current time of this machine.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        clock()
    }

    /// How far the clock was set since the start, in seconds; more than 0: forward. The time that a machine sleeps counts
    /// as such.
    pub(crate) fn clock_set(&self) -> i64 {
        let passed = i64::try_from(self.steady_start.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.now().0.saturating_sub(self.started.0).saturating_sub(passed)
    }

    /// The memory of the rules: tag guesses, bounce replays, surges.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Domains that were asked about a made-up name, and whether they take mail for it.
    pub(crate) fn catch_alls(&self) -> BTreeMap<String, bool> {
        self.catch_alls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which domains were asked about a made-up name, and whether they take mail for it.
    pub(crate) fn set_catch_alls(&self, known: BTreeMap<String, bool>) {
        *self.catch_alls.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What became of mail in the last week.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all domains observed until a moment; `None`: not any more.
    pub(crate) fn pause_ramps(&self, until: Option<Timestamp>) {
        let mut notes = self.ramp_notes();
        notes.record.paused_until = until;
        notes.pause_changed = true;
        self.ramps.store(Arc::new(notes.record.clone()));
    }

    /// Says whether mail is signed by this daemon, and not by another host with the same ring.
    pub(crate) fn set_signs_here(&self, signs_here: bool) {
        let mut notes = self.ramp_notes();
        if notes.record.signs_here != signs_here {
            notes.record.signs_here = signs_here;
            self.ramps.store(Arc::new(notes.record.clone()));
        }
    }

    /// Until when all domains are observed, if that has changed since the last call.
    pub(crate) fn take_pause_change(&self) -> Option<Option<Timestamp>> {
        let mut notes = self.ramp_notes();
        std::mem::take(&mut notes.pause_changed).then_some(notes.record.paused_until)
    }

    /// Puts a ring in force. Changes of ramps that this process has noted apply to it, even if the file does not have
    /// them: it may be read-only.
    pub(crate) fn set_ring(&self, ring: Keyring) {
        let ring = self.ramp_notes().applied_to(ring);
        self.ring.store(Arc::new(ring));
    }

    fn ramp_notes(&self) -> MutexGuard<'_, RampNotes> {
        self.ramp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event about a ramp. What belongs into the ring is written there by the task that waits for
    /// [`ramp_changes`](Self::ramp_changes), the same event at most once an hour.
    pub(crate) fn note_ramp(&self, event: RampEvent) {
        let now = self.now();
        let mut notes = self.ramp_notes();
        let changed = match &event {
            RampEvent::Started(domain) | RampEvent::SignedDay(domain) => {
                notes.change(domain, |record, domain| record.note_signed(domain, now))
            }
            RampEvent::Gap(domain) => {
                notes.gaps.insert(domain.clone(), now);
                notes.change(domain, RampRecord::forget)
            }
            RampEvent::Enforced(domain, start) => {
                notes.change(domain, |record, domain| record.note_ended(domain, *start))
            }
        };
        if changed {
            self.ramps.store(Arc::new(notes.record.clone()));
        }
        if matches!(event, RampEvent::SignedDay(_)) || notes.noted.get(&event).is_some_and(|at| now.0 - at.0 < HOUR) {
            return;
        }
        notes.noted.insert(event.clone(), now);
        notes.to_write.push(event);
        drop(notes);
        self.ramp_changed.notify_one();
    }

    /// Notes that a bounce has returned mail of a domain that left unsigned through this host.
    pub(crate) fn note_unsigned(&self, domain: &str, host: &str) {
        let now = self.now();
        let mut notes = self.ramp_notes();
        notes.change(domain, |record, domain| {
            record.note_unsigned(domain, host, now);
            true
        });
        self.ramps.store(Arc::new(notes.record.clone()));
    }

    /// Puts back what was seen of ramps before this process began.
    pub(crate) fn restore_ramps(&self, record: RampRecord) {
        self.ramps.store(Arc::new(record.clone()));
        self.ramp_notes().record = record;
    }

    /// What has changed of the record of ramps since the last call. `None`: the domain is forgotten.
    pub(crate) fn take_ramp_changes(&self) -> Vec<(String, Option<DomainRecord>)> {
        let mut notes = self.ramp_notes();
        let changed = std::mem::take(&mut notes.changed);
        changed
            .into_iter()
            .map(|name| {
                let record = notes.record.domain(&name).cloned();
                (name, record)
            })
            .collect()
    }

    /// Waits for events that have to be written into the ring.
    pub(crate) async fn ramp_changes(&self) -> Vec<RampEvent> {
        loop {
            self.ramp_changed.notified().await;
            let events = std::mem::take(&mut self.ramp_notes().to_write);
            if !events.is_empty() {
                return events;
            }
        }
    }

    /// The name of a new session for the log.
    pub(crate) fn next_session(&self) -> SessionId {
        self.process.session(self.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

const HOUR: i64 = 3600;

/// Events about ramps. Their number is bounded by the domains in the config.
#[derive(Debug, Default)]
struct RampNotes {
    noted: HashMap<RampEvent, Timestamp>,
    to_write: Vec<RampEvent>,
    /// Domains whose mail has left unsigned, and when. The ring may not have it yet.
    gaps: BTreeMap<String, Timestamp>,
    record: RampRecord,
    /// Domains whose record has changed.
    changed: BTreeSet<String>,
    pause_changed: bool,
}

impl RampNotes {
    fn change(&mut self, domain: &str, change: impl FnOnce(&mut RampRecord, &str) -> bool) -> bool {
        let changed = change(&mut self.record, domain);
        if changed {
            self.changed.insert(domain.to_owned());
        }
        changed
    }

    fn applied_to(&self, mut ring: Keyring) -> Keyring {
        for (domain, at) in &self.gaps {
            ring.ramp_stop(domain, *at);
        }
        ring
    }
}

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
}
