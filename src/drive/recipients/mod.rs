//! Whether recipients exist, from a file or another server, with what is remembered of the answers.

mod asker;
mod cache;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use self::asker::Asker;
pub(crate) use self::asker::{ask_once, ask_server};
pub(crate) use self::cache::CacheKey;
use self::cache::{Cache, KnownOrNot, Remembered, key_of};
use super::limited_warn;
use super::metrics::{LookupLabels, Metrics};
use crate::config::{RecipientLookups, RecipientServer};
use crate::envelope::address::Address;
use crate::envelope::recipient_list::RecipientList;
use crate::envelope::rules::Existence;
use crate::envelope::site_policy::RecipientSource;
use crate::envelope::time::Timestamp;

/// The lists in force, by file.
type Lists = HashMap<PathBuf, Arc<RecipientList>>;

/// What this process knows about recipients.
#[derive(Debug, Default)]
pub(crate) struct Recipients {
    lists: ArcSwap<Lists>,
    reads_again: AtomicBool,
    servers: Mutex<HashMap<RecipientServer, Arc<Asker>>>,
    cache: Mutex<Cache>,
    /// Lists whose newer version is not in force, and why.
    refused: Mutex<HashMap<PathBuf, String>>,
}

/// Whether a recipient exists.
pub(super) enum Found {
    /// The answer is there.
    Now(Existence),
    /// The server is asked.
    Later(Pin<Box<dyn Future<Output = Asked> + Send>>),
}

/// What a server has answered.
pub(super) struct Asked {
    server: RecipientServer,
    key: CacheKey,
    answer: Result<bool, String>,
}

impl Recipients {
    /// Puts a list in force.
    pub(crate) fn set_list(&self, path: PathBuf, list: RecipientList) {
        let list = Arc::new(list);
        self.refused_lists().remove(&path);
        self.lists.rcu(|lists| {
            let mut lists = Lists::clone(lists);
            lists.insert(path.clone(), Arc::clone(&list));
            lists
        });
    }

    /// A newer version of a list is not put in force.
    pub(crate) fn refuse_list(&self, path: PathBuf, why: String) {
        self.refused_lists().insert(path, why);
    }

    /// Why newer versions of lists are not in force, in words.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let mut all: Vec<String> = self.refused_lists().values().cloned().collect();
        all.sort();
        all
    }

    fn refused_lists(&self) -> MutexGuard<'_, HashMap<PathBuf, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of entries of a list; `None`: it is not in force.
    pub(crate) fn entries(&self, path: &Path) -> Option<usize> {
        self.lists.load().get(path).map(|list| list.len())
    }

    /// Has all lists read again, whatever they have.
    pub(crate) fn read_lists_again(&self) {
        self.reads_again.store(true, Ordering::Relaxed);
    }

    /// Whether all lists are to be read again, since the last call.
    pub(crate) fn take_reads_again(&self) -> bool {
        self.reads_again.swap(false, Ordering::Relaxed)
    }

    /// The lists that the config does not name.
    pub(crate) fn unnamed_lists(&self, lookups: &RecipientLookups) -> HashSet<PathBuf> {
        self.lists.load().keys().filter(|path| !lookups.files.contains(path)).cloned().collect()
    }

    /// Forgets lists.
    pub(crate) fn forget_lists(&self, paths: &HashSet<PathBuf>) {
        self.refused_lists().retain(|path, _| !paths.contains(path));
        self.lists.rcu(|lists| {
            let kept = lists.iter().filter(|(path, _)| !paths.contains(*path));
            kept.map(|(path, list)| (path.clone(), Arc::clone(list))).collect::<Lists>()
        });
    }

    /// Forgets servers that the config does not name, and closes connections that are idle.
    pub(crate) fn tidy_servers(&self, lookups: &RecipientLookups) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|server, _| lookups.servers.contains(server));
        servers.values().for_each(|asker| asker.close_idle());
    }

    /// Looks up a recipient, without a tag.
    pub(super) fn look_up(
        &self,
        lookups: &RecipientLookups,
        source: RecipientSource,
        recipient: &Address,
        now: Timestamp,
    ) -> Found {
        match source {
            // The next hop says it.
            RecipientSource::NextHop => Found::Now(Existence::Known),
            RecipientSource::File(n) => {
                let lists = self.lists.load();
                let list = lookups.files.get(n).and_then(|path| lists.get(path));
                Found::Now(match list.map(|list| list.contains(recipient)) {
                    Some(true) => Existence::Known,
                    Some(false) => Existence::Unknown,
                    None => Existence::Undecided,
                })
            }
            RecipientSource::Server(n) => match lookups.servers.get(n) {
                Some(server) => self.ask(server, recipient, now),
                None => Found::Now(Existence::Undecided),
            },
        }
    }

    fn ask(&self, server: &RecipientServer, recipient: &Address, now: Timestamp) -> Found {
        let key = key_of(&server.endpoint.to_string(), recipient);
        match self.cache().get(&key, now) {
            Some(Remembered::Known) => return Found::Now(Existence::Known),
            Some(Remembered::Unknown) => return Found::Now(Existence::Unknown),
            Some(Remembered::KnownOnce) | None => {}
        }
        let asker = {
            let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Asker::new(server));
            Arc::clone(servers.entry(server.clone()).or_insert_with(new))
        };
        let (server, recipient) = (server.clone(), recipient.clone());
        Found::Later(Box::pin(async move {
            let answer = asker.ask(&recipient).await;
            Asked { server, key, answer }
        }))
    }

    /// Remembers what a server has answered. Without an answer, a recipient that was known once is known.
    pub(super) fn note(&self, asked: Asked, now: Timestamp, metrics: &Metrics) -> Existence {
        let Asked { server, key, answer } = asked;
        let (existence, result) = match answer {
            Ok(known) => {
                self.cache().insert(key, KnownOrNot { known, at: now });
                if known { (Existence::Known, "known") } else { (Existence::Unknown, "unknown") }
            }
            Err(error) => {
                limited_warn!(server = %server.endpoint, error, "a recipient cannot be looked up (inbound.recipients)");
                match self.cache().get(&key, now) {
                    Some(Remembered::Known | Remembered::KnownOnce) => (Existence::Known, "remembered"),
                    Some(Remembered::Unknown) | None => (Existence::Undecided, "undecided"),
                }
            }
        };
        metrics.lookups.get_or_create(&LookupLabels { result }).inc();
        existence
    }

    /// Puts back a recipient that an earlier process has kept, and when it was known.
    pub(crate) fn restore(&self, key: CacheKey, at: Timestamp) {
        self.cache().restore(key, at);
    }

    /// The recipients that have become known since the last call, and when. `None`: they are not known any more.
    pub(crate) fn take_changes(&self) -> Vec<(CacheKey, Option<Timestamp>)> {
        self.cache().take_changes()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
