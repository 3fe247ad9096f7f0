//! Keeps counters over a restart: bounces to each tag, guesses, and what became of mail in the last week.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::drive::app_state::AppState;
use crate::drive::history::{HOURS, Hour, number};
use crate::envelope::abuse::{ForgeryBudget, KeptCount, Replay};
use crate::envelope::time::{Day, Timestamp};
use crate::state::store::{Change, Store, StoreError, Table};

/// Key of what is kept of the memory of the rules as a whole.
const MEMORY: &[u8] = b"memory";

/// What is kept of the memory of the rules, apart from tags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredMemory {
    /// The key of the hashes of tags.
    key: [u64; 2],
    /// Since when tags are counted.
    since: i64,
    /// Bad tags.
    seen: u64,
    limited: u64,
    odds: f64,
    #[serde(default)]
    earlier_odds: f64,
    #[serde(default)]
    period: i64,
    said: usize,
}

impl StoredMemory {
    fn of(app: &AppState) -> Self {
        let memory = app.memory();
        let (key, since) = memory.replay.identity();
        let ForgeryBudget { seen, limited, odds, earlier_odds, period, said } = memory.guesses.budget();
        Self { key, since: since.0, seen, limited, odds, earlier_odds, period, said }
    }
}

/// Counters between a daemon and its store.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// What the store has of the memory.
    stored: Option<StoredMemory>,
    /// Tags in the store that are of no use any more.
    useless: Vec<Vec<u8>>,
    /// The hours in the store.
    hours: BTreeSet<i64>,
}

impl Counters {
    /// Puts back what an earlier process has counted.
    ///
    /// # Errors
    /// The store cannot be read; the counters begin anew.
    pub(super) fn restored(store: &dyn Store, app: &AppState) -> Result<Self, StoreError> {
        let mut counters = Self::default();
        let today = app.now().day();
        let memory = store.get(Table::Daemon, MEMORY)?;
        if let Some(stored) = memory.and_then(|text| serde_json::from_slice::<StoredMemory>(&text).ok()) {
            let mut replay = Replay::resumed(stored.key, Timestamp(stored.since));
            store.scan(Table::Replay, &mut |name, value| {
                let is_useful = <&[u8; 9]>::try_from(name)
                    .ok()
                    .zip(read(value))
                    .is_some_and(|(name, count)| replay.restore(name, count, today));
                if !is_useful {
                    counters.useless.push(name.to_vec());
                }
            })?;
            let mut memory = app.memory();
            memory.replay = replay;
            let StoredMemory { seen, limited, odds, earlier_odds, period, said, .. } = stored;
            memory.guesses.restore(ForgeryBudget { seen, limited, odds, earlier_odds, period, said });
            drop(memory);
            counters.stored = Some(stored);
        }
        let mut history = app.history();
        let oldest = number(app.now()).saturating_sub(HOURS);
        store.scan(Table::History, &mut |name, value| {
            let hour = name.try_into().ok().map(i64::from_be_bytes);
            counters.hours.extend(hour);
            let hour = hour.filter(|hour| *hour > oldest && *hour <= number(app.now()) + 1);
            if let Some((hour, counts)) = hour.zip(serde_json::from_slice::<Hour>(value).ok()) {
                history.restore(hour, counts);
            }
        })?;
        Ok(counters)
    }

    /// What has changed since the last call.
    pub(super) fn changes(&mut self, app: &AppState) -> Vec<Change> {
        let mut changes: Vec<Change> = std::mem::take(&mut self.useless)
            .into_iter()
            .map(|key| Change { table: Table::Replay, key, value: None })
            .collect();
        let memory = StoredMemory::of(app);
        if self.stored.as_ref() != Some(&memory) {
            let value = serde_json::to_vec(&memory).ok();
            changes.push(Change { table: Table::Daemon, key: MEMORY.to_vec(), value });
            self.stored = Some(memory);
        }
        changes.extend(app.memory().replay.take_changes().iter().map(change_of));
        for (hour, counts) in app.history().take_changes() {
            changes.push(Change { table: Table::History, key: key(hour), value: serde_json::to_vec(&*counts).ok() });
            self.hours.insert(hour);
        }
        let oldest = number(app.now()).saturating_sub(HOURS);
        let gone: Vec<i64> = self.hours.range(..=oldest).copied().collect();
        for hour in gone {
            self.hours.remove(&hour);
            changes.push(Change { table: Table::History, key: key(hour), value: None });
        }
        changes
    }
}

/// The key of an hour in the store.
fn key(hour: i64) -> Vec<u8> {
    hour.to_be_bytes().to_vec()
}

fn change_of(kept: &KeptCount) -> Change {
    let value = kept.count.map(|(recipients, bounces, until)| {
        [&recipients.to_be_bytes()[..], &bounces.to_be_bytes(), &until.0.to_be_bytes()].concat()
    });
    Change { table: Table::Replay, key: kept.name.to_vec(), value }
}

fn read(value: &[u8]) -> Option<(u32, u32, Day)> {
    let (recipients, rest) = value.split_first_chunk()?;
    let (bounces, until) = rest.split_first_chunk()?;
    let until = i64::from_be_bytes(until.try_into().ok()?);
    Some((u32::from_be_bytes(*recipients), u32::from_be_bytes(*bounces), Day(until)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_they_were_written() {
        let count = (7, 300, Day(20_779));
        let change = change_of(&KeptCount { name: [1; 9], count: Some(count) });
        assert_eq!(read(&change.value.unwrap()), Some(count));
        for broken in [&b""[..], &[0; 15], &[0; 17]] {
            assert_eq!(read(broken), None);
        }
    }
}
