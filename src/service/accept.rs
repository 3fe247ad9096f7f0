//! Accepting connections, and passing each to a worker.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

use super::runtime::Workers;
use super::task_group::Ticket;
use crate::config::MtaService;
use crate::drive::app_state::AppState;
use crate::drive::connection_slots::{ConnectionSlot, ConnectionSlots};
use crate::drive::listener::Bound;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::request_server;
use crate::drive::smtp;
use crate::drive::stream::Accepted;
use crate::drive::{REFUSED, limited_warn};
use crate::wire::smtp::replies::TOO_MANY_CONNECTIONS;

/// Accepts connections on a proxy listener, without end. Each gets the settings that are in force then.
pub(super) fn proxy(
    bound: Bound,
    current: Arc<ArcSwap<ProxyListener>>,
    app: &Arc<AppState>,
    workers: &Workers,
    drain: CancellationToken,
    member: TaskTrackerToken,
) -> impl Future<Output = io::Result<()>> + Send + use<> {
    let (app, workers, open) = (Arc::clone(app), workers.clone(), Arc::default());
    bound.accept_all(move |accepted| {
        let ticket = Ticket::new(&open, member.clone(), app.metrics.sessions.clone());
        admit(accepted, &app, &current.load(), &workers, &drain, ticket);
    })
}

/// Accepts connections on a listener for queries, without end.
pub(super) fn service(
    bound: Bound,
    current: Arc<ArcSwap<MtaService>>,
    app: &Arc<AppState>,
    workers: &Workers,
    drain: CancellationToken,
    member: TaskTrackerToken,
) -> impl Future<Output = io::Result<()>> + Send + use<> {
    let (app, workers, open) = (Arc::clone(app), workers.clone(), Arc::default());
    let slots = ConnectionSlots::new(current.load().connections);
    bound.accept_all(move |accepted| {
        let mta_service = current.load();
        let Some(slot) = slots.take() else {
            return limited_warn!(listen = %mta_service.listen, "all connections of this listener are in use; closing one");
        };
        let ticket = Ticket::new(&open, member.clone(), app.metrics.sessions.clone());
        answer_queries(accepted, &app, &mta_service, slot, &workers, &drain, ticket);
    })
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

/// Serves a milter until it is told to stop.
#[cfg(feature = "milter")]
pub(super) async fn milter(
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
pub(super) async fn milter(_: Bound, _: Arc<AppState>, _: Arc<MtaService>, _: CancellationToken, _: TaskTrackerToken) {}
