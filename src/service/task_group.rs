//! Groups of listeners and connections that stop together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Listeners and their connections.
pub(super) struct Group {
    acceptors: JoinSet<io::Result<()>>,
    signal: watch::Sender<bool>,
    /// Each connection holds a clone; when the last one is dropped, all connections have ended.
    alive: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

impl Group {
    pub(super) fn new() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { acceptors: JoinSet::new(), signal: watch::Sender::new(false), alive, gone }
    }

    /// Runs an acceptor until the group stops.
    pub(super) fn accept(&mut self, acceptor: impl Future<Output = io::Result<()>> + Send + 'static) {
        self.acceptors.spawn(acceptor);
    }

    /// The signal to stop, for a connection.
    pub(super) fn drain(&self) -> watch::Receiver<bool> {
        self.signal.subscribe()
    }

    /// A handle of a connection; [`Group::stop`] waits until it is dropped.
    pub(super) fn member(&self) -> mpsc::Sender<()> {
        self.alive.clone()
    }

    /// Stops accepting connections, and signals the open ones to finish.
    pub(super) async fn close(&mut self) {
        self.acceptors.shutdown().await;
        self.signal.send_replace(true);
    }

    /// Closes the group and waits until its connections have ended.
    pub(super) async fn stop(mut self) {
        self.close().await;
        let Self { alive, mut gone, .. } = self;
        drop(alive);
        gone.recv().await;
    }
}

/// An open session, counted in a group and in the metrics.
pub(super) struct Ticket {
    open: Arc<AtomicUsize>,
    /// Number of open sessions of the listener, including this one.
    pub number: usize,
    sessions: Gauge,
    _alive: mpsc::Sender<()>,
}

impl Ticket {
    pub(super) fn new(open: &Arc<AtomicUsize>, alive: mpsc::Sender<()>, sessions: Gauge) -> Self {
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
