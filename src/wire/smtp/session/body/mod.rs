//! Message bodies. Each kind reads the client's octets, writes what is passed on to the next hop, and returns a
//! [`BodyStep`] for the session to act on.
//!
//! A message to be inspected is buffered before the next hop is sent DATA: recipient and header can still be changed,
//! and a refusal costs one RSET. Once a message exceeds the buffer, the rest streams on. To refuse the message then,
//! its end is not sent and the connection is closed.

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
    /// The message has not begun: the client may still name recipients, or the next hop has not answered DATA.
    NotBegun,
    /// A message by DATA, until its end is sent to the next hop or refused.
    Data(Box<DataBody>),
    /// A message by BDAT: within a chunk, or between two chunks.
    Chunks(Box<ChunkedBody>),
}

impl Message {
    /// Whether more octets of the message, or a reply or verdict about it, are awaited.
    pub(super) fn is_under_way(&self) -> bool {
        match self {
            Self::NotBegun => false,
            Self::Data(_) => true,
            Self::Chunks(body) => body.is_in_chunk(),
        }
    }

    /// The number of octets that are buffered.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::NotBegun => 0,
            Self::Data(body) => body.held_octets(),
            Self::Chunks(body) => body.held_octets(),
        }
    }

    /// Whether the next hop has not been sent the message, so that all can still be changed.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Self::NotBegun => false,
            Self::Data(body) => body.is_held(),
            Self::Chunks(body) => body.is_held(),
        }
    }

    /// Whether the next hop is reading the message.
    pub(super) fn is_at_hop(&self) -> bool {
        match self {
            Self::NotBegun => false,
            Self::Data(body) => body.is_at_hop(),
            Self::Chunks(body) => body.is_in_chunk() && body.is_streamed(),
        }
    }

    /// The inspector of the message, and whether the whole message was received.
    pub(super) fn inspected(&self) -> Option<(&Inspector, bool)> {
        match self {
            Self::NotBegun => None,
            Self::Data(body) => Some((body.inspector(), body.has_ended())),
            Self::Chunks(body) => Some((body.inspector(), body.ends_the_message())),
        }
    }
}
