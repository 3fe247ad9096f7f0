//! What octets of a body lead to, and what a verdict means for a message.

use super::inspector::BodyError;
use crate::envelope::address::Address;
use crate::envelope::rules::{ContentVerdict, ResultHeader};
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::replies::{MESSAGE_OK, NO_QUARANTINE};
use crate::wire::smtp::reply::Reply;

/// How bodies are taken, for the whole session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodySettings {
    /// How much of a message is held at most, in octets.
    pub hold: usize,
    /// Whether line ends other than CR LF are refused.
    pub reject_stray: bool,
}

/// What octets of a body led to.
#[derive(Debug)]
pub(crate) enum BodyStep {
    /// More of it is awaited.
    More,
    /// A piece of a header block went on as a chunk of its own. Its reply is not for the client.
    PieceSent,
    /// The rules have to say whether the message is wanted.
    AskContent,
    /// Its header block is complete, and gets an evidence header.
    AskEvidence(Box<HeadReader>),
    /// All of it has come and gone on, but for the end.
    Complete,
    /// It cannot be accepted.
    Error(BodyError),
    /// All of a message has come that goes nowhere: this is the answer.
    Refused(Reply),
    /// All of a chunk has come that goes nowhere: this is the answer, and how many times.
    Swallowed(Reply, u32),
    /// Two servers would see its end in different places. Nothing after this may be believed.
    Smuggling,
}

/// What becomes of a message by its content.
#[derive(Debug)]
pub(crate) enum MessageFate<'a> {
    /// It is delivered, with this header if there is one.
    GoOn(Option<ResultHeader>),
    /// This mailbox gets it instead of its recipient, with this header.
    Quarantine(&'a Address, ResultHeader),
    /// It goes nowhere, and this is the answer.
    End(Reply),
}

impl<'a> MessageFate<'a> {
    /// What a verdict means for a message. Where it is not held any more, it is too late for a header or another
    /// recipient.
    pub(crate) fn of(verdict: &'a ContentVerdict, is_held: bool) -> Self {
        match verdict {
            ContentVerdict::Refuse(refusal) => Self::End(Reply::new(refusal.code, refusal.status, refusal.text)),
            ContentVerdict::Discard(_) => Self::End(accepted()),
            ContentVerdict::Deliver | ContentVerdict::Rescue(_) | ContentVerdict::Later => Self::GoOn(None),
            ContentVerdict::Mark(mark) => Self::GoOn(is_held.then_some(*mark)),
            ContentVerdict::Quarantine(to, mark) if is_held => Self::Quarantine(to, *mark),
            // Its own recipient must not get it.
            ContentVerdict::Quarantine(..) => Self::End(NO_QUARANTINE.reply()),
        }
    }
}

/// What the sender of a message is sent that is discarded.
pub(crate) fn accepted() -> Reply {
    MESSAGE_OK.reply()
}

/// A header in front of a message.
pub(super) fn with_header(header: Option<String>, message: &[u8]) -> Vec<u8> {
    let mut text = header.map_or_else(Vec::new, |header| format!("{header}\r\n").into_bytes());
    // A message that begins with white space has no header block; it must not become the rest of our header.
    let first = message.strip_prefix(b".").unwrap_or(message).first();
    if !text.is_empty() && first.is_some_and(|b| matches!(b, b' ' | b'\t')) {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(message);
    text
}
