//! Message bodies. Each kind takes the client's octets, writes what goes on to the next hop, and says in a [`BodyStep`]
//! what that led to; what follows from it is for the session to do.
//!
//! A message that is to be inspected is held before the next hop is told of it: recipient and header can still change,
//! and a refusal costs one RSET. What is longer than the hold streams on. To refuse it then, its end is not sent and
//! the connection closed.

mod chunk;
mod data;
mod inspector;
mod step;
mod swallow;

pub(super) use self::chunk::{Chunk, ChunkAnswer, ChunkEnd, ChunkedMessage, Released};
pub(super) use self::data::DataBody;
pub(super) use self::inspector::{BodyError, Inspector};
pub(super) use self::step::{BodySettings, BodyStep, MessageFate, accepted};
pub(super) use self::swallow::Swallow;

/// What the client's octets are.
#[derive(Debug)]
pub(super) enum Phase {
    /// Lines with commands.
    Command,
    /// The client's answer to a challenge of AUTH.
    Auth,
    /// A message by DATA.
    Data(Box<DataBody>),
    /// A chunk of a message by BDAT.
    Chunk(Box<Chunk>),
    /// A chunk that goes nowhere, of no message.
    Swallow(Swallow),
}

impl Phase {
    /// Octets of the message that are held in memory.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Data(body) => body.held_octets(),
            Self::Chunk(chunk) => chunk.message.held(),
            Self::Command | Self::Auth | Self::Swallow(_) => 0,
        }
    }

    /// Whether the next hop has heard nothing of the message, so that all can still be changed.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Self::Data(body) => body.is_held(),
            Self::Chunk(chunk) => chunk.is_held(),
            Self::Command | Self::Auth | Self::Swallow(_) => false,
        }
    }

    /// The message under way: what was found in it, and whether all of it has come.
    pub(super) fn inspected(&self) -> Option<(&Inspector, bool)> {
        match self {
            Self::Data(body) => Some((body.inspector(), body.has_ended())),
            Self::Chunk(chunk) => Some((&chunk.message.inspector, chunk.ends_the_message())),
            Self::Command | Self::Auth | Self::Swallow(_) => None,
        }
    }
}
