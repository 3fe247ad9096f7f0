//! The shutdown signal, as one session waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::sync::watch;
use tokio::task::coop::unconstrained;

/// The signal that the daemon stops.
pub(super) struct Drain {
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    changed: watch::Receiver<bool>,
    registered: bool,
}

impl Drain {
    pub(super) fn new(changed: watch::Receiver<bool>) -> Self {
        let mut receiver = changed.clone();
        let signal = Box::pin(async move {
            // Without a sender, the process is ending anyway. The first poll has to register the task, whatever the
            // task has done before.
            let _ = unconstrained(receiver.wait_for(|draining| *draining)).await;
        });
        Self { signal, changed, registered: false }
    }

    /// Whether the signal has come. The first call registers the task, which is the same for the whole session. Later
    /// calls only look for a change.
    pub(super) fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        let look = !self.registered || self.changed.has_changed().unwrap_or(true);
        self.registered = true;
        look && self.signal.as_mut().poll(cx).is_ready()
    }
}
