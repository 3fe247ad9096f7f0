//! Results of reading a body, and what a verdict means for a message.

use super::inspector::BodyError;
use crate::envelope::address::Address;
use crate::envelope::rules::{ContentVerdict, ResultHeader};
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::replies::{MESSAGE_OK, NO_QUARANTINE};
use crate::wire::smtp::reply::Reply;

/// Settings of all bodies in a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodySettings {
    /// The most octets of a message that are buffered.
    pub hold: usize,
    /// Whether line ends other than CR LF are refused.
    pub reject_stray: bool,
}

/// What the session has to do after octets of a body.
#[derive(Debug)]
pub(crate) enum BodyStep {
    /// Wait for more octets.
    More,
    /// A piece of a header block was sent as a separate chunk. Its reply is not for the client.
    PieceSent,
    /// Query the rules whether the message is delivered.
    AskContent,
    /// Query the rules for the evidence header; the header block is complete.
    AskEvidence(Box<HeadReader>),
    /// The whole message was received and passed on, except for its end.
    Complete,
    /// Refuse the message.
    Error(BodyError),
    /// The whole message was received and is not delivered; send this reply.
    Refused(Reply),
    /// The whole chunk was received and discarded; send this reply so many times.
    Swallowed(Reply, u32),
    /// Two servers could see the end of the message in different places. No further input can be trusted.
    Smuggling,
}

/// What a verdict on the content means for a message.
#[derive(Debug)]
pub(crate) enum MessageFate<'a> {
    /// Deliver the message, with this header if there is one.
    GoOn(Option<ResultHeader>),
    /// Deliver the message to this mailbox instead of its recipient, with this header.
    Quarantine(&'a Address, ResultHeader),
    /// Refuse or discard the message, with this reply.
    End(Reply),
}

impl<'a> MessageFate<'a> {
    /// The fate of a message by its verdict. If it is no longer buffered, neither its header nor its recipient can be
    /// changed.
    pub(crate) fn of(verdict: &'a ContentVerdict, is_held: bool) -> Self {
        match verdict {
            ContentVerdict::Refuse(refusal) => Self::End(Reply::new(refusal.code, refusal.status, refusal.text)),
            ContentVerdict::Discard(_) => Self::End(accepted()),
            ContentVerdict::Deliver | ContentVerdict::Rescue(_) | ContentVerdict::Later => Self::GoOn(None),
            ContentVerdict::Mark(mark) => Self::GoOn(is_held.then_some(*mark)),
            ContentVerdict::Quarantine(to, mark) if is_held => Self::Quarantine(to, *mark),
            // The original recipient must not get the message.
            ContentVerdict::Quarantine(..) => Self::End(NO_QUARANTINE.reply()),
        }
    }
}

/// The reply to a message that is discarded.
pub(crate) fn accepted() -> Reply {
    MESSAGE_OK.reply()
}

/// The message with a header in front.
pub(super) fn with_header(header: Option<String>, message: &[u8]) -> Vec<u8> {
    let mut text = header.map_or_else(Vec::new, |header| format!("{header}\r\n").into_bytes());
    // A message that begins with white space has no header block; its first line must not continue the added header.
    let first = message.strip_prefix(b".").unwrap_or(message).first();
    if !text.is_empty() && first.is_some_and(|b| matches!(b, b' ' | b'\t')) {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(message);
    text
}
