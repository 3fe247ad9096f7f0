//! What a daemon remembers and shows: guesses, surges, ramps, and what enforcing would have refused.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use common::{Client, Daemon, Sink, dsn, folder, free_port, run, run_ok, tcp, wait_for};
use countersign::envelope::address::{Address, ReversePath};
use countersign::envelope::keyring::Keyring;
use countersign::envelope::memory::Memory;
use countersign::envelope::policy::{DomainSet, InboundMode, Policy};
use countersign::envelope::rules::{InboundAction, Rules};
use countersign::envelope::tag::batv;
use countersign::envelope::time::Timestamp;
use countersign::state::ring;

struct Site {
    folder: tempfile::TempDir,
    sink: Sink,
    daemon: Daemon,
    status: u16,
}

impl Site {
    /// A daemon with a new ring; `since`: its domain is signed since then.
    fn start(inbound: &str, since: Option<&str>) -> Self {
        let (folder, sink, status) = (folder(), Sink::start(), free_port());
        run_ok(folder.path(), &["keys", "init"]);
        if let Some(since) = since {
            run_ok(folder.path(), &["keys", "ramp-start", "--at", since, "our.example"]);
        }
        let daemon = Self::daemon(folder.path(), sink.port, status, inbound);
        Self { folder, sink, daemon, status }
    }

    fn daemon(folder: &Path, next_hop: u16, status: u16, inbound: &str) -> Daemon {
        let listener = |role: &str| {
            format!("[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{next_hop}\"\n")
        };
        let text = format!(
            "keys.ring = \"keys/ring.toml\"\ndomains.local = [\"our.example\"]\nstatus.listen = \"127.0.0.1:{status}\"\n{inbound}\n{}{}",
            listener("outbound"),
            listener("inbound")
        );
        Daemon::start(folder, &text)
    }

    fn ring(&self) -> Keyring {
        ring::load(&self.folder.path().join("keys/ring.toml")).unwrap()
    }

    fn tag(&self, forged: bool) -> String {
        let address = Address::parse("ann@our.example").unwrap();
        let tag =
            batv::sign(self.ring().own_signer().unwrap(), &batv::Params::default(), now().day(), &address).unwrap();
        let tag = tag.address().to_string();
        if !forged {
            return tag;
        }
        let last = if &tag[14..15] == "0" { "1" } else { "0" };
        format!("{}{last}{}", &tag[..14], &tag[15..])
    }

    fn inbound(&self) -> Client {
        let mut client = Client::connect(self.daemon.ports[1]);
        client.say("EHLO client.example");
        client
    }

    /// The reply to one recipient, in a transaction that is given up.
    fn rcpt(&self, client: &mut Client, sender: &str, recipient: &str) -> String {
        client.say(&format!("MAIL FROM:<{sender}>"));
        let reply = client.say(&format!("RCPT TO:<{recipient}>"));
        client.say("RSET");
        reply
    }

    fn get(&self, path: &str) -> String {
        let mut stream = tcp(self.status).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn metric(&self, line: &str) -> Option<f64> {
        let metrics = self.get("/metrics");
        metrics.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }

    fn send(&self) {
        let mut client = Client::connect(self.daemon.ports[0]);
        client.say("EHLO client.example");
        let reply = client.send("ann@our.example", "bob@third.example", "Subject: x\r\n\r\nx").unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }

    fn check(&self) -> String {
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
    // A valid one may be the lucky guess.
    for tag in [&forged, &valid] {
        assert!(site.rcpt(&mut client, "", tag).starts_with("451 4.7.1 too many return addresses"), "{tag}");
    }
    assert!(site.rcpt(&mut client, "", "ann@our.example").starts_with("250"), "other mail is not touched");
    assert!(site.rcpt(&mut client, "bob@else.example", &valid).starts_with("250"), "nor is a person's");
    assert_eq!(site.metric("countersign_forgery_guesses_total"), Some(5.0));
    assert_eq!(site.metric("countersign_forgery_guesses_limited_total"), Some(2.0));
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
        assert!(site.rcpt(&mut client, sender, &valid).starts_with("451 4.7.1"), "{sender}");
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
fn a_surge_turns_a_domain_to_rcpt_and_says_so() {
    let site = Site::start(&format!("{ENFORCE}inbound.reject_at = \"auto\""), None);
    let mut client = site.inbound();
    for n in 0..20 {
        assert!(site.rcpt(&mut client, "", "ann@our.example").starts_with("250"), "{n}");
    }
    let gauge = "countersign_reject_at_rcpt{domain=\"our.example\"}";
    assert_eq!(site.metric(gauge), Some(0.0));
    assert!(site.rcpt(&mut client, "", "ann@our.example").starts_with("550 5.7.1"));
    assert_eq!(site.metric(gauge), Some(1.0));
    site.daemon
        .log
        .wait("the flip", 0, |line| line.contains("a surge of null-sender mail") && line.contains("our.example"));
    assert!(site.rcpt(&mut client, "", &site.tag(false)).starts_with("250"), "a good tag is good");
    assert!(site.rcpt(&mut client, "", "postmaster@our.example").starts_with("250"));
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

    // Mail leaves unsigned by mode: observed from now on, here and in the ring.
    let daemon = Site::daemon(site.folder.path(), site.sink.port, site.status, "outbound.mode = \"off\"");
    let site = Site { daemon, ..site };
    let mut client = site.inbound();
    assert!(site.rcpt(&mut client, "", &forged).starts_with("550"), "no traffic is no gap");
    site.send();
    // The line comes when all that it says is true.
    site.daemon.log.wait("the gap in the log", 0, |line| line.contains("has left unsigned because outbound.mode"));
    assert!(site.ring().signing_since().is_empty());
    assert!(site.rcpt(&mut client, "", &forged).starts_with("250"));
}

#[test]
fn the_first_signature_begins_a_ramp() {
    let site = Site::start("", None);
    assert!(site.check().contains("its ramp begins with the first mail"), "{}", site.check());
    site.send();
    let since = wait_for("the ramp in the ring", || site.ring().signing_since().get("our.example").copied());
    assert!((now().0 - since.0).abs() < 60);
    assert!(site.check().contains("our.example: observed until 20"), "{}", site.check());
    let mut client = site.inbound();
    assert!(site.rcpt(&mut client, "", &site.tag(true)).starts_with("250"));
    // By command it is begun once more.
    run_ok(site.folder.path(), &["keys", "ramp-start", "--at", "2026-01-01T00:00:00Z", "our.example"]);
    assert!(site.check().contains("our.example: enforced"));
    run_ok(site.folder.path(), &["keys", "ramp-start", "--again", "our.example"]);
    assert!(site.check().contains("our.example: observed until 20"));
}

#[test]
fn a_read_only_ring_stops_no_fall_back() {
    let (folder, sink, status) = (folder(), Sink::start(), free_port());
    run_ok(folder.path(), &["keys", "init"]);
    run_ok(folder.path(), &["keys", "ramp-start", "--at", "2026-01-01T00:00:00Z", "our.example"]);
    let keys = folder.path().join("keys");
    // A lock that cannot be made, for root, too.
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
    assert_eq!(observed["genuine"], 0);
    assert_eq!(site.metric("countersign_would_refuse_total{reason=\"untagged-ndr\"}"), Some(2.0));
    let check = site.check();
    for part in [
        "3 that enforcing would have refused",
        "by reason: forged 1, untagged-ndr 2",
        "by network: 127.0.0.0/24 3",
        "by: web7.our.example 3",
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
    // The tag was broken on its way, and the original shows that it is ours all the same.
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
    let ring = ring::load(&folder.path().join("keys/ring.toml")).unwrap();
    let mut policy = Policy::default();
    policy.domains.local = DomainSet::from_iter(["our.example"]);
    policy.inbound.mode = InboundMode::Enforce;
    policy.inbound.replay_limit = true;
    let ann = Address::parse("ann@our.example").unwrap();
    let tagged = batv::sign(ring.own_signer().unwrap(), &policy.batv, now().day(), &ann).unwrap().address().clone();
    let today = now().day();
    for (started, sent, limited) in [(Timestamp(0), 1, true), (Timestamp(0), 0, false), (now(), 1, false)] {
        let rules = Rules { policy: &policy, ring: &ring, now: now() };
        let mut memory = Memory::since(started);
        let ask = |memory: &mut Memory| rules.inbound(memory, None, &ReversePath::Null, &tagged);
        let tag = ask(&mut memory).tag.expect("a valid tag is counted");
        if sent > 0 {
            memory.replay.sent(tag, sent, today);
        }
        for n in 0..23 {
            assert!(matches!(ask(&mut memory).action, InboundAction::Deliver { .. }), "{n}");
            memory.replay.bounced(tag, today);
        }
        match ask(&mut memory).action {
            InboundAction::Refuse(refusal) => assert!(limited && refusal.code == 451 && refusal.status == "4.7.1"),
            InboundAction::Deliver { .. } => assert!(!limited),
        }
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
