//! A store in memory, for a daemon that keeps nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::api::{Change, Removed, Store, StoreError, Table};

/// Keys and values of all tables, for as long as the process runs.
#[derive(Default)]
pub(super) struct InMemory(Mutex<Entries>);

type Entries = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl Store for InMemory {
    fn scan(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, key), value) in all.iter().filter(|((of, _), _)| *of == table) {
            each(key, value);
        }
        Ok(())
    }

    fn scan_back(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest = all.iter().rev().filter(|((of, _), _)| *of == table);
        // What is left is not read.
        let _ = newest.all(|((_, key), value)| each(key, value));
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.get(&(table, key.to_vec())).cloned())
    }

    fn remove_before(&self, table: Table, bound: &[u8], most: usize) -> Result<Removed, StoreError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.range((table, Vec::new())..(table, bound.to_vec())).take(most);
        let found: Vec<_> = found.map(|(key, value)| (key.clone(), key.1.len() + value.len())).collect();
        let mut removed = Removed::default();
        for (key, octets) in found {
            all.remove(&key);
            removed = Removed { keys: removed.keys + 1, octets: removed.octets + octets };
        }
        Ok(removed)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Change { table, key, value } in changes {
            match value {
                Some(value) => all.insert((*table, key.clone()), value.clone()),
                None => all.remove(&(*table, key.clone())),
            };
        }
        Ok(())
    }
}
