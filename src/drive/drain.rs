//! The shutdown signal, as one session waits for it.

use std::pin::Pin;
use std::task::Context;

use tokio::task::coop::{Unconstrained, unconstrained};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The signal that the daemon stops.
pub(super) struct Drain {
    /// A token of this session alone, so that sessions do not share its lock.
    token: CancellationToken,
    /// Wakes the task. Its first poll has to register the task, whatever the task has done before.
    signal: Pin<Box<Unconstrained<WaitForCancellationFutureOwned>>>,
    registered: bool,
}

impl Drain {
    pub(super) fn new(stopping: &CancellationToken) -> Self {
        let token = stopping.child_token();
        let signal = Box::pin(unconstrained(token.clone().cancelled_owned()));
        Self { token, signal, registered: false }
    }

    /// Whether the signal has come. The first call registers the task, which is the same for the whole session.
    pub(super) fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        if self.registered {
            return self.token.is_cancelled();
        }
        self.registered = true;
        self.signal.as_mut().poll(cx).is_ready()
    }
}
