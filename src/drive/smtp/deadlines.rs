//! How long a session waits, and for what: kept as a few moments, looked at when the timer fires.

use std::time::Duration;

use tokio::time::Instant;

/// Why the waiting is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUp {
    /// Nothing has moved for as long as it may.
    Silence,
    /// The transaction is too old.
    Transaction,
    /// The client sends its message too slowly.
    TooSlow,
    /// The client asks nothing, and its next hop could serve others.
    Rest,
}

/// So long a session without a transaction keeps its next hop while the client is silent.
pub(super) const REST: Duration = Duration::from_secs(10);

/// The moments that matter.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// When somebody has been silent for too long.
    silence: Instant,
    progress: u64,
    /// The open transaction, and when it is too old.
    transaction: Option<(u64, Instant)>,
    window: Option<Window>,
    /// When the next hop is let go.
    rest: Option<Instant>,
    /// Octets per second, taken over so long; 0: any.
    least: u32,
    over: Duration,
}

/// Some minutes of a message.
#[derive(Debug)]
struct Window {
    ends: Instant,
    octets: u64,
    /// The client could not send because the next hop did not take.
    held_up: bool,
}

impl Deadlines {
    pub(super) fn new(silence: Instant, least: u32, over: Duration) -> Self {
        Self { silence, progress: 0, transaction: None, window: None, rest: None, least, over }
    }

    /// The next moment to look.
    pub(super) fn next(&self) -> Instant {
        let transaction = self.transaction.as_ref().map(|(_, at)| *at);
        let window = self.window.as_ref().map(|window| window.ends);
        [transaction, window, self.rest].into_iter().flatten().fold(self.silence, Instant::min)
    }

    /// Something has moved. Only what is progress is a reason to wait longer.
    pub(super) fn moved(&mut self, progress: u64, also: bool, wait: Duration) {
        if progress != self.progress || also {
            self.progress = progress;
            self.silence = Instant::now() + wait;
            self.rest = None;
        }
    }

    /// Whether the session could do without its next hop.
    pub(super) fn resting(&mut self, could: bool) {
        match (could, self.rest) {
            (true, None) => self.rest = Some(Instant::now() + REST),
            (false, Some(_)) => self.rest = None,
            _ => {}
        }
    }

    /// Which transaction is open, and how long one may be.
    pub(super) fn transaction(&mut self, open: Option<u64>, limit: Duration) {
        if self.transaction.as_ref().map(|(id, _)| *id) != open {
            self.transaction = open.map(|id| (id, Instant::now() + limit));
        }
    }

    /// Whether a message is being sent.
    pub(super) fn body(&mut self, under_way: bool) {
        match (&self.window, under_way && self.least > 0) {
            (None, true) => self.window = Some(Window { ends: Instant::now() + self.over, octets: 0, held_up: false }),
            (Some(_), false) => self.window = None,
            _ => {}
        }
    }

    pub(super) fn octets(&mut self, n: usize) {
        if let Some(window) = &mut self.window {
            window.octets += n as u64;
        }
    }

    /// It is not the client who is slow.
    pub(super) fn held_up(&mut self) {
        if let Some(window) = &mut self.window {
            window.held_up = true;
        }
    }

    /// Whether the waiting is over. `wait` is how long the next one may be.
    pub(super) fn time_up(&mut self, wait: Duration) -> Option<TimeUp> {
        let now = Instant::now();
        if self.silence <= now {
            self.silence = now + wait;
            return Some(TimeUp::Silence);
        }
        if self.transaction.as_ref().is_some_and(|(_, at)| *at <= now) {
            self.transaction = None;
            return Some(TimeUp::Transaction);
        }
        if self.rest.is_some_and(|at| at <= now) {
            self.rest = None;
            return Some(TimeUp::Rest);
        }
        let window = self.window.as_mut().filter(|window| window.ends <= now)?;
        let least = u64::from(self.least) * self.over.as_secs();
        let slow = window.octets < least && !window.held_up;
        *window = Window { ends: now + self.over, octets: 0, held_up: false };
        slow.then_some(TimeUp::TooSlow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const WINDOW: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn octets_that_are_no_progress_buy_no_time() {
        let wait = Duration::from_secs(300);
        let mut patience = Deadlines::new(Instant::now() + wait, 100, WINDOW);
        advance(Duration::from_secs(299)).await;
        patience.moved(0, false, wait);
        assert_eq!(patience.time_up(wait), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!(patience.time_up(wait), Some(TimeUp::Silence));
        patience.moved(1, false, wait);
        advance(Duration::from_secs(299)).await;
        assert_eq!(patience.time_up(wait), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_ends_some_time() {
        let (wait, limit) = (Duration::from_secs(300), Duration::from_secs(3600));
        let mut patience = Deadlines::new(Instant::now() + wait, 0, WINDOW);
        for minute in 0..60 {
            patience.transaction(Some(7), limit);
            patience.moved(minute, true, wait);
            assert_eq!(patience.time_up(wait), None, "{minute}");
            advance(Duration::from_secs(60)).await;
        }
        assert_eq!(patience.time_up(wait), Some(TimeUp::Transaction));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_told_from_one_that_is_held_up() {
        let wait = Duration::from_secs(300);
        let mut patience = Deadlines::new(Instant::now() + wait, 100, WINDOW);
        patience.body(true);
        for (octets, held_up, want) in [(6000, false, None), (5999, true, None), (5999, false, Some(TimeUp::TooSlow))] {
            patience.octets(octets);
            if held_up {
                patience.held_up();
            }
            assert_eq!(patience.next(), Instant::now() + WINDOW);
            advance(WINDOW).await;
            assert_eq!(patience.time_up(wait), want);
        }
        patience.body(false);
        assert!(patience.next() > Instant::now() + WINDOW);
    }
}
