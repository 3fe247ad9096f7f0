//! All rules, as functions: what is done with the sender of outbound mail ([`Rules::outbound`]), with a recipient of
//! inbound mail ([`Rules::inbound`]), and with a message whose content is inspected ([`Rules::content`]). Maps of an
//! MTA, which see less, use [`Rules::map_recipient`].
//!
//! Front ends query these functions and decide nothing themselves. The answers are plain data with a reason. State
//! between messages is in a [`Memory`](super::abuse::Memory), which the front end keeps.

mod aliases;
mod caller;
mod content;
mod disposition;
mod inbound;
mod maps;
mod outbound;
mod own_bounces;
mod ramp;
mod reasons;
mod recipients;
mod refusals;

pub use aliases::StoredAlias;
pub use caller::Caller;
pub use content::{Candidate, ContentVerdict};
pub use disposition::{ContentCheck, Delivery, Disposition, Inbound, MARK, ResultHeader, Route};
pub use maps::{MapAnswer, MappedRecipient, PolicyAdvice};
pub use outbound::{Outbound, OutboundAction};
pub use ramp::{Ramp, RampEvent, RampHold, SignedDays, Waiting};
pub use reasons::{InboundReason, MapReason, OutboundReason, RefusalReason};
pub use recipients::{Existence, RecipientFacts};
pub use refusals::{BAD_RECIPIENT, BAD_SENDER, HARVEST};

use super::keyring::Keyring;
use super::ramp_record::RampRecord;
use super::site_policy::Policy;
use super::time::Timestamp;

/// The rules of a site at one moment. They are made anew for each command, because time passes and keys change while a
/// connection is open.
///
/// ```
/// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
/// # use countersign::envelope::time::Timestamp;
/// # let now = Timestamp(1_795_382_400);
/// # let secret = Secret::new(vec![7; 32].into());
/// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
/// # let ring = Keyring::create(key, now)?;
/// use countersign::envelope::abuse::Memory;
/// use countersign::envelope::address::{Address, ReversePath};
/// use countersign::envelope::match_lists::DomainSet;
/// use countersign::envelope::rules::{Disposition, OutboundReason, Rules};
/// use countersign::envelope::site_policy::{InboundMode, Policy};
///
/// let mut policy = Policy::default();
/// policy.domains.local = DomainSet::from_iter(["our.example"]);
/// policy.inbound.mode = InboundMode::Enforce;
/// let rules = Rules::new(&policy, &ring, now);
///
/// // Ann's mail leaves signed.
/// let outbound = rules.outbound(None, &ReversePath::parse("ann@our.example")?, None);
/// assert_eq!(outbound.reason, OutboundReason::Signed);
/// // A bounce to that is delivered to Ann, one to a forged tag is refused.
/// let signed = outbound.signed().ok_or("signed")?.address().clone();
/// let mut asked = |recipient: &Address| rules.inbound(&mut Memory::default(), None, &ReversePath::Null, recipient);
/// assert!(matches!(asked(&signed).disposition, Disposition::Deliver(_)));
/// let forged = Address::parse("prvs=1786a1b2c3=ann@our.example")?;
/// assert!(matches!(asked(&forged).disposition, Disposition::Refuse(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What the site has decided.
    pub policy: &'a Policy,
    /// The keys for signing and verifying.
    pub ring: &'a Keyring,
    /// The time of the query.
    pub now: Timestamp,
    /// What was seen of ramps.
    pub ramps: &'a RampRecord,
    /// The alias that the query is about, if it is in the store.
    pub alias: Option<&'a StoredAlias>,
    /// Whether the alias of the sender could not be stored, which may be possible later.
    pub alias_is_late: bool,
    /// What was found out about the recipient that the query is about.
    pub recipient: RecipientFacts,
}

impl<'a> Rules<'a> {
    /// The rules of a site of whose ramps nothing was seen: the calendar alone decides.
    #[must_use]
    pub fn new(policy: &'a Policy, ring: &'a Keyring, now: Timestamp) -> Self {
        static NOTHING: RampRecord = RampRecord::EMPTY;
        Self {
            policy,
            ring,
            now,
            ramps: &NOTHING,
            alias: None,
            alias_is_late: false,
            recipient: RecipientFacts { is_limited: false, existence: None },
        }
    }

    /// The same rules, with what was seen of ramps.
    #[must_use]
    pub fn with_ramps(self, ramps: &'a RampRecord) -> Self {
        Self { ramps, ..self }
    }

    /// The same rules, with what was found out about the recipient.
    #[must_use]
    pub fn with_recipient(self, recipient: RecipientFacts) -> Self {
        Self { recipient, ..self }
    }
}

/// A negative answer, as an SMTP reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reply code (RFC 5321 section 4.2): 4xx or 5xx.
    pub code: u16,
    /// The enhanced status code (RFC 3463).
    pub status: &'static str,
    /// The text of the reply.
    pub text: &'static str,
    /// The reason for the refusal.
    pub reason: RefusalReason,
}

impl Refusal {
    /// Whether the refusal is temporary (4xx), so that a later attempt may be accepted.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.code < 500
    }

    /// This refusal as a temporary one (451 4.7.1).
    fn later(self) -> Self {
        Self { code: 451, status: "4.7.1", ..self }
    }
}

/// The ring has no signing key. The refusal is temporary, because mail must not leave unsigned for that reason.
const NO_KEY: Refusal = Refusal {
    code: 451,
    status: "4.3.5",
    text: "no signing key is at hand, try again later",
    reason: RefusalReason::NoKey,
};
