//! Fills in the metrics that are kept elsewhere, when they are read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ramp::states;
use crate::drive::app_state::AppState;
use crate::drive::gauges::{DomainLabels, HopLabels, ListenerLabels, RampLabels};
use crate::drive::next_hops::NextHops;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::tls::Acceptor;
use crate::envelope::rules::{Ramp, Rules, Waiting};
use crate::envelope::site_policy::InboundMode;
use crate::envelope::time::Timestamp;

/// Age of a signing key from which on it should be rotated, in seconds: a year.
pub(super) const OLD_KEY: i64 = 365 * 86_400;

/// Updates metrics that are kept elsewhere.
pub(super) fn look_up(app: &AppState, proxy_listeners: &[Arc<ProxyListener>]) {
    let held = i64::try_from(app.hold_budget.load().taken()).unwrap_or(i64::MAX);
    app.metrics.gauges.held.set(held);
    ramps(app);
    memory(app);
    listeners(app, proxy_listeners);
    if let Some((since, due)) = signing_key(app) {
        app.metrics.gauges.key_since.set(since.0);
        app.metrics.gauges.key_due.set(due.0);
    }
}

/// Since when the key has signed that signs, and when it should be rotated.
pub(super) fn signing_key(app: &AppState) -> Option<(Timestamp, Timestamp)> {
    let ring = app.ring.load();
    let key = ring.own_signer()?;
    let since = key.signed_from.unwrap_or(key.created);
    Some((since, Timestamp(since.0.saturating_add(OLD_KEY))))
}

fn ramps(app: &AppState) {
    let gauges = &app.metrics.gauges;
    let (ring, ramps, config) = (app.ring.load(), app.ramps.load(), app.config());
    let policy = &config.policy;
    let rules = Rules::new(policy, &ring, app.now()).with_ramps(&ramps);
    // Domains and states change, and what has ended must not stay.
    gauges.enforcing.clear();
    for name in policy.domains.local.names() {
        let domain = if name.starts_with('.') { format!("x{name}") } else { name.clone() };
        let enforcing = match policy.inbound.mode {
            InboundMode::Observe => false,
            InboundMode::Enforce => true,
            InboundMode::Ramp => rules.ramp(&domain) == Ramp::Enforcing,
        };
        gauges.enforcing.get_or_create(&DomainLabels { domain: name }).set(enforcing.into());
    }
    gauges.ramp.clear();
    gauges.ramp_end.clear();
    for (domain, ramp) in states(app) {
        if let Ramp::Waiting(Waiting { until: Some(until), .. }) = &ramp {
            gauges.ramp_end.get_or_create(&DomainLabels { domain: domain.clone() }).set(until.0);
        }
        gauges.ramp.get_or_create(&RampLabels { domain, state: state_of(&ramp) }).set(1);
    }
}

/// The word for a ramp in metrics and JSON.
pub(super) fn state_of(ramp: &Ramp) -> &'static str {
    match ramp {
        Ramp::NotStarted => "not-started",
        Ramp::Waiting(Waiting { hold: Some(_), .. }) => "held",
        Ramp::Waiting(_) => "waiting",
        Ramp::Observed => "observed",
        Ramp::Paused(_) => "paused",
        Ramp::Enforcing => "enforced",
    }
}

fn memory(app: &AppState) {
    let gauges = &app.metrics.gauges;
    let names = app.config().policy.domains.local.names();
    let mut memory = app.memory();
    memory.surges.tick(app.now());
    memory.guesses.forget_old_guesses(app.now());
    for flip in memory.surges.take_flips() {
        crate::drive::log_flip(&flip);
    }
    gauges.reject_at_rcpt.clear();
    for domain in names {
        let in_surge = memory.surges.in_surge().any(|other| other == domain);
        gauges.reject_at_rcpt.get_or_create(&DomainLabels { domain }).set(in_surge.into());
    }
    let guesses = &memory.guesses;
    gauges.guesses.inner().store(guesses.seen(), Ordering::Relaxed);
    gauges.guesses_limited.inner().store(guesses.limited(), Ordering::Relaxed);
    gauges.forgery_chance.set(guesses.chance_of_one());
    gauges.tags_counted.set(i64::try_from(memory.replay.len()).unwrap_or(i64::MAX));
    let networks = memory.harvests.networks(app.config().limits.unknown_recipients_per_hour, app.now());
    gauges.harvest_networks.set(i64::try_from(networks).unwrap_or(i64::MAX));
    drop(memory);
    gauges.catch_all.clear();
    for (domain, takes_all) in app.catch_alls() {
        gauges.catch_all.get_or_create(&DomainLabels { domain }).set(takes_all.into());
    }
}

fn listeners(app: &AppState, proxy_listeners: &[Arc<ProxyListener>]) {
    let gauges = &app.metrics.gauges;
    // Listeners may have gone.
    gauges.hop_up.clear();
    gauges.hop_refusing.clear();
    gauges.certificate_expiry.clear();
    for proxy_listener in proxy_listeners {
        let listener = proxy_listener.listener.listen.to_string();
        for (endpoint, is_up, is_refusing) in proxy_listener.all_hops().flat_map(NextHops::states) {
            let labels = HopLabels { listener: listener.clone(), next_hop: endpoint.to_string() };
            gauges.hop_up.get_or_create(&labels).set(is_up.into());
            gauges.hop_refusing.get_or_create(&labels).set(is_refusing.into());
        }
        if let Some(expires) = proxy_listener.acceptor.as_ref().and_then(Acceptor::expires) {
            gauges.certificate_expiry.get_or_create(&ListenerLabels { listener }).set(expires.0);
        }
    }
}
