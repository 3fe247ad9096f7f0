//! What is in flight between the client and the next hop, and whether the client has to wait for it.

use super::queue::Queue;

/// The commands under way.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    pub queue: Queue,
    /// The client waits for an answer before it says more, or its next line waits for one.
    pub barrier: bool,
    /// It waits for one that it has to know before it goes on, so it has to be silent.
    pub answer_is_awaited: bool,
}
