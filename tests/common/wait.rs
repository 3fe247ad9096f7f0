//! Time, where a test cannot do without.
//!
//! What announces itself is waited for where it does: lines of output ([`super::Lines`]), what a next hop gets
//! ([`super::NextHop`]), the end of a child, a reply.

use std::time::{Duration, Instant};

use super::PATIENCE;

/// Asks again and again until there is an answer: for what nobody announces, such as a file in another's mailbox, a
/// server that begins to listen, room that somebody gives back.
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

/// Lets so much time pass. It is for tests that are about time, such as those of a client that trickles, and never for
/// an event that is hoped to come meanwhile.
pub fn pace(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "there is no event to wait for: time itself is the matter")]
    std::thread::sleep(duration);
}
