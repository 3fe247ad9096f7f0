//! Recent decisions about bounces, for `countersign trace`. Accepted mail with a sender leaves no trace if its
//! recipient has no tag.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::session_id::SessionId;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::tag::masked;
use crate::envelope::time::Timestamp;

/// The most decisions that wait to be written. More than that in a second are counted, and left out.
const MAX_WAITING: usize = 5_000;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// When it was made.
    pub at: Timestamp,
    /// The session, as in the log.
    pub session: SessionId,
    /// The client, if it is known.
    pub client: Option<IpAddr>,
    /// `recipient` or `content`, as in the log.
    pub event: &'static str,
    /// The sender, without the hash of its tag; empty: the null sender.
    pub from: String,
    /// The recipient, without the hash of its tag.
    pub to: String,
    /// The verdict on the tag, or the kind of the message.
    pub found: &'static str,
    /// What was done.
    pub action: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The Message-ID of the message itself, with its angle brackets.
    pub message_id: Option<String>,
    /// The Message-ID of the returned original, with its angle brackets.
    pub returned_message_id: Option<String>,
    /// The recipient that the bounce is about.
    pub final_recipient: Option<String>,
    /// What the content shows, if it was inspected.
    pub content: Option<Content>,
}

/// What the content of an inspected message shows. All of it is what its sender claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// The signs for its kind, in words.
    pub signs: Vec<&'static str>,
    /// The lines of its header that say what it is.
    pub header: Vec<String>,
    /// The lines of the returned original's header that say where that comes from.
    pub original: Vec<String>,
    /// What its evidence of being genuine is worth, in words; `None`: there is none.
    pub evidence: Option<&'static str>,
}

/// Decisions that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    decisions: VecDeque<Decision>,
    left_out: u64,
}

impl Decisions {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a decision.
    pub(crate) fn note(&self, decision: Decision) {
        let mut waiting = self.waiting();
        if waiting.decisions.len() < MAX_WAITING {
            waiting.decisions.push_back(decision);
        } else {
            waiting.left_out += 1;
        }
    }

    /// Takes the decisions since the last call, and the number of those that were left out.
    pub(crate) fn take(&self) -> (VecDeque<Decision>, u64) {
        let mut waiting = self.waiting();
        (std::mem::take(&mut waiting.decisions), std::mem::take(&mut waiting.left_out))
    }
}

/// A sender as it is kept.
#[must_use]
pub(crate) fn sender(path: &ReversePath) -> String {
    path.address().map(masked).unwrap_or_default()
}

/// Whether a kept address is about the address that somebody asks for: the same mailbox, or a tagged form of it.
#[must_use]
pub(crate) fn is_about(kept: &str, asked: &Address) -> bool {
    let Ok(kept) = Address::parse(kept) else { return false };
    if kept.same_mailbox(asked) {
        return true;
    }
    without_tag(&kept).and_then(|core| Address::parse(&core).ok()).is_some_and(|core| core.same_mailbox(asked))
}

/// The address behind a BATV tag, whether that is valid or not; `None`: there is none.
fn without_tag(address: &Address) -> Option<String> {
    let content = address.content();
    let (_, core) = content.strip_prefix("prvs=")?.split_once('=')?;
    Some(format!("{core}@{}", address.domain()))
}

/// The mailbox that an address means, for lists of mailboxes: without its tag, or without the hash of that.
#[must_use]
pub(crate) fn mailbox(address: &Address) -> String {
    without_tag(address).unwrap_or_else(|| masked(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_form_is_about_its_address() {
        let ann = Address::parse("ann@our.example").unwrap();
        for kept in ["ann@our.example", "ann@OUR.example", "prvs=1786~=ann@our.example"] {
            assert!(is_about(kept, &ann), "{kept}");
        }
        for kept in ["", "<>", "bob@our.example", "prvs=1786~=bob@our.example", "ann@else.example", "…@our.example"] {
            assert!(!is_about(kept, &ann), "{kept}");
        }
    }

    #[test]
    fn a_mailbox_is_named_without_its_tag() {
        for (address, expected) in [
            ("ann@our.example", "ann@our.example"),
            ("prvs=1786a1b2c3=ann@our.example", "ann@our.example"),
            ("SRS0=a1b2c3=XY=else.example=bob@srs.our.example", "SRS0=~=XY=else.example=bob@srs.our.example"),
        ] {
            assert_eq!(mailbox(&Address::parse(address).unwrap()), expected);
        }
    }

    #[test]
    fn a_flood_is_counted_and_not_kept() {
        let decisions = Decisions::default();
        let decision = Decision {
            at: Timestamp(0),
            session: SessionId::default(),
            client: None,
            event: "recipient",
            from: String::new(),
            to: "ann@our.example".into(),
            found: "forged",
            action: "reject",
            reason: "forged",
            message_id: None,
            returned_message_id: None,
            final_recipient: None,
            content: None,
        };
        for _ in 0..MAX_WAITING + 7 {
            decisions.note(decision.clone());
        }
        let (kept, left_out) = decisions.take();
        assert_eq!((kept.len(), left_out), (MAX_WAITING, 7));
        assert_eq!(decisions.take(), (VecDeque::new(), 0));
    }
}
