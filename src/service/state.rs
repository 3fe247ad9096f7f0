//! Keeps what must survive a restart in the store that the config names: reads it at the start, and writes what has
//! changed, once a second at most. Only aliases, which `aliases` stores, make mail wait.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use super::counters::Counters;
use super::decision_log::DecisionLog;
use super::recipients;
use crate::config::{Config, MtaService, Role, ServiceProtocol, Side, StateFile};
use crate::drive::app_state::AppState;
use crate::drive::limited_warn;
use crate::envelope::ramp_record::{DomainRecord, RampRecord, UnsignedMail};
use crate::envelope::time::Timestamp;
use crate::state::store::{self, Change, Found, Store, StoreError, Table};
use crate::state::time_format::rfc3339;

/// Interval between two writes.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the start of the daemon waits for the state file.
const PATIENCE: Duration = Duration::from_secs(5);
/// Key of the moment until which all domains are observed.
const PAUSED_UNTIL: &[u8] = b"paused-until";

/// The store of a running daemon, and what could not be written to it yet.
pub(super) struct State {
    store: Arc<dyn Store>,
    decisions: DecisionLog,
    counters: Counters,
    /// Changes that wait, by table and key.
    waiting: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    has_failed: bool,
    /// Whether what is written survives a restart.
    is_kept: bool,
    /// Whether memory has taken the place of a file that cannot be used.
    is_lost: bool,
}

impl State {
    /// Opens the store and restores what it has. Says in the log how it was found.
    pub(super) fn open(app: &AppState) -> Self {
        let config = &app.config().state;
        let suffix = rfc3339(app.now()).replace(':', "");
        let place = place(config);
        let opened = store::open(place.as_deref(), config.max_size, &suffix);
        let path = place.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        match &opened.found {
            Found::Old => debug!(path, "state read"),
            Found::New => info!(path, "a new state file"),
            Found::InMemory => info!("state.path is \"none\": counters and ramp observations end with this process"),
            Found::Damaged(moved) => {
                error!(path, moved, "the state file was damaged; it was moved aside, and a new one begins empty");
                app.metrics.state_failures.inc();
            }
            Found::Unusable(why) => {
                app.metrics.state_failures.inc();
                app.metrics.gauges.state_written.set(0);
                error!(
                    path,
                    why, "the state file cannot be used; until the next start nothing is kept. Mail is not affected"
                );
            }
        }
        let is_lost = matches!(opened.found, Found::Unusable(_));
        let is_kept = matches!(opened.found, Found::Old | Found::New | Found::Damaged(_));
        let store: Arc<dyn Store> = Arc::from(opened.store);
        let decisions = DecisionLog::of(&*store).unwrap_or_else(|error| {
            error!(path, %error, "recent decisions cannot be read; they begin anew");
            DecisionLog::default()
        });
        let counters = Counters::restored(&*store, app).unwrap_or_else(|error| {
            error!(path, %error, "counters cannot be read; they begin anew");
            Counters::default()
        });
        if let Err(error) = recipients::restore(&*store, app) {
            error!(path, %error, "answers about recipients cannot be read; they are asked for again");
        }
        let state = Self { store, decisions, counters, waiting: HashMap::new(), has_failed: false, is_kept, is_lost };
        let mut record = state.ramps().unwrap_or_else(|error| {
            app.metrics.state_failures.inc();
            error!(path, %error, "the state cannot be read; ramp observations begin anew");
            RampRecord::default()
        });
        record.signs_here = signs_here(&app.config());
        app.restore_ramps(record);
        state
    }

    /// As [`open`](Self::open), within a time. A file that its library cannot cope with, or a disk that does not answer,
    /// must not keep the daemon from mail.
    pub(super) async fn open_in_time(app: &Arc<AppState>) -> Self {
        let here = Arc::clone(app);
        let opened = tokio::task::spawn_blocking(move || Self::open(&here));
        match tokio::time::timeout(PATIENCE, opened).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => Self::lost(app, &error.to_string()),
            Err(_) => Self::lost(app, "it does not answer in time"),
        }
    }

    fn lost(app: &AppState, error: &str) -> Self {
        app.metrics.state_failures.inc();
        app.metrics.gauges.state_written.set(0);
        error!(error, "the state file cannot be used; until the next start nothing is kept. Mail is not affected");
        let mut record = RampRecord::default();
        record.signs_here = signs_here(&app.config());
        app.restore_ramps(record);
        let store = Arc::from(store::open(None, 0, "").store);
        let (decisions, counters) = (DecisionLog::default(), Counters::default());
        Self { store, decisions, counters, waiting: HashMap::new(), has_failed: false, is_kept: false, is_lost: true }
    }

    /// Whether what is written survives a restart.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The store, for those who read it.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn ramps(&self) -> Result<RampRecord, StoreError> {
        let mut record = RampRecord::default();
        self.store.scan(Table::Ramp, &mut |key, value| {
            let domain = String::from_utf8_lossy(key).into_owned();
            match serde_json::from_slice::<StoredRamp>(value) {
                Ok(stored) => record.restore(domain, stored.into()),
                Err(error) => {
                    warn!(domain, %error, "what was stored of the ramp of a domain is not readable; it begins anew");
                }
            }
        })?;
        self.store.scan(Table::Daemon, &mut |key, value| {
            if key == PAUSED_UNTIL {
                record.paused_until = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).map(Timestamp);
            }
        })?;
        Ok(record)
    }

    /// Takes over what has changed since the last call, and writes it.
    fn write(&mut self, app: &AppState) {
        for (domain, record) in app.take_ramp_changes() {
            let value = record.and_then(|record| serde_json::to_vec(&StoredRamp::from(&record)).ok());
            self.waiting.insert((Table::Ramp, domain.into_bytes()), value);
        }
        if let Some(until) = app.take_pause_change() {
            let value = until.map(|until| until.0.to_string().into_bytes());
            self.waiting.insert((Table::Daemon, PAUSED_UNTIL.to_vec()), value);
        }
        // What waits is older than what has changed since, and comes first.
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let mut changes: Vec<Change> = waiting.map(|((table, key), value)| Change { table, key, value }).collect();
        changes.extend(self.counters.changes(app));
        changes.extend(recipients::changes(app));
        if !self.commit(app, &changes) {
            self.waiting.extend(changes.into_iter().map(|Change { table, key, value }| ((table, key), value)));
        }
        self.write_decisions(app);
    }

    /// Decisions are many, and the least that is needed: those that cannot be written are left out.
    fn write_decisions(&mut self, app: &AppState) {
        let (decisions, left_out) = app.decisions.take();
        if left_out > 0 {
            limited_warn!(left_out, "more decisions in a second than are kept for `countersign trace`");
        }
        let config = &app.config().state;
        // A full store makes room first.
        let (decisions, most) = match self.store.is_full() {
            true => {
                limited_warn!(
                    "state.max_size is reached; older decisions are removed, and new ones are left out until then"
                );
                (VecDeque::new(), self.decisions.len() / 2)
            }
            false => (decisions, config.decisions),
        };
        let changes = self.decisions.changes(decisions, config.addresses, most, app.now());
        if !self.commit(app, &changes) {
            // What it has is what is there.
            self.decisions = DecisionLog::of(&*self.store).unwrap_or_default();
        }
    }

    fn commit(&mut self, app: &AppState, changes: &[Change]) -> bool {
        if changes.is_empty() {
            return true;
        }
        match self.store.commit(changes) {
            Ok(()) => {
                app.metrics.gauges.state_written.set(i64::from(!self.is_lost));
                if std::mem::take(&mut self.has_failed) {
                    info!("the state file can be written again");
                }
                true
            }
            Err(error) => {
                app.metrics.state_failures.inc();
                app.metrics.gauges.state_written.set(0);
                if !std::mem::replace(&mut self.has_failed, true) {
                    error!(%error, "the state file cannot be written; what it should keep is in memory. Mail is not affected");
                }
                false
            }
        }
    }
}

/// Whether mail is signed by this daemon, and not by another host with the same ring.
pub(super) fn signs_here(config: &Config) -> bool {
    let signs = |service: &MtaService| match service.protocol {
        ServiceProtocol::Milter => service.side != Side::Inbound,
        ServiceProtocol::Socketmap => true,
        ServiceProtocol::Policy => false,
    };
    config.listeners.iter().any(|listener| listener.role == Role::Outbound) || config.mta_services.iter().any(signs)
}

/// The state file. Without one in the config, it is in the folder that systemd gives (`StateDirectory=`), if it gives one.
pub(super) fn place(config: &StateFile) -> Option<PathBuf> {
    let given = std::env::var_os("STATE_DIRECTORY").filter(|_| config.is_default);
    // Several folders are separated by colons; the first is ours.
    let given = given.as_ref().and_then(|folders| folders.to_str()?.split(':').next());
    given.map(|folder| Path::new(folder).join("countersign.db")).or_else(|| config.path.clone())
}

/// Writes what has changed, until `stop` is done, and then once more.
pub(super) async fn keep(mut state: State, app: Arc<AppState>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let is_last = tokio::select! {
            () = &mut stop => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let here = Arc::clone(&app);
        let written = tokio::task::spawn_blocking(move || {
            state.write(&here);
            state
        });
        match written.await {
            Ok(back) => state = back,
            Err(error) => return error!(%error, "the state is not kept any more"),
        }
        if is_last {
            return;
        }
    }
}

/// What is stored of the ramp of a domain.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredRamp {
    signed_days: Vec<i64>,
    unsigned_hosts: Vec<(String, u64, i64)>,
    ended_ramp: Option<i64>,
}

impl From<&DomainRecord> for StoredRamp {
    fn from(record: &DomainRecord) -> Self {
        let hosts = record.unsigned_hosts.iter();
        Self {
            signed_days: record.signed_days.iter().copied().collect(),
            unsigned_hosts: hosts.map(|(host, mail)| (host.clone(), mail.messages, mail.last.0)).collect(),
            ended_ramp: record.ended_ramp.map(|at| at.0),
        }
    }
}

impl From<StoredRamp> for DomainRecord {
    fn from(stored: StoredRamp) -> Self {
        let hosts = stored.unsigned_hosts.into_iter();
        Self {
            signed_days: stored.signed_days.into_iter().collect(),
            unsigned_hosts: hosts
                .map(|(host, messages, last)| (host, UnsignedMail { messages, last: Timestamp(last) }))
                .collect(),
            ended_ramp: stored.ended_ramp.map(Timestamp),
        }
    }
}
