//! The running daemon: key changes, signals, next hops that fail, clients that misbehave.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::{
    At, Client, Daemon, Does, NextHop, Signal, Sink, countersign, folder, poll_for, run, run_ok, without_evidence,
};
use Does::{Closes, Refuses, SaysAndCloses, Silent};

fn outbound(next_hop: u16) -> String {
    format!(
        "[domains]\nlocal = [\"our.example\"]\n[timeouts]\ndrain = \"5s\"\nconnect = \"2s\"\n[[listener]]\nrole = \"outbound\"\n\
         listen = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{next_hop}\"\n"
    )
}

fn start(folder: &Path, next_hop: u16) -> Daemon {
    run_ok(folder, &["keys", "init"]);
    Daemon::start(folder, &outbound(next_hop))
}

fn loaded(daemon: &Daemon, lines: usize) {
    daemon.log.wait("the new ring", lines, |line| line.contains("key ring loaded"));
}

#[test]
fn a_changed_ring_is_taken_without_dropping_a_connection() {
    let folder = folder();
    let sink = Sink::start();
    let daemon = start(folder.path(), sink.port);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    assert!(client.send("ann@our.example", "b@else.example", "x").unwrap().starts_with("250"));
    assert!(sink.last().from.starts_with("prvs=1"));

    // The daemon reloads without a signal, within two seconds.
    let lines = daemon.log.all().len();
    let before = std::time::Instant::now();
    run_ok(folder.path(), &["keys", "rotate"]);
    loaded(&daemon, lines);
    assert!(before.elapsed() < std::time::Duration::from_secs(4), "{:?}", before.elapsed());
    assert!(client.send("ann@our.example", "b@else.example", "x").unwrap().starts_with("250"));
    assert!(sink.last().from.starts_with("prvs=2"));

    // The daemon reloads on SIGHUP.
    let lines = daemon.log.all().len();
    run_ok(folder.path(), &["keys", "rotate"]);
    daemon.signal(Signal::HUP);
    loaded(&daemon, lines);
    assert!(client.send("ann@our.example", "b@else.example", "x").unwrap().starts_with("250"));
    assert!(sink.last().from.starts_with("prvs=3"));
}

#[test]
fn a_bad_ring_changes_nothing() {
    let folder = folder();
    let sink = Sink::start();
    let daemon = start(folder.path(), sink.port);
    let ring = folder.path().join("keys/ring.toml");
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    // The first signature is recorded in the ring; afterwards, only this test writes the ring.
    assert!(client.send("ann@our.example", "b@else.example", "x").unwrap().starts_with("250"));
    daemon.log.wait("the ramp", 0, |line| line.contains("its ramp begins"));
    let good = fs::read(&ring).unwrap();
    let spoil: [&dyn Fn(); 3] = [
        &|| fs::write(&ring, "not a ring").unwrap(),
        &|| {
            fs::write(&ring, &good).unwrap();
            fs::set_permissions(&ring, fs::Permissions::from_mode(0o644)).unwrap();
        },
        &|| fs::remove_file(&ring).unwrap(),
    ];
    for spoil in spoil {
        let lines = daemon.log.all().len();
        spoil();
        daemon.log.wait("the complaint", lines, |line| line.contains("the last good one stays in use"));
        assert!(client.send("ann@our.example", "b@else.example", "x").unwrap().starts_with("250"));
        assert!(sink.last().from.starts_with("prvs=1"));
    }
    // A daemon does not start without a ring.
    let output = run(folder.path(), &["serve", "-c", "countersign.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("countersign keys init"));
}

#[test]
fn sigterm_lets_a_transaction_finish_and_ends_idle_sessions() {
    let folder = folder();
    let sink = Sink::start();
    let daemon = start(folder.path(), sink.port);
    let (mut idle, mut busy) = (Client::connect(daemon.ports[0]), Client::connect(daemon.ports[0]));
    idle.say("EHLO idle.example");
    busy.say("EHLO busy.example");
    for line in ["MAIL FROM:<ann@our.example>", "RCPT TO:<b@else.example>", "DATA"] {
        busy.say(line);
    }
    daemon.signal(Signal::TERM);
    assert!(idle.read_reply().unwrap().starts_with("421 4.3.2 "));
    assert!(idle.is_closed());
    assert!(busy.say("hello\r\n.").starts_with("250"));
    assert!(busy.read_reply().unwrap().starts_with("421 4.3.2 "));
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(sink.last().text, "hello\r\n");
}

#[test]
fn a_next_hop_that_is_down_is_a_later() {
    let folder = folder();
    let down = NextHop::script().on(At::Connect, Refuses).start();
    let daemon = start(folder.path(), down.port);
    let (_, greeting) = Client::try_connect(daemon.ports[0]).unwrap();
    assert!(greeting.starts_with("421 4.4.1 "), "{greeting}");
}

#[test]
fn a_next_hop_that_is_silent_is_a_later() {
    let folder = folder();
    let silent = NextHop::script().on(At::Greeting, Silent).start();
    run_ok(folder.path(), &["keys", "init"]);
    let config = outbound(silent.port).replace("connect = \"2s\"", "connect = \"1s\"\nnext_hop = \"1s\"");
    let daemon = Daemon::start(folder.path(), &config);
    let (_, greeting) = Client::try_connect(daemon.ports[0]).unwrap();
    assert!(greeting.starts_with("421 4.4.1 "), "{greeting}");
}

#[test]
fn a_next_hop_that_closes_before_it_confirms_is_a_later() {
    let folder = folder();
    let rude = NextHop::script().offers(&[]).on(At::End, Closes).start();
    let daemon = start(folder.path(), rude.port);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    let reply = client.send("ann@our.example", "b@else.example", "hello").unwrap();
    assert!(reply.starts_with("451 4.4.2 "), "{reply}");
    rude.wait_at(At::End);
}

#[test]
fn a_refusal_that_comes_with_a_reset_is_still_heard() {
    let folder = folder();
    // Unread input is answered with a TCP reset when the next hop closes.
    let rude = NextHop::script().offers(&[]).on(At::Body, SaysAndCloses("552 5.3.4 too big")).start();
    let daemon = start(folder.path(), rude.port);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    let text = "a line of a message that is too large for this next hop\r\n".repeat(400_000);
    let reply = client.send("ann@our.example", "b@else.example", &text).unwrap();
    assert_eq!(reply, "552 5.3.4 too big");
    rude.wait_at(At::Body);
}

#[test]
fn the_room_for_held_messages_is_given_back() {
    let folder = folder();
    let sink = Sink::start();
    run_ok(folder.path(), &["keys", "init"]);
    // Memory for one message at a time, of which 1000 octets are buffered.
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"enforce\"\nhold = \"1000\"\n[limits]\nheld = \"1000\"\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n",
            sink.port
        ),
    );
    let ready = || {
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        client.say("MAIL FROM:<>");
        assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"));
        client
    };
    let (mut first, mut second) = (ready(), ready());
    assert!(first.say("DATA").starts_with("354"));
    assert!(second.say("DATA").starts_with("451 4.3.1 "));
    // A message that exceeds the buffer is streamed, and frees its memory before it ends.
    first.write("a long answer from somebody on holiday\r\n".repeat(100).as_bytes()).unwrap();
    let mut third = ready();
    poll_for("room", || third.say("DATA").starts_with("354").then_some(()));
    assert!(third.say("Subject: away\r\n\r\nx\r\n.").starts_with("250"));
    assert!(first.say(".").starts_with("250"));
}

#[test]
fn what_comes_byte_by_byte_is_the_same() {
    let folder = folder();
    let sink = Sink::start();
    let daemon = start(folder.path(), sink.port);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    for (text, want) in [
        ("MAIL FROM:<ann@our.example>\r\n", "250"),
        ("RCPT TO:<b@else.example>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("Subject: x\r\n\r\n..dots\r\n.\r\n", "250"),
    ] {
        for octet in text.as_bytes() {
            client.write(&[*octet]).unwrap();
        }
        assert!(client.read_reply().unwrap().starts_with(want), "{text}");
    }
    assert_eq!(without_evidence(&sink.last().text), "Subject: x\r\n\r\n.dots\r\n");
}

#[test]
fn a_large_message_passes_whole() {
    let folder = folder();
    let sink = Sink::start();
    let daemon = start(folder.path(), sink.port);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    let text: String =
        (0..150_000).map(|n| format!("line {n} of a message that is larger than any buffer\r\n")).collect();
    assert!(client.send("ann@our.example", "b@else.example", &text).unwrap().starts_with("250"));
    assert_eq!(sink.last().text.len(), text.len() + 2);
}

#[test]
fn smuggling_is_refused_and_the_connection_closed() {
    let folder = folder();
    let sink = Sink::start();
    let daemon = start(folder.path(), sink.port);
    for odd in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r"] {
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        for line in ["MAIL FROM:<ann@our.example>", "RCPT TO:<b@else.example>", "DATA"] {
            client.say(line);
        }
        client.write(format!("x{odd}MAIL FROM:<evil@else.example>\r\n").as_bytes()).unwrap();
        let reply = client.read_reply().unwrap();
        assert!(reply.starts_with("550 5.5.2 "), "{odd:?}: {reply}");
        assert!(client.is_closed(), "{odd:?}");
    }
    assert!(sink.all().is_empty(), "{:?}", sink.all());
}

#[test]
fn only_listed_clients_may_send() {
    let folder = folder();
    let sink = Sink::start();
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &format!("{}clients = [\"192.0.2.0/24\"]\n", outbound(sink.port)));
    let (_, greeting) = Client::try_connect(daemon.ports[0]).unwrap();
    assert!(greeting.starts_with("554 5.7.1 "), "{greeting}");
}

#[test]
fn no_log_line_shows_a_secret_or_a_whole_tag() {
    let folder = folder();
    let sink = Sink::start();
    run_ok(folder.path(), &["keys", "init"]);
    let config = outbound(sink.port).replace("[timeouts]", "srs_domain = \"srs.our.example\"\n[timeouts]");
    let inbound =
        format!("[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n", sink.port);
    let daemon = Daemon::start(folder.path(), &format!("{config}{inbound}"));
    let mut out = Client::connect(daemon.ports[0]);
    out.say("EHLO client.example");
    let mut tags = Vec::new();
    for sender in ["ann@our.example", "bob@else.example"] {
        out.send(sender, "b@else.example", "x").unwrap();
        tags.push(sink.last().from);
        // Again, with the signed address as the sender.
        out.send(&sink.last().from, "b@else.example", "x").unwrap();
    }
    let mut back = Client::connect(daemon.ports[1]);
    back.say("EHLO client.example");
    for tag in &tags {
        back.send("", tag, "x").unwrap();
    }
    let lines = daemon.log.wait_with("two messages", |l| {
        (l.iter().filter(|l| l.contains("\"event\":\"message\"")).count() >= 6).then(|| l.join("\n"))
    });
    let ring = fs::read_to_string(folder.path().join("keys/ring.toml")).unwrap();
    let secret = ring.lines().find_map(|l| l.strip_prefix("secret = ")).unwrap().trim_matches('"');
    assert!(!lines.contains(secret));
    for tag in tags {
        let hash = if tag.starts_with("prvs=") { tag[9..15].to_owned() } else { tag[5..11].to_owned() };
        assert!(!lines.contains(&hash), "{tag} in {lines}");
    }
    assert!(lines.contains("\"from\":\"ann@our.example\"") && lines.contains("\"action\":\"sign\""), "{lines}");
}

#[test]
fn mistakes_in_the_config_are_named_with_file_and_line() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    for (text, want) in [
        (
            "[domains]\nlocal = [\"our.example\"]\n[inbound]\nmoed = \"observe\"\n",
            "c.toml:4: unknown key `moed`; did you mean `mode`?",
        ),
        ("[domains]\nlocal = \"our.example\"\n", "c.toml:2: "),
        ("[domains\n", "c.toml:1: "),
        ("", "c.toml: domains.local is empty"),
    ] {
        fs::write(folder.path().join("c.toml"), text).unwrap();
        for command in ["serve", "check"] {
            let output = run(folder.path(), &[command, "-c", "c.toml"]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{error}");
            assert!(error.contains(want), "{text}: {error}");
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let text = outbound(1).replace("127.0.0.1:0", &listen.to_string());
    fs::write(folder.path().join("c.toml"), text).unwrap();
    let output = run(folder.path(), &["serve", "-c", "c.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("cannot listen on {listen}: ")));
}

#[test]
fn a_demo_that_stays_shows_what_passes() {
    let mut demo = countersign().args(["demo", "--stay"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = std::io::BufReader::new(demo.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output).map(Result::unwrap);
    let mut line_with = |what: &str| lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("no `{what}`"));
    let port = |line: &str| line.split(" -p ").nth(1).unwrap().split(' ').next().unwrap().parse::<u16>().unwrap();
    let outbound = port(&line_with("a message that leaves"));
    let inbound = port(&line_with("a false bounce"));
    line_with("What passes:");
    let send = |port: u16, from: &str, to: &str, text: &str| {
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        client.send(from, to, text).unwrap()
    };
    assert!(send(outbound, "ann@our.example", "bob@else.example", "Subject: x\r\n\r\nx").starts_with("250"));
    line_with("leaves  ann@our.example  signed");
    line_with("answer  250");
    let refused = send(inbound, "", "ann@our.example", crate::common::dsn("failed").trim_end());
    assert!(refused.starts_with("550 5.7.1"), "{refused}");
    line_with("comes in  <> to ann@our.example  refused: a bounce without a tag (dsn-failed)");
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(demo.wait().unwrap().success());
}

#[test]
fn the_demo_goes_as_it_should() {
    let started = std::time::Instant::now();
    let output = countersign().arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches('✓').count(), 10, "{text}");
    assert!(text.contains("All of it went as it should") && !text.contains('\u{1b}'), "{text}");
    assert!(started.elapsed().as_secs() < 10);
}
