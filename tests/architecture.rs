//! The boundaries between the layers: what the pure ones must not mention, and which imports are allowed.

#[path = "common/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn forbid(folder: &str, words: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let files = sources(&folder);
    assert!(!files.is_empty(), "{folder:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{}:{}: `{word}` does not belong here: {line}", file.display(), n + 1);
            }
        }
    }
}

const IMPURE: [&str; 10] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::io",
    "SystemTime",
    "Instant::now",
    "tracing",
    "getrandom",
    "std::env",
    "println!",
];

#[test]
fn the_core_knows_no_world() {
    forbid("envelope", &IMPURE);
    forbid(
        "envelope",
        &["crate::wire", "crate::drive", "crate::state", "crate::config", "crate::service", "crate::cli"],
    );
}

#[test]
fn the_logs_of_others_are_read_elsewhere() {
    forbid("mail_log", &IMPURE);
    forbid("mail_log", &["clap"]);
    forbid(
        "mail_log",
        &["crate::wire", "crate::drive", "crate::state", "crate::config", "crate::service", "crate::cli"],
    );
}

#[test]
fn pages_share_a_look_and_nothing_else() {
    forbid("html", &IMPURE);
    forbid("html", &["crate::envelope", "crate::wire", "crate::drive", "crate::state", "crate::service", "crate::cli"]);
}

#[test]
fn the_checks_of_a_probe_know_no_world() {
    forbid("probe", &IMPURE);
    forbid("probe", &["clap"]);
    forbid(
        "probe",
        &["crate::drive", "crate::state", "crate::config", "crate::service", "crate::cli", "crate::mail_log"],
    );
}

#[test]
fn the_machines_know_no_world() {
    forbid("wire", &IMPURE);
    forbid("wire", &["crate::drive", "crate::state", "crate::config", "crate::service", "crate::cli"]);
}

#[test]
fn the_drivers_do_not_reach_up() {
    forbid("drive", &["crate::service", "crate::cli", "crate::state"]);
    forbid("state", &["crate::drive", "crate::service", "crate::cli", "crate::wire"]);
    forbid("config", &["crate::drive", "crate::service", "crate::cli", "crate::wire"]);
}

#[test]
fn only_one_file_builds_runtimes() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src).into_iter().filter(|f| !f.ends_with("service/runtime.rs")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("runtime::Builder") && !text.contains("Runtime::new"), "{}", file.display());
    }
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("lib.rs", "mod a; pub use self::a::Shown;");
    file("a/mod.rs", "mod b; mod c; pub use self::b::Shown; #[cfg(test)] mod tests { use super::c::X; }");
    file("a/b.rs", "pub struct Shown; fn f() { super::c::g() }");
    file("a/c.rs", "pub(in crate::a) fn g() {}");
    assert_eq!(imports::Imports::of(folder.path()).circle(), None);
    file("a/c.rs", "use crate::Shown;");
    let circle = imports::Imports::of(folder.path()).circle().unwrap();
    assert!(
        circle.len() == 3 && circle.contains(&"a::b".to_owned()) && circle.contains(&"a::c".to_owned()),
        "{circle:?}"
    );
    let imports = imports::Imports::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(imports.len() > 300, "{}", imports.len());
    if let Some(circle) = imports.circle() {
        panic!("each of these imports the next: {}", circle.join(" -> "));
    }
}

/// Whether a line of code compares something with a string literal.
fn compares_words(line: &str) -> bool {
    let after = |operator: &str| line.split(operator).skip(1).any(|rest| rest.trim_start().starts_with('"'));
    let matches = line.split("matches!(").skip(1).any(|rest| rest.split(',').nth(1).is_some_and(|p| p.contains('"')));
    after("==") || after("!=") || matches
}

#[test]
fn words_are_for_people_and_decide_nothing() {
    assert!(compares_words("if outbound.reason == \"overflow\" {") && compares_words("matches!(x, \"a\" | \"b\")"));
    assert!(!compares_words("let a = \"b\";") && !compares_words("matches!(x, Reason::A)"));
    for folder in ["envelope/rules", "drive"] {
        for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for (n, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                assert!(!compares_words(line), "{}:{}: a word decides here: {line}", file.display(), n + 1);
            }
        }
    }
}
