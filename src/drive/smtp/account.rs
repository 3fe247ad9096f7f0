//! What is counted when a message is done: bounces to each tag, recipients of each tag, and what enforcing would have refused.

use tracing::info;

use super::link::Link;
use crate::config::Role;
use crate::drive::stats::MessageLabels;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::memory::TagId;
use crate::envelope::rules::Rules;
use crate::envelope::tag::{masked, masked_text};
use crate::wire::smtp::session::Finished;

/// The most recipients of a message that are remembered for this.
const MAX: usize = 20;

/// One transaction, while its message is not done.
#[derive(Debug, Default)]
pub(super) struct Account {
    id: u64,
    /// What it counts as a bounce to.
    tags: Vec<TagId>,
    /// The random part of the evidence that it carries.
    evidence: Option<String>,
    /// Recipients that were marked for what stands in the envelope.
    marked: Vec<Address>,
}

impl Link {
    /// Notes something about the transaction that the client has open.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Account)) {
        let id = self.session.transaction().unwrap_or_default();
        if self.accounts.back().is_none_or(|account| account.id != id) {
            // What was given up is never heard of again.
            self.accounts.retain(|account| account.id + 128 > id);
            self.accounts.push_back(Account { id, ..Account::default() });
        }
        if let Some(account) = self.accounts.back_mut() {
            note(account);
        }
    }

    /// A message is done.
    pub(super) fn finished(&mut self, finished: &Finished) {
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
        let role = self.door.listener.role;
        let reply = match finished.code {
            ..400 => "2xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.shared.stats.messages.get_or_create(&MessageLabels { direction: role.name(), reply }).inc();
        let account = self.accounts.iter().position(|account| account.id == finished.id);
        let account = account.and_then(|at| self.accounts.remove(at)).unwrap_or_default();
        if finished.code >= 300 {
            return;
        }
        match role {
            Role::Outbound => self.count_sent(finished, account.evidence.as_deref()),
            Role::Inbound => self.count_bounced(finished, &account),
        }
    }

    /// So many recipients have a tag of ours now, and evidence of the message.
    fn count_sent(&self, finished: &Finished, evidence: Option<&str>) {
        let signed = finished.signed.as_deref().and_then(|signed| Address::parse(signed).ok());
        if signed.is_none() && evidence.is_none() {
            return;
        }
        let ring = self.shared.ring.load();
        let rules = Rules { policy: &self.shared.config.policy, ring: &ring, now: self.shared.now() };
        let mut memory = self.shared.memory();
        let tags = [
            signed.and_then(|signed| rules.sent_as(&memory, &signed)),
            evidence.map(|nonce| rules.evidence_id(&memory, nonce)),
        ];
        for tag in tags.into_iter().flatten() {
            memory.replay.sent(tag, finished.recipients, rules.now.day());
        }
    }

    fn count_bounced(&self, finished: &Finished, account: &Account) {
        let today = self.shared.now().day();
        {
            let mut memory = self.shared.memory();
            account.tags.iter().for_each(|tag| memory.replay.bounced(*tag, today));
        }
        let Some((mark, found)) = finished.mark.zip(finished.found.as_deref()) else { return };
        let ring = self.shared.ring.load();
        let rules = Rules { policy: &self.shared.config.policy, ring: &ring, now: self.shared.now() };
        for recipient in &account.marked {
            let genuine = rules.carries_evidence(recipient, found);
            let path = rules.unsigned_path(found);
            self.would_refuse(mark.reason, recipient, genuine, path);
        }
    }

    /// For the log and the numbers: what enforcing would have refused.
    pub(super) fn would_refuse(&self, reason: &'static str, recipient: &Address, genuine: bool, path: Option<String>) {
        info!(
            session = self.id,
            client = self.who(),
            event = "would-refuse",
            to = masked(recipient),
            reason,
            evidence = genuine,
            unsigned_path = path,
        );
        self.shared.stats.would_refuse(reason, self.peer(), genuine, path);
    }
}

impl Account {
    pub(super) fn has_evidence(&mut self, nonce: String) {
        self.evidence = Some(nonce);
    }

    /// A recipient: what its message will count as a bounce to, and whether it was marked.
    pub(super) fn add(&mut self, tag: Option<TagId>, marked: Option<&Address>) {
        if self.tags.len() < MAX {
            self.tags.extend(tag);
        }
        if self.marked.len() < MAX {
            self.marked.extend(marked.cloned());
        }
    }
}

/// Addresses in logs: the null sender as it is written, a tag without its hash.
pub(super) fn shown(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), masked)
}
