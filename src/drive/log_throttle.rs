//! Limits on log lines that strangers can cause: one per second of each kind, with the number of those left out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The limit on one kind of log line.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// The Unix time of the last line, in seconds.
    last: AtomicI64,
    left_out: AtomicU64,
}

impl Throttle {
    /// A limit for a kind of which no line was written yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { last: AtomicI64::new(i64::MIN), left_out: AtomicU64::new(0) }
    }

    /// Whether to write a line now: `Some` with the number of lines left out since the last one.
    pub(crate) fn pass(&self) -> Option<u64> {
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

/// The limits on one log statement that writes several kinds of lines, for example one for each session limit.
#[derive(Debug)]
pub(crate) struct Throttles(Mutex<BTreeMap<&'static str, Throttle>>);

impl Throttles {
    /// Limits for a statement that has written no line yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// As [`Throttle::pass`], for this kind of line.
    pub(crate) fn pass(&self, sort: &'static str) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(sort).or_default().pass()
    }
}

impl Default for Throttles {
    fn default() -> Self {
        Self::new()
    }
}

/// A log line of the given level, at most one per second. Its field `left_out` is the number of lines left out before
/// it.
macro_rules! limited {
    ($level:ident, $($field:tt)*) => {{
        static THROTTLE: $crate::drive::log_throttle::Throttle = $crate::drive::log_throttle::Throttle::new();
        if let Some(left_out) = THROTTLE.pass() {
            ::tracing::$level!(left_out, $($field)*);
        }
    }};
}

/// As `limited!`, but one per second for each value of the second argument.
macro_rules! limited_by {
    ($level:ident, $sort:ident, $($field:tt)*) => {{
        static THROTTLES: $crate::drive::log_throttle::Throttles = $crate::drive::log_throttle::Throttles::new();
        if let Some(left_out) = THROTTLES.pass($sort) {
            ::tracing::$level!(left_out, $($field)*, $sort);
        }
    }};
}

/// As `limited!`, at the level of a warning.
macro_rules! limited_warn {
    ($($field:tt)*) => { $crate::drive::log_throttle::limited!(warn, $($field)*) };
}
pub(crate) use {limited, limited_by, limited_warn};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_number_of_the_others() {
        let throttle = Throttle::new();
        let passed: Vec<Option<u64>> = [1, 1, 1, 2, 2, 3, 9].map(|second| throttle.pass_at(second)).to_vec();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }

    #[test]
    fn one_sort_keeps_no_other_back() {
        let throttles = Throttles::new();
        assert_eq!(["sync", "another-protocol"].map(|sort| throttles.pass(sort)), [Some(0); 2]);
    }
}
