//! The proxy between the internet and a mail server: TLS, client addresses, limits, next hops that fail, restarts.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::common::tls::{NAME, certificate, old_certificate, secure, shows_certificate, starttls};
use crate::common::{
    At, Client, Daemon, Does, NextHop, Signal, Sink, folder, pace, poll_for, reserved_port, run, run_ok, tcp,
    without_evidence,
};
use Does::{Refuses, Says, SaysAndCloses};

/// A config with one listener. `listener`: lines of that listener; `rest`: the other lines.
fn config(role: &str, next_hop: &str, listener: &str, rest: &str) -> String {
    format!(
        "[domains]\nlocal = [\"our.example\"]\n{rest}\n[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\n\
         next_hop = {next_hop}\n{listener}\n"
    )
}

fn hop(port: u16) -> String {
    format!("\"127.0.0.1:{port}\"")
}

fn start(folder: &Path, config: &str) -> Daemon {
    if !folder.join("keys/ring.toml").exists() {
        run_ok(folder, &["keys", "init"]);
    }
    Daemon::start(folder, config)
}

const TLS: &str = "certificate = \"chain.pem\"\nprivate_key = \"key.pem\"";

#[test]
fn tls_on_both_sides_by_starttls_and_from_the_first_octet() {
    for (mode, hop_mode) in [("require", "require"), ("may", "may"), ("implicit", "implicit")] {
        let (outer, inner, sink) = (folder(), folder(), Sink::start());
        certificate(outer.path());
        certificate(inner.path());
        let inside = start(inner.path(), &config("inbound", &hop(sink.port), &format!("tls = \"{mode}\"\n{TLS}"), ""));
        let verify = if hop_mode == "may" {
            String::new()
        } else {
            format!("next_hop_name = \"{NAME}\"\nnext_hop_ca = \"{}\"", inner.path().join("chain.pem").display())
        };
        let listener = format!("tls = \"{mode}\"\n{TLS}\nnext_hop_tls = \"{hop_mode}\"\n{verify}");
        let outside = start(outer.path(), &config("outbound", &hop(inside.ports[0]), &listener, ""));
        let mut client = if mode == "implicit" {
            let mut client = Client::over(secure(outer.path(), tcp(outside.ports[0]).unwrap()).unwrap());
            assert!(client.read_reply().unwrap().starts_with("220 "));
            client
        } else {
            starttls(outer.path(), outside.ports[0])
        };
        client.say("EHLO client.example");
        assert!(!client.reply.iter().any(|line| line.contains("STARTTLS")), "{:?}", client.reply);
        let text: String = (0..20_000).map(|n| format!("line {n} of a message under TLS\r\n")).collect();
        let reply = client.send("ann@our.example", "ben@our.example", &text).unwrap();
        assert!(reply.starts_with("250 "), "{reply}");
        assert_eq!(sink.last().text.len(), text.len() + 2, "{mode}");
        assert!(sink.last().from.starts_with("prvs="));
        assert_eq!(client.say("QUIT"), "221 2.0.0 bye");
    }
}

#[test]
fn plain_text_is_refused_where_tls_is_required() {
    let (folder, sink) = (folder(), Sink::start());
    certificate(folder.path());
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), &format!("tls = \"require\"\n{TLS}"), ""));
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    assert!(client.say("MAIL FROM:<>").starts_with("530 5.7.0 "));
    // Octets that follow STARTTLS in one packet must not be taken for input of the encrypted session.
    client.write(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n").unwrap();
    assert!(client.read_reply().unwrap().starts_with("554 5.5.0 "));
    assert!(!sink.heard().iter().any(|line| line.contains("evil")));
}

#[test]
fn a_tls_client_that_only_closes_does_not_cut_its_message_short() {
    let (folder, sink) = (folder(), Sink::start());
    certificate(folder.path());
    let daemon = start(folder.path(), &config("outbound", &hop(sink.port), &format!("tls = \"implicit\"\n{TLS}"), ""));
    let socket = tcp(daemon.ports[0]).unwrap();
    let closing = socket.try_clone().unwrap();
    let mut client = Client::over(secure(folder.path(), socket).unwrap());
    assert!(client.read_reply().unwrap().starts_with("220 "));
    client.say("EHLO client.example");
    for line in ["MAIL FROM:<ann@our.example>", "RCPT TO:<b@else.example>", "DATA"] {
        client.say(line);
    }
    client.write(b"x\r\n.\r\n").unwrap();
    // TCP is half closed, without a TLS alert.
    closing.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.read_reply().unwrap().starts_with("250 "));
    assert_eq!(sink.last().text, "x\r\n");
}

#[test]
fn a_next_hop_that_is_not_who_it_should_be_gets_no_mail() {
    let (outer, inner, sink) = (folder(), folder(), Sink::start());
    certificate(inner.path());
    let inside = start(inner.path(), &config("inbound", &hop(sink.port), &format!("tls = \"may\"\n{TLS}"), ""));
    let ca = format!("next_hop_ca = \"{}\"", inner.path().join("chain.pem").display());
    for (listener, fine) in [
        (format!("next_hop_tls = \"require\"\nnext_hop_name = \"other.example\"\n{ca}"), false),
        ("next_hop_tls = \"require\"\nnext_hop_verify = false".into(), true),
        (format!("next_hop_tls = \"require\"\nnext_hop_name = \"{NAME}\"\n{ca}"), true),
    ] {
        let outside = start(outer.path(), &config("outbound", &hop(inside.ports[0]), &listener, ""));
        let mut client = Client::connect(outside.ports[0]);
        let reply = client.say("EHLO client.example");
        assert_eq!(reply.starts_with("250"), fine, "{listener}: {reply}");
        if fine {
            assert!(client.send("ann@our.example", "ben@our.example", "x").unwrap().starts_with("250"));
        } else {
            assert!(reply.starts_with("421 4.4.1 "), "{reply}");
            outside.log.wait("why", 0, |line| line.contains("TLS handshake with the next hop failed"));
        }
    }
    // A next hop without TLS.
    let outside = start(
        outer.path(),
        &config("outbound", &hop(sink.port), "next_hop_tls = \"require\"\nnext_hop_verify = false", ""),
    );
    assert!(Client::connect(outside.ports[0]).say("EHLO client.example").starts_with("421 4.4.1 "));
    outside.log.wait("why", 0, |line| line.contains("the next hop offers no TLS"));
}

#[test]
fn a_renewed_certificate_is_taken_without_a_restart() {
    let (folder, old, sink) = (folder(), folder(), Sink::start());
    certificate(folder.path());
    fs::copy(folder.path().join("chain.pem"), old.path().join("chain.pem")).unwrap();
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), &format!("tls = \"may\"\n{TLS}"), ""));
    let mut before = starttls(old.path(), daemon.ports[0]);
    let lines = daemon.log.all().len();
    // An incomplete certificate is not loaded: the last valid one stays in use.
    fs::write(folder.path().join("key.pem"), "not a key").unwrap();
    daemon.log.wait("the complaint", lines, |line| line.contains("the certificate cannot be loaded"));
    starttls(old.path(), daemon.ports[0]);
    certificate(folder.path());
    daemon.log.wait("the new certificate", lines, |line| line.contains("certificate loaded"));
    starttls(folder.path(), daemon.ports[0]);
    assert!(secure_fails(old.path(), daemon.ports[0]));
    assert!(before.say("EHLO client.example").starts_with("250"), "a session that is open goes on");
}

fn secure_fails(folder: &Path, port: u16) -> bool {
    std::panic::catch_unwind(|| starttls(folder, port)).is_err()
}

#[test]
fn a_bad_certificate_is_named_at_start() {
    let folder = folder();
    certificate(folder.path());
    run_ok(folder.path(), &["keys", "init"]);
    fs::write(folder.path().join("chain.pem"), "nothing").unwrap();
    let text = config("inbound", "\"127.0.0.1:9\"", &format!("tls = \"may\"\n{TLS}"), "");
    fs::write(folder.path().join("countersign.toml"), text).unwrap();
    for command in ["check", "serve"] {
        let output = run(folder.path(), &[command]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("chain.pem: no certificate in PEM form"), "{error}");
    }
}

fn proxied(port: u16, header: &[u8]) -> Client {
    let mut client = Client::over(tcp(port).unwrap());
    client.write(header).unwrap();
    client
}

#[test]
fn a_trusted_proxy_says_by_its_header_who_the_client_is() {
    let (folder, sink) = (folder(), Sink::offering(&["PIPELINING", "XFORWARD NAME ADDR PORT PROTO HELO SOURCE"]));
    let listener = "trusted_proxies = [\"127.0.0.1\"]\naccept_proxy = true";
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), listener, ""));
    let v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), &[192, 0, 2, 9, 127, 0, 0, 1, 4, 0, 0, 25]].concat();
    for header in [b"PROXY TCP4 192.0.2.9 127.0.0.1 1024 25\r\n".as_slice(), &v2] {
        let mut client = proxied(daemon.ports[0], header);
        assert!(client.read_reply().unwrap().starts_with("220 "));
        client.say("EHLO client.example");
        assert!(!client.reply.iter().any(|line| line.contains("XCLIENT")), "the client behind it is a stranger");
        assert!(client.say("XCLIENT ADDR=127.0.0.1").starts_with("550 5.7.1 "));
        assert!(client.send("bob@else.example", "ann@our.example", "x").unwrap().starts_with("250"));
        daemon.log.wait("the client", 0, |line| line.contains("192.0.2.9") && line.contains("\"message\""));
        let told = sink.heard().into_iter().find(|line| line.starts_with("XFORWARD")).unwrap();
        assert!(told.contains(" ADDR=192.0.2.9 PORT=1024 PROTO=ESMTP HELO=client.example"), "{told}");
    }
    // A health check is for itself.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".as_slice();
    assert!(proxied(daemon.ports[0], local).read_reply().unwrap().starts_with("220 "));
    // A proxy that does not name its client could be used by any client.
    let unspecified = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00".as_slice();
    let unix = [b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8".as_slice(), &[b'/'; 216]].concat();
    for (refused, why) in [
        (b"PROXY UNKNOWN\r\n".as_slice(), "does not say who the client is; if it is a health check, see proxy_unknown"),
        (unspecified, "brings a client that is not on TCP"),
        (&unix, "brings a client that is not on TCP"),
        (b"PROXY TCP4 192.0.2.9 127.0.0.1 1024 25\n", "ends in LF alone; CR LF is needed"),
        (b"EHLO client.example\r\n", "it begins with no PROXY header"),
        (b"PROXY TCP4 a b c d\r\n", "its PROXY header is broken"),
    ] {
        let folder = self::folder();
        let daemon = start(folder.path(), &config("inbound", &hop(sink.port), listener, ""));
        assert!(proxied(daemon.ports[0], refused).read_reply().is_err(), "{why}");
        daemon.log.wait("the reason", 0, |line| line.contains(why));
    }
    let checked = format!("{listener}\nproxy_unknown = \"proxy\"");
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), &checked, ""));
    assert!(proxied(daemon.ports[0], b"PROXY UNKNOWN\r\n").read_reply().unwrap().starts_with("220 "));
    assert!(proxied(daemon.ports[0], unspecified).read_reply().is_err());
    // From any other client, the header is input before the greeting.
    let daemon = start(
        folder.path(),
        &config("inbound", &hop(sink.port), "trusted_proxies = [\"192.0.2.1\"]\naccept_proxy = true", ""),
    );
    let mut stranger = proxied(daemon.ports[0], b"PROXY TCP4 192.0.2.9 127.0.0.1 1024 25\r\n");
    let reply = stranger.read_reply().unwrap();
    // It may have arrived just after the greeting, as an unknown command.
    assert!(reply.starts_with("554 5.5.0 ") || stranger.read_reply().unwrap().starts_with("500 5.5.2 "), "{reply}");
}

#[test]
fn a_next_hop_is_told_by_proxy_header() {
    for version in ["v1", "v2"] {
        let (outer, inner, sink) = (folder(), folder(), Sink::start());
        let trusting = "trusted_proxies = [\"127.0.0.1\"]\naccept_proxy = true";
        let inside = start(inner.path(), &config("inbound", &hop(sink.port), trusting, ""));
        let listener = format!("{trusting}\nsend_proxy = \"{version}\"");
        let outside = start(outer.path(), &config("inbound", &hop(inside.ports[0]), &listener, ""));
        let mut client = proxied(outside.ports[0], b"PROXY TCP6 2001:db8::7 ::1 1024 25\r\n");
        assert!(client.read_reply().unwrap().starts_with("220 "));
        client.say("EHLO client.example");
        assert!(client.send("bob@else.example", "ann@our.example", "x").unwrap().starts_with("250"));
        inside.log.wait("the client", 0, |line| line.contains("\"client\":\"2001:db8::7\""));
    }
}

#[test]
fn no_stranger_is_somebody_else() {
    let (folder, sink) = (folder(), Sink::offering(&["PIPELINING", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"]));
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), "", ""));
    let mut client = Client::connect(daemon.ports[0]);
    assert!(client.say("XCLIENT ADDR=10.0.0.1").starts_with("550 5.7.1 "));
    client.say("EHLO client.example");
    for line in ["XCLIENT ADDR=10.0.0.1", "XFORWARD ADDR=10.0.0.1", "xclient NAME=x", "XCLIENT"] {
        assert!(client.say(line).starts_with("550 5.7.1 "), "{line}");
    }
    client.send("bob@else.example", "ann@our.example", "x").unwrap();
    let told: Vec<String> = sink.heard().into_iter().filter(|line| line.to_uppercase().starts_with('X')).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("ADDR=127.0.0.1 ") && told[0].contains("HELO=client.example"), "{told:?}");
}

#[test]
fn a_client_has_its_share_of_connections_and_no_more() {
    let (folder, sink) = (folder(), Sink::start());
    let rest = "[limits]\nconnections = 6\nconnections_per_client = 2";
    let trusting = "trusted_proxies = [\"127.0.0.1\"]\naccept_proxy = true";
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), trusting, rest));
    let connect = |ip: &str| {
        let mut client = proxied(daemon.ports[0], format!("PROXY TCP4 {ip} 127.0.0.1 1024 25\r\n").as_bytes());
        let greeting = client.read_reply().unwrap();
        (client, greeting)
    };
    let _first = [connect("192.0.2.1"), connect("192.0.2.2")];
    let (_, greeting) = connect("192.0.2.3");
    assert_eq!(greeting, "421 4.7.0 too many connections from your network, try again later");
    let (gone, greeting) = connect("198.51.100.1");
    assert!(greeting.starts_with("220 "));
    drop(gone);
    daemon.log.wait("the refusal", 0, |line| line.contains("too many connections from your network"));
    // The limit for all clients together.
    let mut held = Vec::new();
    let full = (0..100).find_map(|n| {
        let (client, greeting) = connect(&format!("203.0.{n}.1"));
        held.push(client);
        (!greeting.starts_with("220 ")).then_some(greeting)
    });
    let full = full.expect("a limit");
    assert!(full.starts_with("421 4.3.2 too many connections"), "{full}");
    assert!(held.len() <= 6);
}

#[test]
fn time_is_limited_whatever_trickles_in() {
    let (folder, sink) = (folder(), Sink::start());
    let rest = "[timeouts]\ncommand = \"1s\"\ntransaction = \"2s\"";
    let daemon = start(folder.path(), &config("outbound", &hop(sink.port), "", rest));
    // A command that arrives octet by octet is one command.
    let mut client = Client::connect(daemon.ports[0]);
    let started = std::time::Instant::now();
    let mut stream = tcp(daemon.ports[0]).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 4]).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        while stream.write_all(b"x").is_ok() {
            pace(std::time::Duration::from_millis(50));
        }
    });
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    assert!(text.contains("421 4.4.2 timeout"), "{text}");
    assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
    trickle.join().unwrap();
    assert!(client.read_reply().unwrap().starts_with("421 4.4.2 "), "one that says nothing is let go, too");
    // A transaction is limited in time, even if it makes progress.
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    client.say("MAIL FROM:<ann@our.example>");
    let last = poll_for("the end", || client.try_say("NOOP").ok().filter(|reply| !reply.starts_with("250")));
    assert!(last.starts_with("421 4.4.2 the transaction"), "{last}");
    daemon.log.wait("the limit", 0, |line| line.contains("\"limit\":\"transaction\""));
}

#[test]
fn the_next_in_the_list_takes_over() {
    let (folder, sink) = (folder(), Sink::start());
    let dead = NextHop::script().on(At::Connect, Refuses).on(At::Greeting, Says("220 back.example")).start();
    // A next hop that accepts connections, but refuses all clients.
    let unfriendly = NextHop::script().on(At::Greeting, SaysAndCloses("421 4.3.2 not now")).start();
    let hops = format!("[{}, {}, {}]", hop(dead.port), hop(unfriendly.port), hop(sink.port));
    let status = format!("[status]\nlisten = \"127.0.0.1:{}\"", reserved_port());
    let daemon = start(folder.path(), &config("outbound", &hops, "", &status));
    for _ in 0..3 {
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        assert!(client.send("ann@our.example", "b@else.example", "x").unwrap().starts_with("250"));
    }
    let complaints = daemon.log.all().iter().filter(|line| line.contains("next hop cannot be reached")).count();
    assert_eq!(complaints, 1, "a next hop that is down is not asked by each client");
    // The next hop is back, and is used first again.
    dead.listens();
    daemon.log.wait("its return", 0, |line| line.contains("next hop is back"));
    let (_, greeting) = Client::try_connect(daemon.ports[0]).unwrap();
    assert_eq!(greeting, "220 back.example");
    // No next hop is available.
    let gone = NextHop::script().on(At::Connect, Refuses).start();
    let hops = format!("[{}, {}]", hop(gone.port), hop(unfriendly.port));
    let daemon = start(folder.path(), &config("outbound", &hops, "", ""));
    let (_, greeting) = Client::try_connect(daemon.ports[0]).unwrap();
    assert_eq!(greeting, "421 4.3.2 not now", "what a next hop says is better than what we could");
}

#[test]
fn recipients_of_a_domain_have_a_next_hop_of_their_own() {
    let (folder, sink, branch) = (folder(), Sink::start(), Sink::start());
    let by_domain = format!("by_domain = {{ \"branch.our.example\" = \"127.0.0.1:{}\" }}", branch.port);
    let text = config("inbound", &hop(sink.port), &by_domain, "")
        .replace("\"our.example\"", "\"our.example\", \".our.example\"");
    let daemon = start(folder.path(), &text);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    for (to, at) in [("ann@our.example", &sink), ("ann@branch.our.example", &branch), ("ben@our.example", &sink)] {
        let before = at.all().len();
        assert!(client.send("bob@else.example", to, "x").unwrap().starts_with("250"), "{to}");
        assert_eq!(at.all().len(), before + 1, "{to}");
        assert_eq!(at.last().to, [to]);
    }
    assert_eq!((sink.all().len(), branch.all().len()), (2, 1));
}

fn http(port: u16, path: &str) -> String {
    asked(port, path, "Host: localhost")
}

fn asked(port: u16, path: &str, headers: &str) -> String {
    let mut stream = tcp(port).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_status_listener_answers_those_who_know_where_they_are() {
    let (folder, sink) = (folder(), Sink::start());
    let status = reserved_port();
    let rest = format!("[status]\nlisten = \"127.0.0.1:{status}\"\nhosts = [\"mx.our.example\"]");
    let daemon = start(folder.path(), &config("outbound", &hop(sink.port), "", &rest));
    for host in ["127.0.0.1", "localhost:1", "[::1]:1", "MX.our.example"] {
        assert!(asked(status, "/healthz", &format!("Host: {host}")).starts_with("HTTP/1.1 200"), "{host}");
    }
    let misled = asked(status, "/observed", "Host: evil.example");
    assert!(misled.starts_with("HTTP/1.1 421") && misled.contains("status.hosts") && !misled.contains("guesses"));
    // The format that every tool reads, unless another is requested.
    let plain = http(status, "/metrics");
    assert!(plain.contains("text/plain; version=0.0.4") && !plain.contains("# EOF"), "{plain}");
    assert!(plain.contains("# TYPE countersign_would_refuse_genuine_total counter"), "{plain}");
    assert!(plain.contains("# TYPE countersign_build_info gauge\ncountersign_build_info{version="), "{plain}");
    let open =
        asked(status, "/metrics", "Host: localhost\r\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1");
    assert!(open.contains("application/openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
    // Many silent clients do not block others.
    let silent: Vec<_> = (0..100).map(|_| tcp(status).unwrap()).collect();
    let begun = std::time::Instant::now();
    assert!(http(status, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "it did not wait for them to end");
    drop((silent, daemon));
}

#[test]
fn readiness_ends_when_it_stops_or_has_no_next_hop() {
    let (folder, sink) = (folder(), Sink::start());
    let status = reserved_port();
    let rest = format!("[status]\nlisten = \"127.0.0.1:{status}\"\n[timeouts]\ndrain = \"20s\"");
    let daemon = start(folder.path(), &config("outbound", &hop(sink.port), "", &rest));
    assert!(http(status, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(
        http(status, "/readyz")
            .contains("{\"draining\":false,\"next_hops_down\":[],\"next_hops_refusing\":[],\"ready\":true}")
    );
    let mut busy = Client::connect(daemon.ports[0]);
    busy.say("EHLO client.example");
    busy.say("MAIL FROM:<ann@our.example>");
    daemon.signal(Signal::TERM);
    let answer = poll_for("the end of readiness", || {
        Some(http(status, "/readyz")).filter(|answer| answer.starts_with("HTTP/1.1 503"))
    });
    assert!(answer.contains("\"draining\":true"), "{answer}");
    for (line, want) in [("RCPT TO:<b@else.example>", "250"), ("DATA", "354"), ("x\r\n.", "250")] {
        assert!(busy.say(line).starts_with(want));
    }
    assert_eq!(daemon.wait(), Some(0));

    let dead = NextHop::script().on(At::Connect, Refuses).start();
    let daemon = start(folder.path(), &config("outbound", &hop(dead.port), "", &rest));
    let _ = Client::try_connect(daemon.ports[0]);
    let answer = http(status, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(&format!("127.0.0.1:{}", dead.port)), "{answer}");
}

#[test]
fn next_hops_are_looked_at_when_nobody_sends() {
    let (folder, other, sink) = (folder(), folder(), Sink::start());
    // A next hop that can be ended. Nobody else gets its port then.
    let (port, status) = (reserved_port(), reserved_port());
    let text = config("outbound", &hop(sink.port), "", "").replace("127.0.0.1:0\"", &format!("127.0.0.1:{port}\""));
    let first = start(other.path(), &text);
    let rest = format!("[status]\nlisten = \"127.0.0.1:{status}\"");
    let daemon = start(folder.path(), &config("outbound", &hop(port), "", &rest));
    let answer = |want: &str| {
        poll_for("the state of the next hop", || Some(http(status, "/readyz")).filter(|answer| answer.contains(want)))
    };
    answer("\"ready\":true");
    // It stops while nobody sends.
    drop(first);
    let gone = answer("\"ready\":false");
    assert!(gone.starts_with("HTTP/1.1 503") && gone.contains(&format!("\"next_hops_down\":[\"127.0.0.1:{port}\"]")));
    let labels = format!("{{listener=\"127.0.0.1:0\",next_hop=\"127.0.0.1:{port}\"}}");
    assert!(http(status, "/metrics").contains(&format!("countersign_next_hop_up{labels} 0")));
    drop(daemon);

    let refusing = NextHop::script().on(At::Greeting, SaysAndCloses("421 4.3.2 too many connections")).start();
    let daemon = start(folder.path(), &config("outbound", &hop(refusing.port), "", &rest));
    let full = answer("\"ready\":false");
    assert!(full.contains(&format!("\"next_hops_refusing\":[\"127.0.0.1:{}\"]", refusing.port)), "{full}");
    let labels = format!("{{listener=\"127.0.0.1:0\",next_hop=\"127.0.0.1:{}\"}}", refusing.port);
    let metrics = http(status, "/metrics");
    assert!(metrics.contains(&format!("countersign_next_hop_refusing{labels} 1")), "{metrics}");
    assert!(metrics.contains(&format!("countersign_next_hop_up{labels} 1")), "{metrics}");
    drop(daemon);
}

#[test]
fn limits_unknown_users_and_certificates_are_in_the_metrics() {
    let (folder, sink) = (folder(), Sink::start());
    certificate(folder.path());
    let status = reserved_port();
    let rest = format!("[status]\nlisten = \"127.0.0.1:{status}\"\n[limits]\nbad_commands = 2");
    let tls = "tls = \"may\"\ncertificate = \"chain.pem\"\nprivate_key = \"key.pem\"";
    let daemon = start(folder.path(), &config("inbound", &hop(sink.port), tls, &rest));
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO client.example");
    client.say("MAIL FROM:<bob@else.example>");
    assert!(client.say("RCPT TO:<refused@our.example>").starts_with("550"));
    client.say("RCPT TO:<ann@our.example>");
    client.say("DATA");
    assert!(client.say("Subject: x\r\n\r\nx\r\n.").starts_with("250"));
    while !client.say("BOGUS").starts_with("421") {}
    let metrics = http(status, "/metrics");
    let value = |name: &str| -> f64 {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.trim().parse().unwrap()
    };
    assert!((value("countersign_unknown_users_total ") - 1.0).abs() < 0.5);
    assert!((value("countersign_limits_reached_total{limit=\"bad_commands\"} ") - 1.0).abs() < 0.5);
    assert!((value("countersign_message_added_seconds_count ") - 1.0).abs() < 0.5);
    let spent = value("countersign_message_added_seconds_sum ");
    assert!(spent > 0.0 && spent < 1.0, "{spent}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(value("countersign_certificate_expiry_timestamp_seconds{listener=\"127.0.0.1:0\"} ") > now);
    assert!((value("countersign_start_timestamp_seconds ") - now).abs() < 60.0);
    let (since, due) = (
        value("countersign_signing_key_since_timestamp_seconds "),
        value("countersign_signing_key_due_timestamp_seconds "),
    );
    assert!((due - since - 365.0 * 86_400.0).abs() < 1.0);
}

#[test]
fn what_is_sent_in_one_packet_leaves_in_one_packet() {
    // The next hop sends the replies to pipelined commands together, too.
    let next_hop = NextHop::script()
        .offers(&["PIPELINING"])
        .on(At::Greeting, Says("220 x"))
        .on(At::Mail, Says("250 m"))
        .on(At::Rcpt, Says("250 r"))
        .on(At::Data, Says("354 d"))
        .on(At::End, Says("250 queued"))
        .on(At::Quit, Says("221 bye"))
        .keeps_pieces()
        .start();
    let folder = folder();
    let daemon = start(folder.path(), &config("outbound", &hop(next_hop.port), "", ""));
    let mut stream = tcp(daemon.ports[0]).unwrap();
    let mut read = |text: &str| {
        stream.write_all(text.as_bytes()).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let n = stream.read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(read(""), "220 x\r\n");
    read("EHLO client.example\r\n");
    let replies = read("MAIL FROM:<ann@our.example>\r\nRCPT TO:<b@else.example>\r\nDATA\r\n");
    assert_eq!(replies, "250 m\r\n250 r\r\n354 d\r\n", "replies that come together leave together");
    assert_eq!(read("Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n"), "250 queued\r\n221 bye\r\n");
    let [_, envelope, message] = next_hop.pieces().try_into().unwrap();
    assert!(
        envelope.starts_with("MAIL FROM:<prvs=") && envelope.ends_with(">\r\nRCPT TO:<b@else.example>\r\nDATA\r\n")
    );
    assert_eq!(without_evidence(&message), "Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n");
}

#[test]
fn a_next_hop_with_an_old_certificate_is_spoken_to_where_it_need_not_be_verified() {
    let old = folder();
    old_certificate(old.path());
    for (mode, verify, works) in [
        ("may", "", true),
        ("require", "next_hop_verify = false", true),
        ("implicit", "next_hop_verify = false", true),
        ("require", "next_hop_ca = \"chain.pem\"", false),
        ("implicit", "next_hop_ca = \"chain.pem\"", false),
    ] {
        let old_one = NextHop::script().offers(&[]).tls(shows_certificate(old.path()), mode == "implicit").start();
        let folder = folder();
        // The CA file has to be readable and valid, although the old certificate fails before it is used.
        certificate(folder.path());
        let listener = format!("next_hop_tls = \"{mode}\"\nnext_hop_name = \"{NAME}\"\n{verify}\n");
        let rest = "[timeouts]\nconnect = \"2s\"";
        let daemon = start(folder.path(), &config("outbound", &hop(old_one.port), &listener, rest));
        let (mut client, greeting) = Client::try_connect(daemon.ports[0]).unwrap();
        let sent = greeting.starts_with("220")
            && client.say("EHLO client.example").starts_with("250")
            && client.send("ann@our.example", "bob@else.example", "x").unwrap().starts_with("250");
        assert_eq!(sent, works, "{mode} {verify}");
        assert_eq!(old_one.heard().iter().any(|line| line.starts_with("MAIL")), works, "{mode} {verify}");
        if !works {
            daemon.log.wait("the reason", 0, |line| line.contains("X.509 version 1"));
        }
    }
    // An unsuitable certificate of the listener is reported at the start, with the requirements.
    let folder = folder();
    old_certificate(folder.path());
    run_ok(folder.path(), &["keys", "init"]);
    let text = config("inbound", "\"127.0.0.1:9\"", &format!("tls = \"may\"\n{TLS}"), "");
    fs::write(folder.path().join("countersign.toml"), text).unwrap();
    let output = run(folder.path(), &["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("X.509 version 1") && error.contains("openssl req -x509"), "{error}");
    assert!(!error.contains("peer"), "{error}");
}
