//! Over HTTP, for load balancers, Prometheus and people: `/healthz`, `/readyz`, `/metrics`, `/observed`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::warn;

use super::brief::Brief;
use crate::drive::listener::Bound;
use crate::drive::shared::{Door, Shared};
use crate::drive::stats::DomainLabels;
use crate::envelope::policy::InboundMode;
use crate::envelope::rules::{Ramp, Rules};
use crate::state::ring::rfc3339;
use crate::wire::smtp::session::Target;

#[derive(Clone)]
struct Site {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    doors: Arc<[Arc<Door>]>,
    draining: watch::Receiver<bool>,
}

/// Serves for ever.
pub(super) async fn serve(bound: Bound, shared: Arc<Shared>, doors: Arc<[Arc<Door>]>, draining: watch::Receiver<bool>) {
    let registry = Arc::new(shared.stats.registry());
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/observed", get(observed))
        .with_state(Site { shared, registry, doors, draining });
    let served = async {
        let listener = TcpListener::from_std(bound.into_std())?;
        axum::serve(Brief::new(listener), router).await
    };
    if let Err(error) = served.await {
        warn!(%error, "the status listener has failed");
    }
}

/// Whether mail may be sent here: not while stopping, and not while every next hop of a listener is down.
async fn readyz(State(site): State<Site>) -> impl IntoResponse {
    let draining = *site.draining.borrow();
    let down: Vec<String> = site
        .doors
        .iter()
        .flat_map(|door| door.all_hops())
        .flat_map(|hops| hops.down())
        .map(ToString::to_string)
        .collect();
    // Those of single domains are shown, and are no reason to send all mail elsewhere.
    let reachable = site.doors.iter().all(|door| door.hops(Target::Main).is_up());
    let ready = !draining && reachable;
    let body = serde_json::json!({ "ready": ready, "draining": draining, "next_hops_down": down });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// What has happened, for Prometheus.
async fn metrics(State(site): State<Site>) -> impl IntoResponse {
    look_up(&site.shared);
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &site.registry);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// Fills in the numbers that are kept elsewhere.
fn look_up(shared: &Shared) {
    use std::sync::atomic::Ordering;

    let asked = &shared.stats.asked;
    asked.held.set(i64::try_from(shared.held()).unwrap_or(i64::MAX));
    let ring = shared.ring.load();
    let policy = &shared.config.policy;
    let rules = Rules { policy, ring: &ring, now: shared.now() };
    let names = policy.domains.local.names();
    for name in &names {
        let domain = if name.starts_with('.') { format!("x{name}") } else { name.clone() };
        let enforcing = match policy.inbound.mode {
            InboundMode::Observe => false,
            InboundMode::Enforce => true,
            InboundMode::Ramp => rules.ramp(&domain) == Ramp::Enforcing,
        };
        asked.enforcing.get_or_create(&DomainLabels { domain: name.clone() }).set(enforcing.into());
    }
    let mut memory = shared.memory();
    memory.surges.tick(shared.now());
    for flip in memory.surges.take_flips() {
        crate::drive::log_flip(&flip);
    }
    for name in names {
        let pressed = memory.surges.pressed().any(|domain| domain == name);
        asked.reject_at_rcpt.get_or_create(&DomainLabels { domain: name }).set(pressed.into());
    }
    let guesses = &memory.guesses;
    asked.guesses.inner().store(guesses.seen(), Ordering::Relaxed);
    asked.guesses_limited.inner().store(guesses.limited(), Ordering::Relaxed);
    asked.forgery_chance.set(guesses.chance_of_one());
    asked.tags_counted.set(i64::try_from(memory.replay.len()).unwrap_or(i64::MAX));
}

/// What enforcing would have refused so far, for `check` and people.
async fn observed(State(site): State<Site>) -> impl IntoResponse {
    let shared = &site.shared;
    let (guesses, chance, surges) = {
        let memory = shared.memory();
        let surges: Vec<String> = memory.surges.pressed().map(str::to_owned).collect();
        (memory.guesses.seen(), memory.guesses.chance_of_one(), surges)
    };
    let observed = shared.stats.observed().clone();
    let body = serde_json::json!({
        "since": rfc3339(shared.started),
        "would_refuse": observed.reasons.iter().collect::<Vec<_>>(),
        "genuine": observed.genuine,
        "rescued": shared.stats.rescued.get(),
        "networks": observed.networks.first(20),
        "unsigned_paths": observed.paths.first(20),
        "surges": surges,
        "guesses": guesses,
        "forgery_chance": chance,
    });
    ([(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}
