//! Whether recipients exist, from a file or another server, with what is remembered of the answers.

mod asker;
mod cache;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use self::asker::Asker;
pub(crate) use self::asker::{ask_once, ask_server};
use self::cache::{Cache, Remembered, key_of};
pub(crate) use self::cache::{CacheKey, KeptAnswer};
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
    servers: Mutex<HashMap<RecipientServer, Arc<Asker>>>,
    cache: Mutex<Cache>,
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
        self.lists.rcu(|lists| {
            let mut lists = Lists::clone(lists);
            lists.insert(path.clone(), Arc::clone(&list));
            lists
        });
    }

    /// Whether the list of a file is in force.
    pub(crate) fn has_list(&self, path: &PathBuf) -> bool {
        self.lists.load().contains_key(path)
    }

    /// Forgets lists and servers that the config does not name, and closes connections that are idle.
    pub(crate) fn tidy(&self, lookups: &RecipientLookups) {
        if self.lists.load().keys().any(|path| !lookups.files.contains(path)) {
            self.lists.rcu(|lists| {
                let kept = lists.iter().filter(|(path, _)| lookups.files.contains(*path));
                kept.map(|(path, list)| (path.clone(), Arc::clone(list))).collect::<Lists>()
            });
        }
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
                self.cache().insert(key, KeptAnswer { known, at: now });
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

    /// Puts back an answer that an earlier process has kept.
    pub(crate) fn restore(&self, key: CacheKey, answer: KeptAnswer) {
        self.cache().restore(key, answer);
    }

    /// The answers that have changed since the last call. `None`: it is forgotten.
    pub(crate) fn take_changes(&self) -> Vec<(CacheKey, Option<KeptAnswer>)> {
        self.cache().take_changes()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
