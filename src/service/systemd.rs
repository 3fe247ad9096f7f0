//! What the service manager hears (sd_notify(3)): ready, stopping, still alive. Without one, nothing is said.

use tracing::warn;

use super::runtime::Workers;

/// Tells systemd that all listeners are open.
pub(super) fn ready() {
    say(&[sd_notify::NotifyState::Ready]);
}

/// No new connections are taken.
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

/// Says "still alive" twice as often as asked for (`WatchdogSec=`), as long as every worker answers. Ends at once where
/// nobody asks.
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
