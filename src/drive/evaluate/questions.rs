//! The questions to the rules.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::{debug, error, info};

use super::alarms::Alarms;
use super::evaluator::Evaluator;
use super::log::key_of;
use crate::drive::bounce_reservation::Reservation;
use crate::drive::decisions::mailbox;
use crate::drive::history::Refused;
use crate::drive::metrics::RecipientLabels;
use crate::drive::nonce;
use crate::envelope::abuse::Memory;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::evidence;
use crate::envelope::printable::printable;
use crate::envelope::rules::Rules;
use crate::envelope::rules::{
    Caller, Candidate, ContentCheck, ContentVerdict, Disposition, Inbound, InboundReason, MapAnswer, MappedRecipient,
    Outbound, OutboundAction, OutboundReason, RefusalReason,
};
use crate::envelope::tag::{Verdict, masked};

impl Evaluator {
    /// The decision about a sender, for all recipients.
    pub(in crate::drive) fn sender(&mut self, sender: &ReversePath) -> Outbound {
        let (outbound, event) = self.ask_about_sender(|rules| {
            let outbound = rules.outbound(self.client, sender, None);
            let event = rules.ramp_event(sender, &outbound);
            (outbound, event)
        });
        self.log_sender(sender, None, &outbound);
        if let Some(event) = event {
            self.app.note_ramp(event);
        }
        self.is_rewritten = matches!(outbound.action, OutboundAction::Rewrite(_));
        outbound
    }

    /// The decision about a sender for one recipient. `None`: the recipient makes no difference.
    pub(in crate::drive) fn sender_for(&mut self, sender: &ReversePath, recipient: &Address) -> Option<Outbound> {
        if !self.is_rewritten && !self.app.config().policy.outbound.recipients_matter() {
            return None;
        }
        let outbound = self.ask_about_sender(|rules| rules.outbound(self.client, sender, Some(recipient)));
        self.asked = masked(recipient);
        if matches!(outbound.reason, OutboundReason::ExemptRecipient | OutboundReason::LocalRecipient) {
            self.log_sender(sender, Some(recipient), &outbound);
        }
        Some(outbound)
    }

    /// Why a message that leaves is inspected; `None`: it is not.
    pub(in crate::drive) fn outbound_check(
        &mut self,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Option<ContentCheck> {
        if *sender != ReversePath::Null {
            return None;
        }
        let check = self.ask(|rules| rules.outbound_check(sender, recipient));
        if check.is_some() {
            self.candidate = masked(recipient);
        }
        check
    }

    /// The decision about a recipient. If bounces to its tag are counted, one is reserved, so that concurrent queries
    /// count it.
    pub(in crate::drive) fn recipient(
        &mut self,
        caller: Caller,
        sender: &ReversePath,
        recipient: &Address,
    ) -> (Inbound, Option<Reservation>) {
        let app = Arc::clone(&self.app);
        let (inbound, tag, alarms) = self.ask_about_recipient(|rules| {
            let mut memory = app.memory();
            let inbound = rules.inbound_for(caller, &mut memory, self.client, sender, recipient);
            // Other callers do not report what becomes of the message.
            let tag = inbound.tag.filter(|_| caller.sees_content());
            if let Some(tag) = tag {
                memory.replay.reserve(tag, rules.now.day());
            }
            (inbound, tag, Alarms::of(&mut memory))
        });
        alarms.log();
        self.asked = masked(recipient);
        self.note_recipient(sender, &inbound);
        let refused = matches!(inbound.disposition, Disposition::Refuse(_));
        let not_taken = refused || matches!(inbound.disposition, Disposition::Discard);
        match self.take_pending() {
            Some(pending) if inbound.reason == InboundReason::Against(RefusalReason::UnknownRecipient) => {
                pending.told_unknown();
            }
            // Only a proxy sees the next hop's reply; an MTA has checked the recipient before it asks.
            Some(pending) if !not_taken && caller == Caller::Proxy => self.pending = Some(pending),
            Some(_) | None => {}
        }
        if let (true, InboundReason::Against(reason)) = (not_taken, inbound.reason) {
            self.count_refusal(reason.name(), recipient);
        }
        if inbound.reason == InboundReason::Valid && *sender == ReversePath::Null {
            let now = self.app.now();
            self.app.history().count(now, |counts| counts.genuine += 1);
        }
        let has_line = if refused { self.shows_refused() } else { self.shows_accepted() };
        self.log_recipient(sender, &inbound, has_line);
        if matches!(inbound.disposition, Disposition::Inspect(..) | Disposition::Discard) {
            self.candidate.clone_from(&self.asked);
        }
        (inbound, tag.map(|tag| Reservation::of(&app, tag)))
    }

    /// The decision about the content of a message. A bounce that evidence rescues is reserved.
    pub(in crate::drive) fn content(
        &self,
        case: Candidate<'_>,
        found: &Findings,
        message_id: Option<String>,
    ) -> (ContentVerdict, Option<Reservation>) {
        let (content, reservation, alarms) = self.ask(|rules| {
            let mut memory = self.app.memory();
            let content = rules.content(&mut memory, case, found);
            let tag = if let ContentVerdict::Rescue(tag) = content { Some(tag) } else { None };
            if let Some(tag) = tag {
                memory.replay.reserve(tag, rules.now.day());
            }
            (content, tag.map(|tag| Reservation::of(&self.app, tag)), Alarms::of(&mut memory))
        });
        alarms.log();
        self.ask(|rules| {
            if content != ContentVerdict::Later {
                self.log_content(rules, case, found, &content, message_id.as_deref());
                self.note_content(rules, case, found, &content, message_id.as_deref());
            }
            if matches!(
                content,
                ContentVerdict::Refuse(_) | ContentVerdict::Discard(_) | ContentVerdict::Quarantine(..)
            ) {
                self.count_refusal(content.reason(), case.recipient);
            }
            let now = self.app.now();
            if content == ContentVerdict::Deliver && case.check != ContentCheck::OwnBounce {
                self.app.history().count(now, |counts| counts.replies += 1);
            }
            if matches!(content, ContentVerdict::Rescue(_)) {
                self.app.metrics.rescued.inc();
                self.app.history().count(now, |counts| counts.rescued += 1);
            }
            if let ContentVerdict::Mark(mark) = &content
                && mark.observed
            {
                self.note_unsigned(rules, case.recipient, found);
                self.would_refuse(mark.reason, case.recipient, false, rules.unsigned_path(found));
            }
        });
        (content, reservation)
    }

    fn count_refusal(&self, reason: &'static str, recipient: &Address) {
        let now = self.app.now();
        // One mailbox in all its spellings. Its sender may have written what shows the page in another order.
        let shown = mailbox(recipient).to_lowercase();
        let shown = self.app.config().state.addresses.shown(&printable(&shown));
        let refused = Refused { reason, client: self.client, domain: recipient.domain(), recipient: &shown };
        self.app.history().refuse(now, refused);
    }

    /// The evidence header of a message, if it gets one.
    pub(in crate::drive) fn evidence(
        &self,
        sender: &ReversePath,
        message_id: Option<&str>,
        from: Option<&str>,
    ) -> Option<evidence::EvidenceHeader> {
        match nonce::nonce() {
            Ok(nonce) => self.ask(|rules| rules.evidence(nonce, message_id, from, sender)),
            Err(error) => {
                error!(session = %self.id, %error, "no random numbers available; this message gets no evidence header");
                None
            }
        }
    }

    /// The answer of a map about a sender.
    pub(in crate::drive) fn map_sender(&mut self, sender: &Address) -> MapAnswer {
        let path = ReversePath::Mailbox(sender.clone());
        let outbound = self.sender(&path);
        self.count_mapped(&outbound);
        MapAnswer::of_sender(&outbound)
    }

    /// As `map_sender`, for a map that is also queried about mail of strangers. A local sender address in such a query
    /// does not prove that the domain's mail leaves through this program, so it does not start a ramp.
    pub(in crate::drive) fn map_any_sender(&self, sender: &Address) -> MapAnswer {
        let path = ReversePath::Mailbox(sender.clone());
        let (outbound, event) = self.ask_about_sender(|rules| {
            let outbound = rules.outbound(self.client, &path, None);
            let rewritten = matches!(outbound.action, OutboundAction::Rewrite(_));
            let event = if rewritten { rules.ramp_event(&path, &outbound) } else { None };
            (outbound, event)
        });
        self.log_sender(&path, None, &outbound);
        self.count_mapped(&outbound);
        if let Some(event) = event {
            self.app.note_ramp(event);
        }
        MapAnswer::of_sender(&outbound)
    }

    /// The answer of a map about a recipient.
    pub(in crate::drive) fn map_recipient(&self, client: Option<IpAddr>, recipient: &Address) -> MapAnswer {
        self.mapped(recipient, |rules, memory| rules.map_recipient(memory, client, recipient))
    }

    /// As `map_recipient`, for a map that is used beside a milter.
    pub(in crate::drive) fn map_stripped(&self, client: Option<IpAddr>, recipient: &Address) -> MapAnswer {
        self.mapped(recipient, |rules, memory| rules.map_stripped(memory, client, recipient))
    }

    fn mapped(
        &self,
        recipient: &Address,
        question: impl FnOnce(&Rules<'_>, &mut Memory) -> MappedRecipient,
    ) -> MapAnswer {
        let (said, alarms) = self.ask_about_recipient(|rules| {
            let mut memory = self.app.memory();
            (question(rules, &mut memory), Alarms::of(&mut memory))
        });
        alarms.log();
        let (action, verdict, reason) = (said.mapped.name(), said.verdict.name(), said.reason.name());
        if said.verdict == Verdict::Untagged {
            // A map is queried several times about every recipient.
            debug!(session = %self.id, event = "map", to = %recipient, action, reason);
            return said.mapped;
        }
        self.app.metrics.recipients.get_or_create(&RecipientLabels { verdict, action, reason }).inc();
        info!(
            session = %self.id,
            event = "map",
            to = masked(recipient),
            verdict,
            action,
            reason,
            key = key_of(&said.verdict)
        );
        said.mapped
    }
}
