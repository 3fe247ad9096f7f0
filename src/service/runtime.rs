//! Threads and runtimes: one single-threaded runtime per core carries sessions from beginning to end, so that a session
//! never moves between cores. Only this file builds runtimes.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The threads that carry sessions.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handles: Vec<Handle>,
    /// A runtime for tasks that are not sessions and that clients could keep busy, so that they do not delay new
    /// sessions.
    aside: Handle,
    next: AtomicUsize,
    /// Also ends the threads of workers that are dropped, or not all of which could be started.
    stop: DropGuard,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts one thread per core, and one for other tasks.
    pub(super) fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let stop = CancellationToken::new().drop_guard();
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        let names = (0..cores).map(|n| format!("session-{n}")).chain(["aside".to_owned()]);
        for name in names {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stopped = stop.token().clone();
            let body = move || {
                runtime.block_on(stopped.cancelled());
                // Does not wait for a name lookup in progress.
                runtime.shutdown_background();
            };
            threads.push(thread::Builder::new().name(name).spawn(body)?);
        }
        let aside = handles.pop().ok_or_else(|| io::Error::other("no thread"))?;
        Ok(Self(Arc::new(Inner { handles, aside, next: AtomicUsize::new(0), stop, threads: Mutex::new(threads) })))
    }

    /// Runs a task on the separate thread for tasks that are not sessions.
    pub(super) fn spawn_aside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.aside.spawn(task);
    }

    /// Runs a session on the next worker in turn.
    pub(super) fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let n = self.0.next.fetch_add(1, Ordering::Relaxed);
        if let Some(handle) = self.0.handles.get(n.checked_rem(self.0.handles.len()).unwrap_or(0)) {
            handle.spawn(session);
        }
    }

    /// Completes when every worker has run a task.
    pub(super) async fn answer(&self) {
        for handle in &self.0.handles {
            let _ = handle.spawn(async {}).await;
        }
    }

    /// Stops the threads; sessions that are still open are dropped.
    pub(super) fn stop(&self) {
        self.0.stop.token().cancel();
        let threads = self.0.threads.lock().map(|mut t| std::mem::take(&mut *t)).unwrap_or_default();
        for thread in threads {
            // The panic of a worker has been reported by the worker itself.
            let _ = thread.join();
        }
    }
}

/// Makes the runtime for everything but sessions: accepting, signals, the key ring.
///
/// # Errors
/// The error of the operating system.
pub fn control() -> io::Result<tokio::runtime::Runtime> {
    Builder::new_current_thread().enable_all().build()
}
