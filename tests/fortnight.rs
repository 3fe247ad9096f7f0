//! A fortnight at a site with a real Postfix, in a minute: mail in and out each day, a host that bypasses signing, the
//! hold, the enforcement, a flood of false bounces with reloads in the middle, commands, kills and restarts. Nothing is
//! lost, and every figure is right.
//!
//! Days pass by libfaketime, for the daemon only. `scripts/fortnight` does it with 20,000 false bounces.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::common::postfix::{Postfix, Role};
use crate::common::wait::wait_for_state;
use crate::common::{Client, Daemon, can_run, dsn, folder, poll_for, reserved_port, run, run_ok};
use crate::notices::HttpSink;
use crate::ramp::{bounce_to_unsigned_mail, has_faketime, in_days};

/// Networks that send false bounces.
const NETWORKS: u8 = 4;
/// False bounces, if the environment names no other number.
const FLOOD: usize = 2_000;

/// The site: its mail server, a server of the world, and the daemon between them.
struct Site {
    daemon: Option<Daemon>,
    ours: Postfix,
    world: Postfix,
    http: HttpSink,
    config: String,
    /// The port for submission, and that of the inbound listener.
    ports: [u16; 2],
    folder: tempfile::TempDir,
    /// Messages in the mailboxes of Ann and Bob.
    expected: [usize; 2],
    /// The day on which the daemon runs.
    day: u32,
}

impl Site {
    fn start() -> Self {
        let (folder, http) = (folder(), HttpSink::start(0));
        run_ok(folder.path(), &["keys", "init"]);
        let [submit, deliver, world_port, outbound, inbound] = [(); 5].map(|()| reserved_port());
        let ours = Postfix::start(
            folder.path(),
            &Role {
                name: "ours",
                domain: "our.example",
                mailboxes: &["ann"],
                ports: &[
                    (submit, ""),
                    // As in docs/mta/postfix.md.
                    (deliver, "smtpd_client_connection_count_limit=0 smtpd_junk_command_limit=100000"),
                ],
                relayhost: outbound,
                extra: "in_flow_delay = 0",
                ..Role::default()
            },
        );
        let world = Postfix::start(
            folder.path(),
            &Role {
                name: "world",
                domain: "else.example",
                mailboxes: &["bob"],
                // Accepts mail for unknown recipients and bounces it later, as some servers do.
                ports: &[(world_port, "smtpd_reject_unlisted_recipient=no")],
                relayhost: inbound,
                ..Role::default()
            },
        );
        let listener = |role: &str, port: u16, hop: u16| {
            format!("[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:{port}\"\nnext_hop = \"127.0.0.1:{hop}\"\n")
        };
        let config = format!(
            "domains.local = [\"our.example\"]\noutbound.overflow = \"pass\"\ntimeouts.connect = \"10s\"\n\
             notify.webhook = \"http://127.0.0.1:{}/\"\n{}{}",
            http.port,
            listener("outbound", outbound, world_port),
            listener("inbound", inbound, deliver)
        );
        let ports = [submit, inbound];
        Self { daemon: None, ours, world, http, config, ports, folder, expected: [0; 2], day: 0 }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the daemon, and starts it on another day.
    fn on(&mut self, day: u32) {
        self.kill();
        self.day = day;
        self.daemon = Some(Daemon::start_by(in_days(day), self.folder.path(), &self.config));
    }

    /// Kills the daemon when what it has counted is on disk, which takes a second.
    fn kill(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        wait_for_state(self.path(), || {
            // A tag of an unknown key, which is counted.
            let mut client = client(self.ports[1], [127, 0, 0, 1]);
            client.say("MAIL FROM:<>");
            client.say("RCPT TO:<prvs=9000abcdef=nobody@our.example>");
        });
        daemon.signal(Signal::KILL);
        drop(daemon);
    }

    fn submit(&mut self, to: &str) {
        let mut client = client(self.ports[0], [127, 0, 0, 1]);
        let text = "From: Ann <ann@our.example>\r\nSubject: hello\r\n\r\nx";
        assert!(client.send("ann@our.example", to, text).unwrap().starts_with("250"), "{to}");
    }

    /// Waits until the mailboxes have what they should have, and no more.
    fn arrives(&self) {
        let count = || [self.ours.mailbox("ann").len(), self.world.mailbox("bob").len()];
        poll_for(&format!("{:?} messages", self.expected), || (count() == self.expected).then_some(()));
    }

    /// Mail of an ordinary day.
    fn mail(&mut self) {
        self.submit("bob@else.example");
        // It is bounced by a Postfix to a tag, and comes home.
        self.submit("nobody@else.example");
        let mut bob = client(self.ports[1], [127, 0, 0, 1]);
        let reply = bob.send("bob@else.example", "ann@our.example", "Subject: hi\r\n\r\nx").unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        self.expected[0] += 2;
        self.expected[1] += 1;
        self.arrives();
    }

    fn status(&self) -> serde_json::Value {
        let output = run(self.path(), &["status", "--json", "-c", "countersign.toml"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = run(self.path(), arguments);
        [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
    }

    /// Runs a command on the daemon's day.
    fn commands(&self, arguments: &[&str]) {
        let output = in_days(self.day).args(arguments).current_dir(self.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn ramp(&self) -> String {
        self.status()["ramps"][0][1].as_str().unwrap().to_owned()
    }
}

fn client(port: u16, from: [u8; 4]) -> Client {
    let mut client = Client::connect_from(from, port);
    client.say("EHLO client.example");
    client
}

/// A false bounce, with the Message-ID of an original that never was.
fn false_bounce(n: usize) -> String {
    let original = format!(
        "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: Ann <ann@our.example>\r\nMessage-ID: <flood-{n}@our.example>\r\n\r\nspam\r\n--b--\r\n"
    );
    dsn("failed").replace("--b--\r\n", &original).trim_end().to_owned()
}

/// Sends false bounces from one network. All are refused. A session ends after `limits.commands` without a message.
fn flood(port: u16, network: u8, numbers: std::ops::Range<usize>) {
    let connect = || client(port, [127, 0, network, 1]);
    let mut client = connect();
    for n in numbers {
        if n % 500 == 0 {
            client = connect();
        }
        let reply = client.send("", "ann@our.example", &false_bounce(n)).unwrap();
        assert!(reply.starts_with("550 5.7.1 bounce refused"), "{n}: {reply}");
    }
}

/// A flood from several networks, while ordinary mail goes on and the config is reloaded again and again.
fn attack(site: &mut Site, bounces: usize) {
    let (port, each, over) = (site.ports[1], bounces / usize::from(NETWORKS), AtomicBool::new(false));
    let path = site.path().to_owned();
    let (ordinary, reloads) = std::thread::scope(|scope| {
        let floods: Vec<_> = (0..NETWORKS)
            .map(|n| scope.spawn(move || flood(port, n + 1, usize::from(n) * each..(usize::from(n) + 1) * each)))
            .collect();
        let ordinary = scope.spawn(|| {
            let mut client = client(port, [127, 0, 9, 1]);
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) && sent < 200 {
                let reply = client.send("bob@else.example", "ann@our.example", "Subject: hi\r\n\r\nx").unwrap();
                assert!(reply.starts_with("250"), "{reply}");
                sent += 1;
            }
            sent
        });
        let mut reloads = 0;
        while floods.iter().any(|flood| !flood.is_finished()) && reloads < 20 {
            let (from, to) = if reloads % 2 == 0 { ("pass", "sign") } else { ("sign", "pass") };
            let text = std::fs::read_to_string(path.join("countersign.toml")).unwrap();
            let text = text.replace(&format!("overflow = \"{from}\""), &format!("overflow = \"{to}\""));
            let text =
                text.replace(&format!("connect = \"{}s\"", 10 + reloads), &format!("connect = \"{}s\"", 11 + reloads));
            std::fs::write(path.join("countersign.toml"), text).unwrap();
            let said = run_ok(&path, &["reload", "-c", "countersign.toml"]);
            assert!(said.contains("In force now: outbound.overflow, timeouts.connect."), "{said}");
            reloads += 1;
        }
        let refused: Vec<_> = floods.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        refused.into_iter().for_each(|flood| flood.unwrap());
        (ordinary.join().unwrap(), reloads)
    });
    assert!(ordinary > 0 && reloads > 0, "{ordinary} {reloads}");
    site.expected[0] += ordinary;
    site.arrives();
}

#[test]
fn a_fortnight() {
    if !has_faketime("a_fortnight") || !can_run(&["postfix"], "a_fortnight") {
        return;
    }
    let bounces = std::env::var("COUNTERSIGN_FLOOD").ok().and_then(|text| text.parse().ok()).unwrap_or(FLOOD);
    let mut site = Site::start();
    // A week of signed mail. On the seventh day, bounces show a host that bypasses signing.
    for day in 0..7 {
        site.on(day);
        assert!(site.ramp().starts_with("observed"), "day {day}: {}", site.ramp());
        site.mail();
    }
    let mut stranger = client(site.ports[1], [127, 0, 0, 1]);
    for _ in 0..2 {
        let reply = stranger.send("", "ann@our.example", &bounce_to_unsigned_mail("web1.our.example")).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    site.expected[0] += 2;
    site.arrives();
    drop(stranger);
    // The week is over, and the ramp is held, with the name of the host.
    for day in 7..9 {
        site.on(day);
        site.mail();
        let held = site.ramp();
        assert!(held.contains("held, because 2 bounces return mail that web1.our.example sent unsigned"), "{held}");
    }
    let output = run(site.path(), &["status", "-c", "countersign.toml"]);
    assert_eq!(output.status.code(), Some(1), "a hold needs attention");
    // It was mended: three days after the last such bounce, the domain is enforced.
    site.on(10);
    poll_for("enforcement", || (site.ramp() == "enforced").then_some(()));
    let before = site.status()["refused"].clone();
    site.mail();
    attack(&mut site, bounces);

    // What was refused is shown, and one bounce is found by its address and by its original.
    let status = site.status();
    let refused = |status: &serde_json::Value, reason: &str| -> u64 {
        let list = status["refused"].as_array().unwrap();
        list.iter().find(|entry| entry[0] == reason).map_or(0, |entry| entry[1].as_u64().unwrap())
    };
    let sent = u64::try_from(bounces).unwrap();
    assert_eq!(refused(&status, "untagged-ndr"), sent, "{before} {status}");
    for network in 1..=NETWORKS {
        let name = format!("127.0.{network}.0/24");
        let list = status["refused_networks"].as_array().unwrap();
        let count = list.iter().find(|entry| entry[0] == name).map(|entry| entry[1].as_u64().unwrap());
        assert_eq!(count, Some(sent / u64::from(NETWORKS)), "{list:?}");
    }
    let shown = site.says(&["status", "-c", "countersign.toml"]);
    assert!(shown.contains("our.example: enforced") && shown.contains("untagged-ndr"), "{shown}");
    let one = bounces / 2 + 7;
    poll_for("the trace", || {
        let found = site.says(&["trace", "-c", "countersign.toml", &format!("<flood-{one}@our.example>")]);
        (found.lines().count() == 1 && found.contains("refused: a bounce without a tag")).then_some(())
    });
    let found = site.says(&["trace", "-c", "countersign.toml", "ann@our.example"]);
    assert!(found.contains("refused: a bounce without a tag"), "{found}");

    // For an hour, nothing is refused, and that outlives a kill.
    site.commands(&["observe", "-c", "countersign.toml", "1h"]);
    let bounce =
        |site: &Site| client(site.ports[1], [127, 0, 5, 1]).send("", "ann@our.example", &false_bounce(0)).unwrap();
    assert!(bounce(&site).starts_with("250"));
    site.on(10);
    assert!(bounce(&site).starts_with("250"));
    site.expected[0] += 2;
    site.commands(&["observe", "-c", "countersign.toml", "off"]);
    assert!(bounce(&site).starts_with("550"));
    let after = site.status();
    assert_eq!(refused(&after, "untagged-ndr"), sent + 1);
    assert_eq!(after["signed"], status["signed"], "{after}");
    // Four days later it still holds, and mail goes on.
    site.on(14);
    assert_eq!(site.ramp(), "enforced");
    site.mail();
    let week = &site.status()["week"];
    assert_eq!(week["refused"].as_array().unwrap().iter().find(|it| it[0] == "untagged-ndr").unwrap()[1], sent + 1);
    // A day of mail has two signed senders and a genuine bounce. In the last 7 days: the 8th, the 10th and the 14th.
    assert_eq!((&week["signed"], &week["genuine"]), (&serde_json::json!(6), &serde_json::json!(3)), "{week}");
    let told: Vec<String> = site.http.events().into_iter().filter(|event| event != "digest").collect();
    assert_eq!(told, ["ramp-held", "enforced"]);
}
