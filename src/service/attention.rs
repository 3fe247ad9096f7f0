//! What an administrator should look at: the lines with an arrow of `status`, and the list at the top of the status page.

use std::sync::Arc;

use super::gauges::signing_key;
use crate::drive::app_state::AppState;
use crate::drive::next_hops::NextHops;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::tls::Acceptor;
use crate::envelope::rules::{Ramp, Waiting};
use crate::envelope::site_policy::OutboundMode;
use crate::envelope::time::SECONDS_PER_DAY;
use crate::state::time_format::rfc3339;

/// The chance of a guessed tag from which on an administrator should do something.
const FORGERY_CHANCE: f64 = 0.001;
/// Seconds before a certificate expires from which on it should be renewed.
const CERTIFICATE_DUE: i64 = 14 * SECONDS_PER_DAY;

/// What needs attention, in words.
pub(super) fn attention(
    app: &AppState,
    proxy_listeners: &[Arc<ProxyListener>],
    ramps: &[(String, Ramp)],
    surges: &[String],
    chance: f64,
) -> Vec<String> {
    let mut list = next_hops(proxy_listeners);
    if app.config().policy.outbound.mode == OutboundMode::Off {
        list.push("nothing is signed, because outbound.mode is \"off\"".to_owned());
    }
    list.extend(certificates(app, proxy_listeners));
    for (name, ramp) in ramps {
        if let Ramp::Waiting(Waiting { hold: Some(hold), .. }) = ramp {
            list.push(format!(
                "{} sends mail of {name} unsigned, which holds the ramp: send it through Countersign, or decide: countersign ramp enforce {name}",
                hold.host
            ));
        }
    }
    if let Some(until) = app.ramps.load().paused_until.filter(|until| app.now() < *until) {
        let until = rfc3339(until);
        list.push(format!("all domains are only observed until {until}; end that with: countersign observe off"));
    }
    list.extend(
        surges.iter().map(|domain| format!("a surge of false bounces to {domain}; untagged ones are deferred")),
    );
    if chance >= FORGERY_CHANCE {
        list.push(format!("tags are guessed: with a chance of {chance:.4}, one guess was valid; rotate the key (countersign keys rotate); the figure goes down 30 to 60 days after the last guess"));
    }
    if app.metrics.gauges.ring_loaded.get() == 0 {
        list.push("the key ring cannot be read; the last good one is in use; see: countersign check".to_owned());
    }
    let refused = app.recipients.refusals().into_iter();
    list.extend(refused.map(|why| format!("a list of recipients is not in force, the one before is: {why}")));
    if app.metrics.gauges.state_written.get() == 0 {
        list.push("the state file cannot be written; what it should keep is in memory; see the log".to_owned());
    }
    if signing_key(app).is_some_and(|(_, due)| due < app.now()) {
        list.push("the signing key has signed for more than a year: countersign keys rotate".to_owned());
    }
    list
}

/// Next hops that do not take mail, each once: several listeners may have the same.
fn next_hops(proxy_listeners: &[Arc<ProxyListener>]) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let states = proxy_listeners.iter().flat_map(|listener| listener.all_hops()).flat_map(NextHops::states);
    for (hop, is_up, is_refusing) in states {
        let what = match (is_up, is_refusing) {
            (false, _) => "is down",
            (true, true) => "refuses connections in its greeting",
            (true, false) => continue,
        };
        let line = format!("the next hop {hop} {what}; unless another one is up, its mail is deferred");
        if !list.contains(&line) {
            list.push(line);
        }
    }
    list
}

fn certificates(app: &AppState, proxy_listeners: &[Arc<ProxyListener>]) -> Vec<String> {
    let due = proxy_listeners.iter().filter_map(|listener| {
        let expires = listener.acceptor.as_ref().and_then(Acceptor::expires)?;
        let listen = &listener.listener.listen;
        let left = expires.0.saturating_sub(app.now().0);
        match left {
            ..0 => Some(format!("the certificate of {listen} has expired: renew it")),
            0..CERTIFICATE_DUE => {
                Some(format!("the certificate of {listen} expires at {}: renew it", rfc3339(expires)))
            }
            _ => None,
        }
    });
    due.collect()
}
