//! The daemon: binds sockets, starts threads and runtimes, reloads the key ring, and stops without losing mail.

mod aliases;
mod capped_listener;
pub(crate) mod control;
mod counters;
pub(crate) mod decision_log;
pub(crate) mod fd_limit;
mod gauges;
pub(crate) mod logs;
mod notices;
mod ramp;
pub(crate) mod ramp_words;
mod reload;
pub(crate) mod report;
pub mod runtime;
mod state;
mod status;
mod systemd;
mod task_group;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info, warn};

pub use self::reload::Reload;
use self::runtime::Workers;
use self::state::State;
use self::task_group::{Group, Ticket};
use crate::config::{Access, Config, Endpoint, MtaService, Role, ServiceProtocol, listed};
use crate::drive::app_state::AppState;
use crate::drive::connection_slots::{ConnectionSlot, ConnectionSlots};
use crate::drive::listener::{Bound, Inherited};
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::request_server;
use crate::drive::smtp;
use crate::drive::stream::Accepted;
use crate::drive::{REFUSED, limited_warn};
use crate::envelope::keyring::Keyring;
use crate::wire::smtp::replies::TOO_MANY_CONNECTIONS;

/// Why the daemon does not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot be bound.
    Bind {
        /// The address or socket that could not be opened.
        listen: Endpoint,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A certificate cannot be used.
    Tls {
        /// The listener with the certificate.
        listen: Endpoint,
        /// The error, as text.
        error: String,
    },
    /// The config has no listener.
    NoListener,
    /// A thread or runtime cannot be started.
    Runtime(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listen, error } => write!(f, "cannot listen on {listen}: {error}"),
            Self::Tls { listen, error } => write!(f, "TLS of the listener {listen}: {error}"),
            Self::NoListener => f.write_str("the config has no [[listener]]; there is nothing to do"),
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A daemon with bound sockets, before it accepts connections.
#[derive(Debug)]
pub struct Service {
    app: Arc<AppState>,
    proxy_listeners: Vec<(Arc<ProxyListener>, Bound)>,
    mta_services: Vec<(Arc<MtaService>, Bound)>,
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
        let mut bind = |listen: &Endpoint, access: &Access| {
            Bound::bind(listen, access, &mut inherited)
                .map_err(|error| StartError::Bind { listen: listen.clone(), error })
        };
        let mut proxy_listeners = Vec::new();
        for listener in &config.listeners {
            let tls = |error| StartError::Tls { listen: listener.listen.clone(), error };
            let proxy_listener = ProxyListener::new(listener, &config).map_err(tls)?;
            proxy_listeners.push((Arc::new(proxy_listener), bind(&listener.listen, &listener.access)?));
        }
        let mut mta_services = Vec::new();
        for mta_service in &config.mta_services {
            // By default, access is limited only by the permissions of the socket's folder, because the MTA runs as
            // another user.
            let access = Access { mode: mta_service.access.mode.or(Some(0o666)), ..mta_service.access.clone() };
            let bound = bind(&mta_service.listen, &access)?;
            mta_services.push((Arc::new(mta_service.clone()), bound));
        }
        let status = config.status.as_ref().map(|listen| bind(listen, &Access::default())).transpose()?;
        for name in inherited.left() {
            warn!(name, "systemd passed a socket that no listener names; connections to it are never accepted");
        }
        Ok(Self {
            app: Arc::new(AppState::new(config, ring)),
            proxy_listeners,
            mta_services,
            status,
            reload: Reload::default(),
        })
    }

    /// The address of the HTTP status listener, with the port that the system chose.
    #[must_use]
    pub fn status_address(&self) -> Option<Endpoint> {
        self.status.as_ref().map(Bound::endpoint)
    }

    /// Role and address of each proxy listener, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Role, Endpoint)> {
        self.proxy_listeners
            .iter()
            .map(|(proxy_listener, bound)| (proxy_listener.listener.role, bound.endpoint()))
            .collect()
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
        // Listeners that carry messages stop first, because the MTA may need queries to finish them.
        let (mut mail_tasks, mut query_tasks) = (Group::default(), Group::default());
        let proxy_listeners: Arc<[Arc<ProxyListener>]> =
            self.proxy_listeners.iter().map(|(proxy_listener, _)| Arc::clone(proxy_listener)).collect();
        let mut helpers = JoinSet::new();
        if let Some(status) = self.status {
            info!(listen = %status.endpoint(), "status");
            helpers.spawn(status::serve(
                status,
                Arc::clone(&self.app),
                Arc::clone(&proxy_listeners),
                mail_tasks.stopping(),
            ));
        }
        let state = State::open_in_time(&self.app).await;
        if state.is_kept() {
            helpers.spawn(aliases::keep(Arc::clone(&self.app), state.store(), self.app.aliases.open()));
        }
        if let Some(bound) = control::bind(&self.app.config().control) {
            let reload = self.reload.clone();
            let daemon = control::Daemon {
                app: Arc::clone(&self.app),
                proxy_listeners: Arc::clone(&proxy_listeners),
                reload,
                store: state.store(),
            };
            helpers.spawn(control::serve(bound, daemon));
        }
        helpers.spawn(probe(Arc::clone(&proxy_listeners), self.app.config().status.is_some()));
        helpers.spawn(notices::watch(notices::Notices {
            app: Arc::clone(&self.app),
            proxy_listeners: Arc::clone(&proxy_listeners),
            store: state.store(),
        }));
        helpers.spawn(ramp::write(Arc::clone(&self.app)));
        helpers.spawn(ramp::watch(Arc::clone(&self.app)));
        helpers.spawn(systemd::feed_watchdog(workers.clone()));
        ramp::latch(&self.app);
        let stopped = CancellationToken::new();
        let keeping = tokio::spawn(state::keep(state, Arc::clone(&self.app), stopped.clone().cancelled_owned()));
        for (proxy_listener, bound) in self.proxy_listeners {
            serve_proxy(proxy_listener, bound, &self.app, &workers, &mut mail_tasks);
        }
        for (mta_service, bound) in self.mta_services {
            info!(role = mta_service.side.name(), protocol = mta_service.protocol.name(), listen = %bound.endpoint(), "listening");
            if mta_service.protocol == ServiceProtocol::Milter {
                let app = Arc::clone(&self.app);
                workers.spawn_aside(serve_milter(bound, app, mta_service, mail_tasks.stopping(), mail_tasks.member()));
            } else {
                serve_mta_service(mta_service, bound, &self.app, &workers, &mut query_tasks);
            }
        }
        systemd::ready();
        let watching = reload::watch(Arc::clone(&self.app), proxy_listeners, self.reload);
        tokio::select! {
            () = stop => {}
            () = watching => {}
        }
        systemd::stopping();
        mail_tasks.close().await;
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

/// Accepts connections on a proxy listener.
fn serve_proxy(
    proxy_listener: Arc<ProxyListener>,
    bound: Bound,
    app: &Arc<AppState>,
    workers: &Workers,
    group: &mut Group,
) {
    info!(role = proxy_listener.listener.role.name(), listen = %bound.endpoint(), next_hop = listed(&proxy_listener.listener.next_hop), "listening");
    let (app, workers, open) = (Arc::clone(app), workers.clone(), Arc::default());
    let (drain, member) = (group.stopping(), group.member());
    group.accept(bound.accept_all(move |accepted| {
        let ticket = Ticket::new(&open, member.clone(), app.metrics.sessions.clone());
        admit(accepted, &app, &proxy_listener, &workers, &drain, ticket);
    }));
}

/// Accepts connections on a listener for queries.
fn serve_mta_service(
    mta_service: Arc<MtaService>,
    bound: Bound,
    app: &Arc<AppState>,
    workers: &Workers,
    group: &mut Group,
) {
    let (app, workers, open) = (Arc::clone(app), workers.clone(), Arc::default());
    let (drain, member) = (group.stopping(), group.member());
    let slots = ConnectionSlots::new(mta_service.connections);
    group.accept(bound.accept_all(move |accepted| {
        let Some(slot) = slots.take() else {
            return limited_warn!(listen = %mta_service.listen, "all connections of this listener are in use; closing one");
        };
        let ticket = Ticket::new(&open, member.clone(), app.metrics.sessions.clone());
        answer_queries(accepted, &app, &mta_service, slot, &workers, &drain, ticket);
    }));
}

/// Passes a connection to a worker, or refuses it.
fn admit(
    accepted: Accepted,
    app: &Arc<AppState>,
    proxy_listener: &Arc<ProxyListener>,
    workers: &Workers,
    drain: &CancellationToken,
    ticket: Ticket,
) {
    let peer = accepted.peer();
    app.metrics.connections.inc();
    let over = ticket.number.saturating_sub(proxy_listener.listener.connections);
    if over > 0 {
        app.metrics.limit("connections");
    }
    if over > REFUSED {
        // Even a refusal needs a descriptor for a while.
        return debug!(listen = %proxy_listener.listener.listen, "too many connections; closing one without a reply");
    }
    let full = over > 0;
    let (app, proxy_listener, drain) = (Arc::clone(app), Arc::clone(proxy_listener), drain.clone());
    workers.spawn(async move {
        let _ticket = ticket;
        match accepted.into_plain() {
            Err(error) => warn!(%error, "connection lost before it was served"),
            Ok(client) if full => {
                smtp::refuse(client, peer, TOO_MANY_CONNECTIONS, &proxy_listener).await;
            }
            Ok(client) => smtp::serve(client, peer, app, proxy_listener, drain).await,
        }
    });
}

/// Passes a connection for queries to a worker. A mail server that gets no answer defers its mail.
fn answer_queries(
    accepted: Accepted,
    app: &Arc<AppState>,
    mta_service: &Arc<MtaService>,
    slot: Arc<ConnectionSlot>,
    workers: &Workers,
    drain: &CancellationToken,
    ticket: Ticket,
) {
    let peer = accepted.peer();
    app.metrics.connections.inc();
    let (app, mta_service, drain) = (Arc::clone(app), Arc::clone(mta_service), drain.clone());
    workers.spawn(async move {
        let _ticket = ticket;
        match accepted.into_plain() {
            Err(error) => warn!(%error, "connection lost before it was served"),
            Ok(client) => request_server::serve(client, peer, app, mta_service, slot, drain).await,
        }
    });
}

#[cfg(feature = "milter")]
async fn serve_milter(
    bound: Bound,
    app: Arc<AppState>,
    mta_service: Arc<MtaService>,
    drain: CancellationToken,
    _alive: TaskTrackerToken,
) {
    let listen = mta_service.listen.clone();
    if let Err(error) = crate::drive::milter::serve(bound, app, mta_service, drain).await {
        tracing::error!(%listen, %error, "the milter has failed");
    }
}

/// Never called: the config refuses milters in this build.
#[cfg(not(feature = "milter"))]
async fn serve_milter(_: Bound, _: Arc<AppState>, _: Arc<MtaService>, _: CancellationToken, _: TaskTrackerToken) {}

/// Checks next hops, without end. `is_asked`: there is a status listener, which says whether they are ready.
async fn probe(proxy_listeners: Arc<[Arc<ProxyListener>]>, is_asked: bool) {
    let mut all = false;
    loop {
        tokio::time::sleep(PROBE).await;
        // One that does not answer must not delay the others.
        let mut probes = JoinSet::new();
        for proxy_listener in proxy_listeners.iter().map(Arc::clone) {
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
