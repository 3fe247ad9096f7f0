//! Waiting, for tests that cannot do without.
//!
//! Events that can be observed are waited for where they occur: lines of output ([`super::Lines`]), input of a next hop
//! ([`super::NextHop`]), the end of a child, a reply.

use std::time::{Duration, Instant};

use super::PATIENCE;

/// Polls until there is a result, for events without a notification: a file in another user's mailbox, a server that
/// starts listening, memory that is freed.
pub fn poll_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        pace(Duration::from_millis(5));
    }
}

/// Lets time pass, in tests about time, such as a client that trickles. It must not be used to wait for an event.
pub fn pace(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "there is no event to wait for: time itself is the matter")]
    std::thread::sleep(duration);
}
