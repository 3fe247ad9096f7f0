//! Mail that comes in: which recipients exist for it, and is a message without a good tag a bounce?

use core::net::IpAddr;

use super::{Refusal, Rules};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::policy::{Action, InboundMode, Reason, RejectAt};
use crate::envelope::tag::{Verdict, batv, srs};

/// What becomes of a recipient, and what its tag proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// About the tag.
    pub verdict: Verdict,
    /// About the mail.
    pub action: InboundAction,
    /// Why, as a word for logs.
    pub reason: &'static str,
}

/// What becomes of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundAction {
    /// It goes on, to this address.
    Deliver {
        /// The address for the next hop; the one that came, or the one behind its tag.
        to: Address,
        /// Which next hop.
        route: Route,
        /// What the message is marked with, because it would have been refused.
        mark: Option<Mark>,
        /// Whether the content decides.
        judge: Judge,
    },
    /// It is refused.
    Refuse(Refusal),
}

/// Which next hop a recipient has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// The MTA.
    #[default]
    NextHop,
    /// The listener of the MTA that may relay, where one is configured: the recipient is foreign.
    SrsNextHop,
}

/// Whether the content of a message decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Judge {
    /// No.
    #[default]
    No,
    /// The sender is null and there is no tag.
    Null,
    /// The sender speaks for a machine, and there is no good tag.
    Daemon,
    /// The sender is null, and mail of this recipient is too long to be signed: a bounce is marked, never refused.
    Overflow,
}

/// What a message turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A well-formed delivery status report that says failed.
    DsnFailed,
    /// One that says delayed.
    DsnDelayed,
    /// Anything else.
    Other,
}

impl Kind {
    /// The word for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DsnFailed => "dsn-failed",
            Self::DsnDelayed => "dsn-delayed",
            Self::Other => "other",
        }
    }

    /// Whether it says that mail was not, or not yet, delivered.
    #[must_use]
    pub fn is_ndr(self) -> bool {
        match self {
            Self::DsnFailed | Self::DsnDelayed => true,
            Self::Other => false,
        }
    }
}

/// The header that says what would have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// What the tag proved.
    pub verdict: &'static str,
    /// What enforcing would do: `reject` or `defer`.
    pub would: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl Mark {
    /// The header line, without its line end.
    #[must_use]
    pub fn header(&self) -> String {
        format!("Countersign-Result: v=1; verdict={}; would={}; reason={}", self.verdict, self.would, self.reason)
    }
}

/// What becomes of a candidate once its content is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// It is no bounce.
    Deliver,
    /// It is one, and goes on with a mark.
    Mark(Mark),
    /// It is one, and goes nowhere.
    Refuse(Refusal),
}

const RELAYING_DENIED: Refusal =
    Refusal { code: 550, status: "5.7.1", text: "relaying denied", reason: "relaying-denied" };
const NO_SUCH_SRS: Refusal = Refusal {
    code: 550,
    status: "5.1.1",
    text: "no such mailbox here: this domain holds only the return addresses of forwarded mail",
    reason: "no-mailbox",
};
const SRS_TAKES_BOUNCES: Refusal = Refusal {
    code: 550,
    status: "5.7.1",
    text: "this is the return address of forwarded mail; it takes bounces only",
    reason: "srs-sender",
};
const UNKNOWN_KEY: Refusal = Refusal {
    code: 451,
    status: "4.7.5",
    text: "this return address names a key that is not known here yet, try again later",
    reason: "unknown-key",
};
const ALWAYS_THERE: [&str; 2] = ["postmaster", "abuse"];

fn refusal_of(reason: Reason) -> Refusal {
    let text = match reason {
        Reason::Forged => "bounce refused: this return address was not made by us",
        Reason::Expired => "bounce refused: this return address has expired",
        Reason::Future => "bounce refused: this return address is dated in the future",
        Reason::UntaggedNdr | Reason::DaemonNdr => {
            "bounce refused: every message we send carries a signed return address, and this bounce is not addressed to one"
        }
    };
    Refusal { code: 550, status: "5.7.1", text, reason: reason.name() }
}

impl Rules<'_> {
    /// What becomes of this recipient.
    #[must_use]
    pub fn inbound(&self, client: Option<IpAddr>, sender: &ReversePath, recipient: &Address) -> Inbound {
        let domains = &self.policy.domains;
        let domain = recipient.domain();
        let (local, alias) = (domains.local.contains(domain), domains.srs.contains(domain));
        let is_srs = alias && srs::looks_tagged(&recipient.content());
        // An address that we signed ourselves may look like anything; see `tagged_recipient`.
        let is_prvs = local && batv::strip(recipient).is_some();
        if !is_srs && !is_prvs && routes_onward(recipient) {
            return refuse(Verdict::Untagged, RELAYING_DENIED);
        }
        if !local && !alias {
            return if domains.relay.contains(domain) {
                untouched(recipient, "relay-domain")
            } else if self.policy.inbound.pass_foreign {
                untouched(recipient, "foreign-recipient")
            } else {
                refuse(Verdict::Untagged, RELAYING_DENIED)
            };
        }
        let lenient = self.policy.inbound.mode == InboundMode::Observe
            || client.is_some_and(|c| self.policy.inbound.exempt_clients.contains(c));
        if is_srs {
            return self.srs_recipient(lenient, sender, recipient);
        }
        if !local {
            let exists = ALWAYS_THERE.iter().any(|name| recipient.content().eq_ignore_ascii_case(name));
            return if exists {
                untouched(recipient, "srs-domain-postmaster")
            } else {
                refuse(Verdict::Untagged, NO_SUCH_SRS)
            };
        }
        match batv::strip(recipient) {
            Some(bare) => self.tagged_recipient(lenient, sender, recipient, bare),
            None => self.plain_recipient(lenient, sender, recipient),
        }
    }

    fn srs_recipient(&self, lenient: bool, sender: &ReversePath, recipient: &Address) -> Inbound {
        let inbound = &self.policy.inbound;
        let verdict = srs::verify(self.ring.keys(), &self.policy.srs, self.now.day(), recipient);
        let for_this_sender = *sender == ReversePath::Null || inbound.srs_for_senders;
        match &verdict {
            Verdict::Valid(found) if for_this_sender => {
                let (to, route) = if inbound.srs_stays {
                    (recipient.clone(), Route::NextHop)
                } else {
                    (found.address().clone(), Route::SrsNextHop)
                };
                deliver(verdict, to, route, None, Judge::No, "valid")
            }
            Verdict::Valid(_) => self.or_as_it_came(lenient, verdict, recipient, SRS_TAKES_BOUNCES),
            Verdict::Expired(_) => self.or_as_it_came(lenient, verdict, recipient, refusal_of(Reason::Expired)),
            Verdict::Future(_) => self.or_as_it_came(lenient, verdict, recipient, refusal_of(Reason::Future)),
            Verdict::Forged(_) | Verdict::UnknownKey(_) | Verdict::Malformed(_) | Verdict::Untagged => {
                self.or_as_it_came(lenient, verdict, recipient, refusal_of(Reason::Forged))
            }
        }
    }

    /// Refuses, or observes: an SRS address that does not hold goes on as it came, marked.
    fn or_as_it_came(&self, lenient: bool, verdict: Verdict, recipient: &Address, refusal: Refusal) -> Inbound {
        if routes_onward(recipient) {
            // Unproven, it is a way onward, whatever the mode.
            return refuse(verdict, refusal);
        }
        let action =
            Reason::ALL.into_iter().find(|r| r.name() == refusal.reason).map(|r| self.policy.inbound.actions.of(r));
        if lenient || action == Some(Action::Mark) {
            let mark = Mark { verdict: verdict.name(), would: "reject", reason: refusal.reason };
            deliver(verdict, recipient.clone(), Route::NextHop, Some(mark), Judge::No, refusal.reason)
        } else {
            refuse(verdict, refusal)
        }
    }

    fn tagged_recipient(&self, lenient: bool, sender: &ReversePath, recipient: &Address, bare: Address) -> Inbound {
        let verdict = batv::verify(self.ring.keys(), &self.policy.batv, self.now.day(), recipient);
        if let Verdict::Valid(found) = &verdict {
            let to = found.address().clone();
            return deliver(verdict, to, Route::NextHop, None, Judge::No, "valid");
        }
        let hides_srs = self.policy.domains.srs.contains(bare.domain()) && srs::looks_tagged(&bare.content());
        if routes_onward(&bare) || hides_srs {
            // Behind a tag that is not ours stands no user of ours, but a way onward or round the rules for SRS.
            return refuse(verdict, refusal_of(Reason::Forged));
        }
        if let ReversePath::Mailbox(address) = sender {
            // Somebody answered the envelope address. It leads to our own user anyway.
            let judge = if self.policy.inbound.daemon_senders.contains(address) { Judge::Daemon } else { Judge::No };
            return deliver(verdict, bare, Route::NextHop, None, judge, "not-a-bounce");
        }
        let (reason, refusal) = match &verdict {
            Verdict::Expired(_) => (Some(Reason::Expired), refusal_of(Reason::Expired)),
            Verdict::Future(_) => (Some(Reason::Future), refusal_of(Reason::Future)),
            Verdict::UnknownKey(_) => (None, UNKNOWN_KEY),
            Verdict::Valid(_) | Verdict::Forged(_) | Verdict::Malformed(_) | Verdict::Untagged => {
                (Some(Reason::Forged), refusal_of(Reason::Forged))
            }
        };
        let marked = reason.is_some_and(|r| self.policy.inbound.actions.of(r) == Action::Mark);
        if lenient || marked {
            let would = if refusal.is_temporary() { "defer" } else { "reject" };
            let mark = Mark { verdict: verdict.name(), would, reason: refusal.reason };
            deliver(verdict, bare, Route::NextHop, Some(mark), Judge::No, refusal.reason)
        } else {
            refuse(verdict, refusal)
        }
    }

    fn plain_recipient(&self, lenient: bool, sender: &ReversePath, recipient: &Address) -> Inbound {
        let inbound = &self.policy.inbound;
        let judge = match sender {
            ReversePath::Null => Judge::Null,
            ReversePath::Mailbox(address) if inbound.daemon_senders.contains(address) => Judge::Daemon,
            ReversePath::Mailbox(_) => return untouched(recipient, "not-a-bounce"),
        };
        if inbound.exempt_recipients.contains(recipient) {
            return untouched(recipient, "exempt-recipient");
        }
        match self.leaves_unsigned(recipient) {
            None => {}
            // Anybody can write an address of ours that is too long: its bounces are looked at all the same.
            Some("overflow") => {
                let to = recipient.clone();
                return deliver(Verdict::Untagged, to, Route::NextHop, None, Judge::Overflow, "leaves-unsigned");
            }
            // Its genuine bounces have no tag either: there is nothing to tell them apart by.
            Some(_) => return untouched(recipient, "leaves-unsigned"),
        }
        let at_once = inbound.reject_at == RejectAt::Rcpt && judge == Judge::Null;
        if at_once && !lenient && inbound.actions.of(Reason::UntaggedNdr) == Action::Reject {
            return refuse(Verdict::Untagged, refusal_of(Reason::UntaggedNdr));
        }
        if at_once {
            let mark = Mark { verdict: "untagged", would: "reject", reason: Reason::UntaggedNdr.name() };
            return deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, Some(mark), Judge::No, mark.reason);
        }
        deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, None, judge, "candidate")
    }

    /// What becomes of a candidate, now that its content is known.
    #[must_use]
    pub fn content(&self, client: Option<IpAddr>, judge: Judge, kind: Kind) -> Content {
        let reason = match judge {
            Judge::No => return Content::Deliver,
            Judge::Null | Judge::Overflow => Reason::UntaggedNdr,
            Judge::Daemon => Reason::DaemonNdr,
        };
        if !kind.is_ndr() {
            return Content::Deliver;
        }
        let inbound = &self.policy.inbound;
        let lenient =
            inbound.mode == InboundMode::Observe || client.is_some_and(|c| inbound.exempt_clients.contains(c));
        if lenient || judge == Judge::Overflow || inbound.actions.of(reason) == Action::Mark {
            Content::Mark(Mark { verdict: "untagged", would: "reject", reason: reason.name() })
        } else {
            Content::Refuse(refusal_of(reason))
        }
    }
}

/// Whether a local part asks to be sent on elsewhere (`user%host@ours`, `host!user@ours`, `"user@host"@ours`). An MTA that
/// trusts this proxy would do so for anybody.
fn routes_onward(recipient: &Address) -> bool {
    recipient.content().contains(['%', '!', '@'])
}

fn deliver(
    verdict: Verdict,
    to: Address,
    route: Route,
    mark: Option<Mark>,
    judge: Judge,
    reason: &'static str,
) -> Inbound {
    Inbound { verdict, action: InboundAction::Deliver { to, route, mark, judge }, reason }
}

fn untouched(recipient: &Address, reason: &'static str) -> Inbound {
    deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, None, Judge::No, reason)
}

fn refuse(verdict: Verdict, refusal: Refusal) -> Inbound {
    Inbound { verdict, reason: refusal.reason, action: InboundAction::Refuse(refusal) }
}
