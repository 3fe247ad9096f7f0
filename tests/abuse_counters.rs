//! State and counters of a daemon: guesses, surges, ramps, and what enforcing would have refused.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::wait::wait_for_state;
use crate::common::{Client, Daemon, Sink, countersign, dsn, folder, pace, poll_for, reserved_port, run, run_ok, tcp};
use countersign::envelope::abuse::Memory;
use countersign::envelope::address::{Address, ReversePath};
use countersign::envelope::keyring::Keyring;
use countersign::envelope::match_lists::DomainSet;
use countersign::envelope::rules::{Caller, Candidate, ContentCheck, ContentVerdict, Disposition, Rules};
use countersign::envelope::site_policy::{InboundMode, Policy};
use countersign::envelope::tag::batv;
use countersign::envelope::time::Timestamp;
use countersign::state::ring_file;

pub(crate) struct Site {
    pub folder: tempfile::TempDir,
    pub sink: Sink,
    pub daemon: Daemon,
    pub status: u16,
}

impl Site {
    /// A daemon with a new ring; `since`: the time since which its domain is signed.
    pub(crate) fn start(inbound: &str, since: Option<&str>) -> Self {
        let (folder, sink, status) = (folder(), Sink::start(), reserved_port());
        run_ok(folder.path(), &["keys", "init"]);
        if let Some(since) = since {
            run_ok(folder.path(), &["keys", "ramp-start", "--at", since, "our.example"]);
        }
        let daemon = Self::daemon(folder.path(), sink.port, status, inbound);
        Self { folder, sink, daemon, status }
    }

    pub(crate) fn daemon(folder: &Path, next_hop: u16, status: u16, inbound: &str) -> Daemon {
        Self::daemon_by(countersign(), folder, next_hop, status, inbound)
    }

    pub(crate) fn daemon_by(program: Command, folder: &Path, next_hop: u16, status: u16, inbound: &str) -> Daemon {
        let listener = |role: &str| {
            let hop = format!("next_hop = \"127.0.0.1:{next_hop}\"\ntrusted_proxies = [\"127.0.0.1\"]\n");
            format!("[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\n{hop}")
        };
        let text = format!(
            "keys.ring = \"keys/ring.toml\"\ndomains.local = [\"our.example\"]\nstatus.listen = \"127.0.0.1:{status}\"\n{inbound}\n{}{}",
            listener("outbound"),
            listener("inbound")
        );
        Daemon::start_by(program, folder, &text)
    }

    pub(crate) fn ring(&self) -> Keyring {
        ring_file::load(&self.folder.path().join("keys/ring.toml")).unwrap()
    }

    pub(crate) fn tag(&self, forged: bool) -> String {
        self.tag_of("ann@our.example", forged)
    }

    pub(crate) fn tag_of(&self, address: &str, forged: bool) -> String {
        let address = Address::parse(address).unwrap();
        let tag =
            batv::sign(self.ring().own_signer().unwrap(), &batv::BatvParams::default(), now().day(), &address).unwrap();
        let tag = tag.address().to_string();
        if !forged {
            return tag;
        }
        let last = if &tag[14..15] == "0" { "1" } else { "0" };
        format!("{}{last}{}", &tag[..14], &tag[15..])
    }

    pub(crate) fn inbound(&self) -> Client {
        let mut client = Client::connect(self.daemon.ports[1]);
        client.say("EHLO client.example");
        client
    }

    /// A client with this address, as named by a trusted proxy.
    pub(crate) fn from(&self, address: &str) -> Client {
        let mut client = Client::connect(self.daemon.ports[1]);
        client.say("EHLO proxy.example");
        assert!(client.say(&format!("XCLIENT ADDR={address}")).starts_with("220 "));
        client.say("EHLO client.example");
        client
    }

    /// A bounce that returns a message of Ann's.
    pub(crate) fn genuine_bounce(&self) -> String {
        self.send();
        let returned = format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{}--b--\r\n", self.sink.last().text);
        dsn("failed").replace("--b--\r\n", &returned).trim_end().to_owned()
    }

    /// The reply to one recipient, in a transaction that is aborted.
    pub(crate) fn rcpt(&self, client: &mut Client, sender: &str, recipient: &str) -> String {
        client.say(&format!("MAIL FROM:<{sender}>"));
        let reply = client.say(&format!("RCPT TO:<{recipient}>"));
        client.say("RSET");
        reply
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = tcp(self.status).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let metrics = self.get("/metrics");
        metrics.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }

    pub(crate) fn send(&self) {
        let mut client = Client::connect(self.daemon.ports[0]);
        client.say("EHLO client.example");
        let reply = client.send("ann@our.example", "bob@third.example", "Subject: x\r\n\r\nx").unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }

    pub(crate) fn check(&self) -> String {
        run_ok(self.folder.path(), &["check", "-c", "countersign.toml"])
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_secs() as i64)
}

const ENFORCE: &str = "inbound.mode = \"enforce\"\n";

#[test]
fn a_network_that_guesses_gets_no_answer() {
    let site = Site::start(&format!("{ENFORCE}inbound.guesses_per_minute = 5"), None);
    let (forged, valid) = (site.tag(true), site.tag(false));
    let mut client = site.inbound();
    assert!(site.rcpt(&mut client, "", &valid).starts_with("250"));
    for _ in 0..5 {
        assert!(site.rcpt(&mut client, "", &forged).starts_with("550 5.7.1"));
    }
    // A valid tag may be a lucky guess: neither the reply to the recipient nor the reply to the message reveals that.
    for tag in [&forged, &valid] {
        let reply = client.send("", tag, dsn("failed").trim_end()).unwrap();
        assert!(reply.starts_with("451 4.7.1 too many return addresses"), "{tag}: {reply}");
    }
    // A bounce that returns a message of this site is genuine, regardless of its tag.
    let bounce = site.genuine_bounce();
    for tag in [&forged, &valid] {
        let reply = client.send("", tag, &bounce).unwrap();
        assert!(reply.starts_with("250"), "{tag}: {reply}");
        assert_eq!(site.sink.last().to, ["ann@our.example"]);
    }
    // Bounces to other recipients from this network, and to Ann from other networks, are not affected.
    assert!(site.rcpt(&mut client, "", &site.tag_of("ben@our.example", false)).starts_with("250"));
    assert!(
        client.send("", &site.tag_of("ben@our.example", false), dsn("failed").trim_end()).unwrap().starts_with("250")
    );
    assert!(site.from("198.51.100.7").send("", &valid, dsn("failed").trim_end()).unwrap().starts_with("250"));
    assert!(site.rcpt(&mut client, "", "ann@our.example").starts_with("250"), "other mail is not touched");
    assert!(site.rcpt(&mut client, "bob@else.example", &valid).starts_with("250"), "nor is a person's");
    assert_eq!(site.metric("countersign_forgery_guesses_total"), Some(5.0));
    assert_eq!(site.metric("countersign_forgery_guesses_limited_total"), Some(4.0));
    let chance = site.metric("countersign_forgery_chance").unwrap();
    assert!((chance / (5.0 / f64::from(1 << 24)) - 1.0).abs() < 0.01, "{chance}");
    let recipients = "countersign_recipients_total{verdict=\"forged\",action=\"reject\",reason=\"forged\"}";
    assert_eq!(site.metric(recipients), Some(5.0), "{}", site.get("/metrics"));
}

#[test]
fn a_daemon_sender_guesses_like_the_null_sender() {
    let site = Site::start(&format!("{ENFORCE}inbound.guesses_per_minute = 5"), None);
    let (forged, valid) = (site.tag(true), site.tag(false));
    let mut client = site.inbound();
    for _ in 0..5 {
        assert!(site.rcpt(&mut client, "mailer-daemon@evil.example", &forged).starts_with("250"));
    }
    for sender in ["mailer-daemon@evil.example", ""] {
        assert!(client.send(sender, &valid, dsn("failed").trim_end()).unwrap().starts_with("451 4.7.1"), "{sender}");
    }
    assert_eq!(site.metric("countersign_forgery_guesses_total"), Some(5.0));
}

#[test]
fn a_trusted_relay_is_not_limited() {
    let site = Site::start(
        &format!("{ENFORCE}inbound.guesses_per_minute = 2\ninbound.trusted_relays = [\"127.0.0.0/8\"]"),
        None,
    );
    let (forged, mut client) = (site.tag(true), site.inbound());
    for _ in 0..10 {
        assert!(site.rcpt(&mut client, "", &forged).starts_with("550"));
    }
    assert_eq!(site.metric("countersign_forgery_guesses_total"), Some(10.0));
}

#[test]
fn a_network_has_a_larger_account_for_all_recipients() {
    let site = Site::start(&format!("{ENFORCE}inbound.guesses_per_minute = 3"), None);
    let mut client = site.inbound();
    // Ten recipients with three guesses each.
    for n in 0..30 {
        let forged = site.tag_of(&format!("user{}@our.example", n / 3), true);
        assert!(site.rcpt(&mut client, "", &forged).starts_with("550 5.7.1"), "{n}");
    }
    let valid = site.tag_of("ben@our.example", false);
    assert!(client.send("", &valid, dsn("failed").trim_end()).unwrap().starts_with("451 4.7.1 too many return"));
    assert!(site.from("198.51.100.7").send("", &valid, dsn("failed").trim_end()).unwrap().starts_with("250"));
    site.daemon.log.wait("the alarm", 0, |line| line.contains("client network exceeded guesses_per_minute"));
}

/// Waits for the beginning of a minute: surges are counted by the minute of the clock, so a test of one must end in the
/// minute in which it began.
fn early_in_a_minute() {
    let second = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() % 60;
    if second >= 40 {
        pace(Duration::from_secs(60 - second));
    }
}

#[test]
fn a_surge_is_made_of_bounces_from_many_networks_and_puts_off_for_a_minute() {
    let site = Site::start(&format!("{ENFORCE}inbound.reject_at = \"auto\""), None);
    early_in_a_minute();
    let mut client = site.inbound();
    let gauge = "countersign_reject_at_rcpt{domain=\"our.example\"}";
    // Recipients without a message are not bounces, and one network is not a surge.
    for _ in 0..50 {
        assert!(site.rcpt(&mut client, "", "ann@our.example").starts_with("250"));
    }
    let bounce = dsn("failed");
    for _ in 0..30 {
        assert!(client.send("", "ann@our.example", bounce.trim_end()).unwrap().starts_with("550 5.7.1"));
    }
    assert_eq!(site.metric(gauge), Some(0.0));
    for network in 0..4 {
        let mut client = site.from(&format!("203.0.{network}.9"));
        for _ in 0..5 {
            let reply = client.send("", "ann@our.example", bounce.trim_end()).unwrap();
            assert!(reply.starts_with("550 5.7.1") || reply.starts_with("451 4.7.1 bounce refused"), "{reply}");
            client.say("RSET");
        }
    }
    assert_eq!(site.metric(gauge), Some(1.0));
    // The client tries again, so a vacation reply is not lost.
    let mut client = site.from("203.0.0.9");
    site.rcpt(&mut client, "", "ann@our.example");
    assert!(site.rcpt(&mut client, "", "ann@our.example").starts_with("451 4.7.1"));
    // A client outside the surge is served at once, and a genuine bounce without a tag is accepted.
    let genuine = site.genuine_bounce();
    assert!(site.from("198.51.100.7").send("", "ann@our.example", &genuine).unwrap().starts_with("250"));
    site.daemon
        .log
        .wait("the flip", 0, |line| line.contains("surge of bounces without tags") && line.contains("our.example"));
    assert!(site.rcpt(&mut client, "", &site.tag(false)).starts_with("250"), "a good tag is good");
    assert!(site.rcpt(&mut client, "", "postmaster@our.example").starts_with("250"));
}

#[test]
fn a_site_of_ipv6_is_one_network_of_a_surge() {
    let site = Site::start(&format!("{ENFORCE}inbound.reject_at = \"auto\""), None);
    early_in_a_minute();
    let gauge = || site.metric("countersign_reject_at_rcpt{domain=\"our.example\"}");
    let bounce = dsn("failed");
    let bounces = |addresses: &mut dyn Iterator<Item = String>| {
        for address in addresses {
            let reply = site.from(&address).send("", "ann@our.example", bounce.trim_end()).unwrap();
            assert!(
                reply.starts_with("550 5.7.1") || reply.starts_with("451 4.7.1 bounce refused"),
                "{address}: {reply}"
            );
        }
    };
    // Forty /56 of one /48 count as five networks, so three more sites of five make twenty; the next one exceeds the
    // limit.
    bounces(&mut (0..40).map(|n| format!("2001:db8:9:{n:x}00::1")));
    bounces(&mut (0..15).map(|n| format!("2001:db8:{:x}:{n:x}00::1", 0xa + n / 5)));
    assert_eq!(gauge(), Some(0.0));
    bounces(&mut std::iter::once("2001:db8:d::1".to_owned()));
    assert_eq!(gauge(), Some(1.0));
    // One bounce a minute is accepted from a site, from any of its networks.
    let asked = |address: &str| site.rcpt(&mut site.from(address), "", "ann@our.example");
    assert!(asked("2001:db8:e:100::1").starts_with("250"));
    assert!(asked("2001:db8:e:200::1").starts_with("451 4.7.1"));
    assert!(asked("2001:db8:f:200::1").starts_with("250"));
}

#[test]
fn a_tag_that_is_used_up_takes_what_is_proven() {
    let site = Site::start(ENFORCE, None);
    // Mail was sent from the first day on, so bounces are counted: 3 x 1 + 20.
    let genuine = site.genuine_bounce();
    let tag = site.sink.last().from;
    let mut client = site.inbound();
    let other = dsn("failed");
    let replies: Vec<String> = (0..24).map(|_| client.send("", &tag, other.trim_end()).unwrap()).collect();
    let counted = replies.iter().any(|reply| reply.starts_with("451 4.7.1 more bounces have come"));
    // This daemon began during the day, so tags of today are not limited.
    assert!(!counted, "{replies:?}");
    assert!(client.send("", &tag, &genuine).unwrap().starts_with("250"));
}

#[test]
fn a_valid_srs_address_relays_reports_and_nothing_else() {
    let srs = "domains.srs_domain = \"srs.our.example\"\n";
    let site = Site::start(&format!("{srs}{ENFORCE}"), None);
    let mut sending = Client::connect(site.daemon.ports[0]);
    sending.say("EHLO desk.our.example");
    assert!(sending.send("bob@else.example", "carol@third.example", "x").unwrap().starts_with("250"));
    let address = site.sink.last().from;
    assert!(address.starts_with("SRS0="), "{address}");
    let mut client = site.inbound();
    let before = site.sink.all().len();
    for (spam, want) in [
        ("Subject: buy\r\n\r\nCheap pills", "550 5.7.1 this is the return address of forwarded mail, and this"),
        ("From: MAILER-DAEMON@x.example\r\nSubject: hi\r\n\r\nlook here", "550 5.7.1 "),
    ] {
        let reply = client.send("", &address, spam).unwrap();
        assert!(reply.starts_with(want), "{reply}");
    }
    // By BDAT, too.
    client.say("MAIL FROM:<>");
    client.say(&format!("RCPT TO:<{address}>"));
    assert!(client.say("BDAT 12 LAST\r\nSubject: x").starts_with("550 5.7.1 "));
    // Five victims in one transaction count as five transactions.
    client.say("MAIL FROM:<>");
    assert!(client.say(&format!("RCPT TO:<{address}>")).starts_with("250"));
    let other = address.replace("bob@", "eve@");
    assert!(!client.say(&format!("RCPT TO:<{other}>")).starts_with("250"));
    client.say("RSET");
    assert_eq!(site.sink.all().len(), before);
    for report in [dsn("failed"), "Auto-Submitted: auto-replied\r\nSubject: away\r\n\r\nI am away".to_owned()] {
        assert!(client.send("", &address, report.trim_end()).unwrap().starts_with("250"));
        assert_eq!(site.sink.last().to, ["bob@else.example"]);
    }
    // Twenty, and three for each recipient, are accepted.
    let replies: Vec<String> = (0..30).map(|_| client.send("", &address, dsn("failed").trim_end()).unwrap()).collect();
    let taken = replies.iter().filter(|reply| reply.starts_with("250")).count();
    assert_eq!(taken, 21, "{replies:?}");
    assert!(replies[21].starts_with("451 4.7.1 more bounces have come"), "{}", replies[21]);
}

#[test]
fn an_srs_address_has_no_more_by_other_spellings_or_many_at_once() {
    let srs = "domains.srs_domain = \"srs.our.example\"\n";
    let site = Site::start(&format!("{srs}{ENFORCE}"), None);
    // Another host has forwarded for Bob, so nothing was counted here.
    let address = run_ok(site.folder.path(), &["sign", "-c", "countersign.toml", "bob@else.example"]);
    let address = address.trim().to_owned();
    let spellings = [
        address.clone(),
        address.replacen('=', "+", 1),
        address.replacen('=', "-", 1).to_ascii_lowercase(),
        address.replace("else.example", "el\u{ad}se.example"),
        address.replace("else.example", "ELSE\u{ff0e}example"),
    ];
    let begin = |n: usize| {
        let mut client = site.inbound();
        client.say("MAIL FROM:<> SMTPUTF8");
        let reply = client.say(&format!("RCPT TO:<{}>", spellings[n % 5]));
        (client, reply)
    };
    let mut open: Vec<_> = (0..20).map(begin).collect();
    for (n, (_, reply)) in open.iter().enumerate() {
        assert!(reply.starts_with("250"), "{n} {reply}");
    }
    for n in 20..25 {
        let (_, reply) = begin(n);
        assert!(reply.starts_with("451 4.7.1 more bounces have come"), "{n} {reply}");
    }
    // A transaction that is aborted, by RSET or by the end of the session, makes room.
    let (mut given_up, _) = open.pop().unwrap();
    assert!(given_up.say("RSET").starts_with("250"));
    let (mut another, reply) = begin(3);
    assert!(reply.starts_with("250"), "{reply}");
    another.say("QUIT");
    let (another, _) =
        poll_for("the end of the session", || Some(begin(4)).filter(|(_, said)| said.starts_with("250")));
    open.push((another, String::new()));
    for (client, _) in &mut open {
        assert!(client.say("DATA").starts_with("354"));
        assert!(client.say(&format!("{}\r\n.", dsn("failed").trim_end())).starts_with("250"));
    }
    assert_eq!(site.sink.all().len(), 20);
    let (_, reply) = begin(0);
    assert!(reply.starts_with("451 4.7.1 "), "{reply}");
}

#[test]
fn a_map_is_asked_about_so_many_bad_tags_a_minute() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config = "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\ninbound.guesses_per_minute = 2\n\
        [[listener]]\nprotocol = \"socketmap\"\nlisten = \"127.0.0.1:0\"\n";
    let daemon = Daemon::start(folder.path(), config);
    let mut map = crate::common::map::Map::connect(daemon.ports[0]);
    // 20 guesses at once about one recipient, then one in three seconds while queries continue.
    let mut replies = (0..200).map(|n| map.ask("verify", &format!("prvs=1000{n:06x}=ann@our.example")));
    let answered = replies.by_ref().take_while(|reply| reply == "NOTFOUND ").count();
    assert!((20..60).contains(&answered), "{answered}");
    assert!(replies.any(|reply| reply.starts_with("TEMP too many return addresses")));
    // If an MTA names its client in the query, guesses are counted per network.
    let ann = run_ok(folder.path(), &["sign", "-c", "countersign.toml", "ann@our.example"]);
    assert!(map.ask("verify", ann.trim()).starts_with("TEMP "));
    assert_eq!(map.ask("verify", &format!("{} 198.51.100.7", ann.trim())), "OK ann@our.example");
    (0..5).for_each(|_| drop(map.ask("verify", "prvs=1000abcdef=ann@our.example 203.0.113.7")));
    assert!(map.ask("verify", &format!("{} 203.0.113.9", ann.trim())).starts_with("TEMP "));
    assert_eq!(map.ask("verify", &format!("{} 198.51.100.7", ann.trim())), "OK ann@our.example");
    // Bounces to other recipients are not affected.
    let ben = run_ok(folder.path(), &["sign", "-c", "countersign.toml", "ben@our.example"]);
    assert_eq!(map.ask("verify", ben.trim()), "OK ben@our.example");
    assert_eq!(map.ask("verify", "ann@our.example"), "NOTFOUND ", "what is no tag is no guess");
    assert!(map.ask("sign", "ann@our.example").starts_with("OK prvs="));
    daemon.log.wait("the alarm", 0, |line| line.contains("the map exceeded guesses_per_minute"));
}

#[test]
fn a_ramp_that_is_over_enforces_and_a_gap_begins_it_anew() {
    let site = Site::start("", Some("2026-01-01T00:00:00Z"));
    let mut client = site.inbound();
    let forged = site.tag(true);
    assert!(site.rcpt(&mut client, "", &forged).starts_with("550"));
    assert_eq!(site.metric("countersign_enforcing{domain=\"our.example\"}"), Some(1.0));
    assert!(site.check().contains("our.example: enforced"), "{}", site.check());
    drop(site.daemon);

    // Mail leaves unsigned because of the mode, which is recorded in the running daemon and in the ring.
    let daemon = Site::daemon(site.folder.path(), site.sink.port, site.status, "outbound.mode = \"off\"");
    let site = Site { daemon, ..site };
    let mut client = site.inbound();
    assert!(site.rcpt(&mut client, "", &forged).starts_with("550"), "no traffic is no gap");
    site.send();
    // The line is logged after the state has changed.
    site.daemon.log.wait("the gap in the log", 0, |line| line.contains("left unsigned (outbound.mode)"));
    assert!(site.ring().signing_since().is_empty());
    assert!(site.rcpt(&mut client, "", &forged).starts_with("250"));
}

#[test]
fn the_first_signature_begins_a_ramp() {
    let site = Site::start("", None);
    assert!(site.check().contains("its ramp begins with the first mail"), "{}", site.check());
    site.send();
    let since = poll_for("the ramp in the ring", || site.ring().signing_since().get("our.example").copied());
    assert!((now().0 - since.0).abs() < 60);
    assert!(site.check().contains("our.example: observed, until 20"), "{}", site.check());
    let mut client = site.inbound();
    assert!(site.rcpt(&mut client, "", &site.tag(true)).starts_with("250"));
    // The ramp is started again by a command.
    run_ok(site.folder.path(), &["keys", "ramp-start", "--at", "2026-01-01T00:00:00Z", "our.example"]);
    let says = |what: &str| poll_for(what, || site.check().contains(what).then_some(()));
    says("our.example: enforced");
    run_ok(site.folder.path(), &["keys", "ramp-start", "--again", "our.example"]);
    says("our.example: observed, until 20");
}

#[test]
fn a_read_only_ring_stops_no_fall_back() {
    let (folder, sink, status) = (folder(), Sink::start(), reserved_port());
    run_ok(folder.path(), &["keys", "init"]);
    run_ok(folder.path(), &["keys", "ramp-start", "--at", "2026-01-01T00:00:00Z", "our.example"]);
    let keys = folder.path().join("keys");
    // A lock that cannot be created, even by root.
    let _ = fs::remove_file(keys.join("ring.toml.lock"));
    fs::create_dir(keys.join("ring.toml.lock")).unwrap();
    let daemon = Site::daemon(folder.path(), sink.port, status, "outbound.mode = \"off\"");
    let site = Site { folder, sink, daemon, status };
    let (mut client, forged) = (site.inbound(), site.tag(true));
    assert!(site.rcpt(&mut client, "", &forged).starts_with("550"));
    site.send();
    site.daemon.log.wait("the warning", 0, |line| line.contains("this process observes it"));
    assert!(site.rcpt(&mut client, "", &forged).starts_with("250"));
    assert!(!site.ring().signing_since().is_empty());
}

#[test]
fn what_enforcing_would_have_refused_is_shown() {
    let site = Site::start("inbound.mode = \"observe\"", None);
    let mut client = site.inbound();
    let original = "--b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from web7.our.example by mx.third.example; now\r\n\
                    Received: from localhost by web7.our.example; now\r\nFrom: Ann <ann@our.example>\r\nMessage-ID: <1@x>\r\n\r\nx\r\n--b--\r\n";
    let bounce = dsn("failed").replace("--b--\r\n", original);
    assert!(bounce.contains("web7"), "{bounce}");
    let forged = site.tag(true);
    for to in [forged.as_str(), "ann@our.example", "ann@our.example"] {
        let reply = client.send("", to, bounce.trim_end()).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        assert!(site.sink.last().text.starts_with("Countersign-Result: v=1; "));
    }
    assert!(client.send("", "ann@our.example", "Subject: away\r\n\r\nI am away").unwrap().starts_with("250"));
    let observed: serde_json::Value = serde_json::from_str(&site.get("/observed")).unwrap();
    assert_eq!(observed["would_refuse"], serde_json::json!([["forged", 1], ["untagged-ndr", 2]]));
    assert_eq!(observed["networks"], serde_json::json!([["127.0.0.0/24", 3]]));
    assert_eq!(observed["unsigned_paths"], serde_json::json!([["web7.our.example", 3]]));
    assert_eq!(observed["unproven"], serde_json::json!(["unsigned_paths"]), "any bounce can name a host");
    assert_eq!(observed["genuine"], 0);
    assert_eq!(site.metric("countersign_would_refuse_total{reason=\"untagged-ndr\"}"), Some(2.0));
    let check = site.check();
    for part in [
        "3 that enforcing would have refused",
        "by reason: forged 1, untagged-ndr 2",
        "by network: 127.0.0.0/24 3",
        "said by these bounces, not proven: originals of ours left unsigned, by: web7.our.example 3",
    ] {
        assert!(check.contains(part), "{part}: {check}");
    }
    site.daemon.log.wait("the log", 0, |line| line.contains("would-refuse") && line.contains("web7.our.example"));
}

#[test]
fn what_was_marked_for_its_envelope_and_was_genuine_is_counted() {
    let site = Site::start("inbound.mode = \"observe\"", None);
    site.send();
    let sent = site.sink.last();
    // The tag was damaged in transit, but the original shows that the bounce is genuine.
    let returned = format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{}--b--\r\n", sent.text);
    let bounce = dsn("failed").replace("--b--\r\n", &returned);
    let mut client = site.inbound();
    assert!(client.send("", &site.tag(true), bounce.trim_end()).unwrap().starts_with("250"));
    assert!(client.send("", "ann@our.example", bounce.trim_end()).unwrap().starts_with("250"));
    let observed: serde_json::Value = serde_json::from_str(&site.get("/observed")).unwrap();
    assert_eq!((&observed["genuine"], &observed["rescued"]), (&1.into(), &1.into()), "{observed}");
    assert_eq!(observed["would_refuse"], serde_json::json!([["forged", 1]]));
}

#[test]
fn a_tag_gets_no_more_bounces_than_it_can_have_earned() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let ring = ring_file::load(&folder.path().join("keys/ring.toml")).unwrap();
    let mut policy = Policy::default();
    policy.domains.local = DomainSet::from_iter(["our.example"]);
    policy.inbound.mode = InboundMode::Enforce;
    (policy.inbound.replay_limit, policy.inbound.evidence) = (true, true);
    let ann = Address::parse("ann@our.example").unwrap();
    let tagged = batv::sign(ring.own_signer().unwrap(), &policy.batv, now().day(), &ann).unwrap().address().clone();
    let today = now().day();
    for (started, sent, limited) in [(Timestamp(0), 1, true), (Timestamp(0), 0, false), (now(), 1, false)] {
        let rules = Rules::new(&policy, &ring, now());
        let mut memory = Memory::since(started);
        let ask = |memory: &mut Memory| rules.inbound(memory, None, &ReversePath::Null, &tagged);
        let tag = ask(&mut memory).tag.expect("a valid tag is counted");
        if sent > 0 {
            memory.replay.sent(tag, sent, today);
        }
        for n in 0..23 {
            assert!(matches!(ask(&mut memory).disposition, Disposition::Deliver(_)), "{n}");
            memory.replay.bounced(tag, today);
        }
        // If the content is inspected, evidence may still prove a bounce genuine.
        match ask(&mut memory).disposition {
            Disposition::Inspect(_, check) => {
                assert!(limited && check == ContentCheck::UsedUp);
                let case = Candidate { client: None, check, recipient: &ann, complete: true };
                let content = rules.content(&mut memory, case, &Default::default());
                let ContentVerdict::Refuse(refusal) = content else { panic!("{content:?}") };
                assert_eq!((refusal.code, refusal.status), (451, "4.7.1"));
            }
            Disposition::Deliver(_) => assert!(!limited),
            other => panic!("{other:?}"),
        }
        let told = rules.inbound_for(Caller::Policy, &mut memory, None, &ReversePath::Null, &tagged);
        assert_eq!(matches!(told.disposition, Disposition::Refuse(_)), limited);
    }
}

#[test]
fn check_without_a_daemon_says_that_nobody_answers() {
    let site = Site::start("", None);
    drop(site.daemon);
    let output = run(site.folder.path(), &["check", "-c", "countersign.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("No running daemon answers on 127.0.0.1:"));
}

#[test]
fn counters_and_history_outlive_a_kill() {
    let srs = "domains.srs_domain = \"srs.our.example\"\ninbound.mode = \"enforce\"";
    let site = Site::start(srs, None);
    let signed = run_ok(site.folder.path(), &["sign", "-c", "countersign.toml", "bob@third.example"]);
    let srs_address = signed.trim().to_owned();
    let bounce = |site: &Site| site.inbound().send("", &srs_address, dsn("failed").trim_end()).unwrap();
    // An SRS address that nobody has counted takes 20.
    for n in 0..19 {
        assert!(bounce(&site).starts_with("250"), "{n}");
    }
    assert!(site.rcpt(&mut site.inbound(), "", &site.tag(true)).starts_with("550"));
    let guesses = site.metric("countersign_forgery_guesses_total ");
    assert_eq!(guesses, Some(1.0));
    let report = |site: &Site| -> serde_json::Value {
        let output = run(site.folder.path(), &["status", "--json", "-c", "countersign.toml"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let before = report(&site);
    assert_eq!((&before["genuine"], &before["refused"]), (&serde_json::json!(19), &serde_json::json!([["forged", 1]])));
    wait_for_state(site.folder.path(), || site.send());
    site.daemon.signal(crate::common::Signal::KILL);
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    let daemon = Site::daemon(folder.path(), sink.port, status, srs);
    let site = Site { folder, sink, daemon, status };
    let after = report(&site);
    for key in ["genuine", "refused", "refused_networks", "refused_domains", "refused_by_hour"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(site.metric("countersign_forgery_guesses_total "), guesses);
    assert!(bounce(&site).starts_with("250"));
    let reply = bounce(&site);
    assert!(reply.starts_with("451 4.7.1"), "the count began anew: {reply}");
}
