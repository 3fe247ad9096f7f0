//! Connection slots of a milter, policy service or socketmap: if all are in use, the connection that has been idle
//! longest is closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Waker};

use tokio::time::Instant;

/// The connection slots of one listener.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    most: usize,
    taken: Mutex<Vec<Weak<ConnectionSlot>>>,
}

/// The slot of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    state: Mutex<SlotState>,
    /// Whether another connection needs the slot.
    given_up: AtomicBool,
}

#[derive(Debug, Default)]
struct SlotState {
    /// Since when no request is pending and no answer is due.
    idle: Option<Instant>,
    waker: Option<Waker>,
}

impl ConnectionSlots {
    /// This many slots, at least 1.
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A slot for one more connection. `None`: all are used by connections that are not idle.
    #[must_use]
    pub(crate) fn take(&self) -> Option<Arc<ConnectionSlot>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= self.most {
            taken.retain(|slot| slot.upgrade().is_some_and(|slot| !slot.is_given_up()));
        }
        if taken.len() >= self.most {
            let slots = taken.iter().filter_map(Weak::upgrade);
            let longest = slots.filter_map(|slot| Some((slot.idle_since()?, slot))).min_by_key(|(since, _)| *since)?;
            longest.1.give_up();
            taken.retain(|slot| slot.upgrade().is_some_and(|slot| !slot.is_given_up()));
        }
        let slot = Arc::new(ConnectionSlot {
            state: Mutex::new(SlotState { idle: Some(Instant::now()), waker: None }),
            given_up: AtomicBool::new(false),
        });
        taken.push(Arc::downgrade(&slot));
        Some(slot)
    }
}

impl ConnectionSlot {
    fn idle_since(&self) -> Option<Instant> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).idle
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        if let Some(waker) = self.state.lock().unwrap_or_else(PoisonError::into_inner).waker.take() {
            waker.wake();
        }
    }

    /// Whether the connection has to close. Its task is woken when this becomes true, if it has called `idle`.
    #[must_use]
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// No request is pending, so another connection may take the slot.
    pub(crate) fn idle(&self, cx: &Context<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle.get_or_insert_with(Instant::now);
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
    }

    /// A request or an answer is in progress.
    pub(crate) fn busy(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).idle = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_gives_way() {
        let slots = ConnectionSlots::new(3);
        let take = || slots.take().expect("a place");
        let (first, second, third) = (take(), take(), take());
        first.busy();
        tokio::time::advance(Duration::from_secs(1)).await;
        second.busy();
        second.idle(&Context::from_waker(Waker::noop()));
        let fourth = take();
        assert!(third.is_given_up() && !first.is_given_up() && !second.is_given_up());
        second.busy();
        fourth.busy();
        assert!(slots.take().is_none(), "all are at work");
        drop(first);
        assert!(slots.take().is_some());
    }
}
