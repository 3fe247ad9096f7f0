//! Finds out which domains take mail for users that do not exist: a server that does so either has a catch-all mailbox, or
//! bounces the mail later, to senders that may be forged. Each domain is asked about one made-up name a day.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::listeners::SharedListeners;
use crate::config::{Protocol, Role, TlsMode};
use crate::drive::app_state::AppState;
use crate::drive::nonce;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::recipients::{ask_once, ask_server};
use crate::envelope::address::Address;
use crate::envelope::site_policy::RecipientSource;
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};
use crate::state::store::{Change, Store, Table};
use crate::wire::message::NextHopChoice;

/// Interval of looking for domains to ask about.
const LOOK: Duration = Duration::from_secs(5);
/// Seconds after the start before the first question: the mail server may start at the same time.
const FIRST: i64 = 60;
/// Seconds before a domain is asked about again whose server gave no answer; then twice as long, and so on, up to a day.
const RETRY: i64 = 600;
/// Key of the answers, in the store.
const ANSWERS: &[u8] = b"catch-all";

/// The answer about a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// When it was asked, in seconds since 1970.
    at: i64,
    /// Whether it takes mail for a made-up name; `None`: it gave no answer.
    takes_all: Option<bool>,
    /// How often in a row it gave none.
    #[serde(default)]
    failures: u32,
}

impl Answer {
    fn is_due(self, now: Timestamp) -> bool {
        let again = RETRY << self.failures.saturating_sub(1).min(8);
        let pause = if self.takes_all.is_some() { SECONDS_PER_DAY } else { again.min(SECONDS_PER_DAY) };
        !(0..pause).contains(&(now.0 - self.at))
    }
}

/// Asks about domains when they are due. Never ends.
pub(super) async fn watch(app: Arc<AppState>, listeners: SharedListeners, store: Arc<dyn Store>) {
    let kept = store.get(Table::Daemon, ANSWERS).ok().flatten();
    let mut answers: BTreeMap<String, Answer> =
        kept.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    loop {
        let is_early = (0..FIRST).contains(&(app.now().0 - app.started.0));
        let domains = domains(&app, &listeners);
        let before = answers.clone();
        answers.retain(|domain, _| domains.contains(domain));
        for domain in domains {
            let now = app.now();
            if is_early || answers.get(&domain).is_some_and(|answer| !answer.is_due(now)) {
                continue;
            }
            let (earlier, failures) = answers.get(&domain).map_or((None, 0), |it| (it.takes_all, it.failures));
            let takes_all = ask(&app, &listeners, &domain).await;
            tell(&domain, earlier, takes_all.as_ref());
            let failures = if takes_all.is_ok() { 0 } else { failures.saturating_add(1) };
            answers.insert(domain, Answer { at: now.0, takes_all: takes_all.ok(), failures });
        }
        let known = answers.iter().filter_map(|(domain, answer)| Some((domain.clone(), answer.takes_all?)));
        app.set_catch_alls(known.collect());
        if answers != before {
            let change =
                Change { table: Table::Daemon, key: ANSWERS.to_vec(), value: serde_json::to_vec(&answers).ok() };
            let store = Arc::clone(&store);
            // Failures are not logged here: `state` logs failed writes.
            let _ = tokio::task::spawn_blocking(move || store.commit(&[change])).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn tell(domain: &str, earlier: Option<bool>, takes_all: Result<&bool, &String>) {
    match takes_all {
        Ok(true) if earlier != Some(true) => warn!(
            domain,
            "the mail server accepts mail for unknown recipients and, unless this is a catch-all mailbox, bounces it later to forged \
             senders; see inbound.recipients"
        ),
        Ok(false) if earlier == Some(true) => info!(domain, "the mail server refuses unknown recipients again"),
        Ok(_) => debug!(domain, "asked about a user that does not exist"),
        Err(error) => debug!(domain, error, "no answer about a user that does not exist"),
    }
}

/// The domains to ask about: those with users, if there is somebody to ask. A file says itself which domains take all.
fn domains(app: &AppState, listeners: &SharedListeners) -> Vec<String> {
    let config = app.config();
    let policy = &config.policy;
    let has_hop = listeners.load().iter().any(|it| it.listener.role == Role::Inbound);
    let mut domains = [policy.domains.local.names(), policy.domains.relay.names()].concat();
    domains.retain(|name| {
        let is_one_domain = !name.starts_with('.') && name != "*";
        is_one_domain
            && match policy.inbound.recipients.of(name) {
                RecipientSource::NextHop => has_hop,
                RecipientSource::Server(_) => true,
                RecipientSource::File(_) => false,
            }
    });
    domains
}

/// The inbound listener that has a next hop for this domain alone, or the first.
fn inbound_listener(listeners: &SharedListeners, domain: &str) -> Option<Arc<ProxyListener>> {
    let listeners = listeners.load();
    let inbound = || listeners.iter().filter(|it| it.listener.role == Role::Inbound);
    inbound().find(|it| it.domain(domain).is_some()).or_else(|| inbound().next()).cloned()
}

/// Whether the server of a domain takes mail for a made-up name.
async fn ask(app: &AppState, listeners: &SharedListeners, domain: &str) -> Result<bool, String> {
    let random = nonce::nonce().map_err(|error| error.to_string())?.map(|octet| format!("{octet:02x}")).concat();
    let recipient =
        Address::from_content(&format!("no-such-user-{random}"), domain).map_err(|error| error.to_string())?;
    let source = app.config().policy.inbound.recipients.of(domain);
    if let RecipientSource::Server(n) = source {
        let server = app.config().recipients.servers.get(n).cloned().ok_or("the config has changed")?;
        return ask_server(&server, &recipient).await;
    }
    let listener = inbound_listener(listeners, domain).ok_or("there is no next hop")?;
    let choice = listener.domain(domain).map_or(NextHopChoice::Main, NextHopChoice::Domain);
    let starttls = listener.connector.as_ref().zip(match listener.listener.hop_tls.mode {
        TlsMode::May => Some(false),
        TlsMode::Require => Some(true),
        TlsMode::Off | TlsMode::Implicit => None,
    });
    let lmtp = listener.listener.protocol == Protocol::Lmtp;
    ask_once(listener.hops(choice), lmtp, starttls, &recipient).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_asked_about_once_a_day_and_one_without_an_answer_less_and_less_often() {
        let now = Timestamp(1_795_382_400);
        let is_due =
            |takes_all, failures, seconds| Answer { at: now.0, takes_all, failures }.is_due(Timestamp(now.0 + seconds));
        assert!(!is_due(Some(true), 0, 86_399) && is_due(Some(false), 0, 86_400));
        for (failures, pause) in [(1, 600), (2, 1200), (3, 2400), (9, 86_400), (4_000_000_000, 86_400)] {
            assert!(!is_due(None, failures, pause - 1) && is_due(None, failures, pause), "{failures}");
        }
    }
}
