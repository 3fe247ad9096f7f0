//! Log lines and counters of decisions, and those that are kept for `trace`.

use tracing::info;

use super::evaluator::Evaluator;
use crate::drive::decisions::{self, Content, Decision};
use crate::drive::limited_warn;
use crate::drive::metrics::{ContentLabels, RecipientLabels, SenderLabels};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::{
    Candidate, ContentVerdict, Disposition, Inbound, InboundReason, Outbound, OutboundAction, RefusalReason, Rules,
};
use crate::envelope::tag::{Verdict, masked, masked_text};

impl Evaluator {
    /// Keeps a decision about a recipient for `trace`, if it is about a bounce or a tag.
    pub(super) fn note_recipient(&self, sender: &ReversePath, inbound: &Inbound) {
        // The content decides, and is kept then.
        let is_decided = !matches!(inbound.disposition, Disposition::Inspect(..));
        let is_of_interest = inbound.verdict != Verdict::Untagged
            || *sender == ReversePath::Null
            || matches!(inbound.reason, InboundReason::Against(_));
        // The verdict on a rate-limited guess is not shown.
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
                message_id: None,
                returned_message_id: None,
                final_recipient: None,
                content: None,
            });
        }
    }

    /// Keeps a decision about the content of a message for `trace`.
    pub(super) fn note_content(
        &self,
        rules: &Rules<'_>,
        case: Candidate<'_>,
        found: &Findings,
        content: &ContentVerdict,
        message_id: Option<&str>,
    ) {
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
            message_id: message_id.map(str::to_owned),
            returned_message_id: found.returned.message_ids.first().cloned(),
            final_recipient: final_recipient(found),
            content: Some(Content {
                signs: found.reasons.clone(),
                header: found.header.clone(),
                original: found.returned.lines(),
                evidence: rules.evidence_says(case.recipient, found),
            }),
        });
    }

    /// Counts a sender of a map, which is not told what becomes of the message.
    pub(super) fn count_mapped(&self, outbound: &Outbound) {
        let now = self.app.now();
        match &outbound.action {
            OutboundAction::Sign(_) => self.app.history().count(now, |counts| counts.signed += 1),
            OutboundAction::Rewrite(_) => self.app.history().count(now, |counts| counts.rewritten += 1),
            OutboundAction::Pass | OutboundAction::Reject(_) => {}
        }
    }

    pub(super) fn log_sender(&self, sender: &ReversePath, recipient: Option<&Address>, outbound: &Outbound) {
        let action = match &outbound.action {
            OutboundAction::Sign(_) => "sign",
            OutboundAction::Rewrite(_) => "rewrite",
            OutboundAction::Pass => "pass",
            OutboundAction::Reject(_) => "reject",
        };
        let labels = SenderLabels { action, reason: outbound.reason.name() };
        self.app.metrics.senders.get_or_create(&labels).inc();
        info!(
            session = %self.id,
            client = self.who(),
            event = "sender",
            from = shown(sender),
            to = recipient.map(ToString::to_string),
            action,
            reason = outbound.reason.name(),
            key = outbound.signed().map(|signed| signed.key().to_string()),
        );
    }

    pub(super) fn log_recipient(&self, sender: &ReversePath, inbound: &Inbound, has_line: bool) {
        let action = inbound.disposition.name();
        if matches!(inbound.verdict, Verdict::UnknownKey(_)) && has_line {
            limited_warn!(
                session = %self.id,
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
            session = %self.id,
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

    pub(super) fn log_content(
        &self,
        rules: &Rules<'_>,
        case: Candidate<'_>,
        found: &Findings,
        content: &ContentVerdict,
        message_id: Option<&str>,
    ) {
        let (kind, action, reason) = (found.kind.name(), content.name(), content.reason());
        // What is against the bounce may be that its original was not signed.
        let unsigned_host = match content {
            ContentVerdict::Deliver | ContentVerdict::Rescue(_) | ContentVerdict::Later => None,
            ContentVerdict::Mark(_)
            | ContentVerdict::Quarantine(..)
            | ContentVerdict::Discard(_)
            | ContentVerdict::Refuse(_) => rules.unsigned_own_host(found),
        };
        info!(
            session = %self.id,
            client = self.who(),
            event = "content",
            to = self.candidate,
            kind,
            why = found.reasons.join(", "),
            evidence = rules.evidence_says(case.recipient, found),
            message_id,
            returned_message_id = found.returned.message_ids.first(),
            final_recipient = final_recipient(found),
            unsigned_host,
            action,
            reason
        );
        self.app.metrics.contents.get_or_create(&ContentLabels { kind, action, reason }).inc();
    }
}

/// The first recipient that a bounce is about, without its address type (RFC 3464 section 2.3.2).
fn final_recipient(found: &Findings) -> Option<String> {
    found.recipients.first().and_then(|recipient| recipient.final_recipient.as_deref()).map(masked_text)
}

pub(super) fn key_of(verdict: &Verdict) -> Option<String> {
    verdict.tagged().and_then(|tagged| tagged.key.as_ref()).map(ToString::to_string)
}

/// A reverse-path for the log: the null sender as `<>`, an address without the hash of its tag.
pub(in crate::drive) fn shown(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), masked)
}
