//! What earlier versions have left and scripts read: configs, key rings, tags, state files, JSON and metrics. Each version
//! has recorded samples in `tests/samples/VERSION`; docs/compatibility.md has the promises.
//!
//! A release records its own: `COUNTERSIGN_RECORD=PROGRAM cargo test --test all compatibility::samples_are_recorded`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::abuse_counters::Site;
use crate::common::{PROGRAM, Sink, alone, dsn, folder, poll_for, reserved_port, run_ok, tcp};
use countersign::config::Config;
use countersign::envelope::address::Address;
use countersign::envelope::tag::{Verdict, batv, srs};
use countersign::envelope::time::Timestamp;
use countersign::state::ring_file;
use rustix::process::Signal;
use serde_json::{Value, json};

/// The samples of all versions.
fn versions() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn text(version: &Path, file: &str) -> String {
    fs::read_to_string(version.join(file)).unwrap_or_else(|error| panic!("{}/{file}: {error}", version.display()))
}

/// Output of a program in a folder, whatever it says of its input.
fn output(program: &Path, folder: &Path, arguments: &[&str]) -> String {
    let mut command = alone(Command::new(program));
    let output = command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Has a program do a little of everything, and records what it leaves and prints.
fn record(program: &Path) -> BTreeMap<String, Vec<u8>> {
    let (folder, sink, status) = (folder(), Sink::start(), reserved_port());
    let here = folder.path();
    let say = |arguments: &[&str]| output(program, here, arguments);
    for arguments in [
        &["keys", "init"][..],
        &["keys", "rotate"],
        &["keys", "ramp-start", "--at", "2026-01-01T00:00:00Z", "our.example"],
    ] {
        say(arguments);
    }
    let more = "domains.srs_domain = \"srs.our.example\"\ninbound.mode = \"ramp\"\ninbound.own_senders = \"any\"";
    let daemon = Site::daemon_by(Command::new(program), here, sink.port, status, more);
    let site = Site { folder, sink, daemon, status };
    let here = site.folder.path();
    let say = |arguments: &[&str]| output(program, here, arguments);
    let genuine = site.genuine_bounce();
    let tag = site.tag(false);
    for (to, message) in [("ann@our.example", dsn("failed")), ("ann@our.example", genuine), (&tag, dsn("failed"))] {
        let _ = site.from("203.0.113.7").send("", to, message.trim_end()).unwrap();
    }
    let _ = site.rcpt(&mut site.from("198.51.100.7"), "", &site.tag(true));
    let away = "Subject: Away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away";
    assert!(site.inbound().send("", "ann@our.example", away).unwrap().starts_with("250"));
    let trace = poll_for("the decisions", || {
        Some(say(&["trace", "--json", "ann@our.example"])).filter(|text| text.lines().count() >= 5)
    });
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    // Not the folder of the machine that records.
    let place = here.display().to_string();
    let mut keep = |name: &str, text: String| {
        files.insert(name.to_owned(), text.replace(&place, "/etc/countersign").into_bytes());
    };
    keep("trace.jsonl", trace);
    keep("status.json", say(&["status", "--json"]));
    for page in ["metrics", "observed", "readyz"] {
        keep(&format!("{page}.txt"), site.get(&format!("/{page}")));
    }
    keep("keys-list.jsonl", say(&["keys", "list", "--json"]));
    keep("check.json", say(&["check", "--json"]));
    let long = format!("{}@else.example", "x".repeat(60));
    keep("sign.jsonl", say(&["sign", "--json", "ann@our.example", "bob@else.example", &long]));
    let forged = site.tag(true);
    keep("verify.jsonl", say(&["verify", "--json", &tag, &forged, "ann@our.example", "nobody@else.example"]));
    let explained = [tag.as_str(), &forged, "ann@our.example"].map(|address| say(&["explain", "--json", address]));
    keep("explain.jsonl", explained.concat());
    fs::write(here.join("bounce.eml"), dsn("failed")).unwrap();
    fs::write(here.join("away.eml"), away).unwrap();
    keep("classify.jsonl", say(&["classify", "--json", "bounce.eml", "away.eml"]));
    fs::write(here.join("daemon.log"), site.daemon.log.all().join("\n") + "\n").unwrap();
    keep("report.json", say(&["report", "--json", "daemon.log"]));
    let srs = say(&["sign", "--json", "bob@else.example"]);
    let srs: Value = serde_json::from_str(srs.trim()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    keep("tags.json", json!({ "at": now, "batv": [tag], "srs": [srs["result"]] }).to_string());
    let Site { folder, daemon, .. } = site;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    for (name, path) in [
        ("ring.sample", "keys/ring.toml"),
        ("state.sample", "state/countersign.db"),
        ("config.sample", "countersign.toml"),
    ] {
        files.insert(name.to_owned(), fs::read(folder.path().join(path)).unwrap());
    }
    files
}

#[test]
fn samples_are_recorded() {
    let Some(program) = std::env::var_os("COUNTERSIGN_RECORD") else { return };
    let program = PathBuf::from(program);
    let version = output(&program, Path::new("/"), &["--version"]);
    let version = version.trim().rsplit(' ').next().unwrap();
    let into = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(version);
    fs::create_dir_all(&into).unwrap();
    for (name, octets) in record(&program) {
        fs::write(into.join(name), octets).unwrap();
    }
}

/// The types of all values in JSON, by their place. Elements of a list share one.
fn shape(value: &Value, place: &str, into: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "yes or no",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(list) => {
            list.iter().for_each(|one| shape(one, &format!("{place}[]"), into));
            "list"
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, one)| shape(one, &format!("{place}.{name}"), into));
            "object"
        }
    };
    into.entry(place.to_owned()).or_default().insert(kind);
}

fn shapes(text: &str) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut found = BTreeMap::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        shape(&value.unwrap(), "", &mut found);
    }
    found
}

#[test]
fn json_keeps_its_fields_and_metrics_their_names() {
    let now = record(Path::new(PROGRAM));
    for version in versions() {
        let names: Vec<String> =
            fs::read_dir(&version).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let json = names
            .iter()
            .filter(|name| name.contains(".json") || matches!(name.as_str(), "observed.txt" | "readyz.txt"));
        for name in json {
            let (old, new) = (shapes(&text(&version, name)), shapes(&String::from_utf8_lossy(&now[name])));
            for (place, kinds) in old {
                let found = new.get(&place).unwrap_or_else(|| panic!("{}/{name}: {place} is gone", version.display()));
                let kept =
                    kinds.iter().all(|kind| *kind == "nothing" || found.contains(kind) || found.contains("nothing"));
                assert!(kept, "{}/{name}: {place} was {kinds:?}, and is {found:?}", version.display());
            }
        }
        // A series of the same name and labels for each of the old ones.
        let series = |text: &str| -> BTreeSet<String> {
            let of = |line: &str| {
                let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap_or(""), ""));
                let labels: Vec<&str> =
                    labels.split('"').step_by(2).map(|part| part.trim_matches([',', '=', '}', ' '])).collect();
                format!("{name} {}", labels.join(" "))
            };
            text.lines()
                .filter(|line| line.starts_with("countersign_"))
                .map(|line| of(line).trim().to_owned())
                .collect()
        };
        let without_values = |text: &str| {
            series(text).into_iter().map(|one| one.split("  ").next().unwrap_or("").to_owned()).collect::<BTreeSet<_>>()
        };
        let gone: Vec<String> = without_values(&text(&version, "metrics.txt"))
            .difference(&without_values(&String::from_utf8_lossy(&now["metrics.txt"])))
            .cloned()
            .collect();
        assert!(gone.is_empty(), "{}: these metrics are gone: {gone:?}", version.display());
    }
}

#[test]
fn configs_rings_and_tags_of_earlier_versions_are_read() {
    for version in versions() {
        let folder = folder();
        fs::create_dir(folder.path().join("keys")).unwrap();
        for (name, path) in [("config.sample", "countersign.toml"), ("ring.sample", "keys/ring.toml")] {
            fs::copy(version.join(name), folder.path().join(path)).unwrap();
        }
        rustix::fs::chmod(folder.path().join("keys/ring.toml"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let config = Config::load(&folder.path().join("countersign.toml")).unwrap();
        assert_eq!(config.listeners.len(), 2, "{}", version.display());
        let ring = ring_file::load(&folder.path().join("keys/ring.toml")).unwrap();
        assert_eq!(ring.keys().len(), 2, "{}", version.display());
        run_ok(folder.path(), &["keys", "list"]);
        let tags: Value = serde_json::from_str(&text(&version, "tags.json")).unwrap();
        let day = Timestamp(tags["at"].as_i64().unwrap()).day();
        let list = |kind: &str| -> Vec<Address> {
            tags[kind].as_array().unwrap().iter().map(|tag| Address::parse(tag.as_str().unwrap()).unwrap()).collect()
        };
        for tag in list("batv") {
            let verdict = batv::verify(ring.keys(), &config.policy.batv, day, &tag);
            assert!(matches!(verdict, Verdict::Valid(_)), "{}: {tag}: {verdict:?}", version.display());
        }
        for tag in list("srs") {
            assert!(srs::looks_tagged(&tag.content()), "{tag}");
            // Reversed by the program as it is now, unless its time is over.
            let said = output(Path::new(PROGRAM), folder.path(), &["verify", "--json", tag.as_str()]);
            let said: Value = serde_json::from_str(said.trim()).unwrap();
            let verdict = said["verdict"].as_str().unwrap();
            assert!(matches!(verdict, "valid" | "expired"), "{}: {tag}: {said}", version.display());
        }
    }
}

#[test]
fn state_files_of_earlier_versions_are_read() {
    for version in versions() {
        if !crate::ramp::has_faketime("compatibility::state_files_of_earlier_versions_are_read") {
            return;
        }
        let (folder, sink, status) = (folder(), Sink::start(), reserved_port());
        for name in ["keys", "state"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (name, path) in [("ring.sample", "keys/ring.toml"), ("state.sample", "state/countersign.db")] {
            fs::copy(version.join(name), folder.path().join(path)).unwrap();
            rustix::fs::chmod(folder.path().join(path), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        }
        // On the day on which it was written: old decisions are removed.
        let tags: Value = serde_json::from_str(&text(&version, "tags.json")).unwrap();
        let then = tags["at"].as_i64().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let program = crate::ramp::at_offset(then + 60 - now);
        let daemon =
            Site::daemon_by(program, folder.path(), sink.port, status, "domains.srs_domain = \"srs.our.example\"");
        let ask = |arguments: &[&str]| output(Path::new(PROGRAM), folder.path(), arguments);
        let report: Value = serde_json::from_str(&ask(&["status", "--json"])).unwrap();
        let before: Value = serde_json::from_str(&text(&version, "status.json")).unwrap();
        for figure in ["signed", "genuine", "rescued", "refused", "refused_networks"] {
            assert_eq!(report[figure], before[figure], "{}: {figure}", version.display());
        }
        let since = format!("{}s", now - then + 86_400);
        let traced = ask(&["trace", "--json", "--since", &since, "ann@our.example"]);
        assert_eq!(
            traced.lines().count(),
            text(&version, "trace.jsonl").lines().count(),
            "{}: {traced}",
            version.display()
        );
        // The page shows them, too.
        let mut stream = tcp(status).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /why/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let page = std::io::read_to_string(stream).unwrap();
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        drop(daemon);
    }
}
