//! Rules for an MTA that sees less than a proxy does.
//!
//! Table lookups (Postfix canonical maps, Sendmail maps) translate one address, and see nothing of the message. They
//! cannot refuse it; an address that is not found is treated as without Countersign. Policy services see sender,
//! recipient and client. They can refuse a recipient, but not change it.

use core::net::IpAddr;

use super::refusals::refusal_of;
use super::{
    Caller, Delivery, Disposition, Inbound, InboundReason, MapReason, Outbound, OutboundAction, Refusal, RefusalReason,
    ResultHeader, Rules,
};
use crate::envelope::abuse::Memory;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::tag::{Verdict, batv, srs};

/// The answer of a map about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapAnswer {
    /// The address is replaced by this one.
    To(Address),
    /// The address is not found, and stays as it is.
    Nothing,
    /// No answer is possible now; the MTA has to try again.
    Later(Refusal),
}

/// The answer of a map about a recipient, and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedRecipient {
    /// The answer.
    pub mapped: MapAnswer,
    /// The verdict on the tag.
    pub verdict: Verdict,
    /// The reason for the answer.
    pub reason: MapReason,
}

/// The answer to an MTA that can refuse a recipient, but not change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyAdvice {
    /// Continue as usual.
    GoOn,
    /// Continue, with this mark.
    Mark(ResultHeader),
    /// Refuse the recipient.
    Refuse(Refusal),
}

impl Inbound {
    /// The answer for a caller that can only refuse or mark. Discarding or quarantine would apply to all recipients of
    /// the message, for some of whom it may be genuine, so the recipient is refused instead.
    #[must_use]
    pub fn advice(&self) -> PolicyAdvice {
        let instead = || match self.reason {
            InboundReason::Against(RefusalReason::Site(reason)) => Some(refusal_of(reason)),
            _ => None,
        };
        match &self.disposition {
            Disposition::Refuse(refusal) => PolicyAdvice::Refuse(refusal.clone()),
            Disposition::Discard => instead().map_or(PolicyAdvice::GoOn, PolicyAdvice::Refuse),
            Disposition::Deliver(Delivery { mark: Some(mark), .. }) if mark.is_quarantine() => {
                instead().map_or(PolicyAdvice::Mark(*mark), PolicyAdvice::Refuse)
            }
            Disposition::Deliver(Delivery { mark: Some(mark), .. }) => PolicyAdvice::Mark(*mark),
            Disposition::Deliver(Delivery { mark: None, .. }) | Disposition::Inspect(..) => PolicyAdvice::GoOn,
        }
    }
}

impl MapAnswer {
    /// The answer about a sender. A map cannot refuse a sender, so a sender that must not leave is deferred, and its
    /// mail stays visible in the MTA's queue.
    #[must_use]
    pub fn of_sender(outbound: &Outbound) -> Self {
        match &outbound.action {
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => Self::To(signed.address().clone()),
            OutboundAction::Pass => Self::Nothing,
            OutboundAction::Reject(refusal) => Self::Later(refusal.clone()),
        }
    }

    /// The answer, as a word for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::To(_) => "deliver",
            Self::Nothing => "not-found",
            Self::Later(_) => "defer",
        }
    }
}

impl Rules<'_> {
    /// The answer about a recipient, as for a bounce, because only bounces are sent to tags. A tag that is not valid is
    /// not found, so that the MTA refuses it as an unknown recipient. While the domain is only observed, expired tags
    /// are stripped, but never tags that were not signed by this site. `client` is the client for which the MTA asks,
    /// if known; bad tags are charged to its account.
    #[must_use]
    pub fn map_recipient(&self, memory: &mut Memory, client: Option<IpAddr>, recipient: &Address) -> MappedRecipient {
        let domains = &self.policy.domains;
        let is_srs = domains.srs.contains(recipient.domain()) && srs::looks_tagged(&recipient.content());
        let is_prvs = domains.is_local(recipient.domain()) && batv::strip(recipient).is_some();
        if !is_srs && !is_prvs {
            return MappedRecipient {
                mapped: MapAnswer::Nothing,
                verdict: Verdict::Untagged,
                reason: MapReason::Untagged,
            };
        }
        let asked = self.inbound_for(Caller::Map, memory, client, &ReversePath::Null, recipient);
        let Inbound { verdict, disposition, reason, .. } = asked;
        let mapped = match disposition {
            Disposition::Refuse(refusal) if refusal.is_temporary() => MapAnswer::Later(refusal),
            Disposition::Refuse(_) | Disposition::Discard => MapAnswer::Nothing,
            Disposition::Deliver(Delivery { to, .. }) | Disposition::Inspect(Delivery { to, .. }, _) => {
                match &verdict {
                    // With `inbound.srs_reverse = "mta"`, the MTA reverses the address itself, by this map.
                    Verdict::Valid(found) if is_srs => MapAnswer::To(found.address().clone()),
                    _ if to == *recipient => MapAnswer::Nothing,
                    // An MTA accepts any address that is found here as that of a user, and would bounce mail to unknown
                    // recipients.
                    verdict if !self.is_signed_by_site(verdict) && batv::strip(recipient).as_ref() == Some(&to) => {
                        MapAnswer::Nothing
                    }
                    _ => MapAnswer::To(to),
                }
            }
        };
        MappedRecipient { mapped, verdict, reason: MapReason::Asked(reason) }
    }

    /// The answer about a recipient for a map that is used together with a caller that verifies, such as a milter: the
    /// MTA looks up the mailbox before the milter is queried. A `prvs` tag is stripped without verification. An SRS
    /// address is relayed, so it has to be valid.
    #[must_use]
    pub fn map_stripped(&self, memory: &mut Memory, client: Option<IpAddr>, recipient: &Address) -> MappedRecipient {
        let bare = if self.policy.domains.is_local(recipient.domain()) { batv::strip(recipient) } else { None };
        match bare {
            Some(bare) => MappedRecipient {
                mapped: MapAnswer::To(bare),
                verdict: Verdict::Untagged,
                reason: MapReason::NotVerified,
            },
            None => self.map_recipient(memory, client, recipient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::match_lists::AliasDomains;
    use crate::envelope::site_policy::{FailureAction, InboundMode, Policy};
    use crate::envelope::time::Timestamp;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn ring() -> Keyring {
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        Keyring::create(key, NOW).unwrap()
    }

    fn policy() -> Policy {
        let mut policy = Policy::default();
        policy.domains.local.insert("our.example");
        policy.domains.srs = AliasDomains::one("srs.our.example");
        policy.inbound.mode = InboundMode::Enforce;
        policy
    }

    fn mapped(policy: &Policy, ring: &Keyring, days: i64, recipient: &str) -> MapAnswer {
        let now = Timestamp(NOW.0 + days * 86_400);
        let rules = Rules::new(policy, ring, now);
        rules.map_recipient(&mut Memory::default(), None, &Address::parse(recipient).unwrap()).mapped
    }

    fn signed(policy: &Policy, ring: &Keyring, sender: &str) -> String {
        let rules = Rules::new(policy, ring, NOW);
        let outbound = rules.outbound(None, &ReversePath::parse(sender).unwrap(), None);
        match MapAnswer::of_sender(&outbound) {
            MapAnswer::To(address) => address.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn to(address: &str) -> MapAnswer {
        MapAnswer::To(Address::parse(address).unwrap())
    }

    #[test]
    fn what_was_signed_is_found_again_for_a_while() {
        let (policy, ring) = (policy(), ring());
        for sender in ["ann@our.example", "\"ann smith\"@our.example", "bob@else.example"] {
            let signed = signed(&policy, &ring, sender);
            assert_eq!(mapped(&policy, &ring, 7, &signed), to(sender));
            assert_eq!(mapped(&policy, &ring, 40, &signed), MapAnswer::Nothing);
        }
    }

    #[test]
    fn an_srs_address_is_reversed_by_the_map_whoever_else_leaves_it() {
        let (mut policy, ring) = (policy(), ring());
        policy.inbound.srs_stays = true;
        let signed = signed(&policy, &ring, "bob@else.example");
        assert_eq!(mapped(&policy, &ring, 0, &signed), to("bob@else.example"));
    }

    #[test]
    fn a_forgery_is_never_found() {
        let (mut policy, ring) = (policy(), ring());
        let forged = "prvs=1786abcdef=ann@our.example";
        let forged_srs = "SRS0=AAAAAA=AA=else.example=bob@srs.our.example";
        policy.inbound.quarantine_to = Some(Address::parse("quarantine@else.example").unwrap());
        for forged in [forged, forged_srs] {
            for (action, quarantined) in
                [(FailureAction::Reject, false), (FailureAction::Discard, false), (FailureAction::Quarantine, true)]
            {
                policy.inbound.actions.default = action;
                let want = if quarantined { to("quarantine@else.example") } else { MapAnswer::Nothing };
                assert_eq!(mapped(&policy, &ring, 0, forged), want, "{action:?}");
            }
            policy.inbound.actions.default = FailureAction::Defer;
            assert!(matches!(mapped(&policy, &ring, 0, forged), MapAnswer::Later(_)));
        }
        for (action, mode) in [
            (FailureAction::Mark, InboundMode::Enforce),
            (FailureAction::Reject, InboundMode::Enforce),
            (FailureAction::Reject, InboundMode::Observe),
        ] {
            (policy.inbound.actions.default, policy.inbound.mode) = (action, mode);
            for forged in [forged, forged_srs, "prvs=7000abcdef=ann@our.example"] {
                assert_eq!(mapped(&policy, &ring, 0, forged), MapAnswer::Nothing, "{action:?} {mode:?}");
            }
        }
        // An expired tag that was signed by this site is stripped while observing.
        let signed = signed(&policy, &ring, "ann@our.example");
        assert_eq!(mapped(&policy, &ring, 40, &signed), to("ann@our.example"));
    }

    #[test]
    fn stripping_judges_only_what_leads_out_of_here() {
        let (policy, ring) = (policy(), ring());
        let stripped = |recipient: &str| {
            let rules = Rules::new(&policy, &ring, NOW);
            rules.map_stripped(&mut Memory::default(), None, &Address::parse(recipient).unwrap()).mapped
        };
        for local in ["prvs=1786abcdef=ann@our.example", "PRVS=1786ABCDEF=ann@our.example"] {
            assert_eq!(stripped(local), to("ann@our.example"));
        }
        assert_eq!(stripped(&signed(&policy, &ring, "ann@our.example")), to("ann@our.example"));
        assert_eq!(stripped(&signed(&policy, &ring, "bob@else.example")), to("bob@else.example"));
        for other in
            ["SRS0=AAAAAA=AA=else.example=bob@srs.our.example", "ann@our.example", "prvs=1786abcdef=x@third.example"]
        {
            assert_eq!(stripped(other), MapAnswer::Nothing, "{other}");
        }
    }

    #[test]
    fn everything_else_is_none_of_its_business() {
        let (policy, ring) = (policy(), ring());
        let others =
            ["ann@our.example", "postmaster@srs.our.example", "x@srs.our.example", "prvs=1786abcdef=x@third.example"];
        for address in others.into_iter().chain(["a=b=c@our.example", "prvs=123=ann@our.example"]) {
            assert_eq!(mapped(&policy, &ring, 0, address), MapAnswer::Nothing, "{address}");
        }
    }
}
