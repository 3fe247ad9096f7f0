//! Recipients with a tag: BATV and SRS addresses.

use super::answers::{against, deliver, inspect, refuse};
use super::query::{RcptQuery, routes_onward};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::refusals::{
    GUESSING, NO_SUCH_TAG, SRS_TAKES_BOUNCES, UNKNOWN_ALIAS, UNKNOWN_KEY, refusal_of,
};
use crate::envelope::rules::{ContentCheck, Inbound, InboundReason, Route, Rules};
use crate::envelope::site_policy::FailureReason;
use crate::envelope::tag::{Verdict, batv, guess_odds, srs};
use crate::envelope::time::SECONDS_PER_DAY;

impl Rules<'_> {
    pub(super) fn srs_recipient(&self, mut asked: RcptQuery<'_>, sender: &ReversePath, recipient: &Address) -> Inbound {
        let inbound = &self.policy.inbound;
        // A correct guess would allow relaying, so guesses are limited in every mode.
        if self.is_guess_limited(&mut asked, true, false, recipient) {
            return refuse(Verdict::Untagged, GUESSING);
        }
        let verdict = self.verify_srs(recipient);
        let for_this_sender = *sender == ReversePath::Null || inbound.srs_for_senders;
        match &verdict {
            Verdict::Valid(found) if for_this_sender => {
                let (to, route) = if inbound.srs_stays {
                    (recipient.clone(), Route::NextHop)
                } else {
                    (found.address().clone(), Route::SrsNextHop)
                };
                // Mail to an SRS address is relayed, so anyone who knows the address could send any message through
                // this site.
                let is_inspected = *sender == ReversePath::Null && asked.caller.sees_content();
                self.valid(asked, verdict, recipient, to, route, is_inspected.then_some(ContentCheck::Srs))
            }
            // No mailbox has this name, so there is nothing to mark.
            Verdict::Alias(_) if for_this_sender => refuse(verdict, UNKNOWN_ALIAS),
            Verdict::Valid(_) | Verdict::Alias(_) => self.refuse_or_mark(&asked, verdict, recipient, None),
            Verdict::Expired(_) => self.refuse_or_mark(&asked, verdict, recipient, Some(FailureReason::Expired)),
            Verdict::Future(_) => self.refuse_or_mark(&asked, verdict, recipient, Some(FailureReason::Future)),
            Verdict::Forged(_) | Verdict::UnknownKey(_) | Verdict::Malformed(_) | Verdict::Untagged => {
                if matches!(verdict, Verdict::Forged(_)) {
                    self.count_guess(
                        &mut asked,
                        true,
                        false,
                        recipient,
                        guess_odds::of_srs(self.ring.keys(), &self.policy.srs),
                    );
                }
                self.refuse_or_mark(&asked, verdict, recipient, Some(FailureReason::Forged))
            }
        }
    }

    /// Refuses an SRS address that is not valid, or delivers it unchanged with a mark if it is only observed.
    pub(super) fn refuse_or_mark(
        &self,
        asked: &RcptQuery<'_>,
        verdict: Verdict,
        recipient: &Address,
        reason: Option<FailureReason>,
    ) -> Inbound {
        if routes_onward(recipient) || asked.caller.is_mta() {
            // Without a valid hash, an address that asks for further relaying is refused in every mode. An MTA would
            // treat the address as an unknown recipient, and bounce the mail.
            return refuse(verdict, reason.map_or(SRS_TAKES_BOUNCES, refusal_of));
        }
        self.act(asked, verdict, recipient.clone(), reason, SRS_TAKES_BOUNCES)
    }

    pub(super) fn tagged_recipient(
        &self,
        mut asked: RcptQuery<'_>,
        sender: &ReversePath,
        recipient: &Address,
        bare: Address,
    ) -> Inbound {
        let daemon = sender.address().is_some_and(|sender| self.is_daemon(sender));
        let hides_srs = self.policy.domains.srs.contains(bare.domain()) && srs::looks_tagged(&bare.content());
        // If any answer depends on the tag, a bad tag is a guess.
        let bounce = *sender == ReversePath::Null || daemon;
        let tells = bounce || hides_srs || routes_onward(&bare) || asked.caller.is_mta();
        let always = hides_srs || routes_onward(&bare);
        if tells && self.is_guess_limited(&mut asked, always, !bounce, &bare) {
            // Evidence cannot be guessed, so a bounce that returns an original of this site is accepted.
            return if bounce && !always && asked.caller.sees_content() && self.policy.inbound.evidence {
                inspect(Verdict::Untagged, bare, ContentCheck::Guessing, against(GUESSING))
            } else {
                refuse(Verdict::Untagged, GUESSING)
            };
        }
        let verdict = batv::verify(self.ring.keys(), &self.policy.batv, self.now.day(), recipient);
        if let Verdict::Valid(found) = &verdict {
            let to = found.address().clone();
            return if *sender == ReversePath::Null {
                self.valid(asked, verdict, recipient, to, Route::NextHop, None)
            } else {
                deliver(verdict, to, Route::NextHop, None, InboundReason::Valid)
            };
        }
        match &verdict {
            Verdict::Forged(_) if tells => {
                self.count_guess(&mut asked, always, !bounce, &bare, guess_odds::of_batv(self.ring.keys(), recipient));
            }
            // An unknown key digit counts as a guess, although it cannot be a correct one.
            Verdict::UnknownKey(_) if tells => self.count_guess(&mut asked, always, !bounce, &bare, 0.0),
            _ => {}
        }
        if routes_onward(&bare) || hides_srs {
            // The address behind a tag that is not valid asks for further relaying, or would bypass the rules for SRS.
            return refuse(verdict, refusal_of(FailureReason::Forged));
        }
        if asked.caller.is_mta() && *sender != ReversePath::Null && !self.is_signed_by_site(&verdict) {
            return if matches!(verdict, Verdict::UnknownKey(_)) && !self.ring_has_settled() {
                refuse(verdict, UNKNOWN_KEY)
            } else {
                refuse(verdict, NO_SUCH_TAG)
            };
        }
        if *sender != ReversePath::Null {
            // An answer to the envelope sender. It is delivered to the local user, whatever its tag proves.
            return if daemon {
                inspect(verdict, bare, ContentCheck::DaemonSender, InboundReason::NotABounce)
            } else {
                deliver(verdict, bare, Route::NextHop, None, InboundReason::NotABounce)
            };
        }
        let reason = match &verdict {
            Verdict::Expired(_) => Some(FailureReason::Expired),
            Verdict::Future(_) => Some(FailureReason::Future),
            // For a while, another host may have a newer ring.
            Verdict::UnknownKey(_) if !self.ring_has_settled() => None,
            Verdict::UnknownKey(_) => Some(FailureReason::Forged),
            Verdict::Valid(_) | Verdict::Alias(_) | Verdict::Forged(_) | Verdict::Malformed(_) | Verdict::Untagged => {
                Some(FailureReason::Forged)
            }
        };
        self.act(&asked, verdict, bare, reason, UNKNOWN_KEY)
    }

    /// Whether the ring has not changed for one BATV lifetime. By then every host has the ring, so a key that is not in
    /// it never existed.
    pub(super) fn ring_has_settled(&self) -> bool {
        let lifetime = i64::from(self.policy.batv.lifetime) * SECONDS_PER_DAY;
        self.ring.changed_at().is_some_and(|at| self.now.0.saturating_sub(at.0) >= lifetime)
    }
}
