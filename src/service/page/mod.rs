//! The status page: what an administrator looks at first, at `/` of the status listener. It is complete without scripts
//! and needs no other file.

mod access;
mod charts;
mod decisions;
mod figures;
mod overview;
mod when;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use axum::extract::{Form, Path, Query as UrlQuery, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use data_encoding::BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tracing::warn;

use self::access::Reader;
use self::decisions::Answer;
use self::figures::{Figures, Query, View};
use self::overview::Health;
use super::decision_log;
use super::listeners::SharedListeners;
use super::pause::pause;
use super::report::Report;
use crate::drive::app_state::AppState;
use crate::envelope::time::Timestamp;
use crate::html::STYLE;
use crate::state::store::Store;

const SCRIPT: &str = include_str!("page.js");
const OWN_STYLE: &str = include_str!("page.css");
/// The icon of the page: a tick.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='none' stroke='%231a7f4b' stroke-width='3' d='M2 9l4 4 8-10'/%3E%3C/svg%3E";
/// Decisions on the page, and of a search.
const LATEST: usize = 15;
const MOST_FOUND: usize = 50;
/// A header of requests by which the page renews itself.
const RENEWS: &str = "x-countersign-renews";
/// The most octets of a search.
const MOST_ASKED: usize = 320;

/// Only what the page itself contains is run and shown. The hashes are those of its style and script.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        hash(&ALL_STYLE),
        hash(SCRIPT)
    )
});

/// The style, without the blanks that only people need.
static ALL_STYLE: LazyLock<String> =
    LazyLock::new(|| STYLE.lines().chain(OWN_STYLE.lines()).map(str::trim).collect::<Vec<_>>().join("\n"));

/// What the page shows.
#[derive(Clone)]
pub(super) struct Page {
    /// The daemon.
    pub app: Arc<AppState>,
    /// Its listeners.
    pub listeners: SharedListeners,
    /// Its store.
    pub store: Arc<dyn Store>,
    /// The address of the status listener.
    pub listens: Option<IpAddr>,
    /// Who may make a page now. Those who are gone by then take no time.
    pub turns: Arc<Semaphore>,
}

/// The number of pages that are made at a time: a search reads the whole list of decisions, and mail goes first.
pub(super) const AT_A_TIME: usize = 1;

/// The routes of the page.
pub(super) fn router(page: Page) -> Router {
    let token = access::place(&page.app.config().status_token);
    if let Err(error) = access::make(&token).and_then(|()| access::read(&token)) {
        warn!(
            error,
            "no token for the status page: nothing can be changed by it, and it is shown on this machine only"
        );
    }
    Router::new()
        .route("/", get(overview))
        .route("/why/{number}", get(why))
        .route("/full", get(full))
        .route("/status.json", get(as_json))
        .route("/observe", post(observe))
        .with_state(page)
}

/// What the reader of a request may see.
///
/// # Errors
/// The answer to a reader who may see nothing.
fn reader(page: &Page, headers: &HeaderMap) -> Result<Reader, Box<Response>> {
    // A page of another site may lead here, and not load anything from here.
    let is = |name, value: &str| headers.get(name).is_some_and(|found| found == value);
    if is("sec-fetch-site", "cross-site") && !is("sec-fetch-mode", "navigate") {
        return Err(Box::new(failed(StatusCode::FORBIDDEN, "This page is not for other sites.")));
    }
    let config = page.app.config();
    match access::reader(&config.status_token, page.listens, headers) {
        Ok(Reader::Refused) => Err(Box::new(challenge(!headers.contains_key(RENEWS)))),
        Ok(reader) => Ok(reader),
        Err(why) => {
            Err(Box::new(failed(StatusCode::SERVICE_UNAVAILABLE, &format!("There is no token to compare with: {why}"))))
        }
    }
}

/// Asks for the token. `asks_user`: the browser is to ask for it, and not only a script of the page.
fn challenge(asks_user: bool) -> Response {
    let text = "The token is the password; the name does not matter. It is in the file that status.token_file names.";
    let mut response = failed(StatusCode::UNAUTHORIZED, text);
    if asks_user {
        let scheme = HeaderValue::from_static("Basic realm=\"Countersign\", charset=\"UTF-8\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

fn failed(code: StatusCode, text: &str) -> Response {
    let body = html! { main { section { h1 { (code) } p { (text) } p { a href="/" { "← status" } } } } };
    (code, headers(), document("Countersign", &body)).into_response()
}

fn headers() -> [(axum::http::HeaderName, String); 6] {
    [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (CACHE_CONTROL, "no-store".to_owned()),
        // With "no-referrer", a browser would hide where the form of this page comes from.
        (REFERRER_POLICY, "same-origin".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (X_FRAME_OPTIONS, "DENY".to_owned()),
    ]
}

fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href=(ICON);
                title { (title) }
                style { (PreEscaped(&*ALL_STYLE)) }
            }
            body.status { (body) script { (PreEscaped(SCRIPT)) } }
        }
    };
    page.into_string()
}

/// What takes a moment is not done on the thread that serves other requests, and not by many at a time.
async fn rendered(turns: &Arc<Semaphore>, make: impl FnOnce() -> Response + Send + 'static) -> Response {
    let Ok(turn) = Arc::clone(turns).acquire_owned().await else {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "The daemon stops.");
    };
    let made = move || {
        let made = make();
        drop(turn);
        made
    };
    tokio::task::spawn_blocking(made)
        .await
        .unwrap_or_else(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

async fn overview(State(page): State<Page>, UrlQuery(query): UrlQuery<Query>, request: HeaderMap) -> Response {
    match reader(&page, &request) {
        Ok(reader) => {
            let turns = Arc::clone(&page.turns);
            rendered(&turns, move || (headers(), overview_of(&page, &query, reader)).into_response()).await
        }
        Err(refused) => *refused,
    }
}

fn overview_of(page: &Page, query: &Query, reader: Reader) -> String {
    let now = page.app.now();
    let report = Report::of(&page.app, &page.listeners.load());
    let view = View::of(query);
    let (first, last) = Figures::hours(view, now);
    let hours = page.app.history().hours(first, last);
    let figures = Figures::of(&hours, view, now);
    let asked = query.q.as_deref().unwrap_or_default().trim();
    let (found, is_cut) = found(&*page.store, asked);
    let is_empty = found.as_ref().is_ok_and(Vec::is_empty);
    let oldest = if is_empty { decision_log::oldest(&*page.store) } else { None };
    let answer = Answer { asked, found: &found, is_cut, oldest, detail: page.app.config().state.addresses };
    let rest = if asked.is_empty() { String::new() } else { format!("&q={}", for_link(asked)) };
    let body = html! {
        (overview::state(&report, now))
        main {
            (overview::domains(&report))
            (charts::section(&figures, view, &rest))
            div.pair { (overview::who(&figures, &report, reader)) (overview::parts(&report, now)) }
            (decisions::section(&answer, reader, now, view))
        }
        (footer(page, &report, reader))
    };
    document(&format!("{} · {}", Health::of(&report).word(), report.host), &body)
}

fn found(store: &dyn Store, asked: &str) -> (Result<Vec<decision_log::Numbered>, String>, bool) {
    if asked.is_empty() {
        return (decision_log::latest(store, LATEST), false);
    }
    if asked.len() > MOST_ASKED {
        return (Err(format!("This is longer than {MOST_ASKED} octets.")), false);
    }
    let mut found = decision_log::search(store, asked, MOST_FOUND + 1);
    let is_cut = found.as_ref().is_ok_and(|list| list.len() > MOST_FOUND);
    if let Ok(list) = &mut found {
        list.truncate(MOST_FOUND);
    }
    (found, is_cut)
}

/// A text as a part of a link (RFC 3986 section 2.1).
fn for_link(text: &str) -> String {
    let octet = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(octet).collect()
}

fn footer(page: &Page, report: &Report, reader: Reader) -> Markup {
    let config = page.app.config();
    let is_paused = page.app.ramps.load().paused_until.is_some_and(|until| page.app.now() < until);
    html! {
        footer {
            form method="post" action="/observe" {
                @if reader != Reader::WithToken {
                    // For programs that keep passwords.
                    input type="text" name="user" value="countersign" autocomplete="username" hidden;
                    label for="token" { "Token" }
                    input #token name="token" type="password" required size="16" autocomplete="current-password" aria-describedby="token-help";
                }
                @if is_paused { button name="time" value="off" { "Stop observing only" } }
                @else { button name="time" value="24h" { "Only observe for 24 hours" } }
            }
            p #token-help .quiet {
                "False bounces to all domains are then delivered with a mark. The same in a terminal: "
                code { "countersign observe " (if is_paused { "off" } else { "24h" }) }
                @if reader != Reader::WithToken {
                    ". The token is in " code { (access::place(&config.status_token).display()) }
                    "; with it, " a href="/full" { "whole addresses" } " are shown."
                }
            }
            p.quiet {
                a href="/status.json" { "as JSON" } " · " a href="/metrics" { "metrics" } " · " a href="/readyz" { "ready?" } " · "
                "in a terminal: " code { "countersign status" } ", " code { "countersign trace ADDRESS" } " · config " code { (report.config) }
            }
        }
    }
}

async fn why(State(page): State<Page>, Path(number): Path<u64>, request: HeaderMap) -> Response {
    let reader = match reader(&page, &request) {
        Ok(reader) => reader,
        Err(refused) => return *refused,
    };
    let turns = Arc::clone(&page.turns);
    rendered(&turns, move || match decision_log::one(&*page.store, number) {
        Ok(Some(decision)) => {
            let body = html! { main { h1.hidden { "Why" } (decisions::why(&decision, reader)) } };
            (headers(), document("Why · Countersign", &body)).into_response()
        }
        Ok(None) => failed(StatusCode::NOT_FOUND, "This decision is not kept any more."),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    })
    .await
}

/// Lets a browser ask for the token, and goes back to the page.
async fn full(State(page): State<Page>, request: HeaderMap) -> Response {
    match reader(&page, &request) {
        Ok(Reader::WithToken) => (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response(),
        Ok(Reader::Anyone | Reader::Refused) => challenge(true),
        Err(refused) => *refused,
    }
}

async fn as_json(State(page): State<Page>, request: HeaderMap) -> Response {
    match reader(&page, &request) {
        Ok(_) => {
            let turns = Arc::clone(&page.turns);
            rendered(&turns, move || Json(Report::of(&page.app, &page.listeners.load())).into_response()).await
        }
        Err(refused) => *refused,
    }
}

/// What the form at the foot of the page sends.
#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    token: String,
    time: String,
}

async fn observe(State(page): State<Page>, request: HeaderMap, Form(change): Form<Change>) -> Response {
    let reader = match reader(&page, &request) {
        Ok(reader) => reader,
        Err(refused) => return *refused,
    };
    if !access::is_from_here(&request) {
        return failed(StatusCode::FORBIDDEN, "This form is not of this page.");
    }
    let config = page.app.config();
    let knows =
        if reader == Reader::WithToken { Ok(true) } else { access::is_token(&config.status_token, &change.token) };
    match knows {
        Ok(true) => {}
        Ok(false) => {
            return failed(
                StatusCode::FORBIDDEN,
                &format!("This is not the token in {}.", access::place(&config.status_token).display()),
            );
        }
        Err(why) => {
            return failed(StatusCode::SERVICE_UNAVAILABLE, &format!("There is no token to compare with: {why}"));
        }
    }
    let until = match change.time.as_str() {
        "off" => None,
        "24h" => Some(Timestamp(page.app.now().0 + 86_400)),
        _ => return failed(StatusCode::BAD_REQUEST, "The time is 24h or off."),
    };
    match pause(&page.app, until) {
        Ok(_) => (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response(),
        Err(why) => failed(StatusCode::BAD_REQUEST, &why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_searched_for_stays_in_links() {
        assert_eq!(for_link("ann@our.example"), "ann@our.example");
        assert_eq!(for_link("<a&b=\"c\">"), "%3Ca%26b%3D%22c%22%3E");
    }

    #[test]
    fn the_policy_allows_the_style_and_the_script_of_the_page_only() {
        assert!(!POLICY.contains("unsafe") && POLICY.matches("sha256-").count() == 2, "{}", *POLICY);
        for forbidden in ["<!--", "</script", "</style"] {
            assert!(!SCRIPT.contains(forbidden) && !ALL_STYLE.contains(forbidden), "{forbidden}");
        }
    }
}
