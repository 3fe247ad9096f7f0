//! What a running daemon says of itself: the answer to `countersign status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attention::attention;
use super::parts::{DomainRamp, Parts};
use super::ramp::states;
use super::ramp_words::describe;
use crate::config::Config;
use crate::drive::app_state::AppState;
use crate::drive::history::{HOURS, Hour, number, sum_of};
use crate::drive::metrics::{AliasLabels, SenderLabels};
use crate::drive::proxy_listener::ProxyListener;
use crate::envelope::rules::OutboundReason;
use crate::state::time_format::rfc3339;

/// The state of a daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of the program.
    pub version: String,
    /// The id of its process.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub since: String,
    /// Seconds since then.
    pub uptime: i64,
    /// Its config file.
    pub config: String,
    /// When that was read (RFC 3339).
    #[serde(default)]
    pub config_read: String,
    /// Keys in which the config file differs from what runs: to be put in force, and to take effect after a restart.
    pub config_changes: (Vec<String>, Vec<String>),
    /// Why the config file cannot be read now, in words.
    #[serde(default)]
    pub config_error: Option<String>,
    /// `ramp`, `observe` or `enforce`.
    pub mode: String,
    /// The ramp of each domain, in words.
    pub ramps: Vec<(String, String)>,
    /// The same, for programs.
    #[serde(default)]
    pub domains: Vec<DomainRamp>,
    /// Listeners: role, address, the main next hop, and whether it is up.
    pub listeners: Vec<(String, String, String, bool)>,
    /// Open sessions.
    pub sessions: i64,
    /// The key that signs.
    pub signing_key: String,
    /// Local senders that were signed in the last 24 hours.
    #[serde(default)]
    pub signed: u64,
    /// Foreign senders that were rewritten in the last 24 hours.
    #[serde(default)]
    pub rewritten: u64,
    /// Bounces to a valid tag in the last 24 hours.
    #[serde(default)]
    pub genuine: u64,
    /// Bounces without a tag that evidence has rescued in the last 24 hours.
    pub rescued: u64,
    /// Refused recipients and messages of the last 24 hours, by reason.
    pub refused: Vec<(String, u64)>,
    /// The same by client network, the most frequent first.
    pub refused_networks: Vec<(String, u64)>,
    /// The same by recipient domain, the most frequent first.
    pub refused_domains: Vec<(String, u64)>,
    /// The same in each of the last 24 hours, the current one last.
    pub refused_by_hour: Vec<u64>,
    /// What enforcing would have refused in the last 7 days, by reason.
    pub would_refuse: Vec<(String, u64)>,
    /// What became of mail in the last 7 days.
    #[serde(default)]
    pub week: Figures,
    /// Aliases of long senders: `stored`, `not-stored`, `found` and `unknown`, and senders that left `unsigned` because they
    /// were too long; without those that are 0.
    #[serde(default)]
    pub aliases: Vec<(String, u64)>,
    /// The chance that one of all guessed tags was valid, 0 to 1.
    pub forgery_chance: f64,
    /// Domains that take mail for users that do not exist.
    #[serde(default)]
    pub catch_all: Vec<String>,
    /// Client networks that have found out about too many unknown recipients in this hour.
    #[serde(default)]
    pub harvest_networks: usize,
    /// The name of this machine.
    #[serde(default)]
    pub host: String,
    /// Keys, next hops, certificates and the state file.
    #[serde(default)]
    pub parts: Parts,
    /// Domains in a surge of false bounces.
    #[serde(default)]
    pub surges: Vec<String>,
    /// What an administrator should look at, in words.
    pub attention: Vec<String>,
}

/// What became of mail in some time, the most frequent first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Local senders that were signed.
    pub signed: u64,
    /// Foreign senders that were rewritten.
    pub rewritten: u64,
    /// Bounces to a valid tag.
    pub genuine: u64,
    /// Bounces without a tag that evidence has rescued.
    pub rescued: u64,
    /// Other messages without a sender that were inspected and delivered.
    #[serde(default)]
    pub replies: u64,
    /// Refused recipients and messages, by reason.
    pub refused: Vec<(String, u64)>,
    /// The same by client network.
    pub networks: Vec<(String, u64)>,
    /// The same by recipient domain.
    pub domains: Vec<(String, u64)>,
    /// What enforcing would have refused, by reason.
    pub observed: Vec<(String, u64)>,
}

impl Figures {
    fn of(sum: &Hour) -> Self {
        Self {
            signed: sum.counts.signed,
            rewritten: sum.counts.rewritten,
            genuine: sum.counts.genuine,
            rescued: sum.counts.rescued,
            replies: sum.counts.replies,
            refused: listed(&sum.counts.refused),
            networks: sum.networks.first(20),
            domains: sum.domains.first(20),
            observed: listed(&sum.observed),
        }
    }
}

/// Reasons and their counts, the most frequent first.
fn listed(reasons: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut listed: Vec<_> = reasons.iter().map(|(reason, count)| (reason.clone(), *count)).collect();
    listed.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    listed
}

impl Report {
    /// The state of this daemon.
    pub(crate) fn of(app: &AppState, proxy_listeners: &[Arc<ProxyListener>]) -> Self {
        let now = app.now();
        let limit = app.config().limits.unknown_recipients_per_hour;
        let (chance, surges, harvesters) = {
            let mut memory = app.memory();
            memory.guesses.forget_old_guesses(app.now());
            let surges: Vec<String> = memory.surges.in_surge().map(str::to_owned).collect();
            (memory.guesses.chance_of_one(), surges, memory.harvests.networks(limit, now))
        };
        let this_hour = number(now);
        let hours = app.history().hours(this_hour - HOURS + 1, this_hour);
        let first_of_day = hours.partition_point(|(hour, _)| *hour <= this_hour - 24);
        let (day, week) = (sum_of(hours.get(first_of_day..).unwrap_or_default()), sum_of(&hours));
        let refused_in =
            |asked: i64| hours.iter().find(|(hour, _)| *hour == asked).map_or(0, |(_, hour)| hour.counts.all_refused());
        let by_hour = (this_hour - 23..=this_hour).map(refused_in).collect();
        let ring = app.ring.load();
        let ramps = states(app);
        let newer = Config::load(&app.config().path);
        let changes = newer.as_ref().map(|newer| app.config().changes_to(newer)).unwrap_or_default();
        let mut attention = attention(app, proxy_listeners, &ramps, &surges, chance);
        let catch_all: Vec<String> =
            app.catch_alls().into_iter().filter(|(_, takes_all)| *takes_all).map(|(domain, _)| domain).collect();
        attention.extend(catch_all.iter().map(|domain| {
            format!("{domain} accepts mail for unknown recipients, and may bounce it to forged senders: see inbound.recipients")
        }));
        match &newer {
            Err(error) => attention.push(format!("the config file has an error: {error}")),
            Ok(_) if !changes.applied.is_empty() => {
                attention
                    .push(format!("the config file has changed ({}): countersign reload", changes.applied.join(", ")));
            }
            Ok(_) if !changes.need_restart.is_empty() => attention
                .push(format!("the config file has changed ({}): restart the daemon", changes.need_restart.join(", "))),
            Ok(_) => {}
        }
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: rfc3339(app.started),
            uptime: now.0.saturating_sub(app.started.0),
            config: std::path::absolute(&app.config().path).unwrap_or_default().display().to_string(),
            config_read: rfc3339(app.config_read()),
            config_changes: (changes.applied, changes.need_restart),
            config_error: newer.as_ref().err().map(ToString::to_string),
            mode: app.config().policy.inbound.mode.name().to_owned(),
            ramps: ramps.iter().map(|(name, ramp)| (name.clone(), describe(ramp, name, true))).collect(),
            domains: ramps.iter().map(|(name, ramp)| DomainRamp::of(name, ramp, describe(ramp, name, true))).collect(),
            listeners: proxy_listeners.iter().map(|listener| line_of(listener)).collect(),
            sessions: app.metrics.sessions.get(),
            signing_key: ring.own_signer().map(|key| key.id.to_string()).unwrap_or_default(),
            signed: day.counts.signed,
            rewritten: day.counts.rewritten,
            genuine: day.counts.genuine,
            rescued: day.counts.rescued,
            refused: listed(&day.counts.refused),
            refused_networks: day.networks.first(20),
            refused_domains: day.domains.first(20),
            refused_by_hour: by_hour,
            would_refuse: listed(&week.observed),
            week: Figures::of(&week),
            aliases: aliases(app),
            forgery_chance: chance,
            catch_all,
            harvest_networks: harvesters,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            parts: Parts::of(app, proxy_listeners),
            surges,
            attention,
        }
    }
}

fn aliases(app: &AppState) -> Vec<(String, u64)> {
    let counted = ["stored", "not-stored", "found", "unknown"]
        .map(|result| (result.to_owned(), app.metrics.aliases.get_or_create(&AliasLabels { result }).get()));
    let labels = SenderLabels { action: "pass", reason: OutboundReason::Overflow.name() };
    let unsigned = ("unsigned".to_owned(), app.metrics.senders.get_or_create(&labels).get());
    counted.into_iter().chain([unsigned]).filter(|(_, count)| *count > 0).collect()
}

fn line_of(listener: &ProxyListener) -> (String, String, String, bool) {
    let hops = listener.hops(crate::wire::message::NextHopChoice::Main);
    let next = listener.listener.next_hop.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    (listener.listener.role.name().to_owned(), listener.listener.listen.to_string(), next, hops.is_up())
}
