//! Bounces that this site itself would send to forged senders: a Postfix that takes unknown users, before and behind
//! Countersign.

use crate::common::postfix::{Postfix, Role};
use crate::common::{
    At, Client, Daemon, Does, Message, NextHop, Sink, can_run, dsn, folder, poll_for, reserved_port, run_ok,
};

/// A site whose Postfix takes mail for users that do not exist, and bounces it through Countersign to the world.
struct Site {
    daemon: Daemon,
    world: Sink,
    port: u16,
    postfix: Postfix,
    _folder: tempfile::TempDir,
}

/// What the mail server has found out about its client, as a header above its own Received.
fn results(spf: &str) -> String {
    format!("Authentication-Results: mx.our.example; spf={spf} smtp.mailfrom=victim.example")
}

impl Site {
    /// `ndr`: lines of `[outbound.ndr]`. `header`: what Postfix puts above each message from outside.
    fn start(name: &str, ndr: &str, header: &str) -> Self {
        Self::start_with(name, ndr, header, "")
    }

    /// `extra`: more lines of main.cf.
    fn start_with(name: &str, ndr: &str, header: &str, extra: &str) -> Self {
        let (folder, world, port) = (folder(), Sink::start(), reserved_port());
        run_ok(folder.path(), &["keys", "init"]);
        let config = format!(
            "domains.local = [\"our.example\"]\n[outbound.ndr]\n{ndr}\n\
             [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n",
            world.port
        );
        let daemon = Daemon::start(folder.path(), &config);
        let table = folder.path().join("results");
        let table = table.display();
        let options =
            format!("smtpd_reject_unlisted_recipient=no smtpd_client_restrictions=check_client_access,regexp:{table}");
        std::fs::write(folder.path().join("results"), format!("/./ PREPEND {header}\n")).unwrap();
        let role = Role {
            name,
            domain: "our.example",
            mailboxes: &["ann", "postmaster"],
            ports: &[(port, if header.is_empty() { "smtpd_reject_unlisted_recipient=no" } else { &options })],
            relayhost: daemon.ports[0],
            extra,
            ..Role::default()
        };
        let postfix = Postfix::start(folder.path(), &role);
        Self { daemon, world, port, postfix, _folder: folder }
    }

    /// A stranger sends spam in the name of a victim to a made-up user.
    fn reflects(&self, forged: &str) {
        let mut client = Client::connect(self.port);
        client.say("EHLO client.example");
        let text = format!("{forged}Subject: buy this\r\n\r\nspam");
        let said = client.send("victim@victim.example", "nobody@our.example", &text).unwrap();
        assert!(said.starts_with("250"), "{said}");
        // The message is gone from the queue when its bounce is.
        poll_for("the end of the message and of its bounce", || {
            (self.postfix.log().matches(": removed").count() >= 2).then_some(())
        });
    }

    fn bounces(&self) -> Vec<Message> {
        self.world.all().into_iter().filter(|message| message.from.is_empty()).collect()
    }
}

#[test]
fn without_a_policy_the_victim_gets_the_spam() {
    if !can_run(&["postfix"], "without_a_policy_the_victim_gets_the_spam") {
        return;
    }
    let site = Site::start("reflector", "", "");
    site.reflects("");
    let bounces = site.bounces();
    assert_eq!(bounces.len(), 1);
    assert_eq!(bounces[0].to, ["victim@victim.example"]);
    assert!(bounces[0].text.contains("buy this") && bounces[0].text.contains("spam"), "{}", bounces[0].text);
}

#[test]
fn no_bounce_leaves_where_none_is_sent() {
    if !can_run(&["postfix"], "no_bounce_leaves_where_none_is_sent") {
        return;
    }
    let site = Site::start("drop", "policy = \"drop\"", "");
    site.reflects("");
    assert_eq!(site.bounces().len(), 0);
    site.daemon.log.wait("the decision", 0, |line| {
        line.contains("own-bounce") && line.contains("\"discard\"") && line.contains("victim@victim.example")
    });
}

#[test]
fn only_verified_senders_get_a_bounce() {
    if !can_run(&["postfix"], "only_verified_senders_get_a_bounce") {
        return;
    }
    let ndr = "policy = \"verified\"\nauthserv_id = \"mx.our.example\"\ncopy_to = \"postmaster@our.example\"";
    for (name, header, forged, sent) in [
        ("spf-pass", results("pass"), String::new(), true),
        ("spf-fail", results("fail"), String::new(), false),
        // The stranger writes it: below the Received header of our server.
        ("forged", String::new(), format!("{}\r\n", results("pass")), false),
        ("forged-below", results("fail"), format!("{}\r\nReceived: by mx.our.example\r\n", results("pass")), false),
        ("other-server", results("pass").replace("mx.our", "mx.else"), String::new(), false),
    ] {
        let site = Site::start(name, ndr, &header);
        site.reflects(&forged);
        let to: Vec<_> = site.bounces().into_iter().map(|message| message.to).collect();
        if sent {
            assert_eq!(to, [["victim@victim.example"]], "{name}");
            continue;
        }
        assert_eq!(to, [["postmaster@our.example"]], "{name}");
        let copy = &site.bounces()[0].text;
        assert!(copy.starts_with("Countersign-Result: v=1; "), "{copy}");
        assert!(copy.contains("would=discard; reason=own-bounce-unverified") && copy.contains("buy this"), "{copy}");
    }
}

#[test]
fn results_below_received_are_trusted_where_strangers_cannot_write_them() {
    if !can_run(&["postfix"], "results_below_received_are_trusted_where_strangers_cannot_write_them") {
        return;
    }
    let ndr = "policy = \"verified\"\nauthserv_id = \"mx.our.example\"\nresults_below_received = true";
    let forged = format!("{}\r\n", results("pass"));
    // The setting of docs/config.md.
    let removes = "header_checks = regexp:{{/^Authentication-Results:[[:space:]]*mx\\.our\\.example/ IGNORE}}";
    for (name, extra, sent) in [("believed", "", 1), ("removed", removes, 0)] {
        let site = Site::start_with(name, ndr, "", extra);
        site.reflects(&forged);
        assert_eq!(site.bounces().len(), sent, "{name}");
    }
}

/// A daemon in front of a sink, without a Postfix.
struct Bare {
    daemon: Daemon,
    hop: NextHop,
    _folder: tempfile::TempDir,
}

fn bare(hop: NextHop, ndr: &str, more: &str) -> Bare {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config = format!(
        "domains.local = [\"our.example\"]\ndomains.relay = [\"other.example\"]\ndomains.srs_domain = \"srs.our.example\"\n\
         {more}\n[outbound.ndr]\n{ndr}\n\
         [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{0}\"\n\
         [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{0}\"\n",
        hop.port
    );
    let daemon = Daemon::start(folder.path(), &config);
    Bare { daemon, hop, _folder: folder }
}

impl Bare {
    fn client(&self, listener: usize) -> Client {
        let mut client = Client::connect(self.daemon.ports[listener]);
        client.say("EHLO mail.our.example");
        client
    }

    fn bounce(&self, to: &str, text: &str) -> String {
        self.client(0).send("", to, text).unwrap()
    }
}

/// A vacation reply.
const VACATION: &str =
    "From: ann@our.example\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nback soon";

#[test]
fn what_is_not_a_bounce_to_others_is_sent() {
    let site = bare(NextHop::start(), "policy = \"drop\"", "");
    for to in ["ann@our.example", "x@other.example", "SRS0=aaaa=bb=third.example=bob@srs.our.example"] {
        assert!(site.bounce(to, dsn("failed").trim_end()).starts_with("250"));
    }
    assert!(site.bounce("bob@third.example", VACATION).starts_with("250"));
    assert!(
        site.client(0)
            .send("ann@our.example", "bob@third.example", dsn("failed").trim_end())
            .unwrap()
            .starts_with("250")
    );
    assert_eq!(site.hop.count(), 5);
    // Longer than what is buffered, by DATA and by BDAT.
    let (long, to) =
        (format!("{VACATION}\r\n{}the end", "all work and no play\r\n".repeat(20_000)), "bob@third.example");
    assert!(site.bounce(to, &long).starts_with("250"));
    assert!(site.hop.last().text.trim_end().ends_with("the end"));
    let mut client = site.client(0);
    client.say("MAIL FROM:<>");
    client.say("RCPT TO:<bob@third.example>");
    assert!(client.say(&format!("BDAT {} LAST\r\n{long}", long.len() + 2)).starts_with("250"));
    assert_eq!(site.hop.count(), 7);
    // Who forges a sender can ask for success notices, too.
    for action in ["failed", "delayed", "delivered"] {
        assert_eq!(site.bounce("bob@third.example", dsn(action).trim_end()), "250 2.0.0 Ok");
    }
    assert_eq!(site.hop.count(), 7);
}

#[test]
fn bounces_are_limited_by_the_hour() {
    let site = bare(NextHop::start(), "per_domain_per_hour = 2\nper_hour = 3", "");
    for (to, sent) in [
        ("a@third.example", 1),
        ("b@third.example", 2),
        ("c@third.example", 2),
        ("a@else.example", 3),
        ("b@else.example", 3),
    ] {
        assert!(site.bounce(to, dsn("failed").trim_end()).starts_with("250"), "{to}");
        assert_eq!(site.hop.count(), sent, "{to}");
    }
    // Mail of persons is not limited.
    assert!(site.client(0).send("ann@our.example", "bob@third.example", "x").unwrap().starts_with("250"));
}

#[test]
fn a_bounce_that_is_not_sent_is_accepted_whatever_happens_to_its_copy() {
    let hop = NextHop::script().when(At::Rcpt, "postmaster@", Does::Says("550 5.1.1 unknown")).start();
    let site = bare(hop, "policy = \"drop\"\ncopy_to = \"postmaster@our.example\"", "inbound.hold = \"8 KiB\"");
    assert_eq!(site.bounce("bob@third.example", dsn("failed").trim_end()), "250 2.0.0 Ok");
    assert_eq!(site.hop.count(), 0);
    // Later, there may be one.
    let hop = NextHop::script().when(At::Rcpt, "postmaster@", Does::Says("450 4.2.0 busy")).start();
    let site = bare(hop, "policy = \"drop\"\ncopy_to = \"postmaster@our.example\"", "inbound.hold = \"8 KiB\"");
    let said = site.bounce("bob@third.example", dsn("failed").trim_end());
    assert_eq!(said, "451 4.3.0 quarantine mailbox unavailable, try again later");
    assert_eq!(site.hop.count(), 0);
    // The mailbox takes no such content, or has no room for it at the moment.
    for (at, code, answer) in [
        (At::End, "554 5.7.1 spam", "250 2.0.0 Ok"),
        (At::Data, "554 5.7.1 no", "250 2.0.0 Ok"),
        (At::End, "452 4.2.2 full", "452 4.2.2 full"),
    ] {
        let hop = NextHop::script().when(at, "", Does::Says(code)).start();
        let site = bare(hop, "policy = \"drop\"\ncopy_to = \"postmaster@our.example\"", "");
        assert_eq!(site.bounce("bob@third.example", dsn("failed").trim_end()), answer, "{code}");
        assert_eq!(site.hop.count(), 0);
    }
    // The same at an inbound listener, for a bounce of what was forwarded.
    let hop = NextHop::script().when(At::Rcpt, "postmaster@", Does::Says("550 5.1.1 unknown")).start();
    let site = bare(hop, "policy = \"drop\"\ncopy_to = \"postmaster@our.example\"", "");
    assert!(site.client(0).send("bob@third.example", "carol@else.example", "x").unwrap().starts_with("250"));
    let returned =
        "--b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from x by mail.our.example; today\r\n\r\ny\r\n--b--\r\n";
    let own = dsn("failed").replace("--b--\r\n", returned);
    let srs = site.hop.last().from;
    assert_eq!(site.client(1).send("", &srs, own.trim_end()).unwrap(), "250 2.0.0 Ok");
    assert_eq!(site.hop.count(), 1);
    // Longer than what is buffered, by DATA and by BDAT.
    let site =
        bare(NextHop::start(), "policy = \"drop\"\ncopy_to = \"postmaster@our.example\"", "inbound.hold = \"8 KiB\"");
    let long =
        dsn("failed").replace("--b--\r\n", &format!("--b\r\n\r\n{}--b--\r\n", "all work and no play\r\n".repeat(5000)));
    assert!(site.bounce("bob@third.example", long.trim_end()).starts_with("250"));
    assert_eq!(site.hop.last().to, ["postmaster@our.example"]);
    let mut client = site.client(0);
    client.say("MAIL FROM:<>");
    client.say("RCPT TO:<bob@third.example>");
    assert!(client.say(format!("BDAT {} LAST\r\n{long}", long.len()).trim_end()).starts_with("250"));
    assert_eq!((site.hop.count(), site.hop.last().to), (2, vec!["postmaster@our.example".to_owned()]));
    assert!(site.hop.last().text.contains("all work"));
}

#[test]
fn a_bounce_to_forwarded_mail_goes_on_to_its_sender() {
    let site = bare(NextHop::start(), "policy = \"drop\"", "");
    // Mail of a stranger was forwarded, and its bounce comes back.
    let mut client = site.client(0);
    assert!(client.send("bob@third.example", "carol@else.example", "x").unwrap().starts_with("250"));
    let srs = site.hop.last().from;
    assert!(srs.starts_with("SRS0="), "{srs}");
    assert!(site.client(1).send("", &srs, dsn("failed").trim_end()).unwrap().starts_with("250"));
    let reversed = site.hop.last();
    assert_eq!(reversed.to, ["bob@third.example"]);
    // Without an original, the listener cannot know who has bounced it.
    let mark = "Countersign-Result: v=1; verdict=valid; would=deliver; reason=srs-bounce\r\n";
    assert!(reversed.text.starts_with(mark), "{}", reversed.text);
    // The mail server relays it, through the outbound listener again.
    assert!(site.bounce("bob@third.example", reversed.text.trim_end()).starts_with("250"));
    assert_eq!((site.hop.count(), site.hop.last().to), (3, vec!["bob@third.example".to_owned()]));
    assert!(!site.hop.last().text.contains("Countersign-"));
    // The mail server itself bounces forwarded mail that the next hop refuses, to whoever seems to have sent it.
    let returned = "--b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from x by HOST (Postfix); today\r\nSubject: x\r\n\r\ny\r\n--b--\r\n";
    for (host, sent) in
        [("mail.our.example", 0), ("by (unknown [192.0.2.1]) by mail.our.example", 0), ("mx.third.example", 1)]
    {
        let before = site.hop.count();
        let own = dsn("failed").replace("--b--\r\n", &returned.replace("HOST", host));
        assert!(site.client(1).send("", &srs, own.trim_end()).unwrap().starts_with("250"));
        assert_eq!(site.hop.count(), before + sent, "{host}");
        // Where the mail server reverses the address, the outbound listener decides.
        let marked = format!("Countersign-Result: v=1; verdict=valid; would=deliver; reason=srs-bounce\r\n{own}");
        assert!(site.bounce("bob@third.example", marked.trim_end()).starts_with("250"));
        assert_eq!(site.hop.count(), before + 2 * sent, "{host}");
    }
    // Bounces to users of this site, who forward their mail: to signed mail, whoever has bounced it, and a notice that
    // needs no tag.
    assert!(client.send("ann@our.example", "carol@else.example", "x").unwrap().starts_with("250"));
    let ann = site.hop.last().from;
    assert!(ann.starts_with("prvs="), "{ann}");
    for host in ["mail.our.example", "mx.third.example"] {
        let bounce = dsn("failed").replace("--b--\r\n", &returned.replace("HOST", host));
        assert!(site.client(1).send("", &ann, bounce.trim_end()).unwrap().starts_with("250"));
        let accepted = site.hop.last();
        let mark = "Countersign-Result: v=1; verdict=valid; would=deliver; reason=accepted-bounce\r\n";
        assert!(accepted.text.starts_with(mark), "{}", accepted.text);
        assert!(site.bounce("ann@elsewhere.example", accepted.text.trim_end()).starts_with("250"));
        assert_eq!(site.hop.last().to, ["ann@elsewhere.example"]);
        assert!(!site.hop.last().text.contains("Countersign-Result"));
    }
    assert!(
        site.client(1).send("", "ann@our.example", "Subject: away\r\n\r\nuntil Monday").unwrap().starts_with("250")
    );
    let untagged = "Countersign-Result: v=1; verdict=untagged; would=deliver; reason=accepted-bounce\r\nSubject: away";
    assert!(site.hop.last().text.starts_with(untagged), "{}", site.hop.last().text);
    // A stranger cannot write that himself.
    let forged = format!("Countersign-Result: reason=srs-bounce\r\n{}", dsn("failed").trim_end());
    assert!(site.client(1).send("", "postmaster@our.example", &forged).unwrap().starts_with("250"));
    assert!(!site.hop.last().text.contains("srs-bounce"), "{}", site.hop.last().text);
}

#[test]
fn a_bounce_may_return_headers_alone() {
    if !can_run(&["postfix"], "a_bounce_may_return_headers_alone") {
        return;
    }
    let site = Site::start("stripped", "strip_content = true", "");
    site.reflects("Content-Type: text/plain\r\n");
    let bounce = &site.bounces()[0];
    assert_eq!(bounce.to, ["victim@victim.example"]);
    let text = &bounce.text;
    assert!(text.contains("Content-Type: text/rfc822-headers\r\n") && !text.contains("message/rfc822"), "{text}");
    assert!(text.contains("Subject: buy this") && !text.contains("spam"), "{text}");
    assert!(text.contains("Final-Recipient: rfc822; nobody@our.example"), "{text}");
    assert!(text.trim_end().lines().next_back().is_some_and(|line| line.ends_with("--")), "{text}");
    // Longer than what is buffered.
    let site = bare(NextHop::start(), "strip_content = true", "inbound.hold = \"8 KiB\"");
    let original = format!("Subject: buy this\r\n\r\n{}", "spam spam spam\r\n..dots\r\n".repeat(5000));
    let part = format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{original}--b--\r\n");
    let long = dsn("failed").replace("--b--\r\n", &part);
    assert!(site.bounce("bob@third.example", long.trim_end()).starts_with("250"));
    let text = site.hop.last().text;
    assert!(text.ends_with("text/rfc822-headers\r\n\r\nSubject: buy this\r\n\r\n--b--\r\n"), "{text}");
    // Chunks have lengths that would change.
    let mut client = site.client(0);
    assert!(client.reply.iter().all(|line| !line.contains("CHUNKING")), "{:?}", client.reply);
    assert!(client.say("MAIL FROM:<>").starts_with("250"));
    assert!(client.say("RCPT TO:<bob@third.example>").starts_with("250"));
    assert!(client.say("BDAT 3 LAST\r\nx").starts_with("502"));
    // Other mail, and bounces within the site, are not touched.
    for (from, to) in [("ann@our.example", "bob@third.example"), ("", "ann@our.example")] {
        assert!(site.client(0).send(from, to, long.trim_end()).unwrap().starts_with("250"));
        assert!(site.hop.last().text.contains("spam spam"), "{to}");
    }
}

#[test]
fn a_milter_sees_the_bounces_that_its_postfix_shows() {
    if !can_run(&["postfix"], "a_milter_sees_the_bounces_that_its_postfix_shows") {
        return;
    }
    for (name, copy_to, to) in
        [("quiet", "", None), ("copied", "copy_to = \"bea@third.example\"", Some("bea@third.example"))]
    {
        let (folder, world, port) = (folder(), Sink::start(), reserved_port());
        run_ok(folder.path(), &["keys", "init"]);
        let config = format!(
            "domains.local = [\"our.example\"]\n[outbound.ndr]\npolicy = \"drop\"\n{copy_to}\n\
             [[listener]]\nprotocol = \"milter\"\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\n"
        );
        let daemon = Daemon::start(folder.path(), &config);
        let extra = format!(
            "internal_mail_filter_classes = bounce\nnon_smtpd_milters = inet:127.0.0.1:{}\nmilter_default_action = tempfail",
            daemon.ports[0]
        );
        let role = Role {
            name,
            domain: "our.example",
            mailboxes: &["ann"],
            ports: &[(port, "smtpd_reject_unlisted_recipient=no")],
            relayhost: world.port,
            extra: &extra,
            ..Role::default()
        };
        let site = Site { daemon, world, port, postfix: Postfix::start(folder.path(), &role), _folder: folder };
        let mut client = Client::connect(site.port);
        client.say("EHLO client.example");
        let said = client.send("victim@victim.example", "nobody@our.example", "Subject: buy this\r\n\r\nspam").unwrap();
        assert!(said.starts_with("250"), "{said}");
        site.daemon.log.wait("the decision", 0, |line| line.contains("own-bounce"));
        match to {
            Some(to) => assert_eq!(site.world.wait_message(|| site.postfix.log(), |_| true).to, [to]),
            None => {
                let is_over = || site.postfix.log().contains("milter-discard").then_some(());
                poll_for(&format!("the end of the bounce: {}", site.postfix.log()), is_over);
            }
        }
        assert!(site.world.all().iter().all(|message| message.to != ["victim@victim.example"]));
    }
}
