//! A store in one file, by `redb`: copy on write, so that a crash leaves the last commit.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};

use super::api::{Change, Found, Removed, Store, StoreError, Table};

/// Octets of the file that are cached in memory.
const CACHE: usize = 4 << 20;

/// Time after which a file that could not be used is opened anew.
const RETRY: Duration = Duration::from_secs(5);

/// A store in one file.
pub(super) struct Embedded {
    /// `None` after an error of the system, until the file is opened anew: redb uses no file again that has failed.
    database: Mutex<Option<Arc<Database>>>,
    /// When it has failed.
    failed: Mutex<Option<Instant>>,
    path: PathBuf,
    max_size: u64,
}

impl Embedded {
    /// Opens the file, and makes it, with its folder, where there is none. A damaged file is moved aside.
    pub(super) fn open(path: &Path, max_size: u64, suffix: &str) -> Result<(Self, Found), StoreError> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| StoreError(format!("{what} {}: {error}", path.display()));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(folder)
                .map_err(|error| failed("cannot make the folder of", &error))?;
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut found = match made {
            Ok(_) => Found::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Found::Old,
            Err(error) => return Err(failed("cannot make", &error)),
        };
        // An empty file is what a full disk may leave.
        let is_lost = found == Found::Old && fs::metadata(path).is_ok_and(|file| file.len() == 0);
        let lost = || DatabaseError::Storage(StorageError::Corrupted("the file is empty".to_owned()));
        let database = match if is_lost { Err(lost()) } else { database(path) } {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(failed("another process has opened", &"is another daemon running?"));
            }
            Err(error) if is_of_the_system(&error) => return Err(failed("cannot open", &error)),
            // Whatever else is wrong with it, it is no store that this version can use.
            Err(_) => {
                let mut aside = path.to_owned().into_os_string();
                aside.push(format!(".bad-{suffix}"));
                fs::rename(path, &aside).map_err(|error| failed("cannot move aside the damaged", &error))?;
                let name = PathBuf::from(aside).file_name().map(|name| name.to_string_lossy().into_owned());
                found = Found::Damaged(name.unwrap_or_default());
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(|error| failed("cannot make", &error))?;
                database(path).map_err(|error| failed("cannot make", &error))?
            }
        };
        let database = Mutex::new(Some(Arc::new(database)));
        Ok((Self { database, failed: Mutex::default(), path: path.to_owned(), max_size }, found))
    }
}

impl Embedded {
    /// The open file.
    fn open_file(&self) -> Result<Arc<Database>, redb::Error> {
        let mut open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*open {
            return Ok(Arc::clone(database));
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some_and(|at| at.elapsed() < RETRY) {
            return Err(redb::Error::PreviousIo);
        }
        *failed = Some(Instant::now());
        // If the file is gone, a new one is for its owner alone, too.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .map_err(redb::Error::Io)?;
        let database = Arc::new(database(&self.path)?);
        *open = Some(Arc::clone(&database));
        Ok(database)
    }

    /// Closes the file after an error of the system, to open it anew later: a full disk gets room again.
    fn note<T>(&self, result: Result<T, redb::Error>) -> Result<T, StoreError> {
        if let Err(redb::Error::Io(_) | redb::Error::PreviousIo) = &result {
            let closed = self.database.lock().unwrap_or_else(PoisonError::into_inner).take();
            if closed.is_some() {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        }
        Ok(result?)
    }
}

/// Opens a file that may be empty. Damage that is seen only when tables are read counts as damage of the file, too.
fn database(path: &Path) -> Result<Database, DatabaseError> {
    let database = Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)?;
    let damaged = |error: redb::Error| DatabaseError::Storage(StorageError::Corrupted(error.to_string()));
    let read = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        for table in Table::ALL {
            for entry in write.open_table(definition(table))?.iter()? {
                entry?;
            }
        }
        write.commit()?;
        Ok(())
    };
    read().map_err(|error| match error {
        redb::Error::Io(error) => DatabaseError::Storage(StorageError::Io(error)),
        other => damaged(other),
    })?;
    Ok(database)
}

/// Whether the system refuses the file, so that nothing is known of what is in it. An end that comes too early is damage.
fn is_of_the_system(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) => {
            !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        }
        _ => false,
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        Self(error.to_string())
    }
}

impl Store for Embedded {
    fn scan(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let mut scan = || -> Result<(), redb::Error> {
            let read = self.open_file()?.begin_read()?;
            for entry in read.open_table(definition(table))?.iter()? {
                let (key, value) = entry?;
                each(key.value(), value.value());
            }
            Ok(())
        };
        self.note(scan())
    }

    fn scan_back(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let mut scan = || -> Result<(), redb::Error> {
            let read = self.open_file()?.begin_read()?;
            for entry in read.open_table(definition(table))?.iter()?.rev() {
                let (key, value) = entry?;
                if !each(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        };
        self.note(scan())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let get = || -> Result<Option<Vec<u8>>, redb::Error> {
            let read = self.open_file()?.begin_read()?;
            Ok(read.open_table(definition(table))?.get(key)?.map(|value| value.value().to_vec()))
        };
        self.note(get())
    }

    fn remove_before(&self, table: Table, bound: &[u8], most: usize) -> Result<Removed, StoreError> {
        let found = || -> Result<Vec<(Vec<u8>, usize)>, redb::Error> {
            let read = self.open_file()?.begin_read()?;
            let table = read.open_table(definition(table))?;
            let found = table.range::<&[u8]>(..bound)?.take(most).map(|entry| {
                let (key, value) = entry?;
                Ok((key.value().to_vec(), key.value().len() + value.value().len()))
            });
            found.collect()
        };
        let found = self.note(found())?;
        let removed = Removed { keys: found.len(), octets: found.iter().map(|(_, octets)| octets).sum() };
        let changes: Vec<Change> = found.into_iter().map(|(key, _)| Change { table, key, value: None }).collect();
        if !changes.is_empty() {
            self.commit(&changes)?;
        }
        Ok(removed)
    }

    fn is_full(&self) -> bool {
        // Pages that are free again are used again, and the file does not get smaller while it is open. Copy on write needs
        // room beside what is stored.
        let used = || -> Result<u64, redb::Error> {
            let read = self.open_file()?.begin_write()?;
            let stats = read.stats()?;
            read.abort()?;
            Ok(stats.stored_bytes())
        };
        fs::metadata(&self.path).is_ok_and(|file| file.len() > self.max_size)
            && used().is_ok_and(|used| used > self.max_size / 2)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let commit = || -> Result<(), redb::Error> {
            let mut write = self.open_file()?.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            for Change { table, key, value } in changes {
                let mut table = write.open_table(definition(*table))?;
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
            write.commit()?;
            Ok(())
        };
        self.note(commit())
    }
}
