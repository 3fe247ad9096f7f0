//! Real mail servers around the proxies: TLS, authentication, client addresses, and each method that uses SMTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::mtas::{self, DOMAIN, MAILBOXES, find_message};
use crate::common::postfix::{Postfix, Role};
use crate::common::tls::{NAME, certificate};
use crate::common::{Client, Daemon, Sink, dsn, folder, poll_for, reserved_port, run_ok};

const FROM: &str = "ann@our.example";

fn message(base: &Path, token: &str) -> PathBuf {
    let path = base.join(format!("{token}.eml"));
    fs::write(&path, format!("From: {FROM}\nTo: alice@{DOMAIN}\nSubject: {token}\n\nHello.\n")).unwrap();
    path
}

fn succeeded(what: &str, output: &Output) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&said));
}

fn arrived(folder: &Path, mailbox: &str, token: &str, log: impl Fn() -> String) -> String {
    poll_for(&format!("{token}: {}", log()), || find_message(folder, mailbox, &format!("Subject: {token}")))
}

/// A listener of the config.
fn listener(role: &str, next_hop: u16, more: &str) -> String {
    format!("[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{next_hop}\"\n{more}\n")
}

fn start(base: &Path, rest: &str, listeners: &[String]) -> Daemon {
    if !base.join("keys/ring.toml").exists() {
        run_ok(base, &["keys", "init"]);
    }
    Daemon::start(base, &format!("[domains]\nlocal = [\"our.example\"]\n{rest}\n{}", listeners.concat()))
}

/// A Postfix with mailboxes in [`DOMAIN`], and no trusted networks.
fn receiving(base: &Path, port: u16, options: &str, extra: &str) -> Postfix {
    let role = Role {
        name: "receiving",
        domain: DOMAIN,
        mailboxes: &MAILBOXES,
        ports: &[(port, &format!("smtpd_relay_restrictions=reject_unauth_destination mynetworks= {options}"))],
        relayhost: 0,
        extra,
        ..Role::default()
    };
    Postfix::start(base, &role)
}

#[test]
fn tls_with_real_clients_and_real_next_hops() {
    if !mtas::can_run_all("tls_with_real_clients_and_real_next_hops") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    certificate(base);
    let (postfix_port, exim_port) = (reserved_port(), reserved_port());
    let tls = format!(
        "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {0}/chain.pem\nsmtpd_tls_key_file = {0}/key.pem",
        base.display()
    );
    let postfix = receiving(base, postfix_port, "smtpd_tls_auth_only=yes", &tls);
    let exim = mtas::exim_server(base, exim_port, true);
    let ours = "tls = \"require\"\ncertificate = \"chain.pem\"\nprivate_key = \"key.pem\"\nnext_hop_tls = \"require\"";
    let verified = format!("{ours}\nnext_hop_name = \"{NAME}\"\nnext_hop_ca = \"chain.pem\"");
    let unverified = format!("{ours}\nnext_hop_verify = false");
    let listeners = [listener("outbound", postfix_port, &verified), listener("outbound", exim_port, &unverified)];
    let daemon = start(base, "", &listeners);
    let to = format!("alice@{DOMAIN}");
    for (port, name, server) in
        [(daemon.ports[0], "postfix", postfix.folder().to_owned()), (daemon.ports[1], "exim", exim.folder.clone())]
    {
        let token = |client: &str| format!("tls-{name}-{client}");
        let file = |client: &str| message(base, &token(client));
        succeeded("swaks", &mtas::swaks(port, FROM, &to, &file("swaks"), &["--tls"]));
        let options = ["--tls=on", "--tls-starttls=on", "--tls-certcheck=off"];
        succeeded("msmtp", &mtas::msmtp(port, FROM, &to, &file("msmtp"), &options));
        succeeded("Exim", &mtas::exim_send(base, port, FROM, &to, &file("exim"), &["hosts_require_tls = *"]));
        let script = "import smtplib, sys\nport, sender, to, name = sys.argv[1:]\ns = smtplib.SMTP('127.0.0.1', int(port))\n\
            s.starttls()\ns.sendmail(sender, [to], open(name, 'rb').read())\ns.quit()\n";
        let mut python = Command::new("python3");
        python.args(["-c", script, &port.to_string(), FROM, &to]).arg(file("smtplib"));
        succeeded("smtplib", &python.output().unwrap());
        let relay = reserved_port();
        let opensmtpd = mtas::opensmtpd_relay(base, relay, &format!("smtp+tls://127.0.0.1:{port}"), "tls no-verify");
        succeeded("to OpenSMTPD", &mtas::swaks(relay, FROM, &to, &file("opensmtpd"), &[]));
        let submission = reserved_port();
        let role = Role {
            name: &format!("sending-{name}"),
            domain: "client.example",
            mailboxes: &[],
            ports: &[(submission, "smtpd_relay_restrictions=permit_mynetworks,reject")],
            relayhost: port,
            extra: "smtp_tls_security_level = encrypt",
            ..Role::default()
        };
        let sending = Postfix::start(base, &role);
        succeeded("to Postfix", &mtas::swaks(submission, FROM, &to, &file("postfix"), &[]));
        for client in ["swaks", "msmtp", "exim", "smtplib", "opensmtpd", "postfix"] {
            let logs = || [postfix.log(), exim.log(), opensmtpd.log(), sending.log()].concat();
            let text = arrived(&server, "alice", &token(client), logs).to_lowercase();
            assert!(text.contains("return-path: <prvs=1"), "{client}: {text}");
        }
    }
    assert!(exim.log().contains("X=TLS1.3") && !postfix.log().contains("TLS handshake failed"), "{}", exim.log());
    let refused = mtas::swaks(daemon.ports[0], FROM, &to, &message(base, "plain"), &[]);
    assert!(!refused.status.success(), "mail without TLS was taken");
}

#[test]
fn logging_in_works_through_the_proxy() {
    if !mtas::can_run_all("logging_in_works_through_the_proxy") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    let port = reserved_port();
    // Debian's Postfix reads the settings of Cyrus SASL beside its own.
    let sasl = base.join("receiving/etc/sasl");
    fs::create_dir_all(&sasl).unwrap();
    let database = base.join("sasldb2");
    fs::write(
        sasl.join("smtpd.conf"),
        format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: PLAIN LOGIN\n",
            database.display()
        ),
    )
    .unwrap();
    let set = "echo secret | \"$1\" -p -c -f \"$2\" -u mail.dest.example joe && chown postfix \"$2\"";
    let program = mtas::unpacked("sasl2-bin").join("usr/sbin/saslpasswd2");
    succeeded("saslpasswd2", &Command::new("sh").args(["-c", set, "sh"]).args([&program, &database]).output().unwrap());
    let extra =
        "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_local_domain = mail.dest.example\ndefault_transport = discard";
    let options = "smtpd_relay_restrictions=permit_sasl_authenticated,reject_unauth_destination";
    let postfix = receiving(base, port, options, extra);
    let daemon = start(base, "", &[listener("outbound", port, "")]);
    let (port, to) = (daemon.ports[0], "someone@far.example");
    let file = message(base, "auth");
    let swaks = |more: &[&str]| mtas::swaks(port, FROM, to, &file, more);
    for mechanism in ["PLAIN", "LOGIN"] {
        let output = swaks(&["--auth", mechanism, "--auth-user", "joe", "--auth-password", "secret"]);
        succeeded(&format!("{mechanism}: {}", postfix.log()), &output);
    }
    let wrong = swaks(&["--auth", "PLAIN", "--auth-user", "joe", "--auth-password", "wrong"]);
    assert_eq!(wrong.status.code(), Some(28), "a wrong password is refused by the next hop, not by us");
    assert_eq!(swaks(&[]).status.code(), Some(24), "and without one nothing is relayed");
    for mechanism in ["plain", "login"] {
        let arguments = ["--tls=off", &format!("--auth={mechanism}"), "--user=joe", "--passwordeval=echo secret"];
        succeeded("msmtp", &mtas::msmtp(port, FROM, to, &file, &arguments));
    }
    let script = "import smtplib, sys\nport, sender, to, name = sys.argv[1:]\ns = smtplib.SMTP('127.0.0.1', int(port))\n\
        s.login('joe', 'secret')\ns.sendmail(sender, [to], open(name, 'rb').read())\ns.quit()\n";
    let mut python = Command::new("python3");
    python.args(["-c", script, &port.to_string(), FROM, to]).arg(&file);
    succeeded("smtplib", &python.output().unwrap());
    assert_eq!(postfix.log().matches("sasl_method=").count(), 5, "{}", postfix.log());
    let secrets = daemon.log.all().join("\n");
    assert!(!secrets.contains("am9l") && !secrets.contains("secret"), "a password in the log");
}

#[test]
fn addresses_outside_ascii_are_signed_and_verified() {
    if !mtas::can_run_all("addresses_outside_ascii_are_signed_and_verified") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    let (world, home) = (reserved_port(), reserved_port());
    let postfix = receiving(base, world, "", "");
    let mailboxes = Role {
        name: "home",
        domain: "our.example",
        mailboxes: &["jürgen"],
        ports: &[(home, "smtpd_relay_restrictions=reject_unauth_destination mynetworks=")],
        relayhost: 0,
        extra: "",
        ..Role::default()
    };
    let at_home = Postfix::start(base, &mailboxes);
    let listeners = [listener("outbound", world, ""), listener("inbound", home, "")];
    let daemon = start(base, "[inbound]\nmode = \"enforce\"", &listeners);
    let send = |port: u16, from: &str, to: &str, token: &str| {
        let script = "import smtplib, sys\nport, sender, to, name = sys.argv[1:]\ns = smtplib.SMTP('127.0.0.1', int(port))\n\
            s.sendmail(sender, [to], open(name, 'rb').read(), ['SMTPUTF8', 'BODY=8BITMIME'])\ns.quit()\n";
        let mut python = Command::new("python3");
        python.args(["-c", script, &port.to_string(), from, to]).arg(message(base, token)).env("PYTHONUTF8", "1");
        python.output().unwrap()
    };
    succeeded("out", &send(daemon.ports[0], "jürgen@our.example", &format!("alice@{DOMAIN}"), "out"));
    let text = arrived(postfix.folder(), "alice", "out", || postfix.log());
    let signed = text.lines().find_map(|line| line.strip_prefix("Return-Path: <")).unwrap().trim_end_matches('>');
    assert!(signed.starts_with("prvs=1") && signed.ends_with("=jürgen@our.example"), "{signed}");
    succeeded("home", &send(daemon.ports[1], "", signed, "home"));
    arrived(at_home.folder(), "jürgen", "home", || at_home.log());
    let forged = send(daemon.ports[1], "", "prvs=1000abcdef=jürgen@our.example", "forged");
    assert!(String::from_utf8_lossy(&forged.stderr).contains("550"), "{forged:?}");
}

#[test]
fn the_next_hop_knows_the_client_and_the_one_that_relays_does_not() {
    if !mtas::can_run_all("the_next_hop_knows_the_client_and_the_one_that_relays_does_not") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    let (port, relaying, sink) = (reserved_port(), reserved_port(), Sink::start());
    // Both offer XCLIENT. If it were sent to the second one, that would see the stranger as its client, and refuse to
    // relay.
    let xclient = "mynetworks= smtpd_authorized_xclient_hosts=127.0.0.0/8";
    let role = Role {
        name: "home",
        domain: "our.example",
        mailboxes: &["ann"],
        ports: &[
            (port, &format!("smtpd_relay_restrictions=reject_unauth_destination {xclient}")),
            (
                relaying,
                "mynetworks=127.0.0.0/8 smtpd_relay_restrictions=permit_mynetworks,reject smtpd_authorized_xclient_hosts=127.0.0.0/8",
            ),
        ],
        relayhost: sink.port,
        // As in the recipe, the two real addresses of the SRS domain need a mailbox.
        extra: "relay_domains = srs.our.example\nvirtual_alias_maps = inline:{ {postmaster@srs.our.example = ann@our.example} }",
        ..Role::default()
    };
    let postfix = Postfix::start(base, &role);
    let config = format!(
        "srs_domain = \"srs.our.example\"\n[inbound]\nmode = \"enforce\"\nsrs_next_hop = \"127.0.0.1:{relaying}\""
    );
    let trusting = "trusted_proxies = [\"127.0.0.1\"]\naccept_proxy = true";
    let daemon = start(base, &config, &[listener("inbound", port, trusting)]);
    let forwarded = run_ok(base, &["sign", "-c", "countersign.toml", "bob@else.example"]);
    let forwarded = forwarded.split_whitespace().find(|word| word.starts_with("SRS0=")).unwrap().to_owned();
    let stranger = || {
        let mut client = Client::over(crate::common::tcp(daemon.ports[0]).unwrap());
        client.write(b"PROXY TCP4 192.0.2.77 127.0.0.1 1024 25\r\n").unwrap();
        assert!(client.read_reply().unwrap().starts_with("220 "));
        client.say("EHLO far.example");
        client
    };
    let mut client = stranger();
    assert!(client.send("bob@else.example", "ann@our.example", "Subject: to-ann\r\n\r\nx").unwrap().starts_with("250"));
    let text = arrived(postfix.folder(), "ann", "to-ann", || postfix.log());
    assert!(text.contains("[192.0.2.77]"), "{text}");
    // The bounce of a forwarded message is sent to its original sender, who is not local to this Postfix.
    let reply = client.send("", &forwarded, &dsn("failed")).unwrap();
    assert!(reply.starts_with("250"), "{reply}: {}", postfix.log());
    sink.wait_message(|| format!("the bounce: {}", postfix.log()), |message| message.to == ["bob@else.example"]);
    // And forwarded mail is delivered.
    assert!(client.send("bob@else.example", "ann@our.example", "Subject: again\r\n\r\nx").unwrap().starts_with("250"));
    let text = arrived(postfix.folder(), "ann", "again", || postfix.log());
    assert!(text.contains("[192.0.2.77]"), "{text}");
    let reply = client.send("bob@else.example", "postmaster@srs.our.example", "Subject: to-srs\r\n\r\nx").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    arrived(postfix.folder(), "ann", "to-srs", || postfix.log());
    // A stranger cannot relay, even with XCLIENT.
    let mut client = stranger();
    assert!(client.say("XCLIENT ADDR=127.0.0.1").starts_with("550 5.7.1 "));
    client.say("MAIL FROM:<bob@else.example>");
    assert!(client.say("RCPT TO:<x@far.example>").starts_with("550 5.7.1 "));
    assert_eq!(sink.all().len(), 1);
}

#[test]
fn a_before_queue_filter_passes_the_client_on() {
    if !mtas::can_run_all("a_before_queue_filter_passes_the_client_on") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    let (front, back) = (reserved_port(), reserved_port());
    let trusted = "trusted_proxies = [\"127.0.0.1\"]";
    let exempt = "[inbound]\nmode = \"enforce\"\nexempt_clients = [\"192.0.2.0/24\"]";
    let daemon = start(base, exempt, &[listener("inbound", back, trusted)]);
    let filter = daemon.ports[0];
    let role = Role {
        name: "mx",
        domain: "our.example",
        mailboxes: &["ann"],
        ports: &[
            (
                front,
                &format!(
                    "smtpd_proxy_filter=127.0.0.1:{filter} smtpd_reject_unlisted_recipient=no smtpd_authorized_xclient_hosts=127.0.0.0/8 smtpd_relay_restrictions=reject_unauth_destination"
                ),
            ),
            (
                back,
                "smtpd_proxy_filter= mynetworks= smtpd_authorized_xforward_hosts=127.0.0.0/8 smtpd_relay_restrictions=reject_unauth_destination",
            ),
        ],
        relayhost: 0,
        extra: "",
        ..Role::default()
    };
    let postfix = Postfix::start(base, &role);
    let bounce = |client: &str, token: &str| {
        let path = base.join(format!("{token}.eml"));
        fs::write(&path, dsn("failed").replace("Subject: Undelivered", &format!("Subject: {token}")).replace('\r', ""))
            .unwrap();
        mtas::swaks(front, "<>", "ann@our.example", &path, &["--xclient-addr", client])
    };
    succeeded(&postfix.log(), &bounce("192.0.2.33", "from-a-friend"));
    let text = arrived(postfix.folder(), "ann", "from-a-friend", || postfix.log());
    assert!(
        text.starts_with("Return-Path: <>") && text.contains("Countersign-Result: v=1; verdict=untagged"),
        "{text}"
    );
    assert!(!bounce("198.51.100.9", "from-a-stranger").status.success());
    daemon
        .log
        .wait("the stranger", 0, |line| line.contains("\"client\":\"198.51.100.9\"") && line.contains("\"reject\""));
    // The second smtpd has the client's address, too, for block lists and headers.
    let log = postfix.log();
    let told = log.lines().any(|line| {
        line.contains("/smtpd")
            && line.contains("client=")
            && line.contains("orig_client=")
            && line.contains("[192.0.2.33]")
    });
    assert!(told, "{log}");
}

#[test]
fn an_after_queue_filter_signs_what_leaves() {
    if !mtas::can_run_all("an_after_queue_filter_signs_what_leaves") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    let (submission, back, sink) = (reserved_port(), reserved_port(), Sink::start());
    let daemon = start(base, "", &[listener("outbound", back, "")]);
    let filter = daemon.ports[0];
    let role = Role {
        name: "out",
        domain: "client.example",
        mailboxes: &[],
        ports: &[
            (submission, &format!("content_filter=smtp:[127.0.0.1]:{filter}")),
            (
                back,
                "content_filter= receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters",
            ),
        ],
        relayhost: sink.port,
        extra: "",
        ..Role::default()
    };
    let postfix = Postfix::start(base, &role);
    succeeded("swaks", &mtas::swaks(submission, FROM, "x@else.example", &message(base, "filtered"), &[]));
    let got = sink.wait_message(|| format!("the message: {}", postfix.log()), |_| true);
    assert!(got.from.starts_with("prvs=1") && got.to == ["x@else.example"], "{got:?}");
    assert!(got.text.contains("Subject: filtered"));
}
