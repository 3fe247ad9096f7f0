//! Commands to a running daemon: `status`, `observe`, `reload`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abuse_counters::Site;
use crate::common::next_hop::Does::SaysAndCloses;
use crate::common::tls::certificate_for_days;
use crate::common::wait::wait_for_state;
use crate::common::{At, Client, Daemon, NextHop, Sink, dsn, folder, poll_for, reserved_port, run, run_ok, skip, tcp};
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
    wait_for_state(site.folder.path(), || site.send());
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

    edit(&site, "inbound.mode = \"enforce\"", "inbound.mode = \"observe\"\nstate.max_size = \"1 GiB\"");
    let said = text(&run(site.folder.path(), &["status", "-c", "countersign.toml"]));
    assert!(said.contains("the config file has changed (inbound.mode): countersign reload"), "{said}");
    let said = text(&reload());
    assert!(said.contains("In force now: inbound.mode.\nAfter a restart: state.max_size.\n"), "{said}");
    assert!(site.rcpt(&mut open, "", &forged).starts_with("250"));
    let said = text(&run(site.folder.path(), &["status", "-c", "countersign.toml"]));
    assert!(said.contains("(state.max_size): restart the daemon"), "{said}");

    let check = || text(&run(site.folder.path(), &["check", "-c", "countersign.toml"]));
    let said = check();
    assert!(
        said.contains("Running for ") && said.contains("differs from the file in state.max_size (restart it)"),
        "{said}"
    );
    edit(&site, "\nstate.max_size = \"1 GiB\"", "");
    let said = check();
    assert!(said.contains("is equal to the file"), "{said}");

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
    let site =
        Site::start("inbound.mode = \"enforce\"\noutbound.overflow = \"pass\"\ntimeouts.connect = \"10s\"", None);
    let over = AtomicBool::new(false);
    let port = site.daemon.ports[0];
    let sent = std::thread::scope(|scope| {
        let client = || {
            let mut sent = 0;
            let mut client = Client::connect(port);
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
            // All listeners are replaced, too.
            edit(&site, &format!("connect = \"{}s\"", 10 + n), &format!("connect = \"{}s\"", 11 + n));
            let said = run_ok(site.folder.path(), &["reload", "-c", "countersign.toml"]);
            assert!(said.contains("In force now: outbound.overflow, timeouts.connect."), "{said}");
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
    let client = || {
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        client
    };
    let relays = |client: &mut Client| site.rcpt(client, "bob@third.example", "victim@else.example");
    let mut open = client();
    // In the file, foreign recipients are only for the clients that are named beside. The open connection was admitted
    // before.
    let path = site.folder.path().join("countersign.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    let text = before.replace("inbound.mode = \"enforce\"", "inbound.mode = \"enforce\"\ninbound.foreign = \"pass\"");
    let text = text.replace("role = \"inbound\"\n", "role = \"inbound\"\nclients = [\"127.0.0.0/8\"]\n");
    std::fs::write(&path, &text).unwrap();
    let said = run_ok(site.folder.path(), &["reload", "-c", "countersign.toml"]);
    assert!(said.contains("In force now: listener[2].clients.\nAfter a restart: inbound.foreign."), "{said}");
    for client in [&mut open, &mut client()] {
        assert!(relays(client).starts_with("550 5.7.1"));
    }
    // After the restart it holds, and its end holds at once.
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    // The first line is written by the start, too.
    let daemon = Daemon::start(folder.path(), text.split_once('\n').unwrap().1);
    let site = Site { folder, sink, daemon, status };
    let port = site.daemon.ports[1];
    let client = || {
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        client
    };
    let relays = |client: &mut Client| site.rcpt(client, "bob@third.example", "victim@else.example");
    let mut open = client();
    assert!(relays(&mut open).starts_with("250"));
    std::fs::write(&path, &before).unwrap();
    let said = run_ok(site.folder.path(), &["reload", "-c", "countersign.toml"]);
    assert!(said.contains("In force now: inbound.foreign, listener[2].clients."), "{said}");
    for client in [&mut open, &mut client()] {
        assert!(relays(client).starts_with("550 5.7.1"));
    }
}

/// A config with these listeners, each of a role and a next hop.
fn with_listeners(listeners: &[(u16, &str, u16)], more: &str) -> String {
    let listener = |(port, role, hop): &(u16, &str, u16)| {
        format!(
            "[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:{port}\"\nnext_hop = \"127.0.0.1:{hop}\"\n{more}"
        )
    };
    let listeners: String = listeners.iter().map(listener).collect();
    format!("domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\n{listeners}")
}

fn reloaded(folder: &std::path::Path, config: &str) -> String {
    std::fs::write(folder.join("countersign.toml"), config).unwrap();
    text(&run(folder, &["reload", "-c", "countersign.toml"]))
}

#[test]
fn listeners_come_change_and_go_without_a_lost_message() {
    let (folder, first, second) = (folder(), Sink::start(), Sink::start());
    let [one, two] = [reserved_port(), reserved_port()];
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &with_listeners(&[(one, "outbound", first.port)], ""));
    let mut open = Client::connect(one);
    open.say("EHLO client.example");
    assert!(open.say("MAIL FROM:<ann@our.example>").starts_with("250"));

    // One is added; it serves at once.
    let said =
        reloaded(folder.path(), &with_listeners(&[(one, "outbound", first.port), (two, "inbound", first.port)], ""));
    assert!(said.contains("In force now: listener["), "{said}");
    let send = |port: u16, from: &str| {
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        client.send(from, "ann@our.example", "Subject: x\r\n\r\nx").unwrap()
    };
    assert!(send(two, "bob@third.example").starts_with("250"));
    assert_eq!(first.count(), 1);

    // Both get another next hop: new connections go there, and the open transaction stays where it is.
    let said =
        reloaded(folder.path(), &with_listeners(&[(one, "outbound", second.port), (two, "inbound", second.port)], ""));
    for port in [one, two] {
        assert!(said.contains(&format!("listener[127.0.0.1:{port}].next_hop")), "{said}");
    }
    assert!(send(two, "bob@third.example").starts_with("250") && send(one, "ann@our.example").starts_with("250"));
    assert_eq!((first.count(), second.count()), (1, 2));

    // One goes: nobody can connect to it, and its open transaction ends well.
    let said = reloaded(folder.path(), &with_listeners(&[(two, "inbound", second.port)], ""));
    assert!(said.contains("In force now: "), "{said}");
    daemon.log.wait("the end", 0, |line| line.contains("no new connections on this listener"));
    poll_for("a closed port", || tcp(one).is_err().then_some(()));
    for (line, want) in [("RCPT TO:<bob@third.example>", "250"), ("DATA", "354"), ("Subject: x\r\n\r\nx\r\n.", "250")] {
        assert!(open.say(line).starts_with(want), "{line}");
    }
    assert_eq!(first.count(), 2);
    assert!(open.say("MAIL FROM:<ann@our.example>").starts_with("421"));
    assert!(send(two, "bob@third.example").starts_with("250"));
}

#[test]
fn a_listener_that_cannot_be_opened_changes_nothing() {
    let (folder, sink) = (folder(), Sink::start());
    let port = reserved_port();
    run_ok(folder.path(), &["keys", "init"]);
    let _daemon = Daemon::start(folder.path(), &with_listeners(&[(port, "inbound", sink.port)], ""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port();
    for (config, why) in [
        (with_listeners(&[(port, "outbound", 9), (sink.port, "inbound", 9)], ""), "cannot listen on"),
        (
            with_listeners(
                &[(port, "outbound", 9)],
                "tls = \"may\"\ncertificate = \"no.pem\"\nprivate_key = \"no.key\"\n",
            ),
            "no.pem",
        ),
        // Nobody means to close all of them.
        (with_listeners(&[], ""), "the config has no [[listener]]"),
        (format!("keys.ring = \"other.toml\"\n{}", with_listeners(&[(port, "outbound", 9)], "")), "other.toml"),
    ] {
        let said = reloaded(folder.path(), &config);
        assert!(said.contains(why) && said.contains("nothing has changed"), "{said}");
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        let reply = client.send("bob@third.example", "ann@our.example", "Subject: x\r\n\r\nx").unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert!(taken > 0);
}

#[test]
fn the_log_level_and_the_ring_change_without_a_restart() {
    let (folder, sink) = (folder(), Sink::start());
    let port = reserved_port();
    run_ok(folder.path(), &["keys", "init"]);
    run_ok(folder.path(), &["keys", "init", "--ring", "other/ring.toml"]);
    let config = with_listeners(&[(port, "outbound", sink.port)], "");
    let daemon = Daemon::start(folder.path(), &config);
    let sign = |to: &str| {
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        assert!(client.send("ann@our.example", to, "Subject: x\r\n\r\nx").unwrap().starts_with("250"));
        sink.last().from
    };
    let before = sign("one@third.example");
    let said = reloaded(folder.path(), &format!("keys.ring = \"other/ring.toml\"\nlog.level = \"warn\"\n{config}"));
    assert!(said.contains("In force now: keys.ring, log.level."), "{said}");
    assert_ne!(sign("two@third.example"), before);
    daemon.signal(Signal::TERM);
    let log = daemon.log.clone();
    assert_eq!(daemon.wait(), Some(0));
    let lines = log.all();
    assert!(lines.iter().any(|line| line.contains("one@third.example") || line.contains("\"event\":\"sender\"")));
    assert!(lines.iter().any(|line| line.contains("keys.ring, log.level")), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("\"event\":\"message\"")).count(), 1);
}

/// The keys of a listener belong to its address, wherever its table stands.
#[test]
fn a_listener_that_moves_in_the_file_is_the_same() {
    let (folder, sink) = (folder(), Sink::start());
    let port = reserved_port();
    run_ok(folder.path(), &["keys", "init"]);
    let map = |more: &str| {
        let path = folder.path().join("map");
        format!("[[listener]]\nprotocol = \"socketmap\"\nlisten = \"unix:{}\"\nmode = \"0600\"\n{more}", path.display())
    };
    let proxy = with_listeners(&[(port, "inbound", sink.port)], "");
    let base = "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\n";
    let _daemon = Daemon::start(folder.path(), &format!("{base}{}", map("")));
    let before = std::fs::metadata(folder.path().join("map")).unwrap().permissions().mode();
    let said = reloaded(folder.path(), &format!("{proxy}{}", map("connections = 7\n").replace("0600", "0666")));
    let name = format!("listener[unix:{}]", folder.path().join("map").display());
    let restart =
        said.lines().find_map(|line| line.strip_prefix("After a restart: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(restart.contains(&format!("{name}.mode")) && restart.contains(&format!("{name}.connections")), "{said}");
    assert!(said.contains(&format!("listener[127.0.0.1:{port}].listen")), "{said}");
    assert_eq!(std::fs::metadata(folder.path().join("map")).unwrap().permissions().mode(), before);
    let said = text(&run(folder.path(), &["check", "-c", "countersign.toml"]));
    assert!(said.contains("differs from the file in ") && said.contains(&format!("{name}.mode")), "{said}");
    // Another file is not compared with what runs.
    std::fs::copy(folder.path().join("countersign.toml"), folder.path().join("other.toml")).unwrap();
    let said = text(&run(folder.path(), &["check", "-c", "other.toml"]));
    assert!(said.contains("A daemon runs with another file: ") && !said.contains("is equal to"), "{said}");
}

/// One line, for monitoring systems.
#[test]
fn status_is_a_line_for_monitoring() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let form = |form: &str| {
        let output = run(folder.path(), &["status", "--check", form]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let hop = Sink::start();
    let config = format!(
        "domains.local = [\"our.example\"]\n[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n\
         [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n",
        hop.port, hop.port
    );
    let daemon = Daemon::start(folder.path(), &config);
    let (status, line) = form("nagios");
    assert!(line.starts_with("COUNTERSIGN ") && line.contains(" | uptime=") && line.lines().count() == 1, "{line}");
    assert!(status == Some(0) || status == Some(1), "{line}");
    let (_, line) = form("checkmk");
    assert!(line.contains(" Countersign uptime=") && line.contains("|sessions=0|"), "{line}");
    // It has something to look at, a ramp that has not begun, and is as healthy as it can be.
    let (status, line) = form("container");
    assert!(status == Some(0) && line.lines().count() == 1, "{status:?} {line}");
    drop(daemon);
    assert_eq!(form("container").0, Some(1));
    let (status, line) = form("nagios");
    assert!(status == Some(2) && line.starts_with("COUNTERSIGN CRITICAL - no running daemon answers"), "{line}");
}

#[test]
fn status_names_a_next_hop_that_refuses_and_a_certificate_that_expires() {
    let refusing = NextHop::script().on(At::Greeting, SaysAndCloses("421 4.3.2 too many connections")).start();
    for (days, expected) in [(5, "the certificate of 127.0.0.1:0 expires at "), (-1, "has expired: renew it"), (60, "")]
    {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        certificate_for_days(folder.path(), days);
        // Two listeners with the same next hop: it is named once.
        let listener = |role: &str| {
            format!(
                "[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\ntls = \"may\"\n\
                 certificate = \"chain.pem\"\nprivate_key = \"key.pem\"\n",
                refusing.port
            )
        };
        let config = format!(
            "domains.local = [\"our.example\"]\nstatus.listen = \"127.0.0.1:{}\"\n{}{}",
            reserved_port(),
            listener("outbound"),
            listener("inbound")
        );
        let _daemon = Daemon::start(folder.path(), &config);
        let refuses = format!("→ the next hop 127.0.0.1:{} refuses connections in its greeting", refusing.port);
        let shown = poll_for("the next hop", || {
            Some(text(&run(folder.path(), &["status"]))).filter(|shown| shown.contains(&refuses))
        });
        assert_eq!(shown.matches(&refuses).count(), 1, "{shown}");
        assert_eq!(shown.contains("certificate"), !expected.is_empty(), "{days}: {shown}");
        assert!(shown.contains(expected), "{days}: {shown}");
    }
}

#[test]
fn a_decision_about_a_ramp_that_has_no_effect_says_so() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    for (mode, has_effect) in [("ramp", true), ("enforce", false), ("observe", false)] {
        let config = format!(
            "domains.local = [\"our.example\"]\ninbound.mode = \"{mode}\"\n[[listener]]\nrole = \"inbound\"\n\
             listen = \"127.0.0.1:9\"\nnext_hop = \"127.0.0.1:10\"\n"
        );
        std::fs::write(folder.path().join("countersign.toml"), config).unwrap();
        let said = text(&run(folder.path(), &["ramp", "observe", "our.example"]));
        assert_eq!(said.contains(&format!("no effect now: inbound.mode is \"{mode}\"")), !has_effect, "{said}");
    }
}
