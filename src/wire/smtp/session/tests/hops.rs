//! The handshake with a next hop, and next hops that misbehave.

use super::*;

const TLS: &str = "250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n";
const XCLIENT: &str = "250-mx.example\r\n250-PIPELINING\r\n250 XCLIENT NAME ADDR PORT PROTO HELO\r\n";
const XFORWARD: &str = "250-mx.example\r\n250-PIPELINING\r\n250 XFORWARD NAME ADDR PROTO HELO SOURCE\r\n";

fn with(change: impl FnOnce(&mut Settings)) -> Dialogue {
    let mut d = Dialogue::with(Direction::Inbound, 10_000, change, Some("192.0.2.1"));
    d.connect();
    d
}

#[test]
fn tls_is_asked_for_before_the_client_gets_an_answer() {
    for tls in [Tls::May, Tls::Require] {
        let mut d = with(|s| s.hop_tls = tls);
        assert_eq!(d.client("EHLO c.example\r\n"), "EHLO c.example\r\n");
        assert_eq!((d.hop(TLS), d.heard_by_hop()), (String::new(), "STARTTLS\r\n".into()));
        assert_eq!((d.hop("220 go\r\n"), d.secure), (String::new(), (0, 1)));
        d.session.hop_secured();
        assert_eq!(d.heard_by_hop(), "EHLO c.example\r\n");
        assert_eq!(d.hop(EHLO), "250-mx.example\r\n250-PIPELINING\r\n250 DSN\r\n");
        assert_eq!(d.client("MAIL FROM:<>\r\n"), "MAIL FROM:<>\r\n");
    }
}

#[test]
fn without_tls_nothing_goes_where_it_is_required() {
    let mut d = with(|s| s.hop_tls = Tls::Require);
    d.client("EHLO c.example\r\n");
    assert!(d.hop("250 mx.example\r\n").starts_with("421 4.4.1 ") && d.client_closed);
    assert_eq!(d.heard_by_hop(), "");

    let mut d = with(|s| s.hop_tls = Tls::Require);
    d.client("HELO c.example\r\n");
    assert!(d.hop("500 what\r\n").starts_with("421 4.4.1 "));

    let mut d = with(|s| s.hop_tls = Tls::Require);
    d.client("EHLO c.example\r\n");
    d.hop(TLS);
    d.hop("220 go\r\n");
    d.session.hop_not_secured();
    d.run();
    assert!(d.heard_by_client().starts_with("421 4.4.1 ") && d.client_closed);
}

#[test]
fn where_tls_is_only_wished_for_mail_goes_on_without() {
    let mut d = with(|s| s.hop_tls = Tls::May);
    d.client("EHLO c.example\r\n");
    d.hop(TLS);
    d.hop("220 go\r\n");
    d.heard_by_hop();
    d.session.hop_not_secured();
    d.run();
    assert_eq!((d.opened.len(), d.hop_closed), (2, 1));
    d.session.hop_connected(false);
    assert_eq!((d.hop("220 again\r\n"), d.heard_by_hop()), (String::new(), "EHLO c.example\r\n".into()));
    assert_eq!(d.hop(TLS), "250-mx.example\r\n250 PIPELINING\r\n");
}

#[test]
fn what_is_said_before_the_handshake_is_not_believed() {
    let mut d = with(|s| s.hop_tls = Tls::May);
    d.client("EHLO c.example\r\n");
    d.hop(TLS);
    assert!(d.hop("220 go\r\n250 and that\r\n").starts_with("421 4.4.1 "));
    assert_eq!(d.secure, (0, 1), "the handshake that was asked for is of no use any more: the session is over");
    assert!(d.client_closed);
}

#[test]
fn a_next_hop_that_takes_xclient_knows_the_client() {
    for hello in ["EHLO", "HELO"] {
        let mut d = with(|_| {});
        assert_eq!(d.client(&format!("{hello} c.example\r\n")), "EHLO c.example\r\n");
        assert_eq!(d.hop(XCLIENT), "");
        let proto = if hello == "EHLO" { "ESMTP" } else { "SMTP" };
        assert_eq!(
            d.heard_by_hop(),
            format!("XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=1234 PROTO={proto} HELO=c.example\r\n")
        );
        assert_eq!((d.hop("220 mx.example\r\n"), d.heard_by_hop()), (String::new(), "EHLO c.example\r\n".into()));
        let answer =
            if hello == "HELO" { "250 mx.example\r\n" } else { "250-mx.example\r\n250-PIPELINING\r\n250 DSN\r\n" };
        assert_eq!(d.hop(EHLO), answer, "some servers refuse a HELO behind an EHLO");
        assert_eq!(d.client("MAIL FROM:<>\r\n"), "MAIL FROM:<>\r\n");
    }
}

#[test]
fn a_client_that_the_next_hop_refuses_hears_why() {
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    d.hop(XCLIENT);
    assert_eq!(d.hop("554 5.7.1 blocked\r\n"), "554 5.7.1 blocked\r\n");
    // Without XCLIENT, the client would be taken for this program, so it has to repeat EHLO before any mail.
    d.heard_by_hop();
    assert_eq!(d.client("MAIL FROM:<>\r\n"), "");
    assert!(d.heard_by_client().starts_with("503 5.5.1 "));
}

#[test]
fn a_next_hop_that_does_not_understand_xclient_loses_no_mail() {
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    d.hop(XCLIENT);
    assert!(d.hop("501 5.5.4 Bad ADDR syntax\r\n").starts_with("421 4.4.1 ") && d.client_closed);
}

#[test]
fn xforward_travels_with_the_first_mail() {
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    assert_eq!(d.hop(XFORWARD), "250-mx.example\r\n250 PIPELINING\r\n");
    assert_eq!(
        d.client("MAIL FROM:<>\r\n"),
        "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 PROTO=ESMTP HELO=c.example SOURCE=REMOTE\r\nMAIL FROM:<>\r\n"
    );
    assert_eq!(d.hop("250 ok\r\n250 sender ok\r\n"), "250 sender ok\r\n");
    let again = d.client("RSET\r\nMAIL FROM:<>\r\n");
    assert!(
        again.starts_with("RSET\r\nXFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 "),
        "it forgets with each message: {again}"
    );
    // After HELO, XCLIENT and XFORWARD are still available.
    d.hop("250 reset\r\n250 ok\r\n250 ok\r\n");
    d.client("HELO c.example\r\n");
    d.hop("250 mx.example\r\n");
    assert!(d.client("MAIL FROM:<>\r\n").starts_with("XFORWARD "));
}

#[test]
fn the_next_hop_that_relays_never_hears_of_the_client_by_xclient() {
    let mut d = Dialogue::ready(Direction::Outbound);
    let srs = d.client("MAIL FROM:<bob@else.example>\r\n");
    let srs = srs.trim_start_matches("MAIL FROM:<").trim_end_matches(">\r\n").to_owned();
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    d.hop(XCLIENT);
    d.hop("220 mx.example\r\n");
    d.hop(EHLO);
    d.client("MAIL FROM:<>\r\n");
    d.hop("250 ok\r\n");
    d.heard_by_hop();
    d.client(&format!("RCPT TO:<{srs}>\r\n"));
    assert_eq!(d.opened, [NextHopChoice::Main, NextHopChoice::Srs]);
    d.session.hop_connected(false);
    d.hop("220 relay\r\n");
    assert_eq!(d.heard_by_hop(), "EHLO c.example\r\n");
    d.hop(XCLIENT);
    assert_eq!(d.heard_by_hop(), "MAIL FROM:<>\r\nRCPT TO:<bob@else.example>\r\n");
}

#[test]
fn recipients_of_a_domain_go_to_its_own_next_hop() {
    for direction in [Direction::Outbound, Direction::Inbound] {
        let mut d = Dialogue::ready(direction);
        let sender = if direction == Direction::Outbound { "bea@our.example" } else { "bob@else.example" };
        let mail = d.client(&format!("MAIL FROM:<{sender}>\r\n"));
        d.hop("250 ok\r\n");
        assert_eq!(d.client("RCPT TO:<ann@branch.our.example>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\n"), "");
        assert_eq!(d.opened.last(), Some(&NextHopChoice::Domain(0)));
        d.session.hop_connected(false);
        d.hop("220 branch\r\n");
        d.heard_by_hop();
        d.hop(EHLO);
        assert_eq!(d.heard_by_hop(), format!("{mail}RCPT TO:<ann@branch.our.example>\r\nDATA\r\n"));
        let heard = d.hop("250 mail\r\n250 rcpt\r\n354 go\r\n");
        assert!(heard.starts_with("250 rcpt\r\n452 4.5.3 ") && heard.ends_with("354 go\r\n"), "{heard}");
        // The rules are queried only once about a recipient that had to wait for its next hop.
        assert_eq!(d.asked, ["ann@branch.our.example", "ann@our.example"]);
        d.client("x\r\n.\r\n");
        assert_eq!(d.hop("250-it\r\n250 queued as 1\r\n"), "250-it\r\n250 queued as 1\r\n");
        assert_eq!(d.finished.last().unwrap().reply, "250 queued as 1");
        // The next command is for the next hop for all mail; a password is sent to no other.
        let next =
            if direction == Direction::Outbound { "AUTH PLAIN x\r\n" } else { "MAIL FROM:<bob@else.example>\r\n" };
        assert_eq!(d.client(next), "");
        assert_eq!(d.opened.last(), Some(&NextHopChoice::Main));
    }
}

#[test]
fn a_next_hop_of_a_domain_that_is_down_is_the_trouble_of_its_recipients_only() {
    for tls in [Tls::Off, Tls::Require] {
        let mut d = Dialogue::with(Direction::Outbound, 100, |s| s.srs_tls = tls, None);
        d.greet();
        let mail = d.client("MAIL FROM:<ann@our.example>\r\n");
        d.hop("250 ok\r\n");
        d.client("RCPT TO:<x@branch.our.example>\r\nRCPT TO:<y@else.example>\r\nDATA\r\n");
        assert_eq!(d.opened.last(), Some(&NextHopChoice::Domain(0)));
        if tls == Tls::Off {
            d.session.hop_failed();
        } else {
            d.session.hop_connected(false);
            d.session.hop_eof();
        }
        d.run();
        assert!(d.heard_by_client().starts_with("451 4.4.1 ") && !d.client_closed);
        assert_eq!(d.opened.last(), Some(&NextHopChoice::Main));
        d.session.hop_connected(false);
        d.hop("220 again\r\n");
        d.heard_by_hop();
        d.hop(EHLO);
        assert_eq!(d.heard_by_hop(), format!("{mail}RCPT TO:<y@else.example>\r\nDATA\r\n"));
        assert_eq!(d.hop("250 m\r\n250 y\r\n354 go\r\n"), "250 y\r\n354 go\r\n");
    }
}

#[test]
fn what_a_trusted_proxy_says_wrongly_changes_nothing() {
    let mut d = with(|s| s.trusted = true);
    d.client("EHLO c.example\r\n");
    d.hop(XFORWARD);
    d.client("XFORWARD ADDR=198.51.100.7\r\nXFORWARD BOGUS=1\r\n");
    assert!(d.client("MAIL FROM:<>\r\n").contains(" ADDR=198.51.100.7 "));
    d.hop("250 ok\r\n250 ok\r\n");
    assert!(d.client("RSET\r\nXFORWARD BOGUS=1\r\nMAIL FROM:<>\r\n").contains(" ADDR=192.0.2.1 "));
}

#[test]
fn a_next_hop_of_a_domain_may_offer_less() {
    let mut d = Dialogue::new(Direction::Outbound, 100);
    d.connect();
    d.client("EHLO c.example\r\n");
    d.hop("250-mx.example\r\n250-SIZE 9\r\n250-8BITMIME\r\n250 PIPELINING\r\n");
    let begin = |d: &mut Dialogue, params: &str| {
        d.client(&format!("MAIL FROM:<>{params}\r\n"));
        d.hop("250 ok\r\n");
        d.client("RCPT TO:<x@branch.our.example>\r\n");
        d.session.hop_connected(false);
        d.hop("220 branch\r\n");
        d.heard_by_hop();
        d.hop("502 what\r\n");
        assert_eq!(d.heard_by_hop(), "HELO c.example\r\n");
        d.hop("250 branch\r\n");
        d.heard_by_hop()
    };
    assert_eq!(begin(&mut d, " SIZE=5"), "MAIL FROM:<>\r\n");
    d.hop("250 m\r\n");
    assert_eq!(d.hop("250 r\r\n"), "250 r\r\n");
    d.client("RSET\r\n");
    d.hop("250 ok\r\n");
    d.client("MAIL FROM:<> BODY=8BITMIME\r\n");
    d.session.hop_connected(false);
    d.hop("220 mx\r\n");
    d.hop("250-mx.example\r\n250-SIZE 9\r\n250-8BITMIME\r\n250 PIPELINING\r\n");
    d.hop("250 ok\r\n");
    d.client("RCPT TO:<x@branch.our.example>\r\n");
    d.session.hop_connected(false);
    d.hop("220 branch\r\n");
    d.hop("250-branch\r\n250 PIPELINING\r\n");
    let heard = d.hop("555 what\r\n503 need mail\r\n");
    assert!(heard.starts_with("451 4.3.5 "), "{heard}");
}

#[test]
fn no_message_goes_where_its_recipient_could_not() {
    for line in ["DATA\r\n", "BDAT 3 LAST\r\nabc"] {
        let mut d = Dialogue::ready(Direction::Outbound);
        d.client("MAIL FROM:<>\r\n");
        d.hop("250 ok\r\n");
        d.client(&format!("RCPT TO:<x@branch.our.example>\r\n{line}"));
        d.session.hop_failed();
        d.run();
        d.session.hop_connected(false);
        d.hop("220 again\r\n");
        d.heard_by_hop();
        d.hop("250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        assert_eq!(d.heard_by_hop(), "", "{line}");
        assert!(!d.client_closed);
    }
}

#[test]
fn xclient_is_not_skipped_by_a_hello_that_is_not_known_any_more() {
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    d.hop(XCLIENT);
    d.hop("220 mx\r\n");
    assert!(d.hop("502 what\r\n").starts_with("421 4.4.1 ") && d.client_closed);
}

#[test]
fn a_next_hop_that_knows_no_ehlo_is_spoken_to_without() {
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    assert_eq!((d.hop("502 what\r\n"), d.heard_by_hop()), (String::new(), "HELO c.example\r\n".into()));
    assert_eq!(d.hop("250 mx.example\r\n"), "250 mx.example\r\n");
    // A second EHLO, as after STARTTLS.
    assert_eq!(d.client("EHLO c.example\r\n"), "EHLO c.example\r\n");
    assert_eq!((d.hop("502 what\r\n"), d.heard_by_hop()), ("250 mx.example\r\n".into(), "RSET\r\n".into()));
    d.hop("250 ok\r\n");
    assert_eq!(d.client("MAIL FROM:<>\r\n"), "MAIL FROM:<>\r\n");
    // A server that supports neither EHLO nor HELO is not a mail server, or expects something else. Mail must not be
    // lost.
    let mut d = with(|_| {});
    d.client("EHLO c.example\r\n");
    d.hop("500 what\r\n");
    assert!(d.hop("500 what\r\n").starts_with("421 4.4.1 ") && d.client_closed);
    let mut d = with(|s| s.sends_proxy = true);
    d.client("EHLO c.example\r\n");
    assert!(d.hop("500 bad syntax\r\n").starts_with("421 4.4.1 ") && d.client_closed);
}

#[test]
fn what_a_trusted_proxy_says_of_its_client_goes_on() {
    let mut d = with(|s| s.trusted = true);
    d.client("EHLO c.example\r\n");
    let heard = d.hop(XFORWARD);
    assert!(
        heard.contains("250-XCLIENT NAME")
            && heard.ends_with("250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n")
    );
    assert_eq!(d.client("XFORWARD ADDR=198.51.100.7 NAME=far.example HELO=far PROTO=SMTP\r\n"), "");
    assert_eq!(d.heard_by_client(), "250 2.0.0 Ok\r\n");
    assert_eq!(d.named, ["198.51.100.7:0".parse().ok()]);
    assert_eq!(
        d.client("MAIL FROM:<>\r\n"),
        "XFORWARD NAME=far.example ADDR=198.51.100.7 PROTO=SMTP HELO=far SOURCE=REMOTE\r\nMAIL FROM:<>\r\n"
    );
    d.hop("250 ok\r\n250 ok\r\n");
    assert_eq!(d.client("XCLIENT ADDR=198.51.100.8\r\n"), "");
    assert!(d.heard_by_client().starts_with("503 5.5.1 "));
    d.client("RSET\r\n");
    d.hop("250 ok\r\n");
    // Another client needs another connection, whose greeting is the reply.
    assert_eq!(d.client("XCLIENT ADDR=198.51.100.8\r\nEHLO d.example\r\n"), "");
    assert_eq!(d.opened.len(), 2);
    d.session.hop_connected(false);
    assert_eq!(d.hop("220 mx.example\r\n"), "220 mx.example\r\n");
    assert_eq!(d.heard_by_hop(), "EHLO d.example\r\n");
    d.hop(XCLIENT);
    assert!(d.heard_by_hop().contains(" ADDR=198.51.100.8 "));
    d.hop("220 mx.example\r\n");
    // The named client is not trusted.
    assert!(!d.hop(XFORWARD).contains("XCLIENT"));
    d.client("XCLIENT ADDR=127.0.0.1\r\n");
    assert!(d.heard_by_client().starts_with("550 5.7.1 "));
}

#[test]
fn what_was_said_of_one_client_is_not_true_of_the_next() {
    let mut d = with(|s| s.trusted = true);
    d.client("XCLIENT ADDR=198.51.100.7 HELO=good LOGIN=bob\r\n");
    d.session.hop_connected(false);
    d.hop("220 mx\r\n");
    d.session.client_is(true, false);
    d.client("XCLIENT ADDR=198.51.100.8\r\n");
    d.heard_by_hop();
    d.session.hop_connected(false);
    d.hop("220 mx\r\n");
    d.client("EHLO c.example\r\n");
    d.heard_by_hop();
    d.hop("250-mx.example\r\n250 XCLIENT ADDR HELO LOGIN\r\n");
    assert_eq!(d.heard_by_hop(), "XCLIENT ADDR=198.51.100.8 HELO=c.example\r\n");
    // XFORWARD applies to one message, and cannot authenticate a client.
    let mut d = with(|s| s.trusted = true);
    d.client("EHLO c.example\r\n");
    d.hop(XFORWARD);
    d.client("XFORWARD ADDR=198.51.100.7 LOGIN=root\r\n");
    assert!(d.heard_by_client().starts_with("501 5.5.4 "));
    assert!(d.client("XFORWARD ADDR=198.51.100.7\r\nMAIL FROM:<>\r\n").contains(" ADDR=198.51.100.7 "));
    d.hop("250 ok\r\n250 ok\r\n");
    assert!(d.client("RSET\r\nMAIL FROM:<>\r\n").contains(" ADDR=192.0.2.1 "));
    assert_eq!(d.named.last(), Some(&"192.0.2.1:1234".parse().ok()));
}

#[test]
fn another_client_of_the_same_proxy_is_told_on_another_connection() {
    let mut d = with(|s| s.trusted = true);
    d.client("EHLO c.example\r\n");
    d.hop(XCLIENT);
    d.hop("220 mx\r\n");
    d.hop(XCLIENT);
    d.heard_by_hop();
    d.client("XFORWARD ADDR=198.51.100.7\r\nMAIL FROM:<>\r\n");
    assert_eq!((d.opened.len(), d.hop_closed), (2, 1));
    d.session.hop_connected(false);
    d.hop("220 mx\r\n");
    d.hop(XCLIENT);
    assert!(d.heard_by_hop().contains("XCLIENT NAME=[UNAVAILABLE] ADDR=198.51.100.7 "));
    d.hop("220 mx\r\n");
    d.hop(XCLIENT);
    assert_eq!(d.heard_by_hop(), "EHLO c.example\r\nMAIL FROM:<>\r\n");
}

#[test]
fn a_hello_that_is_refused_can_be_said_again() {
    let mut d = with(|_| {});
    d.client("EHLO bad\r\n");
    assert_eq!(d.hop("501 no\r\n"), "501 no\r\n");
    assert_eq!(d.client("EHLO c.example\r\n"), "EHLO c.example\r\n");
    assert_eq!(d.hop(EHLO), "250-mx.example\r\n250-PIPELINING\r\n250 DSN\r\n");
    assert_eq!(d.client("EHLO other.example\r\n"), "EHLO other.example\r\n");
    assert_eq!(d.hop(TLS), "250-mx.example\r\n250 PIPELINING\r\n");
    // A server may accept only one EHLO, although a client repeats it after STARTTLS.
    assert_eq!(d.client("EHLO other.example\r\n"), "EHLO other.example\r\n");
    assert_eq!(d.hop("503 already identified\r\n"), "250-mx.example\r\n250 PIPELINING\r\n");
    assert_eq!(d.heard_by_hop(), "RSET\r\n");
}

#[test]
fn tls_is_promised_towards_a_next_hop_that_is_verified_only() {
    const OFFER: &str = "250-mx.example\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n";
    for (client, hop, verified) in
        [(true, true, true), (true, true, false), (true, false, true), (false, true, true), (false, false, false)]
    {
        let mut d = with(|s| {
            (s.encrypted, s.hop_verified) = (client, verified);
            s.hop_tls = if hop { Tls::Require } else { Tls::Off };
        });
        d.client("EHLO c.example\r\n");
        let mut offered = d.hop(OFFER);
        if hop {
            d.hop("220 go\r\n");
            d.session.hop_secured();
            offered = d.hop(OFFER);
        }
        let promised = client && hop && verified;
        d.heard_by_hop();
        assert_eq!(offered.contains("REQUIRETLS"), promised, "{client} {hop} {verified}");
        let heard = d.client("MAIL FROM:<bob@else.example> REQUIRETLS\r\n");
        assert_eq!(heard.contains("REQUIRETLS"), promised, "{client} {hop} {verified}");
        if !promised {
            assert_eq!(d.heard_by_client(), "555 5.5.4 REQUIRETLS is not available here\r\n");
        }
    }
}

#[test]
fn a_foreign_sender_is_kept_for_local_recipients_by_a_second_mail() {
    let mut d = Dialogue::ready(Direction::Outbound);
    let mail = d.client("MAIL FROM:<bob@else.example>\r\n");
    assert!(mail.starts_with("MAIL FROM:<SRS0="), "{mail}");
    d.hop("250 a\r\n");
    assert_eq!(
        d.client("RCPT TO:<ann@our.example>\r\n"),
        "RSET\r\nMAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\n"
    );
    assert_eq!(d.hop("250 r\r\n250 m\r\n250 b\r\n"), "250 b\r\n");
    assert_eq!(d.client("RCPT TO:<bea@our.example>\r\n"), "RCPT TO:<bea@our.example>\r\n");
    assert_eq!(d.hop("250 c\r\n"), "250 c\r\n");
    assert_eq!(d.client("RCPT TO:<carol@far.example>\r\n"), "");
    assert!(d.heard_by_client().starts_with("452 4.5.3 "));
    // The other way round, one transaction is enough.
    d.client("RSET\r\n");
    d.hop("250 r\r\n");
    assert_eq!(d.client("MAIL FROM:<bob@else.example>\r\n"), mail);
    d.hop("250 a\r\n");
    for to in ["carol@far.example", "ann@our.example"] {
        assert_eq!(d.client(&format!("RCPT TO:<{to}>\r\n")), format!("RCPT TO:<{to}>\r\n"));
        assert_eq!(d.hop("250 b\r\n"), "250 b\r\n");
    }
}
