//! Lists of recipients, which are read again when they change, and answers about recipients, which survive a restart.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::file_version::{Version, version};
use super::start_error::StartError;
use crate::config::RecipientLookups;
use crate::drive::app_state::AppState;
use crate::drive::recipients::{CacheKey, KeptAnswer};
use crate::envelope::recipient_list::RecipientList;
use crate::envelope::time::Timestamp;
use crate::state::recipient_file;
use crate::state::store::{Change, Store, StoreError, Table};

const INTERVAL: Duration = Duration::from_secs(1);

/// Puts the lists in force that are not yet.
///
/// # Errors
/// A list cannot be read.
pub(super) fn load(app: &AppState, lookups: &RecipientLookups) -> Result<(), StartError> {
    for path in lookups.files.iter().filter(|path| !app.recipients.has_list(path)) {
        let list = recipient_file::load(path).map_err(StartError::Recipients)?;
        put_in_force(app, path, list);
    }
    Ok(())
}

fn put_in_force(app: &AppState, path: &Path, list: RecipientList) {
    info!(path = %path.display(), entries = list.len(), "list of recipients loaded");
    app.recipients.set_list(path.to_owned(), list);
}

/// A list, as it was last seen.
#[derive(Debug, Default)]
struct Seen {
    /// What was last looked at.
    now: Version,
    /// What was last read.
    read: Version,
}

impl Seen {
    /// Whether a file is to be read: it has changed, and was the same at the last look. A file that is being written is not
    /// read before that has ended.
    fn is_due(&mut self, now: Version) -> bool {
        let is_at_rest = std::mem::replace(&mut self.now, now) == now;
        let is_due = is_at_rest && self.read != now;
        if is_due {
            self.read = now;
        }
        is_due
    }
}

/// Reads lists again when they change. Never ends. One with an error changes nothing.
pub(super) async fn watch(app: Arc<AppState>) {
    let mut seen: HashMap<PathBuf, Seen> = HashMap::new();
    loop {
        let lookups = app.config().recipients.clone();
        app.recipients.tidy(&lookups);
        seen.retain(|path, _| lookups.files.contains(path));
        for path in lookups.files {
            if !seen.entry(path.clone()).or_default().is_due(version(&path)) {
                continue;
            }
            let here = path.clone();
            match tokio::task::spawn_blocking(move || recipient_file::load(&here)).await {
                Ok(Ok(list)) => put_in_force(&app, &path, list),
                Ok(Err(error)) => {
                    error!(error, "a list of recipients cannot be loaded; the last good one stays in force");
                }
                Err(error) => error!(%error, "a list of recipients cannot be loaded; the last good one stays in force"),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Puts back the answers that an earlier process has kept, and removes those that are of no use.
///
/// # Errors
/// The store cannot be read or written.
pub(super) fn restore(store: &dyn Store, app: &AppState) -> Result<(), StoreError> {
    let mut useless = Vec::new();
    store.scan(Table::Recipient, &mut |key, value| match (CacheKey::try_from(key).ok(), read(value)) {
        (Some(key), Some(answer)) if answer.known => app.recipients.restore(key, answer),
        // An unknown recipient is asked for again after minutes anyway.
        _ => useless.push(Change { table: Table::Recipient, key: key.to_vec(), value: None }),
    })?;
    if useless.is_empty() { Ok(()) } else { store.commit(&useless) }
}

/// The answers that have changed since the last call.
pub(super) fn changes(app: &AppState) -> impl Iterator<Item = Change> {
    app.recipients.take_changes().into_iter().map(|(key, answer)| Change {
        table: Table::Recipient,
        key: key.to_vec(),
        value: answer.map(written),
    })
}

/// An answer in a store: whether the recipient is known, and when that was answered.
fn written(answer: KeptAnswer) -> Vec<u8> {
    std::iter::once(u8::from(answer.known)).chain(answer.at.0.to_be_bytes()).collect()
}

fn read(value: &[u8]) -> Option<KeptAnswer> {
    let (known, at) = value.split_first()?;
    let at = i64::from_be_bytes(at.try_into().ok()?);
    Some(KeptAnswer { known: *known == 1, at: Timestamp(at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_come_to_rest() {
        let at = |n: u64| Some((n, 0, 0, 0, 0, 0));
        let mut seen = Seen::default();
        let steps = [(at(1), false), (at(1), true), (at(1), false), (at(2), false), (at(3), false), (at(3), true)];
        for (step, (version, is_due)) in steps.into_iter().enumerate() {
            assert_eq!(seen.is_due(version), is_due, "{step}");
        }
        // One that is gone for a while is reported once, and read again.
        for (step, (version, is_due)) in
            [(None, false), (None, true), (None, false), (at(3), false), (at(3), true)].into_iter().enumerate()
        {
            assert_eq!(seen.is_due(version), is_due, "{step}");
        }
    }

    #[test]
    fn an_answer_is_kept_as_it_was() {
        for answer in
            [KeptAnswer { known: true, at: Timestamp(-7) }, KeptAnswer { known: false, at: Timestamp(1 << 40) }]
        {
            assert_eq!(read(&written(answer)), Some(answer));
        }
        for broken in [&[][..], &[1], &[1; 10]] {
            assert_eq!(read(broken), None);
        }
    }
}
