//! What the rules say to a session's questions, and the log lines about it: one for each decision.

use std::net::IpAddr;

use tracing::{error, info, warn};

use super::account::shown;
use super::link::Link;
use crate::config::Role;
use crate::drive::random;
use crate::drive::stats::{ContentLabels, RecipientLabels, SenderLabels};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Found;
use crate::envelope::rules::{Case, Content, Inbound, InboundAction, Judge, Outbound, OutboundAction, Route, Rules};
use crate::envelope::tag::{Verdict, masked};
use crate::wire::smtp::session::Ask;

impl Link {
    /// Asks the rules. Keys and clock are looked at now: they change while a connection is open.
    pub(super) fn answer(&mut self, ask: Ask) {
        let (shared, ring) = (self.shared.clone(), self.shared.ring.load_full());
        let rules = Rules { policy: &shared.config.policy, ring: &ring, now: shared.now() };
        match ask {
            Ask::Mail { sender } => {
                let outbound = rules.outbound(self.peer(), &sender, None);
                self.log_sender(&sender, None, &outbound);
                if let Some(event) = rules.ramp_event(&sender, &outbound) {
                    shared.note_ramp(event);
                }
                self.session.answer_mail(&outbound);
            }
            Ask::Rcpt { recipient, .. } if self.door.listener.role == Role::Outbound && !rules.recipients_matter() => {
                self.session.answer_same_sender(self.door.domain(recipient.domain()));
            }
            Ask::Rcpt { sender, recipient } => match self.door.listener.role {
                Role::Outbound => {
                    self.asked = masked(&recipient);
                    let outbound = rules.outbound(self.peer(), &sender, Some(&recipient));
                    if outbound.reason == "exempt-recipient" {
                        self.log_sender(&sender, Some(&recipient), &outbound);
                    }
                    self.session.answer_outbound_rcpt(&outbound, self.door.domain(recipient.domain()));
                }
                Role::Inbound => self.answer_recipient(&rules, &sender, &recipient),
            },
            Ask::Hold => {
                self.room = shared.room();
                if self.room.is_none() {
                    warn!(session = self.id, "no room to hold another message: limits.held is used up");
                }
                self.session.answer_hold(self.room.is_some());
            }
            Ask::Content { judge, recipient, found, complete } => {
                let case = Case { client: self.peer(), judge, recipient: &recipient, complete };
                self.answer_content(&rules, case, &found);
            }
            Ask::Evidence { sender, message_id, from } => {
                let header = match random::nonce() {
                    Ok(nonce) => rules.evidence(nonce, message_id.as_deref(), from.as_deref(), &sender),
                    Err(error) => {
                        error!(session = self.id, %error, "no random octets: this message leaves without evidence");
                        None
                    }
                };
                let (line, nonce) = header.map(|header| (header.line, header.nonce)).unzip();
                if let Some(nonce) = nonce {
                    self.note(|account| account.has_evidence(nonce));
                }
                self.session.answer_evidence(line);
            }
        }
    }

    fn answer_recipient(&mut self, rules: &Rules<'_>, sender: &ReversePath, recipient: &Address) {
        let shared = self.shared.clone();
        let (inbound, flips, guessing) = {
            let mut memory = shared.memory();
            let inbound = rules.inbound(&mut memory, self.peer(), sender, recipient);
            (inbound, memory.surges.take_flips(), memory.guesses.take_alarms())
        };
        for network in guessing {
            warn!(
                %network,
                limit = "guesses_per_minute",
                "a client network guesses tags: its bounces to tagged addresses are put off, good ones too"
            );
        }
        for flip in flips {
            crate::drive::log_flip(&flip);
        }
        self.asked = masked(recipient);
        self.log_recipient(sender, &inbound);
        let domain = match &inbound.action {
            InboundAction::Refuse(_) => None,
            InboundAction::Deliver { to, route, mark, .. } => {
                self.candidate.clone_from(&self.asked);
                let (marked, tag) = (mark.is_some_and(|mark| mark.observed), inbound.tag);
                if marked || tag.is_some() {
                    self.note(|account| account.add(tag, marked.then_some(to)));
                }
                // Who is quarantined goes where the quarantine is.
                let domain = if *route == Route::NextHop { to.domain() } else { recipient.domain() };
                self.door.domain(domain)
            }
        };
        self.session.answer_inbound_rcpt(&inbound, domain);
    }

    fn answer_content(&mut self, rules: &Rules<'_>, case: Case<'_>, found: &Found) {
        let shared = self.shared.clone();
        let content = rules.content(&shared.memory(), case, found);
        let (kind, action, reason) = (found.kind.name(), content.name(), content.reason());
        if content != Content::Later {
            info!(
                session = self.id,
                client = self.who(),
                event = "content",
                to = self.candidate,
                kind,
                why = found.reasons.join(", "),
                evidence = rules.evidence_says(case.recipient, found),
                action,
                reason
            );
            shared.stats.contents.get_or_create(&ContentLabels { kind, action, reason }).inc();
        }
        match &content {
            Content::Rescue(tag) => {
                shared.stats.rescued.inc();
                self.note(|account| account.add(Some(*tag), None));
            }
            Content::Mark(mark) if mark.observed => {
                self.would_refuse(mark.reason, case.recipient, false, rules.unsigned_path(found));
            }
            Content::Mark(_)
            | Content::Deliver
            | Content::Later
            | Content::Quarantine(..)
            | Content::Discard(_)
            | Content::Refuse(_) => {}
        }
        self.session.answer_content(&content);
    }

    /// The client that the rules are about.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.caller.address.map(|address| address.ip())
    }

    pub(super) fn who(&self) -> String {
        self.peer().map_or_else(|| "local".to_owned(), |peer| peer.to_string())
    }

    fn log_sender(&self, sender: &ReversePath, recipient: Option<&Address>, outbound: &Outbound) {
        let action = match &outbound.action {
            OutboundAction::Sign(_) => "sign",
            OutboundAction::Rewrite(_) => "rewrite",
            OutboundAction::Pass => "pass",
            OutboundAction::Reject(_) => "reject",
        };
        let labels = SenderLabels { action, reason: outbound.reason };
        self.shared.stats.senders.get_or_create(&labels).inc();
        info!(
            session = self.id,
            client = self.who(),
            event = "sender",
            from = shown(sender),
            to = recipient.map(ToString::to_string),
            action,
            reason = outbound.reason,
            key = outbound.signed().map(|signed| signed.key().to_string()),
        );
    }

    fn log_recipient(&self, sender: &ReversePath, inbound: &Inbound) {
        let action = match &inbound.action {
            InboundAction::Deliver { judge: Judge::Discard, .. } => "discard",
            InboundAction::Deliver { judge: Judge::Null | Judge::Daemon | Judge::Overflow, .. } => "content",
            InboundAction::Deliver { judge: Judge::No, mark: Some(_), .. } => "mark",
            InboundAction::Deliver { judge: Judge::No, mark: None, .. } => "deliver",
            InboundAction::Refuse(refusal) if refusal.is_temporary() => "defer",
            InboundAction::Refuse(_) => "reject",
        };
        if matches!(inbound.verdict, Verdict::UnknownKey(_)) {
            warn!(
                session = self.id,
                to = self.asked,
                "a tag names a key that the ring does not have: is it an old copy?"
            );
        }
        let reason = inbound.reason;
        // Of a guess nobody is told anything, the log least of all.
        let verdict = if reason == "guessing" { "not-looked-at" } else { inbound.verdict.name() };
        self.shared.stats.recipients.get_or_create(&RecipientLabels { verdict, action, reason }).inc();
        info!(
            session = self.id,
            client = self.who(),
            event = "recipient",
            from = shown(sender),
            to = self.asked,
            verdict,
            action,
            reason,
            key = inbound.verdict.tagged().and_then(|t| t.key.as_ref()).map(ToString::to_string),
        );
    }
}
