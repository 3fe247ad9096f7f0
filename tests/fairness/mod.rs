//! The limits on what a stranger can use, all reached: the behaviour at each limit here, and in `beside` the delay for
//! a genuine client of another network. `docs/limits.md` has the table of these limits.

mod beside;
mod harvest;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::map::Map;
use crate::common::{
    At, Client, Daemon, Does, NextHop, PROGRAM, Sink, countersign, folder, poll_for, reserved_port, run_ok, tcp,
};

/// A site with all kinds of listeners. Clients of the inbound one name their address by a PROXY header.
struct Site {
    _folder: tempfile::TempDir,
    daemon: Daemon,
    status: u16,
    /// The sink for outbound mail.
    sink: Sink,
}

/// The indexes of the listeners, and of their ports.
const OUTBOUND: usize = 0;
const INBOUND: usize = 1;
const MAP: usize = 2;
const MILTER: usize = 3;

impl Site {
    fn start(settings: &str) -> Self {
        let sink = Sink::start();
        Self::before(sink.port, &sink, settings)
    }

    /// A site with another next hop for inbound mail.
    fn before(inbound_hop: u16, sink: &Sink, settings: &str) -> Self {
        Self::by(countersign(), inbound_hop, sink, settings)
    }

    /// As `before`, with a command that ends in running the program.
    fn by(command: Command, inbound_hop: u16, sink: &Sink, settings: &str) -> Self {
        let (folder, status) = (folder(), reserved_port());
        run_ok(folder.path(), &["keys", "init"]);
        let hop = sink.port;
        let config = format!(
            "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\nstatus.listen = \"127.0.0.1:{status}\"\n\
             {settings}\n\
             [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{hop}\"\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{inbound_hop}\"\n\
             trusted_proxies = [\"127.0.0.1\"]\naccept_proxy = true\n\
             [[listener]]\nprotocol = \"socketmap\"\nlisten = \"127.0.0.1:0\"\n\
             [[listener]]\nprotocol = \"milter\"\nrole = \"auto\"\nlisten = \"127.0.0.1:0\"\n"
        );
        let daemon = Daemon::start_by(command, folder.path(), &config);
        Self { _folder: folder, daemon, status, sink: sink.clone() }
    }

    /// A connection of a client with this address, before its greeting.
    fn come_from(&self, address: &str) -> Client {
        let family = if address.contains(':') { "TCP6 ::1" } else { "TCP4 127.0.0.1" };
        let (family, here) = family.split_once(' ').unwrap();
        let mut client = Client::over(tcp(self.daemon.ports[INBOUND]).unwrap());
        client.write(format!("PROXY {family} {address} {here} 1024 25\r\n").as_bytes()).unwrap();
        client
    }

    /// As `come_from`, greeted and after EHLO.
    fn client(&self, address: &str) -> Client {
        let mut client = self.come_from(address);
        let greeting = client.read_reply().unwrap();
        assert!(greeting.starts_with("220 "), "{address}: {greeting}");
        assert!(client.say("EHLO client.example").starts_with("250"));
        client
    }

    /// Sends a message as a genuine client, and returns the address to which its bounces are sent.
    fn sends(&self) -> String {
        let mut client = Client::connect(self.daemon.ports[OUTBOUND]);
        client.say("EHLO desk.our.example");
        let reply = client.send("ann@our.example", "bob@third.example", "Subject: out\r\n\r\nx").unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        self.sink.all().into_iter().rev().find(|message| message.from.starts_with("prvs=")).unwrap().from
    }

    /// Delivers a message as a genuine client of a network without attackers.
    fn receives(&self, from: &str, to: &str, text: &str) {
        let reply = self.client("198.51.100.7").send(from, to, text).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }

    /// Sends and receives one message as a genuine client.
    fn genuine(&self) {
        self.sends();
        self.receives("bob@third.example", "ann@our.example", "Subject: in\r\n\r\nx");
    }

    /// Negotiates as an MTA that requests all milter actions; `None` if the connection is closed.
    fn negotiate(&self) -> Option<TcpStream> {
        // SMFIC_OPTNEG: version 6, all actions, no protocol flags. The reply has the same length.
        let hello = [&13u32.to_be_bytes()[..], b"O", &6u32.to_be_bytes(), &0x1ffu32.to_be_bytes(), &0u32.to_be_bytes()];
        let mut stream = tcp(self.daemon.ports[MILTER]).unwrap();
        stream.write_all(&hello.concat()).unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).map(|()| stream).ok().filter(|_| head[4] == b'O')
    }

    /// The response of the status listener.
    fn get(&self, path: &str) -> String {
        let mut stream = tcp(self.status).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn ready(&self) -> String {
        self.get("/readyz").split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

/// A next hop with so many processes: further connections wait in its backlog, as with Postfix.
fn with_processes(processes: usize) -> u16 {
    NextHop::script().offers(&[]).sessions(processes).start().port
}

#[test]
fn silent_sessions_give_their_next_hops_back() {
    const PROCESSES: usize = 5;
    let site = Site::before(with_processes(PROCESSES), &Sink::start(), "");
    let mut silent: Vec<Client> = (0..PROCESSES).map(|n| site.client(&format!("203.0.113.{n}"))).collect();
    // The next hop is full. This client waits, and is greeted when the others have been silent for ten seconds.
    let started = Instant::now();
    let mut genuine = site.client("198.51.100.7");
    assert!(started.elapsed() > Duration::from_secs(5), "the next hop was not full: {:?}", started.elapsed());
    assert!(genuine.send("bob@third.example", "ann@our.example", "x").unwrap().starts_with("250"));
    assert_eq!(site.ready(), "200");
    // Clients that continue get another connection, and do not notice.
    for client in &mut silent[..2] {
        assert!(client.send("bob@third.example", "ann@our.example", "x").unwrap().starts_with("250"));
    }
    // A client in a transaction keeps its connection.
    assert!(silent[0].say("MAIL FROM:<bob@third.example>").starts_with("250"));
}

#[test]
fn a_next_hop_that_is_full_is_busy_and_not_down() {
    const PROCESSES: usize = 3;
    let site = Site::before(with_processes(PROCESSES), &Sink::start(), "timeouts.connect = \"1s\"");
    let mut open: Vec<Client> = (0..PROCESSES).map(|n| site.client(&format!("203.0.113.{n}"))).collect();
    for client in &mut open {
        client.say("MAIL FROM:<bob@third.example>");
    }
    let mut late = site.come_from("198.51.100.7");
    assert!(late.read_reply().unwrap().starts_with("421 4.4.1 "));
    assert_eq!(site.ready(), "200");
    site.daemon.log.wait("the line", 0, |line| line.contains("next hop is busy") && line.contains("\"sessions\":3"));
    assert!(!site.daemon.log.all().iter().any(|line| line.contains("next hop cannot be reached")));
    drop(open);
    let mut client = site.client("198.51.100.7");
    assert!(client.send("bob@third.example", "ann@our.example", "x").unwrap().starts_with("250"));
}

#[test]
fn a_next_hop_whose_backlog_is_full_is_busy_and_not_down() {
    // The next hop serves one session, and one more may wait.
    let port = NextHop::script().offers(&[]).sessions(1).backlog(1).start().port;
    let site = Site::before(port, &Sink::start(), "timeouts.connect = \"1s\"");
    let mut served = site.client("203.0.113.1");
    served.say("MAIL FROM:<bob@third.example>");
    let mut late: Vec<Client> = (0..6).map(|n| site.come_from(&format!("198.51.{n}.7"))).collect();
    late.iter_mut().for_each(|client| assert!(client.read_reply().unwrap().starts_with("421 4.4.1 ")));
    assert_eq!(site.ready(), "200");
    assert!(!site.daemon.log.all().iter().any(|line| line.contains("next hop cannot be reached")));
}

#[test]
fn a_network_has_twenty_sessions_and_a_site_of_ipv6_eighty() {
    let site = Site::start("");
    let greeting = |address: &str| {
        let mut client = site.come_from(address);
        let greeting = client.read_reply().unwrap();
        (client, greeting)
    };
    let mut open = Vec::new();
    for n in 0..20 {
        open.push(site.client(&format!("203.0.113.{n}")));
    }
    assert!(greeting("203.0.113.77").1.starts_with("421 4.7.0 too many connections from your network"));
    for n in 0..80 {
        open.push(site.client(&format!("2001:db8:9:{:x}00::{n:x}", n / 20)));
    }
    // 2001:db8:9:400::/56 has no connections yet, but the /48 has its eighty.
    assert!(greeting("2001:db8:9:400::1").1.starts_with("421 4.7.0 too many connections from your network"));
    assert!(greeting("2001:db8:a::1").1.starts_with("220 "));
    site.genuine();
}

#[test]
fn descriptors_are_left_whatever_comes() {
    // Two for each session of a proxy, one for each of map and milter, 50 for refused connections at each listener, and
    // 64.
    let enough = 2 * 20 + 2 * 20 + 20 + 20 + 4 * 50 + 64;
    let limited = format!("ulimit -n {enough}; exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &limited, PROGRAM]);
    let sink = Sink::start();
    let site = Site::by(command, sink.port, &sink, "limits.connections = 20\nlimits.connections_per_client = 0");
    // More connections than there are descriptors.
    let strangers: Vec<TcpStream> = (0..400).map(|_| tcp(site.daemon.ports[INBOUND]).unwrap()).collect();
    for _ in 0..5 {
        let mut sending = Client::connect(site.daemon.ports[OUTBOUND]);
        sending.say("EHLO desk.our.example");
        assert!(sending.send("ann@our.example", "bob@third.example", "x").unwrap().starts_with("250"));
        assert!(Map::connect(site.daemon.ports[MAP]).ask("sign", "ann@our.example").starts_with("OK prvs="));
        assert_eq!(site.ready(), "200", "a descriptor that is not there takes no next hop down");
    }
    drop(strangers);
    poll_for("room on port 25", || {
        let mut client = site.come_from("198.51.100.7");
        client.read_reply().ok().filter(|greeting| greeting.starts_with("220 "))
    });
    site.genuine();
    assert!(!site.daemon.log.all().iter().any(|line| line.contains("no next hop can be reached")));
}

#[test]
fn each_listener_has_connections_of_its_own() {
    let site = Site::start("limits.connections = 30");
    let strangers: Vec<Client> = (0..30).map(|n| site.client(&format!("203.0.{n}.9"))).collect();
    let mut refused = site.come_from("198.51.100.7");
    assert!(refused.read_reply().unwrap().starts_with("421 4.3.2 too many connections"));
    // Strangers that fill port 25 do not block outbound mail or queries.
    let mut sending = Client::connect(site.daemon.ports[OUTBOUND]);
    sending.say("EHLO desk.our.example");
    assert!(sending.send("ann@our.example", "bob@third.example", "x").unwrap().starts_with("250"));
    assert!(Map::connect(site.daemon.ports[MAP]).ask("sign", "ann@our.example").starts_with("OK prvs="));
    drop(strangers);
    poll_for("room on port 25", || {
        let mut client = site.come_from("198.51.100.7");
        client.read_reply().ok().filter(|greeting| greeting.starts_with("220 "))
    });
    // Idle clients of the map do not block mail.
    let mut askers: Vec<Map> = (0..30).map(|_| Map::connect(site.daemon.ports[MAP])).collect();
    askers.iter_mut().for_each(|map| assert!(map.ask("sign", "ann@our.example").starts_with("OK prvs=")));
    site.genuine();
    // If all are idle, the one that has been idle longest is closed for a client that sends a query.
    for _ in 0..40 {
        assert!(Map::connect(site.daemon.ports[MAP]).ask("sign", "ann@our.example").starts_with("OK prvs="));
    }
    // Clients that begin a query and never complete it are closed, too.
    for map in &mut askers {
        let _ = map.write(b"2");
    }
    let mut halves: Vec<Map> = (0..30).map(|_| Map::connect(site.daemon.ports[MAP])).collect();
    halves.iter_mut().for_each(|map| map.write(b"2").unwrap());
    for _ in 0..40 {
        assert!(Map::connect(site.daemon.ports[MAP]).ask("sign", "ann@our.example").starts_with("OK prvs="));
    }
    // A client whose connection was closed has to reconnect, as MTAs do.
    let alive = askers.iter_mut().filter_map(|map| map.try_ask("sign", "ann@our.example")).count();
    assert!(alive < 30, "{alive}");
}

#[test]
fn idle_milter_connections_give_way() {
    let site = Site::start("limits.connections = 10");
    let idle: Vec<TcpStream> = (0..10).map(|_| site.negotiate().unwrap()).collect();
    for n in 0..50 {
        assert!(site.negotiate().is_some(), "{n}");
    }
    drop(idle);
}

#[test]
fn a_listener_may_say_how_many_connections_it_has() {
    let (folder, sink) = (folder(), Sink::start());
    run_ok(folder.path(), &["keys", "init"]);
    let config = format!(
        "domains.local = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\n\
         next_hop = \"127.0.0.1:{}\"\nconnections = 2\n",
        sink.port
    );
    let daemon = Daemon::start(folder.path(), &config);
    let _two = [Client::connect(daemon.ports[0]), Client::connect(daemon.ports[0])];
    assert!(Client::try_connect(daemon.ports[0]).unwrap().1.starts_with("421 4.3.2 too many connections"));
    let wrong = config.replace("connections = 2", "connections = 0");
    std::fs::write(folder.path().join("wrong.toml"), wrong).unwrap();
    let output = crate::common::run(folder.path(), &["check", "-c", "wrong.toml"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("wrong.toml:6: connections must be at least 1"), "{error}");
}

#[test]
fn a_session_of_refused_recipients_ends_and_writes_a_few_lines() {
    let site = Site::start("");
    let mut client = site.client("203.0.113.9");
    client.say("MAIL FROM:<bob@else.example>");
    let replies: Vec<String> =
        (0..5000).map_while(|n| client.try_say(&format!("RCPT TO:<x{n}@third.example>")).ok()).collect();
    assert_eq!(replies.len(), 51);
    assert_eq!(replies[50], "421 4.7.0 too many recipients that do not exist here");
    site.daemon.log.wait("the sum", 0, |line| line.contains("refused-recipients") && line.contains("\"more\":41"));
    let lines = site.daemon.log.all().iter().filter(|line| line.contains("relaying-denied")).count();
    assert_eq!(lines, 10);
}

#[test]
fn a_session_of_recipients_without_a_message_writes_so_many_lines() {
    let site = Site::start("");
    let mut client = site.client("203.0.113.9");
    let recipients = |client: &mut Client| {
        for _ in 0..150 {
            client.say("MAIL FROM:<bob@else.example>");
            assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"));
            client.say("RSET");
        }
    };
    recipients(&mut client);
    // A complete message resets the limit.
    assert!(client.send("bob@else.example", "ann@our.example", "x").unwrap().starts_with("250"));
    recipients(&mut client);
    recipients(&mut client);
    client.say("QUIT");
    site.daemon.log.wait("the sum", 0, |line| line.contains("accepted-recipients") && line.contains("\"more\":100"));
    let lines = site.daemon.log.all().iter().filter(|line| line.contains("\"event\":\"recipient\"")).count();
    assert_eq!(lines, 151 + 200);
}

#[test]
fn slow_messages_take_no_room_from_others() {
    let site = Site::start("inbound.hold = \"32 KiB\"\nlimits.held = \"128 KiB\"");
    // Each begins a bounce and sends no more of it: sixteen steps of 8 KiB use all the memory.
    let begin = |address: &str| {
        let mut client = site.client(address);
        client.say("MAIL FROM:<>");
        assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"));
        let reply = client.say("DATA");
        (client, reply)
    };
    let slow: Vec<_> = (0..16).map(|n| begin(&format!("203.0.{n}.9"))).collect();
    assert!(slow.iter().all(|(_, reply)| reply.starts_with("354")));
    let report = "Subject: away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away";
    let (_, full) = begin("198.51.100.8");
    assert!(full.starts_with("451 4.3.1 "), "those have just begun: {full}");
    // Soon they count as slow, and a client that sends gets their memory, even for a long message.
    let sent = poll_for("room", || {
        let mut client = site.client("198.51.100.7");
        let long = format!("{report}{}", "\r\na line of a long answer".repeat(1000));
        client.send("", "ann@our.example", &long).ok().filter(|reply| reply.starts_with("250"))
    });
    assert!(sent.starts_with("250"));
    let mut told = slow.into_iter().map(|(client, _)| client);
    assert!(told.any(|mut client| client.read_reply().is_ok_and(|reply| reply.starts_with("421 4.3.1 "))));
}

#[test]
fn what_the_next_hop_has_gives_no_room_up() {
    let hop = NextHop::script().offers(&[]).when(At::End, "slow hop", Does::Holds("250 queued")).start();
    let site = Site::before(hop.port, &Sink::start(), "inbound.hold = \"32 KiB\"\nlimits.held = \"128 KiB\"");
    let mut whole = site.client("203.0.113.9");
    for line in ["MAIL FROM:<>", "RCPT TO:<ann@our.example>", "DATA"] {
        assert!(whole.say(line).starts_with(['2', '3']));
    }
    whole.write(b"Subject: slow hop\r\nAuto-Submitted: auto-replied\r\n\r\nI am away\r\n.\r\n").unwrap();
    hop.wait_at(At::End);
    // The waiting session would be the oldest and slowest of those that use memory.
    let _slow: Vec<Client> = (0..16).map(|n| beside::begins(&site, &format!("203.0.{n}.9")).unwrap()).collect();
    poll_for("room by another's loss", || {
        let reply = site.client("198.51.100.7").send("", "ann@our.example", beside::AWAY).unwrap();
        reply.starts_with("250").then_some(())
    });
    hop.release();
    assert_eq!(whole.read_reply().unwrap(), "250 queued");
}

#[test]
fn one_network_holds_a_quarter() {
    let site = Site::start("inbound.hold = \"8 KiB\"\nlimits.held = \"64 KiB\"");
    let data = |address: &str| {
        let mut client = site.client(address);
        client.say("MAIL FROM:<>");
        client.say("RCPT TO:<ann@our.example>");
        let reply = client.say("DATA");
        (client, reply)
    };
    let own: Vec<_> = (1..4).map(|n| data(&format!("203.0.113.{n}"))).collect();
    let replies: Vec<&str> = own.iter().map(|(_, reply)| reply.get(..3).unwrap()).collect();
    assert_eq!(replies, ["354", "354", "451"]);
    assert!(data("198.51.100.7").1.starts_with("354"));
    site.daemon.log.wait("the reason", 0, |line| line.contains("or this network's share of it"));
}
