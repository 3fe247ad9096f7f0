//! Room for buffered messages. Each session takes it as its message grows, and one network has at most a quarter of it.
//! If all of it is in use, the slowest message loses its room.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Room is taken in steps of this many octets.
const STEP: usize = 8 << 10;
/// A message does not lose its room before this time.
const GRACE: Duration = Duration::from_secs(5);

/// The room for all buffered messages.
#[derive(Debug)]
pub(crate) struct HoldBudget {
    /// Room for all messages, in octets.
    total: usize,
    /// The most that one message takes, in octets.
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    octets: usize,
    next: u64,
    messages: HashMap<u64, HeldMessage>,
}

#[derive(Debug)]
struct HeldMessage {
    network: Option<IpNet>,
    octets: usize,
    since: Instant,
    /// When it is dropped, the session learns that its room is gone.
    _keeps: oneshot::Sender<()>,
}

impl HeldMessage {
    /// Octets per second.
    fn speed(&self, now: Instant) -> f64 {
        self.octets as f64 / now.duration_since(self.since).as_secs_f64().max(1.0)
    }
}

/// The room of one buffered message. Released when dropped.
#[derive(Debug)]
pub(crate) struct HoldPermit {
    hold_budget: Arc<HoldBudget>,
    id: u64,
    octets: usize,
    kept: oneshot::Receiver<()>,
    gone: bool,
}

impl HoldBudget {
    /// `total` octets for all messages, and at most `most` for one of them.
    #[must_use]
    pub(crate) fn new(total: usize, most: usize) -> Self {
        Self { total, most, taken: Mutex::default() }
    }

    /// The octets in use.
    #[must_use]
    pub(crate) fn taken(&self) -> usize {
        self.lock().octets
    }

    /// Room for the beginning of one more message. `network` is the client's network, if its share is limited. `None`:
    /// there is no room.
    #[must_use]
    pub(crate) fn begin(self: &Arc<Self>, network: Option<IpNet>) -> Option<HoldPermit> {
        let (keeps, kept) = oneshot::channel();
        let id = {
            let mut taken = self.lock();
            taken.next += 1;
            let id = taken.next;
            taken.messages.insert(id, HeldMessage { network, octets: 0, since: Instant::now(), _keeps: keeps });
            id
        };
        let mut permit = HoldPermit { hold_budget: Arc::clone(self), id, octets: 0, kept, gone: false };
        // If it is dropped, its room is released.
        permit.grow(1).then_some(permit)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `more` octets for the message `id`. `false`: there is no room for it.
    fn take(&self, id: u64, more: usize) -> bool {
        let now = Instant::now();
        let mut taken = self.lock();
        let Some(network) = taken.messages.get(&id).map(|message| message.network) else { return false };
        let share = (self.total / 4).max(self.most);
        let of_network = |message: &&HeldMessage| network.is_some() && message.network == network;
        let used: usize = taken.messages.values().filter(of_network).map(|message| message.octets).sum();
        if used + more > share {
            return false;
        }
        while taken.octets + more > self.total {
            let may_go = |(_, message): &(&u64, &HeldMessage)| now.duration_since(message.since) >= GRACE;
            let slowest = taken.messages.iter().filter(may_go).filter(|(_, message)| message.octets > 0);
            let slowest = slowest.min_by(|(_, a), (_, b)| a.speed(now).total_cmp(&b.speed(now))).map(|(id, _)| *id);
            match slowest {
                Some(other) if other != id => taken.remove(other),
                _ => return false,
            }
        }
        taken.octets += more;
        if let Some(message) = taken.messages.get_mut(&id) {
            message.octets += more;
        }
        true
    }
}

impl Taken {
    fn remove(&mut self, id: u64) {
        if let Some(message) = self.messages.remove(&id) {
            self.octets = self.octets.saturating_sub(message.octets);
        }
    }
}

impl HoldPermit {
    /// Takes room for a message of this many octets. `false`: there is no room.
    #[must_use]
    pub(crate) fn grow(&mut self, octets: usize) -> bool {
        let step = STEP.min(self.hold_budget.most).max(1);
        let wanted = octets.div_ceil(step).saturating_mul(step).min(self.hold_budget.most);
        let more = wanted.saturating_sub(self.octets);
        if more == 0 {
            return true;
        }
        let taken = self.hold_budget.take(self.id, more);
        self.octets += if taken { more } else { 0 };
        taken
    }

    /// Whether another message has taken the room. Once `true`, it stays so.
    pub(crate) fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.gone = self.gone || matches!(Pin::new(&mut self.kept).poll(cx), Poll::Ready(_));
        self.gone
    }
}

impl Drop for HoldPermit {
    fn drop(&mut self) {
        self.hold_budget.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 128 << 10;

    fn net(text: &str) -> Option<IpNet> {
        Some(text.parse().unwrap())
    }

    fn is_gone(permit: &mut HoldPermit) -> bool {
        permit.is_gone(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_taken_as_a_message_grows_and_given_back() {
        let hold_budget = Arc::new(HoldBudget::new(1 << 20, MOST));
        let mut permit = hold_budget.begin(None).unwrap();
        assert_eq!(hold_budget.taken(), STEP);
        assert!(permit.grow(STEP) && hold_budget.taken() == STEP);
        assert!(permit.grow(STEP + 1) && hold_budget.taken() == 2 * STEP);
        assert!(permit.grow(10 * MOST) && hold_budget.taken() == MOST, "no message is longer");
        drop(permit);
        assert_eq!(hold_budget.taken(), 0);
        assert!(hold_budget.lock().messages.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_has_a_quarter() {
        let hold_budget = Arc::new(HoldBudget::new(8 * MOST, MOST));
        let (mut a, mut b) =
            (hold_budget.begin(net("192.0.2.0/24")).unwrap(), hold_budget.begin(net("192.0.2.0/24")).unwrap());
        assert!(a.grow(MOST) && b.grow(MOST));
        assert!(hold_budget.begin(net("192.0.2.0/24")).is_none());
        let mut other = hold_budget.begin(net("198.51.100.0/24")).unwrap();
        assert!(other.grow(MOST) && !is_gone(&mut a));
        // A client that the config names is not limited to a share.
        let known: Vec<HoldPermit> = (0..4).map_while(|_| hold_budget.begin(None)).collect();
        assert_eq!(known.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_gives_way_but_not_at_once() {
        let hold_budget = Arc::new(HoldBudget::new(4 * MOST, MOST));
        let mut slow: Vec<HoldPermit> = (0..64).map_while(|_| hold_budget.begin(None)).collect();
        assert_eq!((slow.len(), hold_budget.taken()), (64, 4 * MOST));
        assert!(hold_budget.begin(None).is_none(), "those have just begun");
        tokio::time::advance(GRACE).await;
        let mut fast = hold_budget.begin(None).unwrap();
        assert!(fast.grow(MOST), "a message that comes takes the room of those that do not");
        assert_eq!(slow.iter_mut().map(is_gone).filter(|gone| *gone).count(), MOST / STEP);
        assert!(!is_gone(&mut fast) && hold_budget.taken() <= 4 * MOST);
        let (gone, kept): (Vec<HoldPermit>, Vec<HoldPermit>) = slow.into_iter().partition(|permit| permit.gone);
        drop(gone);
        assert_eq!(hold_budget.taken(), 4 * MOST, "what was taken is not given back twice");
        drop((kept, fast));
        assert_eq!(hold_budget.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_the_slowest_itself_takes_nothing_from_others() {
        let hold_budget = Arc::new(HoldBudget::new(2 * MOST, MOST));
        let mut trickle = hold_budget.begin(None).unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        let mut others: Vec<HoldPermit> = (0..2).map(|_| hold_budget.begin(None).unwrap()).collect();
        assert!(others[0].grow(MOST) && others[1].grow(MOST - STEP));
        tokio::time::advance(GRACE).await;
        assert!(!trickle.grow(STEP + 1));
        assert!(!others.iter_mut().any(is_gone));
    }
}
