//! One client on whose behalf the rules are queried.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::info;

use crate::drive::app_state::AppState;
use crate::drive::harvest::PendingQuery;
use crate::drive::session_id::SessionId;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::{RecipientFacts, Rules, StoredAlias};

/// Queries the rules on behalf of one client.
pub(in crate::drive) struct Evaluator {
    /// The shared state.
    pub app: Arc<AppState>,
    /// The name of the session, for the log.
    pub id: SessionId,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The recipient of the last query, as it is logged.
    pub(super) asked: String,
    /// The recipient whose content decides, as it is logged.
    pub(super) candidate: String,
    /// Counters of recipients, if the session has one client.
    seen: Option<Seen>,
    /// Whether the last sender is rewritten, if its mail leaves this site.
    pub(super) is_rewritten: bool,
    /// The alias of the last sender, if it needs one and the store has it.
    pub(super) sender_alias: Option<StoredAlias>,
    /// The alias of the last recipient, if it has one and the store has it.
    pub(super) recipient_alias: Option<StoredAlias>,
    /// Whether the alias of the last sender could not be stored, which may be possible later.
    pub(super) alias_is_late: bool,
    /// Whether the alias that is stored or looked up now is that of the sender.
    pub(super) awaits_sender: bool,
    /// Whether the client is spared the limit on unknown recipients: it has logged in, or the config names it.
    pub is_spared: bool,
    /// What was found out about the last recipient.
    pub(super) recipient_facts: RecipientFacts,
    /// The query about the last recipient, if unknown recipients of the client are limited.
    pub(super) pending: Option<PendingQuery>,
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
            info!(session = %self.id, client = self.who(), event = "refused-recipients", more);
        }
        if seen.hidden > 0 {
            info!(session = %self.id, client = self.who(), event = "accepted-recipients", more = seen.hidden);
        }
    }
}

impl Evaluator {
    pub(in crate::drive) fn new(app: Arc<AppState>, client: Option<IpAddr>) -> Self {
        let id = app.next_session();
        Self {
            app,
            id,
            client,
            asked: String::new(),
            candidate: String::new(),
            seen: None,
            is_rewritten: false,
            sender_alias: None,
            recipient_alias: None,
            alias_is_late: false,
            awaits_sender: false,
            is_spared: false,
            recipient_facts: RecipientFacts::default(),
            pending: None,
        }
    }

    /// For one client, with a limit on the log lines about its recipients.
    pub(in crate::drive) fn of_one_client(app: Arc<AppState>, client: Option<IpAddr>) -> Self {
        let mut evaluator = Self::new(app, client);
        evaluator.seen = Some(Seen::default());
        evaluator
    }

    /// Counts a refused recipient. Returns whether it has a log line.
    pub(in crate::drive) fn shows_refused(&mut self) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.refused = seen.refused.saturating_add(1);
        seen.refused <= REFUSED_LINES
    }

    /// Counts an accepted recipient. Returns whether it has a log line.
    pub(super) fn shows_accepted(&mut self) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.accepted = seen.accepted.saturating_add(1);
        let shown = seen.accepted <= ACCEPTED_LINES;
        seen.hidden = seen.hidden.saturating_add(u32::from(!shown));
        shown
    }

    /// A message was accepted: accepted recipients are counted anew.
    pub(in crate::drive) fn has_taken_a_message(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.accepted = 0;
        }
    }

    /// The client, for the log.
    pub(in crate::drive) fn who(&self) -> String {
        self.client.map_or_else(|| "local".to_owned(), |client| client.to_string())
    }

    /// The recipient of the last query, for the log.
    pub(in crate::drive) fn asked(&self) -> &str {
        &self.asked
    }

    /// Queries the rules with the current keys and clock, which may change while a connection is open.
    pub(in crate::drive) fn ask<T>(&self, question: impl FnOnce(&Rules<'_>) -> T) -> T {
        let ring: Arc<Keyring> = self.app.ring.load_full();
        let ramps = self.app.ramps.load();
        question(&Rules::new(&self.app.config().policy, &ring, self.app.now()).with_ramps(&ramps))
    }

    /// As `ask`, about the sender, with its alias.
    pub(super) fn ask_about_sender<T>(&self, question: impl FnOnce(&Rules<'_>) -> T) -> T {
        self.ask(|rules| {
            let rules = rules.with_alias(self.sender_alias.as_ref());
            question(&if self.alias_is_late { rules.with_late_alias() } else { rules })
        })
    }

    /// As `ask`, about a recipient, with its alias and what was found out about it.
    pub(super) fn ask_about_recipient<T>(&self, question: impl FnOnce(&Rules<'_>) -> T) -> T {
        let facts = self.recipient_facts;
        self.ask(|rules| question(&rules.with_alias(self.recipient_alias.as_ref()).with_recipient(facts)))
    }
}
