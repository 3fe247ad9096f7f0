//! What is found out about a recipient before the rules are queried: whether its client may be told, and whether it
//! exists.

use std::sync::Arc;

use super::alarms::Alarms;
use super::evaluator::Evaluator;
use crate::drive::app_state::AppState;
use crate::drive::harvest::{self, Admitted, PendingQuery};
#[cfg(feature = "milter")]
use crate::drive::limited_by;
use crate::drive::prepared::{Preparation, Prepared};
use crate::drive::recipients::Found;
use crate::envelope::address::Address;
use crate::envelope::rules::{Caller, Existence, RecipientFacts};
use crate::envelope::site_policy::RecipientSource;

/// The client's network has found out about too many unknown recipients.
const LIMITED: RecipientFacts = RecipientFacts { is_limited: true, existence: None };

/// A recipient without a tag, and where it is looked up.
type Wanted = (RecipientSource, Address);

fn found(app: &AppState, (source, recipient): &Wanted) -> Found {
    app.recipients.look_up(&app.config().recipients, *source, recipient, app.now())
}

async fn looked_up(app: &AppState, wanted: Wanted) -> Existence {
    match found(app, &wanted) {
        Found::Now(existence) => existence,
        Found::Later(asking) => {
            let asked = asking.await;
            app.recipients.note(asked, app.now(), &app.metrics)
        }
    }
}

impl Evaluator {
    /// Begins what a query about this recipient needs. `None`: nothing, or what it needs is there, or cannot be had.
    pub(in crate::drive) fn prepare_recipient(&mut self, caller: Caller, recipient: &Address) -> Option<Preparation> {
        (self.recipient_facts, self.pending) = (RecipientFacts::default(), None);
        self.prepare_alias(recipient).or_else(|| self.prepare_facts(caller, recipient))
    }

    fn prepare_facts(&mut self, caller: Caller, recipient: &Address) -> Option<Preparation> {
        let config = self.app.config();
        let limit = config.limits.unknown_recipients_per_hour;
        let (is_watched, wanted) = self.ask(|rules| {
            let is_watched = limit > 0 && !self.is_spared && rules.reveals_users(caller, self.client, recipient);
            // A map does not decide about recipients.
            (is_watched, rules.recipient_to_look_up(caller, recipient).filter(|_| caller != Caller::Map))
        });
        // An MTA has no process to spare for a delay.
        let is_delayed = caller == Caller::Proxy && !config.limits.tarpit.is_zero();
        let patience = if caller == Caller::Proxy { harvest::PATIENCE.0 } else { harvest::PATIENCE.1 };
        let app = Arc::clone(&self.app);
        let Some(client) = self.client.filter(|_| is_watched) else { return self.look_up(wanted?, None) };
        match harvest::admit(&app, client, limit) {
            Admitted::Now(pending) => match wanted {
                Some(wanted) => self.look_up(wanted, Some(pending)),
                None => {
                    self.pending = Some(pending);
                    None
                }
            },
            Admitted::Never if is_delayed => Some(Box::pin(async move {
                harvest::delay(&app).await;
                Prepared::Recipient(LIMITED, None)
            })),
            Admitted::Never => {
                self.recipient_facts = LIMITED;
                None
            }
            Admitted::Later => Some(Box::pin(async move {
                if let Some(pending) = harvest::admitted(&app, client, limit, patience).await {
                    let existence = match wanted {
                        Some(wanted) => Some(looked_up(&app, wanted).await),
                        None => None,
                    };
                    return Prepared::Recipient(RecipientFacts { is_limited: false, existence }, Some(pending));
                }
                if is_delayed {
                    harvest::delay(&app).await;
                }
                Prepared::Recipient(LIMITED, None)
            })),
        }
    }

    /// Looks up whether a recipient exists, at once if that is known.
    fn look_up(&mut self, wanted: Wanted, pending: Option<PendingQuery>) -> Option<Preparation> {
        let known = |existence| RecipientFacts { is_limited: false, existence: Some(existence) };
        match found(&self.app, &wanted) {
            Found::Now(existence) => {
                (self.recipient_facts, self.pending) = (known(existence), pending);
                None
            }
            Found::Later(asking) => {
                let app = Arc::clone(&self.app);
                Some(Box::pin(async move {
                    let asked = asking.await;
                    Prepared::Recipient(known(app.recipients.note(asked, app.now(), &app.metrics)), pending)
                }))
            }
        }
    }

    /// The work that was begun last has ended.
    pub(in crate::drive) fn is_prepared(&mut self, prepared: Prepared) {
        match prepared {
            Prepared::Alias(stored) => self.alias_is(stored),
            Prepared::Recipient(facts, pending) => (self.recipient_facts, self.pending) = (facts, pending),
        }
    }

    /// The query about the last recipient, if it is pending: the client is told nothing before the next hop replies.
    pub(in crate::drive) fn take_pending(&mut self) -> Option<PendingQuery> {
        self.pending.take()
    }

    /// Counts an ordinary message that was accepted: a network that sends much mail may err more often.
    pub(in crate::drive) fn count_accepted(&self) {
        let is_limited = !self.is_spared && self.app.config().limits.unknown_recipients_per_hour > 0;
        if let Some(client) = self.client.filter(|_| is_limited) {
            let now = self.app.now();
            self.app.memory().harvests.accepted(client, now);
        }
    }

    /// Counts a recipient that the client was told is unknown, or a command that asks for one.
    pub(in crate::drive) fn count_unknown(&self) {
        let limit = self.app.config().limits.unknown_recipients_per_hour;
        let spared = self.is_spared
            || limit == 0
            || self.client.is_none_or(|it| self.app.config().policy.inbound.trusted_relays.contains(it));
        if let Some(client) = self.client.filter(|_| !spared) {
            let now = self.app.now();
            let alarms = {
                let mut memory = self.app.memory();
                memory.harvests.unknown(client, limit, now);
                Alarms::of(&mut memory)
            };
            alarms.log();
        }
    }

    /// Logs and counts a message that is put off, because its network has found out about too many unknown recipients.
    #[cfg(feature = "milter")]
    pub(in crate::drive) fn count_put_off(&self) {
        let limit = "unknown_recipients_per_hour";
        self.app.metrics.limit(limit);
        limited_by!(info, limit, session = %self.id, client = self.who(), event = "limit");
    }

    /// Whether the client's network has found out about too many unknown recipients.
    #[cfg(feature = "milter")]
    pub(in crate::drive) fn is_harvest_limited(&self) -> bool {
        let limit = self.app.config().limits.unknown_recipients_per_hour;
        let client = self
            .client
            .filter(|client| !self.is_spared && !self.app.config().policy.inbound.trusted_relays.contains(*client));
        let now = self.app.now();
        client.is_some_and(|client| self.app.memory().harvests.is_limited(client, limit, now))
    }
}
