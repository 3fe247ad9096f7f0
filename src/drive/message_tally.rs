//! Counters that are updated at the end of a message: bounces to each tag, recipients of each tag, and what enforcing
//! would have refused.

use tracing::info;

use super::evaluate::{Evaluator, shown};
use crate::drive::bounce_reservation::Reservation;
use crate::drive::metrics::MessageLabels;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::{RefusalReason, Rules};
use crate::envelope::tag::{masked, masked_text, srs};
use crate::wire::message::{Direction, Finished};

/// The most recipients of a message that are remembered.
const MAX: usize = 20;

/// What to count at the end of one transaction.
#[derive(Debug, Default)]
pub(in crate::drive) struct MessageTally {
    /// The number of the transaction within the session.
    pub id: u64,
    /// Reservations for the tags to which the message counts as a bounce.
    tags: Vec<Reservation>,
    /// The nonce of the evidence header in the message.
    evidence: Option<String>,
    /// Recipients that enforcing would have refused at RCPT.
    marked: Vec<Address>,
}

impl MessageTally {
    /// For the transaction with this number.
    pub(super) fn of(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn has_evidence(&mut self, nonce: String) {
        self.evidence = Some(nonce);
    }

    /// Adds a recipient: the tag to which the message counts as a bounce, and the address if enforcing would have
    /// refused it.
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
    /// Logs and counts a message at its end.
    pub(super) fn finished(&self, direction: Direction, finished: &Finished, tally: &MessageTally) {
        info!(
            session = %self.id,
            client = self.who(),
            event = "message",
            from = shown(&finished.sender),
            message_id = finished.message_id.as_deref(),
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
            Direction::Inbound => {
                self.count_bounced(finished, tally);
                if finished.sender != ReversePath::Null {
                    self.count_accepted();
                }
            }
        }
    }

    /// Counts the recipients that received a signed address or an evidence header.
    fn count_sent(&self, finished: &Finished, evidence: Option<&str>) {
        let signed = finished.signed.as_deref().and_then(|signed| Address::parse(signed).ok());
        if let Some(signed) = &signed {
            let now = self.app.now();
            let is_srs = srs::looks_tagged(&signed.content());
            self.app.history().count(now, |counts| match is_srs {
                true => counts.rewritten += 1,
                false => counts.signed += 1,
            });
        }
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
                let genuine = rules.would_have_been_rescued(recipient, found);
                self.note_unsigned(rules, recipient, found);
                self.would_refuse(mark.reason, recipient, genuine, rules.unsigned_path(found));
            }
        });
    }

    /// Notes that a bounce has returned mail that a host of this site has sent unsigned.
    pub(super) fn note_unsigned(&self, rules: &Rules<'_>, recipient: &Address, found: &Findings) {
        if let (Some(host), Some(domain)) = (rules.unsigned_own_host(found), rules.ramp_name(recipient.domain())) {
            self.app.note_unsigned(&domain, &host);
        }
    }

    /// Logs and counts a recipient that enforcing would have refused.
    pub(super) fn would_refuse(&self, reason: RefusalReason, recipient: &Address, genuine: bool, path: Option<String>) {
        let reason = reason.name();
        info!(
            session = %self.id,
            client = self.who(),
            event = "would-refuse",
            to = masked(recipient),
            reason,
            evidence = genuine,
            unsigned_path = path,
        );
        let now = self.app.now();
        self.app.history().observe(now, reason);
        self.app.metrics.would_refuse(reason, self.client, genuine, path);
    }
}
