//! Fairness between the tasks of a worker: a task whose connection always has more to read lets the others have their
//! turn.

use std::time::Duration;

use tokio::time::Instant;

/// The octets after which a task lets the others have their turn.
const OCTETS: usize = 256 << 10;
/// The time after which a task lets the others have their turn, because some octets cost more than others. A client
/// that has to wait for other tasks waits as long at each of the dozen replies that a message needs.
const TIME: Duration = Duration::from_micros(100);

/// The work of a task since it last waited. Most tasks wait after one step, so the clock is read from the second step
/// on.
#[derive(Debug, Default)]
pub(super) struct WorkBudget {
    stepped: bool,
    began: Option<Instant>,
    octets: usize,
}

impl WorkBudget {
    /// Counts octets that were processed.
    pub(super) fn add(&mut self, octets: usize) {
        self.octets = self.octets.saturating_add(octets);
    }

    /// The task has waited, and the others had their turn.
    pub(super) fn waited(&mut self) {
        *self = Self::default();
    }

    /// Whether it is the turn of the others. If so, the next turn begins. Called after each step.
    pub(super) fn is_over(&mut self) -> bool {
        let over = self.octets >= OCTETS || (self.stepped && self.took_its_time());
        self.stepped = true;
        if over {
            self.waited();
        }
        over
    }

    fn took_its_time(&mut self) -> bool {
        let now = Instant::now();
        now.duration_since(*self.began.get_or_insert(now)) >= TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_by_octets_or_by_time() {
        let mut turn = WorkBudget::default();
        turn.add(OCTETS - 1);
        assert!(!turn.is_over());
        turn.add(1);
        assert!(turn.is_over() && !turn.is_over(), "then the next one begins");
        assert!(!turn.is_over(), "from here the time counts");
        tokio::time::advance(TIME).await;
        assert!(turn.is_over());
        turn.is_over();
        turn.is_over();
        turn.waited();
        tokio::time::advance(TIME).await;
        assert!(!turn.is_over() && !turn.is_over(), "what has waited begins anew");
    }
}
