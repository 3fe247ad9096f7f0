//! Notifications to the service manager (sd_notify(3)): ready, stopping, watchdog. Without a service manager, none are
//! sent.

use tracing::warn;

use super::runtime::Workers;

/// Reports that all listeners are open.
pub(super) fn ready() {
    say(&[sd_notify::NotifyState::Ready]);
}

/// Reports that the config is read again (`Type=notify-reload`); [`ready`] follows.
pub(super) fn reloading() {
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot notify the service manager"),
    }
}

/// Reports that no new connections are accepted.
pub(super) fn stopping() {
    say(&[sd_notify::NotifyState::Stopping]);
}

fn say(state: &[sd_notify::NotifyState<'_>]) {
    if std::env::var_os("NOTIFY_SOCKET").is_some()
        && let Err(error) = sd_notify::notify(state)
    {
        warn!(%error, "cannot notify the service manager");
    }
}

/// Sends watchdog notifications at twice the required rate (`WatchdogSec=`), as long as every worker responds. Returns
/// at once if the watchdog is off.
pub(super) async fn feed_watchdog(workers: Workers) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    loop {
        if tokio::time::timeout(interval / 2, workers.answer()).await.is_ok() {
            say(&[sd_notify::NotifyState::Watchdog]);
        } else {
            warn!("a worker does not answer; the service manager may restart this process");
        }
        tokio::time::sleep(interval / 2).await;
    }
}
