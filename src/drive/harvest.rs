//! Queries of strangers about recipients, until they are answered: so many unknown recipients an hour, in whatever
//! order and however many at a time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tracing::warn;

use super::app_state::AppState;
use super::harvest_gate::Waiter;
use crate::envelope::abuse::{Admission, surge_network};

/// Maximum wait of a query for pending ones of its network: in a proxy; in a milter or policy service, whose MTA does
/// not wait for long itself.
pub(super) const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

/// A query about a recipient whose answer the client does not have yet. While pending, it counts as one
/// about an unknown recipient; afterwards only if the client was told so.
#[derive(Debug)]
pub(in crate::drive) struct PendingQuery {
    app: Arc<AppState>,
    client: IpAddr,
    limit: u32,
    unknown: bool,
}

impl PendingQuery {
    /// The client is told that the recipient is unknown.
    pub(in crate::drive) fn told_unknown(mut self) {
        self.unknown = true;
    }
}

impl Drop for PendingQuery {
    fn drop(&mut self) {
        let now = self.app.now();
        let (is_waited_for, harvesters) = {
            let mut memory = self.app.memory();
            let is_waited_for = memory.harvests.settle(self.client, self.unknown, self.limit, now);
            (is_waited_for, memory.harvests.take_alarms())
        };
        log_harvesters(&harvesters);
        if is_waited_for {
            self.app.harvest.wake(surge_network(self.client));
        }
    }
}

/// Logs networks that have reached the limit.
pub(in crate::drive) fn log_harvesters(networks: &[IpNet]) {
    for network in networks {
        warn!(
            %network,
            limit = "unknown_recipients_per_hour",
            "client network exceeded unknown_recipients_per_hour; all its recipients are deferred for up to an hour. If it \
             relays mail of others, add it to inbound.trusted_relays"
        );
    }
}

/// Whether a query may be answered.
#[derive(Debug)]
pub(in crate::drive) enum Admitted {
    /// The query may be answered.
    Now(PendingQuery),
    /// Pending queries have to be settled first; see [`admitted`].
    Later,
    /// The limit is reached.
    Never,
}

/// Asks whether a query of this client may be answered. `limit`: unknown recipients of a network in an hour.
pub(in crate::drive) fn admit(app: &Arc<AppState>, client: IpAddr, limit: u32) -> Admitted {
    let admission = app.memory().harvests.admit(client, limit, app.now());
    match admission {
        Admission::Answer => Admitted::Now(PendingQuery { app: Arc::clone(app), client, limit, unknown: false }),
        Admission::Wait => Admitted::Later,
        Admission::Limited => Admitted::Never,
    }
}

/// Waits for some time until a query may be answered. `None`: it may not.
pub(in crate::drive) async fn admitted(
    app: &Arc<AppState>,
    client: IpAddr,
    limit: u32,
    patience: Duration,
) -> Option<PendingQuery> {
    let waiter = Waiter::new(&app.harvest, surge_network(client));
    let deadline = Instant::now() + patience;
    loop {
        let mut woken = std::pin::pin!(waiter.notify.notified());
        // From here on, no call is missed.
        woken.as_mut().enable();
        match admit(app, client, limit) {
            Admitted::Now(pending) => return Some(pending),
            Admitted::Never => return None,
            Admitted::Later => {}
        }
        if tokio::time::timeout_at(deadline, woken).await.is_err() {
            return None;
        }
    }
}

/// Delays a reply (`limits.tarpit`), unless too many are delayed already.
pub(in crate::drive) async fn delay(app: &AppState) {
    let duration = app.config().limits.tarpit;
    if duration.is_zero() {
        return;
    }
    if let Some(_delayed) = app.harvest.delay() {
        tokio::time::sleep(duration).await;
    }
}
