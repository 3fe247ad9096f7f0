//! The systemd unit: how much it leaves open, whether systemd understands it, and whether the daemon works under its
//! filter of system calls.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{PROGRAM, can_run, folder, which};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new(which("systemd-analyze").unwrap()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The values of a key in a unit, in order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let prefix = format!("{key}=");
    unit.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn the_unit_leaves_little_open() {
    if !can_run(&["systemd-analyze"], "systemd-analyze security") {
        return;
    }
    let unit = packaging().join("countersign.service");
    // In tenths: 1.3.
    let score = analyze(&["security", "--offline=true", "--threshold=13", unit.to_str().unwrap()]);
    assert!(score.status.success(), "{}", said(&score));
}

#[test]
fn systemd_understands_the_units() {
    if !can_run(&["systemd-analyze"], "systemd-analyze verify") {
        return;
    }
    let folder = folder();
    for name in ["countersign.service", "countersign.socket"] {
        let text = fs::read_to_string(packaging().join(name)).unwrap();
        // The program is not installed here.
        fs::write(folder.path().join(name), text.replace("/usr/local/bin/countersign", PROGRAM)).unwrap();
    }
    for name in ["countersign.service", "countersign.socket"] {
        let path = folder.path().join(name);
        let output = analyze(&["verify", "--man=no", path.to_str().unwrap()]);
        let words = said(&output);
        // systemd before 253 does not know this type, and keeps the line above it.
        let known = |line: &&str| line.contains("Failed to parse service type, ignoring: notify-reload");
        let ours = words.lines().filter(|line| line.contains("countersign") && !known(line));
        assert_eq!(ours.collect::<Vec<_>>(), [""; 0], "{name}");
        assert!(output.status.success(), "{name}: {words}");
    }
}

#[test]
fn users_and_folders_are_made_as_the_files_say() {
    if !can_run(&["systemd-sysusers", "systemd-tmpfiles"], "sysusers and tmpfiles") {
        return;
    }
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let root = folder();
    for sub in ["etc", "var/spool/postfix"] {
        fs::create_dir_all(root.path().join(sub)).unwrap();
    }
    fs::write(root.path().join("etc/group"), "postfix:x:4711:\n").unwrap();
    let here = format!("--root={}", root.path().display());
    let made = |program: &str, arguments: &[&str]| {
        let output = Command::new(which(program).unwrap()).arg(&here).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", said(&output));
    };
    let file = |name: &str| packaging().join(name).to_str().unwrap().to_owned();
    made("systemd-sysusers", &[&file("countersign.sysusers")]);
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user = users.lines().find(|line| line.starts_with("countersign:")).unwrap_or_else(|| panic!("{users}"));
    assert!(user.ends_with(":Countersign:/var/lib/countersign:/usr/sbin/nologin"), "{user}");
    let uid: u32 = user.split(':').nth(2).unwrap().parse().unwrap();
    made("systemd-tmpfiles", &["--create", &file("countersign.tmpfiles"), &file("countersign-postfix.tmpfiles")]);
    let about = |path: &str| {
        let about = fs::metadata(root.path().join(path)).unwrap();
        (about.uid(), about.permissions().mode() & 0o7777)
    };
    assert_eq!(about("etc/countersign"), (0, 0o755));
    assert_eq!(about("etc/countersign/keys"), (uid, 0o700));
    assert_eq!(about("var/spool/postfix/countersign"), (uid, 0o2710));
    assert_eq!(fs::metadata(root.path().join("var/spool/postfix/countersign")).unwrap().gid(), 4711);
}

#[test]
fn the_program_is_installed_and_removed_by_one_command() {
    if !can_run(&["systemd-sysusers", "systemd-tmpfiles"], "scripts/install") {
        return;
    }
    let root = folder();
    let build = root.path().join("build/release");
    fs::create_dir_all(&build).unwrap();
    fs::create_dir_all(root.path().join("root/etc")).unwrap();
    fs::create_dir_all(root.path().join("root/var/spool/postfix")).unwrap();
    fs::write(root.path().join("root/etc/group"), "postfix:x:4711:\n").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install");
    let install = |arguments: &[&str]| {
        let mut command = Command::new(&script);
        command.env("DESTDIR", root.path().join("root")).env("CARGO_TARGET_DIR", root.path().join("build"));
        command.args(arguments).output().unwrap()
    };
    let early = install(&[]);
    assert!(
        early.status.code() == Some(1) && said(&early).contains("first: cargo build --release"),
        "{}",
        said(&early)
    );
    fs::copy(PROGRAM, build.join("countersign")).unwrap();
    let made = install(&[]);
    assert!(made.status.success(), "{}", said(&made));
    let is_there = |path: &str| root.path().join("root").join(path).exists();
    let files =
        ["usr/local/bin/countersign", "etc/systemd/system/countersign.service", "etc/tmpfiles.d/countersign.conf"];
    assert!(files.into_iter().all(is_there) && is_there("etc/countersign/keys"), "{}", said(&made));
    assert!(is_there("var/spool/postfix/countersign"), "{}", said(&made));
    assert!(install(&[]).status.success(), "a second time");
    assert!(install(&["--remove"]).status.success());
    assert!(!files.into_iter().any(is_there) && is_there("etc/countersign/keys"));
}

/// The calls in a list such as `@system-service` or `chown`, groups resolved.
fn calls(names: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in names.split_whitespace() {
        if !name.starts_with('@') {
            all.insert(name.to_owned());
            continue;
        }
        let group = analyze(&["syscall-filter", name]);
        assert!(group.status.success(), "{name}: {}", said(&group));
        let text = String::from_utf8(group.stdout).unwrap();
        let members: Vec<&str> =
            text.lines().skip(1).map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#')).collect();
        all.extend(calls(&members.join(" ")));
    }
    all
}

/// What the unit allows, as systemd adds and takes away, line by line.
fn allowed() -> BTreeSet<String> {
    let unit = fs::read_to_string(packaging().join("countersign.service")).unwrap();
    // These are always allowed, and may be taken away.
    let mut allowed = calls("@default");
    for line in values(&unit, "SystemCallFilter") {
        match line.strip_prefix('~') {
            Some(less) => allowed = &allowed - &calls(less),
            None => allowed.extend(calls(&line)),
        }
    }
    allowed
}

/// The tests that are run once more with each daemon under the filter: mail through proxies, TLS, milter, maps, reloads,
/// a drain, and what is written. `scripts/unit-filter` runs all.
const UNDER_THE_FILTER: [&str; 6] = [
    "recipes::postfix_with_the_milter",
    "recipes::postfix_behind_port_25",
    "recipes::exim_with_the_map",
    "control::",
    "long_srs::",
    "lifecycle::the_service_manager",
];

#[test]
fn the_daemon_works_under_the_filter_of_the_unit() {
    if !can_run(&["systemd-analyze", "postfix"], "the daemon under the system-call filter of the unit") {
        return;
    }
    let folder = folder();
    let list = folder.path().join("calls");
    fs::write(&list, allowed().into_iter().collect::<Vec<_>>().join("\n")).unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    match std::env::var_os("COUNTERSIGN_UNDER_FILTER") {
        Some(_) => again.args(["--skip", "unit::"]),
        None => again.args(UNDER_THE_FILTER),
    };
    again.env("COUNTERSIGN_UNDER_CALLS", &list).env_remove("COUNTERSIGN_SKIPPED");
    let output = again.output().unwrap();
    let words = said(&output);
    assert!(output.status.success(), "{words}");
    let count = words.lines().find_map(|line| line.strip_prefix("running ")?.split(' ').next()?.parse::<usize>().ok());
    assert!(count.is_some_and(|count| count > 15), "{words}");
}

/// The filter is in force in these tests: a call that is not in the list ends the process.
#[test]
fn the_filter_of_the_unit_is_in_force() {
    if !can_run(&["systemd-analyze", "chown"], "the system-call filter of the unit") {
        return;
    }
    use std::os::unix::process::ExitStatusExt as _;
    let folder = folder();
    let list = folder.path().join("calls");
    fs::write(&list, allowed().into_iter().collect::<Vec<_>>().join("\n")).unwrap();
    let under = |arguments: &[&str]| {
        let mut command = crate::common::under_filter(&list);
        command.args(arguments).current_dir(folder.path()).output().unwrap()
    };
    let version = under(&[PROGRAM, "--version"]);
    assert!(version.status.success(), "{}", said(&version));
    let chown = which("chown").unwrap();
    let ended = under(&[chown.to_str().unwrap(), "nobody", "calls"]);
    assert_eq!(ended.status.signal(), Some(nix::libc::SIGSYS), "{}", said(&ended));
}
