//! What the machine has to say: octets for both sides, and events for whoever drives it.

use std::collections::VecDeque;

use super::types::Event;
use crate::wire::message::NextHopChoice;

/// The only way out of the machine.
#[derive(Debug)]
pub struct Output {
    /// What is to be written to the client.
    pub to_client: Vec<u8>,
    /// What is to be written to the next hop.
    pub to_hop: Vec<u8>,
    /// What is to be done, in this order.
    pub(super) events: VecDeque<Event>,
    /// Octets that were written to the next hop.
    pub(super) hop_sent: u64,
    /// Counts what one side can make happen only by going on.
    pub(super) progress: u64,
}

impl Output {
    /// A session begins with a connection to its next hop.
    pub(super) fn opening() -> Self {
        Self {
            to_client: Vec::new(),
            to_hop: Vec::new(),
            events: VecDeque::from([Event::Open(NextHopChoice::Main)]),
            hop_sent: 0,
            progress: 0,
        }
    }
}
