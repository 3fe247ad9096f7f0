//! Real Postfix instances on both sides, with real recipient lists.

use std::process::Command;

use crate::common::postfix::{Postfix, Role};
use crate::common::{Daemon, can_run, dsn, folder, poll_for, reserved_port, run_ok};

/// The relay restrictions of a server on the internet.
const NO_RELAY: &str = "smtpd_relay_restrictions=reject_unauth_destination";

/// The back end does not repeat the checks of the front end, and accepts many sessions from the proxy.
const TRUSTS_THE_FRONT: &str = "smtpd_client_restrictions= smtpd_helo_restrictions= smtpd_sender_restrictions= \
    smtpd_tls_security_level=none smtpd_client_connection_count_limit=0 smtpd_client_event_limit_exceptions=127.0.0.0/8";

/// Sends with swaks, and returns its exit status and output.
fn swaks(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new("swaks").args(["-s", "127.0.0.1", "--helo", "client.example"]).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The site's server and a server on the internet, with Countersign between them as described in `docs/mta/postfix.md`.
struct Site {
    daemon: Daemon,
    ours: Postfix,
    world: Postfix,
    /// The port for submission.
    submit: String,
    /// The port for mail from the internet: an smtpd that passes each session to the inbound proxy.
    front: String,
    outbound: String,
    inbound: String,
    _folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        // Postfix cannot choose ports itself.
        let [submit, front, deliver, relay, world] = [(); 5].map(|()| reserved_port());
        let daemon = Daemon::start(
            folder.path(),
            &format!(
                "[domains]\nlocal = [\"our.example\"]\nsrs_domain = \"srs.our.example\"\n\
                 [inbound]\nmode = \"enforce\"\nsrs_next_hop = \"127.0.0.1:{relay}\"\n\
                 [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{world}\"\n\
                 [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{deliver}\"\n"
            ),
        );
        let (outbound, inbound) = (daemon.ports[0], daemon.ports[1]);
        let at_the_front =
            format!("smtpd_proxy_filter=127.0.0.1:{inbound} smtpd_reject_unlisted_recipient=no mynetworks= {NO_RELAY}");
        let at_the_back = format!("smtpd_proxy_filter= mynetworks= {NO_RELAY} {TRUSTS_THE_FRONT}");
        let for_bounces_of_forwarded_mail =
            format!("smtpd_relay_restrictions=permit_mynetworks,reject {TRUSTS_THE_FRONT}");
        let ours = Postfix::start(
            folder.path(),
            &Role {
                name: "ours",
                domain: "our.example",
                mailboxes: &["ann"],
                ports: &[
                    (submit, ""),
                    (front, &at_the_front),
                    (deliver, &at_the_back),
                    (relay, &for_bounces_of_forwarded_mail),
                ],
                relayhost: outbound,
                extra: "relay_domains = srs.our.example",
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
                ports: &[(world, "smtpd_reject_unlisted_recipient=no")],
                relayhost: front,
                extra: "",
                ..Role::default()
            },
        );
        let [submit, front, outbound, inbound] = [submit, front, outbound, inbound].map(|port| port.to_string());
        Self { daemon, ours, world, submit, front, outbound, inbound, _folder: folder }
    }
}

#[test]
fn a_bounce_of_forwarded_mail_goes_back_to_who_sent_it() {
    if !can_run(&["postfix", "swaks"], "the way back of forwarded mail") {
        return;
    }
    let site = Site::start();
    // The site has forwarded Bob's mail to an unknown recipient.
    let (status, text) = swaks(&["-p", &site.outbound, "-f", "bob@else.example", "-t", "nobody@else.example"]);
    assert_eq!(status, Some(0), "{text}");
    // The bounce is sent to the SRS address, reversed, and sent on to Bob's server.
    let bounce = poll_for("the bounce in Bob's mailbox", || site.world.mailbox("bob").pop());
    assert!(bounce.contains("nobody@else.example") && bounce.contains("Delivered-To: bob@else.example"), "{bounce}");
    assert!(site.world.log().contains("from=<SRS0="), "{}", site.world.log());
    // No other mail is relayed in this way.
    for recipient in ["SRS0=AAAAAA=AA=else.example=bob@srs.our.example", "bob@srs.our.example"] {
        let (_, text) = swaks(&["-p", &site.front, "-f", "<>", "-t", recipient]);
        assert!(text.contains("<** 550 5."), "{text}");
    }
}

#[test]
fn a_real_bounce_comes_home_and_a_forged_one_does_not() {
    if !can_run(&["postfix", "swaks"], "the Postfix round trip") {
        return;
    }
    let site = Site::start();
    let Site { daemon, ours, world, submit, front, inbound, .. } = &site;

    // Ann's message to Bob is signed.
    let (status, text) = swaks(&["-p", submit, "-f", "ann@our.example", "-t", "bob@else.example"]);
    assert_eq!(status, Some(0), "{text}");
    let message = poll_for("Bob's message", || world.mailbox("bob").pop());
    let signed =
        message.lines().find_map(|l| l.strip_prefix("Return-Path: <")).unwrap().trim_end_matches('>').to_owned();
    assert!(signed.starts_with("prvs=1") && signed.ends_with("=ann@our.example"), "{message}");

    // Ann's message to an unknown recipient is bounced by a Postfix, through the inbound proxy, to her plain address.
    let (status, text) = swaks(&["-p", submit, "-f", "ann@our.example", "-t", "nobody@else.example"]);
    assert_eq!(status, Some(0), "{text}");
    let bounce = poll_for("the bounce in Ann's mailbox", || ours.mailbox("ann").pop());
    assert!(bounce.contains("Delivered-To: ann@our.example"), "{bounce}");
    assert!(bounce.contains("report-type=delivery-status") && bounce.contains("nobody@else.example"), "{bounce}");
    assert!(!bounce.contains("Countersign-Result"), "{bounce}");

    // The bounce as sent by a server that uses only the header From: the returned original shows that it is genuine.
    let stray = bounce.split_once("\nSubject: ").map(|(_, rest)| format!("Subject: {rest}")).unwrap();
    let of_another = stray.replace("Message-ID: <", "Message-ID: <x").replace("Message-Id: <", "Message-Id: <x");
    assert!(stray.contains("Countersign-Evidence: v=1") && of_another != stray, "{bounce}");
    for (text, code) in [(&stray, Some(0)), (&of_another, Some(26))] {
        let (status, said) = swaks(&["-p", front, "-f", "<>", "-t", "ann@our.example", "-d", text]);
        assert_eq!(status, code, "{said}");
    }
    poll_for("the rescued bounce in Ann's mailbox", || (ours.mailbox("ann").len() == 2).then_some(()));

    // A forged bounce is refused in the SMTP session, and not delivered.
    let data = format!("{}\n", dsn("failed").replace("\r\n", "\n"));
    for port in [inbound, front] {
        let (status, text) = swaks(&["-p", port, "-f", "<>", "-t", "ann@our.example", "-d", &data]);
        assert_eq!(status, Some(26), "{text}");
        assert!(text.contains("<** 550 5.7.1 "), "{text}");
        let (status, text) = swaks(&["-p", port, "-f", "<>", "-t", "prvs=1000abcdef=ann@our.example"]);
        assert_eq!(status, Some(24), "{text}");
        assert!(text.contains("<** 550 5.7.1 "), "{text}");
    }
    // Unknown recipients are refused by the MTA, and strangers cannot relay.
    let (_, text) = swaks(&["-p", inbound, "-f", "x@else.example", "-t", "unknown@our.example"]);
    assert!(text.contains("<** 550 5.1.1 "), "{text}");
    let (_, text) = swaks(&["-p", inbound, "-f", "x@else.example", "-t", "bob@else.example"]);
    assert!(text.contains("<** 550 5.7.1 relaying denied"), "{text}");

    // A client that only checks whether a mailbox exists gets the MTA's reply, even as the null sender.
    for (recipient, answer) in [("unknown@our.example", "<** 550 5.1.1 "), ("ann@our.example", "<-  250 2.1.5 ")] {
        let (_, text) = swaks(&["-p", inbound, "-f", "<>", "-t", recipient, "--quit-after", "RCPT"]);
        assert!(text.contains(answer), "{text}");
    }

    // More sessions at once than Postfix accepts from one client by default.
    let sessions: Vec<_> = (0..70).map(|_| crate::common::Client::connect(daemon.ports[1])).collect();
    drop(sessions);

    // A vacation reply and an ordinary message are delivered, pipelined and not.
    for arguments in [["-f", "<>"], ["-f", "bob@else.example"]] {
        let (status, text) =
            swaks(&[&["-p", inbound, "--pipeline", "-t", "ann@our.example"], arguments.as_slice()].concat());
        assert_eq!(status, Some(0), "{text}");
    }
    poll_for("both messages", || (ours.mailbox("ann").len() == 4).then_some(()));
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
    let sink = crate::common::Sink::start();
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "[domains]\nlocal = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\n\
             next_hop = \"127.0.0.1:{}\"\n",
            sink.port
        ),
    );
    let target = format!("127.0.0.1:{}", daemon.ports[0]);
    let source = crate::common::which("smtp-source").unwrap();
    let arguments =
        ["-d", "-s", "10", "-m", "1000", "-l", "5000", "-f", "ann@our.example", "-t", "bob@else.example", &target];
    assert!(Command::new(source).args(arguments).status().unwrap().success());
    let messages = sink.all();
    assert_eq!(messages.len(), 1000);
    assert!(messages.iter().all(|m| m.from.starts_with("prvs=1") && m.text.len() >= 4900));
}
