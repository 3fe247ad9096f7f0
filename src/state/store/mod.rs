//! What the daemon keeps beside the key ring: what must survive a restart, but may be lost without harm to mail.
//!
//! Everything goes through [`Store`]: keys and values in a few tables, changed in batches that are written whole or not
//! at all. [`open`] gives the file that the config names; where that cannot be used, it gives memory and says why. Only
//! mail that needs an alias waits for a store.

mod api;
mod embedded;
mod memory;

use std::path::Path;

pub(crate) use self::api::{Change, Found, Removed, Store, StoreError, Table};
use self::embedded::Embedded;
use self::memory::InMemory;

/// A store, and how it was found.
pub(crate) struct Opened {
    /// The store.
    pub store: Box<dyn Store>,
    /// How it was found.
    pub found: Found,
}

/// Opens the store in this file, and makes it where there is none. `None`: in memory. `max_size` is the largest size of
/// the file, in octets. `suffix` is appended to the name of a damaged file.
pub(crate) fn open(path: Option<&Path>, max_size: u64, suffix: &str) -> Opened {
    let Some(path) = path else { return in_memory(Found::InMemory) };
    match Embedded::open(path, max_size, suffix) {
        Ok((store, found)) => Opened { store: Box::new(store), found },
        Err(error) => in_memory(Found::Unusable(error.0)),
    }
}

fn in_memory(found: Found) -> Opened {
    Opened { store: Box::new(InMemory::default()), found }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const MAX: u64 = 64 << 20;

    fn put(key: &str, value: &str) -> Change {
        Change { table: Table::Ramp, key: key.into(), value: Some(value.into()) }
    }

    fn all(store: &dyn Store) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        store.scan(Table::Ramp, &mut |key, value| found.push((text(key), text(value)))).unwrap();
        found
    }

    #[test]
    fn what_is_committed_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/countersign.db");
        let opened = open(Some(&path), MAX, "x");
        assert_eq!(opened.found, Found::New);
        opened.store.commit(&[put("b", "2"), put("a", "1"), put("c", "3")]).unwrap();
        let removed = Change { table: Table::Ramp, key: b"c".into(), value: None };
        opened.store.commit(&[removed, put("b", "two")]).unwrap();
        let expected = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "two".to_owned())];
        assert_eq!(all(&*opened.store), expected);
        // Not closed in an orderly way.
        std::mem::forget(opened);
        let copy = folder.path().join("state/copy.db");
        fs::copy(&path, &copy).unwrap();
        let opened = open(Some(&copy), MAX, "x");
        assert_eq!(opened.found, Found::Old);
        assert_eq!(all(&*opened.store), expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countersign.db");
        for damage in [b"not a store".to_vec(), vec![0; 8192], vec![0xff; 100_000]] {
            fs::write(&path, &damage).unwrap();
            let opened = open(Some(&path), MAX, "2026-11-27");
            assert_eq!(opened.found, Found::Damaged("countersign.db.bad-2026-11-27".into()));
            opened.store.commit(&[put("a", "1")]).unwrap();
            assert_eq!(all(&*opened.store).len(), 1);
            assert_eq!(fs::read(folder.path().join("countersign.db.bad-2026-11-27")).unwrap(), damage);
        }
    }

    #[test]
    fn a_file_that_is_cut_or_overwritten_is_damaged_or_still_whole() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole.db");
        let opened = open(Some(&whole), MAX, "x");
        for n in 0..200 {
            opened.store.commit(&[put(&format!("key {n}"), &"x".repeat(100))]).unwrap();
        }
        drop(opened);
        let octets = fs::read(&whole).unwrap();
        for at in (0..octets.len()).step_by(octets.len() / 40) {
            for cut in [true, false] {
                let path = folder.path().join("damaged.db");
                let mut damaged = octets.clone();
                if cut {
                    damaged.truncate(at);
                } else {
                    damaged.iter_mut().skip(at).take(600).for_each(|octet| *octet = !*octet);
                }
                fs::write(&path, damaged).unwrap();
                let opened = open(Some(&path), MAX, "x");
                let mut count = 0;
                // Damage that is met later is an error, and never a crash.
                let read = opened.store.scan(Table::Ramp, &mut |_, _| count += 1);
                assert!(opened.found != Found::Old || read.is_err() || count == 200, "{at} {cut} {count}");
                let _ = opened.store.commit(&[put("a", "1")]);
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_had_leaves_memory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        // A folder that is a file, and a file that is a folder.
        for path in [file.join("countersign.db"), folder.path().to_owned()] {
            let opened = open(Some(&path), MAX, "x");
            assert!(matches!(opened.found, Found::Unusable(_)), "{:?}", opened.found);
            opened.store.commit(&[put("a", "1")]).unwrap();
            assert_eq!(all(&*opened.store).len(), 1);
        }
        assert_eq!(open(None, MAX, "x").found, Found::InMemory);
        // Another daemon has it open.
        let path = folder.path().join("countersign.db");
        let first = open(Some(&path), MAX, "x");
        assert_eq!(first.found, Found::New);
        let Found::Unusable(why) = open(Some(&path), MAX, "x").found else { panic!("two daemons share a file") };
        assert!(why.contains("another process"), "{why}");
    }

    #[test]
    fn a_full_store_says_so_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countersign.db");
        let opened = open(Some(&path), 2 << 20, "x");
        let filled = (0..200).find(|n| {
            opened.store.commit(&[put(&format!("key {n}"), &"x".repeat(50_000))]).unwrap();
            opened.store.is_full()
        });
        assert!(filled.is_some_and(|n| n < 60), "{filled:?}");
        // What is needed is still written, and what is removed makes room.
        let removed = (0..200).map(|n| Change { table: Table::Ramp, key: format!("key {n}").into(), value: None });
        opened.store.commit(&removed.chain([put("needed", "1")]).collect::<Vec<_>>()).unwrap();
        assert!(!opened.store.is_full());
        assert_eq!(all(&*opened.store).len(), 1);
    }
}
