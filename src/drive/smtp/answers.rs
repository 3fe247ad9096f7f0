//! Answers of the rules to the questions of a session.

use std::task::{Context, Poll};

use super::is_known;
use super::proxy_session::ProxySession;
use crate::config::Role;
use crate::drive::message_tally::MessageTally;
use crate::envelope::abuse::network;
use crate::envelope::rules::{Caller, Candidate, Route};
use crate::envelope::site_policy::Mixed;
use crate::wire::message::{Direction, Finished};
use crate::wire::smtp::session::{Answer, Question};

impl ProxySession {
    /// Queries the rules about the session's question, at once or when what they need is there.
    pub(super) fn ask_rules(&mut self) {
        self.preparing = match self.session.question() {
            Some(Question::Mail { sender }) => self.evaluator.prepare_sender(sender),
            Some(Question::Rcpt { recipient, .. }) if self.direction() == Direction::Inbound => {
                self.evaluator.prepare_recipient(Caller::Proxy, recipient)
            }
            _ => None,
        };
        if self.preparing.is_none() {
            self.answer();
        }
    }

    /// Continues to wait for what the rules need. Returns whether it is there, or cannot be had.
    pub(super) fn poll_preparing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(work) = &mut self.preparing else { return false };
        let Poll::Ready(prepared) = work.as_mut().poll(cx) else { return false };
        self.preparing = None;
        self.evaluator.is_prepared(prepared);
        // The session may have ended meanwhile; then there is no question.
        self.answer();
        true
    }

    fn answer(&mut self) {
        let Some(question) = self.session.question() else { return };
        let outbound = self.proxy_listener.listener.role == Role::Outbound;
        match question {
            Question::Mail { sender } => {
                let outbound = self.evaluator.sender(sender);
                self.session.answer(Answer::Sender(&outbound));
            }
            Question::Rcpt { sender, recipient } if outbound => {
                let domain = self.proxy_listener.domain(recipient.domain());
                let outbound = self.evaluator.sender_for(sender, recipient);
                // With `outbound.mixed = "sign"`, no recipient changes the sender of a message.
                let is_split = self.evaluator.app.config().policy.outbound.mixed == Mixed::Split;
                let outbound = outbound.filter(|outbound| is_split || !outbound.yields());
                let check = self.evaluator.outbound_check(sender, recipient);
                self.session.answer(Answer::SenderFor(outbound.as_ref(), domain, check));
            }
            Question::Rcpt { sender, recipient } => {
                let (inbound, reservation) = self.evaluator.recipient(Caller::Proxy, sender, recipient);
                let domain = inbound.disposition.delivery().and_then(|delivery| {
                    // For quarantine, the domain of the quarantine mailbox selects the next hop.
                    let own = delivery.route == Route::NextHop;
                    self.proxy_listener.domain(if own { delivery.to.domain() } else { recipient.domain() })
                });
                if let Some(delivery) = inbound.disposition.delivery() {
                    let marked = delivery.mark.is_some_and(|mark| mark.observed);
                    if marked || reservation.is_some() {
                        self.note(|tally| tally.add(reservation, marked.then_some(&delivery.to)));
                    }
                }
                self.session.answer(Answer::Recipient(&inbound, domain));
            }
            Question::Hold => {
                // A client that the config names is not limited to a share.
                let network =
                    self.evaluator.client.filter(|client| !is_known(*client, &self.proxy_listener)).map(network);
                self.permit = self.evaluator.app.hold_budget.load_full().begin(network);
                if self.permit.is_none() {
                    self.log_no_room();
                }
                self.session.answer(Answer::Hold(self.permit.is_some()));
            }
            Question::Content { check, recipient, found, complete, message_id } => {
                let case = Candidate { client: self.evaluator.client, check, recipient, complete };
                let (content, reservation) = self.evaluator.content(case, &found, message_id);
                if reservation.is_some() {
                    self.note(|tally| tally.add(reservation, None));
                }
                self.session.answer(Answer::Content(&content));
            }
            Question::Evidence { sender, message_id, from } => {
                let header = self.evaluator.evidence(sender, message_id, from);
                let (line, nonce) = header.map(|header| (header.line, header.nonce)).unzip();
                if let Some(nonce) = nonce {
                    self.note(|tally| tally.has_evidence(nonce));
                }
                self.session.answer(Answer::Evidence(line));
            }
        }
    }

    /// Drops the tallies and queries of transactions that were aborted, so that they do not block others.
    pub(super) fn forget_given_up(&mut self) {
        if self.session.transaction().is_none() && !self.session.waits_for_hop() {
            self.tallies.clear();
            self.asked.clear();
            drop(self.evaluator.take_pending());
        }
    }

    /// Logs and counts a message at its end.
    pub(super) fn finished(&mut self, finished: &Finished) {
        let tally = self.tallies.iter().position(|tally| tally.id == finished.id);
        let tally = tally.and_then(|at| self.tallies.remove(at)).unwrap_or_default();
        self.evaluator.finished(self.direction(), finished, &tally);
        if let Some(spent) = self.time_spent() {
            self.evaluator.app.metrics.added.0.observe(spent.as_secs_f64());
        }
        if finished.code < 300 {
            self.evaluator.has_taken_a_message();
        }
    }

    /// Updates the tally of the client's open transaction.
    fn note(&mut self, note: impl FnOnce(&mut MessageTally)) {
        let id = self.session.transaction().unwrap_or_default();
        if self.tallies.back().is_none_or(|tally| tally.id != id) {
            // Aborted transactions never reach their end.
            self.tallies.retain(|tally| tally.id + 128 > id);
            self.tallies.push_back(MessageTally::of(id));
        }
        if let Some(tally) = self.tallies.back_mut() {
            note(tally);
        }
    }

    pub(super) fn direction(&self) -> Direction {
        match self.proxy_listener.listener.role {
            Role::Outbound => Direction::Outbound,
            Role::Inbound => Direction::Inbound,
        }
    }
}
