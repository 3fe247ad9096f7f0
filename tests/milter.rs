//! The milter behind a real Postfix: its changes, how it determines the direction, and bounces that the MTA itself
//! generates.

use crate::common::map::Map;
use crate::common::postfix::{Postfix, Role};
use crate::common::{Client, Daemon, Message, Signal, Sink, can_run, dsn, folder, poll_for, reserved_port, run_ok};

/// A Postfix with mailboxes and a milter on each of its ports; all other mail is sent to a sink.
struct Site {
    daemon: Daemon,
    sink: Sink,
    postfix: Postfix,
    ports: Vec<u16>,
    folder: tempfile::TempDir,
}

/// Starts a site. `config`: more lines of the config. `milters`: for each milter, its role and its other settings.
/// `smtpd`: for each port of Postfix, the index of its milter, and its options.
fn site(name: &str, config: &str, milters: &[&str], smtpd: &[(usize, &str)]) -> Site {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let listener =
        |role: &&str| format!("[[listener]]\nprotocol = \"milter\"\nlisten = \"127.0.0.1:0\"\nrole = {role}\n");
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\n{config}\n{}\
             [[listener]]\nprotocol = \"socketmap\"\nlisten = \"127.0.0.1:0\"\n",
            milters.iter().map(listener).collect::<String>()
        ),
    );
    let map = daemon.ports[milters.len()];
    let sink = Sink::start();
    let ports: Vec<u16> = smtpd.iter().map(|_| reserved_port()).collect();
    let options: Vec<String> = smtpd
        .iter()
        .map(|(milter, options)| {
            format!(
                "smtpd_milters=inet:127.0.0.1:{} smtpd_authorized_xclient_hosts=127.0.0.0/8 {options}",
                daemon.ports[*milter]
            )
        })
        .collect();
    let listening: Vec<(u16, &str)> = ports.iter().copied().zip(options.iter().map(String::as_str)).collect();
    let postfix = Postfix::start(
        folder.path(),
        &Role {
            name,
            domain: "our.example",
            mailboxes: &["ann", "aside"],
            ports: &listening,
            relayhost: sink.port,
            extra: &format!(
                "milter_default_action = tempfail\nrecipient_canonical_maps = socketmap:inet:127.0.0.1:{map}:strip\n\
                 recipient_canonical_classes = envelope_recipient\nsmtpd_sasl_auth_enable = no"
            ),
            ..Role::default()
        },
    );
    Site { daemon, sink, postfix, ports, folder }
}

impl Site {
    fn connect(&self, port: usize) -> Client {
        let mut client = Client::connect(self.ports[port]);
        client.say("EHLO client.example");
        client
    }

    fn arrived(&self, what: &str) -> Message {
        self.sink.wait_message(|| format!("{what}: {}", self.postfix.log()), |message| message.text.contains(what))
    }

    fn delivered(&self, mailbox: &str, what: &str) -> String {
        let here = |text: &String| text.contains(what);
        poll_for(&format!("{what}: {}", self.postfix.log()), || self.postfix.mailbox(mailbox).into_iter().find(here))
    }
}

/// Sends a message with these commands before it, and returns the last reply.
fn send(client: &mut Client, mail: &str, recipients: &[&str], text: &str) -> String {
    assert!(client.say(mail).starts_with("250"), "{mail}: {:?}", client.reply);
    for recipient in recipients {
        assert!(client.say(&format!("RCPT TO:{recipient}")).starts_with("250"), "{recipient}: {:?}", client.reply);
    }
    assert!(client.say("DATA").starts_with("354"));
    client.say(&format!("{text}\r\n."))
}

#[test]
fn a_sender_is_signed_and_its_parameters_are_kept() {
    if !can_run(&["postfix"], "a milter that signs") {
        return;
    }
    let site = site("out", "domains.srs_domain = \"srs.our.example\"", &["\"outbound\""], &[(0, "")]);
    let mut client = site.connect(0);
    let text =
        |id: &str| format!("From: Ann <ann@our.example>\r\nMessage-ID: <{id}@our.example>\r\n\r\n8 bits: \u{e4}\r\n");
    let mail = "MAIL FROM:<ann@our.example> SIZE=200 BODY=8BITMIME RET=HDRS ENVID=a+2Bb";
    let to = ["<bob@third.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;Bob@third.example", "<eve@third.example>"];
    assert!(send(&mut client, mail, &to, &text("first")).starts_with("250"));
    let message = site.arrived("<first@");
    assert!(message.from.starts_with("prvs=1") && message.from.ends_with("=ann@our.example"), "{}", message.from);
    // The log has Postfix's queue ID of the message.
    let left = site.daemon.log.wait("the message", 0, |line| line.contains("left to the MTA as "));
    let queue = left.split("left to the MTA as ").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(!queue.is_empty() && site.postfix.log().contains(&format!("{queue}: client=")), "{left}");
    let heard = site.sink.heard();
    let mail = heard.iter().find(|line| line.starts_with("MAIL")).unwrap();
    for parameter in [" BODY=8BITMIME", " RET=HDRS", " ENVID=a+2Bb"] {
        assert!(mail.contains(parameter), "{mail}");
    }
    let rcpt = heard.iter().find(|line| line.contains("<bob@")).unwrap();
    assert!(rcpt.contains(" NOTIFY=FAILURE,DELAY") && rcpt.contains(" ORCPT=rfc822;Bob@third.example"), "{rcpt}");
    assert!(!site.postfix.log().contains("gnoring"), "{}", site.postfix.log());
    // The evidence is the last header, and belongs to this message.
    let (head, _) = message.text.split_once("\r\n\r\n").unwrap();
    assert!(head.lines().last().unwrap().starts_with("Countersign-Evidence: v=1; k=1;"), "{head}");

    // Further messages on the connection: one of another domain, and one that must stay unchanged.
    assert!(send(&mut client, "MAIL FROM:<bob@else.example>", &to[..1], &text("second")).starts_with("250"));
    let message = site.arrived("<second@");
    assert!(message.from.starts_with("SRS0=") && message.from.ends_with("=else.example=bob@srs.our.example"));
    assert!(!message.text.contains("Countersign-"), "{}", message.text);
    assert!(send(&mut client, "MAIL FROM:<>", &to[1..], &text("third")).starts_with("250"));
    assert_eq!(site.arrived("<third@").from, "");
    // RSET within a transaction leaves no state behind.
    assert!(client.say("MAIL FROM:<ann@our.example>").starts_with("250"));
    assert!(client.say("RSET").starts_with("250"));
    assert!(send(&mut client, "MAIL FROM:<bea@our.example>", &to[1..], &text("fourth")).starts_with("250"));
    assert!(site.arrived("<fourth@").from.ends_with("=bea@our.example"));
}

#[test]
fn a_recipient_that_wants_another_sender_comes_again() {
    if !can_run(&["postfix"], "two senders for one message") {
        return;
    }
    let config = "outbound.exempt_recipients = [\"@list.example\"]";
    let site = site("mixed", config, &["\"outbound\""], &[(0, "")]);
    let mut client = site.connect(0);
    assert!(client.say("MAIL FROM:<ann@our.example>").starts_with("250"));
    assert!(client.say("RCPT TO:<members@list.example>").starts_with("250"));
    assert!(client.say("RCPT TO:<bob@third.example>").starts_with("452 4.5.3 "), "{:?}", client.reply);
    assert!(client.say("DATA").starts_with("354"));
    assert!(client.say("X-Id: exempt\r\n\r\nx\r\n.").starts_with("250"));
    assert_eq!(site.arrived("X-Id: exempt").from, "ann@our.example");
    assert!(
        send(&mut client, "MAIL FROM:<ann@our.example>", &["<bob@third.example>"], "X-Id: signed\r\n\r\nx")
            .starts_with("250")
    );
    assert!(site.arrived("X-Id: signed").from.starts_with("prvs=1"));
}

#[test]
fn auto_finds_out_which_way_a_message_goes() {
    if !can_run(&["postfix"], "a milter with role = \"auto\"") {
        return;
    }
    let role = "\"auto\"\noutbound_daemons = [\"ORIGINATING\"]\noutbound_clients = [\"198.51.100.0/24\"]";
    let relay = "smtpd_relay_restrictions=permit_mynetworks,permit_sasl_authenticated,reject_unauth_destination \
        mynetworks=127.0.0.0/8,198.51.100.0/24,192.0.2.0/24";
    let named = format!("{relay} milter_macro_daemon_name=ORIGINATING");
    let site = site("auto", "", &[role], &[(0, relay), (0, &named)]);
    // The client, its address, and whether its mail is signed.
    for (id, port, xclient, signed) in [
        ("a-stranger", 0, "XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]", false),
        ("a-network", 0, "XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]", true),
        ("a-user", 0, "XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE] LOGIN=ann", true),
        ("a-daemon", 1, "XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]", true),
    ] {
        let mut client = site.connect(port);
        assert!(client.say(xclient).starts_with("220"), "{:?}", client.reply);
        client.say("EHLO client.example");
        let text = format!("X-Id: {id}\r\nCountersign-Result: forged\r\n\r\nx");
        assert!(send(&mut client, "MAIL FROM:<ann@our.example>", &["<bob@third.example>"], &text).starts_with("250"));
        let message = site.arrived(&format!("X-Id: {id}\r\n"));
        assert_eq!(message.from.starts_with("prvs=1"), signed, "{id}: {}", message.from);
        // Forged headers are removed from inbound mail only.
        assert_eq!(message.text.contains("Countersign-Result"), signed, "{id}: {}", message.text);
    }
    // A stranger's bounces are inspected, regardless of the sender in MAIL.
    let mut stranger = site.connect(0);
    stranger.say("XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]");
    stranger.say("EHLO client.example");
    let said = send(&mut stranger, "MAIL FROM:<>", &["<ann@our.example>"], dsn("failed").trim_end());
    assert!(said.starts_with("550 5.7.1 "), "{said}");
    // The tag is removed from mail between the site's users, too.
    let signed = site.arrived("X-Id: a-user").from;
    let mut user = site.connect(1);
    assert!(
        send(&mut user, "MAIL FROM:<ann@our.example>", &[&format!("<{signed}>")], "X-Id: home\r\n\r\nx")
            .starts_with("250")
    );
    site.delivered("ann", "X-Id: home");
}

#[test]
fn bounces_are_judged_marked_and_put_aside() {
    if !can_run(&["postfix"], "a milter that judges") {
        return;
    }
    let config = "inbound.quarantine_to = \"aside@our.example\"\ninbound.actions.untagged-ndr = \"quarantine\"\n\
        inbound.actions.expired = \"mark\"";
    let site = site("in", config, &["\"inbound\"", "\"outbound\""], &[(0, ""), (1, "")]);
    // Outbound mail has a tag and evidence.
    let mut out = site.connect(1);
    let text = "From: ann@our.example\r\nMessage-ID: <genuine@our.example>\r\n\r\nx";
    assert!(send(&mut out, "MAIL FROM:<ann@our.example>", &["<bob@third.example>"], text).starts_with("250"));
    let original = site.arrived("<genuine@");

    let mut client = site.connect(0);
    let signed = format!("<{}>", original.from);
    let report = dsn("failed").replacen("From: ", "X-Id: tagged\r\nFrom: ", 1);
    assert!(send(&mut client, "MAIL FROM:<>", &[&signed], report.trim_end()).starts_with("250"));
    let bounce = site.delivered("ann", "X-Id: tagged");
    assert!(!bounce.contains("Countersign-Result") && bounce.contains("Delivered-To: ann@our.example"), "{bounce}");

    // A bounce without a tag is quarantined, unless it returns evidence.
    let said = send(&mut client, "MAIL FROM:<>", &["<ann@our.example>"], dsn("failed").trim_end());
    assert!(said.starts_with("250"), "{said}");
    let aside =
        site.delivered("aside", "Countersign-Result: v=1; verdict=untagged; would=quarantine; reason=untagged-ndr");
    assert!(!aside.contains("Delivered-To: ann@our.example"), "{aside}");
    let stray = format!(
        "X-Id: stray\r\nFrom: MAILER-DAEMON@third.example\r\nSubject: failure notice\r\n\r\nI was not able to deliver your message.\r\n\
         <bob@third.example>: no such user\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n{}",
        original.text.trim_end()
    );
    assert!(send(&mut client, "MAIL FROM:<>", &["<ann@our.example>"], &stray).starts_with("250"));
    site.delivered("ann", "X-Id: stray");
    assert_eq!(site.postfix.mailbox("aside").len(), 1);

    // Recipients whose verdicts may differ cannot share a message; a large message is read to its end.
    assert!(client.say("MAIL FROM:<>").starts_with("250"));
    assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"));
    assert!(client.say("RCPT TO:<aside@our.example>").starts_with("452 4.5.3 "), "{:?}", client.reply);
    assert!(client.say("RSET").starts_with("250"));
    let large = dsn("failed") + &"0123456789\r\n".repeat(30_000);
    assert!(send(&mut client, "MAIL FROM:<>", &["<ann@our.example>"], large.trim_end()).starts_with("250"));
    poll_for("the large one", || (site.postfix.mailbox("aside").len() == 2).then_some(()));
    let log = site.daemon.log.all();
    assert!(log.iter().any(|line| line.contains("\"event\":\"content\"") && line.contains("\"action\":\"rescue\"")));
}

#[test]
fn a_bounce_of_the_mta_itself_reaches_its_user() {
    if !can_run(&["postfix"], "bounces of the MTA itself, with a milter") {
        return;
    }
    let site = site("own", "", &["\"auto\""], &[(0, "")]);
    let mut client = site.connect(0);
    let text = "X-Id: returned\r\nFrom: ann@our.example\r\n\r\nx";
    assert!(send(&mut client, "MAIL FROM:<ann@our.example>", &["<refused@third.example>"], text).starts_with("250"));
    let bounce = site.delivered("ann", "X-Id: returned");
    assert!(
        bounce.contains("Delivered-To: ann@our.example") && bounce.contains("report-type=delivery-status"),
        "{bounce}"
    );
    // A made-up tag does not make the server accept mail for an unknown recipient, which it would then bounce to the
    // named sender.
    for unknown in ["nosuch@our.example", "prvs=1000abcdef=nosuch@our.example", "prvs=7000abcdef=nosuch@our.example"] {
        assert!(client.say("MAIL FROM:<x@else.example>").starts_with("250"));
        let reply = client.say(&format!("RCPT TO:<{unknown}>"));
        assert!(reply.starts_with("550 5.1.1 ") || reply.starts_with("451 4.7.5 "), "{reply}");
        client.say("RSET");
    }
}

#[test]
fn a_milter_that_stops_lets_an_open_message_finish() {
    if !can_run(&["postfix"], "stopping a milter") {
        return;
    }
    let site = site("stop", "", &["\"outbound\""], &[(0, "")]);
    let (mut idle, mut busy) = (site.connect(0), site.connect(0));
    assert!(idle.say("NOOP").starts_with("250"));
    assert!(busy.say("MAIL FROM:<ann@our.example>").starts_with("250"));
    assert!(busy.say("RCPT TO:<bob@third.example>").starts_with("250"));
    site.daemon.signal(Signal::TERM);
    site.daemon.log.wait("the drain", 0, |line| line.contains("\"stopping"));
    // To finish the message, Postfix has to query the map, so the map listener stops last.
    assert_eq!(Map::connect(site.daemon.ports[1]).ask("verify", "someone@nowhere.example"), "NOTFOUND ");
    assert!(busy.say("DATA").starts_with("354"));
    let reply = busy.say("X-Id: last\r\n\r\nx\r\n.");
    assert!(reply.starts_with("250"), "{reply}\n{}", site.postfix.log());
    assert!(site.arrived("X-Id: last").from.starts_with("prvs=1"));
    // Postfix needs its folder to stop.
    let Site { daemon, postfix, folder, .. } = site;
    assert_eq!(daemon.wait(), Some(0));
    drop(postfix);
    drop(folder);
}

#[test]
fn a_postfix_in_its_chroot_asks_on_sockets_below_its_queue() {
    if !can_run(&["postfix"], "sockets below a chroot") {
        return;
    }
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let sockets = folder.path().join("jail/queue/countersign");
    std::fs::create_dir_all(&sockets).unwrap();
    let listener = |protocol: &str, name: &str| {
        format!(
            "[[listener]]\nprotocol = \"{protocol}\"\nrole = \"auto\"\nlisten = \"unix:{}/{name}\"\n",
            sockets.display()
        )
    };
    let config = "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\n";
    let _daemon =
        Daemon::start(folder.path(), &[config, &listener("milter", "milter"), &listener("socketmap", "map")].concat());
    let (sink, port) = (Sink::start(), reserved_port());
    let postfix = Postfix::start(
        folder.path(),
        &Role {
            name: "jail",
            domain: "our.example",
            mailboxes: &["ann"],
            ports: &[(port, "")],
            relayhost: sink.port,
            // The path from the queue folder, valid inside and outside the chroot.
            extra: "smtpd_milters = unix:countersign/milter\nmilter_default_action = tempfail\n\
                recipient_canonical_maps = socketmap:unix:countersign/map:strip\n\
                recipient_canonical_classes = envelope_recipient",
            services: &format!("127.0.0.1:{port} inet n - y - - smtpd\ncleanup unix n - y - 0 cleanup\n"),
        },
    );
    let mut client = Client::connect(port);
    client.say("EHLO client.example");
    let text = "X-Id: jailed\r\n\r\nx";
    assert!(send(&mut client, "MAIL FROM:<ann@our.example>", &["<bob@third.example>"], text).starts_with("250"));
    let signed = sink
        .wait_message(|| format!("the message: {}", postfix.log()), |message| message.text.contains("X-Id: jailed"));
    assert!(signed.from.starts_with("prvs=1"), "{}", signed.from);
    // A bounce to the signed address is delivered to the mailbox.
    let bounce = format!("X-Id: back\r\n{}", dsn("failed").trim_end());
    assert!(send(&mut client, "MAIL FROM:<>", &[&format!("<{}>", signed.from)], &bounce).starts_with("250"));
    poll_for(&format!("the bounce: {}", postfix.log()), || {
        postfix.mailbox("ann").into_iter().find(|text| text.contains("X-Id: back"))
    });
}

#[test]
fn a_harvester_behind_the_mta_is_put_off() {
    if !can_run(&["postfix"], "a harvester behind a milter") {
        return;
    }
    let relay = "smtpd_relay_restrictions=permit_mynetworks,reject_unauth_destination";
    let site = site("guarded", "limits.unknown_recipients_per_hour = 3", &["\"inbound\""], &[(0, relay)]);
    let come_from = |address: &str| {
        let mut client = site.connect(0);
        let named = client.say(&format!("XCLIENT ADDR={address} NAME=[UNAVAILABLE]"));
        assert!(named.starts_with("220"), "{named}");
        client.say("EHLO client.example");
        client
    };
    let mut client = come_from("192.0.2.1");
    assert!(client.say("MAIL FROM:<x@else.example>").starts_with("250"));
    for n in 0..3 {
        assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"), "{n}: {:?}", client.reply);
        let said = client.say(&format!("RCPT TO:<nobody{n}@our.example>"));
        assert!(said.starts_with("550 5.1.1"), "{n}: {said}");
    }
    site.daemon.log.wait("the warning", 0, |line| {
        line.contains("client network exceeded unknown_recipients_per_hour") && line.contains("192.0.2.0/24")
    });
    // Postfix refuses unknown users whatever a milter says, so all is put off before.
    for address in ["192.0.2.1", "192.0.2.77"] {
        let mut client = come_from(address);
        let said = client.say("MAIL FROM:<x@else.example>");
        assert_eq!(said, "450 4.7.1 too many unknown recipients from your network, try again later", "{address}");
    }
    let mut user = site.connect(0);
    assert!(user.say("XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE] LOGIN=ann").starts_with("220"));
    user.say("EHLO client.example");
    assert!(user.say("MAIL FROM:<ann@our.example>").starts_with("250"), "who has logged in is not limited");
    for address in ["198.51.100.1", "127.0.0.1"] {
        assert!(come_from(address).say("MAIL FROM:<x@else.example>").starts_with("250"), "{address}");
    }
    // The message of before has its recipients.
    assert!(client.say("DATA").starts_with("354"));
    assert!(client.say("Subject: three\r\n\r\nx\r\n.").starts_with("250"));
    assert!(site.delivered("ann", "Subject: three").contains("x"));
}
