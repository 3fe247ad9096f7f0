//! The HTTP status listener, for load balancers, Prometheus and people: `/healthz`, `/readyz`, `/metrics`, `/observed`,
//! and the page.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, VIA};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::capped_listener::CappedListener;
use super::gauges;
use super::listeners::SharedListeners;
use super::page::{self, Page};
use super::ramp_words::describe;
use crate::drive::app_state::AppState;
use crate::drive::listener::Bound;
use crate::drive::next_hops::NextHops;
use crate::state::store::Store;
use crate::state::time_format::rfc3339;
use crate::wire::message::NextHopChoice;

/// The most octets of a request's body.
const MAX_BODY: usize = 4096;

#[derive(Clone)]
struct StatusContext {
    app: Arc<AppState>,
    registry: Arc<Registry>,
    listeners: SharedListeners,
    draining: CancellationToken,
}

/// Serves requests, without end.
pub(super) async fn serve(
    bound: Bound,
    app: Arc<AppState>,
    listeners: SharedListeners,
    store: Arc<dyn Store>,
    draining: CancellationToken,
) {
    let registry = Arc::new(app.metrics.registry());
    let page = Page {
        app: Arc::clone(&app),
        listeners: Arc::clone(&listeners),
        store,
        listens: bound.address(),
        turns: Arc::new(Semaphore::new(page::AT_A_TIME)),
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/observed", get(observed))
        .with_state(StatusContext { app: Arc::clone(&app), registry, listeners, draining })
        .merge(page::router(page))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(app, only_known_names));
    let served = async {
        let listener = TcpListener::from_std(bound.into_std())?;
        axum::serve(CappedListener::new(listener), router).await
    };
    if let Err(error) = served.await {
        warn!(%error, "the status listener has failed");
    }
}

/// Whether the daemon is ready for mail: it is not stopping, and each listener has a next hop that is up.
async fn readyz(State(site): State<StatusContext>) -> impl IntoResponse {
    let draining = site.draining.is_cancelled();
    let listeners = site.listeners.load();
    let hops = || listeners.iter().flat_map(|proxy_listener| proxy_listener.all_hops());
    let down: Vec<String> = hops().flat_map(NextHops::down).map(ToString::to_string).collect();
    let refusing = hops().flat_map(NextHops::states).filter(|(_, _, is_refusing)| *is_refusing);
    let refusing: Vec<String> = refusing.map(|(endpoint, ..)| endpoint.to_string()).collect();
    // Next hops of single domains are listed, but do not make the daemon unready for all mail.
    let reachable = listeners.iter().all(|proxy_listener| proxy_listener.hops(NextHopChoice::Main).is_up());
    let ready = !draining && reachable;
    let body = serde_json::json!({ "ready": ready, "draining": draining, "next_hops_down": down,
        "next_hops_refusing": refusing });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// Metrics in OpenMetrics format if the client asks for it, otherwise in the text format of Prometheus.
async fn metrics(State(site): State<StatusContext>, headers: HeaderMap) -> impl IntoResponse {
    gauges::look_up(&site.app, &site.listeners.load());
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &site.registry);
    if asks_for_open_metrics(&headers) {
        ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
    } else {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], plain_metrics(&text))
    }
}

/// Whether a client accepts OpenMetrics. A client that does not name it gets the older format.
fn asks_for_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        is_it && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// Converts OpenMetrics to the Prometheus text format 0.0.4: counters are named with their `_total`, and there is no
/// end mark.
fn plain_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), said) => help = Some((name, said.unwrap_or_default())),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                // Where OpenMetrics has information, the older format has a gauge of 1.
                let (total, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    _ => ("", kind),
                };
                if let Some((_, said)) = help.take_if(|(of, _)| *of == name) {
                    out.push_str(&format!("# HELP {name}{total} {said}\n"));
                }
                out.push_str(&format!("# TYPE {name}{total} {kind}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Refuses requests for unknown host names, against DNS rebinding: a page of `evil.example`, with a name that resolves
/// to this machine, could otherwise read the answers in a browser.
async fn only_known_names(State(app): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    // Browsers speak HTTP/1.1; proxies may not, and say nothing else of themselves.
    if request.version() == Version::HTTP_10 {
        request.headers_mut().insert(VIA, HeaderValue::from_static("1.0 unknown"));
    }
    let host = request.headers().get(HOST).map_or("", |host| host.to_str().unwrap_or("unreadable"));
    let mut names = app.config().status_hosts.clone();
    names.push(rustix::system::uname().nodename().to_string_lossy().into_owned());
    if is_known(host, &names) {
        return next.run(request).await;
    }
    let text =
        format!("This listener is not called {host:?}. Ask it by its address, or add that name to status.hosts.\n");
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Whether a Host header names an address, this machine, or a name in `status.hosts`. HTTP/1.0 requests have no Host
/// header.
fn is_known(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
            _ => "unreadable",
        },
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty()
        || name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(name.trim_end_matches('.')))
}

/// What enforcing would have refused so far, for `check` and people.
async fn observed(State(site): State<StatusContext>) -> impl IntoResponse {
    let app = &site.app;
    let (guesses, chance, surges) = {
        let mut memory = app.memory();
        memory.guesses.forget_old_guesses(app.now());
        let surges: Vec<String> = memory.surges.in_surge().map(str::to_owned).collect();
        (memory.guesses.seen(), memory.guesses.chance_of_one(), surges)
    };
    let observed = app.metrics.observed().clone();
    let states = super::ramp::states(app).into_iter();
    let ramps: Vec<(String, String)> = states
        .map(|(name, ramp)| {
            let words = describe(&ramp, &name, true);
            (name, words)
        })
        .collect();
    let body = serde_json::json!({
        "since": rfc3339(app.started),
        "would_refuse": observed.reasons.iter().collect::<Vec<_>>(),
        "genuine": observed.genuine,
        "rescued": app.metrics.rescued.get(),
        "networks": observed.networks.first(20),
        "unsigned_paths": observed.paths.first(20),
        "unproven": ["unsigned_paths"],
        "ramps": ramps,
        "surges": surges,
        "guesses": guesses,
        "forgery_chance": chance,
    });
    ([(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_this_listener() {
        let names = ["mail.our.example".to_owned()];
        for host in [
            "",
            "127.0.0.1:8025",
            "[::1]:8025",
            "192.0.2.1",
            "LOCALHOST:8025",
            "Mail.Our.Example:8025",
            "mail.our.example.",
        ] {
            assert!(is_known(host, &names), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8025", "127.0.0.1.evil.example", "localhost.evil.example", "our.example"]
        {
            assert!(!is_known(host, &names), "{host}");
        }
    }

    #[test]
    fn open_metrics_only_where_asked_for() {
        let asks = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, value.parse().unwrap());
            asks_for_open_metrics(&headers)
        };
        assert!(asks("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"));
        assert!(!asks("application/openmetrics-text;q=0, text/plain"));
        assert!(!asks("*/*") && !asks("text/plain") && !asks_for_open_metrics(&HeaderMap::new()));
    }

    #[test]
    fn a_counter_has_its_whole_name_in_the_older_format() {
        let open = "# HELP mails Mails.\n# TYPE mails counter\n# UNIT mails things\nmails_total{a=\"b c\"} 3\n# HELP now Now.\n\
            # TYPE now gauge\nnow 1\n# EOF\n";
        let plain = "# HELP mails_total Mails.\n# TYPE mails_total counter\nmails_total{a=\"b c\"} 3\n# HELP now Now.\n\
            # TYPE now gauge\nnow 1\n";
        assert_eq!(plain_metrics(open), plain);
    }
}
