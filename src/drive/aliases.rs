//! Aliases of long senders, between the sessions that need them and the thread that has the store.
//!
//! A sender leaves with an alias only after the alias is on disk, and a bounce to an alias waits until it is looked up.
//! Both wait for a short time at most. Recent aliases are known without asking.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};

use super::metrics::{AliasLabels, Metrics};
use crate::envelope::address::Address;
use crate::envelope::rules::StoredAlias;
use crate::envelope::tag::Alias;

/// How long a session waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests that may wait for the store.
const MAX_WAITING: usize = 1024;
/// Recent aliases that are known without asking, in each of two generations.
const MAX_RECENT: usize = 4096;

/// What is asked of the store.
#[derive(Debug)]
pub(crate) enum AliasRequest {
    /// To keep an alias. The answer comes when it is on disk: whether it is.
    Store(StoredAlias, oneshot::Sender<bool>),
    /// To look up the address that an alias stands for.
    LookUp(Alias, oneshot::Sender<Option<Address>>),
}

/// The result of waiting for the store: the alias, if the store has it.
pub(crate) type AliasWork = Pin<Box<dyn Future<Output = Option<StoredAlias>> + Send>>;

/// Access to the aliases of this site.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// `None`: there is no store that keeps aliases.
    store: Mutex<Option<mpsc::Sender<AliasRequest>>>,
    recent: Arc<Mutex<Recent>>,
}

impl Aliases {
    /// Connects the sessions with a store. The store takes requests from the receiver.
    pub(crate) fn open(&self) -> mpsc::Receiver<AliasRequest> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Whether there is a store that keeps aliases.
    pub(super) fn are_kept(&self) -> bool {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// An alias that was stored or looked up lately.
    pub(super) fn recent(&self, alias: &Alias) -> Option<StoredAlias> {
        let address = self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(alias)?;
        Some(StoredAlias { alias: *alias, address })
    }

    /// Stores an alias. `None`: there is no store, or it has too much to do.
    pub(super) fn store(&self, wanted: StoredAlias, metrics: &Metrics) -> Option<AliasWork> {
        let (done, stored) = oneshot::channel();
        let failed = counter(metrics, "not-stored");
        if !self.ask(AliasRequest::Store(wanted.clone(), done)) {
            failed.inc();
            return None;
        }
        let good = counter(metrics, "stored");
        let recent = Arc::clone(&self.recent);
        Some(Box::pin(async move {
            if !matches!(tokio::time::timeout(PATIENCE, stored).await, Ok(Ok(true))) {
                failed.inc();
                return None;
            }
            good.inc();
            recent.lock().unwrap_or_else(PoisonError::into_inner).insert(&wanted);
            Some(wanted)
        }))
    }

    /// Looks up an alias. `None`: there is no store, or it has too much to do.
    pub(super) fn look_up(&self, alias: Alias, metrics: &Metrics) -> Option<AliasWork> {
        let (done, found) = oneshot::channel();
        let unknown = counter(metrics, "unknown");
        if !self.ask(AliasRequest::LookUp(alias, done)) {
            unknown.inc();
            return None;
        }
        let good = counter(metrics, "found");
        let recent = Arc::clone(&self.recent);
        Some(Box::pin(async move {
            let Ok(Ok(Some(address))) = tokio::time::timeout(PATIENCE, found).await else {
                unknown.inc();
                return None;
            };
            good.inc();
            let stored = StoredAlias { alias, address };
            recent.lock().unwrap_or_else(PoisonError::into_inner).insert(&stored);
            Some(stored)
        }))
    }

    fn ask(&self, request: AliasRequest) -> bool {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().is_some_and(|store| store.try_send(request).is_ok())
    }
}

fn counter(metrics: &Metrics, result: &'static str) -> Counter {
    metrics.aliases.get_or_create(&AliasLabels { result }).clone()
}

/// Aliases that were used lately: when the young are full, they become the old, and the old are forgotten.
#[derive(Debug, Default)]
struct Recent {
    young: HashMap<Alias, Address>,
    old: HashMap<Alias, Address>,
}

impl Recent {
    fn get(&self, alias: &Alias) -> Option<Address> {
        self.young.get(alias).or_else(|| self.old.get(alias)).cloned()
    }

    fn insert(&mut self, stored: &StoredAlias) {
        if self.young.len() >= MAX_RECENT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stored.alias, stored.address.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Key};
    use crate::envelope::time::Day;

    fn alias(n: usize) -> StoredAlias {
        let address = Address::parse(&format!("sender-{n}@third.example")).unwrap();
        let key = Key::for_test("1", Algorithm::HmacSha256, &[7; 32]);
        StoredAlias { alias: Alias::of(&key, Day(20_779), &address), address }
    }

    #[test]
    fn recent_aliases_are_bounded() {
        let mut recent = Recent::default();
        for n in 0..3 * MAX_RECENT {
            recent.insert(&alias(n));
            assert!(recent.young.len() + recent.old.len() <= 2 * MAX_RECENT);
        }
        assert_eq!(recent.get(&alias(0).alias), None);
        let last = alias(3 * MAX_RECENT - 1);
        assert_eq!(recent.get(&last.alias), Some(last.address));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_does_not_answer_is_not_stored() {
        let (aliases, metrics) = (Aliases::default(), Metrics::default());
        assert!(aliases.store(alias(1), &metrics).is_none() && aliases.look_up(alias(1).alias, &metrics).is_none());
        let mut requests = aliases.open();
        // It is silent.
        assert_eq!(aliases.store(alias(1), &metrics).unwrap().await, None);
        assert_eq!(aliases.look_up(alias(1).alias, &metrics).unwrap().await, None);
        while requests.try_recv().is_ok() {}
        // It has too much to do.
        let works: Vec<_> = (0..=MAX_WAITING).map(|n| aliases.store(alias(n), &metrics)).collect();
        assert_eq!(works.iter().filter(|work| work.is_none()).count(), 1);
        while requests.try_recv().is_ok() {}
        // It answers.
        let work = aliases.store(alias(2), &metrics).unwrap();
        let Ok(AliasRequest::Store(wanted, done)) = requests.try_recv() else { panic!("a request") };
        assert_eq!((&wanted, aliases.recent(&wanted.alias)), (&alias(2), None));
        done.send(true).unwrap();
        assert_eq!(work.await, Some(alias(2)));
        assert_eq!(aliases.recent(&wanted.alias), Some(alias(2)));
        let work = aliases.look_up(alias(3).alias, &metrics).unwrap();
        let Ok(AliasRequest::LookUp(_, done)) = requests.try_recv() else { panic!("a request") };
        done.send(Some(alias(3).address)).unwrap();
        assert_eq!(work.await, Some(alias(3)));
    }
}
