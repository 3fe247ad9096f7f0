//! Aliases of long senders, which are stored or looked up before the rules are queried.

use super::evaluator::Evaluator;
use crate::drive::aliases::AliasWork;
use crate::drive::prepared::{Preparation, Prepared};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::StoredAlias;

impl Evaluator {
    /// Begins what a query about this sender needs. `None`: nothing, or what it needs cannot be had.
    pub(in crate::drive) fn prepare_sender(&mut self, sender: &ReversePath) -> Option<Preparation> {
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
                work.map(of_alias)
            }
        }
    }

    /// Looks up the alias in this recipient. `None`: it has none, or it cannot be looked up.
    pub(super) fn prepare_alias(&mut self, recipient: &Address) -> Option<Preparation> {
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
            None => aliases.look_up(alias, &self.app.metrics).map(of_alias),
        }
    }

    /// The work for an alias has ended; `None`: the store does not have it.
    pub(super) fn alias_is(&mut self, stored: Option<StoredAlias>) {
        if self.awaits_sender {
            self.alias_is_late = stored.is_none();
            self.sender_alias = stored;
        } else {
            self.recipient_alias = stored;
        }
    }
}

fn of_alias(work: AliasWork) -> Preparation {
    Box::pin(async move { Prepared::Alias(work.await) })
}
