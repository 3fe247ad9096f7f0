//! Foreign senders that are too long for an SRS address leave with an alias, and bounces to it come back, through every
//! front end.

use std::path::Path;

use crate::common::map::Map;
use crate::common::next_hop::NextHop;
use crate::common::{Client, Daemon, Signal, dsn, folder, run, run_ok};

/// Return paths as large senders write them: their forms and lengths, with invented values.
const LONG: [(&str, &str); 15] = [
    ("Amazon SES", "0102019a7f0e1c2d-4b5a6978-4c3e-9f1a-8b2c-2b3c4d5e6f70-000000@eu-west-1.amazonses.com"),
    ("Amazon SES, own domain", "0100019a7f0e1c2d-4b5a6978-4c3e-9f1a-8b2c-2b3c4d5e6f70-000000@bounce.shop.example"),
    ("SendGrid", "bounces+12345678-a1b2-bob=third.example@em1234.shop.example"),
    ("SendGrid, shared", "bounces+12345678-a1b2-robert.longname=third.example@u12345678.wl123.sendgrid.net"),
    ("Mailgun", "bounce+9f8e7d.6c5b4a-bob=third.example@mg.shop.example"),
    ("Mailchimp", "bounce-mc.us21_123456789.9876543-0a1b2c3d4e@mail123.atl81.mcsv.net"),
    ("Salesforce", "bob=third.example__0-7x3k2m1n0p9q8r@1a2b3c4d5e6f7g8h.9i-abcdeae.eu45.bnc.salesforce.com"),
    ("LinkedIn", "s-2a7b9c1d3e5f7a9b1c3d5e7f9a1b3c5d7e9f1a3b5c7d9e1f3a5b@bounce.linkedin.com"),
    ("Google Groups", "our-discussion-group+bncBCAAAAAAAAAAAAAABBCXYZ123MGQEABCDEFA@googlegroups.com"),
    ("Gmail forwarding", "bob+caf_=ann=our.example@gmail-forwarding-of-a-company.example"),
    ("Brevo", "bounces-123456789-bob=third.example@fk.d.sender-sib.com"),
    ("SparkPost", "msprvs1=19a7f0e1c2d3b=bounces-123456-7@sparkpost.shop.example"),
    ("VERP of Mailman", "discussion-bounces+bob.longname=third.example@lists.third.example"),
    ("VERP of qmail", "announce-return-1234-bob=third.example@lists.a-long-name.example"),
    ("with BATV", "prvs=0786a1b2c3=newsletter.of.a.company@marketing.third.example"),
];
/// Those that are short enough for SRS0.
const SHORT: [(&str, &str); 5] = [
    ("a person", "bob@third.example"),
    ("a web shop", "order-confirmation@shop.third.example"),
    ("a list", "announce-bounces@lists.third.example"),
    ("Mailman with a number", "users-bounces+1234@lists.third.example"),
    ("case and dots", "Bob.Long-Name@Third.Example"),
];

fn config(hop: u16) -> String {
    let listener = |rest: &str| format!("[[listener]]\nlisten = \"127.0.0.1:0\"\n{rest}\n");
    let proxy = |role: &str| listener(&format!("role = \"{role}\"\nnext_hop = \"127.0.0.1:{hop}\""));
    let map = listener("protocol = \"socketmap\"");
    let milter = |role: &str| listener(&format!("protocol = \"milter\"\nrole = \"{role}\""));
    let milters = if cfg!(feature = "milter") { milter("outbound") + &milter("inbound") } else { String::new() };
    format!(
        "domains.local = [\"our.example\"]\ndomains.srs_domain = \"srs.our.example\"\ninbound.mode = \"enforce\"\n{}{}{map}{milters}",
        proxy("outbound"),
        proxy("inbound"),
    )
}

fn start(folder: &Path, hop: &NextHop) -> Daemon {
    Daemon::start(folder, &config(hop.port))
}

fn client(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.say("EHLO client.example");
    client
}

/// Sends mail of this sender, and returns the sender that the next hop got.
fn sent_as(hop: &NextHop, port: u16, sender: &str) -> String {
    let before = hop.all().len();
    let reply = client(port).send(sender, "carol@far.example", "Subject: x\r\n\r\nx").unwrap();
    assert!(reply.starts_with("250"), "{sender}: {reply}");
    hop.all()[before].from.clone()
}

fn bounced_to(hop: &NextHop, port: u16, to: &str) -> Result<String, String> {
    let before = hop.all().len();
    let reply = client(port).send("", to, dsn("failed").trim_end()).unwrap();
    if reply.starts_with("250") { Ok(hop.all()[before].to[0].clone()) } else { Err(reply) }
}

fn is_short_enough(address: &str) {
    let (local, domain) = address.rsplit_once('@').unwrap();
    assert!(local.len() <= 64 && domain == "srs.our.example", "{address}");
}

#[test]
fn every_usual_return_path_goes_out_and_comes_back() {
    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = start(folder.path(), &hop);
    let mut map = Map::connect(daemon.ports[2]);
    for (name, sender) in LONG.iter().chain(&SHORT) {
        let is_long = LONG.iter().any(|(_, long)| long == sender);
        let by_proxy = sent_as(&hop, daemon.ports[0], sender);
        is_short_enough(&by_proxy);
        assert_eq!(by_proxy.contains("=alias="), is_long, "{name}: {by_proxy}");
        assert_eq!(bounced_to(&hop, daemon.ports[1], &by_proxy), Ok((*sender).to_owned()), "{name}");
        // One alias for a sender and a day, whoever asks.
        assert_eq!(map.ask("forward", sender), format!("OK {by_proxy}"), "{name}");
        assert_eq!(map.ask("reverse", &by_proxy), format!("OK {sender}"), "{name}");
        // A relay may change the case of what it does not understand. What is stored stays as it was.
        if is_long {
            assert_eq!(map.ask("verify", &by_proxy.to_uppercase()), format!("OK {sender}"), "{name}");
        }
    }
}

#[cfg(feature = "milter")]
#[tokio::test]
async fn a_milter_gives_and_takes_aliases() {
    use indymilter::MacroStage;
    use indymilter_test::{EomAction, Status, TestConnection};

    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = start(folder.path(), &hop);
    let open = |port| TestConnection::open((std::net::Ipv4Addr::LOCALHOST, port));
    let mut outbound = open(daemon.ports[3]).await.unwrap();
    let mut inbound = open(daemon.ports[4]).await.unwrap();
    for (name, sender) in LONG.iter().chain(&SHORT) {
        outbound.mail([format!("<{sender}>")]).await.unwrap();
        outbound.rcpt(["<carol@far.example>"]).await.unwrap();
        let (done, _) = outbound.eom().await.unwrap();
        let [EomAction::ChangeSender { mail, .. }] = done.actions.as_slice() else { panic!("{name}: {done:?}") };
        let signed = mail.to_str().unwrap().trim_matches(['<', '>']).to_owned();
        is_short_enough(&signed);
        let macros = [("{client_addr}", "192.0.2.7"), ("{client_name}", "client.example")];
        inbound.macros(MacroStage::Mail, macros).await.unwrap();
        assert_eq!(inbound.mail(["<>"]).await.unwrap(), Status::Continue);
        assert_eq!(inbound.rcpt([format!("<{signed}>")]).await.unwrap(), Status::Continue, "{name}");
        let report = dsn("failed");
        let (head, body) = report.split_once("\r\n\r\n").unwrap();
        for line in head.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            inbound.header(name, value).await.unwrap();
        }
        inbound.body(body.as_bytes().to_vec()).await.unwrap();
        let (done, status) = inbound.eom().await.unwrap();
        assert_eq!(status, Status::Continue, "{name}");
        let to = format!("<{sender}>");
        assert!(
            matches!(done.actions.as_slice(), [EomAction::DeleteRecipient { .. }, EomAction::AddRecipient { rcpt, .. }] if rcpt.to_str() == Ok(&to)),
            "{name}: {done:?}"
        );
    }
}

#[test]
fn an_alias_outlives_a_kill_and_one_that_is_not_stored_waits() {
    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = start(folder.path(), &hop);
    let (_, sender) = LONG[0];
    let alias = sent_as(&hop, daemon.ports[0], sender);
    daemon.signal(Signal::KILL);
    drop(daemon);
    let daemon = start(folder.path(), &hop);
    assert_eq!(bounced_to(&hop, daemon.ports[1], &alias), Ok(sender.to_owned()));
    assert_eq!(sent_as(&hop, daemon.ports[0], sender), alias);
    drop(daemon);

    // Another host has the ring, but not the aliases.
    std::fs::remove_file(folder.path().join("state/countersign.db")).unwrap();
    let daemon = start(folder.path(), &hop);
    let reply = bounced_to(&hop, daemon.ports[1], &alias).unwrap_err();
    assert!(reply.starts_with("451 4.7.5"), "{reply}");
    let mut map = Map::connect(daemon.ports[2]);
    assert!(map.ask("reverse", &alias).starts_with("TEMP "), "{alias}");
    // An ordinary sender is told that this address takes bounces only.
    let reply = client(daemon.ports[1]).send("eve@evil.example", &alias, "Subject: x\r\n\r\nx").unwrap();
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    // A changed alias is a forged address.
    let forged = alias.replace("=alias=", "=alias=A");
    let reply = bounced_to(&hop, daemon.ports[1], &forged).unwrap_err();
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    let said = run(folder.path(), &["verify", "-c", "countersign.toml", &alias]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("unknown-alias") && said.contains("this command cannot look up the alias"), "{said}");
}

#[test]
fn without_a_state_file_long_senders_leave_as_the_config_says() {
    let hop = NextHop::start();
    let (_, sender) = LONG[0];
    for (extra, want) in [
        ("state.path = \"none\"", sender),
        ("srs.long = \"pass\"", sender),
        ("srs.long = \"sign\"", "SRS0="),
        ("state.path = \"none\"\noutbound.overflow = \"sign\"", "SRS0="),
    ] {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        let daemon = Daemon::start(folder.path(), &format!("{extra}\n{}", config(hop.port)));
        let sent = sent_as(&hop, daemon.ports[0], sender);
        assert!(sent.starts_with(want) && !sent.contains("=alias="), "{extra}: {sent}");
    }
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &format!("srs.long = \"reject\"\n{}", config(hop.port)));
    let reply = client(daemon.ports[0]).say(&format!("MAIL FROM:<{sender}>"));
    assert!(reply.starts_with("553 5.1.7"), "{reply}");
}

/// Each kind of mail that stays: fetched from elsewhere, from a web form, through a scanner. All come from this machine.
#[test]
fn a_foreign_sender_is_rewritten_only_where_its_mail_leaves() {
    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = start(folder.path(), &hop);
    let mut client = client(daemon.ports[0]);
    let mut sent = |from: &str, recipients: &[&str]| {
        let before = hop.count();
        assert!(client.say(&format!("MAIL FROM:<{from}>")).starts_with("250"));
        let codes: Vec<String> =
            recipients.iter().map(|to| client.say(&format!("RCPT TO:<{to}>"))[..9].trim().to_owned()).collect();
        assert!(client.say("DATA").starts_with("354"));
        assert!(client.say("Subject: x\r\n\r\nx\r\n.").starts_with("250"));
        let message = hop.all()[before].clone();
        (message.from, message.to.len(), codes.join(" "))
    };
    let ok = "250 2.1.5";
    // What is fetched for two local users keeps its sender, long or not.
    for sender in ["bob@third.example", LONG[0].1] {
        let (from, to, codes) = sent(sender, &["ann@our.example", "bea@our.example"]);
        assert_eq!((from.as_str(), to, codes), (sender, 2, format!("{ok} {ok}")));
    }
    // What leaves is rewritten, and a local recipient beside it does no harm.
    let (from, to, codes) = sent("bob@third.example", &["carol@far.example", "ann@our.example"]);
    assert!(from.starts_with("SRS0=") && to == 2, "{from} {codes}");
    // A sender that was kept cannot be changed any more: the other recipient gets a transaction of its own.
    let (from, to, codes) = sent("bob@third.example", &["ann@our.example", "carol@far.example"]);
    assert_eq!((from.as_str(), to, codes), ("bob@third.example", 1, format!("{ok} 452 4.5.3")));
    // Our own senders are signed, wherever their mail goes.
    let (from, to, _) = sent("ann@our.example", &["bea@our.example", "carol@far.example"]);
    assert!(from.starts_with("prvs=") && to == 2, "{from}");
    daemon.log.wait("the reason", 0, |line| line.contains("local-recipient") && line.contains("ann@our.example"));
}

#[test]
fn a_site_that_cannot_split_messages_rewrites_them_all() {
    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &format!("outbound.mixed = \"sign\"\n{}", config(hop.port)));
    let mut client = client(daemon.ports[0]);
    client.say("MAIL FROM:<bob@third.example>");
    for to in ["ann@our.example", "carol@far.example"] {
        assert!(client.say(&format!("RCPT TO:<{to}>")).starts_with("250"));
    }
    client.say("DATA");
    assert!(client.say("Subject: x\r\n\r\nx\r\n.").starts_with("250"));
    assert!(hop.last().from.starts_with("SRS0="), "{:?}", hop.last());
}

#[cfg(feature = "milter")]
#[tokio::test]
async fn a_milter_keeps_the_sender_of_mail_that_stays() {
    use indymilter_test::{EomAction, TestConnection};

    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = start(folder.path(), &hop);
    let mut mta = TestConnection::open((std::net::Ipv4Addr::LOCALHOST, daemon.ports[3])).await.unwrap();
    for (recipients, is_changed) in [
        (vec!["ann@our.example"], false),
        (vec!["ann@our.example", "bea@our.example"], false),
        (vec!["ann@our.example", "carol@far.example"], true),
        (vec!["carol@far.example", "ann@our.example"], true),
    ] {
        mta.mail(["<bob@third.example>"]).await.unwrap();
        for to in &recipients {
            mta.rcpt([format!("<{to}>")]).await.unwrap();
        }
        let (done, _) = mta.eom().await.unwrap();
        let changed = done.actions.iter().any(|action| matches!(action, EomAction::ChangeSender { .. }));
        assert_eq!(changed, is_changed, "{recipients:?}: {done:?}");
    }
}
