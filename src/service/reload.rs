//! Reloads the key ring and certificates when their files change, which is checked once a second, and the config, too, on
//! request. A file with errors changes nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::file_version::{Version, version};
use super::listeners::{Listeners, SharedListeners};
use super::start_error::StartError;
use super::state::signs_here;
use super::{fd_limit, logs, recipients, systemd};
use crate::config::{Config, ConfigChanges, ConfigError};
use crate::drive::app_state::AppState;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::tls::Acceptor;
use crate::envelope::tag::batv::MacLength;
use crate::state::RingFileError;
use crate::state::ring_file::{self, Changed};

const INTERVAL: Duration = Duration::from_secs(1);
/// Interval of log lines about a ring that still has errors.
const REMINDER: Duration = Duration::from_secs(3600);

/// A handle that makes a running daemon read its config, key ring and certificates.
#[derive(Debug, Clone, Default)]
pub struct Reload(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    any: Notify,
    /// Whether the config is to be read, too.
    config: AtomicBool,
}

impl Reload {
    /// Makes the daemon read all of them now.
    pub fn now(&self) {
        self.0.config.store(true, Ordering::Release);
        self.0.any.notify_one();
    }

    /// Makes the daemon read the key ring and the certificates now.
    pub(super) fn ring_and_certificates(&self) {
        self.0.any.notify_one();
    }
}

/// Reloads the key ring and certificates when they change, or on request. Never ends.
pub(super) async fn watch(app: Arc<AppState>, listeners: Arc<Listeners>, requests: Reload) {
    let shared = listeners.shared();
    let mut certificates = watched(&shared);
    let mut seen = version(&app.config().ring);
    // Loads changes made since the ring was first read.
    let mut remind_at = match ring_file::load(&app.config().ring) {
        Ok(ring) => {
            app.set_ring(ring);
            None
        }
        Err(_) => Some(Instant::now()),
    };
    let mut raising = raise_aside(&app);
    loop {
        let asked = tokio::select! {
            () = requests.0.any.notified() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        if requests.0.config.swap(false, Ordering::AcqRel) {
            systemd::reloading();
            // What came of it is in the log.
            let _ = reload_config(&app, &listeners);
            systemd::ready();
        }
        if !is_current(&certificates, &shared) {
            certificates = watched(&shared);
        }
        certificates.iter_mut().for_each(|certificate| certificate.look(asked));
        let now = version(&app.config().ring);
        if asked || now != seen || remind_at.is_some_and(|at| at <= Instant::now()) {
            seen = now;
            remind_at = if reload(&app) { None } else { Some(Instant::now() + REMINDER) };
            if raising.is_finished() {
                raising = raise_aside(&app);
            }
        }
    }
}

/// The certificates of the listeners in force.
fn watched(listeners: &SharedListeners) -> Vec<WatchedCertificate> {
    let listeners = listeners.load();
    listeners.iter().filter(|listener| listener.acceptor.is_some()).map(WatchedCertificate::new).collect()
}

fn is_current(certificates: &[WatchedCertificate], listeners: &SharedListeners) -> bool {
    let listeners = listeners.load();
    let mut now = listeners.iter().filter(|listener| listener.acceptor.is_some());
    let same =
        certificates.iter().all(|it| now.next().is_some_and(|listener| Arc::ptr_eq(&it.proxy_listener, listener)));
    same && now.next().is_none()
}

/// The certificate of a listener, and the versions of its files.
struct WatchedCertificate {
    proxy_listener: Arc<ProxyListener>,
    seen: Vec<Version>,
}

impl WatchedCertificate {
    fn new(proxy_listener: &Arc<ProxyListener>) -> Self {
        let mut watched = Self { proxy_listener: Arc::clone(proxy_listener), seen: Vec::new() };
        watched.seen = watched.versions();
        watched
    }

    fn versions(&self) -> Vec<Version> {
        self.proxy_listener.acceptor.iter().flat_map(Acceptor::files).map(version).collect()
    }

    /// Reloads the certificate if its files have changed. A renewal writes two files, which do not match until the
    /// second one is written: an error is logged, and a later check succeeds.
    fn look(&mut self, asked: bool) {
        let now = self.versions();
        if now == self.seen && !asked {
            return;
        }
        self.seen = now;
        let listen = &self.proxy_listener.listener.listen;
        match self.proxy_listener.acceptor.as_ref().map(Acceptor::reload) {
            Some(Ok(())) => info!(%listen, "certificate loaded"),
            Some(Err(error)) => {
                error!(%listen, error, "the certificate cannot be loaded; the last good one stays in use");
            }
            None => {}
        }
    }
}

/// Why a changed config is not put in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// It has an error.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A new listener cannot be opened, or a certificate cannot be used.
    #[error("{0}")]
    Listener(#[from] StartError),
    /// The new key ring cannot be read.
    #[error(transparent)]
    Ring(#[from] RingFileError),
    /// The new limits cannot be kept.
    #[error("{0}")]
    Limits(#[from] io::Error),
}

/// Reads the config again, and puts in force what a running daemon can take.
///
/// # Errors
/// The file has an error, or what it asks for cannot be had, and nothing changes.
pub(super) fn reload_config(app: &AppState, listeners: &Listeners) -> Result<ConfigChanges, ReloadError> {
    let _alone = listeners.lock();
    app.recipients.read_lists_again();
    put_in_force(app, listeners).inspect_err(|error| {
        error!(%error, "the config cannot be loaded; the last good one stays in force");
    })
}

fn put_in_force(app: &AppState, listeners: &Listeners) -> Result<ConfigChanges, ReloadError> {
    let running = app.config();
    let newer = Config::load(&running.path)?;
    let changes = running.changes_to(&newer);
    if changes.is_empty() {
        return Ok(changes);
    }
    let newer = running.reloaded(newer);
    let ring = if newer.ring == running.ring { None } else { Some(ring_file::load(&newer.ring)?) };
    fd_limit::raise_descriptors(&newer)?;
    recipients::load(app, &newer.recipients)?;
    let rules = || {
        app.set_signs_here(signs_here(&newer));
        app.set_config(newer.clone());
        if let Some(ring) = ring {
            app.set_ring(ring);
        }
    };
    if newer.listeners.is_empty() && newer.mta_services.is_empty() {
        return Err(StartError::NoListener.into());
    }
    if changes.applied.iter().any(|key| is_of_listeners(key)) {
        listeners.change(&newer, rules)?;
    } else {
        // Next hops that are down stay known as such.
        rules();
    }
    if !changes.applied.is_empty() {
        info!(changed = changes.applied.join(", "), "the config has changed, and is in force");
    }
    if !changes.need_restart.is_empty() {
        warn!(changed = changes.need_restart.join(", "), "these changes of the config take effect after a restart");
    }
    // Last, so that the log says what has changed. The level was checked with the config.
    if newer.log_level != running.log_level
        && let Err(error) = logs::set_level(&newer.log_level)
    {
        warn!(error, "the log level cannot be changed");
    }
    Ok(changes)
}

/// Whether listeners depend on this key.
fn is_of_listeners(key: &str) -> bool {
    let others = ["inbound.srs_next_hop", "limits.connections", "timeouts.connect"];
    key.starts_with("listener[")
        || others.iter().any(|name| key.strip_prefix(name).is_some_and(|rest| !rest.starts_with('_')))
}

/// Loads the ring. Returns `false` if the file has errors.
fn reload(app: &AppState) -> bool {
    match ring_file::load(&app.config().ring) {
        Ok(ring) => {
            let signer = ring.own_signer().map(|key| key.id.to_string());
            app.set_ring(ring);
            app.metrics.gauges.ring_loaded.set(1);
            info!(ring = %app.config().ring.display(), signing = signer, "key ring loaded");
            true
        }
        Err(error) => {
            app.metrics.ring_failures.inc();
            app.metrics.gauges.ring_loaded.set(0);
            error!(%error, "the key ring cannot be loaded; the last good one stays in use");
            false
        }
    }
}

/// Runs [`raise`] on a thread of its own, because another process may hold the lock of the ring.
fn raise_aside(app: &Arc<AppState>) -> JoinHandle<()> {
    let app = Arc::clone(app);
    tokio::task::spawn_blocking(move || raise(&app))
}

/// Records lifetimes and tag lengths of the signing keys in the ring, so that other hosts and later configs know how
/// long their tags live. Failure is only logged.
fn raise(app: &AppState) {
    let policy = &app.config().policy;
    let (lifetime, srs_lifetime) = (policy.batv.lifetime, policy.srs.lifetime);
    let short = policy.batv.mac == MacLength::Short;
    let ring = app.ring.load();
    let needed = ring.keys().iter().filter(|k| k.state == crate::envelope::keyring::KeyState::Signing).any(|key| {
        key.longest_lifetime < lifetime || key.longest_srs_lifetime < srs_lifetime || (short && !key.short_tags)
    });
    if !needed {
        return;
    }
    let written = ring_file::update(&app.config().ring, |ring| {
        Ok(if ring.record_lifetimes(lifetime, srs_lifetime, short) { Changed::Yes(()) } else { Changed::No(()) })
    });
    if let Err(error) = written {
        warn!(%error, "the key ring cannot be written: other hosts do not know the new lifetimes, and may show keys as unneeded too early");
    }
}
