//! Rules for recipients of inbound mail: which are accepted, and which messages are inspected.

mod answers;
mod guess_limits;
mod query;
mod tagged;
mod untagged;

use core::net::IpAddr;

use self::answers::{against, deliver, disposition, inspect, refuse, untouched};
use self::query::{RcptQuery, routes_onward};
use super::recipients::{ALWAYS_THERE, without_dot};
use super::refusals::{
    HARVEST, NO_SUCH_SRS, NO_SUCH_USER, OWN_SENDER, RELAYING_DENIED, TAG_USED_UP, USER_UNDECIDED, refusal_of,
};
use super::{
    Caller, ContentCheck, Delivery, Disposition, Existence, Inbound, InboundReason, Refusal, ResultHeader, Route, Rules,
};
use crate::envelope::abuse::Memory;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::site_policy::{FailureAction, FailureReason};
use crate::envelope::tag::{Verdict, batv, srs};

impl Rules<'_> {
    /// Decides about a recipient, for a proxy.
    #[must_use]
    pub fn inbound(
        &self,
        memory: &mut Memory,
        client: Option<IpAddr>,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Inbound {
        self.inbound_for(Caller::Proxy, memory, client, sender, recipient)
    }

    /// Decides about a recipient, for any caller.
    ///
    /// An MTA (milter, policy service) decides itself which domains it relays for, so recipients outside the local
    /// domains are left to it. It would accept a tag that was not signed by this site as the address of a user, and
    /// bounce the mail. So such tags are refused in every mode. Bounces to `prvs` tags are the exception: they are
    /// never bounced in turn, and are observed as usual.
    #[must_use]
    pub fn inbound_for(
        &self,
        caller: Caller,
        memory: &mut Memory,
        client: Option<IpAddr>,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Inbound {
        if self.recipient.is_limited {
            return refuse(Verdict::Untagged, HARVEST);
        }
        let recipient = &*without_dot(caller, recipient);
        // The caller of a map can invent the client's address, so `exempt_clients` does not apply to maps.
        let known = client.filter(|_| caller != Caller::Map);
        let asked = RcptQuery { memory, client, lenient: self.is_lenient(known, recipient.domain()), caller };
        let claims_ours = self.claims_to_be_ours(sender, recipient);
        let lenient = asked.lenient || sender.address().is_some_and(|s| self.is_lenient(known, s.domain()));
        if claims_ours && !lenient && (self.is_ours(recipient.domain()) || !caller.is_mta()) {
            return refuse(Verdict::Untagged, OWN_SENDER);
        }
        let mut inbound = self.inbound_asked(asked, sender, recipient);
        if let Disposition::Deliver(Delivery { route: Route::NextHop, mark: mark @ None, .. }) =
            &mut inbound.disposition
            && claims_ours
        {
            *mark =
                Some(ResultHeader { verdict: "untagged", would: "reject", reason: OWN_SENDER.reason, observed: true });
        }
        if *sender == ReversePath::Null {
            self.mark_accepted(recipient, &mut inbound);
        }
        if !matches!(inbound.disposition, Disposition::Refuse(_)) {
            match self.recipient.existence {
                Some(Existence::Unknown) => return refuse(inbound.verdict, NO_SUCH_USER),
                Some(Existence::Undecided) => return refuse(inbound.verdict, USER_UNDECIDED),
                Some(Existence::Known) | None => {}
            }
        }
        match &inbound.disposition {
            // The MTA decides about foreign domains. In a domain of this site, the recipient asks for further relaying,
            // and the refusal stands.
            Disposition::Refuse(refusal)
                if caller.is_mta() && *refusal == RELAYING_DENIED && !self.is_ours(recipient.domain()) =>
            {
                untouched(recipient, InboundReason::ForeignRecipient)
            }
            Disposition::Refuse(_) | Disposition::Deliver(_) | Disposition::Inspect(..) | Disposition::Discard => {
                inbound
            }
        }
    }

    /// Whether a sender from outside is in a local domain and not signed, although all mail of that domain leaves
    /// signed. If such mail were forwarded, it would be given a tag and evidence of this site.
    fn claims_to_be_ours(&self, sender: &ReversePath, recipient: &Address) -> bool {
        let inbound = &self.policy.inbound;
        let Some(sender) = sender.address().filter(|sender| self.policy.domains.is_local(sender.domain())) else {
            return false;
        };
        let is_signed =
            || matches!(batv::verify(self.ring.keys(), &self.policy.batv, self.now.day(), sender), Verdict::Valid(_));
        inbound.own_senders_tagged
            && !inbound.exempt_senders.contains(sender)
            && !inbound.exempt_recipients.contains(recipient)
            && !is_signed()
    }

    fn inbound_asked(&self, asked: RcptQuery<'_>, sender: &ReversePath, recipient: &Address) -> Inbound {
        let domains = &self.policy.domains;
        let domain = recipient.domain();
        let (local, alias) = (domains.is_local(domain), domains.srs.contains(domain));
        let is_srs = alias && srs::looks_tagged(&recipient.content());
        // The address behind a valid tag may have any form; see `tagged_recipient`.
        let bare = if local { batv::strip(recipient) } else { None };
        if !is_srs && bare.is_none() && routes_onward(recipient) {
            return refuse(Verdict::Untagged, RELAYING_DENIED);
        }
        if !local && !alias {
            return if domains.relay.contains(domain) {
                untouched(recipient, InboundReason::RelayDomain)
            } else if self.policy.inbound.pass_foreign {
                untouched(recipient, InboundReason::ForeignRecipient)
            } else {
                refuse(Verdict::Untagged, RELAYING_DENIED)
            };
        }
        if is_srs {
            return self.srs_recipient(asked, sender, recipient);
        }
        if !local {
            let exists = ALWAYS_THERE.iter().any(|name| recipient.content().eq_ignore_ascii_case(name));
            return if exists {
                untouched(recipient, InboundReason::SrsDomainPostmaster)
            } else {
                refuse(Verdict::Untagged, NO_SUCH_SRS)
            };
        }
        match bare {
            Some(bare) => self.tagged_recipient(asked, sender, recipient, bare),
            None => self.untagged_recipient(asked, sender, recipient),
        }
    }

    /// Whether the tag was signed by this site, whatever its date. (`Expired` may also be the verdict on an unknown
    /// key.)
    pub(super) fn is_signed_by_site(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Valid(_) | Verdict::Alias(_) => true,
            Verdict::Expired(tagged) | Verdict::Future(tagged) => {
                tagged.key.as_ref().is_some_and(|id| self.ring.key(id).is_some())
            }
            Verdict::Forged(_) | Verdict::UnknownKey(_) | Verdict::Malformed(_) | Verdict::Untagged => false,
        }
    }

    fn is_ours(&self, domain: &str) -> bool {
        self.policy.domains.is_local(domain) || self.policy.domains.srs.contains(domain)
    }

    fn is_daemon(&self, sender: &Address) -> bool {
        let inbound = &self.policy.inbound;
        inbound.daemon_senders.contains(sender) && !inbound.exempt_senders.contains(sender)
    }

    /// Decides about a bounce to a valid tag, which may have received too many. `check`: why the content is inspected
    /// even so.
    fn valid(
        &self,
        asked: RcptQuery<'_>,
        verdict: Verdict,
        tagged: &Address,
        to: Address,
        route: Route,
        check: Option<ContentCheck>,
    ) -> Inbound {
        let today = self.now.day();
        let read = verdict.tagged();
        let from = read.and_then(|t| t.signed_on).unwrap_or(today);
        let until = read.and_then(|t| t.expires).unwrap_or(today);
        let tag = self.tag_id(asked.memory, tagged, from, until);
        if !self.policy.inbound.replay_limit || !asked.memory.replay.is_used_up(tag) {
            let disposition = disposition(to, route, None, check);
            return Inbound { verdict, disposition, reason: InboundReason::Valid, tag: Some(tag) };
        }
        if asked.lenient && route == Route::NextHop {
            let mark =
                ResultHeader { verdict: verdict.name(), would: "defer", reason: TAG_USED_UP.reason, observed: true };
            return deliver(verdict, to, route, Some(mark), against(TAG_USED_UP)).counted(tag);
        }
        // A bounce that returns an original of this site is genuine, however many others there were. Forwarded mail
        // carries no evidence.
        let may_be_proven = route == Route::NextHop && asked.caller.sees_content() && self.policy.inbound.evidence;
        if may_be_proven {
            return inspect(verdict, to, ContentCheck::UsedUp, against(TAG_USED_UP));
        }
        refuse(verdict, TAG_USED_UP)
    }

    /// Takes the configured action for `reason`; without a reason, refuses with `otherwise`. `to` is the address for
    /// delivery.
    fn act(
        &self,
        asked: &RcptQuery<'_>,
        verdict: Verdict,
        to: Address,
        reason: Option<FailureReason>,
        otherwise: Refusal,
    ) -> Inbound {
        let inbound = &self.policy.inbound;
        let refusal = reason.map_or(otherwise, refusal_of);
        let action = match reason {
            Some(reason) => inbound.actions.of(reason),
            None if refusal.is_temporary() => FailureAction::Defer,
            None => FailureAction::Reject,
        };
        let observed = asked.lenient && action != FailureAction::Mark;
        let would = if action == FailureAction::Mark && !asked.lenient { FailureAction::Reject } else { action };
        let mark = ResultHeader { verdict: verdict.name(), would: would.name(), reason: refusal.reason, observed };
        let word = InboundReason::Against(refusal.reason);
        let marked = |verdict, to| deliver(verdict, to, Route::NextHop, Some(mark), word);
        match action {
            _ if asked.lenient => marked(verdict, to),
            FailureAction::Mark => marked(verdict, to),
            FailureAction::Reject => refuse(verdict, refusal),
            FailureAction::Defer => refuse(verdict, if refusal.is_temporary() { refusal } else { refusal.later() }),
            FailureAction::Discard => Inbound { verdict, disposition: Disposition::Discard, reason: word, tag: None },
            FailureAction::Quarantine => match &inbound.quarantine_to {
                Some(quarantine) => marked(verdict, quarantine.clone()),
                None => marked(verdict, to),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::site_policy::{InboundMode, Policy};
    use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};

    const MADE: Timestamp = Timestamp(1_795_382_400);

    fn site() -> (Policy, Keyring) {
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        let mut policy = Policy::default();
        policy.domains.local.insert("our.example");
        policy.inbound.mode = InboundMode::Enforce;
        policy.inbound.guesses_per_minute = 60;
        (policy, Keyring::create(key, MADE).unwrap())
    }

    #[test]
    fn an_unknown_key_is_waited_for_while_the_ring_is_new() {
        let (policy, ring) = site();
        let client = Some([192, 0, 2, 1].into());
        for (days, caller, code) in [
            (0, Caller::Proxy, 451),
            (6, Caller::Proxy, 451),
            (7, Caller::Proxy, 550),
            (7, Caller::Milter, 550),
            (6, Caller::Policy, 451),
            (7, Caller::Policy, 550),
        ] {
            let rules = Rules::new(&policy, &ring, Timestamp(MADE.0 + days * SECONDS_PER_DAY));
            for sender in [ReversePath::Null, ReversePath::parse("bob@else.example").unwrap()] {
                let day = rules.now.day().plus(3).0.rem_euclid(1000);
                let tag = Address::parse(&format!("prvs=7{day:03}abcdef=ann@our.example")).unwrap();
                let mut memory = Memory::default();
                let inbound = rules.inbound_for(caller, &mut memory, client, &sender, &tag);
                let counts = sender == ReversePath::Null || caller.is_mta();
                let got = match inbound.disposition {
                    Disposition::Refuse(refusal) => refusal.code,
                    _ => 250,
                };
                assert_eq!(got, if counts { code } else { 250 }, "{days} {caller:?} {sender:?}");
                // An unknown key counts as a guess, although it cannot be a correct one.
                assert_eq!(memory.guesses.seen(), u64::from(counts), "{days} {caller:?} {sender:?}");
                assert!(memory.guesses.chance_of_one() < 1e-12);
            }
        }
    }

    /// A bad and a valid tag of today.
    fn tags(rules: &Rules<'_>) -> (Address, Address) {
        let day = rules.now.day().plus(3).0.rem_euclid(1000);
        let bad = Address::parse(&format!("prvs=1{day:03}abcdef=ann@our.example")).unwrap();
        let ann = Address::parse("ann@our.example").unwrap();
        let signer = rules.ring.own_signer().unwrap();
        let good = batv::sign(signer, &rules.policy.batv, rules.now.day(), &ann).unwrap().address().clone();
        (bad, good)
    }

    #[test]
    fn guesses_where_nothing_is_refused_cost_no_bounce_elsewhere() {
        let (enforced, ring) = site();
        let mut observed = enforced.clone();
        observed.inbound.mode = InboundMode::Observe;
        let (client, mut memory) = (Some([192, 0, 2, 1].into()), Memory::default());
        let rules = Rules::new(&observed, &ring, MADE);
        let (bad, good) = tags(&rules);
        for _ in 0..1500 {
            let _ = rules.inbound(&mut memory, client, &ReversePath::Null, &bad);
        }
        assert_eq!(memory.guesses.seen(), 1500, "they are counted");
        let rules = Rules { policy: &enforced, ..rules };
        let inbound = rules.inbound(&mut memory, client, &ReversePath::Null, &good);
        assert_eq!(inbound.reason.name(), "valid");
    }

    #[test]
    fn a_site_of_ipv6_does_not_multiply_its_guesses_by_its_networks() {
        let (policy, ring) = site();
        let rules = Rules::new(&policy, &ring, MADE);
        let (bad, good) = tags(&rules);
        let mut memory = Memory::default();
        let client = |n: u32| Some(format!("2001:db8:7:{n:x}00::1").parse().unwrap());
        for n in 0..240 {
            let inbound = rules.inbound(&mut memory, client(n / 40), &ReversePath::Null, &bad);
            assert_eq!(inbound.reason.name(), "forged", "{n}");
        }
        assert_eq!(rules.inbound(&mut memory, client(7), &ReversePath::Null, &good).reason.name(), "guessing");
        let other = Some("2001:db8:8::1".parse().unwrap());
        assert_eq!(rules.inbound(&mut memory, other, &ReversePath::Null, &good).reason.name(), "valid");
    }

    #[test]
    fn a_map_that_says_for_whom_it_asks_has_accounts_for_each() {
        let (mut policy, ring) = site();
        policy.inbound.trusted_relays = "192.0.2.0/24".parse::<ipnet::IpNet>().into_iter().collect();
        let rules = Rules::new(&policy, &ring, MADE);
        let (bad, good) = tags(&rules);
        let mut memory = Memory::default();
        // Not even for a client in `trusted_relays`, because a local user may have invented the address.
        for _ in 0..1000 {
            let _ = rules.map_recipient(&mut memory, Some([192, 0, 2, 1].into()), &bad);
        }
        let reason = |memory: &mut Memory, client: [u8; 4]| {
            rules.map_recipient(memory, Some(client.into()), &good).reason.name()
        };
        assert_eq!(reason(&mut memory, [192, 0, 2, 7]), "guessing");
        assert_eq!(reason(&mut memory, [198, 51, 100, 7]), "valid");
    }

    #[test]
    fn persons_and_bounces_have_accounts_of_their_own_at_an_mta() {
        let (policy, ring) = site();
        let rules = Rules::new(&policy, &ring, MADE);
        let client = Some([192, 0, 2, 1].into());
        let day = rules.now.day().plus(3).0.rem_euclid(1000);
        let tag = |n: u32| Address::parse(&format!("prvs=1{day:03}{n:06x}=ann@our.example")).unwrap();
        let mut memory = Memory::default();
        let bob = ReversePath::parse("bob@else.example").unwrap();
        for n in 0..100 {
            let _ = rules.inbound_for(Caller::Policy, &mut memory, client, &bob, &tag(n));
        }
        let told = |memory: &mut Memory, sender: &ReversePath| match rules
            .inbound_for(Caller::Policy, memory, client, sender, &tag(200))
            .disposition
        {
            Disposition::Refuse(refusal) => refusal.reason.name(),
            _ => "deliver",
        };
        assert_eq!(told(&mut memory, &bob), "guessing");
        assert_eq!(told(&mut memory, &ReversePath::Null), "forged", "bounces are still answered");
    }
}
