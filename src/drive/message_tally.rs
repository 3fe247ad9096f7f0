//! What is counted when a message is done: bounces to each tag, recipients of each tag, and what enforcing would have
//! refused.

use tracing::info;

use super::evaluate::{Evaluator, shown};
use crate::drive::bounce_reservation::Reservation;
use crate::drive::metrics::MessageLabels;
use crate::envelope::address::Address;
use crate::envelope::rules::RefusalReason;
use crate::envelope::tag::{masked, masked_text};
use crate::wire::smtp::session::{Direction, Finished};

/// The most recipients of a message that are remembered for this.
const MAX: usize = 20;

/// One transaction, while its message is not done.
#[derive(Debug, Default)]
pub(in crate::drive) struct MessageTally {
    /// Its number within the session.
    pub id: u64,
    /// What it counts as a bounce to.
    tags: Vec<Reservation>,
    /// The random part of the evidence that it carries.
    evidence: Option<String>,
    /// Recipients that were marked for what stands in the envelope.
    marked: Vec<Address>,
}

impl MessageTally {
    /// Of the transaction with this number.
    pub(super) fn of(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn has_evidence(&mut self, nonce: String) {
        self.evidence = Some(nonce);
    }

    /// A recipient: what its message will count as a bounce to, and whether it was marked.
    pub(super) fn add(&mut self, tag: Option<Reservation>, marked: Option<&Address>) {
        if self.tags.len() < MAX {
            self.tags.extend(tag);
        }
        if self.marked.len() < MAX {
            self.marked.extend(marked.cloned());
        }
    }
}

impl Evaluator {
    /// A message is done.
    pub(super) fn finished(&self, direction: Direction, finished: &Finished, tally: &MessageTally) {
        info!(
            session = self.id,
            client = self.who(),
            event = "message",
            from = shown(&finished.sender),
            recipients = finished.recipients,
            reply = masked_text(&finished.reply),
            code = finished.code,
            mark = finished.mark.map(|mark| mark.reason.name()),
        );
        let reply = match finished.code {
            ..400 => "2xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.app.metrics.messages.get_or_create(&MessageLabels { direction: direction.name(), reply }).inc();
        if finished.code >= 300 {
            return;
        }
        match direction {
            Direction::Outbound => self.count_sent(finished, tally.evidence.as_deref()),
            Direction::Inbound => self.count_bounced(finished, tally),
        }
    }

    /// So many recipients have a tag of ours now, and evidence of the message.
    fn count_sent(&self, finished: &Finished, evidence: Option<&str>) {
        let signed = finished.signed.as_deref().and_then(|signed| Address::parse(signed).ok());
        if signed.is_none() && evidence.is_none() {
            return;
        }
        self.ask(|rules| {
            let mut memory = self.app.memory();
            let tags = [
                signed.and_then(|signed| rules.sent_as(&memory, &signed)),
                evidence.map(|nonce| rules.evidence_id(&memory, nonce)),
            ];
            for tag in tags.into_iter().flatten() {
                memory.replay.sent(tag, finished.recipients, rules.now.day());
            }
        });
    }

    fn count_bounced(&self, finished: &Finished, tally: &MessageTally) {
        self.ask(|rules| {
            {
                let mut memory = self.app.memory();
                tally.tags.iter().for_each(|place| memory.replay.bounced(place.tag(), rules.now.day()));
            }
            let Some((mark, found)) = finished.mark.zip(finished.found.as_deref()) else { return };
            for recipient in &tally.marked {
                let genuine = rules.carries_evidence(recipient, found);
                self.would_refuse(mark.reason, recipient, genuine, rules.unsigned_path(found));
            }
        });
    }

    /// For the log and the numbers: what enforcing would have refused.
    pub(super) fn would_refuse(&self, reason: RefusalReason, recipient: &Address, genuine: bool, path: Option<String>) {
        let reason = reason.name();
        info!(
            session = self.id,
            client = self.who(),
            event = "would-refuse",
            to = masked(recipient),
            reason,
            evidence = genuine,
            unsigned_path = path,
        );
        self.app.metrics.would_refuse(reason, self.client, genuine, path);
    }
}
