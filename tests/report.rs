//! `countersign report`: what it finds in logs, first of all in those of real servers that have done a known thing.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::abuse_counters::Site;
use crate::common::name_server::{NameServer, Record};
use crate::common::postfix::{Postfix, Role};
use crate::common::{Client, Sink, can_run, countersign, dsn, folder, mail_log, mtas, poll_for, reserved_port, run};

fn report(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, &[&["report"], arguments].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = report(folder, &[&["--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

/// The numbers of a list of names.
fn counts(list: &Value) -> Vec<(String, u64)> {
    let name =
        |it: &Value| ["name", "cause", "network", "host"].iter().find_map(|key| it[*key].as_str()).unwrap().to_owned();
    let count = |it: &Value| ["count", "names", "bounces"].iter().find_map(|key| it[*key].as_u64()).unwrap();
    list.as_array().unwrap().iter().map(|it| (name(it), count(it))).collect()
}

fn named(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// What strangers do to a server. `come_from` connects to a port, as a client of an address: `strict` refuses unknown
/// users, `lax` accepts them.
fn strangers(come_from: &dyn Fn(&str, bool) -> Client) {
    let send = |address: &str, is_strict: bool, from: &str, to: &str| {
        let mut client = come_from(address, is_strict);
        let reply = client.send(from, to, "Subject: x\r\n\r\nx").unwrap();
        client.say("QUIT");
        reply
    };
    for n in 0..3 {
        assert!(send("192.0.2.7", true, &format!("bob{n}@third.example"), "ann@our.example").starts_with("250"));
    }
    for _ in 0..2 {
        assert!(send("203.0.113.5", true, "", "ann@our.example").starts_with("250"));
    }
    for name in ["sales", "sales", "Sales", "info"] {
        assert!(send("203.0.113.9", true, "", &format!("{name}@our.example")).starts_with("550"));
    }
    let mut client = come_from("198.51.100.1", true);
    for n in 0..30 {
        if n % 6 == 0 {
            client = come_from(&format!("198.51.100.{n}"), true);
            assert!(client.say("MAIL FROM:<x@else.example>").starts_with("250"));
        }
        assert!(client.say(&format!("RCPT TO:<name{n}@our.example>")).starts_with("550"), "{n}: {:?}", client.reply);
    }
    for n in 0..5 {
        // The last victim does not exist.
        let victim = if n == 4 { "refused".to_owned() } else { "victim".to_owned() };
        let reply = send("203.0.113.77", false, &format!("{victim}@v{n}.example"), "nobody@our.example");
        assert!(reply.starts_with("250"), "{reply}");
    }
    for _ in 0..2 {
        assert!(send("203.0.113.78", true, "victim@v0.example", "fwd@our.example").starts_with("250"));
    }
}

/// What `strangers` have done, as the report has to tell it.
fn is_right(found: &Value, place: &str) {
    let backscatter = &found["backscatter"];
    // 3 + 2 + 5 + 2 messages accepted, 4 + 30 recipients refused.
    assert_eq!((backscatter["mail_in"].as_u64(), backscatter["null_sender"].as_u64()), (Some(46), Some(6)), "{found}");
    assert_eq!(counts(&backscatter["refused"]), named(&[("unknown user", 4)]));
    assert_eq!(counts(&backscatter["forged_as"]), named(&[("sales@our.example", 3), ("info@our.example", 1)]));
    assert_eq!(backscatter["unknown_names"], 2);
    assert_eq!(counts(&backscatter["sent_by"]), named(&[("203.0.113.0/24", 4)]));
    let reflector = &found["reflector"];
    assert_eq!(reflector["bounces"], 7, "{reflector}");
    assert_eq!(counts(&reflector["causes"]), named(&[("unknown-user", 5), ("forward", 2)]));
    assert_eq!(reflector["domains"], 5);
    assert_eq!((reflector["delivered"].as_u64(), reflector["undeliverable"].as_u64()), (Some(6), Some(1)));
    assert_eq!(counts(&reflector["causes"][0]["places"]), named(&[(place, 5)]));
    assert_eq!(counts(&reflector["causes"][1]["places"]), named(&[("fwd@our.example to third.example", 2)]));
    assert_eq!(reflector["verdict"]["level"], "this-week");
    assert_eq!(counts(&found["harvest"]["networks"]), named(&[("198.51.100.0/24", 30)]));
    assert_eq!(found["unsigned"]["verdict"]["level"], "unknown");
}

#[test]
fn the_log_of_a_daemon_names_hosts_that_do_not_sign() {
    let original = "--b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from web7.our.example by mx.third.example; now\r\n\
                    Received: from localhost by web7.our.example; now\r\nFrom: Ann <ann@our.example>\r\nMessage-ID: <1@x>\r\n\r\nx\r\n--b--\r\n";
    let bounce = dsn("failed").replace("--b--\r\n", original);
    // Spam in our name has passed no host of ours.
    let spam = bounce.replace("web7.our.example", "pc7.dyn.example");
    for mode in ["observe", "enforce"] {
        let site = Site::start(&format!("inbound.mode = \"{mode}\""), Some("2026-01-01T00:00:00Z"));
        for message in [&bounce, &bounce, &spam] {
            let reply = site.inbound().send("", "ann@our.example", message.trim_end()).unwrap();
            assert!(reply.starts_with(if mode == "observe" { "250" } else { "550" }), "{mode}: {reply}");
        }
        let lines = site.daemon.log.wait_with("three decisions", |lines| {
            (lines.iter().filter(|line| line.contains("\"event\":\"content\"")).count() == 3).then(|| lines.join("\n"))
        });
        std::fs::write(site.folder.path().join("daemon.log"), lines + "\n").unwrap();
        let found = json(site.folder.path(), &["daemon.log"]);
        assert_eq!(counts(&found["unsigned"]["hosts"]), named(&[("web7.our.example", 2)]), "{mode}: {found}");
        assert_eq!(found["unsigned"]["verdict"]["level"], "this-week", "{mode}");
    }
}

#[test]
fn the_log_of_a_real_postfix_is_counted_exactly() {
    if !can_run(&["postfix"], "the_log_of_a_real_postfix_is_counted_exactly") {
        return;
    }
    let (folder, world) = (folder(), Sink::start());
    let [strict, lax, submit] = [reserved_port(), reserved_port(), reserved_port()];
    let extra = "smtpd_authorized_xclient_hosts = 127.0.0.0/8\nsmtpd_soft_error_limit = 100\nsmtpd_hard_error_limit = 100\n\
        smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nsmtpd_reject_unlisted_recipient = yes\n\
        virtual_alias_maps = inline:{ {fwd@our.example = refused@third.example} }\n\
        smtpd_sasl_auth_enable = no\n";
    let role = Role {
        name: "ours",
        domain: "our.example",
        mailboxes: &["ann"],
        ports: &[(strict, ""), (lax, "smtpd_reject_unlisted_recipient=no"), (submit, "")],
        relayhost: world.port,
        extra,
        ..Role::default()
    };
    let postfix = Postfix::start(folder.path(), &role);
    strangers(&|address, is_strict| {
        let mut client = Client::connect(if is_strict { strict } else { lax });
        client.say("EHLO client.example");
        let reply = client.say(&format!("XCLIENT ADDR={address} NAME=[UNAVAILABLE]"));
        assert!(reply.starts_with("220"), "{reply}");
        client.say("EHLO client.example");
        client
    });
    // A bounce for this site's own user.
    let mut client = Client::connect(submit);
    client.say("EHLO desk.our.example");
    assert!(client.send("ann@our.example", "refused@third.example", "Subject: x\r\n\r\nx").unwrap().starts_with("250"));
    // 5 + 2 + 1 bounces, 3 + 2 messages, 5 + 2 + 1 that could not be delivered; the bounce that could not is removed, too.
    poll_for(&format!("an empty queue: {}", postfix.log()), || {
        (postfix.log().matches(": removed").count() == 8 + 5 + 8).then_some(())
    });
    let log = postfix.folder().join("maillog");
    let log = log.to_str().unwrap();
    let found = json(folder.path(), &[log]);
    is_right(&found, "our.example by virtual");
    assert_eq!(found["lines"]["software"], serde_json::json!(["postfix"]));
    let output = report(folder.path(), &[log]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = text(&output);
    for wanted in [
        "REFLECTOR       yes, 7 bounces to strangers",
        "HARVEST         one network, 30 unknown names asked for",
        "Backscatter: 6 of 46 mails in had no sender (13 %)",
        "7 own bounces left, to 5 domains; 6 delivered, 1 undeliverable (14 %)",
        "Postfix: list the users of our.example",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    // Each figure can be traced: the refusal of 30 names, and what belongs to 7 bounces.
    let output = report(folder.path(), &["--explain", "harvest", log]);
    assert_eq!(text(&output).lines().filter(|line| line.contains("RCPT from unknown[198.51.100.")).count(), 30);
    let shown = text(&report(folder.path(), &["--explain", "reflector", log]));
    assert_eq!(shown.matches("non-delivery notification").count(), 7, "{shown}");
    // Another domain has none of it.
    assert_eq!(json(folder.path(), &["--domain", "other.example", log])["backscatter"]["null_sender"], 0);
}

#[test]
fn the_log_of_a_real_exim_is_counted_exactly() {
    if !mtas::can_run_all("the_log_of_a_real_exim_is_counted_exactly") {
        return;
    }
    let (folder, world) = (folder(), Sink::start());
    let [strict, lax] = [reserved_port(), reserved_port()];
    let exim = mtas::exim_that_reflects(folder.path(), strict, lax, world.port);
    strangers(&|address, is_strict| {
        // Exim believes a PROXY header of this machine.
        let mut stream = TcpStream::connect(("127.0.0.1", if is_strict { strict } else { lax })).unwrap();
        use std::io::Write as _;
        write!(stream, "PROXY TCP4 {address} 192.0.2.1 40000 25\r\n").unwrap();
        let mut client = Client::over(stream);
        client.read_reply().unwrap();
        client.say("EHLO client.example");
        client
    });
    poll_for(&format!("an empty queue: {}", exim.log()), || {
        // The bounce that cannot be delivered is kept.
        (exim.log().matches("Completed").count() == 5 + 7 + 6).then_some(())
    });
    let log = exim.folder.join("log/mainlog");
    let found = json(folder.path(), &[log.to_str().unwrap()]);
    is_right(&found, "our.example by its routers");
    assert_eq!(found["lines"]["software"], serde_json::json!(["exim"]));
}

/// A made-up log of two months, and what is in it.
fn made_up(folder: &Path) -> (std::path::PathBuf, mail_log::Content) {
    let path = folder.join("mail.log");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut out = std::io::BufWriter::new(&file);
    let content = mail_log::write(&mut out, 5).unwrap();
    drop(out);
    std::io::Write::flush(&mut file).unwrap();
    let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mail_log::end().try_into().unwrap());
    file.set_modified(end).unwrap();
    (path, content)
}

/// What the report says of a made-up log.
fn as_content(found: &Value) -> mail_log::Content {
    let number =
        |place: &str| found.pointer(place).and_then(Value::as_u64).unwrap_or_else(|| panic!("{place}: {found}"));
    mail_log::Content {
        lines: number("/lines/total"),
        mail_in: number("/backscatter/mail_in"),
        null_sender: number("/backscatter/null_sender"),
        refused_unknown: number("/backscatter/refused/0/count"),
        forged_as_sales: number("/backscatter/forged_as/0/count"),
        unknown_names: number("/backscatter/unknown_names"),
        bounces: number("/reflector/bounces"),
        undeliverable: number("/reflector/undeliverable"),
        bounce_domains: number("/reflector/domains"),
        harvested: number("/harvest/networks/0/names"),
    }
}

#[test]
fn two_months_with_an_attack_are_counted_exactly() {
    let folder = folder();
    let (log, content) = made_up(folder.path());
    let found = json(folder.path(), &[log.to_str().unwrap()]);
    assert_eq!(as_content(&found), content);
    assert_eq!(
        (&found["lines"]["first"], &found["lines"]["last"]),
        (&"2026-11-20T00:00:00".into(), &"2027-01-18T23:48:00".into())
    );
    let attack = &found["backscatter"]["attack"];
    assert_eq!((&attack["since"], &attack["until"]), (&"2026-12-15T00:00:00".into(), &"2026-12-17T11:00:00".into()));
    assert_eq!(found["reflector"]["verdict"]["level"], "today");
    assert_eq!(
        counts(&found["reflector"]["causes"][0]["places"]),
        named(&[("branch.example by 10.0.4.7[10.0.4.7]:25", content.bounces)])
    );
    assert_eq!(found["harvest"]["networks"][0]["network"], "203.0.77.0/24");
}

#[test]
fn rotated_and_compressed_logs_are_read_in_their_order() {
    let folder = folder();
    let (log, content) = made_up(folder.path());
    let whole = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    // Messages may begin in one file and end in the next.
    let parts: Vec<String> = lines.chunks(lines.len() / 4 + 1).map(<[&str]>::concat).collect();
    let ends = [1_796_500_000_u64, 1_797_800_000, 1_799_100_000, 1_800_316_800];
    let mut names = Vec::new();
    for ((n, part), program) in parts.iter().enumerate().zip(["xz", "zstd", "gzip", ""]) {
        let name = format!("mail.log.{}", 3 - n);
        let path = folder.path().join(&name);
        std::fs::write(&path, part).unwrap();
        let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(ends[n]);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(end).unwrap();
        if program.is_empty() {
            names.push(name);
            continue;
        }
        if !can_run(&[program], &format!("logs compressed by {program}")) {
            return;
        }
        let output = std::process::Command::new(program).arg("-q").arg(&path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        names.push(format!(
            "{name}.{}",
            match program {
                "xz" => "xz",
                "zstd" => "zst",
                _ => "gz",
            }
        ));
    }
    names.rotate_left(2);
    let found = json(folder.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(as_content(&found), content);
    // One that is cut is an error, and the rest is reported all the same.
    let xz = folder.path().join("mail.log.3.xz");
    let whole = std::fs::read(&xz).unwrap();
    std::fs::write(&xz, &whole[..whole.len() / 2]).unwrap();
    let output = report(folder.path(), &["mail.log.3.xz", "mail.log.0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("the report is incomplete") && text(&output).contains("mails in had no sender"),
        "{}",
        text(&output)
    );
}

/// Lines of a log, and what the report has to find in them.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    text: String,
    software: Vec<String>,
    mail_in: u64,
    null_sender: u64,
    #[serde(default)]
    refused: BTreeMap<String, u64>,
    #[serde(default)]
    delivered: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    networks: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    bounces: u64,
    #[serde(default)]
    causes: BTreeMap<String, u64>,
    #[serde(default)]
    unsigned: BTreeMap<String, u64>,
    #[serde(default)]
    not_understood: u64,
}

#[test]
fn logs_of_all_forms_are_read() {
    #[derive(serde::Deserialize)]
    struct Cases {
        log: Vec<Case>,
    }
    let cases: Cases = toml::from_str(include_str!("cases/logs.toml")).unwrap();
    assert!(cases.log.len() >= 20);
    let folder = folder();
    for case in cases.log {
        let what = &case.what;
        let text: Vec<u8> = case.text.replace("\\xff\\xfe", "\u{1}").into_bytes();
        let text: Vec<u8> = text.into_iter().map(|octet| if octet == 1 { 0xff } else { octet }).collect();
        std::fs::write(folder.path().join("log"), text).unwrap();
        let found = json(folder.path(), &["log"]);
        let map = |place: &str| counts(found.pointer(place).unwrap()).into_iter().collect::<BTreeMap<_, _>>();
        let number = |place: &str| found.pointer(place).and_then(Value::as_u64).unwrap();
        assert_eq!(found["lines"]["software"], serde_json::json!(case.software), "{what}");
        assert_eq!(number("/lines/not_understood"), case.not_understood, "{what}: {found}");
        assert_eq!(number("/backscatter/mail_in"), case.mail_in, "{what}: {found}");
        assert_eq!(number("/backscatter/null_sender"), case.null_sender, "{what}: {found}");
        assert_eq!(map("/backscatter/refused"), case.refused, "{what}");
        assert_eq!(number("/reflector/bounces"), case.bounces, "{what}: {found}");
        assert_eq!(map("/reflector/causes"), case.causes, "{what}");
        assert_eq!(map("/unsigned/hosts"), case.unsigned, "{what}");
        if let Some(delivered) = case.delivered {
            assert_eq!(map("/backscatter/delivered"), delivered, "{what}");
        }
        if let Some(networks) = case.networks {
            assert_eq!(map("/backscatter/sent_by"), networks, "{what}");
        }
    }
}

#[test]
fn the_page_needs_nothing_else_and_obeys_no_stranger() {
    let folder = folder();
    let (log, _) = made_up(folder.path());
    // Whatever the time of the file, lines without a year are in their order.
    let odd = "Jan 18 23:50:00 mx1 postfix/smtpd[812]: NOQUEUE: reject: RCPT from <script>alert(1)</script>[203.9.9.5]: 550 5.1.1 \
        <\u{1b}[2Jann\"&@our.example>: User unknown; from=<> to=<\u{1b}[2Jann\"&@our.example> proto=ESMTP helo=<x>\n";
    let mut whole = std::fs::read_to_string(&log).unwrap();
    whole += &odd.repeat(20_000);
    std::fs::write(&log, whole).unwrap();
    let output = report(folder.path(), &["--html", "report.html", "mail.log"]);
    assert!(!text(&output).contains('\u{1b}') && text(&output).contains("?[2jann\"&@our.example"), "{}", text(&output));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for wanted in
        ["<svg", "Fri 20 Nov 2026 00:00", "20,000", "?[2jann&quot;&amp;@our.example", "&lt;script&gt;alert(1)"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    for forbidden in ["<script", "src=", "href=\"http", "@import", "url("] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.len() < 60_000, "{}", page.len());
    let explained = text(&report(folder.path(), &["--explain", "backscatter", "mail.log"]));
    assert!(!explained.contains('\u{1b}') && explained.contains("?[2Jann"));
    let output = report(folder.path(), &["--html", "nowhere/report.html", "mail.log"]);
    assert!(
        output.status.code() == Some(2) && text(&output).contains("--html nowhere/report.html"),
        "{}",
        text(&output)
    );
}

#[test]
fn the_report_is_mailed_by_the_sendmail_of_this_machine() {
    let folder = folder();
    made_up(folder.path());
    let program = folder.path().join("sendmail");
    let mail = |exit: u8| {
        let script = format!("#!/bin/sh\nprintf '%s|' \"$@\" > arguments\ncat > message\nexit {exit}\n");
        std::fs::write(&program, script).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = countersign();
        command.current_dir(folder.path()).env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
        command.args(["report", "--mail", "postmaster@our.example", "mail.log"]).output().unwrap()
    };
    assert_eq!(mail(0).status.code(), Some(1));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("arguments"), "-oi|-f||--|postmaster@our.example|");
    let message = read("message");
    assert!(
        message.starts_with(
            "To: postmaster@our.example\nSubject: Mail logs: reflector: act today, harvest: act this week\n"
        ),
        "{message}"
    );
    assert!(message.contains("\n\n9.2 MiB of logs of Postfix") && message.contains("REFLECTOR       YES"), "{message}");
    let refused = mail(75);
    assert!(
        refused.status.code() == Some(2) && text(&refused).contains("has not accepted the message"),
        "{}",
        text(&refused)
    );
}

/// A log in which nothing is wrong.
const CALM: &str = "2026-11-27T16:02:50Z mx1 postfix/smtpd[1]: A1: client=x[203.0.113.5]\n\
    2026-11-27T16:02:50Z mx1 postfix/qmgr[1]: A1: from=<bob@else.example>, size=1, nrcpt=1 (queue active)\n\
    2026-11-27T16:02:51Z mx1 postfix/virtual[1]: A1: to=<ann@our.example>, relay=virtual, delay=1, dsn=2.0.0, status=sent (delivered)\n\
    2026-11-27T16:02:51Z mx1 postfix/qmgr[1]: A1: removed\n";

#[test]
fn the_dns_tells_who_is_listed_and_what_the_domains_ask_for() {
    let folder = folder();
    std::fs::write(folder.path().join("mail.log"), CALM).unwrap();
    let address = |name| Record::A(name, [127, 0, 0, 2]);
    let dns = NameServer::start(vec![
        address("2.0.0.127.ips.backscatterer.org"),
        address("25.2.0.192.ips.backscatterer.org"),
        Record::Txt("25.2.0.192.ips.backscatterer.org", "sent bounces\u{1b}[2J to traps".into()),
        address("2.0.0.127.bl.spamcop.net"),
        // A list that was given up, and that lists everything since.
        address("2.0.0.127.psbl.surriel.com"),
        address("1.0.0.127.psbl.surriel.com"),
        address("25.2.0.192.psbl.surriel.com"),
        address("2.0.0.127.bl.our.example"),
        Record::Txt("our.example", "v=spf1 mx -all".into()),
        Record::Txt("_dmarc.our.example", "v=DMARC1; p=none".into()),
        Record::Txt("_dmarc.branch.example", "v=DMARC1; p=reject; sp=quarantine".into()),
    ]);
    let addresses = ["--address", "192.0.2.25", "--address", "2001:db8::19", "--block-list", "bl.our.example"];
    let domains = ["--domain", "our.example", "--domain", "north.branch.example"];
    let arguments = [&["--dns", "--name-server", &dns.address][..], &addresses, &domains, &["mail.log"]].concat();
    let output = report(folder.path(), &arguments);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for line in [
        "  LISTED     192.0.2.25 in ips.backscatterer.org   sent bounces?[2J to traps",
        "  not listed 2001:db8::19 in ips.backscatterer.org",
        "  not listed 192.0.2.25 in bl.spamcop.net",
        "  no answer  192.0.2.25 in psbl.surriel.com",
        "  not listed 192.0.2.25 in bl.our.example",
        "  policy     our.example: SPF -all, DMARC p=none",
        "  policy     north.branch.example: SPF none, DMARC p=quarantine",
        "  → 192.0.2.25 is in a block list.",
        "  → Fewer servers accept mail forged as our.example if its DMARC record says p=reject (now p=none).",
        "  → north.branch.example has no SPF record",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let found = json(folder.path(), &arguments);
    assert_eq!(found["dns"]["listings"][0]["state"], "yes");
    assert_eq!(found["dns"]["listings"].as_array().unwrap().len(), 8);
    assert_eq!(
        found["dns"]["domains"][0],
        serde_json::json!({ "domain": "our.example", "spf": "fail", "dmarc": "nothing" })
    );
    let page = folder.path().join("report.html");
    report(folder.path(), &[&arguments[..], &["--html", page.to_str().unwrap()]].concat());
    assert!(std::fs::read_to_string(page).unwrap().contains("ips.backscatterer.org"));
    // Nobody is listed, and then that no name server answers: nothing is to be done.
    let one = ["--address", "192.0.2.26", "--domain", "our.example", "mail.log"];
    let output = report(folder.path(), &[&["--dns", "--name-server", &dns.address][..], &one].concat());
    assert!(
        output.status.success() && text(&output).contains("not listed 192.0.2.26 in bl.spamcop.net"),
        "{}",
        text(&output)
    );
    let nobody = format!("127.0.0.1:{}", reserved_port());
    let output = report(folder.path(), &[&["--dns", "--name-server", &nobody][..], &one].concat());
    let shown = text(&output);
    assert!(output.status.success() && shown.contains("no answer  192.0.2.26 in ips.backscatterer.org"), "{shown}");
    assert!(shown.contains("policy     our.example: SPF no answer, DMARC no answer"), "{shown}");
}
