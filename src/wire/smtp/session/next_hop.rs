//! The connection to the next hop: how far it is, and what is known of the other side.

use super::client::Hello;
use super::types::NextHopChoice;
use crate::wire::smtp::extensions::Extensions;
use crate::wire::smtp::reply::{Reply, ReplyReader};

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

/// How far the connection to the next hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Being opened. Of the first one the client sees the greeting.
    Connecting { first: bool },
    /// Connected; a later one greets us, not the client.
    Greeting { first: bool },
    /// Hears what it has to know first: see `setup`.
    Setup,
    /// Does a TLS handshake.
    Securing,
    /// At the client's service.
    Ready,
    /// Gone; opened again for the next command.
    Closed,
}

impl Connection {
    pub(super) fn is_opening(self) -> bool {
        matches!(self, Self::Connecting { .. } | Self::Greeting { .. } | Self::Setup | Self::Securing)
    }

    /// Whether the client still waits for its greeting.
    pub(super) fn is_first_greeting(self) -> bool {
        matches!(self, Self::Connecting { first: true } | Self::Greeting { first: true })
    }

    /// Whether a command may be looked at: there is a next hop, or one can be had.
    pub(super) fn is_usable(self) -> bool {
        matches!(self, Self::Ready | Self::Closed)
    }
}

/// What is true of one connection to a next hop.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// It has answered a hello.
    pub set_up: bool,
    pub encrypted: bool,
    /// Which identity of the client it was told by XCLIENT.
    pub told: Option<u32>,
    pub offer: Extensions,
    /// Its last answer to a hello.
    pub hello_reply: Option<Reply>,
}

/// A set-up under way.
#[derive(Debug)]
pub(super) struct Setup {
    /// What the client has said.
    pub hello: Hello,
    /// Whether the client waits for the answer.
    pub for_client: bool,
    /// Whether EHLO is said for a client that said HELO: to see what the next hop offers.
    pub probing: bool,
    /// Whether HELO is said, as the next hop does not know EHLO.
    pub plain: bool,
    /// Whether it has answered one with yes: then it does know it.
    pub answered: bool,
}

impl Setup {
    /// Whether the client waits for the answer to its hello.
    pub(super) fn is_for_client(&self) -> bool {
        self.for_client
    }
}
