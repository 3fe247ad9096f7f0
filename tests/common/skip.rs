//! Tests that a run skips, and the reasons. The output of a passing test is not shown, so the reasons are also written
//! to a file that `scripts/test` prints at its end.

use std::io::Write as _;

/// Records that a test, or part of it, is skipped because this machine lacks something that `scripts/test` installs if
/// it is root and has a network.
pub fn skip(test: &str, reason: &str) {
    note("SKIPPED", test, reason);
}

/// Records that a test is skipped because of something that `scripts/test` cannot provide: a folder beside the
/// checkout, IPv6, a kernel setting.
pub fn skip_for_good(test: &str, reason: &str) {
    note("NOT HERE", test, reason);
}

fn note(word: &str, test: &str, reason: &str) {
    let line = format!("{word} {test}: {reason}\n");
    eprint!("{line}");
    let Some(path) = std::env::var_os("COUNTERSIGN_SKIPPED") else { return };
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}
