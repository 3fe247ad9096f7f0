//! Commands to a running daemon: `status`, `observe`, `reload`.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

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
    assert!(calm.contains("nothing refused in 24 hours") && calm.lines().count() <= 12, "{calm}");

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
    assert!(shown.contains("refused 4 in 24 hours: forged 3, untagged-ndr 1"), "{shown}");
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
    // The setting is written to the state file before the daemon is killed.
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
    // Another user, who has access to the socket by mistake.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--"]).arg(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(["status", "--control"]).arg(&socket).current_dir("/").output().unwrap();
    // The program may be in a folder that this user cannot enter.
    let said = text(&output);
    assert!(output.status.code() == Some(3) && said.contains("only root"), "{:?} {said}", output.status);
    assert!(status(&site)["version"].is_string());
}

#[test]
fn trace_finds_what_became_of_a_bounce() {
    let site = Site::start("domains.relay = [\"branch.example\"]", Some(ENFORCED));
    let mut client = site.inbound();
    let forged = site.tag(true);
    assert!(site.rcpt(&mut client, "", &forged).starts_with("550"));
    // Before the bounces that are waited for, so that it would be kept by then.
    assert!(site.rcpt(&mut client, "bob@third.example", "eve@branch.example").starts_with("250"));
    let original = "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: Ann <ann@our.example>\r\nMessage-ID: <77@our.example>\r\n\r\nx\r\n--b--\r\n";
    let bounce = dsn("failed").replace("--b--\r\n", original);
    assert!(client.send("", "ann@our.example", bounce.trim_end()).unwrap().starts_with("550"));
    // Ordinary mail leaves no trace.
    assert!(client.send("bob@third.example", "ann@our.example", "Subject: x\r\n\r\nx").unwrap().starts_with("250"));
    let trace = |site: &Site, arguments: &[&str]| {
        let all = [&["trace", "-c", "countersign.toml"], arguments].concat();
        run(site.folder.path(), &all)
    };
    let both = poll_for("both decisions", || {
        let said = text(&trace(&site, &["ann@our.example"]));
        (said.lines().count() >= 2).then_some(said)
    });
    let lines: Vec<&str> = both.lines().collect();
    assert_eq!(lines.len(), 2, "{both}");
    assert!(
        lines[0].contains("127.0.0.1  <> → prvs=") && lines[0].contains("refused: the tag was not made here"),
        "{both}"
    );
    assert!(lines[1].contains("refused: a bounce without a tag (dsn-failed)") && lines[1].contains("<77@our.example>"));
    assert_eq!(text(&trace(&site, &["<77@our.example>"])).trim_end(), lines[1]);
    assert_eq!(text(&trace(&site, &["127.0.0.1"])), both);
    let json = text(&trace(&site, &["--json", "<77@our.example>"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["reason"].as_str(), json["action"].as_str()), (Some("untagged-ndr"), Some("reject")));
    assert_eq!(trace(&site, &["eve@branch.example"]).status.code(), Some(1), "ordinary mail to a relay domain");
    let none = trace(&site, &["eve@our.example"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none).starts_with("nothing about eve@our.example is kept since 20"), "{}", text(&none));
    let wrong = trace(&site, &["what is this"]);
    assert_eq!(wrong.status.code(), Some(2));
    // The log also has the Message-ID of the returned original.
    site.daemon
        .log
        .wait("the original in the log", 0, |line| line.contains("\"returned_message_id\":\"<77@our.example>\""));

    // A daemon that is killed has lost no decisions.
    site.daemon.signal(Signal::KILL);
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    let daemon = Site::daemon(folder.path(), sink.port, status, "state.addresses = \"masked\"\nstate.decisions = 3");
    let site = Site { folder, sink, daemon, status };
    assert_eq!(text(&trace(&site, &["ann@our.example"])), both);
    // From now on, addresses are masked.
    assert!(site.rcpt(&mut site.inbound(), "", &forged).starts_with("550"));
    poll_for("a masked decision", || text(&trace(&site, &["127.0.0.1"])).contains("→ p…n@our.example").then_some(()));
    // Three decisions are kept.
    assert!(site.rcpt(&mut site.inbound(), "", &forged).starts_with("550"));
    poll_for("the oldest to go", || {
        let said = text(&trace(&site, &["127.0.0.1"]));
        (said.lines().count() == 3 && said.matches("→ p…n@our.example").count() == 2).then_some(())
    });
}

/// Replaces a piece of the config file of a running daemon.
fn edit(site: &Site, from: &str, to: &str) {
    let path = site.folder.path().join("countersign.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn reload_puts_a_changed_config_in_force_and_says_what_needs_a_restart() {
    let site = Site::start("inbound.mode = \"enforce\"", None);
    let forged = site.tag(true);
    // The new config applies to open sessions, too.
    let mut open = site.inbound();
    assert!(site.rcpt(&mut open, "", &forged).starts_with("550"));
    let reload = || run(site.folder.path(), &["reload", "-c", "countersign.toml"]);
    assert!(text(&reload()).starts_with("The config is as before."));

    edit(&site, "inbound.mode = \"enforce\"", "inbound.mode = \"observe\"\nlog.level = \"debug\"");
    let said = text(&run(site.folder.path(), &["status", "-c", "countersign.toml"]));
    assert!(said.contains("the config file has changed (inbound.mode): countersign reload"), "{said}");
    let said = text(&reload());
    assert!(said.contains("In force now: inbound.mode.\nAfter a restart: log.level.\n"), "{said}");
    assert!(site.rcpt(&mut open, "", &forged).starts_with("250"));
    let said = text(&run(site.folder.path(), &["status", "-c", "countersign.toml"]));
    assert!(said.contains("(log.level): restart the daemon"), "{said}");

    // An invalid config changes nothing, and the error names its line. SIGHUP has the effect of the command.
    edit(&site, "inbound.mode = \"observe\"", "inbound.mode = \"perhaps\"");
    let output = reload();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("countersign.toml:") && said.contains("`perhaps` is none of"), "{said}");
    assert!(said.contains("nothing has changed"), "{said}");
    assert!(site.rcpt(&mut open, "", &forged).starts_with("250"));
    edit(&site, "inbound.mode = \"perhaps\"", "inbound.mode = \"enforce\"");
    let before = site.daemon.log.all().len();
    site.daemon.signal(Signal::HUP);
    site.daemon.log.wait("the reload", before, |line| line.contains("\"changed\":\"inbound.mode\""));
    assert!(site.rcpt(&mut open, "", &forged).starts_with("550"));
}

/// Ends the load when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reload_drops_no_connection_under_load() {
    let site = Site::start("inbound.mode = \"enforce\"\noutbound.overflow = \"pass\"", None);
    let over = AtomicBool::new(false);
    let port = site.daemon.ports[0];
    let sent = std::thread::scope(|scope| {
        let client = || {
            let mut sent = 0;
            let mut client = crate::common::Client::connect(port);
            client.say("EHLO client.example");
            while !over.load(Ordering::Relaxed) {
                let reply = client.send("ann@our.example", "bob@third.example", "Subject: x\r\n\r\nx").unwrap();
                assert!(reply.starts_with("250"), "{reply}");
                sent += 1;
            }
            sent
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        // Also where an assertion fails.
        let ends = Over(&over);
        for n in 0..20 {
            let (from, to) = if n % 2 == 0 { ("pass", "sign") } else { ("sign", "pass") };
            edit(&site, &format!("outbound.overflow = \"{from}\""), &format!("outbound.overflow = \"{to}\""));
            let said = run_ok(site.folder.path(), &["reload", "-c", "countersign.toml"]);
            assert!(said.contains("In force now: outbound.overflow."), "{said}");
        }
        drop(ends);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
    });
    assert!(sent > 20, "{sent}");
    assert_eq!(site.metric("countersign_connections_total"), Some(4.0));
}

#[test]
fn observe_holds_where_the_config_enforces() {
    let site = Site::start("inbound.mode = \"enforce\"", None);
    let forged = site.tag(true);
    let reply = || site.rcpt(&mut site.inbound(), "", &forged);
    assert!(reply().starts_with("550"));
    run_ok(site.folder.path(), &["observe", "-c", "countersign.toml", "1h"]);
    assert!(reply().starts_with("250"));
    let output = run(site.folder.path(), &["status", "-c", "countersign.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("all domains are only observed until 20"), "{}", text(&output));
    run_ok(site.folder.path(), &["observe", "-c", "countersign.toml", "off"]);
    assert!(reply().starts_with("550"));
}

#[test]
fn a_reload_makes_no_open_relay() {
    let site = Site::start("inbound.mode = \"enforce\"", None);
    let port = site.daemon.ports[1];
    // In the file, foreign recipients are only for the clients that are named beside; the listener that runs has none.
    edit(&site, "inbound.mode = \"enforce\"", "inbound.mode = \"enforce\"\ninbound.foreign = \"pass\"");
    let path = site.folder.path().join("countersign.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("role = \"inbound\"\n", "role = \"inbound\"\nclients = [\"192.0.2.0/24\"]\n"))
        .unwrap();
    let said = run_ok(site.folder.path(), &["reload", "-c", "countersign.toml"]);
    assert!(said.contains("After a restart: inbound.foreign, listener[2].clients."), "{said}");
    let mut client = crate::common::Client::connect(port);
    client.say("EHLO client.example");
    let reply = site.rcpt(&mut client, "bob@third.example", "victim@else.example");
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
}
