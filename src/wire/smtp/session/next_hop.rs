//! The connection to the next hop: how far it is, and what is known of the other side.

use super::hop::{Connection, Facts};
use super::setup::Setup;
use super::types::NextHopChoice;
use crate::wire::smtp::reply::ReplyReader;

/// The next hop of a session.
#[derive(Debug)]
pub(super) struct NextHop {
    pub connection: Connection,
    /// What is true of this connection.
    pub facts: Facts,
    /// Which of the next hops it leads to.
    pub target: NextHopChoice,
    /// Puts its replies together.
    pub replies: ReplyReader,
    /// What it has to hear before the client's commands, while that is under way.
    pub setup: Option<Setup>,
    /// A next hop that offers TLS and cannot do it is spoken to without, where that is allowed.
    pub plain_only: bool,
    /// It is in the middle of a message that will not be ended: the connection is closed when what it owes is answered.
    pub dropping: bool,
}

impl Default for NextHop {
    /// The first connection is asked for as the session begins.
    fn default() -> Self {
        Self {
            connection: Connection::Connecting { first: true },
            facts: Facts::default(),
            target: NextHopChoice::default(),
            replies: ReplyReader::default(),
            setup: None,
            plain_only: false,
            dropping: false,
        }
    }
}
