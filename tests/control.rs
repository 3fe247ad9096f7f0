//! Commands to a running daemon: `status`, `observe`, `reload`.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Output;

use crate::abuse_counters::Site;
use crate::common::{dsn, poll_for, run, run_ok, skip};
use rustix::process::Signal;

const ENFORCED: &str = "2026-01-01T00:00:00Z";

fn status(site: &Site) -> serde_json::Value {
    let output = run(site.folder.path(), &["status", "--json", "-c", "countersign.toml"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn status_shows_what_was_refused_and_why() {
    let site = Site::start("", Some(ENFORCED));
    let output = run(site.folder.path(), &["status", "-c", "countersign.toml"]);
    let calm = text(&output);
    assert_eq!(output.status.code(), Some(0), "{calm}");
    assert!(calm.contains("is working") && calm.contains("our.example: enforced"), "{calm}");
    assert!(calm.contains("nothing refused since the start") && calm.lines().count() <= 12, "{calm}");

    let (forged, mut client) = (site.tag(true), site.inbound());
    for _ in 0..3 {
        assert!(site.rcpt(&mut client, "", &forged).starts_with("550"));
    }
    let reply = client.send("", "ann@our.example", dsn("failed").trim_end()).unwrap();
    assert!(reply.starts_with("550"), "{reply}");
    let report = status(&site);
    assert_eq!(report["refused"], serde_json::json!([["forged", 3], ["untagged-ndr", 1]]));
    assert_eq!(report["refused_networks"], serde_json::json!([["127.0.0.0/24", 4]]));
    assert_eq!(report["refused_domains"], serde_json::json!([["our.example", 4]]));
    let hours: u64 = report["refused_by_hour"].as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(hours, 4);
    let shown = text(&run(site.folder.path(), &["status", "-c", "countersign.toml"]));
    assert!(shown.contains("refused 4 since the start: forged 3, untagged-ndr 1"), "{shown}");
    assert!(shown.contains("by domain: our.example 4") && shown.contains("most in an hour: "), "{shown}");

    drop(site.daemon);
    let gone = run(site.folder.path(), &["status", "-c", "countersign.toml"]);
    assert_eq!(gone.status.code(), Some(3), "{}", text(&gone));
    assert!(text(&gone).contains("no running daemon answers"), "{}", text(&gone));
}

#[test]
fn observe_holds_for_its_time_and_over_a_restart() {
    let site = Site::start("", Some(ENFORCED));
    let forged = site.tag(true);
    let reply = |site: &Site| site.rcpt(&mut site.inbound(), "", &forged);
    assert!(reply(&site).starts_with("550"));
    let said = run_ok(site.folder.path(), &["observe", "-c", "countersign.toml", "2h"]);
    assert!(said.starts_with("All domains are observed until 20"), "{said}");
    assert!(reply(&site).starts_with("250"));
    let output = run(site.folder.path(), &["status", "-c", "countersign.toml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("end that with: countersign observe off"), "{}", text(&output));
    // The state file has it before the daemon is killed.
    let state = site.folder.path().join("state/countersign.db");
    let written = std::fs::metadata(&state).unwrap().mtime();
    poll_for("the state file", || (std::fs::metadata(&state).unwrap().mtime() > written).then_some(()));
    site.daemon.signal(Signal::KILL);
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    let daemon = Site::daemon(folder.path(), sink.port, status, "");
    let site = Site { folder, sink, daemon, status };
    assert!(reply(&site).starts_with("250"), "the daemon has forgotten it");
    let said = run_ok(site.folder.path(), &["observe", "-c", "countersign.toml", "off"]);
    assert!(said.contains("our.example: enforced"), "{said}");
    assert!(reply(&site).starts_with("550"));
    for (time, wrong) in [("32d", "at most 31 days"), ("soon", "write a number with s, m, h or d")] {
        let output = run(site.folder.path(), &["observe", "-c", "countersign.toml", time]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(wrong), "{}", text(&output));
    }
}

#[test]
fn reload_reads_the_ring_again() {
    let site = Site::start("", None);
    let said = run_ok(site.folder.path(), &["reload", "-c", "countersign.toml"]);
    assert!(said.contains("are read again"), "{said}");
    site.daemon.log.wait("the ring", 0, |line| line.contains("key ring loaded"));
}

#[test]
fn only_root_and_the_own_user_may_ask() {
    let site = Site::start("", None);
    let socket = site.folder.path().join("run/countersign.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    if !rustix::process::geteuid().is_root() {
        return skip::skip("only_root_and_the_own_user_may_ask", "only root can run a program as another user");
    }
    // Another user, to whom the socket was given by mistake.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--"]).arg(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(["status", "--control"]).arg(&socket).current_dir("/").output().unwrap();
    // The program itself may be in a folder that this user cannot enter.
    let said = text(&output);
    assert!(output.status.code() == Some(3) && said.contains("only root"), "{:?} {said}", output.status);
    assert!(status(&site)["version"].is_string());
}
