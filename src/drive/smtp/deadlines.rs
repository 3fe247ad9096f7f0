//! The deadlines of a session, which are checked when its timer fires.

use std::time::Duration;

use tokio::time::Instant;

/// The deadline that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUp {
    /// There was no progress for too long.
    Silence,
    /// The transaction takes too long.
    Transaction,
    /// The client sends its message too slowly.
    TooSlow,
    /// The client is idle, and its next hop could serve other sessions.
    Rest,
}

/// How long an idle session without a transaction keeps its connection to the next hop.
pub(super) const REST: Duration = Duration::from_secs(10);

/// The deadlines of a session.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// When there was no progress for too long.
    silence: Instant,
    progress: u64,
    /// The number of the open transaction, and its deadline.
    transaction: Option<(u64, Instant)>,
    window: Option<Window>,
    /// When the connection to the next hop is closed.
    rest: Option<Instant>,
    /// The minimum rate of a message in octets per second, averaged over `over`; 0: no minimum.
    least: u32,
    over: Duration,
}

/// A period in which the rate of a message is measured.
#[derive(Debug)]
struct Window {
    ends: Instant,
    octets: u64,
    /// Whether the client could not send because the next hop did not accept more.
    held_up: bool,
}

impl Deadlines {
    pub(super) fn new(silence: Instant, least: u32, over: Duration) -> Self {
        Self { silence, progress: 0, transaction: None, window: None, rest: None, least, over }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Instant {
        let transaction = self.transaction.as_ref().map(|(_, at)| *at);
        let window = self.window.as_ref().map(|window| window.ends);
        [transaction, window, self.rest].into_iter().flatten().fold(self.silence, Instant::min)
    }

    /// Updates the deadline for silence, which only progress extends: a new value of `progress`, or `also`.
    pub(super) fn moved(&mut self, progress: u64, also: bool, wait: Duration) {
        if progress != self.progress || also {
            self.progress = progress;
            self.silence = Instant::now() + wait;
            self.rest = None;
        }
    }

    /// Whether the session could do without its next hop now.
    pub(super) fn resting(&mut self, could: bool) {
        match (could, self.rest) {
            (true, None) => self.rest = Some(Instant::now() + REST),
            (false, Some(_)) => self.rest = None,
            _ => {}
        }
    }

    /// Sets the open transaction. A new one has to end within `limit`.
    pub(super) fn transaction(&mut self, open: Option<u64>, limit: Duration) {
        if self.transaction.as_ref().map(|(id, _)| *id) != open {
            self.transaction = open.map(|id| (id, Instant::now() + limit));
        }
    }

    /// Sets whether a message is being sent.
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

    /// The client has to wait for the next hop, so this period does not count.
    pub(super) fn held_up(&mut self) {
        if let Some(window) = &mut self.window {
            window.held_up = true;
        }
    }

    /// The deadline that has passed, if any. `wait` is the next timeout for silence.
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
