//! How far the answer to a request of a mail server is.

use super::prepared::Preparation;

/// What has become of the first request of the input.
pub(super) enum RequestStep {
    /// It is incomplete.
    Incomplete,
    /// It was answered. Its length in octets.
    Answered(usize),
    /// It needs something, and is answered when that is there.
    Waits(Preparation),
}
