//! Recipients that are looked up in a file or at another server, through proxy and policy service, and behind a Postfix
//! that takes everything.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::postfix::{Postfix, Role};
use crate::common::wait::wait_for_state;
use crate::common::{
    At, Client, Daemon, Does, NextHop, Signal, can_run, folder, poll_for, reserved_port, run, run_ok, tcp,
};
use crate::ramp::has_faketime;

const PROXY: usize = 0;
const POLICY: usize = 1;

/// A site with two ways in, whose next hop takes everything.
struct Site {
    daemon: Daemon,
    hop: NextHop,
    folder: tempfile::TempDir,
    config: String,
}

fn config(hop: u16, recipients: &str) -> String {
    format!(
        "domains.local = [\"our.example\", \"branch.example\"]\ndomains.relay = [\"other.example\"]\n\
         inbound.mode = \"enforce\"\ninbound.recipients = {recipients}\n\
         [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{hop}\"\n\
         [[listener]]\nprotocol = \"policy\"\nlisten = \"127.0.0.1:0\"\n"
    )
}

impl Site {
    fn start(recipients: &str) -> Self {
        let folder = folder();
        std::fs::write(folder.path().join("users"), "ann@our.example\nbob@our.example\n").unwrap();
        Self::within(folder, recipients)
    }

    fn within(folder: tempfile::TempDir, recipients: &str) -> Self {
        run_ok(folder.path(), &["keys", "init"]);
        let hop = NextHop::start();
        let config = config(hop.port, recipients);
        let daemon = Daemon::start(folder.path(), &config);
        Self { daemon, hop, folder, config }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The reply to RCPT of an ordinary message.
    fn proxy(&self, recipient: &str) -> String {
        let mut client = Client::connect(self.daemon.ports[PROXY]);
        client.say("EHLO client.example");
        assert!(client.say("MAIL FROM:<x@else.example>").starts_with("250"));
        client.say(&format!("RCPT TO:<{recipient}>"))
    }

    /// The answer to a query of Postfix.
    fn policy(&self, recipient: &str) -> String {
        self.policy_for(recipient, "192.0.2.1")
    }

    fn policy_for(&self, recipient: &str, client: &str) -> String {
        let mut stream = tcp(self.daemon.ports[POLICY]).unwrap();
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={client}\nsender=x@else.example\n\
             recipient={recipient}\ninstance=1\n\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            answer.push(octet[0]);
        }
        String::from_utf8(answer).unwrap().trim_end().trim_start_matches("action=").to_owned()
    }

    /// Kills the daemon when what it knows is on disk, and starts it again.
    fn restart(&mut self) {
        wait_for_state(self.path(), || {
            // A forged tag, which is counted.
            let mut client = Client::connect(self.daemon.ports[PROXY]);
            client.say("EHLO client.example");
            client.say("MAIL FROM:<>");
            client.say("RCPT TO:<prvs=9000abcdef=nobody@our.example>");
        });
        self.daemon.signal(Signal::KILL);
        self.daemon = Daemon::start(self.folder.path(), &self.config);
    }
}

const UNKNOWN: [&str; 2] = ["550 5.1.1 no such user here", "REJECT 5.1.1 no such user here"];
const UNDECIDED: &str = "451 4.4.3 recipient cannot be verified now, try again later";

/// A server that knows everybody but those whose names begin with `no`.
fn server() -> NextHop {
    NextHop::script().when(At::Rcpt, "<no", Does::Says("550 5.1.1 unknown")).start()
}

#[test]
fn a_file_names_the_recipients() {
    let site = Site::start("{ \"our.example\" = \"file:users\", \"other.example\" = \"file:users\" }");
    for known in ["ann@our.example", "ANN+x@Our.Example", "postmaster@our.example", "any@branch.example"] {
        assert!(site.proxy(known).starts_with("250"), "{known}");
        assert_eq!(site.policy(known), "DUNNO", "{known}");
    }
    for unknown in ["eve@our.example", "any@other.example"] {
        assert_eq!([site.proxy(unknown).as_str(), site.policy(unknown).as_str()], UNKNOWN, "{unknown}");
    }
    assert!(site.hop.heard().iter().all(|line| !line.contains("eve@")), "the next hop is not asked");
    // The file changes.
    let users = site.path().join("users");
    std::fs::write(&users, "# new\neve@our.example\n@other.example\n").unwrap();
    poll_for("the new list", || site.proxy("eve@our.example").starts_with("250").then_some(()));
    assert_eq!(site.proxy("ann@our.example"), UNKNOWN[0]);
    assert!(site.proxy("any@other.example").starts_with("250"));
    // What is wrong changes nothing, and is said.
    for (text, why) in [("eve@our.example\nnonsense\n", "users: line 2: "), ("", "names nobody")] {
        let before = site.daemon.log.all().len();
        std::fs::write(&users, text).unwrap();
        site.daemon.log.wait("the error", before, |line| line.contains("cannot be loaded") && line.contains(why));
        assert!(site.proxy("eve@our.example").starts_with("250"));
    }
    std::fs::remove_file(&users).unwrap();
    site.daemon.log.wait("the error", 0, |line| line.contains("No such file"));
    assert!(site.proxy("eve@our.example").starts_with("250"));
}

#[test]
fn a_policy_service_puts_off_whoever_asks_for_too_many() {
    let site = Site::start("\"file:users\"\nlimits.unknown_recipients_per_hour = 2");
    assert_eq!(site.policy("ann@our.example"), "DUNNO");
    for _ in 0..2 {
        assert_eq!(site.policy("nobody@our.example"), UNKNOWN[1]);
    }
    // At once: a later restriction of Postfix would refuse unknown users only.
    let put_off = "DEFER 4.7.1 too many unknown recipients from your network, try again later";
    for recipient in ["ann@our.example", "nobody@our.example"] {
        assert_eq!(site.policy(recipient), put_off);
    }
    assert_eq!(site.policy("postmaster@our.example"), "DUNNO");
    // Programs on this machine are not limited.
    for _ in 0..5 {
        assert_eq!(site.policy_for("nobody@our.example", "127.0.0.1"), UNKNOWN[1]);
    }
    assert_eq!(site.policy_for("ann@our.example", "127.0.0.1"), "DUNNO");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_the_config() {
    let site = Site::start("\"file:users\"");
    let reload = |recipients: &str| {
        std::fs::write(site.path().join("countersign.toml"), config(site.hop.port, recipients)).unwrap();
        run(site.path(), &["reload", "-c", "countersign.toml"])
    };
    for (recipients, why) in [
        ("\"file:missing\"", "missing: No such file"),
        ("\"ask:\"", "inbound.recipients"),
        ("\"elsewhere\"", "`elsewhere` is not \"next_hop\""),
        ("{ \"our.exmaple\" = \"next_hop\" }", "our.exmaple is neither in domains.local nor in domains.relay"),
        ("\"ask:systemd:x\"", "is a socket to listen on"),
    ] {
        let output = reload(recipients);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{recipients}: {said}");
        assert_eq!(site.proxy("eve@our.example"), UNKNOWN[0], "the last good one is in force");
    }
    let output = reload("\"next_hop\"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(site.proxy("eve@our.example").starts_with("250"));
}

#[test]
fn another_server_is_asked() {
    let server = server();
    let mut site = Site::start(&format!("\"ask:127.0.0.1:{}\"", server.port));
    assert!(site.proxy("ann@our.example").starts_with("250"));
    assert_eq!(site.policy("ann@our.example"), "DUNNO");
    assert_eq!([site.proxy("nobody@our.example").as_str(), site.policy("nobody@other.example").as_str()], UNKNOWN);
    // It is asked as itself, without a tag, and answers are remembered.
    let asked = || -> Vec<String> { server.heard().into_iter().filter(|line| line.starts_with("RCPT")).collect() };
    let three = ["RCPT TO:<ann@our.example>", "RCPT TO:<nobody@our.example>", "RCPT TO:<nobody@other.example>"];
    assert_eq!(asked(), three);
    assert!(server.heard().iter().any(|line| line == "MAIL FROM:<>"));
    assert_eq!(site.policy("nobody@our.example"), UNKNOWN[1]);
    for spelling in ["ann@OUR.example", "\"ann\"@our.example", "ann@\u{ff4f}ur.example"] {
        assert!(site.proxy(spelling).starts_with("250"), "{spelling}");
    }
    assert_eq!(asked(), three);
    assert_eq!((site.hop.count(), server.count()), (0, 0));
    // Known ones are remembered over a restart, and the answer counts for as long as the server is away.
    site.restart();
    // It fails once, and is left alone for a while then.
    server.next_session(At::Greeting, Does::SaysAndCloses("421 4.3.2 shutting down"));
    assert_eq!(site.proxy("new@our.example"), UNDECIDED);
    assert!(site.proxy("ann@our.example").starts_with("250"));
    assert_eq!(site.policy("new@our.example"), format!("DEFER_IF_PERMIT{}", UNDECIDED.trim_start_matches("451")));
    site.daemon.log.wait("the warning", 0, |line| line.contains("a recipient cannot be looked up"));
}

#[test]
fn no_spelling_of_a_stranger_makes_a_user_unknown() {
    // A server that knows `ann` in this spelling alone.
    let server = NextHop::script()
        .offers(&["PIPELINING"])
        .on(At::Rcpt, Does::Says("550 5.1.1 unknown"))
        .when(At::Rcpt, "<ann@our.example>", Does::Says("250 2.1.5 ok"))
        .start();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", server.port));
    for spelling in ["ann@\u{ff4f}ur.example", "\"ann\"@our.example", "ann@OUR.example", "ann@our\u{3002}example"] {
        assert!(site.proxy(spelling).starts_with("250"), "{spelling}");
    }
    for other in ["ANN@our.example", "\u{e4}nn@our.example"] {
        assert_eq!(site.proxy(other), UNKNOWN[0], "{other}");
    }
    assert!(site.proxy("ann@our.example").starts_with("250"));
    // Postfix delivers this to Ann, and to nobody else.
    assert_eq!(site.policy("ann@our.example."), "DUNNO");
    assert_eq!(site.policy("nobody@our.example."), UNKNOWN[1]);
}

#[test]
fn a_refusal_without_a_code_is_understood_if_the_postmaster_is_known() {
    // As Exim refuses an unknown user.
    let exim = NextHop::script().when(At::Rcpt, "<no", Does::Says("550 Unrouteable address")).start();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", exim.port));
    assert_eq!(site.proxy("nobody@our.example"), UNKNOWN[0]);
    assert!(site.proxy("ann@our.example").starts_with("250"));
    // As Exim refuses a domain, or a client.
    let closed = NextHop::script().on(At::Rcpt, Does::Says("550 relay not permitted")).start();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", closed.port));
    assert_eq!(site.proxy("ann@our.example"), UNDECIDED);
}

#[test]
fn a_server_that_hangs_up_is_asked_about_others() {
    let server = NextHop::script()
        .when(At::Rcpt, "<bad", Does::Closes)
        .when(At::Rcpt, "<full", Does::Says("421 4.3.2 too busy"))
        .when(At::Rcpt, "<no", Does::Says("550 5.1.1 unknown"))
        .start();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", server.port));
    for n in 0..3 {
        assert!(site.proxy(&format!("ann{n}@our.example")).starts_with("250"), "{n}");
        assert_eq!(site.proxy(&format!("bad{n}@our.example")), UNDECIDED, "{n}");
        assert_eq!(site.proxy(&format!("full{n}@our.example")), UNDECIDED, "{n}");
        assert_eq!(site.proxy(&format!("nobody{n}@our.example")), UNKNOWN[0], "{n}");
    }
}

#[test]
fn a_list_that_has_lost_most_of_its_entries_is_not_believed() {
    let site = Site::start("\"file:users\"");
    let users = site.path().join("users");
    let all: String = (0..10).map(|n| format!("user{n}@our.example\n")).collect();
    std::fs::write(&users, &all).unwrap();
    poll_for("the list", || site.proxy("user9@our.example").starts_with("250").then_some(()));
    // A program that writes it has stopped half-way.
    let before = site.daemon.log.all().len();
    std::fs::write(&users, "user0@our.example\n").unwrap();
    site.daemon.log.wait("the error", before, |line| line.contains("has lost more than half of its entries"));
    assert!(site.proxy("user9@our.example").starts_with("250"));
    let status = || String::from_utf8(run(site.path(), &["status", "-c", "countersign.toml"]).stdout).unwrap();
    assert!(
        status().contains("users: it has 1 entries, and had 10; to accept that: countersign reload"),
        "{}",
        status()
    );
    // It is right.
    run_ok(site.path(), &["reload", "-c", "countersign.toml"]);
    poll_for("the end of the complaint", || (!status().contains("a list of recipients")).then_some(()));
    poll_for("the list", || (site.proxy("user9@our.example") == UNKNOWN[0]).then_some(()));
    assert!(site.proxy("user0@our.example").starts_with("250"));
}

#[test]
fn the_entry_that_says_most_about_a_domain_counts() {
    let folder = folder();
    std::fs::write(folder.path().join("users"), "ann@users.our.example\n").unwrap();
    run_ok(folder.path(), &["keys", "init"]);
    let (all, one) = (NextHop::start(), NextHop::start());
    let config = format!(
        "domains.local = [\".our.example\", \"fwd.example\"]\ninbound.mode = \"enforce\"\n\
         domains.srs_domain = {{ \".third.example\" = \"a.fwd.example\", \"x.third.example\" = \"b.fwd.example\" }}\n\
         inbound.recipients = {{ \".our.example\" = \"next_hop\", \"users.our.example\" = \"file:users\" }}\n\
         [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:9\"\n\
         by_domain = {{ \".our.example\" = \"127.0.0.1:{}\", \"users.our.example\" = \"127.0.0.1:{}\" }}\n",
        all.port, one.port
    );
    std::fs::write(folder.path().join("countersign.toml"), &config).unwrap();
    let explained = run_ok(folder.path(), &["sign", "-c", "countersign.toml", "bob@x.third.example"]);
    assert!(explained.trim().ends_with("@b.fwd.example"), "{explained}");
    let next = NextHop::start();
    let config = config.replace("127.0.0.1:9\"", &format!("127.0.0.1:{}\"", next.port));
    let daemon = Daemon::start(folder.path(), &config);
    let rcpt = |recipient: &str| {
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        client.say("MAIL FROM:<x@else.example>");
        client.say(&format!("RCPT TO:<{recipient}>"))
    };
    assert_eq!(rcpt("nobody@users.our.example"), UNKNOWN[0]);
    assert!(rcpt("ann@users.our.example").starts_with("250") && rcpt("any@x.our.example").starts_with("250"));
    let asked = |hop: &NextHop| hop.heard().into_iter().filter(|line| line.starts_with("RCPT")).collect::<Vec<_>>();
    assert_eq!(asked(&one), ["RCPT TO:<ann@users.our.example>"]);
    assert_eq!(asked(&all), ["RCPT TO:<any@x.our.example>"]);
}

#[test]
fn a_tag_is_removed_before_the_server_is_asked() {
    let server = server();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", server.port));
    for (name, known) in [("ann", true), ("nobody", false)] {
        let tag = run_ok(site.path(), &["sign", "-c", "countersign.toml", &format!("{name}@our.example")]);
        let mut client = Client::connect(site.daemon.ports[PROXY]);
        client.say("EHLO client.example");
        client.say("MAIL FROM:<>");
        let reply = client.say(&format!("RCPT TO:<{}>", tag.trim()));
        assert_eq!(reply.starts_with("250"), known, "{reply}");
        let asked = format!("RCPT TO:<{name}@our.example>");
        assert!(server.heard().contains(&asked), "{:?}", server.heard());
    }
}

#[test]
fn a_server_may_speak_lmtp_and_know_nothing_of_pipelining() {
    let server = NextHop::script().offers(&[]).when(At::Rcpt, "<no", Does::Says("550 5.1.1 unknown")).start();
    let site = Site::start(&format!("\"ask:lmtp:127.0.0.1:{}\"", server.port));
    assert!(site.proxy("ann@our.example").starts_with("250"));
    assert_eq!(site.proxy("nobody@our.example"), UNKNOWN[0]);
    assert!(server.heard().iter().any(|line| line.starts_with("LHLO ")), "{:?}", server.heard());
}

#[test]
fn what_is_neither_yes_nor_no_is_put_off() {
    for (at, says) in [
        (At::Rcpt, "450 4.2.0 greylisted"),
        (At::Rcpt, "554 5.7.1 you may not ask"),
        (At::Mail, "550 5.1.1 no null sender here"),
        (At::Greeting, "554 5.7.1 go away"),
        (At::Ehlo, "500 what"),
    ] {
        let server = NextHop::script().on(at, Does::Says(says)).start();
        let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", server.port));
        assert_eq!(site.proxy("ann@our.example"), UNDECIDED, "{says}");
        // Other domains do not suffer.
        assert!(site.proxy("postmaster@our.example").starts_with("250"));
    }
    // A full mailbox exists.
    let server = NextHop::script().on(At::Rcpt, Does::Says("452 4.2.2 mailbox full")).start();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", server.port));
    assert!(site.proxy("ann@our.example").starts_with("250"));
}

/// Asks for so many recipients on each of some connections, and returns the replies by their first digit.
fn load(site: &Site, connections: usize, each: usize) -> [usize; 3] {
    let replies = std::thread::scope(|scope| {
        let ask = |n: usize| {
            let mut client = Client::connect(site.daemon.ports[PROXY]);
            client.say("EHLO client.example");
            client.say("MAIL FROM:<x@else.example>");
            let names = (0..each).map(|m| if m % 2 == 0 { format!("ann{n}-{m}") } else { format!("no{n}-{m}") });
            let commands: String = names.map(|name| format!("RCPT TO:<{name}@our.example>\r\n")).collect();
            client.write(commands.as_bytes()).unwrap();
            (0..each).map(|_| client.read_reply().unwrap()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..connections).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let count = |digit: char| replies.iter().filter(|reply| reply.starts_with(digit)).count();
    [count('2'), count('4'), count('5')]
}

#[test]
fn a_slow_server_answers_many_and_a_silent_one_holds_up_nobody_for_long() {
    let server = NextHop::script()
        .on(At::Rcpt, Does::SaysAfter(Duration::from_millis(50), "250 2.1.5 Ok"))
        .when(At::Rcpt, "<no", Does::SaysAfter(Duration::from_millis(50), "550 5.1.1 unknown"))
        .keeps_no_messages()
        .start();
    let settings = format!("\"ask:127.0.0.1:{}\"\nlimits.refused_recipients = 0", server.port);
    let site = Site::start(&settings);
    let begun = Instant::now();
    assert_eq!(load(&site, 100, 40), [2000, 0, 2000]);
    let rate = 4000.0 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} recipients a second at a server that takes 50 ms");
    // The same again is remembered.
    let begun = Instant::now();
    assert_eq!(load(&site, 100, 40), [2000, 0, 2000]);
    eprintln!("{:.0} recipients a second that are remembered", 4000.0 / begun.elapsed().as_secs_f64());
    // It falls silent. What is known stays known; the rest is put off, and after the first time at once.
    let silent = NextHop::script().on(At::Mail, Does::Silent).start();
    let site = Site::start(&format!("\"ask:127.0.0.1:{}\"", silent.port));
    let begun = Instant::now();
    assert_eq!(load(&site, 20, 50), [0, 1000, 0]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(site.proxy("postmaster@our.example").starts_with("250"));
}

#[test]
fn a_server_that_takes_few_connections_answers_all_the_same() {
    let server = NextHop::script()
        .when(At::Rcpt, "<no", Does::Says("550 5.1.1 unknown"))
        .sessions(5)
        .refuses_more()
        .keeps_no_messages()
        .start();
    let settings = format!("\"ask:127.0.0.1:{}\"\nlimits.refused_recipients = 0", server.port);
    let site = Site::start(&settings);
    assert_eq!(load(&site, 50, 10), [250, 0, 250]);
    assert!(site.daemon.log.all().iter().all(|line| !line.contains("cannot be looked up")));
}

#[test]
fn a_domain_that_takes_made_up_names_is_reported() {
    if !has_faketime("a_domain_that_takes_made_up_names_is_reported") {
        return;
    }
    let (folder, server) = (folder(), server());
    run_ok(folder.path(), &["keys", "init"]);
    // The next hop takes everything. The server of branch.example knows its users.
    let hop = NextHop::start();
    let config = config(hop.port, &format!("{{ \"branch.example\" = \"ask:127.0.0.1:{}\" }}", server.port));
    // A minute takes less than a second.
    let daemon = Daemon::start_by(crate::ramp::faster(100), folder.path(), &config);
    daemon.log.wait("the warning", 0, |line| {
        line.contains("accepts mail for unknown recipients") && line.contains("our.example")
    });
    let output = poll_for("the answers", || {
        let output = run(folder.path(), &["status", "-c", "countersign.toml"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.contains("accepts mail for").then_some((output.status.code(), said))
    });
    assert_eq!(output.0, Some(1), "it needs attention");
    assert!(output.1.contains("our.example accepts mail for unknown recipients"), "{}", output.1);
    assert!(!output.1.contains("branch.example accepts mail"), "{}", output.1);
    let check = run(folder.path(), &["check", "-c", "countersign.toml"]);
    let said = [&check.stdout[..], &check.stderr].map(String::from_utf8_lossy).concat();
    assert!(said.contains("our.example accepts mail for unknown recipients"), "{said}");
    // One question a day each, with the null sender.
    for (asked, domain) in [(&hop, "our.example"), (&hop, "other.example"), (&server, "branch.example")] {
        let wanted = |line: &&String| line.starts_with("RCPT TO:<no-such-user-") && line.contains(domain);
        assert_eq!(asked.heard().iter().filter(wanted).count(), 1, "{domain}: {:?}", asked.heard());
    }
    assert_eq!((hop.count(), server.count()), (0, 0));
}

#[test]
fn a_milter_refuses_what_its_postfix_takes() {
    if !can_run(&["postfix"], "a_milter_refuses_what_its_postfix_takes") {
        return;
    }
    let (folder, server, port) = (folder(), server(), reserved_port());
    run_ok(folder.path(), &["keys", "init"]);
    let config = format!(
        "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\ninbound.recipients = \"ask:127.0.0.1:{}\"\n\
         limits.unknown_recipients_per_hour = 2\n\
         [[listener]]\nprotocol = \"milter\"\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\n",
        server.port
    );
    let daemon = Daemon::start(folder.path(), &config);
    let options = format!("smtpd_reject_unlisted_recipient=no smtpd_milters=inet:127.0.0.1:{}", daemon.ports[0]);
    let role = Role {
        name: "open",
        domain: "our.example",
        mailboxes: &["ann"],
        ports: &[(port, &options)],
        extra: "milter_default_action = tempfail\nsmtpd_authorized_xclient_hosts = 127.0.0.0/8\nsmtpd_relay_restrictions = reject_unauth_destination",
        ..Role::default()
    };
    let postfix = Postfix::start(folder.path(), &role);
    let mut client = Client::connect(port);
    client.say("EHLO client.example");
    assert!(client.say("XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]").starts_with("220"));
    client.say("EHLO client.example");
    assert!(client.say("MAIL FROM:<x@else.example>").starts_with("250"));
    assert_eq!(client.say("RCPT TO:<nobody@our.example>"), UNKNOWN[0]);
    assert!(client.say("RCPT TO:<ann@our.example>").starts_with("250"));
    assert!(client.say("DATA").starts_with("354"));
    assert!(client.say("Subject: one\r\n\r\nx\r\n.").starts_with("250"));
    poll_for("the message", || (postfix.mailbox("ann").len() == 1).then_some(()));
    // The last one that is answered is logged at once, not when somebody asks next.
    assert!(client.say("MAIL FROM:<x@else.example>").starts_with("250"));
    assert_eq!(client.say("RCPT TO:<nobody2@our.example>"), UNKNOWN[0]);
    daemon.log.wait("the warning", 0, |line| line.contains("client network exceeded unknown_recipients_per_hour"));
}

#[test]
fn check_reads_the_lists_and_says_who_is_asked() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    std::fs::write(folder.path().join("countersign.toml"), config(25, "\"file:users\"")).unwrap();
    let check = || {
        let output = run(folder.path(), &["check"]);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (status, said) = check();
    assert!(
        status == Some(2) && said.contains("inbound.recipients: ") && said.contains("users: No such file"),
        "{said}"
    );
    std::fs::write(folder.path().join("users"), "ann\n").unwrap();
    assert_eq!(check().0, Some(2));
    std::fs::write(folder.path().join("users"), "ann@our.example\n").unwrap();
    let (status, said) = check();
    assert!(status == Some(0) && said.contains("our.example: ") && said.contains("users (1 entries)"), "{said}");
    let ours = "{ \"our.example\" = \"ask:10.0.4.7:25\" }\noutbound.ndr.policy = \"drop\"\noutbound.ndr.strip_content = true\n\
        outbound.ndr.copy_to = \"bob@our.example\"";
    std::fs::write(folder.path().join("countersign.toml"), config(25, ours)).unwrap();
    let (_, said) = check();
    assert!(said.contains("branch.example: the next hop; our.example: 10.0.4.7:25 is asked"), "{said}");
    assert!(
        said.contains("not sent (policy = \"drop\"); without the content of what they return, but not here"),
        "{said}"
    );
    assert!(said.contains("outbound.ndr.copy_to = \"bob@our.example\" is one of your addresses"), "{said}");
}
