//! The output of the machine: octets for both sides, and events for the driver.

use std::collections::VecDeque;

use super::types::Event;
use crate::wire::message::NextHopChoice;

/// The output of a session.
#[derive(Debug)]
pub struct Output {
    /// Octets to be written to the client.
    pub to_client: Vec<u8>,
    /// Octets to be written to the next hop.
    pub to_hop: Vec<u8>,
    /// Events to be handled, in this order.
    pub(super) events: VecDeque<Event>,
    /// The number of octets that were written to the next hop.
    pub(super) hop_sent: u64,
    /// The counter of [`Session::progress`](super::Session::progress).
    pub(super) progress: u64,
}

impl Output {
    /// The output of a new session: an event that opens the connection to the next hop.
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
