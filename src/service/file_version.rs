//! Whether a file has changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Identifies a version of a file; `None` if the file cannot be found.
pub(super) type Version = Option<(u64, i64, i64, i64, i64, u64)>;

/// The version of a file.
pub(super) fn version(path: &Path) -> Version {
    let m = fs::metadata(path).ok()?;
    // ctime shows changes of owner and mode.
    Some((m.ino(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.size()))
}
