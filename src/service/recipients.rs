//! Lists of recipients, which are read again when they change, and recipients that are known, which survive a restart.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::file_version::{Version, version};
use super::start_error::StartError;
use crate::config::RecipientLookups;
use crate::drive::app_state::AppState;
use crate::drive::recipients::CacheKey;
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
    for path in lookups.files.iter().filter(|path| app.recipients.entries(path).is_none()) {
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

/// Reads lists again when they change. Never ends. One with an error changes nothing, and neither does one that has lost
/// more than half of its entries, unless a reload asks for it: a program that writes it may have failed half-way.
pub(super) async fn watch(app: Arc<AppState>) {
    let mut seen: HashMap<PathBuf, Seen> = HashMap::new();
    let mut unnamed = HashSet::new();
    loop {
        let lookups = app.config().recipients.clone();
        app.recipients.tidy_servers(&lookups);
        // A reload puts lists in force before the config that names them.
        let now_unnamed = app.recipients.unnamed_lists(&lookups);
        let gone: HashSet<PathBuf> = now_unnamed.intersection(&unnamed).cloned().collect();
        if !gone.is_empty() {
            app.recipients.forget_lists(&gone);
        }
        unnamed = now_unnamed;
        seen.retain(|path, _| lookups.files.contains(path));
        let is_asked_for = app.recipients.take_reads_again();
        for path in lookups.files {
            let is_due = seen.entry(path.clone()).or_default().is_due(version(&path));
            if is_due || is_asked_for {
                read_again(&app, path, is_asked_for).await;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn read_again(app: &AppState, path: PathBuf, is_asked_for: bool) {
    let here = path.clone();
    let read = tokio::task::spawn_blocking(move || recipient_file::load(&here)).await;
    let list = match read.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(list) => list,
        Err(error) => {
            error!(error, "a list of recipients cannot be loaded; the last good one stays in force");
            return app.recipients.refuse_list(path, error);
        }
    };
    match app.recipients.entries(&path) {
        Some(before) if !is_asked_for && list.len() < before / 2 => {
            let (shown, entries) = (path.display().to_string(), list.len());
            error!(
                path = shown,
                entries,
                before,
                "a list of recipients has lost more than half of its entries; the last one stays in force. To accept it, run countersign reload"
            );
            let why =
                format!("{shown}: it has {entries} entries, and had {before}; to accept that: countersign reload");
            app.recipients.refuse_list(path, why);
        }
        _ => put_in_force(app, &path, list),
    }
}

/// Puts back the recipients that an earlier process knew.
///
/// # Errors
/// The store cannot be read.
pub(super) fn restore(store: &dyn Store, app: &AppState) -> Result<(), StoreError> {
    store.scan(Table::Recipient, &mut |key, value| {
        if let (Ok(key), Some(at)) = (CacheKey::try_from(key), read(value)) {
            app.recipients.restore(key, at);
        }
    })
}

/// The recipients that have become known since the last call, or are not any more.
pub(super) fn changes(app: &AppState) -> impl Iterator<Item = Change> {
    app.recipients.take_changes().into_iter().map(|(key, at)| Change {
        table: Table::Recipient,
        key: key.to_vec(),
        value: at.map(|at| at.0.to_be_bytes().to_vec()),
    })
}

/// The moment in a store at which a recipient was known.
fn read(value: &[u8]) -> Option<Timestamp> {
    Some(Timestamp(i64::from_be_bytes(value.try_into().ok()?)))
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
}
