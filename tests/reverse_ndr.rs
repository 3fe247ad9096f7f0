//! Reverse-NDR attacks: Postfixes that are set up so that they bounce spam to forged senders, before and behind
//! Countersign. The same script of a stranger, a victim, and a genuine sender is run for each.

use crate::common::postfix::{Postfix, Role};
use crate::common::{At, Client, Daemon, Does, NextHop, can_run, folder, poll_for, reserved_port, run_ok};

/// A way to set a Postfix up wrongly.
struct SetUp {
    name: &'static str,
    /// Lines of main.cf. `{inner}` is the port of a server that knows its users.
    main: &'static str,
    /// Options of the smtpd.
    smtpd: &'static str,
    /// `inbound.recipients` of the Countersign in front of it.
    recipients: &'static str,
}

const SET_UPS: [SetUp; 5] = [
    SetUp {
        name: "no-list",
        main: "virtual_mailbox_domains =\nmydestination = our.example\nlocal_recipient_maps =\n\
               mailbox_transport = virtual",
        smtpd: "",
        recipients: "\"file:users\"",
    },
    SetUp {
        name: "relay",
        main: "virtual_mailbox_domains =\nrelay_domains = our.example\nrelay_recipient_maps =\n\
               transport_maps = inline:{ our.example=smtp:[127.0.0.1]:{inner} }",
        smtpd: "",
        recipients: "\"ask:127.0.0.1:{inner}\"",
    },
    SetUp {
        name: "catch-all",
        main: "virtual_mailbox_domains =\nvirtual_alias_domains = our.example\nrelay_domains = inner.example\n\
               virtual_alias_maps = inline:{ @our.example=@inner.example }\n\
               transport_maps = inline:{ inner.example=smtp:[127.0.0.1]:{inner} }",
        smtpd: "",
        recipients: "\"file:users\"",
    },
    SetUp {
        name: "before-queue-filter",
        main: "",
        smtpd: "receive_override_options=no_unknown_recipient_checks",
        recipients: "\"file:users\"",
    },
    SetUp {
        name: "backup-mx",
        // The primary server was away when the mail came.
        main: "virtual_mailbox_domains =\nrelay_domains = our.example\n\
               smtpd_reject_unlisted_recipient = no\n\
               transport_maps = inline:{ our.example=relay:[127.0.0.1]:{inner} }",
        smtpd: "",
        recipients: "\"ask:127.0.0.1:{inner}\"",
    },
];

/// A stranger sends spam in the name of a victim. Returns the reply that decided.
fn attacks(port: u16) -> String {
    let mut client = Client::connect(port);
    client.say("EHLO stranger.example");
    client.send("victim@victim.example", "nobody@our.example", "Subject: buy this\r\n\r\nspam").unwrap()
}

/// A genuine sender writes to Ann, and mistypes her name.
fn writes(port: u16) -> [String; 2] {
    ["ann", "nan"].map(|name| {
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        client.send("bob@third.example", &format!("{name}@our.example"), "Subject: lunch?\r\n\r\nx").unwrap()
    })
}

#[test]
fn five_wrong_set_ups_reflect_before_countersign_and_not_behind_it() {
    if !can_run(&["postfix"], "five_wrong_set_ups_reflect_before_countersign_and_not_behind_it") {
        return;
    }
    for set_up in SET_UPS {
        let name = set_up.name;
        let (folder, port, world) = (folder(), reserved_port(), NextHop::start());
        // The server with the mailboxes knows Ann alone.
        let inner = NextHop::script()
            .on(At::Rcpt, Does::Says("550 5.1.1 no such user"))
            .when(At::Rcpt, "<ann@", Does::Says("250 2.1.5 ok"))
            .start();
        let fill = |text: &str| text.replace("{inner}", &inner.port.to_string());
        let extra = fill(set_up.main);
        let role = Role {
            name,
            domain: "our.example",
            mailboxes: &["ann"],
            ports: &[(port, set_up.smtpd)],
            relayhost: world.port,
            extra: &extra,
            ..Role::default()
        };
        let postfix = Postfix::start(folder.path(), &role);
        let log = || postfix.log();
        // A client that pipelines DATA may send a message to nobody.
        let relayed = || inner.all().iter().filter(|message| !message.to.is_empty()).count();
        let delivered = || postfix.mailbox("ann").len() + relayed();

        // Before: it takes all, and the victim gets the spam.
        assert!(attacks(port).starts_with("250"), "{name}: {}", log());
        let bounce = world.wait_message(log, |message| message.to == ["victim@victim.example"]);
        assert!(bounce.from.is_empty() && bounce.text.contains("buy this"), "{name}: {}", bounce.text);
        let before = world.count();

        // Behind: the spam is refused, and so is a mistake of a genuine sender, who hears of it at once.
        std::fs::write(folder.path().join("users"), "ann@our.example\n").unwrap();
        run_ok(folder.path(), &["keys", "init"]);
        let config = format!(
            "domains.local = [\"our.example\"]\ninbound.recipients = {}\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{port}\"\n",
            fill(set_up.recipients)
        );
        let daemon = Daemon::start(folder.path(), &config);
        let refused = "550 5.1.1 no such user here";
        assert_eq!(attacks(daemon.ports[0]), refused, "{name}");
        let [ann, nan] = writes(daemon.ports[0]);
        assert!(ann.starts_with("250") && nan == refused, "{name}: {ann} {nan}");
        poll_for(&format!("{name}: Ann's mail: {}", log()), || (delivered() == 1).then_some(()));
        assert_eq!(world.count(), before, "{name}: {:?}", world.last());
    }
}
