//! Tells an administrator when something needs doing, by mail or by an HTTP request: what it is, and what to do. Each
//! thing is told once, and at most once a day. Only a crash while a notice is sent repeats it, with the same id.

mod letter;
mod notice;
mod watcher;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use self::letter::Letter;
use self::watcher::{Snapshot, Watcher};
use super::gauges::signing_key;
use super::listeners::SharedListeners;
use super::ramp::states;
use super::report::Report;
use crate::config::{Endpoint, Notify, Protocol, Role, SendProxy, TlsMode};
use crate::drive::app_state::AppState;
use crate::drive::client_dialogue::host_name;
use crate::drive::next_hops::NextHops;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::submission::{self, OwnMessage};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::Rules;
use crate::envelope::time::Timestamp;
use crate::state::store::{Change, Store, Table};
use crate::wire::message::NextHopChoice;

/// Interval of looking.
const LOOK: Duration = Duration::from_secs(1);
/// Intervals of attempts to send what could not be sent: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// How long attempts are made, in seconds.
const GIVE_UP: i64 = 86_400;
/// The most notices that wait.
const MAX_WAITING: usize = 50;
/// Timeout of an HTTP request.
const PATIENCE: Duration = Duration::from_secs(15);
/// The next hop for notices where no outbound listener has one.
const LOCAL_MTA: (&str, u16) = ("127.0.0.1", 25);
/// Key of what was told, in the store.
const TOLD: &[u8] = b"notices";

/// The daemon, as far as notices are about it.
pub(super) struct Notices {
    pub app: Arc<AppState>,
    pub listeners: SharedListeners,
    pub store: Arc<dyn Store>,
}

/// A notice that is not sent yet by all ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    letter: Letter,
    by_mail: bool,
    by_webhook: bool,
    since: i64,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    watcher: Watcher,
    waiting: VecDeque<Waiting>,
}

impl Kept {
    /// Adds notices, and drops the oldest of too many.
    fn add(&mut self, letters: Vec<Letter>, config: &Notify, now: Timestamp) {
        self.waiting.extend(letters.into_iter().map(|letter| Waiting {
            letter,
            by_mail: !config.mail_to.is_empty(),
            by_webhook: config.webhook.is_some(),
            since: now.0,
        }));
        self.waiting.drain(..self.waiting.len().saturating_sub(MAX_WAITING));
    }
}

/// Looks for things to tell, and tells them. Never ends.
pub(super) async fn watch(notices: Notices) {
    let mut kept = notices.restored();
    let (mut retry_at, mut pause) = (Instant::now(), RETRY.0);
    let mut looks = tokio::time::interval(LOOK);
    loop {
        // The first look is at once. Domains that are enforced then are not reported; other states are.
        looks.tick().await;
        let config = notices.app.config().notify.clone();
        if !config.is_wanted() {
            kept.waiting.clear();
            continue;
        }
        let before = kept.watcher.clone();
        let fresh = notices.look(&mut kept.watcher);
        let is_news = !fresh.is_empty();
        kept.add(fresh, &config, notices.app.now());
        // Kept before it is sent, and removed when it is sent: a process that is killed in between repeats a notice after
        // its restart, and loses none. The repeat has the same id.
        if kept.watcher != before || is_news {
            notices.keep(&kept).await;
        }
        if is_news {
            (retry_at, pause) = (Instant::now(), RETRY.0);
        }
        if !kept.waiting.is_empty() && Instant::now() >= retry_at {
            notices.send_all(&config, &mut kept).await;
            (retry_at, pause) = (Instant::now() + pause, RETRY.1.min(pause * 2));
        }
    }
}

impl Notices {
    fn restored(&self) -> Kept {
        let kept = self.store.get(Table::Daemon, TOLD).ok().flatten();
        kept.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    async fn keep(&self, kept: &Kept) {
        let change = Change { table: Table::Daemon, key: TOLD.to_vec(), value: serde_json::to_vec(kept).ok() };
        let store = Arc::clone(&self.store);
        // Failures are not logged here: `state` logs failed writes.
        let _ = tokio::task::spawn_blocking(move || store.commit(&[change])).await;
    }

    fn look(&self, watcher: &mut Watcher) -> Vec<Letter> {
        let (app, now) = (&self.app, self.app.now());
        let due = watcher.look(&self.snapshot(), now);
        let mut letters: Vec<Letter> = due.iter().map(|notice| Letter::of(notice, now)).collect();
        if watcher.digest_is_due(now) {
            letters.push(Letter::digest(&Report::of(app, &self.listeners.load()), now));
        }
        letters
    }

    fn snapshot(&self) -> Snapshot {
        let app = &self.app;
        let (surges, limited) = {
            let memory = app.memory();
            (memory.surges.in_surge().map(str::to_owned).collect(), memory.guesses.limited())
        };
        let all = self.listeners.load();
        let listeners = all.iter();
        let certificate = |listener: &Arc<ProxyListener>| {
            Some((listener.listener.listen.to_string(), listener.acceptor.as_ref()?.expires()?))
        };
        let gauges = &app.metrics.gauges;
        Snapshot {
            ramps: states(app),
            surges,
            limited,
            ring_is_bad: gauges.ring_loaded.get() == 0,
            state_is_bad: gauges.state_written.get() == 0,
            down: listeners
                .clone()
                .flat_map(|it| it.all_hops())
                .flat_map(NextHops::down)
                .map(ToString::to_string)
                .collect(),
            certificates: listeners.filter_map(certificate).collect(),
            key_due: signing_key(app).map(|(_, due)| due),
        }
    }

    /// Sends what waits, each way until the first failure: a server that does not answer costs one timeout.
    async fn send_all(&self, config: &Notify, kept: &mut Kept) {
        let (now, mut mail_works, mut webhook_works) = (self.app.now().0, true, true);
        for n in 0..kept.waiting.len() {
            let Some(notice) = kept.waiting.get_mut(n) else { break };
            let before = notice.clone();
            if notice.by_webhook && webhook_works {
                webhook_works = self.send_to_webhook(config, &notice.letter).await;
                notice.by_webhook = !webhook_works;
            }
            if notice.by_mail && mail_works {
                mail_works = self.send_by_mail(config, &notice.letter).await;
                notice.by_mail = !mail_works;
            }
            if *notice != before {
                self.keep(kept).await;
            }
        }
        let count = kept.waiting.len();
        kept.waiting.retain(|notice| (notice.by_mail || notice.by_webhook) && now - notice.since < GIVE_UP);
        if kept.waiting.len() < count {
            self.keep(kept).await;
        }
        // One that is refused must not stand before the others for ever.
        if !kept.waiting.is_empty() {
            kept.waiting.rotate_left(1);
        }
    }

    async fn send_to_webhook(&self, config: &Notify, letter: &Letter) -> bool {
        let (event, title, sent) = (letter.event(), letter.title(), self.request(config, letter).await);
        match &sent {
            Ok(()) => info!(event, title, "notice sent to the webhook"),
            Err(error) => warn!(event, title, error, "a notice cannot be sent to the webhook"),
        }
        sent.is_ok()
    }

    async fn send_by_mail(&self, config: &Notify, letter: &Letter) -> bool {
        let (event, title, sent) = (letter.event(), letter.title(), self.mail(config, letter).await);
        match &sent {
            Ok(refused) => {
                info!(event, title, "notice sent by mail");
                for error in refused {
                    warn!(event, title, error, "a notice did not reach a recipient");
                }
            }
            Err(error) => warn!(event, title, error, "a notice cannot be sent by mail"),
        }
        sent.is_ok()
    }

    async fn mail(&self, config: &Notify, letter: &Letter) -> Result<Vec<String>, String> {
        let host = host_name();
        let from = config
            .mail_from
            .clone()
            .or_else(|| self.postmaster())
            .ok_or("notify.mail_from is needed: there is no local domain")?;
        let to: Vec<String> = config.mail_to.iter().map(ToString::to_string).collect();
        let message = letter.mail(&self.signed(&from), from.as_str(), &to, &host);
        self.submit(config, &host, &message).await
    }

    /// Sends a message to the next hop that the config names, or that of the first outbound listener, or the mail server
    /// of this machine.
    async fn submit(&self, config: &Notify, host: &str, message: &OwnMessage) -> Result<Vec<String>, String> {
        let is_fit =
            |it: &&Arc<ProxyListener>| it.listener.role == Role::Outbound && it.listener.protocol == Protocol::Smtp;
        let first = self.listeners.load().iter().find(is_fit).cloned();
        if let (None, Some(listener)) = (&config.mail_via, first) {
            let tls = listener.connector.as_ref().zip(match listener.listener.hop_tls.mode {
                TlsMode::May => Some(false),
                TlsMode::Require => Some(true),
                TlsMode::Off | TlsMode::Implicit => None,
            });
            return submission::send(listener.hops(NextHopChoice::Main), tls, host, message).await;
        }
        let (name, port) = LOCAL_MTA;
        let endpoint = config.mail_via.clone().unwrap_or_else(|| Endpoint::Tcp { host: name.to_owned(), port });
        let hops = NextHops::new(&[endpoint], None, SendProxy::Off, self.app.config().timeouts.connect);
        submission::send(&hops, None, host, message).await
    }

    fn postmaster(&self) -> Option<Address> {
        let names = self.app.config().policy.domains.local.names();
        let first = names.into_iter().find(|name| !name.starts_with('.') && name != "*")?;
        Address::from_content("postmaster", &first).ok()
    }

    /// The envelope sender: signed as all mail of this site is.
    fn signed(&self, from: &Address) -> String {
        let (ring, config) = (self.app.ring.load(), self.app.config());
        let rules = Rules::new(&config.policy, &ring, self.app.now());
        let outbound = rules.outbound(None, &ReversePath::Mailbox(from.clone()), None);
        outbound.signed().map_or(from, |signed| signed.address()).to_string()
    }

    async fn request(&self, config: &Notify, letter: &Letter) -> Result<(), String> {
        let Some(url) = config.webhook.clone() else { return Ok(()) };
        let body = letter.json(&host_name());
        let sent = tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
            agent.post(&url).content_type("application/json").send(body).map(drop).map_err(|error| error.to_string())
        });
        sent.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}
