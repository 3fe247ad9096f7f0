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

pub(super) use self::chunk::{ChunkAnswer, ChunkEnd, ChunkedBody, ChunkedMessage, Released};
pub(super) use self::data::DataBody;
pub(super) use self::inspector::{BodyError, Inspector};
pub(super) use self::step::{BodySettings, BodyStep, MessageFate, accepted};
pub(super) use self::swallow::Swallow;

/// The message of a transaction.
#[derive(Debug)]
pub(super) enum Message {
    /// It has not begun: recipients are still given, or the next hop has not answered DATA.
    NotBegun,
    /// By DATA, until its end is sent to the next hop or refused.
    Data(Box<DataBody>),
    /// By BDAT: in a chunk, or between two of them.
    Chunks(Box<ChunkedBody>),
}

impl Message {
    /// Whether octets of it are awaited now, or an answer that depends on it.
    pub(super) fn is_under_way(&self) -> bool {
        match self {
            Self::NotBegun => false,
            Self::Data(_) => true,
            Self::Chunks(body) => body.is_in_chunk(),
        }
    }

    /// Octets of it that are held in memory.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::NotBegun => 0,
            Self::Data(body) => body.held_octets(),
            Self::Chunks(body) => body.held_octets(),
        }
    }

    /// Whether the next hop has heard nothing of it, so that all can still be changed.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Self::NotBegun => false,
            Self::Data(body) => body.is_held(),
            Self::Chunks(body) => body.is_held(),
        }
    }

    /// Whether the next hop has begun to read it, and reads on.
    pub(super) fn is_at_hop(&self) -> bool {
        match self {
            Self::NotBegun => false,
            Self::Data(body) => body.is_at_hop(),
            Self::Chunks(body) => body.is_in_chunk() && body.is_streamed(),
        }
    }

    /// What was found in it, and whether all of it has come.
    pub(super) fn inspected(&self) -> Option<(&Inspector, bool)> {
        match self {
            Self::NotBegun => None,
            Self::Data(body) => Some((body.inspector(), body.has_ended())),
            Self::Chunks(body) => Some((body.inspector(), body.ends_the_message())),
        }
    }
}
