//! The mail under way: the transaction that is open, those that wait for an answer, and the message body.

use std::collections::VecDeque;

use super::chunked::Chunked;
use super::content::Phase;
use super::transaction::{Decided, Pending, Transaction};

/// The mail of a session.
#[derive(Debug)]
pub(super) struct Mail {
    /// What the client's octets are.
    pub phase: Phase,
    /// The transaction that the client has open.
    pub transaction: Option<Transaction>,
    /// A message that comes in chunks, between two of them.
    pub chunked: Option<Box<Chunked>>,
    /// Transactions whose end of data the next hop has not answered.
    pub ended: VecDeque<Transaction>,
    /// Transactions so far: the number of the last.
    pub transactions: u64,
    /// A question to the rules that is not answered.
    pub asking: Option<Pending>,
    /// The answer about a recipient that waits for its next hop.
    pub decided: Option<Box<Decided>>,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            phase: Phase::Command,
            transaction: None,
            chunked: None,
            ended: VecDeque::new(),
            transactions: 0,
            asking: None,
            decided: None,
        }
    }
}
