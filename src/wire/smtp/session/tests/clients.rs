//! TLS, authentication, LMTP and limits, from the client's side.

use super::*;

const AUTH: &str = "250-mx.example\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN\r\n";

fn with(ehlo: &str, change: impl FnOnce(&mut Settings)) -> Dialogue {
    let mut d = Dialogue::with(Direction::Outbound, 10_000, change, None);
    d.connect();
    d.client("EHLO c.example\r\n");
    d.hop(ehlo);
    d
}

#[test]
fn plaintext_after_starttls_is_dropped_and_everything_begins_again() {
    let mut d = with(AUTH, |s| s.client_tls = Tls::May);
    d.client("MAIL FROM:<>\r\n");
    d.hop("250 ok\r\n");
    assert_eq!(d.client("STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n"), "RSET\r\n");
    assert_eq!(d.heard_by_client(), "220 2.0.0 ready to start TLS\r\n");
    assert_eq!(d.secure, (1, 0));
    assert!(!d.session.wants_client());
    d.session.client_data(b"RCPT TO:<x@y.example>\r\n");
    d.session.client_secured();
    d.hop("250 reset\r\n");
    assert_eq!((d.heard_by_client(), d.heard_by_hop()), (String::new(), String::new()));
    d.client("MAIL FROM:<>\r\n");
    assert!(d.heard_by_client().starts_with("503 5.5.1 send HELO or EHLO first"));
    assert_eq!(d.client("EHLO c.example\r\n"), "EHLO c.example\r\n");
    assert_eq!(d.hop(AUTH), "250-mx.example\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN\r\n", "no STARTTLS any more");
    d.client("STARTTLS\r\n");
    assert!(d.heard_by_client().starts_with("503 5.5.1 "));
}

#[test]
fn where_tls_is_required_nothing_goes_before_it() {
    let mut d = Dialogue::with(Direction::Inbound, 100, |s| s.client_tls = Tls::Require, None);
    d.connect();
    d.client("EHLO c.example\r\n");
    assert_eq!(d.hop(AUTH), "250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n", "and no AUTH yet");
    for line in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b>\r\n", "DATA\r\n", "AUTH PLAIN x\r\n", "VRFY x\r\n", "BDAT 3\r\nabc"]
    {
        assert_eq!(d.client(line), "", "{line}");
        assert!(d.heard_by_client().starts_with("530 5.7.0 "), "{line}");
    }
    assert_eq!(d.client("NOOP\r\n"), "NOOP\r\n");
}

#[test]
fn logging_in_is_between_client_and_next_hop() {
    let mut d = with(AUTH, |_| {});
    assert_eq!(d.client("AUTH LOGIN\r\nMAIL FROM:<>\r\n"), "AUTH LOGIN\r\n");
    assert_eq!(d.hop("334 VXNlcm5hbWU6\r\n"), "334 VXNlcm5hbWU6\r\n");
    // A command sent too early is the response to the challenge, as with any server.
    assert_eq!(d.heard_by_hop(), "MAIL FROM:<>\r\n");
    assert_eq!(d.hop("334 UGFzc3dvcmQ6\r\n"), "334 UGFzc3dvcmQ6\r\n");
    let long = "x".repeat(12_000);
    assert_eq!(d.client(&format!("{long}\r\n")), format!("{long}\r\n"));
    assert_eq!(d.hop("235 2.7.0 welcome\r\n"), "235 2.7.0 welcome\r\n");
    d.client("AUTH PLAIN x\r\n");
    assert!(d.heard_by_client().starts_with("503 5.5.1 "));
    // A client that has authenticated may use AUTH=; authentication cannot be repeated after the next hop is lost.
    assert!(d.client("MAIL FROM:<> AUTH=ann@our.example\r\n").ends_with(" AUTH=ann@our.example\r\n"));
    d.hop("250 ok\r\n");
    d.client("RSET\r\n");
    d.hop("250 ok\r\n");
    d.session.hop_eof();
    d.run();
    assert!(!d.client_closed);
    d.client("NOOP\r\n");
    assert!(d.heard_by_client().starts_with("421 4.4.2 ") && d.client_closed);
}

#[test]
fn passwords_need_tls_where_there_is_any() {
    let mut d = with(AUTH, |s| s.client_tls = Tls::May);
    assert_eq!(d.client("AUTH PLAIN dGVzdA==\r\n"), "");
    assert!(d.heard_by_client().starts_with("538 5.7.11 "));
    let mut d = with("250 mx.example\r\n", |_| {});
    d.client("AUTH PLAIN dGVzdA==\r\n");
    assert!(d.heard_by_client().starts_with("502 5.5.1 "));
    let mut d = with(AUTH, |_| {});
    d.client(&format!("AUTH PLAIN {}\r\n", "x".repeat(13_000)));
    assert!(d.heard_by_client().starts_with("500 5.5.2 line too long"));
    // A line that cannot be a response to the challenge cancels AUTH, so that the next command is not taken for one.
    for line in [format!("{}\r\n", "x".repeat(13_000)), "x\0y\r\n".into()] {
        let mut d = with(AUTH, |_| {});
        d.client("AUTH LOGIN\r\n");
        d.hop("334 VXNlcm5hbWU6\r\n");
        assert_eq!(d.client(&line), "*\r\n");
        assert!(d.hop("501 5.7.0 cancelled\r\n").starts_with("500 5.5.2 "));
        assert_eq!(d.client("MAIL FROM:<>\r\n"), "MAIL FROM:<>\r\n");
    }
    // A bare CR may be a line end to the next hop, which would see a response and a command.
    let mut d = with(AUTH, |_| {});
    d.client("AUTH LOGIN\r\n");
    d.hop("334 VXNlcm5hbWU6\r\n");
    assert_eq!(d.client("dGVzdA==\rMAIL FROM:<>\r\n"), "dGVzdA== MAIL FROM:<>\r\n");
}

#[test]
fn strangers_do_not_say_whose_mail_it_is() {
    let mut d = with(AUTH, |_| {});
    assert_eq!(d.client("MAIL FROM:<> SIZE=3 auth=ann@our.example\r\n"), "MAIL FROM:<> SIZE=3 AUTH=<>\r\n");
    let mut d = with("250 mx.example\r\n", |_| {});
    assert_eq!(d.client("MAIL FROM:<> AUTH=<>\r\n"), "");
    assert!(d.heard_by_client().starts_with("555 5.5.4 "));
    let mut d = with(AUTH, |s| s.trusted = true);
    assert_eq!(d.client("MAIL FROM:<> AUTH=ann\r\n"), "MAIL FROM:<> AUTH=ann\r\n");
}

fn lmtp(direction: Direction) -> Dialogue {
    let mut d = Dialogue::with(direction, 10_000, |s| s.lmtp = true, None);
    d.connect();
    d.client("LHLO c.example\r\n");
    d.hop("250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    d
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let mut d = lmtp(Direction::Outbound);
    d.client("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n");
    d.hop("250 m\r\n250 a\r\n550 b\r\n250 c\r\n354 go\r\n");
    d.client("x\r\n.\r\n");
    assert_eq!(d.hop("250 for a\r\n"), "250 for a\r\n");
    assert!(d.finished.is_empty());
    assert_eq!(d.hop("452 full\r\n"), "452 full\r\n");
    assert_eq!((d.finished[0].code, d.finished[0].recipients), (452, 2));

    // BDAT, pipelined.
    let heard = d.client("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nBDAT 3 LAST\r\nabc");
    assert!(heard.ends_with("RCPT TO:<b@x.example>\r\n"), "how many replies there will be is not known yet: {heard}");
    d.hop("250 m\r\n250 a\r\n250 b\r\n");
    assert_eq!(d.heard_by_hop(), "BDAT 3 LAST\r\nabc");
    assert_eq!(d.hop("250 a\r\n250 b\r\n"), "250 a\r\n250 b\r\n");

    // If the next hop is lost, each recipient still gets a reply.
    d.client("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n");
    d.hop("250 m\r\n250 a\r\n250 b\r\n354 go\r\n");
    d.client("x\r\n.\r\n");
    assert_eq!(d.hop("250 a\r\n"), "250 a\r\n");
    d.session.hop_eof();
    d.run();
    assert_eq!(d.heard_by_client().matches("451 4.4.2").count(), 1);
    assert_eq!(d.finished.last().unwrap().code, 451);
}

#[test]
fn a_refused_lmtp_message_is_refused_for_each_recipient() {
    let mut d = lmtp(Direction::Inbound);
    // Evidence may prove a bounce genuine for one recipient only, so each needs a separate transaction.
    d.client("MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\nRCPT TO:<ben@our.example>\r\nRCPT TO:<Ann@our.example>\r\n");
    assert_eq!(d.hop("250 m\r\n250 a\r\n").matches("452 4.5.3").count(), 1);
    d.hop("250 a again\r\n");
    d.client("DATA\r\n");
    d.heard_by_client();
    d.client(&format!("{}.\r\n", dsn("failed")));
    assert_eq!(d.heard_by_client().matches("550 5.7.1").count(), 2);
    d.hop("250 reset\r\n");
    for hello in ["EHLO", "HELO"] {
        d.client(&format!("{hello} c.example\r\n"));
        assert!(d.heard_by_client().starts_with("500 5.5.1 this is LMTP"));
    }
    let mut d = Dialogue::ready(Direction::Inbound);
    d.client("LHLO c.example\r\n");
    assert!(d.heard_by_client().starts_with("500 5.5.1 this is SMTP"));
}

#[test]
fn each_limit_has_its_reply() {
    let limits = |change: fn(&mut SessionLimits)| {
        with(EHLO, |s| {
            s.limits.bad_commands = 3;
            change(&mut s.limits);
        })
    };
    let mut d = limits(|l| l.recipients = 2);
    d.client("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\n");
    let heard = d.hop("250 m\r\n550 a\r\n250 b\r\n");
    assert!(heard.contains("\r\n452 4.5.3 too many recipients"), "{heard}");
    assert_eq!(
        (d.client("RCPT TO:<d@x.example>\r\n").as_str(), d.limits.as_slice()),
        ("RCPT TO:<d@x.example>\r\n", &["recipients"][..])
    );

    let mut d = limits(|l| l.commands = 12);
    for _ in 0..11 {
        d.client("NOOP\r\n");
        assert_eq!(d.hop("250 ok\r\n"), "250 ok\r\n");
    }
    d.client("NOOP\r\n");
    assert_eq!(
        (d.heard_by_client().as_str(), d.client_closed),
        ("421 4.7.0 too many commands without a message\r\n", true)
    );
    assert_eq!(d.limits, ["commands"]);

    let mut d = limits(|l| l.line = 600);
    d.client(&format!("NOOP {}\r\n", "x".repeat(600)));
    assert_eq!((d.heard_by_client().as_str(), d.limits.as_slice()), ("500 5.5.2 line too long\r\n", &["line"][..]));

    let mut d = limits(|l| l.message = 1000);
    d.client("MAIL FROM:<> SIZE=1001\r\n");
    assert!(d.heard_by_client().starts_with("552 5.3.4 message size exceeds"));

    for (change, limit) in [
        ((|l: &mut SessionLimits| l.message = 1000) as fn(&mut SessionLimits), "message"),
        (|l| l.header = 1000, "header"),
    ] {
        let mut d = limits(change);
        d.client("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nDATA\r\n");
        d.hop("250 m\r\n250 a\r\n354 go\r\n");
        assert!(!d.client(&"A: a header that is long\r\n".repeat(50)).contains("\r\n.\r\n"));
        assert_eq!((d.heard_by_client().as_str(), d.hop_closed, d.limits.as_slice()), ("", 1, &[limit][..]));
        d.client("\r\nx\r\n.\r\n");
        assert!(d.heard_by_client().starts_with("552 5.3.4 "), "{limit}");
        assert!(!d.client_closed);
    }

    let mut d = limits(|_| {});
    for want in ["500", "500", "500", "421 4.7.0 too many bad commands"] {
        d.client("WHAT\r\n");
        assert!(d.heard_by_client().starts_with(want));
    }
    assert!(d.client_closed);
}

#[test]
fn time_that_is_up_is_told() {
    type Timeout = (fn(&mut Session), &'static str);
    let timeouts: [Timeout; 3] = [
        (Session::client_timeout, "421 4.4.2 timeout"),
        (Session::client_too_slow, "421 4.4.2 too slow"),
        (Session::transaction_timeout, "421 4.4.2 the transaction"),
    ];
    for (time_up, want) in timeouts {
        let mut d = with(EHLO, |_| {});
        d.client("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nDATA\r\n");
        d.hop("250 m\r\n250 a\r\n354 go\r\n");
        d.client("x\r\n");
        time_up(&mut d.session);
        d.run();
        assert!(d.heard_by_client().starts_with(want) && d.client_closed && d.hop_closed == 1);
        assert_eq!(d.heard_by_hop(), "", "and no QUIT that a next hop could take for a line of the message");
    }
}

#[test]
fn mail_needs_a_hello() {
    let mut d = Dialogue::new(Direction::Outbound, 100);
    d.connect();
    for line in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b.example>\r\n", "DATA\r\n", "AUTH PLAIN x\r\n"] {
        assert_eq!(d.client(line), "");
        assert!(d.heard_by_client().starts_with("503 5.5.1 send HELO or EHLO first"), "{line}");
    }
    for line in ["NOOP\r\n", "RSET\r\n", "HELP\r\n"] {
        assert_eq!(d.client(line), line);
        d.hop("250 ok\r\n");
    }
}

#[test]
fn a_next_hop_that_nobody_needs_is_let_go_and_had_again() {
    let mut d = Dialogue::ready(Direction::Inbound);
    assert!(d.session.can_rest());
    d.session.rest();
    assert_eq!(d.heard_by_hop(), "QUIT\r\n");
    d.run();
    assert_eq!((d.hop_closed, d.client_closed, d.opened.len()), (1, false, 1));
    assert!(!d.session.can_rest() && d.session.wants_client());
    // The client's next command opens another connection, whose next hop is sent the client's EHLO.
    assert_eq!(d.client("MAIL FROM:<>\r\n"), "");
    assert_eq!(d.opened, [NextHopChoice::Main, NextHopChoice::Main]);
    d.session.hop_connected(false);
    assert_eq!((d.hop("220 again\r\n"), d.heard_by_hop()), (String::new(), "EHLO c.example\r\n".into()));
    assert_eq!((d.hop(EHLO), d.heard_by_hop()), (String::new(), "MAIL FROM:<>\r\n".into()));
    assert_eq!(d.hop("250 ok\r\n"), "250 ok\r\n");
}

#[test]
fn a_session_keeps_the_next_hop_that_it_needs() {
    let mut d = Dialogue::ready(Direction::Inbound);
    d.client("MAIL FROM:<>\r\n");
    assert!(!d.session.can_rest(), "an answer is due");
    d.hop("250 ok\r\n");
    assert!(!d.session.can_rest(), "a transaction is open");
    d.session.rest();
    assert_eq!((d.heard_by_hop().as_str(), d.hop_closed), ("", 0));
    d.client("RSET\r\n");
    d.hop("250 ok\r\n");
    assert!(d.session.can_rest());
    d.session.rest();
    d.run();
    // QUIT needs no next hop.
    assert_eq!((d.client("QUIT\r\n").as_str(), d.opened.len()), ("", 1));
    assert!(d.heard_by_client().starts_with("221 ") && d.client_closed);

    // Authentication cannot be repeated.
    let mut d = Dialogue::new(Direction::Outbound, 100);
    d.connect();
    d.client("EHLO c.example\r\n");
    d.hop("250-mx.example\r\n250 AUTH PLAIN\r\n");
    d.client("AUTH PLAIN x\r\n");
    d.hop("235 ok\r\n");
    assert!(!d.session.can_rest());
}

fn strict(direction: Direction) -> Dialogue {
    Dialogue::with(direction, 10_000, |settings| settings.sync = true, None)
}

const OUT_OF_SYNC: &str = "554 5.5.0 you must wait for the server's answer before you send more\r\n";

#[test]
fn a_client_that_speaks_before_the_greeting_is_let_go() {
    for connected in [false, true] {
        let mut d = strict(Direction::Inbound);
        d.run();
        if connected {
            d.session.hop_connected(false);
        }
        assert!(d.session.wants_client());
        assert_eq!(d.client("EHLO c.example\r\n"), "");
        assert!(d.heard_by_client() == OUT_OF_SYNC && d.client_closed, "{connected}");
    }
}

#[test]
fn a_client_that_does_not_wait_for_an_answer_is_let_go() {
    let begin = |d: &mut Dialogue| {
        d.connect();
        d.client("EHLO c.example\r\n");
        d.hop("250-mx.example\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n");
        d.heard_by_client();
    };
    // Behind the command in one packet, or before its reply in another: neither reaches the next hop.
    let mail = "MAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\n";
    for (command, answer) in [("EHLO d.example\r\n", "250"), ("AUTH PLAIN\r\n", "334"), ("DATA\r\n", "354")] {
        for together in [true, false] {
            let mut d = strict(Direction::Inbound);
            begin(&mut d);
            if command == "DATA\r\n" {
                d.client(mail);
                d.hop("250 ok\r\n250 ok\r\n");
            }
            let heard = if together {
                d.client(&format!("{command}x\r\n"))
            } else {
                assert_eq!(d.client(command), command);
                d.client("x\r\n")
            };
            assert!(!heard.contains('x'), "{command} {together}: {heard}");
            assert_eq!(d.heard_by_client(), OUT_OF_SYNC, "{command} {together}");
            assert!(d.client_closed, "{command} {together}");
        }
        // A client that waits is served.
        let mut d = strict(Direction::Inbound);
        begin(&mut d);
        if command == "DATA\r\n" {
            d.client(mail);
            d.hop("250 ok\r\n250 ok\r\n");
        }
        assert_eq!(d.client(command), command);
        assert!(d.hop(&format!("{answer} go\r\n")).starts_with(answer));
    }
    // For a message to be inspected, DATA waits until the recipient is answered.
    for (blind, heard) in [("Subject: x\r\n", false), ("", true)] {
        let mut d = strict(Direction::Inbound);
        begin(&mut d);
        d.client("MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\n");
        d.client(blind);
        assert_eq!(d.client_closed, !heard, "{blind}");
        if heard {
            assert!(d.hop("250 ok\r\n250 ok\r\n").contains("354 "));
        } else {
            assert_eq!(d.heard_by_client(), OUT_OF_SYNC);
        }
    }
    // The first EHLO, whose reply takes longer.
    for together in [true, false] {
        let mut d = strict(Direction::Inbound);
        d.connect();
        if together {
            d.client("EHLO c.example\r\nMAIL FROM:<>\r\n");
        } else {
            d.client("EHLO c.example\r\n");
            d.client("MAIL FROM:<>\r\n");
        }
        assert!(d.heard_by_client() == OUT_OF_SYNC && d.client_closed, "{together}");
    }
    let mut d = Dialogue::with(Direction::Inbound, 100, |s| (s.sync, s.client_tls) = (true, Tls::May), None);
    d.greet_with_tls();
    d.client("STARTTLS\r\nEHLO c.example\r\n");
    assert!(d.heard_by_client() == OUT_OF_SYNC && d.client_closed && d.secure == (0, 0));
}

#[test]
fn a_candidate_whose_body_comes_too_early_is_not_read() {
    let mut d = strict(Direction::Inbound);
    d.greet();
    d.client("MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\n");
    d.hop("250 ok\r\n250 ok\r\n");
    assert_eq!(d.client("DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"), "");
    assert!(d.heard_by_client() == OUT_OF_SYNC && d.client_closed);
}

#[test]
fn pipelining_stays_as_rfc_2920_allows_it() {
    let mut d = strict(Direction::Inbound);
    d.greet();
    let group =
        "RSET\r\nMAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\nRCPT TO:<ben@our.example>\r\nDATA\r\n";
    assert_eq!(d.client(group), group);
    assert_eq!(
        d.hop("250 r\r\n250 m\r\n250 a\r\n250 b\r\n354 go\r\n"),
        "250 r\r\n250 m\r\n250 a\r\n250 b\r\n354 go\r\n"
    );
    // The end of a message and the next transaction, as Exim and Postfix send them.
    let end = "x\r\n.\r\nMAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\n";
    assert_eq!(d.client(end), end);
    assert_eq!(d.hop("250 queued\r\n250 m\r\n250 a\r\n"), "250 queued\r\n250 m\r\n250 a\r\n");
    assert_eq!(d.client("RSET\r\nNOOP\r\nQUIT\r\n"), "RSET\r\nNOOP\r\nQUIT\r\n");
}

#[test]
fn the_answer_to_an_earlier_message_is_not_replaced() {
    let mut d = strict(Direction::Inbound);
    d.greet();
    d.client("MAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\n");
    d.hop("250 m\r\n250 a\r\n354 go\r\n");
    d.client("x\r\n.\r\nMAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\nearly\r\n");
    assert_eq!(d.heard_by_client(), "");
    let said = d.hop("250 queued\r\n250 m\r\n250 a\r\n");
    assert_eq!(said, format!("250 queued\r\n250 m\r\n250 a\r\n{OUT_OF_SYNC}"));
    assert!(d.client_closed && d.finished[0].code == 250);
}

#[test]
fn other_protocols_end_the_session() {
    for sync in [true, false] {
        for first in ["POST / HTTP/1.1\r\n", "Host: mail.our.example\r\n", "CONNECT x:25 HTTP/1.0\r\n"] {
            let mut d = Dialogue::with(Direction::Outbound, 100, |settings| settings.sync = sync, None);
            d.connect();
            let mail = "EHLO x\r\nMAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\nx\r\n.\r\n";
            assert_eq!(d.client(&format!("{first}{mail}")), "", "{first}");
            assert_eq!(d.heard_by_client(), "421 4.7.0 this is SMTP and nothing else\r\n");
            assert!(d.client_closed);
        }
    }
}

#[test]
fn who_asks_for_one_missing_recipient_after_the_other_is_let_go() {
    let few = |settings: &mut Settings| settings.limits.refused_recipients = 3;
    // Refused by this program, one by one; an accepted recipient resets the count.
    let mut d = Dialogue::with(Direction::Inbound, 100, few, None);
    d.greet();
    d.client("MAIL FROM:<bob@else.example>\r\n");
    d.hop("250 ok\r\n");
    for n in 0..10 {
        if n % 3 == 0 {
            d.client("RCPT TO:<ann@our.example>\r\n");
            d.hop("250 ok\r\n");
        }
        d.client("RCPT TO:<x@third.example>\r\n");
        assert!(d.heard_by_client().starts_with("550 5.7.1"), "{n}");
    }
    // Refused by the next hop, pipelined: each recipient gets its reply, and the reply beyond the limit is 421.
    for code in [550, 450] {
        let mut d = Dialogue::with(Direction::Inbound, 100, few, None);
        d.greet();
        d.client("MAIL FROM:<bob@else.example>\r\n");
        d.hop("250 ok\r\n");
        d.client(&"RCPT TO:<nosuch@our.example>\r\n".repeat(5));
        let said = d.hop(&format!("{code} no\r\n").repeat(5));
        if code == 550 {
            assert_eq!(
                said,
                format!("{}421 4.7.0 too many recipients that do not exist here\r\n", "550 no\r\n".repeat(3))
            );
            assert_eq!((d.client_closed, d.limits.as_slice()), (true, &["refused_recipients"][..]));
        } else {
            assert_eq!((said, d.client_closed), ("450 no\r\n".repeat(5), false), "greylisted ones come again");
        }
    }
    // The limit does not apply to outbound mail.
    let mut d = Dialogue::with(Direction::Outbound, 100, few, None);
    d.greet();
    d.client("MAIL FROM:<ann@our.example>\r\n");
    d.hop("250 ok\r\n");
    d.client(&"RCPT TO:<nosuch@third.example>\r\n".repeat(5));
    assert_eq!(d.hop(&"550 no\r\n".repeat(5)), "550 no\r\n".repeat(5));
}

#[test]
fn a_network_that_has_asked_for_too_many_unknown_users_is_put_off() {
    let mut d = Dialogue::ready(Direction::Inbound);
    d.facts.is_limited = true;
    d.client("MAIL FROM:<bob@else.example>\r\n");
    d.hop("250 ok\r\n");
    for n in 0..20 {
        let (user, limits) = (if n % 2 == 0 { "ann" } else { "nobody" }, d.limits.len());
        assert_eq!(d.client(&format!("RCPT TO:<{user}@our.example>\r\n")), "", "the next hop is not asked");
        assert_eq!(
            d.heard_by_client(),
            "450 4.7.1 too many unknown recipients from your network, try again later\r\n",
            "{n}"
        );
        assert_eq!((d.client_closed, limits), (false, 0));
    }
    d.client("RCPT TO:<ann@our.example>\r\nQUIT\r\n");
    assert_eq!(d.heard_by_client(), "421 4.7.1 too many unknown recipients from your network, try again later\r\n");
    assert_eq!((d.client_closed, d.limits.as_slice()), (true, &["unknown_recipients_per_hour"][..]));
}

#[test]
fn each_answer_about_a_recipient_is_reported_in_order() {
    let mut d = Dialogue::ready(Direction::Inbound);
    d.client("MAIL FROM:<bob@else.example>\r\n");
    d.hop("250 ok\r\n");
    // The second is refused here, and the third has a valid form of no tag.
    let names = ["a@our.example", "x@third.example", "b@our.example", "c@our.example", "d@our.example"];
    d.client(&names.map(|name| format!("RCPT TO:<{name}>\r\n")).concat());
    assert_eq!(d.recipients, (4, vec![]));
    d.hop("250 ok\r\n550 5.1.1 no such user\r\n");
    assert_eq!(d.recipients, (2, vec![false, true]));
    d.hop("450 4.2.0 later\r\n550 5.7.1 not you\r\n");
    assert_eq!(d.recipients, (0, vec![false, true, false, false]));
    d.client("VRFY ann\r\nEXPN ann\r\n");
    assert_eq!(d.verified, 2);
    // What leaves is not limited.
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\n");
    d.hop("250 ok\r\n");
    d.client("RCPT TO:<x@third.example>\r\n");
    d.hop("550 5.1.1 no\r\n");
    assert_eq!(d.recipients, (0, vec![]));
}
