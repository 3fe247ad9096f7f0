//! Real Postfix instances on both sides, with real recipient lists: what an administrator will see.

mod common;

use std::process::Command;

use common::postfix::{Postfix, Role};
use common::{Daemon, can_run, dsn, folder, free_port, run_ok, wait_for};

/// What a server on the internet says to strangers.
const NO_RELAY: &str = "smtpd_relay_restrictions=reject_unauth_destination";

/// What has been checked at the front is not checked again at the back, and a proxy is one client with many sessions.
const TRUSTS_THE_FRONT: &str = "smtpd_client_restrictions= smtpd_helo_restrictions= smtpd_sender_restrictions= \
    smtpd_tls_security_level=none smtpd_client_connection_count_limit=0 smtpd_client_event_limit_exceptions=127.0.0.0/8";

/// Sends with swaks; its exit status and what it printed.
fn swaks(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new("swaks").args(["-s", "127.0.0.1", "--helo", "client.example"]).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_real_bounce_comes_home_and_a_forged_one_does_not() {
    if !can_run(&["postfix", "swaks"], "the Postfix round trip") {
        return;
    }
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    // Ports that Postfix cannot choose itself. On ours users submit, the world knocks at the front, which hands each session
    // to the inbound proxy (`smtpd_proxy_filter`), and the proxy delivers.
    let (submit, front, deliver, world) = (free_port(), free_port(), free_port(), free_port());
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"enforce\"\n\
             [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{world}\"\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{deliver}\"\n"
        ),
    );
    let (outbound, inbound) = (daemon.ports[0], daemon.ports[1]);
    let at_the_front =
        format!("smtpd_proxy_filter=127.0.0.1:{inbound} smtpd_reject_unlisted_recipient=no mynetworks= {NO_RELAY}");
    let at_the_back = format!("smtpd_proxy_filter= mynetworks= {NO_RELAY} {TRUSTS_THE_FRONT}");
    let ours = Postfix::start(
        folder.path(),
        &Role {
            name: "ours",
            domain: "our.example",
            mailboxes: &["ann"],
            // As the internet sees it: nobody may relay, unknown recipients are refused.
            ports: &[(submit, ""), (front, &at_the_front), (deliver, &at_the_back)],
            relayhost: outbound,
        },
    );
    let world = Postfix::start(
        folder.path(),
        &Role {
            name: "world",
            domain: "else.example",
            mailboxes: &["bob"],
            // Takes mail for everybody and bounces afterwards, as some do.
            ports: &[(world, "smtpd_reject_unlisted_recipient=no")],
            relayhost: front,
        },
    );

    // Ann's message to Bob leaves signed.
    let submit = submit.to_string();
    let (status, text) = swaks(&["-p", &submit, "-f", "ann@our.example", "-t", "bob@else.example"]);
    assert_eq!(status, Some(0), "{text}");
    let message = wait_for("Bob's message", || world.mailbox("bob").pop());
    let signed =
        message.lines().find_map(|l| l.strip_prefix("Return-Path: <")).unwrap().trim_end_matches('>').to_owned();
    assert!(signed.starts_with("prvs=1") && signed.ends_with("=ann@our.example"), "{message}");

    // Her message to somebody unknown comes back, from a Postfix, through the inbound proxy, to her plain address.
    let (status, text) = swaks(&["-p", &submit, "-f", "ann@our.example", "-t", "nobody@else.example"]);
    assert_eq!(status, Some(0), "{text}");
    let bounce = wait_for("the bounce in Ann's mailbox", || ours.mailbox("ann").pop());
    assert!(bounce.contains("Delivered-To: ann@our.example"), "{bounce}");
    assert!(bounce.contains("report-type=delivery-status") && bounce.contains("nobody@else.example"), "{bounce}");
    assert!(!bounce.contains("Countersign-Result"), "{bounce}");

    // A forged bounce is refused in the SMTP session, and nobody ever sees it.
    let (inbound, front) = (inbound.to_string(), front.to_string());
    let data = format!("{}\n", dsn("failed").replace("\r\n", "\n"));
    for port in [&inbound, &front] {
        let (status, text) = swaks(&["-p", port, "-f", "<>", "-t", "ann@our.example", "-d", &data]);
        assert_eq!(status, Some(26), "{text}");
        assert!(text.contains("<** 550 5.7.1 "), "{text}");
        let (status, text) = swaks(&["-p", port, "-f", "<>", "-t", "prvs=1000abcdef=ann@our.example"]);
        assert_eq!(status, Some(24), "{text}");
        assert!(text.contains("<** 550 5.7.1 "), "{text}");
    }
    // Unknown recipients are the MTA's to refuse, and strangers do not relay.
    let (_, text) = swaks(&["-p", &inbound, "-f", "x@else.example", "-t", "unknown@our.example"]);
    assert!(text.contains("<** 550 5.1.1 "), "{text}");
    let (_, text) = swaks(&["-p", &inbound, "-f", "x@else.example", "-t", "bob@else.example"]);
    assert!(text.contains("<** 550 5.7.1 relaying denied"), "{text}");

    // More sessions at once than a default Postfix takes from one client.
    let sessions: Vec<_> = (0..70).map(|_| common::Client::connect(daemon.ports[1])).collect();
    drop(sessions);

    // A vacation reply and an ordinary message arrive, pipelined and not.
    for arguments in [["-f", "<>"], ["-f", "bob@else.example"]] {
        let (status, text) =
            swaks(&[&["-p", &inbound, "--pipeline", "-t", "ann@our.example"], arguments.as_slice()].concat());
        assert_eq!(status, Some(0), "{text}");
    }
    wait_for("both messages", || (ours.mailbox("ann").len() == 3).then_some(()));
    assert!(
        daemon.log.all().iter().any(|l| l.contains("\"event\":\"content\"") && l.contains("\"action\":\"reject\""))
    );
}

#[test]
fn smtp_source_sends_a_thousand_messages_through() {
    if !can_run(&["smtp-source"], "smtp-source through the outbound proxy") {
        return;
    }
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let sink = common::Sink::start();
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "[domains]\nlocal = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\n\
             next_hop = \"127.0.0.1:{}\"\n",
            sink.port
        ),
    );
    let target = format!("127.0.0.1:{}", daemon.ports[0]);
    let source = common::which("smtp-source").unwrap();
    let arguments =
        ["-d", "-s", "10", "-m", "1000", "-l", "5000", "-f", "ann@our.example", "-t", "bob@else.example", &target];
    assert!(Command::new(source).args(arguments).status().unwrap().success());
    let messages = sink.all();
    assert_eq!(messages.len(), 1000);
    assert!(messages.iter().all(|m| m.from.starts_with("prvs=1") && m.text.len() >= 4900));
}
