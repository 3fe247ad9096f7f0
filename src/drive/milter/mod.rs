//! The milter protocol: an MTA sends the events of each message, and receives the changes at its end.
//!
//! `indymilter` implements it. First the events that the MTA has to send are agreed on (`negotiate`).
//! [`wire::milter`](crate::wire::milter) interprets the events, and `drive::evaluate` queries the rules.

mod events;
mod framing;
mod negotiate;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use indymilter::{Callbacks, Listener};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::events::{Client, MilterContext};
use self::framing::{BufferedConnection, FrameTimeouts};
use crate::config::MtaService;
use crate::drive::app_state::AppState;
use crate::drive::connection_slots::{ConnectionSlot, ConnectionSlots};
use crate::drive::limited_warn;
use crate::drive::listener::Bound;
use crate::drive::stream::Accepted;

/// The number of connections that may wait until others have ended.
const WAITING: usize = 64;
/// Serves until the daemon stops; open messages may finish.
///
/// # Errors
/// The system's error.
pub(crate) async fn serve(
    bound: Bound,
    app: Arc<AppState>,
    mta_service: Arc<MtaService>,
    drain: CancellationToken,
) -> io::Result<()> {
    let (sender, incoming) = mpsc::channel(WAITING);
    // Connections that give up their slot take a moment to end.
    let most = mta_service.connections.saturating_add(WAITING);
    let here = Arc::clone(&mta_service);
    let slots = ConnectionSlots::new(mta_service.connections);
    let acceptor = tokio::spawn(bound.accept_all(move |accepted| {
        if !super::request_server::is_admitted(accepted.peer(), &here) {
            return;
        }
        let seated = slots.take().is_some_and(|slot| sender.try_send((accepted, slot)).is_ok());
        if !seated {
            limited_warn!(listen = %here.listen, "all connections of this listener are in use; closing one");
        }
    }));
    let open = watch::Sender::new(0);
    let stop = stopped(drain.clone(), open.subscribe(), app.config().timeouts.drain, acceptor);
    // Between two commands, the MTA waits for its own client.
    let connection_timeout = app.config().timeouts.transaction;
    let config = indymilter::Config { max_connections: most, connection_timeout, ..indymilter::Config::default() };
    let incoming = Incoming { incoming, app: Arc::clone(&app) };
    indymilter::run(incoming, callbacks(MilterContext { app, mta_service, open, drain }), config, stop).await
}

/// Waits for the daemon to stop, stops accepting connections, and waits for open messages, at most for `patience`.
async fn stopped(
    drain: CancellationToken,
    mut open: watch::Receiver<usize>,
    patience: Duration,
    acceptor: tokio::task::JoinHandle<io::Result<()>>,
) {
    drain.cancelled().await;
    acceptor.abort();
    let _ = tokio::time::timeout(patience, open.wait_for(|open| *open == 0)).await;
}

/// The connections that the acceptor has accepted.
struct Incoming {
    incoming: mpsc::Receiver<(Accepted, Arc<ConnectionSlot>)>,
    app: Arc<AppState>,
}

impl Listener for Incoming {
    type Io = BufferedConnection;

    /// Never returns an error, which would end the listener.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BufferedConnection>> {
        loop {
            let Some((accepted, slot)) = ready!(self.incoming.poll_recv(cx)) else { return Poll::Pending };
            match accepted.into_plain() {
                Ok(plain) => {
                    self.app.metrics.connections.inc();
                    let timeouts = &self.app.config().timeouts;
                    let patience = FrameTimeouts { frame: timeouts.connect, idle: timeouts.command };
                    return Poll::Ready(Ok(BufferedConnection::new(
                        plain,
                        slot,
                        patience,
                        self.app.metrics.sessions.clone(),
                    )));
                }
                Err(error) => warn!(%error, "connection lost before it was served"),
            }
        }
    }
}

/// The callbacks for the events that are wanted. The MTA is not asked for the connect event, because the library cannot
/// parse its IPv6 addresses.
fn callbacks(common: MilterContext) -> Callbacks<Client> {
    let wanted = negotiate::Wanted::new(&common.app.config().policy, common.mta_service.side);
    let mut callbacks = Callbacks::new()
        .on_negotiate(move |context, actions, options| {
            let common = common.clone();
            Box::pin(async move { negotiate::negotiate(context, wanted, actions, options, common) })
        })
        .on_mail(|context, arguments| Box::pin(async move { events::mail(context, &arguments).await }))
        .on_rcpt(|context, arguments| Box::pin(async move { events::rcpt(context, &arguments).await }))
        .on_eom(|context| Box::pin(events::end_of_message(context)))
        .on_abort(|context| Box::pin(async move { events::abort(context) }));
    if wanted.headers {
        callbacks =
            callbacks.on_header(|context, name, value| Box::pin(async move { events::header(context, &name, &value) }));
    }
    if wanted.bodies {
        callbacks = callbacks.on_body(|context, part| Box::pin(async move { events::body(context, &part) }));
    }
    callbacks
}
