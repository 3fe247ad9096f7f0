//! The state of the connection to the next hop, and what is known about that server.

use super::client::Hello;
use crate::wire::message::NextHopChoice;
use crate::wire::smtp::extensions::Extensions;
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// The next hop of a session.
#[derive(Debug)]
pub(super) struct NextHop {
    pub connection: Connection,
    /// What is known about the server, or about the previous one if there is no connection.
    pub facts: Facts,
    /// Which of the next hops the connection is for.
    pub target: NextHopChoice,
    /// The parser of the next hop's replies.
    pub replies: ReplyReader,
    /// Whether TLS is not tried again, because a handshake has failed and TLS is optional.
    pub plain_only: bool,
    /// Whether the connection is closed after the outstanding replies, because a message on it must not be completed.
    pub dropping: bool,
}

impl Default for NextHop {
    /// A connection that is being opened, as at the start of a session.
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

/// The state of the connection to the next hop.
#[derive(Debug)]
pub(super) enum Connection {
    /// Being opened, or open and not yet greeted.
    Opening(Opening),
    /// In the handshake that precedes the client's commands.
    Handshake(Handshake),
    /// Ready for the client's commands.
    Ready,
    /// Closed. The next command opens a new connection.
    Closed,
}

/// A connection before its greeting.
#[derive(Debug)]
pub(super) struct Opening {
    /// What the client waits for.
    pub purpose: Purpose,
    /// Whether the connection is established. The next hop sends first.
    pub is_connected: bool,
}

impl Opening {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, is_connected: false }
    }
}

/// What the client waits for while a connection is opened.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The greeting, which is that of the next hop.
    Greeting,
    /// The reply to its HELO or EHLO.
    Hello(Hello),
    /// Neither of these. The client does not notice the connection.
    Silent,
}

impl Purpose {
    /// The HELO or EHLO that the client has no reply to.
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

    /// Whether a TLS handshake with the next hop is in progress.
    pub(super) fn is_securing(&self) -> bool {
        matches!(self, Self::Handshake(Handshake { step: Step::Tls, .. }))
    }

    /// Whether a command may be processed: a next hop is connected, or can be connected to.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Closed)
    }

    /// Whether the client waits for its greeting, or for the reply to its HELO or EHLO.
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

    /// Ends the handshake and makes the connection ready.
    pub(super) fn end_handshake(&mut self) -> Option<Handshake> {
        self.handshake()?;
        match std::mem::replace(self, Self::Ready) {
            Self::Handshake(handshake) => Some(handshake),
            Self::Opening(_) | Self::Ready | Self::Closed => None,
        }
    }
}

/// What is known about one connection to a next hop.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Whether a HELO or EHLO was accepted.
    pub set_up: bool,
    pub encrypted: bool,
    /// The version of the client's identity that was sent by XCLIENT.
    pub told: Option<u32>,
    pub offer: Extensions,
    /// The last reply to a HELO or EHLO.
    pub hello_reply: Option<Reply>,
}

/// A handshake in progress: EHLO, STARTTLS, XCLIENT.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The client's HELO or EHLO.
    pub hello: Hello,
    /// Whether the client waits for the reply.
    pub for_client: bool,
    /// Whether EHLO is sent for a client that sent HELO, to get the list of extensions.
    pub probing: bool,
    /// Whether HELO is sent, because the next hop does not support EHLO.
    pub plain: bool,
    /// Whether a HELO or EHLO was accepted in this handshake. An EHLO is then supported.
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
