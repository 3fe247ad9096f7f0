//! Ramps in a running daemon: records in the key ring since when mail is signed, and logs what enforcing would have
//! refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::drive::app_state::AppState;
use crate::envelope::rules::{Ramp, RampEvent, Rules};
use crate::envelope::site_policy::InboundMode;
use crate::state::ring_file::{self, Changed};

/// Interval of the log lines about observed bounces.
const SUMMARY: Duration = Duration::from_secs(3600);
/// Interval of the checks for changed ramps.
const LOOK: Duration = Duration::from_secs(1);

/// Records changes of ramps in the key ring. Never ends.
pub(super) async fn write(app: Arc<AppState>) {
    loop {
        for event in app.ramp_notes().await {
            let app = Arc::clone(&app);
            // Another process may hold the lock of the ring, and sessions must not wait for it.
            let written = tokio::task::spawn_blocking(move || write_one(&app, &event));
            if let Err(error) = written.await {
                warn!(%error, "a change of a ramp was not written to the key ring");
            }
        }
    }
}

fn write_one(app: &AppState, event: &RampEvent) {
    let now = app.now();
    let written = ring_file::update(&app.config.ring, |ring| {
        let changed = match event {
            RampEvent::Started(domain) => ring.ramp_start(domain, now),
            RampEvent::Gap(domain) => ring.ramp_stop(domain, now),
        };
        Ok(if changed { Changed::Yes(()) } else { Changed::No(()) })
    });
    // Other hosts reload the file. This process uses the ring at once, even if it could not write it.
    if let Ok(ring) = ring_file::load(&app.config.ring) {
        app.set_ring(ring);
    }
    // Logged last, when the change is in force.
    match (&written, event) {
        (Ok(()), RampEvent::Started(domain)) => {
            info!(domain, "mail of this domain is signed from now on: its ramp begins");
        }
        (Ok(()), RampEvent::Gap(domain)) => {
            warn!(domain, "mail of this domain left unsigned (outbound.mode); its bounces are only observed again");
        }
        (Err(error), RampEvent::Started(domain)) => warn!(
            domain,
            %error,
            "the key ring cannot be written; on the host that writes it, run: countersign keys ramp-start {domain}"
        ),
        (Err(error), RampEvent::Gap(domain)) => warn!(
            domain,
            %error,
            "mail of this domain left unsigned (outbound.mode), and the key ring cannot be written; this process observes it again"
        ),
    }
}

/// Logs when a domain is enforced or observed again, and once an hour what enforcing would have refused. Never ends.
pub(super) async fn watch(app: Arc<AppState>) {
    let (mut enforced, mut next) = (enforced_domains(&app), Instant::now() + SUMMARY);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = enforced_domains(&app);
        for domain in now.difference(&enforced) {
            info!(domain, "enforcing from now on: false bounces to this domain get the configured action");
        }
        for domain in enforced.difference(&now) {
            warn!(domain, "observing again: false bounces to this domain are only marked");
        }
        enforced = now;
        if Instant::now() >= next {
            next += SUMMARY;
            summary(&app);
        }
    }
}

/// The local domains whose ramp has ended.
fn enforced_domains(app: &AppState) -> BTreeSet<String> {
    let (policy, ring) = (&app.config.policy, app.ring.load());
    if policy.inbound.mode != InboundMode::Ramp {
        return BTreeSet::new();
    }
    let rules = Rules { policy, ring: &ring, now: app.now() };
    let is_enforced = |name: &String| {
        let domain = if name.starts_with('.') { format!("x{name}") } else { name.clone() };
        rules.ramp(&domain) == Ramp::Enforcing
    };
    policy.domains.local.names().into_iter().filter(is_enforced).collect()
}

/// Logs what enforcing would have refused so far.
pub(super) fn summary(app: &AppState) {
    let observed = app.metrics.observed().clone();
    let total: u64 = observed.reasons.values().sum();
    if total == 0 {
        return;
    }
    let reasons: Vec<String> = observed.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let listed = |list: Vec<(String, u64)>| {
        list.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    info!(
        total,
        reasons = reasons.join(", "),
        genuine = observed.genuine,
        networks = listed(observed.networks.first(5)),
        unsigned_paths_unproven = listed(observed.paths.first(5)),
        "what enforcing would have refused since the start"
    );
}
