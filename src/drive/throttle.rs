//! Log lines that strangers can cause as often as they like: one a second of each sort, and how many were left out.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// One sort of line.
#[derive(Debug)]
pub struct Throttle {
    /// The second in which the last line was let through.
    last: AtomicI64,
    left_out: AtomicU64,
}

impl Throttle {
    /// None was written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: AtomicI64::new(i64::MIN), left_out: AtomicU64::new(0) }
    }

    /// Whether a line is written now, and how many were not since the last one.
    pub fn pass(&self) -> Option<u64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.pass_at(i64::try_from(since).unwrap_or(i64::MAX))
    }

    fn pass_at(&self, second: i64) -> Option<u64> {
        if self.last.swap(second, Ordering::Relaxed) == second {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

/// A line of some level that is written once a second at most; the next one says how many were left out (`left_out`).
macro_rules! limited {
    ($level:ident, $($field:tt)*) => {{
        static THROTTLE: $crate::drive::throttle::Throttle = $crate::drive::throttle::Throttle::new();
        if let Some(left_out) = THROTTLE.pass() {
            ::tracing::$level!(left_out, $($field)*);
        }
    }};
}

/// A warning of that kind.
macro_rules! limited_warn {
    ($($field:tt)*) => { $crate::drive::limited!(warn, $($field)*) };
}
pub(crate) use {limited, limited_warn};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_number_of_the_others() {
        let throttle = Throttle::new();
        let passed: Vec<Option<u64>> = [1, 1, 1, 2, 2, 3, 9].map(|second| throttle.pass_at(second)).to_vec();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}
