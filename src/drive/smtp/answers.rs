//! What the rules say to a session's questions.

use super::is_known;
use super::proxy_session::ProxySession;
use crate::config::Role;
use crate::drive::message_tally::MessageTally;
use crate::envelope::abuse::network;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::{Caller, Candidate, ContentVerdict, InboundAction, Route};
use crate::wire::smtp::session::{Ask, Direction, Finished};

impl ProxySession {
    /// Asks the rules.
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Mail { sender } => self.session.answer_mail(&self.desk.sender(&sender)),
            Ask::Rcpt { sender, recipient } if self.direction() == Direction::Outbound => {
                let domain = self.door.domain(recipient.domain());
                match self.desk.sender_for(&sender, &recipient) {
                    Some(outbound) => self.session.answer_outbound_rcpt(&outbound, domain),
                    None => self.session.answer_same_sender(domain),
                }
            }
            Ask::Rcpt { sender, recipient } => self.answer_recipient(&sender, &recipient),
            Ask::Hold => {
                // Whom the config names has no share of its own.
                let network = self.desk.client.filter(|client| !is_known(*client, &self.door)).map(network);
                self.room = self.desk.shared.rooms.begin(network);
                if self.room.is_none() {
                    self.say_no_room();
                }
                self.session.answer_hold(self.room.is_some());
            }
            Ask::Content { judge, recipient, found, complete } => {
                let case = Candidate { client: self.desk.client, judge, recipient: &recipient, complete };
                let content = self.desk.content(case, &found);
                if let ContentVerdict::Rescue(tag) = &content {
                    self.note(|account| account.add(Some(*tag), None));
                }
                self.session.answer_content(&content);
            }
            Ask::Evidence { sender, message_id, from } => {
                let header = self.desk.evidence(&sender, message_id.as_deref(), from.as_deref());
                let (line, nonce) = header.map(|header| (header.line, header.nonce)).unzip();
                if let Some(nonce) = nonce {
                    self.note(|account| account.has_evidence(nonce));
                }
                self.session.answer_evidence(line);
            }
        }
    }

    fn answer_recipient(&mut self, sender: &ReversePath, recipient: &Address) {
        let inbound = self.desk.recipient(Caller::Proxy, sender, recipient);
        let domain = match &inbound.action {
            InboundAction::Refuse(_) => None,
            InboundAction::Deliver { to, route, mark, .. } => {
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

    /// A message is done.
    pub(super) fn finished(&mut self, finished: &Finished) {
        let account = self.accounts.iter().position(|account| account.id == finished.id);
        let account = account.and_then(|at| self.accounts.remove(at)).unwrap_or_default();
        self.desk.finished(self.direction(), finished, &account);
    }

    /// Notes something about the transaction that the client has open.
    fn note(&mut self, note: impl FnOnce(&mut MessageTally)) {
        let id = self.session.transaction().unwrap_or_default();
        if self.accounts.back().is_none_or(|account| account.id != id) {
            // What was given up is never heard of again.
            self.accounts.retain(|account| account.id + 128 > id);
            self.accounts.push_back(MessageTally::of(id));
        }
        if let Some(account) = self.accounts.back_mut() {
            note(account);
        }
    }

    fn direction(&self) -> Direction {
        match self.door.listener.role {
            Role::Outbound => Direction::Outbound,
            Role::Inbound => Direction::Inbound,
        }
    }
}
