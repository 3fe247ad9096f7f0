//! Groups of listeners and connections that stop together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Listeners and their connections.
pub(super) struct Group {
    acceptors: JoinSet<io::Result<()>>,
    /// Also stops the connections of a group that is dropped.
    stopping: DropGuard,
    connections: TaskTracker,
}

impl Default for Group {
    fn default() -> Self {
        let stopping = CancellationToken::new().drop_guard();
        Self { acceptors: JoinSet::new(), stopping, connections: TaskTracker::new() }
    }
}

impl Group {
    /// Runs an acceptor until the group stops, or it is aborted.
    pub(super) fn accept(&mut self, acceptor: impl Future<Output = io::Result<()>> + Send + 'static) -> AbortHandle {
        // Those that have ended are not kept.
        while self.acceptors.try_join_next().is_some() {}
        self.acceptors.spawn(acceptor)
    }

    /// The signal to stop, for connections.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.stopping.token().clone()
    }

    /// A handle of a connection; [`Group::stop`] waits until it is dropped.
    pub(super) fn member(&self) -> TaskTrackerToken {
        self.connections.token()
    }

    /// Stops accepting connections, and signals the open ones to finish.
    pub(super) async fn close(&mut self) {
        self.acceptors.shutdown().await;
        self.stopping.token().cancel();
    }

    /// Closes the group and waits until its connections have ended.
    pub(super) async fn stop(mut self) {
        self.close().await;
        self.connections.close();
        self.connections.wait().await;
    }
}

/// An open session, counted in a group and in the metrics.
pub(super) struct Ticket {
    open: Arc<AtomicUsize>,
    /// Number of open sessions of the listener, including this one.
    pub number: usize,
    sessions: Gauge,
    _alive: TaskTrackerToken,
}

impl Ticket {
    pub(super) fn new(open: &Arc<AtomicUsize>, alive: TaskTrackerToken, sessions: Gauge) -> Self {
        let number = open.fetch_add(1, Ordering::Relaxed) + 1;
        sessions.inc();
        Self { open: Arc::clone(open), number, sessions, _alive: alive }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.sessions.dec();
    }
}
