//! Health and readiness over HTTP, for load balancers and people: `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::warn;

use crate::drive::listener::Bound;
use crate::drive::shared::Door;
use crate::wire::smtp::session::Target;

#[derive(Clone)]
struct Site {
    doors: Arc<[Arc<Door>]>,
    draining: watch::Receiver<bool>,
}

/// Serves for ever.
pub(super) async fn serve(bound: Bound, doors: Arc<[Arc<Door>]>, draining: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Site { doors, draining });
    let served = async {
        let listener = TcpListener::from_std(bound.into_std())?;
        axum::serve(listener, router).await
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
