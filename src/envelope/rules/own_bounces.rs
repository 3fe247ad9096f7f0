//! Rules for bounces that this site sends itself: whether they go to somebody who is known to have sent the original.

use super::disposition::DELIVER;
use super::{Candidate, ContentCheck, ContentVerdict, Disposition, Inbound, RefusalReason, ResultHeader, Rules};
use crate::envelope::abuse::Memory;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::auth_results::AuthResults;
use crate::envelope::bounce::{Findings, InboundMark, MessageKind, Trace, TraceHeader};
use crate::envelope::evidence::author;
use crate::envelope::site_policy::OwnBouncePolicy;
use crate::envelope::tag::batv;

/// The mark for a bounce to a reversed SRS address whose content was not inspected: the listener through which it leaves
/// again has to find out whether the bounce is of this site.
const FORWARDED: ResultHeader =
    ResultHeader { verdict: "valid", would: DELIVER, reason: RefusalReason::SrsBounce, observed: false };

/// What a content filter on the same machine calls itself.
const LOCALHOST: &str = "localhost";

impl Rules<'_> {
    /// Why a message that leaves is inspected; `None`: it is not. Bounces within the site harm nobody else.
    #[must_use]
    pub fn outbound_check(&self, sender: &ReversePath, recipient: &Address) -> Option<ContentCheck> {
        let (domains, domain) = (&self.policy.domains, recipient.domain());
        let is_ours = domains.is_local(domain) || domains.relay.contains(domain) || domains.srs.contains(domain);
        let is_inspected = *sender == ReversePath::Null && !is_ours && self.policy.outbound.ndr.is_active();
        is_inspected.then_some(ContentCheck::OwnBounce)
    }

    /// Decides about a bounce to a reversed SRS address, which leaves again, and not always through an outbound
    /// listener.
    ///
    /// It is usually of another site. If its original was received last by this one, the next hop has refused what was
    /// forwarded, and the bounce is of this site after all.
    pub(super) fn forwarded_bounce(
        &self,
        memory: &mut Memory,
        case: Candidate<'_>,
        found: &Findings,
    ) -> ContentVerdict {
        if !self.policy.outbound.ndr.is_active() {
            return ContentVerdict::Deliver;
        }
        let verdict =
            if self.is_returned_here(found) { self.of_this_site(memory, case, found) } else { ContentVerdict::Deliver };
        let accepted = ResultHeader { reason: RefusalReason::AcceptedBounce, ..FORWARDED };
        match verdict {
            // The original was not read as far as that.
            ContentVerdict::Deliver if found.trace.received_by().is_empty() => ContentVerdict::Mark(FORWARDED),
            ContentVerdict::Deliver => ContentVerdict::Mark(accepted),
            other => other,
        }
    }

    fn is_returned_here(&self, found: &Findings) -> bool {
        found.trace.received_by().iter().any(|host| self.is_own_server(host))
    }

    /// Marks a message that was accepted from the null sender, unless it has a mark. Its recipient may forward it to a
    /// mailbox elsewhere.
    pub(super) fn mark_accepted(&self, recipient: &Address, inbound: &mut Inbound) {
        let reason = RefusalReason::AcceptedBounce;
        let accepted = ResultHeader { verdict: inbound.verdict.name(), would: DELIVER, reason, observed: false };
        let (Disposition::Deliver(delivery) | Disposition::Inspect(delivery, _)) = &mut inbound.disposition else {
            return;
        };
        if delivery.mark.is_none() && self.policy.outbound.ndr.is_active() {
            let is_srs = self.policy.domains.srs.contains(recipient.domain());
            delivery.mark = Some(if is_srs { FORWARDED } else { accepted });
        }
    }

    /// Decides about a message from the null sender that leaves this site.
    pub(super) fn own_bounce(&self, memory: &mut Memory, case: Candidate<'_>, found: &Findings) -> ContentVerdict {
        let is_of_others = match found.inbound_mark {
            Some(InboundMark::Accepted) => true,
            Some(InboundMark::Forwarded) => !self.is_returned_here(found),
            None => false,
        };
        if is_of_others { ContentVerdict::Deliver } else { self.of_this_site(memory, case, found) }
    }

    fn of_this_site(&self, memory: &mut Memory, case: Candidate<'_>, found: &Findings) -> ContentVerdict {
        // Vacation replies and receipts are not bounces. Notices of success are as good for an attack as others: who
        // forges the sender can request them.
        if !found.kind.is_ndr() && found.kind != MessageKind::DsnSuccess {
            return if case.complete { ContentVerdict::Deliver } else { ContentVerdict::Later };
        }
        let ndr = &self.policy.outbound.ndr;
        let domain = case.recipient.domain();
        let reason = match ndr.policy {
            OwnBouncePolicy::Drop => Some(RefusalReason::OwnBounce),
            OwnBouncePolicy::Verified if !self.is_authenticated(case.recipient, found) => {
                Some(RefusalReason::OwnBounceUnverified)
            }
            OwnBouncePolicy::Verified | OwnBouncePolicy::Pass => None,
        };
        let limited = || {
            let admitted = memory.own_bounces.admits(domain, ndr.per_domain_per_hour, ndr.per_hour, self.now);
            (!admitted).then_some(RefusalReason::OwnBounceLimit)
        };
        let Some(reason) = reason.or_else(limited) else { return ContentVerdict::Deliver };
        match &ndr.copy_to {
            Some(to) => {
                let mark = ResultHeader { verdict: "untagged", would: "discard", reason, observed: false };
                ContentVerdict::Quarantine(to.clone(), mark)
            }
            None => ContentVerdict::Discard(reason),
        }
    }

    /// Whether this site has found that the returned original came from the domain of the bounce's recipient.
    ///
    /// A signed message can be sent again by anyone, with any envelope sender. So a signature counts only for a bounce
    /// to the author of the message, and not if the sender's domain disowns the host that has sent it (`spf=fail`).
    fn is_authenticated(&self, recipient: &Address, found: &Findings) -> bool {
        let (results, domain) = (self.own_results(&found.trace), recipient.domain());
        let is_author = || {
            let author = found.trace.from.as_deref().and_then(author);
            let mailbox = batv::strip(recipient);
            author.is_some_and(|author| author.same_mailbox(mailbox.as_ref().unwrap_or(recipient)))
        };
        results.passes_spf(domain) || (results.is_signed_by(domain) && !results.fails_spf() && is_author())
    }

    /// What this site's own servers have found out about an original (RFC 8601 section 5). Above the topmost Received
    /// header, nobody else can write. If they write below it, they have to remove what a sender has written.
    fn own_results(&self, trace: &Trace) -> AuthResults {
        let ndr = &self.policy.outbound.ndr;
        let is_received = |header: &TraceHeader| matches!(header, TraceHeader::Received(_));
        let ends = |header: &TraceHeader| match header {
            TraceHeader::Received(by) => {
                let is_own = |host: &String| self.is_own_server(host) || host == LOCALHOST;
                !(ndr.results_below_received && by.iter().all(is_own))
            }
            TraceHeader::Results(_) => false,
        };
        // Without any Received header, no server has received it.
        let own = trace.headers.iter().take_while(|header| !ends(header));
        let values = own.filter(|_| trace.headers.iter().any(is_received)).filter_map(|header| match header {
            TraceHeader::Results(value) => Some(AuthResults::parse(value)),
            TraceHeader::Received(_) => None,
        });
        AuthResults::combined(values.filter(|results| results.is_from(&ndr.authserv_id)))
    }

    fn is_own_server(&self, host: &str) -> bool {
        self.is_own_host(host) || self.policy.outbound.ndr.authserv_id.eq_ignore_ascii_case(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::bounce::Scanner;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::rules::Caller;
    use crate::envelope::site_policy::Policy;
    use crate::envelope::time::Timestamp;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    /// A bounce to victim.example that returns a message with these headers, in a part of this type.
    fn bounce(part: &str, returned: &str) -> Findings {
        let text = format!(
            "From: MAILER-DAEMON@our.example\nSubject: Undelivered Mail Returned to Sender\nMIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n\
             <x@else.example>: host mx said: 550\n    Authentication-Results: mx.our.example; spf=pass\n    \
             smtp.mailfrom=victim.example\n--b\nContent-Type: message/delivery-status\n\n\
             Reporting-MTA: dns; mx.our.example\n\nFinal-Recipient: rfc822; x@else.example\nAction: failed\n\
             Status: 5.1.1\n\n--b\nContent-Type: {part}\n\n{returned}Subject: x\n\nspam\n--b--\n"
        );
        let mut scanner = Scanner::of_text();
        scanner.push(text.as_bytes());
        scanner.finish();
        scanner.found()
    }

    fn verdict(found: &Findings) -> &'static str {
        verdict_if(false, found)
    }

    fn verdict_if(results_below_received: bool, found: &Findings) -> &'static str {
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        let ring = Keyring::create(key, NOW).unwrap();
        let mut policy = Policy::default();
        policy.domains.local.insert("our.example");
        policy.outbound.ndr.policy = OwnBouncePolicy::Verified;
        policy.outbound.ndr.authserv_id = "mx.our.example".into();
        policy.outbound.ndr.results_below_received = results_below_received;
        let (rules, victim) = (Rules::new(&policy, &ring, NOW), Address::parse("v@victim.example").unwrap());
        let check = rules.outbound_check(&ReversePath::Null, &victim).unwrap();
        let case = Candidate { client: None, check, recipient: &victim, complete: true };
        let verdict = rules.content(&mut Memory::default(), case, found);
        if verdict == ContentVerdict::Deliver { "sent" } else { verdict.reason() }
    }

    const OURS: &str = "Authentication-Results: mx.our.example; spf=pass smtp.mailfrom=victim.example\n";
    const RECEIVED: &str =
        "Received: from evil (evil [192.0.2.1]) by mx.our.example; Fri, 27 Nov 2026 00:00:00 +0000\n";

    #[test]
    fn only_results_above_our_own_received_header_count() {
        let other = OURS.replace("mx.our", "mx.else");
        let failed = OURS.replace("=pass", "=fail");
        let folded = OURS.replace("; spf", ";\n\tspf").replace(" smtp", "\n  (a comment)\n smtp");
        for (returned, result) in [
            ([OURS, RECEIVED].concat(), "sent"),
            ([&folded, RECEIVED].concat(), "sent"),
            (["Return-Path: <v@victim.example>\n", &other, OURS, RECEIVED].concat(), "sent"),
            ([OURS, &failed, RECEIVED].concat(), "sent"),
            ([&failed, OURS, RECEIVED].concat(), "own-bounce-unverified"),
            ([RECEIVED, OURS].concat(), "own-bounce-unverified"),
            ([RECEIVED, &other, OURS, RECEIVED].concat(), "own-bounce-unverified"),
            ([&other, RECEIVED].concat(), "own-bounce-unverified"),
            (RECEIVED.to_owned(), "own-bounce-unverified"),
            // Two filters write one each.
            (["Authentication-Results: mx.our.example; dkim=none\n", OURS, RECEIVED].concat(), "sent"),
            // No server has received it.
            (OURS.to_owned(), "own-bounce-unverified"),
            // Too long to be read as a whole.
            (
                [&OURS.replace("; spf", &format!("; iprev=pass ({}); spf", "x".repeat(2000))), RECEIVED].concat(),
                "own-bounce-unverified",
            ),
            (String::new(), "own-bounce-unverified"),
        ] {
            for part in ["message/rfc822", "text/rfc822-headers", "message/global-headers; charset=utf-8"] {
                assert_eq!(verdict(&bounce(part, &returned)), result, "{part}: {returned}");
            }
        }
        // Elsewhere than in a returned original, they are words of anybody.
        for part in ["text/plain", "message/delivery-status", "application/octet-stream"] {
            assert_eq!(verdict(&bounce(part, &[OURS, RECEIVED].concat())), "own-bounce-unverified", "{part}");
        }
        let inside = format!("{RECEIVED}Content-Type: message/rfc822\n\n{OURS}");
        assert_eq!(verdict(&bounce("message/rfc822", &inside)), "own-bounce-unverified");
        let parts = format!("X: y\nContent-Type: multipart/mixed; boundary=c\n\n--c\n{OURS}\nx\n--c--\n");
        assert_eq!(verdict(&bounce("message/rfc822", &parts)), "own-bounce-unverified");
    }

    #[test]
    fn results_below_our_own_received_headers_count_where_the_config_says_so() {
        let (ours_again, other) =
            (RECEIVED.replace("from evil", "from 127.0.0.1"), RECEIVED.replace("by mx.our", "by mx.else"));
        let hop = RECEIVED.replace("by mx.our.example", "by scanner.our.example");
        let failed = OURS.replace("=pass", "=fail");
        for (returned, result) in [
            ([RECEIVED, OURS].concat(), "sent"),
            ([RECEIVED, OURS, &other].concat(), "sent"),
            ([OURS, RECEIVED].concat(), "sent"),
            ([&ours_again, &hop, RECEIVED, OURS, &other].concat(), "sent"),
            (
                [&ours_again, &hop.replace("scanner.our.example", "localhost (x [127.0.0.1])"), RECEIVED, OURS]
                    .concat(),
                "sent",
            ),
            ([RECEIVED, &failed, OURS].concat(), "own-bounce-unverified"),
            ([RECEIVED, &other, OURS].concat(), "own-bounce-unverified"),
            ([&other, OURS].concat(), "own-bounce-unverified"),
            (OURS.to_owned(), "own-bounce-unverified"),
        ] {
            for part in ["message/rfc822", "text/rfc822-headers"] {
                assert_eq!(verdict_if(true, &bounce(part, &returned)), result, "{part}: {returned}");
            }
        }
    }

    #[test]
    fn a_signature_authenticates_the_author_alone() {
        let signed = |more: &str| {
            format!("Authentication-Results: mx.our.example; dkim=pass header.d=victim.example{more}\n{RECEIVED}")
        };
        let from = |author: &str| format!("From: {author}\n");
        for (returned, result) in [
            ([signed(""), from("Victor <V@Victim.example>")].concat(), "sent"),
            ([signed("; spf=softfail smtp.mailfrom=victim.example"), from("v@victim.example")].concat(), "sent"),
            // Anyone can send a signed message again, in the name of another mailbox.
            ([signed(""), from("mallory@victim.example")].concat(), "own-bounce-unverified"),
            (
                [signed("; spf=fail smtp.mailfrom=victim.example"), from("v@victim.example")].concat(),
                "own-bounce-unverified",
            ),
            ([signed(""), from("m@victim.example"), from("v@victim.example")].concat(), "own-bounce-unverified"),
            (signed(""), "own-bounce-unverified"),
        ] {
            for part in ["message/rfc822", "text/rfc822-headers"] {
                assert_eq!(verdict(&bounce(part, &returned)), result, "{part}: {returned}");
            }
        }
    }

    #[test]
    fn what_is_accepted_from_the_null_sender_is_marked_while_somebody_looks_for_it() {
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        let ring = Keyring::create(key, NOW).unwrap();
        let mut policy = Policy::default();
        policy.domains.local.insert("our.example");
        for (active, sender, recipient, caller, expected) in [
            (true, "", "ann@our.example", Caller::Proxy, Some("accepted-bounce")),
            (true, "", "ann@our.example", Caller::Milter, Some("accepted-bounce")),
            (true, "bob@third.example", "ann@our.example", Caller::Proxy, None),
            (false, "", "ann@our.example", Caller::Proxy, None),
        ] {
            policy.outbound.ndr.policy = if active { OwnBouncePolicy::Drop } else { OwnBouncePolicy::Pass };
            let rules = Rules::new(&policy, &ring, NOW);
            let sender = Address::parse(sender).map_or(ReversePath::Null, ReversePath::Mailbox);
            let recipient = Address::parse(recipient).unwrap();
            let inbound = rules.inbound_for(caller, &mut Memory::default(), None, &sender, &recipient);
            let mark = inbound.disposition.delivery().unwrap().mark;
            assert_eq!(mark.map(|mark| mark.reason.name()), expected, "{sender} {recipient} {active}");
            assert_ne!(inbound.disposition.name(), "mark");
        }
    }
}
