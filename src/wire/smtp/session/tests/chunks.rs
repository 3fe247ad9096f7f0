//! Messages in chunks (RFC 3030).

use super::*;

const CHUNKING: &str = "250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n";

fn ready(direction: Direction, hold: usize) -> Dialogue {
    let mut d = Dialogue::new(direction, hold);
    d.connect();
    d.client("EHLO c.example\r\n");
    assert_eq!(d.hop(CHUNKING), CHUNKING);
    d
}

fn envelope(d: &mut Dialogue, sender: &str) {
    d.client(&format!("MAIL FROM:<{sender}>\r\nRCPT TO:<ann@our.example>\r\n"));
    assert_eq!(d.hop("250 a\r\n250 b\r\n"), "250 a\r\n250 b\r\n");
}

fn chunk(text: &str, last: bool) -> String {
    format!("BDAT {}{}\r\n{text}", text.len(), if last { " LAST" } else { "" })
}

#[test]
fn everything_in_one_packet_leaves_in_one_packet() {
    let mut d = ready(Direction::Outbound, 100);
    let signed = d.signed("ann@our.example");
    let rest = format!("RCPT TO:<x@else.example>\r\n{}{}QUIT\r\n", chunk("A: b\r\n\r\n.\r\n", false), chunk("c", true));
    assert_eq!(d.client(&format!("MAIL FROM:<ann@our.example>\r\n{rest}")), format!("MAIL FROM:<{signed}>\r\n{rest}"));
    let heard = d.hop("250 a\r\n250 b\r\n250 chunk\r\n250 queued\r\n221 bye\r\n");
    assert_eq!(heard, "250 a\r\n250 b\r\n250 chunk\r\n250 queued\r\n221 bye\r\n");
    assert_eq!((d.finished.len(), d.finished[0].code), (1, 250));
}

#[test]
fn what_is_taken_out_of_a_header_changes_the_length() {
    let text = "Countersign-Result: v=1\r\n folded\r\nA: b\r\n\r\nCountersign-Result: body\r\n";
    for size in 1..text.len() {
        let mut d = ready(Direction::Inbound, 10_000);
        envelope(&mut d, "bob@else.example");
        let mut heard = String::new();
        for piece in chunk(text, true).as_bytes().chunks(size) {
            heard += &d.client(std::str::from_utf8(piece).unwrap());
        }
        assert_eq!(heard, chunk("A: b\r\n\r\nCountersign-Result: body\r\n", true), "pieces of {size}");
        assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
        // In chunks: each has its reply, whatever is left of it.
        envelope(&mut d, "bob@else.example");
        let (head, tail) = text.split_at(size);
        d.client(&chunk(head, false));
        assert_eq!(d.hop("250 chunk\r\n"), "250 chunk\r\n");
        d.client(&chunk(tail, true));
        assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
    }
}

#[test]
fn a_long_header_goes_on_in_pieces() {
    let mut d = ready(Direction::Inbound, 10_000);
    envelope(&mut d, "bob@else.example");
    let text = format!("{}\r\nx", "A: a header that is long\r\n".repeat(400));
    let mut heard = String::new();
    for piece in chunk(&text, true).as_bytes().chunks(1000) {
        heard += &d.client(std::str::from_utf8(piece).unwrap());
        assert!(d.session.to_hop.len() < 8192);
    }
    let pieces = heard.matches("BDAT ").count();
    assert!(pieces > 1 && heard.matches(" LAST\r\n").count() == 1, "{pieces}");
    let quiet = "250 ok\r\n".repeat(pieces - 1);
    assert_eq!(d.hop(&format!("{quiet}250 queued\r\n")), "250 queued\r\n");
    // A piece that is refused is the answer to the chunk.
    envelope(&mut d, "bob@else.example");
    for piece in chunk(&text, true).as_bytes().chunks(1000) {
        d.client(std::str::from_utf8(piece).unwrap());
    }
    assert_eq!(d.hop("452 full\r\n"), "");
    let heard = d.hop(&"503 what\r\n".repeat(pieces - 1));
    assert_eq!((heard.as_str(), d.finished.last().unwrap().code), ("452 full\r\n", 452));
}

#[test]
fn a_candidate_is_held_and_judged() {
    let mut d = ready(Direction::Inbound, 10_000);
    let text = dsn("failed");
    let (head, tail) = text.split_at(100);
    envelope(&mut d, "");
    assert_eq!(d.client(&chunk(head, false)), "");
    assert_eq!(d.heard_by_client(), "250 2.0.0 100 octets received\r\n");
    assert_eq!(d.client(&chunk(tail, true)), "RSET\r\n");
    assert!(d.heard_by_client().starts_with("550 5.7.1 "));
    assert_eq!((d.hop("250 reset\r\n").as_str(), d.hop_closed), ("", 0));
    // What is no bounce goes on, as one chunk.
    envelope(&mut d, "");
    d.client(&chunk("A: b\r\nCountersign-X: y\r\n", false));
    d.heard_by_client();
    assert_eq!(d.client(&chunk("\r\nAway.\r\n", true)), chunk("A: b\r\n\r\nAway.\r\n", true));
    assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
}

#[test]
fn observing_marks_chunks_too() {
    let mut d = ready(Direction::Inbound, 10_000);
    d.policy.inbound.mode = InboundMode::Observe;
    let mark = "Countersign-Result: v=1; verdict=untagged; would=reject; reason=untagged-ndr\r\n";
    envelope(&mut d, "");
    assert_eq!(d.client(&chunk(&dsn("failed"), true)), chunk(&format!("{mark}{}", dsn("failed")), true));
    d.hop("250 ok\r\n");
    d.client("MAIL FROM:<>\r\nRCPT TO:<prvs=1111aaaaaa=ann@our.example>\r\n");
    d.hop("250 a\r\n250 b\r\n");
    let mark = "Countersign-Result: v=1; verdict=forged; would=reject; reason=forged\r\n";
    assert_eq!(d.client(&chunk(" folded\r\n", true)), chunk(&format!("{mark}\r\n folded\r\n"), true));
}

#[test]
fn what_is_longer_than_the_hold_goes_on_without_its_last_word() {
    for (action, wanted) in [("failed", false), ("delivered", true)] {
        let text = dsn(action);
        for at in [1, 63, 64, 65, 100, text.len() - 1] {
            let mut d = ready(Direction::Inbound, 64);
            envelope(&mut d, "");
            let (head, tail) = text.split_at(at);
            let mut to_hop = d.client(&chunk(head, false));
            assert!(!to_hop.contains("LAST"));
            let replies = "250 ok\r\n".repeat(to_hop.matches("BDAT ").count());
            let heard = d.heard_by_client() + &d.hop(&replies);
            assert!(heard.starts_with("250 ") && heard.matches("\r\n").count() == 1, "{at}: {heard}");
            to_hop = d.client(&chunk(tail, true));
            assert_eq!(to_hop.ends_with("BDAT 0 LAST\r\n"), wanted, "{at}");
            assert_eq!(to_hop.ends_with("RSET\r\n"), !wanted, "{at}");
            let replies = "250 ok\r\n".repeat(to_hop.matches("BDAT ").count() + to_hop.matches("RSET").count());
            let heard = d.heard_by_client() + &d.hop(&replies);
            assert!(heard.starts_with(if wanted { "250 ok" } else { "550 5.7.1" }), "{at}: {heard}");
            assert_eq!((heard.matches("\r\n").count(), d.hop_closed, d.finished.len()), (1, 0, 1), "{at}");
        }
    }
}

#[test]
fn octets_of_a_chunk_are_never_commands() {
    for (before, want) in [("", "503 5.5.1 send"), ("EHLO c.example\r\n", "503 5.5.1 need"), ("bad size", "501 5.5.4")]
    {
        let mut d = Dialogue::new(Direction::Outbound, 100);
        d.connect();
        if before.starts_with("EHLO") {
            d.client(before);
            d.hop(CHUNKING);
        }
        let size = if before == "bad size" { "x" } else { "30" };
        assert_eq!(
            d.client(&format!("BDAT {size} LAST\r\nMAIL FROM:<evil@x.example>\r\n\r\nNOOP\r\n")),
            if size == "x" { "" } else { "NOOP\r\n" }
        );
        assert!(d.heard_by_client().starts_with(want), "{before}");
        assert_eq!(d.client_closed, size == "x");
    }
    // Not offered: the same.
    let mut d = Dialogue::ready(Direction::Outbound);
    assert_eq!(d.client("BDAT 6\r\nDATA\r\nNOOP\r\n"), "NOOP\r\n");
    assert!(d.heard_by_client().starts_with("502 5.5.1 "));
}

#[test]
fn odd_octets_in_chunks() {
    for (text, want) in [
        ("x\n.\r\nMAIL FROM:<evil@x.example>\r\n", "550 5.5.2"),
        ("x\r\n.\rMAIL FROM:<evil@x.example>\r\n", "550 5.5.2"),
        ("x\r.\r\n", "550 5.5.2"),
        ("x\0y", "550 5.6.0"),
    ] {
        for direction in [Direction::Outbound, Direction::Inbound] {
            for sender in ["", "bob@else.example"] {
                let mut d = ready(direction, 100);
                envelope(&mut d, sender);
                d.client(&chunk(text, true));
                assert!(d.heard_by_client().starts_with(want), "{text:?}");
                assert_eq!(d.finished.last().unwrap().code, 550);
                assert!(!d.heard_by_hop().contains("LAST\r\nx"), "{text:?}");
            }
        }
    }
    // Text may have a dot alone on a line, and binary mail anything.
    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    assert_eq!(d.client(&chunk("x\r\n.\r\ny\nz\r\n", true)), chunk("x\r\n.\r\ny\nz\r\n", true));
    d.hop("250 ok\r\n");
    d.client("MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<ann@our.example>\r\n");
    d.hop("250 a\r\n250 b\r\n");
    d.client("DATA\r\n");
    assert!(d.heard_by_client().starts_with("503 5.5.1 "));
    assert_eq!(d.client(&chunk("x\n.\r\0\n", true)), chunk("x\n.\r\0\n", true));
}

#[test]
fn a_next_hop_that_is_lost_or_refuses_in_the_middle_of_a_chunk() {
    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    d.client("BDAT 10\r\n12345");
    d.session.hop_eof();
    d.run();
    assert_eq!((d.client("67890").as_str(), d.heard_by_client().starts_with("451 4.4.2 ")), ("", true));
    d.client("BDAT 1 LAST\r\nx");
    assert_eq!(d.opened.len(), 2, "another connection, which knows of no message");
    d.session.hop_connected(false);
    d.hop("220 x\r\n");
    assert!(d.hop(CHUNKING).starts_with("503 5.5.1 "));

    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    d.client("BDAT 10 LAST\r\n12345");
    assert_eq!(d.hop("552 5.3.4 too big\r\n"), "");
    d.client("67890");
    assert_eq!((d.heard_by_client().as_str(), d.hop_closed), ("552 5.3.4 too big\r\n", 1));

    // A yes before the end is worth nothing.
    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    d.client("BDAT 10 LAST\r\n12345");
    d.hop("250 thanks\r\n");
    d.client("67890");
    assert!(d.heard_by_client().starts_with("451 4.4.2 "));

    // Between chunks everything is forgotten.
    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    d.client("BDAT 2\r\n12");
    d.hop("250 ok\r\n");
    d.session.hop_eof();
    d.run();
    assert!(d.heard_by_client().starts_with("421 4.4.2 ") && d.client_closed);

    // A sender that is refused while the message is under way.
    let mut d = ready(Direction::Outbound, 100);
    d.client("MAIL FROM:<>\r\nRCPT TO:<x@else.example>\r\nBDAT 10 LAST\r\n12345");
    assert_eq!(d.hop("550 no\r\n503 no mail\r\n"), "550 no\r\n503 no mail\r\n");
    d.client("67890");
    assert_eq!(d.hop("503 no mail\r\n"), "503 no mail\r\n");
    assert_eq!(d.client("NOOP\r\n"), "NOOP\r\n");
}

#[test]
fn two_messages_in_flight_are_not_confused() {
    let mut d = ready(Direction::Outbound, 100);
    let message = |to: &str| format!("MAIL FROM:<>\r\nRCPT TO:<{to}>\r\n{}", chunk("x", true));
    let both = message("a@else.example") + &message("b@else.example");
    assert_eq!(d.client(&both), both);
    let heard = d.hop("250 m\r\n250 a\r\n250 first\r\n250 m\r\n250 b\r\n452 second\r\n");
    assert_eq!(heard.lines().count(), 6);
    assert_eq!(d.finished.iter().map(|f| f.reply.as_str()).collect::<Vec<_>>(), ["250 first", "452 second"]);
}
