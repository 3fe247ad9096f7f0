//! Verdicts on messages other than delivery and refusal: discarding, quarantine, decisions at the end of the message,
//! and evidence.

use super::*;
use crate::envelope::address::ReversePath;
use crate::envelope::rules::ContentVerdict;
use crate::envelope::site_policy::{FailureAction, FailureReason};

const CHUNKING: &str = "250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n";

fn inbound(hold: usize, action: FailureAction) -> Dialogue {
    let mut d = Dialogue::new(Direction::Inbound, hold);
    d.policy.inbound.actions.default = action;
    d.policy.inbound.evidence = true;
    d.policy.inbound.quarantine_to = Some(Address::parse("aside@our.example").unwrap());
    d.greet_with(CHUNKING);
    d
}

/// Begins a null-sender transaction with this recipient, up to DATA or BDAT.
fn begun(d: &mut Dialogue, recipient: &str) {
    d.client(&format!("MAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\n"));
    d.hop("250 m\r\n250 r\r\n");
    d.heard_by_client();
}

fn bdat(text: &str, last: bool) -> String {
    format!("BDAT {}{}\r\n{text}", text.len(), if last { " LAST" } else { "" })
}

/// Sends a whole message, in chunks or not, and returns the output to the next hop.
fn send_whole(d: &mut Dialogue, text: &str, chunks: bool) -> String {
    if chunks {
        return d.client(&bdat(text, true));
    }
    d.client("DATA\r\n");
    d.heard_by_client();
    d.client(&format!("{text}.\r\n"))
}

const MARK: &str = "Countersign-Result: v=1; verdict=untagged; would=quarantine; reason=untagged-ndr\r\n";
const ASIDE: &str = "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<aside@our.example>\r\n";

#[test]
fn what_is_discarded_at_rcpt_never_reaches_the_next_hop() {
    let mut d = inbound(10_000, FailureAction::Discard);
    d.client("MAIL FROM:<>\r\n");
    d.hop("250 m\r\n");
    assert_eq!(d.client("RCPT TO:<prvs=1111aaaaaa=ann@our.example>\r\nDATA\r\n"), "RSET\r\n");
    assert_eq!(d.heard_by_client(), "250 2.1.5 Ok\r\n");
    assert!(d.hop("250 reset\r\n").starts_with("354 "));
    assert_eq!(d.client("A: b\r\n\r\nx\r\n.\r\nMAIL FROM:<>\r\n"), "MAIL FROM:<>\r\n");
    assert_eq!(d.heard_by_client(), "250 2.0.0 Ok\r\n");
    assert_eq!((d.finished.len(), d.finished[0].code), (1, 250));
    d.hop("250 m\r\n");
    d.client("RCPT TO:<prvs=1111aaaaaa=ann@our.example>\r\n");
    assert_eq!(d.heard_by_client(), "250 2.1.5 Ok\r\n");
    // A genuine recipient cannot share the transaction of a discarded one.
    let signed = d.signed("ann@our.example");
    assert_eq!(d.client(&format!("RCPT TO:<{signed}>\r\n")), "");
    assert!(d.heard_by_client().starts_with("452 4.5.3"));
    assert_eq!(d.client(&bdat("A: b\r\n", false)), "");
    assert_eq!(d.heard_by_client(), "250 2.0.0 Ok\r\n");
    assert_eq!(d.client(&bdat("\r\nx", true)), "RSET\r\n");
    assert_eq!(d.heard_by_client() + &d.hop("250 reset\r\n"), "250 2.0.0 Ok\r\n");
    assert_eq!(d.finished.len(), 2);
    assert_eq!(d.client("RCPT TO:<ann@our.example>\r\n"), "");
    assert!(d.heard_by_client().starts_with("503 "));
}

#[test]
fn what_is_discarded_for_its_content_is_answered_as_taken() {
    for hold in [10_000, 1] {
        for last in [dsn("failed"), format!("{}{}", dsn("failed"), "x\r\n".repeat(100))] {
            let mut d = inbound(hold, FailureAction::Discard);
            begun(&mut d, "ann@our.example");
            assert_eq!(d.client("DATA\r\n"), "");
            d.heard_by_client();
            let mut heard = d.client(&format!("{last}.\r\n"));
            let mut said = d.heard_by_client();
            if hold == 1 {
                // The message exceeds the buffer: the next hop has the beginning, and is not sent the end.
                assert_eq!(heard, "DATA\r\n");
                said += &d.hop("354 go\r\n");
                heard = d.heard_by_hop();
                assert!(!heard.contains("\r\n.\r\n") && d.hop_closed == 1, "{heard}");
            } else {
                assert_eq!(heard, "RSET\r\n");
            }
            assert_eq!(said, "250 2.0.0 Ok\r\n");
            assert_eq!(d.finished[0].code, 250);

            let mut d = inbound(hold, FailureAction::Discard);
            begun(&mut d, "ann@our.example");
            let heard = d.client(&bdat(&last, true));
            assert!(!heard.contains(" LAST"), "{heard}");
            let replies = "250 ok\r\n".repeat(heard.matches("BDAT ").count() + heard.matches("RSET\r\n").count());
            let said = d.heard_by_client() + &d.hop(&replies);
            assert_eq!(said, "250 2.0.0 Ok\r\n", "{heard}");
        }
    }
}

#[test]
fn what_is_put_aside_goes_to_somebody_else_with_a_mark() {
    let mut d = inbound(10_000, FailureAction::Quarantine);
    begun(&mut d, "ann@our.example");
    d.client("DATA\r\n");
    d.heard_by_client();
    assert_eq!(d.client(&format!("{}.\r\n", dsn("failed"))), ASIDE);
    assert_eq!(d.hop("250 reset\r\n250 m\r\n250 r\r\n"), "");
    assert_eq!(d.heard_by_hop(), "DATA\r\n");
    assert_eq!(d.hop("354 go\r\n"), "");
    assert_eq!(d.heard_by_hop(), format!("{MARK}{}.\r\n", dsn("failed")));
    assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");

    begun(&mut d, "ann@our.example");
    let message = format!("{MARK}{}", dsn("failed"));
    assert_eq!(d.client(&bdat(&dsn("failed"), true)), ASIDE);
    d.hop("250 reset\r\n250 m\r\n250 r\r\n");
    assert_eq!(d.heard_by_hop(), bdat(&message, true));
    assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
    assert_eq!(d.finished.len(), 2);
}

#[test]
fn where_it_cannot_be_put_aside_it_is_a_later() {
    for replies in ["250 m\r\n550 no such user\r\n", "451 no\r\n503 no\r\n"] {
        let mut d = inbound(10_000, FailureAction::Quarantine);
        begun(&mut d, "ann@our.example");
        d.client("DATA\r\n");
        d.heard_by_client();
        d.client(&format!("{}.\r\n", dsn("failed")));
        let heard = d.hop(&format!("250 reset\r\n{replies}"));
        assert!(heard.starts_with("451 4.3.0 ") && heard.lines().count() == 1, "{heard}");
        assert_eq!(d.heard_by_hop(), "RSET\r\n", "it hears nothing of the message");

        let mut d = inbound(10_000, FailureAction::Quarantine);
        begun(&mut d, "ann@our.example");
        d.client(&bdat(&dsn("failed"), true));
        let heard = d.hop(&format!("250 reset\r\n{replies}")) + &d.hop("250 reset\r\n");
        assert!(heard.starts_with("451 4.3.0 ") && heard.lines().count() == 1, "{heard}");
        assert_eq!(d.heard_by_hop(), "RSET\r\n");
    }
}

#[test]
fn a_next_hop_that_is_lost_while_it_is_asked_for_another_recipient_is_a_later() {
    for chunks in [false, true] {
        for size in [10_000, 165] {
            let mut d = inbound(size, FailureAction::Quarantine);
            d.policy.inbound.evidence = false;
            begun(&mut d, "ann@our.example");
            send_whole(&mut d, &dsn("failed"), chunks);
            d.hop("250 reset\r\n");
            d.session.hop_eof();
            d.run();
            let said = d.heard_by_client();
            assert!(said.starts_with("451 4.4.2 ") && said.lines().count() == 1, "{chunks} {size}: {said:?}");
            assert!(!d.client_closed);
        }
    }
}

#[test]
fn a_next_hop_that_keeps_the_recipient_gets_nothing_of_what_is_put_aside() {
    for chunks in [false, true] {
        // RSET or the sender is refused, but the other recipient is accepted all the same.
        for replies in ["502 what\r\n503 nested MAIL\r\n250 r\r\n", "250 reset\r\n503 nested MAIL\r\n250 r\r\n"] {
            let mut d = inbound(10_000, FailureAction::Quarantine);
            begun(&mut d, "ann@our.example");
            assert_eq!(send_whole(&mut d, &dsn("failed"), chunks), ASIDE);
            let said = d.hop(replies);
            assert!(said.starts_with("451 4.") && said.lines().count() == 1, "{chunks} {replies}: {said:?}");
            let heard = d.heard_by_hop();
            assert!(heard.is_empty() || heard == "RSET\r\n", "{chunks} {replies}: {heard}");
            assert_eq!(d.hop_closed, usize::from(replies.starts_with("502")), "{chunks} {replies}");
        }
    }
}

#[test]
fn a_next_hop_that_does_not_pipeline_is_led_step_by_step() {
    let mut d = Dialogue::new(Direction::Inbound, 10_000);
    d.policy.inbound.actions.by_reason = vec![(FailureReason::UntaggedNdr, FailureAction::Quarantine)];
    d.policy.inbound.quarantine_to = Some(Address::parse("aside@our.example").unwrap());
    d.connect();
    d.client("EHLO c.example\r\n");
    d.hop("250 mx.example\r\n");
    d.client("MAIL FROM:<>\r\n");
    d.hop("250 m\r\n");
    d.client("RCPT TO:<ann@our.example>\r\n");
    d.hop("250 r\r\n");
    d.client("DATA\r\n");
    let mut heard = d.client(&format!("{}.\r\n", dsn("failed")));
    for (want, reply) in [
        ("RSET\r\n", "250 x\r\n"),
        ("MAIL FROM:<>\r\n", "250 x\r\n"),
        ("RCPT TO:<aside@our.example>\r\n", "250 x\r\n"),
        ("DATA\r\n", "354 go\r\n"),
    ] {
        assert_eq!(heard, want);
        d.hop(reply);
        heard = d.heard_by_hop();
    }
    assert_eq!(heard, format!("{MARK}{}.\r\n", dsn("failed")));
}

fn evidence(d: &Dialogue, id: &str) -> String {
    let rules = Rules::new(&d.policy, &d.ring, NOW);
    let sender = ReversePath::parse("ann@our.example").unwrap();
    rules.evidence([7; 10], Some(id), None, &sender).unwrap().line
}

/// A failure report that returns an original of Ann's, after so many lines of text.
fn returning(evidence: &str, lines: usize) -> String {
    let original = format!(
        "--b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <1@our.example>\r\n{evidence}\r\n\r\nx\r\n--b--\r\n"
    );
    dsn("failed").replace("--b--\r\n", &format!("{}{original}", "--b\r\n\r\ntext\r\n".repeat(lines)))
}

#[test]
fn evidence_rescues_before_and_behind_the_hold() {
    for (hold, lines) in [(10_000, 0), (500, 100)] {
        for (id, rescued) in [("<1@our.example>", true), ("<2@our.example>", false)] {
            let mut d = inbound(hold, FailureAction::Reject);
            let text = returning(&evidence(&d, id), lines);
            begun(&mut d, "ann@our.example");
            d.client("DATA\r\n");
            d.heard_by_client();
            let heard = d.client(&format!("{text}.\r\n"));
            let mut said = d.heard_by_client();
            if rescued || lines > 0 {
                assert_eq!(heard, "DATA\r\n");
                said += &d.hop("354 go\r\n");
                let passed = d.heard_by_hop();
                assert_eq!(passed.ends_with("\r\n.\r\n"), rescued, "{lines} {id}");
            } else {
                assert_eq!(heard, "RSET\r\n");
            }
            assert_eq!((said.is_empty(), said.starts_with("550 5.7.1")), (rescued, !rescued), "{said}");

            let mut d = inbound(hold, FailureAction::Reject);
            begun(&mut d, "ann@our.example");
            let heard = d.client(&bdat(&text, true));
            assert_eq!(heard.contains(" LAST\r\n"), rescued, "{heard}");
            let replies = "250 ok\r\n".repeat(heard.matches("BDAT ").count() + heard.matches("RSET\r\n").count());
            let said = d.heard_by_client() + &d.hop(&replies);
            assert_eq!(&said[..3], if rescued { "250" } else { "550" }, "{said}");
        }
    }
}

#[test]
fn mail_of_ours_leaves_with_evidence_last_in_its_header_block() {
    let message = "Subject: x\r\nMessage-ID: <1@our.example>\r\nFrom: Bea <bea@our.example>\r\n\r\nHello\r\n";
    for size in [1, 5, 1000] {
        let mut d = Dialogue::new(Direction::Outbound, 100);
        d.policy.outbound.evidence = true;
        d.connect();
        d.client("EHLO c.example\r\n");
        d.hop(CHUNKING);
        let rules = Rules::new(&d.policy, &d.ring, NOW);
        let ann = ReversePath::parse("ann@our.example").unwrap();
        // A bounce that is addressed by the header From would go to Bea.
        let line = rules.evidence([7; 10], Some("<1@our.example>"), Some("bea@our.example"), &ann).unwrap().line;
        let want = message.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
        d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
        d.hop("250 m\r\n250 r\r\n354 go\r\n");
        let mut heard = String::new();
        for piece in format!("{message}.\r\nQUIT\r\n").as_bytes().chunks(size) {
            heard += &d.client(std::str::from_utf8(piece).unwrap());
        }
        assert_eq!(heard, format!("{want}.\r\nQUIT\r\n"), "pieces of {size}");
    }
    // In chunks that are split anywhere, the announced sizes are correct.
    for cut in 0..message.len() {
        let mut d = Dialogue::new(Direction::Outbound, 100);
        d.policy.outbound.evidence = true;
        d.connect();
        d.client("EHLO c.example\r\n");
        d.hop(CHUNKING);
        d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\n");
        d.hop("250 m\r\n250 r\r\n");
        let mut heard = d.client(&bdat(&message[..cut], false));
        let replies = "250 ok\r\n".repeat(heard.matches("BDAT ").count());
        let said = d.heard_by_client() + &d.hop(&replies);
        assert_eq!(said.lines().count(), 1, "{cut}: {said}");
        heard += &d.client(&bdat(&message[cut..], true));
        let (mut text, mut rest) = (String::new(), heard.as_str());
        while let Some((command, after)) = rest.split_once("\r\n") {
            let size: usize = command.split(' ').nth(1).unwrap().parse().unwrap();
            text += &after[..size];
            rest = &after[size..];
        }
        assert!(rest.is_empty() && heard.matches(" LAST").count() == 1, "{cut}: {heard}");
        let (before, evidence) = text.split_once("Countersign-Evidence: ").unwrap();
        assert!(before.ends_with("bea@our.example>\r\n"), "{cut}: {text}");
        assert!(evidence.split_once("\r\n").unwrap().1.starts_with("\r\nHello"), "{cut}: {text}");
    }
}

#[test]
fn a_header_block_without_an_end_is_not_gathered() {
    // A header block without an end, or a message without a header block, must not fill memory.
    for (direction, begin) in [
        (Direction::Inbound, "no header here\r\n"),
        (Direction::Outbound, "\r\n"),
        (Direction::Outbound, "no header here\r\n"),
    ] {
        let mut d = Dialogue::new(direction, 100);
        d.policy.outbound.evidence = true;
        d.connect();
        d.client("EHLO c.example\r\n");
        d.hop(CHUNKING);
        let sender = if direction == Direction::Inbound { "eve@else.example" } else { "ann@our.example" };
        let recipient = if direction == Direction::Inbound { "ann@our.example" } else { "x@else.example" };
        d.client(&format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n"));
        d.hop("250 m\r\n250 r\r\n");
        let piece = "text that is no header\r\n".repeat(2000);
        let mut heard = d.client(&format!("BDAT {} LAST\r\n{begin}", begin.len() + 10 * piece.len())).len();
        let mut sent = begin.len();
        for _ in 0..10 {
            let passed = d.client(&piece);
            heard += passed.len();
            sent += piece.len();
            assert!(heard + 5000 > sent, "{direction:?} {begin:?}: {} octets are held", sent - heard);
            d.hop(&"250 chunk\r\n".repeat(passed.matches("BDAT ").count() - usize::from(passed.contains(" LAST"))));
        }
    }
}

#[test]
fn what_is_put_aside_too_late_is_a_later() {
    let mut d = inbound(16, FailureAction::Quarantine);
    d.policy.inbound.evidence = false;
    let text = format!(
        "Content-Type: text/plain\r\nFrom: MAILER-DAEMON@x.example\r\n\r\n{}mail delivery failed\r\n<b@x.example>: user unknown\r\n",
        "x\r\n".repeat(50)
    );
    begun(&mut d, "ann@our.example");
    d.client("DATA\r\n");
    d.heard_by_client();
    assert_eq!(d.client(&format!("{text}.\r\n")), "DATA\r\n");
    let said = d.hop("354 go\r\n");
    assert!(said.starts_with("451 4.3.0 ") && d.hop_closed == 1, "{said}");
    assert!(!d.heard_by_hop().ends_with(".\r\n"));

    let mut d = inbound(16, FailureAction::Quarantine);
    begun(&mut d, "ann@our.example");
    let heard = d.client(&bdat(&text, true));
    assert!(!heard.contains("LAST"), "{heard}");
    let said = d.hop(&"250 ok\r\n".repeat(heard.matches("BDAT ").count()));
    assert!(said.starts_with("451 4.3.0 "), "{said}");
}

#[test]
fn chunks_wait_where_nothing_may_be_pipelined() {
    let mut d = Dialogue::new(Direction::Inbound, 10_000);
    d.policy.inbound.actions.default = FailureAction::Quarantine;
    d.policy.inbound.quarantine_to = Some(Address::parse("aside@our.example").unwrap());
    d.connect();
    d.client("EHLO c.example\r\n");
    d.hop("250-mx.example\r\n250 CHUNKING\r\n");
    for command in ["MAIL FROM:<>", "RCPT TO:<ann@our.example>"] {
        d.client(&format!("{command}\r\n"));
        d.hop("250 ok\r\n");
    }
    let mut heard = d.client(&bdat(&dsn("failed"), true));
    for want in ["RSET\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<aside@our.example>\r\n"] {
        assert_eq!(heard, want);
        assert_eq!(d.hop("250 ok\r\n"), "");
        heard = d.heard_by_hop();
    }
    assert_eq!(heard, bdat(&format!("{MARK}{}", dsn("failed")), true));
    assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
}

#[test]
fn lmtp_answers_for_each_recipient_of_what_is_put_aside() {
    let mut d = Dialogue::with(Direction::Inbound, 10_000, |s| s.lmtp = true, None);
    d.policy.inbound.actions.default = FailureAction::Quarantine;
    d.policy.inbound.quarantine_to = Some(Address::parse("aside@our.example").unwrap());
    d.connect();
    d.client("LHLO c.example\r\n");
    d.hop(EHLO);
    d.client("MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\nRCPT TO:<ann@our.example>\r\n");
    d.hop("250 m\r\n250 a\r\n250 a\r\n");
    d.client("DATA\r\n");
    d.heard_by_client();
    let aside = "RCPT TO:<aside@our.example>\r\n";
    assert_eq!(d.client(&format!("{}.\r\n", dsn("failed"))), format!("RSET\r\nMAIL FROM:<>\r\n{aside}{aside}"));
    d.hop("250 x\r\n250 m\r\n250 r\r\n250 r\r\n");
    assert_eq!(d.heard_by_hop(), "DATA\r\n");
    d.hop("354 go\r\n");
    assert!(d.heard_by_hop().ends_with("\r\n.\r\n"));
    assert_eq!(d.hop("250 one\r\n250 two\r\n"), "250 one\r\n250 two\r\n");
}

#[test]
fn what_is_thrown_away_in_chunks_is_taken_to_its_end() {
    let mut d = inbound(165, FailureAction::Discard);
    d.policy.inbound.evidence = false;
    begun(&mut d, "ann@our.example");
    assert_eq!(d.client(&bdat(&dsn("failed"), false)), "RSET\r\n");
    assert_eq!(d.heard_by_client() + &d.hop("250 reset\r\n"), "250 2.0.0 Ok\r\n");
    let heard = d.client(&bdat("more\r\n", true));
    assert_eq!((heard.as_str(), d.hop("250 reset\r\n").as_str()), ("RSET\r\n", "250 2.0.0 Ok\r\n"));
    assert_eq!((d.finished.len(), d.finished[0].code), (1, 250));
}

/// Handles events, but leaves a question about a whole message or its evidence unanswered.
fn leaves_open(d: &mut Dialogue) -> bool {
    while let Some(event) = d.session.next_event() {
        match event {
            Event::Ask => match d.session.question().unwrap() {
                Question::Hold => d.session.answer(Answer::Hold(true)),
                Question::Content { complete: false, .. } => d.session.answer(Answer::Content(&ContentVerdict::Later)),
                Question::Content { .. } | Question::Evidence { .. } => return true,
                Question::Mail { .. } | Question::Rcpt { .. } => d.answer(),
            },
            Event::CloseHop => d.session.out.to_hop.clear(),
            Event::Open(target) => d.opened.push(target),
            _ => {}
        }
    }
    false
}

#[test]
fn an_answer_that_comes_after_the_next_hop_is_lost_changes_nothing() {
    let long = format!("{}{}", dsn("failed"), "x\r\n".repeat(100));
    for (direction, hold, chunks) in [
        (Direction::Inbound, 10_000, false),
        (Direction::Inbound, 10_000, true),
        (Direction::Inbound, 300, false),
        (Direction::Inbound, 300, true),
        (Direction::Outbound, 10_000, false),
        (Direction::Outbound, 10_000, true),
    ] {
        let case = format!("{direction:?} {hold} {chunks}");
        let mut d = inbound(hold, FailureAction::Reject);
        if direction == Direction::Outbound {
            d = Dialogue::new(direction, hold);
            d.policy.outbound.evidence = true;
            d.greet_with(CHUNKING);
            d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\n");
            d.hop("250 m\r\n250 r\r\n");
        } else {
            begun(&mut d, "ann@our.example");
        }
        let message = if chunks { bdat(&long, true) } else { format!("DATA\r\n{long}.\r\n") };
        d.session.client_data(message.as_bytes());
        let mut open = leaves_open(&mut d);
        if !open && !chunks {
            assert!(d.heard_by_hop().ends_with("DATA\r\n"), "{case}");
            d.session.hop_data(b"354 go\r\n");
            open = leaves_open(&mut d);
        }
        assert!(open, "{case}");
        d.heard_by_client();
        // The next hop is lost while a question is open.
        d.session.hop_eof();
        assert!(!leaves_open(&mut d), "{case}");
        let said = d.heard_by_client();
        assert!(said.starts_with("451 4.4.2 ") && said.lines().count() == 1, "{case}: {said}");
        assert_eq!(d.session.question(), None, "{case}");
        d.session.answer(Answer::Content(&ContentVerdict::Deliver));
        d.session.answer(Answer::Evidence(Some("X: y".into())));
        assert!(!leaves_open(&mut d), "{case}");
        assert_eq!((d.heard_by_client(), d.heard_by_hop()), (String::new(), String::new()), "{case}");
        // Further input is a command, for a new connection.
        let opened = d.opened.len();
        d.session.client_data(b"NOOP\r\n");
        leaves_open(&mut d);
        assert_eq!(d.opened.len(), opened + 1, "{case}");
    }
}

/// Handles events up to the next question, which stays open.
fn asks(d: &mut Dialogue) -> bool {
    while let Some(event) = d.session.next_event() {
        match event {
            Event::Ask => return true,
            Event::CloseHop => d.session.out.to_hop.clear(),
            _ => {}
        }
    }
    false
}

#[test]
fn a_sender_whose_next_hop_is_lost_before_the_answer_gets_a_later() {
    let mut d = Dialogue::new(Direction::Outbound, 0);
    d.greet();
    d.session.client_data(b"MAIL FROM:<ann@our.example>\r\n");
    assert!(asks(&mut d));
    d.session.hop_eof();
    assert!(d.heard_by_client().starts_with("421 4.4.2 "));
    assert!(d.session.question().is_none() && d.session.is_closed());
    let rules = Rules::new(&d.policy, &d.ring, NOW);
    let outbound = rules.outbound(None, &ReversePath::parse("ann@our.example").unwrap(), None);
    d.session.answer(Answer::Sender(&outbound));
    assert_eq!((d.heard_by_client(), d.heard_by_hop()), (String::new(), String::new()));
}

#[test]
fn a_recipient_whose_mail_is_refused_before_the_answer_is_answered() {
    let mut d = inbound(0, FailureAction::Reject);
    d.client("MAIL FROM:<bob@third.example>\r\n");
    d.heard_by_hop();
    d.session.client_data(b"RCPT TO:<ann@our.example>\r\nNOOP\r\n");
    assert!(asks(&mut d));
    d.session.hop_data(b"550 no\r\n");
    assert_eq!(d.heard_by_client(), "550 no\r\n");
    // The transaction is kept until the rules have answered.
    assert!(d.session.question().is_some());
    d.answer();
    asks(&mut d);
    assert_eq!(d.heard_by_client(), "503 5.5.1 need MAIL command\r\n");
    assert_eq!(d.heard_by_hop(), "NOOP\r\n");
    assert_eq!(d.hop("250 ok\r\n"), "250 ok\r\n");
}
