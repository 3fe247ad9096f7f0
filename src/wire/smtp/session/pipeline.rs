//! Commands in flight between the client and the next hop, and whether the client has to wait for them.

use super::queue::Queue;

/// The commands in flight.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    pub queue: Queue,
    /// Whether client input is not processed until a reply arrives.
    pub barrier: bool,
    /// Whether the client must not send anything until that reply, because it needs the reply to go on.
    pub answer_is_awaited: bool,
}
