//! What a run leaves out, and why. The output of a test that passes is not shown, so it also goes into a file that
//! `scripts/test` prints at its end.

use std::io::Write as _;

/// Says that a test, or a part of it, does not run because this machine lacks something that `scripts/test` installs
/// where it is root and has a network.
pub fn skip(test: &str, reason: &str) {
    note("SKIPPED", test, reason);
}

/// The same for what `scripts/test` cannot provide: a folder beside the checkout, IPv6, a setting of the kernel.
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
