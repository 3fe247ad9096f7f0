//! Every rule of this program, in two questions: what becomes of a sender that leaves ([`Rules::outbound`]), and what
//! becomes of a recipient that comes in ([`Rules::inbound`], and for candidates [`Rules::content`]). Maps of an MTA, which know less,
//! ask [`Rules::map_recipient`].
//!
//! Each front end asks here and decides nothing itself. The answers are plain data with a reason in it. What has to be
//! remembered between two messages stands in a [`Memory`](super::abuse::Memory) that the front end brings.

mod caller;
mod content;
mod disposition;
mod inbound;
mod maps;
mod outbound;
mod ramp;
mod reasons;
mod refusals;

pub use caller::Caller;
pub use content::{Candidate, ContentVerdict};
pub use disposition::{ContentCheck, Delivery, Disposition, Inbound, MARK, ResultHeader, Route};
pub use maps::{MapAnswer, MappedRecipient, PolicyAdvice};
pub use outbound::{Outbound, OutboundAction};
pub use ramp::{Ramp, RampEvent};
pub use reasons::{InboundReason, MapReason, OutboundReason, RefusalReason};
pub use refusals::{BAD_RECIPIENT, BAD_SENDER};

use super::keyring::Keyring;
use super::site_policy::Policy;
use super::time::Timestamp;

/// The rules of a site at one moment. Made anew for each command: the clock moves on and keys change while a
/// connection is open.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What the site has decided.
    pub policy: &'a Policy,
    /// The keys that sign and verify.
    pub ring: &'a Keyring,
    /// The moment for which the rules are asked.
    pub now: Timestamp,
}

/// An answer that refuses, as every SMTP-like front end gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reply code, RFC 5321 section 4.2.
    pub code: u16,
    /// The enhanced status code, RFC 3463.
    pub status: &'static str,
    /// What it says.
    pub text: &'static str,
    /// Why it is refused.
    pub reason: RefusalReason,
}

impl Refusal {
    /// Whether the same again later may be taken.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.code < 500
    }

    /// The same, to be tried again later.
    fn later(self) -> Self {
        Self { code: 451, status: "4.7.1", ..self }
    }
}

/// No key can be asked: never a guess, always later.
const NO_KEY: Refusal = Refusal {
    code: 451,
    status: "4.3.5",
    text: "no signing key is at hand, try again later",
    reason: RefusalReason::NoKey,
};
