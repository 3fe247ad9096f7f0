//! Queries that wait for others of their network, and sessions whose reply is delayed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

/// The most sessions whose reply is delayed at a time.
const MAX_DELAYED: usize = 256;

/// Queries that wait for others of their network, and sessions whose reply is delayed.
#[derive(Debug, Default)]
pub(crate) struct HarvestGate {
    waiting: Mutex<HashMap<IpNet, Arc<Notify>>>,
    delayed: AtomicUsize,
}

impl HarvestGate {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<IpNet, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the waiting queries of a network try again.
    pub(super) fn wake(&self, network: IpNet) {
        if let Some(notify) = self.waiting().get(&network) {
            notify.notify_waiters();
        }
    }

    /// Takes a place among the sessions whose reply is delayed. `None`: there are too many.
    pub(super) fn delay(&self) -> Option<Delayed<'_>> {
        Delayed::begin(&self.delayed)
    }
}

/// A query that waits for others of its network. The last one that ends removes their entry.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    gate: &'a HarvestGate,
    network: IpNet,
    pub notify: Arc<Notify>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(gate: &'a HarvestGate, network: IpNet) -> Self {
        let notify = Arc::clone(gate.waiting().entry(network).or_default());
        Self { gate, network, notify }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting();
        // One is in the map, and one is this.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.network);
        }
    }
}

/// A place among the sessions whose reply is delayed.
#[derive(Debug)]
pub(super) struct Delayed<'a>(&'a AtomicUsize);

impl<'a> Delayed<'a> {
    fn begin(delayed: &'a AtomicUsize) -> Option<Self> {
        let one_more = |n: usize| (n < MAX_DELAYED).then_some(n + 1);
        delayed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Self(delayed))
    }
}

impl Drop for Delayed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::abuse::surge_network;

    #[test]
    fn so_many_replies_are_delayed_at_a_time() {
        let delayed = AtomicUsize::new(0);
        let mut places: Vec<_> = (0..MAX_DELAYED).map(|_| Delayed::begin(&delayed).unwrap()).collect();
        assert!(Delayed::begin(&delayed).is_none());
        places.pop();
        assert!(Delayed::begin(&delayed).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn queries_that_wait_leave_nothing_behind() {
        let gate = HarvestGate::default();
        let network = surge_network([192, 0, 2, 1].into());
        let (first, second) = (Waiter::new(&gate, network), Waiter::new(&gate, network));
        drop(first);
        assert_eq!(gate.waiting().len(), 1);
        let woken = second.notify.notified();
        gate.wake(network);
        woken.await;
        drop(second);
        assert!(gate.waiting().is_empty());
    }
}
