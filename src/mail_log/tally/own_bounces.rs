//! Bounces that the server has made itself, and why.

use super::super::event::{Delivery, Outcome};
use super::super::fields::{domain_of, has, text_of};
use super::super::postfix::says_unknown;
use super::distinct::Distinct;
use crate::envelope::top::Top;

/// Why a server has made a bounce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// It had accepted mail to a user who does not exist.
    UnknownUser,
    /// Another server has refused what it forwards.
    Forward,
    MailboxFull,
    /// The time in the queue was over.
    Expired,
    /// The message is late, and its sender is told so.
    Delay,
    /// The sender has asked for a success notice.
    Success,
    /// What it has accepted was refused afterwards for its content or by policy.
    Policy,
    Other,
}

impl Cause {
    pub(crate) const ALL: [Self; 8] = [
        Self::UnknownUser,
        Self::Forward,
        Self::MailboxFull,
        Self::Policy,
        Self::Expired,
        Self::Success,
        Self::Delay,
        Self::Other,
    ];

    /// In words, for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::UnknownUser => "\"user unknown\" after it was accepted",
            Self::Forward => "a forward was refused elsewhere",
            Self::MailboxFull => "mailbox full",
            Self::Policy => "refused after it was accepted (filter, policy)",
            Self::Expired => "could not be delivered in time",
            Self::Success => "a success notice that the sender asked for",
            Self::Delay => "a notice of delay",
            Self::Other => "other causes",
        }
    }
}

/// Why a recipient could not be delivered.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub cause: Cause,
    pub place: Box<str>,
}

impl Failure {
    pub(super) fn of(delivery: &Delivery<'_>) -> Self {
        let asked = delivery.asked.unwrap_or(delivery.to);
        let is_forward = !delivery.is_local && !domain_of(asked).eq_ignore_ascii_case(domain_of(delivery.to));
        let by = text_of(delivery.by);
        let here = || format!("{} by {by}", text_of(domain_of(asked)));
        let (cause, place) = match delivery.enhanced {
            _ if is_forward => (Cause::Forward, format!("{} to {}", text_of(asked), text_of(domain_of(delivery.to)))),
            Some([_, 1, 1 | 6 | 10]) => (Cause::UnknownUser, here()),
            Some([_, 2, 2]) => (Cause::MailboxFull, here()),
            _ if says_unknown(delivery.words) => (Cause::UnknownUser, here()),
            _ if has(delivery.words, b"quota") || has(delivery.words, b"mailbox is full") => {
                (Cause::MailboxFull, here())
            }
            Some([4, ..]) => (Cause::Expired, here()),
            Some([_, 7, _]) => (Cause::Policy, here()),
            _ => (Cause::Other, here()),
        };
        Self { cause, place: place.into() }
    }
}

/// The most different places of a cause that are told apart.
const MAX_PLACES: usize = 2_000;

/// Bounces to strangers.
#[derive(Debug, Default)]
pub(crate) struct OwnBounces {
    pub total: u64,
    /// Of those, how many were delivered, and how many could not be.
    pub delivered: u64,
    pub failed: u64,
    pub causes: std::collections::BTreeMap<Cause, u64>,
    pub places: std::collections::BTreeMap<Cause, Top<MAX_PLACES>>,
    pub domains: Distinct,
    /// The first and last hour.
    pub first: Option<super::super::stamp::Wall>,
    pub last: Option<super::super::stamp::Wall>,
    /// Bounces that Countersign has not sent.
    pub held: u64,
}

impl OwnBounces {
    pub(super) fn count(&mut self, cause: Cause, place: &str, to: &[u8], at: super::super::stamp::Wall) {
        self.total += 1;
        *self.causes.entry(cause).or_default() += 1;
        self.places.entry(cause).or_default().count_text(place, 1);
        self.domains.add(domain_of(to));
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    pub(super) fn result(&mut self, result: Outcome) {
        match result {
            Outcome::Delivered => self.delivered += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Deferred => {}
        }
    }
}
