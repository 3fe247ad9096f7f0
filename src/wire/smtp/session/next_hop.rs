//! The connection to the next hop: how far it is, and what is known of the other side.

use super::client::Hello;
use crate::wire::message::NextHopChoice;
use crate::wire::smtp::extensions::Extensions;
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// The next hop of a session.
#[derive(Debug)]
pub(super) struct NextHop {
    pub connection: Connection,
    /// What is known of the server behind the connection, or of the one before where there is none.
    pub facts: Facts,
    /// Which of the next hops the connection leads to.
    pub target: NextHopChoice,
    /// Puts its replies together.
    pub replies: ReplyReader,
    /// A next hop whose TLS handshake has failed is spoken to without TLS, where that is allowed.
    pub plain_only: bool,
    /// It is in the middle of a message that will not be ended: the connection is closed when what it owes is answered.
    pub dropping: bool,
}

impl Default for NextHop {
    /// The first connection is asked for as the session begins.
    fn default() -> Self {
        Self {
            connection: Connection::Opening(Opening::new(Purpose::Greeting)),
            facts: Facts::default(),
            target: NextHopChoice::default(),
            replies: ReplyReader::default(),
            plain_only: false,
            dropping: false,
        }
    }
}

/// How far the connection to the next hop is.
#[derive(Debug)]
pub(super) enum Connection {
    /// Being opened, or open and not greeted yet.
    Opening(Opening),
    /// The next hop is sent what it has to know before the client's commands.
    Handshake(Handshake),
    /// At the client's service.
    Ready,
    /// Gone; opened again for the next command.
    Closed,
}

/// A connection before its greeting.
#[derive(Debug)]
pub(super) struct Opening {
    /// What the client waits for.
    pub purpose: Purpose,
    /// Whether it is connected; the next hop speaks first.
    pub is_connected: bool,
}

impl Opening {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, is_connected: false }
    }
}

/// What the client waits for while a connection is made.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Its own greeting, which is that of the next hop.
    Greeting,
    /// The answer to its hello.
    Hello(Hello),
    /// Nothing that it knows of.
    Silent,
}

impl Purpose {
    /// The hello that the client has no answer to.
    pub(super) fn hello(&self) -> Option<&Hello> {
        match self {
            Self::Hello(hello) => Some(hello),
            Self::Greeting | Self::Silent => None,
        }
    }
}

impl Connection {
    pub(super) fn is_opening(&self) -> bool {
        matches!(self, Self::Opening(_) | Self::Handshake(_))
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self, Self::Opening(opening) if !opening.is_connected)
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Whether a TLS handshake with the next hop is under way.
    pub(super) fn is_securing(&self) -> bool {
        matches!(self, Self::Handshake(Handshake { step: Step::Tls, .. }))
    }

    /// Whether a command may be looked at: there is a next hop, or one can be had.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Closed)
    }

    /// Whether the client waits for its greeting, or for the answer to its hello.
    pub(super) fn owes_client(&self) -> bool {
        match self {
            Self::Opening(opening) => !matches!(opening.purpose, Purpose::Silent),
            Self::Handshake(handshake) => handshake.for_client,
            Self::Ready | Self::Closed => false,
        }
    }

    pub(super) fn opening(&self) -> Option<&Opening> {
        match self {
            Self::Opening(opening) => Some(opening),
            Self::Handshake(_) | Self::Ready | Self::Closed => None,
        }
    }

    pub(super) fn handshake(&self) -> Option<&Handshake> {
        match self {
            Self::Handshake(handshake) => Some(handshake),
            Self::Opening(_) | Self::Ready | Self::Closed => None,
        }
    }

    pub(super) fn handshake_mut(&mut self) -> Option<&mut Handshake> {
        match self {
            Self::Handshake(handshake) => Some(handshake),
            Self::Opening(_) | Self::Ready | Self::Closed => None,
        }
    }

    /// The handshake is over, and the connection at the client's service.
    pub(super) fn end_handshake(&mut self) -> Option<Handshake> {
        self.handshake()?;
        match std::mem::replace(self, Self::Ready) {
            Self::Handshake(handshake) => Some(handshake),
            Self::Opening(_) | Self::Ready | Self::Closed => None,
        }
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

/// A handshake under way: EHLO, STARTTLS, XCLIENT.
#[derive(Debug)]
pub(super) struct Handshake {
    /// What the client has said.
    pub hello: Hello,
    /// Whether the client waits for the answer.
    pub for_client: bool,
    /// Whether EHLO is said for a client that said HELO: to see what the next hop offers.
    pub probing: bool,
    /// Whether HELO is said, as the next hop does not know EHLO.
    pub plain: bool,
    /// Whether it has answered a hello with yes: then it does know it.
    pub answered: bool,
    pub step: Step,
}

/// What a handshake waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A reply of the next hop.
    Reply,
    /// The end of the TLS handshake.
    Tls,
}
