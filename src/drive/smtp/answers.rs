//! What the rules say to a session's questions, and the log lines about it: one for each decision.

use std::net::IpAddr;

use tracing::{info, warn};

use super::link::Link;
use crate::config::Role;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::{Content, Inbound, InboundAction, Judge, Outbound, OutboundAction, Rules};
use crate::envelope::tag::{Verdict, masked, masked_text};
use crate::wire::smtp::session::{Ask, Finished};

impl Link {
    /// Asks the rules. Keys and clock are looked at now: they change while a connection is open.
    pub(super) fn answer(&mut self, ask: Ask) {
        let ring = self.shared.ring.load();
        let rules = Rules { policy: &self.shared.config.policy, ring: &ring, now: self.shared.now() };
        match ask {
            Ask::Mail { sender } => {
                let outbound = rules.outbound(&sender, None);
                self.log_sender(&sender, None, &outbound);
                self.session.answer_mail(&outbound);
            }
            Ask::Rcpt { recipient, .. } if self.door.listener.role == Role::Outbound && !rules.recipients_matter() => {
                self.session.answer_same_sender(self.door.domain(recipient.domain()));
            }
            Ask::Rcpt { sender, recipient } => match self.door.listener.role {
                Role::Outbound => {
                    self.asked = masked(&recipient);
                    let outbound = rules.outbound(&sender, Some(&recipient));
                    if outbound.reason == "exempt-recipient" {
                        self.log_sender(&sender, Some(&recipient), &outbound);
                    }
                    self.session.answer_outbound_rcpt(&outbound, self.door.domain(recipient.domain()));
                }
                Role::Inbound => {
                    let inbound = rules.inbound(self.peer(), &sender, &recipient);
                    self.asked = masked(&recipient);
                    self.log_recipient(&sender, &inbound);
                    if matches!(inbound.action, InboundAction::Deliver { .. }) {
                        self.candidate.clone_from(&self.asked);
                    }
                    self.session.answer_inbound_rcpt(&inbound, self.door.domain(recipient.domain()));
                }
            },
            Ask::Hold => {
                self.room = self.shared.room();
                if self.room.is_none() {
                    warn!(session = self.id, "no room to hold another message: limits.held is used up");
                }
                self.session.answer_hold(self.room.is_some());
            }
            Ask::Content { judge, kind } => {
                let content = rules.content(self.peer(), judge, kind);
                let (action, reason) = match &content {
                    Content::Deliver => ("deliver", "no-bounce"),
                    Content::Mark(mark) => ("mark", mark.reason),
                    Content::Refuse(refusal) => ("reject", refusal.reason),
                };
                let kind = kind.name();
                info!(
                    session = self.id,
                    client = self.who(),
                    event = "content",
                    to = self.candidate,
                    kind,
                    action,
                    reason
                );
                self.session.answer_content(&content);
            }
        }
    }

    /// The client that the rules are about.
    fn peer(&self) -> Option<IpAddr> {
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
        info!(
            session = self.id,
            client = self.who(),
            event = "recipient",
            from = shown(sender),
            to = self.asked,
            verdict = inbound.verdict.name(),
            action,
            reason = inbound.reason,
            key = inbound.verdict.tagged().and_then(|t| t.key.as_ref()).map(ToString::to_string),
        );
    }

    pub(super) fn log_finished(&self, finished: &Finished) {
        info!(
            session = self.id,
            client = self.who(),
            event = "message",
            from = shown(&finished.sender),
            recipients = finished.recipients,
            reply = masked_text(&finished.reply),
            code = finished.code,
            mark = finished.mark.map(|mark| mark.reason),
        );
    }
}

/// Addresses in logs: the null sender as it is written, a tag without its hash.
fn shown(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), masked)
}
