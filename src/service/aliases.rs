//! The thread that keeps aliases of long senders in the store, and looks them up.
//!
//! Requests that arrive while one commit is being written share the next one. So the time that a message waits for its
//! alias does not grow with their number.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use crate::drive::aliases::AliasRequest;
use crate::drive::app_state::AppState;
use crate::drive::limited_warn;
use crate::envelope::address::Address;
use crate::envelope::rules::{Rules, StoredAlias};
use crate::envelope::tag::Alias;
use crate::envelope::time::Timestamp;
use crate::state::store::{Change, Removed, Store, Table};

/// Requests that share a commit.
const MAX_GROUP: usize = 1024;
/// Aliases that are removed at a time.
const MAX_REMOVED: usize = 5_000;
/// Seconds between two searches for aliases that have expired.
const HOUR: i64 = 3600;
/// How long to wait for requests before a search for aliases that have expired.
const IDLE: Duration = Duration::from_secs(3600);
/// The octets of aliases and their senders that may be stored are this part of `state.max_size`. In the file they take two
/// to three times as much, depending on how full its pages are, and leave room for what else is kept.
const SHARE: u64 = 4;

/// Answers requests until no session can send any.
pub(super) async fn keep(app: Arc<AppState>, store: Arc<dyn Store>, mut requests: mpsc::Receiver<AliasRequest>) {
    let most = app.config().state.max_size / SHARE;
    let counted = tokio::task::spawn_blocking(move || AliasKeeper::new(store, most)).await;
    let Ok(mut keeper) = counted else { return error!("aliases of long senders cannot be read, and are not kept") };
    let mut next_removal = Timestamp(0);
    let mut group = Vec::new();
    loop {
        // Without requests, aliases expire all the same.
        let received = tokio::time::timeout(IDLE, requests.recv_many(&mut group, MAX_GROUP)).await;
        if received == Ok(0) {
            return;
        }
        let (here, requests) = (Arc::clone(&app), std::mem::take(&mut group));
        let is_due = app.now() >= next_removal;
        let answered = tokio::task::spawn_blocking(move || {
            keeper.answer(requests);
            let is_done = !is_due || keeper.remove_expired(&here);
            (keeper, is_done)
        });
        match answered.await {
            Ok((back, is_done)) => {
                keeper = back;
                if is_due && is_done {
                    next_removal = Timestamp(app.now().0.saturating_add(HOUR));
                }
            }
            Err(error) => return error!(%error, "aliases of long senders are not kept any more"),
        }
    }
}

struct AliasKeeper {
    store: Arc<dyn Store>,
    /// Octets of aliases and senders in the store.
    octets: u64,
    /// The most of them.
    most: u64,
}

impl AliasKeeper {
    fn new(store: Arc<dyn Store>, most: u64) -> Self {
        let mut octets = 0;
        let counted = store.scan(Table::Alias, &mut |key, value| octets += (key.len() + value.len()) as u64);
        if let Err(error) = counted {
            limited_warn!(%error, "aliases of long senders cannot be read");
        }
        Self { store, octets, most }
    }

    fn answer(&mut self, requests: Vec<AliasRequest>) {
        let mut to_store = Vec::new();
        for request in requests {
            match request {
                AliasRequest::LookUp(alias, done) => {
                    let _ = done.send(self.look_up(&alias));
                }
                AliasRequest::Store(stored, done) => to_store.push((stored, done)),
            }
        }
        self.store_all(to_store);
    }

    fn look_up(&self, alias: &Alias) -> Option<Address> {
        match self.store.get(Table::Alias, &alias.key()) {
            Ok(value) => value.and_then(|value| Address::parse(std::str::from_utf8(&value).ok()?).ok()),
            Err(error) => {
                limited_warn!(%error, "an alias of a long sender cannot be looked up; its bounce is deferred");
                None
            }
        }
    }

    fn store_all(&mut self, wanted: Vec<(StoredAlias, oneshot::Sender<bool>)>) {
        let (known, new): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|(stored, _)| self.look_up(&stored.alias).as_ref() == Some(&stored.address));
        let mut are_stored = true;
        if !new.is_empty() {
            are_stored = if self.octets >= self.most {
                limited_warn!(
                    "aliases have their share of state.max_size: other long senders of forwarded mail get none until some expire"
                );
                false
            } else {
                self.commit(&new)
            };
        }
        for (_, done) in known {
            let _ = done.send(true);
        }
        for (_, done) in new {
            let _ = done.send(are_stored);
        }
    }

    fn commit(&mut self, new: &[(StoredAlias, oneshot::Sender<bool>)]) -> bool {
        let mut seen = HashSet::new();
        let new = new.iter().filter(|(stored, _)| seen.insert(stored.alias));
        let changes: Vec<Change> = new
            .map(|(stored, _)| Change {
                table: Table::Alias,
                key: stored.alias.key().to_vec(),
                value: Some(stored.address.as_str().as_bytes().to_vec()),
            })
            .collect();
        match self.store.commit(&changes) {
            Ok(()) => {
                let octets = changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Vec::len));
                self.octets = self.octets.saturating_add(octets.sum::<usize>() as u64);
                true
            }
            Err(error) => {
                limited_warn!(%error, "the state file cannot be written: long senders of forwarded mail get no alias");
                false
            }
        }
    }

    /// Removes aliases that have expired on every host. `false`: there are more.
    fn remove_expired(&mut self, app: &AppState) -> bool {
        let config = app.config();
        let ring = app.ring.load();
        let first = Rules::new(&config.policy, &ring, app.now()).first_day_of_aliases();
        match self.store.remove_before(Table::Alias, &Alias::first_key_of(first), MAX_REMOVED) {
            Ok(Removed { keys, octets }) => {
                debug!(keys, "expired aliases removed");
                self.octets = self.octets.saturating_sub(octets as u64);
                keys < MAX_REMOVED
            }
            Err(error) => {
                limited_warn!(%error, "expired aliases cannot be removed");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Key};
    use crate::envelope::time::Day;
    use crate::state::store;

    fn alias(n: usize, day: i64) -> StoredAlias {
        let address = Address::parse(&format!("sender-{n}@third.example")).unwrap();
        let key = Key::for_test("1", Algorithm::HmacSha256, &[7; 32]);
        StoredAlias { alias: Alias::of(&key, Day(day), &address), address }
    }

    fn ask(keeper: &mut AliasKeeper, wanted: &StoredAlias) -> bool {
        let (done, mut stored) = oneshot::channel();
        keeper.answer(vec![AliasRequest::Store(wanted.clone(), done)]);
        stored.try_recv().unwrap()
    }

    #[test]
    fn what_is_answered_with_yes_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countersign.db");
        let store = Arc::from(store::open(Some(&path), 64 << 20, "x").store);
        let mut keeper = AliasKeeper::new(store, 1 << 20);
        for n in 0..20 {
            assert!(ask(&mut keeper, &alias(n % 10, 20_779)));
        }
        std::mem::forget(keeper);
        let copy = folder.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        let store: Arc<dyn Store> = Arc::from(store::open(Some(&copy), 64 << 20, "x").store);
        let keeper = AliasKeeper::new(store, 1 << 20);
        for n in 0..10 {
            assert_eq!(keeper.look_up(&alias(n, 20_779).alias), Some(alias(n, 20_779).address));
        }
        assert_eq!(keeper.look_up(&alias(10, 20_779).alias), None);
        assert_eq!(keeper.look_up(&alias(1, 20_778).alias), None);
    }

    #[test]
    fn aliases_have_a_share_of_the_store() {
        let store: Arc<dyn Store> = Arc::from(store::open(None, 64 << 20, "x").store);
        let mut keeper = AliasKeeper::new(Arc::clone(&store), 400);
        let stored = (0..50).filter(|n| ask(&mut keeper, &alias(*n, 20_750))).count();
        assert!((8..20).contains(&stored), "{stored}");
        // Those that are known are still used, and a restart counts the same.
        assert!(ask(&mut keeper, &alias(0, 20_750)) && !ask(&mut keeper, &alias(99, 20_779)));
        assert_eq!(AliasKeeper::new(Arc::clone(&store), 400).octets, keeper.octets);
    }

    #[test]
    fn only_what_is_too_old_is_removed() {
        let store: Arc<dyn Store> = Arc::from(store::open(None, 64 << 20, "x").store);
        let mut keeper = AliasKeeper::new(Arc::clone(&store), 1 << 20);
        for day in 20_750..20_780 {
            assert!(ask(&mut keeper, &alias(1, day)));
        }
        let first = Alias::first_key_of(Day(20_758));
        assert_eq!(store.remove_before(Table::Alias, &first, 5).unwrap().keys, 5);
        assert_eq!(store.remove_before(Table::Alias, &first, 5).unwrap().keys, 3);
        assert_eq!(store.remove_before(Table::Alias, &first, 5).unwrap().keys, 0);
        assert_eq!(keeper.look_up(&alias(1, 20_757).alias), None);
        assert!(keeper.look_up(&alias(1, 20_758).alias).is_some());
    }
}
