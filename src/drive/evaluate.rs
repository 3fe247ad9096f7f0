//! Where front ends ask the rules: with the keys and the clock of this moment, a log line for each decision, and
//! numbers.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::app_state::AppState;
use super::bounce_reservation::Reservation;
use super::limited_warn;
use super::metrics::{ContentLabels, RecipientLabels, SenderLabels};
use super::nonce;
use crate::envelope::abuse::{Flip, Guesser, Memory};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::evidence;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::{
    Caller, Candidate, ContentVerdict, Disposition, Inbound, InboundReason, MapAnswer, MappedRecipient, Outbound,
    OutboundAction, OutboundReason, RefusalReason, Rules,
};
use crate::envelope::tag::{Verdict, masked};

/// Asks the rules on behalf of one client.
pub(super) struct Evaluator {
    /// What all of them share.
    pub app: Arc<AppState>,
    /// The number of the session, for the log.
    pub id: u64,
    /// The client that the rules are about, where it is known.
    pub client: Option<IpAddr>,
    /// The recipient last asked about, as logs show it.
    asked: String,
    /// The recipient whose content decides, as logs show it.
    candidate: String,
    /// Recipients of the session, where it has one client.
    seen: Option<Seen>,
}

/// Recipients of a session that come to nothing.
#[derive(Debug, Default)]
struct Seen {
    refused: u32,
    /// Accepted since a message was last taken.
    accepted: u32,
    /// Accepted and without a line.
    hidden: u32,
}

/// So many refused recipients of a session have a line each; the others are summed up at its end.
const REFUSED_LINES: u32 = 10;
/// So many accepted recipients have a line each while no message comes for any of them.
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

    /// For one client, whose recipients are not to fill the log.
    pub(super) fn of_one_client(app: Arc<AppState>, client: Option<IpAddr>) -> Self {
        let mut evaluator = Self::new(app, client);
        evaluator.seen = Some(Seen::default());
        evaluator
    }

    /// Whether a refused recipient gets a line.
    pub(super) fn shows_refused(&mut self) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.refused = seen.refused.saturating_add(1);
        seen.refused <= REFUSED_LINES
    }

    /// Whether an accepted recipient gets a line.
    fn shows_accepted(&mut self) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.accepted = seen.accepted.saturating_add(1);
        let shown = seen.accepted <= ACCEPTED_LINES;
        seen.hidden = seen.hidden.saturating_add(u32::from(!shown));
        shown
    }

    /// A message was taken: its recipients have come to something.
    pub(super) fn has_taken_a_message(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.accepted = 0;
        }
    }

    /// The client, for the log.
    pub(super) fn who(&self) -> String {
        self.client.map_or_else(|| "local".to_owned(), |client| client.to_string())
    }

    /// The recipient last asked about, for the log.
    pub(super) fn asked(&self) -> &str {
        &self.asked
    }

    /// Asks with the keys and the clock of now: they change while a connection is open.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Rules<'_>) -> T) -> T {
        let ring: Arc<Keyring> = self.app.ring.load_full();
        question(&Rules { policy: &self.app.config.policy, ring: &ring, now: self.app.now() })
    }

    /// What becomes of this sender, whoever the recipients are?
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

    /// What becomes of it for this recipient? `None`: the recipient makes no difference.
    pub(super) fn sender_for(&mut self, sender: &ReversePath, recipient: &Address) -> Option<Outbound> {
        if !self.app.config.policy.outbound.recipients_matter() {
            return None;
        }
        let outbound = self.ask(|rules| rules.outbound(self.client, sender, Some(recipient)));
        self.asked = masked(recipient);
        if outbound.reason == OutboundReason::ExemptRecipient {
            self.log_sender(sender, Some(recipient), &outbound);
        }
        Some(outbound)
    }

    /// What becomes of this recipient? The reservation is for the bounce that it may be: asked by others at the same
    /// time, the rules know of it.
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
            // Others never hear what becomes of the message.
            let tag = inbound.tag.filter(|_| caller.sees_content());
            if let Some(tag) = tag {
                memory.replay.reserve(tag, rules.now.day());
            }
            (inbound, tag, Alarms::of(&mut memory))
        });
        alarms.log();
        self.asked = masked(recipient);
        let refused = matches!(inbound.disposition, Disposition::Refuse(_));
        let has_line = if refused { self.shows_refused() } else { self.shows_accepted() };
        self.log_recipient(sender, &inbound, has_line);
        if matches!(inbound.disposition, Disposition::Inspect(..) | Disposition::Discard) {
            self.candidate.clone_from(&self.asked);
        }
        (inbound, tag.map(|tag| Reservation::of(&app, tag)))
    }

    /// What becomes of this candidate? The reservation is for a bounce that evidence rescues.
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
            }
            if matches!(content, ContentVerdict::Rescue(_)) {
                self.app.metrics.rescued.inc();
            }
            if let ContentVerdict::Mark(mark) = &content
                && mark.observed
            {
                self.would_refuse(mark.reason, case.recipient, false, rules.unsigned_path(found));
            }
        });
        (content, reservation)
    }

    /// Which evidence does this message carry?
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

    /// What does this sender become, for a map that knows nothing else?
    pub(super) fn map_sender(&self, sender: &Address) -> MapAnswer {
        let path = ReversePath::Mailbox(sender.clone());
        MapAnswer::of_sender(&self.sender(&path))
    }

    /// As `map_sender`, for a map that is also asked about mail of strangers. A local sender address there does not
    /// prove that the domain's mail leaves through this program, so it does not begin a ramp.
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

    /// What does this recipient become, for a map that knows nothing else?
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
            // A map is asked about every recipient, several times.
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
            action,
            reason
        );
        self.app.metrics.contents.get_or_create(&ContentLabels { kind, action, reason }).inc();
    }
}

/// What has happened to the memory of the rules that people should know.
struct Alarms {
    flips: Vec<Flip>,
    guessers: Vec<Guesser>,
    budget: Option<f64>,
}

impl Alarms {
    fn of(memory: &mut Memory) -> Self {
        let (guesses, surges) = (&mut memory.guesses, &mut memory.surges);
        Self { flips: surges.take_flips(), guessers: guesses.take_alarms(), budget: guesses.take_budget_alarm() }
    }

    fn log(self) {
        for guesser in self.guessers {
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

fn key_of(verdict: &Verdict) -> Option<String> {
    verdict.tagged().and_then(|tagged| tagged.key.as_ref()).map(ToString::to_string)
}

/// Addresses in logs: the null sender as it is written, a tag without its hash.
pub(super) fn shown(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), masked)
}
