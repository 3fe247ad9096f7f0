//! `countersign probe` against real servers: what it finds in those with one hole each, and that it finds nothing where
//! there is none.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::name_server::{NameServer, Record};
use crate::common::postfix::{Postfix, Role};
use crate::common::skip::skip_for_good;
use crate::common::{Daemon, can_run, countersign, folder, mtas, poll_for, reserved_port, run_ok, tls, which};

/// The address of strangers. The servers of these tests trust 127.0.0.1 alone.
const STRANGER: &str = "127.0.0.9";
/// Sections without tests that wait.
const QUICK: &str = "unknown-users,tags,content,relaying,trust";

/// Runs a probe in a folder.
fn probe(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = countersign();
    command.current_dir(folder).env("XDG_STATE_HOME", folder.join("state")).stdin(Stdio::null()).arg("probe");
    command.args(["--user", "ann@our.example", "--sender", "me@else.example"]).args(arguments);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The results of a probe, as JSON.
fn results(folder: &Path, arguments: &[&str], log: impl Fn() -> String) -> Value {
    let output = probe(folder, &[arguments, &["--json"]].concat()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", text(&output), log()))
}

/// The tests with a finding, each with its outcome.
fn findings(results: &Value) -> Vec<String> {
    let found = results["results"].as_array().unwrap().iter().filter(|it| it.get("meaning").is_some());
    found.map(|it| format!("{} {}", it["test"].as_str().unwrap(), it["outcome"].as_str().unwrap())).collect()
}

/// The result of a test.
fn result<'a>(results: &'a Value, test: &str) -> &'a Value {
    results["results"].as_array().unwrap().iter().find(|it| it["test"] == test).unwrap()
}

/// A server with a hole.
struct SetUp {
    name: &'static str,
    /// Lines of main.cf.
    main: &'static str,
    /// Options of the smtpd.
    smtpd: &'static str,
    tests: &'static str,
    /// What is found, besides that a server without Countersign takes false bounces.
    finds: &'static [&'static str],
}

const PLAIN: SetUp = SetUp { name: "plain", main: "", smtpd: "", tests: QUICK, finds: &[] };

const SET_UPS: [SetUp; 12] = [
    PLAIN,
    SetUp {
        name: "reflector",
        main: "relay_domains = branch.example\nrelay_recipient_maps =\n\
               transport_maps = inline:{ branch.example=smtp:[127.0.0.1]:{refusing} }",
        finds: &["late-bounce failed"],
        ..PLAIN
    },
    SetUp {
        name: "catch-all",
        main: "virtual_alias_maps = inline:{ @branch.example=ann@our.example }\nvirtual_alias_domains = branch.example",
        finds: &["unknown-user warning"],
        ..PLAIN
    },
    SetUp {
        name: "open-relay",
        main: "smtpd_relay_restrictions = check_client_access static:OK, reject_unauth_destination",
        finds: &[
            "relay-plain failed",
            "relay-null-sender failed",
            "relay-own-sender failed",
            "relay-source-route failed",
            "relay-literal failed",
            "relay-no-domain failed",
        ],
        ..PLAIN
    },
    SetUp {
        name: "own-senders-relay",
        main: "smtpd_relay_restrictions = check_sender_access inline:{ our.example=OK }, reject_unauth_destination",
        finds: &["relay-own-sender failed"],
        ..PLAIN
    },
    SetUp { name: "vrfy", main: "disable_vrfy_command = no", finds: &["vrfy warning"], ..PLAIN },
    SetUp { name: "table-names", main: "show_user_unknown_table_name = yes", finds: &["reply-text warning"], ..PLAIN },
    SetUp {
        name: "null-sender-refused",
        main: "smtpd_sender_restrictions = check_sender_access inline:{ <>=REJECT }",
        finds: &["vacation warning", "receipt warning", "calendar warning", "dmarc-report warning"],
        ..PLAIN
    },
    SetUp { name: "xclient", smtpd: "smtpd_authorized_xclient_hosts=127.0.0.0/8", finds: &["xclient failed"], ..PLAIN },
    SetUp {
        name: "xforward",
        smtpd: "smtpd_authorized_xforward_hosts=127.0.0.0/8",
        finds: &["xforward failed"],
        ..PLAIN
    },
    SetUp {
        name: "proxy-header",
        smtpd: "smtpd_upstream_proxy_protocol=haproxy",
        finds: &["proxy-header failed"],
        ..PLAIN
    },
    SetUp {
        name: "smuggling",
        main: "smtpd_forbid_bare_newline = no\nsmtpd_client_recipient_rate_limit = 0",
        tests: "smuggling,harvest",
        finds: &["smuggle-lf-lf failed", "smuggle-lf-crlf failed", "smuggle-crlf-lf failed", "harvest-sessions failed"],
        ..PLAIN
    },
];

/// A Postfix for our.example with Ann's mailbox, in whose log and queue a test looks.
fn postfix(folder: &Path, set_up: &SetUp, port: u16, bounces: u16, refusing: u16) -> Postfix {
    let extra = format!(
        "mynetworks = 127.0.0.1/32\nsmtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         disable_vrfy_command = yes\nshow_user_unknown_table_name = no\nsmtpd_peername_lookup = no\n{}",
        set_up.main.replace("{refusing}", &refusing.to_string())
    );
    // Postfix warns about what is set twice; the last one counts.
    let key = |line: &str| line.split_once(" =").map(|(key, _)| key.to_owned());
    let lines: Vec<&str> = extra.lines().collect();
    let last = |n: usize| lines.iter().skip(n + 1).all(|later| key(later) != key(lines[n]));
    let extra: Vec<&str> = (0..lines.len()).filter(|n| last(*n)).map(|n| lines[n]).collect();
    let role = Role {
        name: set_up.name,
        domain: "our.example",
        mailboxes: &["ann", "postmaster"],
        ports: &[(port, set_up.smtpd)],
        relayhost: bounces,
        extra: &extra.join("\n"),
        ..Role::default()
    };
    Postfix::start(folder, &role)
}

/// What waits in a queue.
fn queue(postfix: &Postfix) -> String {
    let etc = postfix.folder().join("etc");
    let output = Command::new(which("postqueue").unwrap()).arg("-c").arg(etc).arg("-j").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn finds_its_hole(set_up: &SetUp) {
    let name = set_up.name;
    let (folder, port, bounces) = (folder(), reserved_port(), reserved_port());
    // The server behind a reflector knows nobody.
    let refusing = crate::common::NextHop::script()
        .on(crate::common::At::Rcpt, crate::common::Does::Says("550 5.1.1 no such user"))
        .start();
    let postfix = postfix(folder.path(), set_up, port, bounces, refusing.port);
    let (host, place) = (format!("127.0.0.1:{port}"), format!("listen:127.0.0.1:{bounces}"));
    let branch = ["reflector", "catch-all"].contains(&name);
    let mut arguments = vec![&*host, "--from", STRANGER, "--bounces", &place, "--wait", "8s", "--tests", set_up.tests];
    arguments.extend(if branch { ["--domain", "our.example", "--domain", "branch.example"] } else { [""; 4] });
    arguments.retain(|word| !word.is_empty());
    let results = results(folder.path(), &arguments, || postfix.log());
    let mut expected: Vec<String> = set_up.finds.iter().map(|test| (*test).to_owned()).collect();
    if set_up.tests == QUICK && name != "null-sender-refused" {
        expected.extend(["untagged-dsn failed".to_owned(), "text-bounce failed".to_owned()]);
    }
    let (mut found, log) = (findings(&results), postfix.log());
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{name}: {results:#}\n{log}");
    assert!(results["sessions"].as_u64().unwrap() <= 40, "{name}: {}", results["sessions"]);
    // Nothing that it sent waits anywhere.
    poll_for(&format!("{name}: an empty queue, not {}", queue(&postfix)), || queue(&postfix).is_empty().then_some(()));
}

#[test]
fn each_hole_of_a_postfix_is_found_and_nothing_else() {
    if !can_run(&["postfix"], "each_hole_of_a_postfix_is_found_and_nothing_else") {
        return;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            SET_UPS.iter().map(|set_up| (set_up.name, scope.spawn(move || finds_its_hole(set_up)))).collect();
        let failed: Vec<&str> = threads.into_iter().filter_map(|(name, it)| it.join().err().map(|_| name)).collect();
        assert!(failed.is_empty(), "{failed:?}");
    });
}

/// An Exim with a hole: lines at the end of its main section, before the ACL for RCPT, and before the routers.
struct EximSetUp {
    name: &'static str,
    lines: [&'static str; 3],
    tests: &'static str,
    finds: &'static [&'static str],
}

const EXIM_PLAIN: EximSetUp = EximSetUp { name: "exim-plain", lines: ["", "", ""], tests: QUICK, finds: &[] };

const EXIM_SET_UPS: [EximSetUp; 6] = [
    EXIM_PLAIN,
    EximSetUp {
        name: "exim-reflector",
        lines: ["", "  accept domains = our.example\n", ""],
        finds: &["late-bounce failed"],
        ..EXIM_PLAIN
    },
    EximSetUp {
        name: "exim-percent-hack",
        lines: [
            "",
            "",
            "percent:\n  driver = redirect\n  domains = our.example\n  local_parts = ^.*%\n  data = ${sg{$local_part}{%}{@}}\n\
             bang:\n  driver = redirect\n  domains = our.example\n  local_parts = ^.*!\n  \
             data = ${sg{$local_part}{^(.*)!(.*)\\$}{\\$2@\\$1}}\nquoted:\n  driver = redirect\n  domains = our.example\n  \
             local_parts = ^.*@\n  data = $local_part\n",
        ],
        finds: &["relay-percent failed", "relay-bang failed", "relay-quoted failed"],
        ..EXIM_PLAIN
    },
    EximSetUp {
        name: "exim-vrfy",
        lines: ["acl_smtp_vrfy = yes\nacl_smtp_expn = yes\n", "", ""],
        finds: &["vrfy warning", "expn warning"],
        ..EXIM_PLAIN
    },
    EximSetUp {
        name: "exim-srs",
        lines: [
            "",
            "",
            "srs:\n  driver = redirect\n  domains = our.example\n  local_parts = ^srs0\n  \
             data = ${sg{$local_part}{^srs0=[^=]*=[^=]*=([^=]*)=(.*)\\$}{\\$2@\\$1}}\n",
        ],
        finds: &["srs0-forged failed"],
        ..EXIM_PLAIN
    },
    // As the advice says.
    EximSetUp {
        name: "exim-limited",
        lines: [
            "acl_smtp_mail = mail\nbegin acl\nmail:\n  \
             defer ratelimit = 25 / 1h / readonly / per_cmd / unknown-$sender_host_address\n  accept\n",
            "  drop condition = ${if >{$rcpt_fail_count}{5}}\n  require domains = our.example\n  \
             deny !verify = recipient\n       ratelimit = 0 / 1h / strict / per_cmd / unknown-$sender_host_address\n",
            "",
        ],
        tests: "harvest",
        ..EXIM_PLAIN
    },
];

fn finds_the_hole_of_exim(set_up: &EximSetUp) {
    let (name, folder, port, bounces) = (set_up.name, folder(), reserved_port(), reserved_port());
    let exim = mtas::exim_of_ann(folder.path(), name, [port, bounces], set_up.lines);
    let (host, place) = (format!("127.0.0.1:{port}"), format!("listen:127.0.0.1:{bounces}"));
    let arguments = [&*host, "--from", STRANGER, "--bounces", &place, "--wait", "15s", "--tests", set_up.tests];
    let results = results(folder.path(), &arguments, || exim.log());
    let mut expected: Vec<String> = set_up.finds.iter().map(|test| (*test).to_owned()).collect();
    if set_up.tests == QUICK {
        expected.extend(["untagged-dsn failed".to_owned(), "text-bounce failed".to_owned()]);
    }
    let mut found = findings(&results);
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{name}: {results:#}\n{}", exim.log());
    assert_eq!(results["software"], "Exim", "{name}");
    poll_for(&format!("{name}: an empty queue: {}", exim.log()), || (mtas::exim_queue(&exim) == "0").then_some(()));
}

#[test]
fn each_hole_of_an_exim_is_found_and_nothing_else() {
    let test = "each_hole_of_an_exim_is_found_and_nothing_else";
    if !mtas::can_run_all(test) {
        return;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = EXIM_SET_UPS
            .iter()
            .map(|set_up| (set_up.name, scope.spawn(move || finds_the_hole_of_exim(set_up))))
            .collect();
        let failed: Vec<&str> = threads.into_iter().filter_map(|(name, it)| it.join().err().map(|_| name)).collect();
        assert!(failed.is_empty(), "{failed:?}");
    });
}

#[test]
fn another_mx_host_that_takes_unknown_users_is_found_and_so_is_one_that_knows_no_tags() {
    let test = "another_mx_host_that_takes_unknown_users_is_found_and_so_is_one_that_knows_no_tags";
    if !can_run(&["postfix"], test) {
        return;
    }
    let (folder, port) = (folder(), reserved_port());
    // The second host is an smtpd of the same Postfix at another address, without a list of users.
    let service = format!("127.0.0.2:{port} inet n - n - - smtpd\n  -o smtpd_reject_unlisted_recipient=no\n");
    let role = Role {
        name: "two-hosts",
        domain: "our.example",
        mailboxes: &["ann", "postmaster"],
        ports: &[(port, "")],
        extra: "mynetworks = 127.0.0.1/32\n\
                smtpd_relay_restrictions = reject_unauth_destination",
        services: &service,
        ..Role::default()
    };
    let postfix = Postfix::start(folder.path(), &role);
    let dns = NameServer::start(vec![
        Record::Mx("our.example", 10, "mx1.our.example"),
        Record::Mx("our.example", 20, "mx2.our.example"),
        Record::A("mx1.our.example", [127, 0, 0, 1]),
        Record::A("mx2.our.example", [127, 0, 0, 2]),
    ]);
    let host = format!("127.0.0.1:{port}");
    let arguments = ["--from", STRANGER, "--name-server", &dns.address, "--tests", "other-hosts"];
    let signed = signed();
    let signed = ["--signed", &signed];
    let results = results(folder.path(), &[&[&*host], &arguments[..], &signed].concat(), || postfix.log());
    assert_eq!(findings(&results), ["mx-unknown-user failed"], "{results:#}");
    assert_eq!(result(&results, "mx-unknown-user")["about"], "mx2.our.example");
    // With no list at all, it takes tagged addresses, too.
    assert_eq!(result(&results, "mx-tags")["outcome"], "passed");

    let strict = NameServer::start(vec![
        Record::Mx("our.example", 10, "mx2.our.example"),
        Record::A("mx2.our.example", [127, 0, 0, 1]),
    ]);
    let host = format!("127.0.0.2:{port}");
    let arguments = ["--from", STRANGER, "--name-server", &strict.address, "--tests", "other-hosts"];
    let results = self::results(folder.path(), &[&[&*host], &arguments[..], &signed].concat(), || postfix.log());
    assert_eq!(findings(&results), ["mx-tags warning"], "{results:#}");
    assert!(queue(&postfix).is_empty());
}

/// A return address of Ann's that is valid for five days, as far as its date shows.
fn signed() -> String {
    let days = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    format!("prvs=1{:03}a1b2c3=ann@our.example", (days + 5) % 1000)
}

/// The code in Ann's mail.
fn code(postfix: &Postfix) -> Option<String> {
    let mail = postfix.mailbox("ann");
    let line = mail.iter().flat_map(|message| message.lines()).find_map(|line| line.split_once("type in this code: "));
    line.map(|(_, code)| code.trim().to_owned())
}

#[test]
fn a_code_proves_that_the_server_is_ones_own_and_a_wrong_one_does_not() {
    if !can_run(&["postfix"], "a_code_proves_that_the_server_is_ones_own_and_a_wrong_one_does_not") {
        return;
    }
    for right in [true, false] {
        let (folder, port) = (folder(), reserved_port());
        let postfix = postfix(folder.path(), &PLAIN, port, 0, 0);
        let host = format!("127.0.0.1:{port}");
        let mut child = probe(folder.path(), &[&host, "--prove", "code", "--from", STRANGER, "--tests", "vrfy"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let code = poll_for("the code", || code(&postfix));
        let mut stdin = child.stdin.take().unwrap();
        let typed = if right { code.to_lowercase() } else { "00-00-0G".to_owned() };
        for _ in 0..3 {
            // The program may have ended after the first.
            let _ = writeln!(stdin, "{typed}");
        }
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        if right {
            assert!(output.status.success() && text(&output).contains("✓ VRFY"), "{}", text(&output));
        } else {
            assert_eq!(output.status.code(), Some(2), "{}", text(&output));
            assert!(text(&output).contains("That is not the code."), "{}", text(&output));
            assert!(text(&output).contains("so nothing was tested"), "{}", text(&output));
            let sessions = postfix.log().matches("connect from unknown[127.0.0.9]").count();
            assert!(!postfix.log().contains("vrfy") && sessions <= 2, "{}", postfix.log());
        }
    }
}

#[test]
fn a_txt_record_proves_it_and_what_is_not_proven_is_not_probed() {
    if !can_run(&["postfix"], "a_txt_record_proves_it_and_what_is_not_proven_is_not_probed") {
        return;
    }
    let (folder, port) = (folder(), reserved_port());
    let postfix = postfix(folder.path(), &PLAIN, port, 0, 0);
    let host = format!("127.0.0.1:{port}");
    let run = |arguments: &[&str]| {
        let output = probe(folder.path(), &[&[&*host, "--tests", "vrfy"], arguments].concat()).output().unwrap();
        (output.status.code().unwrap(), text(&output))
    };
    let (code, out) = run(&["--prove", "txt"]);
    let record = out.split('"').nth(1).unwrap().to_owned();
    let token = out.split("--token ").nth(1).unwrap().trim();
    assert!(code == 2 && out.contains("_countersign-probe.our.example. TXT"), "{out}");
    let dns = |text: String| NameServer::start(vec![Record::Txt("_countersign-probe.our.example", text)]);
    let (good, bad, none) = (dns(record), dns("countersign-probe=0".into()), NameServer::start(Vec::new()));
    let with = |dns: &NameServer| run(&["--prove", "txt", "--token", token, "--name-server", &dns.address]);
    let (code, out) = with(&bad);
    assert!(code == 2 && out.contains("is not the hash of --token"), "{out}");
    let (code, out) = with(&none);
    assert!(code == 2 && out.contains("has no TXT record"), "{out}");
    assert!(!postfix.log().contains("vrfy"), "{}", postfix.log());
    let (code, out) = with(&good);
    assert!(code == 0 && out.contains("✓ VRFY"), "{out}");
}

#[test]
fn a_plan_sends_nothing_and_the_failed_tests_are_made_again() {
    let (folder, port) = (folder(), reserved_port());
    // Nothing listens at the port.
    let host = format!("127.0.0.1:{port}");
    let output = probe(folder.path(), &[&host, "--plan"]).output().unwrap();
    let plan = text(&output);
    assert!(output.status.success() && plan.contains("nothing was sent"), "{plan}");
    for line in ["C: RCPT TO:<me%else.example@our.example>", "C: XCLIENT ADDR=203.0.113.9", "C: (TLS handshake)"] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let output = probe(folder.path(), &[&host]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("nothing listens on 127.0.0.1"), "{}", text(&output));
    if !can_run(&["postfix"], "a_plan_sends_nothing_and_the_failed_tests_are_made_again") {
        return;
    }
    let vrfy = SetUp { main: "disable_vrfy_command = no", ..PLAIN };
    let postfix = postfix(folder.path(), &vrfy, port, 0, 0);
    let first = probe(folder.path(), &[&host, "--from", STRANGER, "--tests", "unknown-users"]).output().unwrap();
    assert!(first.status.code() == Some(1) && text(&first).contains("! VRFY"), "{}{}", text(&first), postfix.log());
    assert!(text(&first).contains("→ Postfix: disable_vrfy_command = yes"), "{}", text(&first));
    let again = |_: ()| {
        let mut command = countersign();
        command.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path().join("state"));
        command.args(["probe", "--only", "failed"]).stdin(Stdio::null()).output().unwrap()
    };
    let second = again(());
    assert!(second.status.code() == Some(1) && text(&second).contains("1 test, "), "{}", text(&second));
    let etc = postfix.folder().join("etc");
    let postconf = |setting: &str| Command::new("postconf").arg("-c").arg(&etc).args(["-e", setting]).status().unwrap();
    assert!(postconf("disable_vrfy_command = yes").success());
    let reload = Command::new(which("postfix").unwrap()).arg("-c").arg(&etc).arg("reload").output().unwrap();
    assert!(reload.status.success());
    poll_for("the new setting", || again(()).status.success().then_some(()));
    assert!(text(&again(())).contains("The last run had no finding."));
}

/// A probe of the demo, as the demo itself suggests.
#[test]
fn the_demo_has_no_hole() {
    let folder = folder();
    let mut demo = countersign().args(["demo", "--stay"]).stdout(Stdio::piped()).spawn().unwrap();
    let _guard = crate::common::guard::Guard::process(&demo);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("countersign probe ")).unwrap();
    // Whatever else it writes is read, so that it can go on.
    let rest = std::thread::spawn(move || lines.count());
    let words: Vec<&str> = line.split("countersign probe ").nth(1).unwrap().split(' ').collect();
    let mut command = countersign();
    command.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path().join("state")).arg("probe").args(words);
    let page = folder.path().join("probe.html");
    let output = command.args(["--tests", QUICK, "--html"]).arg(&page).stdin(Stdio::null()).output().unwrap();
    crate::common::guard::signal(&demo, crate::common::Signal::TERM);
    assert!(demo.wait().unwrap().success() && rest.join().unwrap() > 10);
    assert!(output.status.success() && text(&output).contains("No finding"), "{}", text(&output));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("genuine bounce") && !page.contains("<script") && !page.contains("://"), "{page}");
}

/// A test that needs addresses other than loopback has them in a network namespace, which ends with it. Returns whether
/// this process is in it; if not, the test is run there.
fn is_in_namespace(test: &str) -> bool {
    const INSIDE: &str = "COUNTERSIGN_TEST_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !can_run(&["postfix", "ip", "unshare"], test) {
        return false;
    }
    let set_up = "ip link set lo up && ip address add 192.0.2.25/32 dev lo && ip address add 198.51.100.7/32 dev lo";
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", &format!("{set_up} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("probe::{test}"), "--nocapture"]).env(INSIDE, "1");
    let output = command.output().unwrap();
    let all = text(&output);
    if all.contains("unshare failed") {
        skip_for_good(test, "this machine allows no network namespaces");
        return false;
    }
    assert!(output.status.success() && all.contains("1 passed"), "{all}");
    false
}

#[test]
fn a_postfix_behind_countersign_has_no_finding_for_a_stranger() {
    if !is_in_namespace("a_postfix_behind_countersign_has_no_finding_for_a_stranger") {
        return;
    }
    let (folder, inner, submission) = (folder(), reserved_port(), reserved_port());
    let (outbound, bounces) = (reserved_port(), reserved_port());
    let role = Role {
        name: "hardened",
        domain: "our.example",
        mailboxes: &["ann", "postmaster"],
        ports: &[(inner, ""), (submission, "")],
        relayhost: outbound,
        extra: "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
                show_user_unknown_table_name = no\ndisable_vrfy_command = yes",
        ..Role::default()
    };
    let postfix = Postfix::start(folder.path(), &role);
    tls::certificate(folder.path());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "domains.local = [\"our.example\"]\ndomains.srs_domain = \"srs.our.example\"\ninbound.mode = \"enforce\"\n\
             limits.tarpit = \"1s\"\n\
             [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:{outbound}\"\nnext_hop = \"127.0.0.1:{bounces}\"\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"192.0.2.25:0\"\nnext_hop = \"127.0.0.1:{inner}\"\n\
             tls = \"may\"\ncertificate = \"chain.pem\"\nprivate_key = \"key.pem\"\n"
        ),
    );
    let dns = NameServer::start(vec![
        Record::Mx("our.example", 10, "mx.our.example"),
        Record::A("mx.our.example", [192, 0, 2, 25]),
    ]);
    let (host, place) = (format!("192.0.2.25:{}", daemon.ports[1]), format!("listen:127.0.0.1:{bounces}"));
    let submit = format!("127.0.0.1:{submission}");
    let arguments =
        [&*host, "--from", "198.51.100.7", "--bounces", &place, "--submit", &submit, "--name-server", &dns.address];
    let results = results(folder.path(), &arguments, || postfix.log());
    assert_eq!(findings(&results), [""; 0], "{results:#}");
    let of = |outcome: &str| {
        let all = results["results"].as_array().unwrap().iter().filter(|it| it["outcome"] == outcome);
        all.map(|it| it["test"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("untested"), ["tag-other-domain", "tag-replayed", "mx-unknown-user", "mx-tags"], "{results:#}");
    assert_eq!(of("passed").len(), 44, "{results:#}");
    assert!(results["sessions"].as_u64().unwrap() <= 40, "{}", results["sessions"]);
    // Ann has the genuine bounce, an ordinary message and the four wanted ones, and nothing else.
    let mail = poll_for("Ann's mail", || Some(postfix.mailbox("ann")).filter(|mail| mail.len() >= 6));
    let subjects: Vec<&str> =
        mail.iter().filter_map(|it| it.lines().find_map(|line| line.strip_prefix("Subject: "))).collect();
    let bounces = subjects.iter().filter(|subject| subject.starts_with("Undelivered Mail")).count();
    assert!(bounces == 1 && subjects.len() == 6, "{subjects:?}");
    assert!(mail.iter().all(|message| message.contains("X-Countersign-Probe: ")));
    assert!(queue(&postfix).is_empty(), "{}", queue(&postfix));
}

#[test]
fn what_a_server_says_and_what_is_typed_does_no_harm() {
    let folder = folder();
    let server = crate::common::NextHop::script()
        .on(crate::common::At::Rcpt, crate::common::Does::Says("550 5.1.1 \u{1b}]0;owned\u{7}\u{1b}[2J no"))
        .start();
    let host = format!("127.0.0.1:{}", server.port);
    let run = |arguments: &[&str]| {
        let output = probe(folder.path(), &[&[&*host][..], arguments].concat()).output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, out) = run(&[]);
    assert!(code == Some(2) && out.contains("550 5.1.1 ?]0;owned??[2J no"), "{out:?}");
    for (arguments, says) in [
        (&["--domain", "our.example>\r\nDATA\r\nx <"][..], "invalid value"),
        (&["--helo", "x\r\nMAIL"], "invalid value"),
        (&["--domain", "else.example"], "is in none of the domains that --domain names"),
        (&["--signed", "ann@our.example"], "it has no tag of the form prvs=…=name@domain"),
        (&["--signed", "<prvs=1000a1b2c3=bob@our.example>"], "it is the return address of bob@our.example"),
        (&["--bounces", "imap:x"], "write listen:PORT, listen:ADDRESS:PORT or maildir:/PATH"),
        (&["--tests", "relay"], "relay-plain, relay-null-sender"),
        (&["--prove", "txt", "--token", "short"], "--token is too short"),
    ] {
        let (code, out) = run(arguments);
        assert!(code == Some(2) && out.contains(says), "{arguments:?}: {out}");
    }
}
