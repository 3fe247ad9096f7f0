//! The parts of a running daemon, for `status --json` and the status page: what each of them does, and since when.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::gauges::OLD_KEY;
use crate::drive::app_state::AppState;
use crate::drive::next_hops::{HopDetails, NextHops};
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::tls::Acceptor;
use crate::envelope::keyring::{Key, KeyState};
use crate::envelope::rules::{Ramp, SignedDays, Waiting};
use crate::envelope::time::Timestamp;
use crate::state::time_format::rfc3339;

/// The parts of a daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Parts {
    /// Sockets by which mail servers ask: protocol and address.
    pub services: Vec<(String, String)>,
    /// Next hops of all listeners.
    pub next_hops: Vec<NextHopState>,
    /// Keys of the ring.
    pub keys: Vec<KeyLife>,
    /// Certificates for clients: the listener, and when it expires (RFC 3339).
    pub certificates: Vec<(String, String)>,
    /// The state file.
    pub state: StateOfFile,
    /// How far the clock was set since the start, in seconds; more than 0: forward.
    pub clock_set: i64,
}

/// A next hop of a listener.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NextHopState {
    /// `outbound` or `inbound`.
    pub role: String,
    /// The listener.
    pub listener: String,
    /// The next hop.
    pub next_hop: String,
    /// Whether it can be reached.
    pub is_up: bool,
    /// Whether it refuses connections in its greeting.
    pub is_refusing: bool,
    /// The time from the connection to its greeting, the last time, in microseconds.
    pub greeting: Option<u64>,
    /// Open connections of sessions to it.
    pub open: usize,
}

/// A key of the ring.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeyLife {
    /// Its id.
    pub id: String,
    /// `next`, `signing`, `verifying` or `retired`.
    pub state: String,
    /// Since when it has signed, or when it was made (RFC 3339).
    pub since: String,
    /// When it should be replaced, while it signs; then, until when its tags are valid (RFC 3339).
    pub until: Option<String>,
}

/// The state file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StateOfFile {
    /// Its path; `None`: everything is in memory.
    pub path: Option<String>,
    /// Its size, in octets.
    pub octets: u64,
    /// Whether it could be written the last time.
    pub is_written: bool,
}

/// The ramp of a domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DomainRamp {
    /// The domain, as in `domains.local`.
    pub domain: String,
    /// `not-started`, `waiting`, `held`, `observed`, `paused` or `enforced`, as in the metric `ramp`.
    pub state: String,
    /// The state in words.
    pub words: String,
    /// Days with signed mail, and how many are needed.
    pub days: Option<(usize, usize)>,
    /// Until when it is observed at least (RFC 3339).
    pub until: Option<String>,
}

impl DomainRamp {
    /// The ramp of this domain.
    pub(super) fn of(domain: &str, ramp: &Ramp, words: String) -> Self {
        let (mut days, mut end) = (None, None);
        if let Ramp::Waiting(Waiting { until, days: counted, .. }) = ramp {
            days = counted.as_ref().map(|SignedDays { signed, needed }| (*signed, *needed));
            end = until.map(rfc3339);
        }
        Self { domain: domain.to_owned(), state: super::gauges::state_of(ramp).to_owned(), words, days, until: end }
    }
}

impl Parts {
    /// The parts of this daemon.
    pub(super) fn of(app: &AppState, listeners: &[Arc<ProxyListener>]) -> Self {
        let config = app.config();
        let services = config.mta_services.iter();
        let services = services.map(|service| (service.protocol.name().to_owned(), service.listen.to_string()));
        let certificates = listeners.iter().filter_map(|listener| {
            let expires = listener.acceptor.as_ref().and_then(Acceptor::expires)?;
            Some((listener.listener.listen.to_string(), rfc3339(expires)))
        });
        Self {
            services: services.collect(),
            next_hops: listeners.iter().flat_map(|listener| next_hops(listener)).collect(),
            keys: keys(app),
            certificates: certificates.collect(),
            state: state(app),
            clock_set: app.clock_set(),
        }
    }
}

fn next_hops(listener: &ProxyListener) -> Vec<NextHopState> {
    let states = listener.all_hops().flat_map(NextHops::details);
    let name = listener.listener.listen.to_string();
    let of = |hop: HopDetails<'_>| NextHopState {
        role: listener.listener.role.name().to_owned(),
        listener: name.clone(),
        next_hop: hop.endpoint.to_string(),
        is_up: hop.is_up,
        is_refusing: hop.is_refusing,
        greeting: hop.greeting.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        open: hop.open,
    };
    states.map(of).collect()
}

fn keys(app: &AppState) -> Vec<KeyLife> {
    let ring = app.ring.load();
    let of = |key: &Key| {
        let since = key.signed_from.unwrap_or(key.created);
        let due = || Timestamp(since.0.saturating_add(OLD_KEY));
        KeyLife {
            id: key.id.to_string(),
            state: key.state.name().to_owned(),
            since: rfc3339(since),
            until: if key.state == KeyState::Signing { Some(due()) } else { key.needed_until() }.map(rfc3339),
        }
    };
    ring.keys().iter().map(of).collect()
}

fn state(app: &AppState) -> StateOfFile {
    let path = super::state::place(&app.config().state);
    StateOfFile {
        octets: path.as_ref().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len()),
        path: path.map(|path| std::path::absolute(&path).unwrap_or(path).display().to_string()),
        is_written: app.metrics.gauges.state_written.get() != 0,
    }
}
