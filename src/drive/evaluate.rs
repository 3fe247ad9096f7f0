//! Queries of all front ends to the rules, with the current keys and clock. Each decision is logged and counted.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::app_state::AppState;
use super::bounce_reservation::Reservation;
use super::decisions::{self, Decision};
use super::limited_warn;
use super::metrics::{ContentLabels, RecipientLabels, SenderLabels};
use super::nonce;
use crate::envelope::abuse::{GuessAccount, Memory, SurgeChange};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::evidence;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::{
    Caller, Candidate, ContentVerdict, Disposition, Inbound, InboundReason, MapAnswer, MappedRecipient, Outbound,
    OutboundAction, OutboundReason, RefusalReason, Rules,
};
use crate::envelope::tag::{Verdict, masked, masked_text};

/// Queries the rules on behalf of one client.
pub(super) struct Evaluator {
    /// The shared state.
    pub app: Arc<AppState>,
    /// The number of the session, for the log.
    pub id: u64,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The recipient of the last query, as it is logged.
    asked: String,
    /// The recipient whose content decides, as it is logged.
    candidate: String,
    /// Counters of recipients, if the session has one client.
    seen: Option<Seen>,
}

/// Counters of recipients in a session, which limit its log lines.
#[derive(Debug, Default)]
struct Seen {
    refused: u32,
    /// Recipients accepted since the last accepted message.
    accepted: u32,
    /// Accepted recipients without a log line.
    hidden: u32,
}

/// The number of refused recipients per session that have a log line each. The others are counted in one line at its
/// end.
const REFUSED_LINES: u32 = 10;
/// The number of accepted recipients that have a log line each while no message is accepted.
const ACCEPTED_LINES: u32 = 200;

impl Drop for Evaluator {
    fn drop(&mut self) {
        let Some(seen) = &self.seen else { return };
        let more = seen.refused.saturating_sub(REFUSED_LINES);
        if more > 0 {
            info!(session = self.id, client = self.who(), event = "refused-recipients", more);
        }
        if seen.hidden > 0 {
            info!(session = self.id, client = self.who(), event = "accepted-recipients", more = seen.hidden);
        }
    }
}

impl Evaluator {
    pub(super) fn new(app: Arc<AppState>, client: Option<IpAddr>) -> Self {
        let id = app.next_session();
        Self { app, id, client, asked: String::new(), candidate: String::new(), seen: None }
    }

    /// For one client, with a limit on the log lines about its recipients.
    pub(super) fn of_one_client(app: Arc<AppState>, client: Option<IpAddr>) -> Self {
        let mut evaluator = Self::new(app, client);
        evaluator.seen = Some(Seen::default());
        evaluator
    }

    /// Counts a refused recipient. Returns whether it has a log line.
    pub(super) fn shows_refused(&mut self) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.refused = seen.refused.saturating_add(1);
        seen.refused <= REFUSED_LINES
    }

    /// Counts an accepted recipient. Returns whether it has a log line.
    fn shows_accepted(&mut self) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.accepted = seen.accepted.saturating_add(1);
        let shown = seen.accepted <= ACCEPTED_LINES;
        seen.hidden = seen.hidden.saturating_add(u32::from(!shown));
        shown
    }

    /// A message was accepted: accepted recipients are counted anew.
    pub(super) fn has_taken_a_message(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.accepted = 0;
        }
    }

    /// The client, for the log.
    pub(super) fn who(&self) -> String {
        self.client.map_or_else(|| "local".to_owned(), |client| client.to_string())
    }

    /// The recipient of the last query, for the log.
    pub(super) fn asked(&self) -> &str {
        &self.asked
    }

    /// Queries the rules with the current keys and clock, which may change while a connection is open.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Rules<'_>) -> T) -> T {
        let ring: Arc<Keyring> = self.app.ring.load_full();
        let ramps = self.app.ramps.load();
        question(&Rules::new(&self.app.config().policy, &ring, self.app.now()).with_ramps(&ramps))
    }

    /// The decision about a sender, for all recipients.
    pub(super) fn sender(&self, sender: &ReversePath) -> Outbound {
        let (outbound, event) = self.ask(|rules| {
            let outbound = rules.outbound(self.client, sender, None);
            let event = rules.ramp_event(sender, &outbound);
            (outbound, event)
        });
        self.log_sender(sender, None, &outbound);
        if let Some(event) = event {
            self.app.note_ramp(event);
        }
        outbound
    }

    /// The decision about a sender for one recipient. `None`: the recipient makes no difference.
    pub(super) fn sender_for(&mut self, sender: &ReversePath, recipient: &Address) -> Option<Outbound> {
        if !self.app.config().policy.outbound.recipients_matter() {
            return None;
        }
        let outbound = self.ask(|rules| rules.outbound(self.client, sender, Some(recipient)));
        self.asked = masked(recipient);
        if outbound.reason == OutboundReason::ExemptRecipient {
            self.log_sender(sender, Some(recipient), &outbound);
        }
        Some(outbound)
    }

    /// The decision about a recipient. If bounces to its tag are counted, one is reserved, so that concurrent queries
    /// count it.
    pub(super) fn recipient(
        &mut self,
        caller: Caller,
        sender: &ReversePath,
        recipient: &Address,
    ) -> (Inbound, Option<Reservation>) {
        let app = Arc::clone(&self.app);
        let (inbound, tag, alarms) = self.ask(|rules| {
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
        if let (true, InboundReason::Against(reason)) = (refused, inbound.reason) {
            self.count_refusal(reason.name(), recipient);
        }
        let has_line = if refused { self.shows_refused() } else { self.shows_accepted() };
        self.log_recipient(sender, &inbound, has_line);
        if matches!(inbound.disposition, Disposition::Inspect(..) | Disposition::Discard) {
            self.candidate.clone_from(&self.asked);
        }
        (inbound, tag.map(|tag| Reservation::of(&app, tag)))
    }

    /// The decision about the content of a message. A bounce that evidence rescues is reserved.
    pub(super) fn content(&self, case: Candidate<'_>, found: &Findings) -> (ContentVerdict, Option<Reservation>) {
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
                self.log_content(rules, case, found, &content);
                self.note_content(case, found, &content);
            }
            if matches!(
                content,
                ContentVerdict::Refuse(_) | ContentVerdict::Discard(_) | ContentVerdict::Quarantine(..)
            ) {
                self.count_refusal(content.reason(), case.recipient);
            }
            if matches!(content, ContentVerdict::Rescue(_)) {
                self.app.metrics.rescued.inc();
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
        self.app.refusals().count(self.app.now(), reason, self.client, recipient.domain());
    }

    /// The evidence header of a message, if it gets one.
    pub(super) fn evidence(
        &self,
        sender: &ReversePath,
        message_id: Option<&str>,
        from: Option<&str>,
    ) -> Option<evidence::EvidenceHeader> {
        match nonce::nonce() {
            Ok(nonce) => self.ask(|rules| rules.evidence(nonce, message_id, from, sender)),
            Err(error) => {
                error!(session = self.id, %error, "no random numbers available; this message gets no evidence header");
                None
            }
        }
    }

    /// The answer of a map about a sender.
    pub(super) fn map_sender(&self, sender: &Address) -> MapAnswer {
        let path = ReversePath::Mailbox(sender.clone());
        MapAnswer::of_sender(&self.sender(&path))
    }

    /// As `map_sender`, for a map that is also queried about mail of strangers. A local sender address in such a query
    /// does not prove that the domain's mail leaves through this program, so it does not start a ramp.
    pub(super) fn map_any_sender(&self, sender: &Address) -> MapAnswer {
        let path = ReversePath::Mailbox(sender.clone());
        let (outbound, event) = self.ask(|rules| {
            let outbound = rules.outbound(self.client, &path, None);
            let rewritten = matches!(outbound.action, OutboundAction::Rewrite(_));
            let event = if rewritten { rules.ramp_event(&path, &outbound) } else { None };
            (outbound, event)
        });
        self.log_sender(&path, None, &outbound);
        if let Some(event) = event {
            self.app.note_ramp(event);
        }
        MapAnswer::of_sender(&outbound)
    }

    /// The answer of a map about a recipient.
    pub(super) fn map_recipient(&self, client: Option<IpAddr>, recipient: &Address) -> MapAnswer {
        self.mapped(recipient, |rules, memory| rules.map_recipient(memory, client, recipient))
    }

    /// As `map_recipient`, for a map that is used beside a milter.
    pub(super) fn map_stripped(&self, client: Option<IpAddr>, recipient: &Address) -> MapAnswer {
        self.mapped(recipient, |rules, memory| rules.map_stripped(memory, client, recipient))
    }

    fn mapped(
        &self,
        recipient: &Address,
        question: impl FnOnce(&Rules<'_>, &mut Memory) -> MappedRecipient,
    ) -> MapAnswer {
        let (said, alarms) = self.ask(|rules| {
            let mut memory = self.app.memory();
            (question(rules, &mut memory), Alarms::of(&mut memory))
        });
        alarms.log();
        let (action, verdict, reason) = (said.mapped.name(), said.verdict.name(), said.reason.name());
        if said.verdict == Verdict::Untagged {
            // A map is queried several times about every recipient.
            debug!(session = self.id, event = "map", to = %recipient, action, reason);
            return said.mapped;
        }
        self.app.metrics.recipients.get_or_create(&RecipientLabels { verdict, action, reason }).inc();
        info!(
            session = self.id,
            event = "map",
            to = masked(recipient),
            verdict,
            action,
            reason,
            key = key_of(&said.verdict)
        );
        said.mapped
    }

    /// Keeps a decision about a recipient for `trace`, if it is about a bounce or a tag.
    fn note_recipient(&self, sender: &ReversePath, inbound: &Inbound) {
        // The content decides, and is kept then.
        let is_decided = !matches!(inbound.disposition, Disposition::Inspect(..));
        let is_of_interest = inbound.verdict != Verdict::Untagged
            || *sender == ReversePath::Null
            || matches!(inbound.reason, InboundReason::Against(_));
        // The verdict on a rate-limited guess is nobody's to see.
        let found = if inbound.reason == InboundReason::Against(RefusalReason::Guessing) {
            "not-looked-at"
        } else {
            inbound.verdict.name()
        };
        if is_decided && is_of_interest && self.app.config().state.decisions > 0 {
            self.app.decisions.note(Decision {
                at: self.app.now(),
                session: self.id,
                client: self.client,
                event: "recipient",
                from: decisions::sender(sender),
                to: self.asked.clone(),
                found,
                action: inbound.disposition.name(),
                reason: inbound.reason.name(),
                returned_message_id: None,
                final_recipient: None,
            });
        }
    }

    /// Keeps a decision about the content of a message for `trace`.
    fn note_content(&self, case: Candidate<'_>, found: &Findings, content: &ContentVerdict) {
        if self.app.config().state.decisions == 0 {
            return;
        }
        self.app.decisions.note(Decision {
            at: self.app.now(),
            session: self.id,
            client: self.client,
            event: "content",
            // Its envelope sender is the null sender, or that of a daemon.
            from: String::new(),
            to: masked(case.recipient),
            found: found.kind.name(),
            action: content.name(),
            reason: content.reason(),
            returned_message_id: found.returned.message_ids.first().cloned(),
            final_recipient: final_recipient(found),
        });
    }

    fn log_sender(&self, sender: &ReversePath, recipient: Option<&Address>, outbound: &Outbound) {
        let action = match &outbound.action {
            OutboundAction::Sign(_) => "sign",
            OutboundAction::Rewrite(_) => "rewrite",
            OutboundAction::Pass => "pass",
            OutboundAction::Reject(_) => "reject",
        };
        let labels = SenderLabels { action, reason: outbound.reason.name() };
        self.app.metrics.senders.get_or_create(&labels).inc();
        info!(
            session = self.id,
            client = self.who(),
            event = "sender",
            from = shown(sender),
            to = recipient.map(ToString::to_string),
            action,
            reason = outbound.reason.name(),
            key = outbound.signed().map(|signed| signed.key().to_string()),
        );
    }

    fn log_recipient(&self, sender: &ReversePath, inbound: &Inbound, has_line: bool) {
        let action = inbound.disposition.name();
        if matches!(inbound.verdict, Verdict::UnknownKey(_)) && has_line {
            limited_warn!(
                session = self.id,
                to = self.asked,
                "a tag names a key that is not in the ring; is this copy of the ring old?"
            );
        }
        let reason = inbound.reason.name();
        // The verdict on a rate-limited guess is not logged, so that the log cannot be used as an oracle.
        let guessing = inbound.reason == InboundReason::Against(RefusalReason::Guessing);
        let verdict = if guessing { "not-looked-at" } else { inbound.verdict.name() };
        self.app.metrics.recipients.get_or_create(&RecipientLabels { verdict, action, reason }).inc();
        if !has_line {
            return;
        }
        info!(
            session = self.id,
            client = self.who(),
            event = "recipient",
            from = shown(sender),
            to = self.asked,
            verdict,
            action,
            reason,
            key = key_of(&inbound.verdict),
        );
    }

    fn log_content(&self, rules: &Rules<'_>, case: Candidate<'_>, found: &Findings, content: &ContentVerdict) {
        let (kind, action, reason) = (found.kind.name(), content.name(), content.reason());
        info!(
            session = self.id,
            client = self.who(),
            event = "content",
            to = self.candidate,
            kind,
            why = found.reasons.join(", "),
            evidence = rules.evidence_says(case.recipient, found),
            returned_message_id = found.returned.message_ids.first(),
            final_recipient = final_recipient(found),
            action,
            reason
        );
        self.app.metrics.contents.get_or_create(&ContentLabels { kind, action, reason }).inc();
    }
}

/// Changes in the memory of the rules that are logged as alarms.
struct Alarms {
    flips: Vec<SurgeChange>,
    guess_accounts: Vec<GuessAccount>,
    budget: Option<f64>,
}

impl Alarms {
    fn of(memory: &mut Memory) -> Self {
        let (guesses, surges) = (&mut memory.guesses, &mut memory.surges);
        Self { flips: surges.take_flips(), guess_accounts: guesses.take_alarms(), budget: guesses.take_budget_alarm() }
    }

    fn log(self) {
        for guesser in self.guess_accounts {
            match guesser.network() {
                Some(network) => warn!(
                    %network,
                    limit = "guesses_per_minute",
                    "client network exceeded guesses_per_minute; its bounces to these tags need evidence"
                ),
                None => warn!(
                    limit = "guesses_per_minute",
                    "the map exceeded guesses_per_minute; it answers TEMP for tags until a second after the last guess"
                ),
            }
        }
        for flip in self.flips {
            super::log_flip(&flip);
        }
        if let Some(chance) = self.budget {
            warn!(
                chance,
                "the forgery budget: this is the chance that one of all guessed tags was a good one; rotate the key (keys rotate), \
                 or write longer tags (batv.mac = \"long\")"
            );
        }
    }
}

/// The first recipient that a bounce is about, without its address type (RFC 3464 section 2.3.2).
fn final_recipient(found: &Findings) -> Option<String> {
    found.recipients.first().and_then(|recipient| recipient.final_recipient.as_deref()).map(masked_text)
}

fn key_of(verdict: &Verdict) -> Option<String> {
    verdict.tagged().and_then(|tagged| tagged.key.as_ref()).map(ToString::to_string)
}

/// A reverse-path for the log: the null sender as `<>`, an address without the hash of its tag.
pub(super) fn shown(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), masked)
}
