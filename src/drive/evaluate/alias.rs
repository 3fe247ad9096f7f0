//! Aliases of long senders, which are stored or looked up before the rules are queried.

use super::evaluator::Evaluator;
use crate::drive::aliases::AliasWork;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::StoredAlias;

impl Evaluator {
    /// Begins what a query about this sender needs. `None`: nothing, or what it needs cannot be had.
    pub(in crate::drive) fn prepare_sender(&mut self, sender: &ReversePath) -> Option<AliasWork> {
        (self.sender_alias, self.awaits_sender, self.alias_is_late) = (None, true, false);
        if self.app.config().policy.domains.srs.is_empty() {
            return None;
        }
        let aliases = &self.app.aliases;
        let wanted = self.ask(|rules| rules.alias_to_store(self.client, sender))?;
        match aliases.recent(&wanted.alias) {
            Some(stored) => {
                self.sender_alias = Some(stored);
                None
            }
            None => {
                let work = aliases.store(wanted, &self.app.metrics);
                self.alias_is_late = work.is_none() && aliases.are_kept();
                work
            }
        }
    }

    /// Begins what a query about this recipient needs. `None`: nothing, or what it needs cannot be had.
    pub(in crate::drive) fn prepare_recipient(&mut self, recipient: &Address) -> Option<AliasWork> {
        (self.recipient_alias, self.awaits_sender) = (None, false);
        if self.app.config().policy.domains.srs.is_empty() {
            return None;
        }
        let aliases = &self.app.aliases;
        let alias = self.ask(|rules| rules.alias_to_look_up(recipient))?;
        match aliases.recent(&alias) {
            Some(stored) => {
                self.recipient_alias = Some(stored);
                None
            }
            None => aliases.look_up(alias, &self.app.metrics),
        }
    }

    /// The work that was begun last has ended with this alias; `None`: the store does not have it.
    pub(in crate::drive) fn alias_is(&mut self, stored: Option<StoredAlias>) {
        if self.awaits_sender {
            self.alias_is_late = stored.is_none();
            self.sender_alias = stored;
        } else {
            self.recipient_alias = stored;
        }
    }
}
