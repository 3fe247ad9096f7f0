//! The daemon: binds sockets, starts threads and runtimes, reloads the key ring, and stops without losing mail.

mod accept;
mod aliases;
mod attention;
mod capped_listener;
mod catch_all;
pub(crate) mod control;
mod counters;
pub(crate) mod decision_log;
pub(crate) mod decision_words;
pub(crate) mod fd_limit;
mod file_version;
mod gauges;
mod listeners;
pub(crate) mod logs;
mod notices;
mod page;
pub(crate) mod parts;
mod pause;
mod port_holder;
mod ramp;
pub(crate) mod ramp_words;
mod recipients;
mod reload;
pub(crate) mod report;
pub mod runtime;
mod start_error;
mod state;
mod status;
mod systemd;
mod task_group;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::control::Daemon;
use self::listeners::{BoundListeners, Listeners, SharedListeners};
pub use self::reload::Reload;
use self::runtime::Workers;
pub use self::start_error::StartError;
use self::state::State;
use crate::config::{Access, Config, Endpoint, Role};
use crate::drive::app_state::AppState;
use crate::drive::listener::{Bound, Inherited};
use crate::envelope::keyring::Keyring;

/// A daemon with bound sockets, before it accepts connections.
#[derive(Debug)]
pub struct Service {
    app: Arc<AppState>,
    listeners: BoundListeners,
    status: Option<Bound>,
    reload: Reload,
}

/// Time limit for stopping the listeners for queries.
const QUERIES_STOP: Duration = Duration::from_secs(2);
/// Interval of the checks whether next hops that are down can be reached again. With a status listener, every second one
/// is about all next hops that no session has reached meanwhile.
const PROBE: Duration = Duration::from_secs(5);

impl Service {
    /// Binds the sockets of all listeners.
    ///
    /// # Errors
    /// See [`StartError`]; no socket is left bound then.
    pub fn bind(config: Config, ring: Keyring) -> Result<Self, StartError> {
        if config.listeners.is_empty() && config.mta_services.is_empty() {
            return Err(StartError::NoListener);
        }
        let mut inherited = Inherited::from_env();
        let listeners = BoundListeners::bind(&config, &mut inherited)?;
        let status = config.status.as_ref().map(|listen| {
            Bound::bind(listen, &Access::default(), &mut inherited)
                .map_err(|error| StartError::bind("status.listen", listen, None, error))
        });
        let status = status.transpose()?;
        for name in inherited.left() {
            warn!(name, "systemd passed a socket that no listener names; connections to it are never accepted");
        }
        let app = Arc::new(AppState::new(config, ring));
        recipients::load(&app, &app.config().recipients)?;
        Ok(Self { app, listeners, status, reload: Reload::default() })
    }

    /// The address of the HTTP status listener, with the port that the system chose.
    #[must_use]
    pub fn status_address(&self) -> Option<Endpoint> {
        self.status.as_ref().map(Bound::endpoint)
    }

    /// Role and address of each proxy listener, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Role, Endpoint)> {
        self.listeners.addresses()
    }

    /// A handle for reloading the config, the key ring and certificates.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Accepts and serves connections until `stop` is done, then lets transactions finish within `timeouts.drain`.
    ///
    /// # Errors
    /// A thread or runtime cannot be started.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let workers = Workers::start().map_err(StartError::Runtime)?;
        let listeners = Arc::new(Listeners::new(Arc::clone(&self.app), workers.clone()));
        let shared = listeners.shared();
        let mut helpers = JoinSet::new();
        let state = State::open_in_time(&self.app).await;
        if state.is_kept() {
            helpers.spawn(aliases::keep(Arc::clone(&self.app), state.store(), self.app.aliases.open()));
        }
        ramp::latch(&self.app);
        let store = state.store();
        let stopped = CancellationToken::new();
        let keeping = tokio::spawn(state::keep(state, Arc::clone(&self.app), stopped.clone().cancelled_owned()));
        let control = control::bind(&self.app.config().control);
        listeners.start(self.listeners);
        if let Some(status) = self.status {
            info!(listen = %status.endpoint(), "status");
            let (app, listeners_now) = (Arc::clone(&self.app), Arc::clone(&shared));
            helpers.spawn(status::serve(status, app, listeners_now, Arc::clone(&store), listeners.draining()));
        }
        let daemon = Daemon {
            app: Arc::clone(&self.app),
            listeners: Arc::clone(&listeners),
            reload: self.reload.clone(),
            store: Arc::clone(&store),
        };
        if let Some(bound) = control {
            helpers.spawn(control::serve(bound, daemon));
        }
        helpers.spawn(probe(Arc::clone(&shared), self.app.config().status.is_some()));
        helpers.spawn(ramp::write(Arc::clone(&self.app)));
        helpers.spawn(ramp::watch(Arc::clone(&self.app)));
        helpers.spawn(recipients::watch(Arc::clone(&self.app)));
        helpers.spawn(catch_all::watch(Arc::clone(&self.app), Arc::clone(&shared), Arc::clone(&store)));
        helpers.spawn(systemd::feed_watchdog(workers.clone()));
        helpers.spawn(notices::watch(notices::Notices { app: Arc::clone(&self.app), listeners: shared, store }));
        systemd::ready();
        tokio::select! {
            () = stop => {}
            () = reload::watch(Arc::clone(&self.app), Arc::clone(&listeners), self.reload) => {}
        }
        systemd::stopping();
        let (mail_tasks, query_tasks) = listeners.close().await;
        info!(sessions = self.app.metrics.sessions.get(), "stopping: no new connections, transactions may finish");
        let carried = tokio::time::timeout(self.app.config().timeouts.drain, mail_tasks.stop()).await;
        let asked = tokio::time::timeout(QUERIES_STOP, query_tasks.stop()).await;
        if carried.is_err() || asked.is_err() {
            warn!(
                sessions = self.app.metrics.sessions.get(),
                "timeouts.drain is over with transactions still open; their clients will try again"
            );
        }
        tokio::task::spawn_blocking(move || workers.stop())
            .await
            .map_err(|e| StartError::Runtime(io::Error::other(e)))?;
        stopped.cancel();
        // A disk that does not answer must not keep the daemon from ending.
        let _ = tokio::time::timeout(QUERIES_STOP, keeping).await;
        ramp::summary(&self.app);
        info!("stopped");
        Ok(())
    }
}

/// Checks next hops, without end. `is_asked`: there is a status listener, which says whether they are ready.
async fn probe(listeners: SharedListeners, is_asked: bool) {
    let mut all = false;
    loop {
        tokio::time::sleep(PROBE).await;
        // One that does not answer must not delay the others.
        let mut probes = JoinSet::new();
        for proxy_listener in listeners.load().iter().map(Arc::clone) {
            probes.spawn(async move {
                for hops in proxy_listener.all_hops() {
                    hops.probe(all).await;
                }
            });
        }
        probes.join_all().await;
        all = is_asked && !all;
    }
}
