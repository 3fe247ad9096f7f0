//! Waiting, for tests that cannot do without.
//!
//! Events that can be observed are waited for where they occur: lines of output ([`super::Lines`]), input of a next hop
//! ([`super::NextHop`]), the end of a child, a reply.

use std::path::Path;
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

/// Waits until all that a daemon has counted so far is in its state file. `change` causes something to write. The first
/// write may have begun before the call, so two are awaited.
pub fn wait_for_state(folder: &Path, mut change: impl FnMut()) {
    let file = folder.join("state/countersign.db");
    let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
    for _ in 0..2 {
        let before = written();
        poll_for("the state file", || {
            change();
            (written() > before).then_some(())
        });
    }
}

/// Lets time pass, in tests about time, such as a client that trickles. It must not be used to wait for an event.
pub fn pace(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "there is no event to wait for: time itself is the matter")]
    std::thread::sleep(duration);
}
