//! Ramps in a running daemon: records in the key ring since when mail is signed, and logs what enforcing would have
//! refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::drive::app_state::AppState;
use crate::envelope::rules::{Ramp, RampEvent, Rules, Waiting};
use crate::envelope::site_policy::InboundMode;
use crate::state::ring_file::{self, Changed};
use crate::state::time_format::rfc3339;

/// Interval of the log lines about observed bounces.
const SUMMARY: Duration = Duration::from_secs(3600);
/// Interval of the log lines about a ramp that is held.
const DAY: Duration = Duration::from_secs(86_400);
/// Interval of the checks for changed ramps.
const LOOK: Duration = Duration::from_secs(1);

/// Records changes of ramps in the key ring. Never ends.
pub(super) async fn write(app: Arc<AppState>) {
    loop {
        for event in app.ramp_changes().await {
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
    let written = ring_file::update(&app.config().ring, |ring| {
        let changed = match event {
            RampEvent::Started(domain) => ring.ramp_start_counted(domain, now),
            RampEvent::Gap(domain) => ring.ramp_stop(domain, now),
            // The ramp may have begun anew meanwhile, by another process.
            RampEvent::Enforced(domain, start) if ring.signing_since().get(domain) == Some(start) => {
                ring.ramp_enforced(domain, now)
            }
            RampEvent::Enforced(..) => false,
            // That is in the state, not in the ring.
            RampEvent::SignedDay(_) => false,
        };
        Ok(if changed { Changed::Yes(()) } else { Changed::No(()) })
    });
    // Other hosts reload the file. This process uses the ring at once, even if it could not write it.
    if let Ok(ring) = ring_file::load(&app.config().ring) {
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
        (Ok(()), RampEvent::Enforced(..) | RampEvent::SignedDay(_)) | (Err(_), RampEvent::SignedDay(_)) => {}
        (Err(error), RampEvent::Enforced(domain, _)) => warn!(
            domain,
            %error,
            "the key ring cannot be written: it does not note that this domain is enforced, and after a restart the ramp decides again"
        ),
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

/// Logs when a domain is enforced or observed again, once a day what holds a ramp, and once an hour what enforcing would
/// have refused. Never ends.
pub(super) async fn watch(app: Arc<AppState>) {
    let (mut enforced, mut next) = (enforced_domains(&app), Instant::now() + SUMMARY);
    let mut holds = HoldReminders::default();
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
        latch(&app);
        holds.remind(&app);
        if Instant::now() >= next {
            next += SUMMARY;
            summary(&app);
        }
    }
}

/// The domains that have a ramp, as the config names them, and their states.
pub(crate) fn states(app: &AppState) -> Vec<(String, Ramp)> {
    let (policy, ring, ramps) = (&app.config().policy, app.ring.load(), app.ramps.load());
    if policy.inbound.mode != InboundMode::Ramp {
        return Vec::new();
    }
    let rules = Rules::new(policy, &ring, app.now()).with_ramps(&ramps);
    let state = |name: String| {
        let ramp = rules.ramp(&inside(&name));
        (name, ramp)
    };
    let mut names: BTreeSet<String> =
        policy.domains.local.names().into_iter().chain(policy.domains.srs.names()).collect();
    // A domain below a wildcard may have a ramp of its own.
    let of_the_ring = ring.signing_since().keys().chain(ring.ramps().keys());
    names.extend(of_the_ring.filter(|name| rules.ramp_name(&inside(name)).as_ref() == Some(*name)).cloned());
    names.into_iter().map(state).collect()
}

/// A domain that an entry includes: `.our.example` stands for the domains below our.example.
fn inside(name: &str) -> String {
    if name.starts_with('.') { format!("x{name}") } else { name.to_owned() }
}

/// The domains whose ramp has ended.
fn enforced_domains(app: &AppState) -> BTreeSet<String> {
    states(app).into_iter().filter(|(_, ramp)| *ramp == Ramp::Enforcing).map(|(name, _)| name).collect()
}

/// Notes which domains are enforced, so that nothing that a stranger sends can end that.
pub(super) fn latch(app: &AppState) {
    let (ring, ramps) = (app.ring.load(), app.ramps.load());
    for name in enforced_domains(app) {
        let note = ring.ramp_note(&name);
        let Some(since) = ring.signing_since().get(&name) else { continue };
        let config = app.config();
        let rules = Rules::new(&config.policy, &ring, app.now()).with_ramps(&ramps);
        if !rules.stays_enforced(&inside(&name)) {
            continue;
        }
        let has_ended = ramps.domain(&name).is_some_and(|record| record.ended_ramp == Some(*since));
        if note.enforced.is_none() && note.decision.is_none() && !has_ended {
            app.note_ramp(RampEvent::Enforced(name, *since));
        }
    }
}

/// What holds ramps is logged once a day.
#[derive(Default)]
struct HoldReminders(HashMap<String, Instant>);

impl HoldReminders {
    fn remind(&mut self, app: &AppState) {
        for (domain, ramp) in states(app) {
            let Ramp::Waiting(Waiting { hold: Some(hold), .. }) = ramp else {
                continue;
            };
            if self.0.get(&domain).is_some_and(|at| at.elapsed() < DAY) {
                continue;
            }
            warn!(
                domain,
                host = hold.host,
                messages = hold.messages,
                last = rfc3339(hold.last),
                other_hosts = hold.others,
                "the ramp is held: bounces return mail of this domain that this host has sent unsigned; send its mail through Countersign, or decide: countersign ramp enforce {domain}"
            );
            self.0.insert(domain, Instant::now());
        }
    }
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
