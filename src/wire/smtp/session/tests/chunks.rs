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
    // Mail that leaves has a recipient elsewhere.
    let recipient = match d.session.settings.direction {
        Direction::Outbound => "carol@far.example",
        Direction::Inbound => "ann@our.example",
    };
    d.client(&format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n"));
    assert_eq!(d.hop("250 a\r\n250 b\r\n"), "250 a\r\n250 b\r\n");
}

fn chunk(text: &str, last: bool) -> String {
    format!("BDAT {}{}\r\n{text}", text.len(), if last { " LAST" } else { "" })
}

#[test]
fn everything_in_one_packet_leaves_in_two() {
    let mut d = ready(Direction::Outbound, 100);
    let signed = d.signed("ann@our.example");
    let chunks = format!("{}{}QUIT\r\n", chunk("A: b\r\n\r\n.\r\n", false), chunk("c", true));
    let envelope = "RCPT TO:<x@else.example>\r\n";
    let heard = d.client(&format!("MAIL FROM:<ann@our.example>\r\n{envelope}{chunks}"));
    assert_eq!(heard, format!("MAIL FROM:<{signed}>\r\n{envelope}"));
    assert_eq!(d.hop("250 a\r\n250 b\r\n"), "250 a\r\n250 b\r\n");
    assert_eq!(d.heard_by_hop(), chunks, "once it is known who gets it");
    let heard = d.hop("250 chunk\r\n250 queued\r\n221 bye\r\n");
    assert_eq!(heard, "250 chunk\r\n250 queued\r\n221 bye\r\n");
    assert_eq!((d.finished.len(), d.finished[0].code), (1, 250));
}

#[test]
fn a_reply_too_many_is_not_taken_for_the_answer_to_a_chunk() {
    for direction in [Direction::Outbound, Direction::Inbound] {
        let mut d = ready(direction, 100);
        let envelope = "MAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@our.example>\r\n";
        d.client(&format!("{envelope}{}", chunk("A: b\r\n\r\nc", true)));
        // The next hop replies to MAIL, sends an unsolicited reply, replies to RCPT, and refuses the message.
        d.hop("250 mail\r\n250 extra\r\n250 rcpt\r\n554 no\r\n");
        assert_eq!(d.finished.iter().filter(|f| f.code == 250).count(), 0);
        assert!(!d.heard_by_client().lines().any(|line| line.starts_with("250 rcpt")));
    }
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
        // In chunks, each chunk has one reply, regardless of what is removed from it.
        envelope(&mut d, "bob@else.example");
        let (head, tail) = text.split_at(size);
        // A few octets may be too short to identify the header.
        let heard = if d.client(&chunk(head, false)).is_empty() { d.heard_by_client() } else { d.hop("250 chunk\r\n") };
        assert!(heard.starts_with("250 ") && heard.lines().count() == 1, "{heard}");
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
        assert!(d.session.out.to_hop.len() < 8192);
    }
    let pieces = heard.matches("BDAT ").count();
    assert!(pieces > 1 && heard.matches(" LAST\r\n").count() == 1, "{pieces}");
    let quiet = "250 ok\r\n".repeat(pieces - 1);
    assert_eq!(d.hop(&format!("{quiet}250 queued\r\n")), "250 queued\r\n");
    // The refusal of a piece becomes the reply to the chunk.
    envelope(&mut d, "bob@else.example");
    for piece in chunk(&text, true).as_bytes().chunks(1000) {
        d.client(std::str::from_utf8(piece).unwrap());
    }
    assert_eq!(d.hop("452 full\r\n"), "");
    let heard = d.hop(&"503 what\r\n".repeat(pieces - 1));
    assert_eq!((heard.as_str(), d.finished.last().unwrap().code), ("452 full\r\n", 452));
}

#[test]
fn a_nul_before_a_smuggled_end_is_what_is_seen_however_it_is_cut() {
    // Found by fuzzing: the session ended if the input came in one piece, and went on if it came in two.
    for size in [1, 1000] {
        let mut d = ready(Direction::Outbound, 10_000);
        envelope(&mut d, "ann@our.example");
        for piece in chunk("A: b\r\n\r\nx\0y\n.\r\nRSET\r\n", true).as_bytes().chunks(size) {
            d.client(std::str::from_utf8(piece).unwrap());
        }
        let said = d.heard_by_client();
        assert!(said.starts_with("550 5.6.0 the message contains NUL") && !d.client_closed, "{size}: {said}");
    }
}

#[test]
fn a_message_without_one_of_its_pieces_gets_no_end() {
    let text = format!("{}\r\nx", "A: a header that is long\r\n".repeat(400));
    let (first, rest) = text.split_at(6000);
    // Within a chunk, and between two chunks.
    for one_chunk in [true, false] {
        let mut d = ready(Direction::Inbound, 10_000);
        envelope(&mut d, "bob@else.example");
        let heard = if one_chunk {
            d.client(&format!("BDAT {} LAST\r\n{first}", text.len()))
        } else {
            d.client(&chunk(first, false))
        };
        assert!(heard.starts_with("BDAT ") && !heard.contains("LAST"), "{heard}");
        let said = d.hop(if one_chunk { "452 full\r\n" } else { "452 full\r\n250 ok\r\n" });
        assert_eq!(said, if one_chunk { "" } else { "452 full\r\n" });
        let heard = d.client(&if one_chunk { rest.to_owned() } else { chunk(rest, true) });
        assert_eq!(heard, "RSET\r\n", "{one_chunk}");
        assert_eq!(d.heard_by_client() + &d.hop("250 reset\r\n"), "452 full\r\n", "{one_chunk}");
        assert_eq!(d.finished.last().unwrap().code, 452);
    }
}

#[test]
fn a_transaction_does_not_outlive_its_next_hop_in_a_chunk_that_nobody_wants() {
    let mut d = Dialogue::ready(Direction::Outbound);
    envelope(&mut d, "ann@our.example");
    // BDAT is not offered by this next hop.
    assert_eq!(d.client("BDAT 10\r\n12345"), "");
    d.session.hop_eof();
    d.run();
    let said = d.heard_by_client();
    assert!(said.starts_with("421 4.4.2 ") && d.client_closed, "{said}");
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
    // A message that is not a bounce is passed on as one chunk.
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
    // If CHUNKING is not offered, the chunk is skipped, too.
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
    // Text may have a dot alone on a line, and binary mail any octets.
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

    // A positive reply before the end of the message is not passed on.
    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    d.client("BDAT 10 LAST\r\n12345");
    d.hop("250 thanks\r\n");
    d.client("67890");
    assert!(d.heard_by_client().starts_with("451 4.4.2 "));

    // If the next hop is lost between chunks, the transaction is forgotten.
    let mut d = ready(Direction::Outbound, 100);
    envelope(&mut d, "");
    d.client("BDAT 2\r\n12");
    d.hop("250 ok\r\n");
    d.session.hop_eof();
    d.run();
    assert!(d.heard_by_client().starts_with("421 4.4.2 ") && d.client_closed);

    // The sender is refused while the message is in progress.
    let mut d = ready(Direction::Outbound, 100);
    d.client("MAIL FROM:<>\r\nRCPT TO:<x@else.example>\r\nBDAT 10 LAST\r\n12345");
    assert_eq!(d.hop("550 no\r\n503 no mail\r\n"), "550 no\r\n503 no mail\r\n");
    assert_eq!(d.client("67890"), "", "nothing of it leaves");
    assert_eq!(d.heard_by_client(), "503 5.5.1 need RCPT command\r\n");
    assert_eq!(d.client("NOOP\r\n"), "NOOP\r\n");
}

#[test]
fn two_messages_in_flight_are_not_confused() {
    let mut d = ready(Direction::Outbound, 100);
    let message = |to: &str| format!("MAIL FROM:<>\r\nRCPT TO:<{to}>\r\n{}", chunk("x", true));
    let both = message("a@else.example") + &message("b@else.example");
    assert_eq!(d.client(&both), "MAIL FROM:<>\r\nRCPT TO:<a@else.example>\r\n");
    assert_eq!(d.hop("250 m\r\n250 a\r\n").lines().count(), 2);
    assert_eq!(d.heard_by_hop(), format!("{}MAIL FROM:<>\r\nRCPT TO:<b@else.example>\r\n", chunk("x", true)));
    assert_eq!(d.hop("250 first\r\n250 m\r\n250 b\r\n").lines().count(), 3);
    assert_eq!(d.hop("452 second\r\n"), "452 second\r\n");
    assert_eq!(d.finished.iter().map(|f| f.reply.as_str()).collect::<Vec<_>>(), ["250 first", "452 second"]);
}

#[test]
fn a_length_that_no_message_has_is_refused_before_anything_is_sent() {
    for (direction, sender, to) in [
        (Direction::Inbound, "", "prvs=1999aaaaaa=ann@our.example"),
        (Direction::Inbound, "a@x.example", "ann@our.example"),
        (Direction::Outbound, "", "x@y.example"),
    ] {
        for message in [1000, 0] {
            let mut d = Dialogue::with(direction, 10_000, |s| s.limits.message = message, None);
            d.policy.inbound.mode = InboundMode::Observe;
            d.connect();
            d.client("EHLO c.example\r\n");
            d.hop(CHUNKING);
            d.client(&format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{to}>\r\n"));
            d.hop("250 a\r\n250 b\r\n");
            let evil = "\r\nRSET\r\nMAIL FROM:<evil@x.example>\r\n";
            assert!(!d.client(&format!("BDAT 18446744073709551615\r\n{evil}")).contains("evil"), "{sender} {message}");
            assert!(d.heard_by_client().starts_with("552 5.3.4 ") && d.client_closed);
        }
    }
    // A chunk that is only too long is discarded, and the session goes on.
    let mut d = Dialogue::with(Direction::Outbound, 10_000, |s| s.limits.message = 10, None);
    d.connect();
    d.client("EHLO c.example\r\n");
    d.hop(CHUNKING);
    envelope(&mut d, "");
    assert_eq!(d.client(&chunk("A: b\r\n\r\n", false)), chunk("A: b\r\n\r\n", false));
    d.hop("250 ok\r\n");
    assert_eq!(d.client(&format!("{}NOOP\r\n", chunk("123", true))), "RSET\r\nNOOP\r\n");
    assert_eq!((d.heard_by_client().starts_with("552 5.3.4 "), d.limits.as_slice()), (true, &["message"][..]));
}

#[test]
fn a_fault_in_a_chunk_waits_for_what_is_owed_and_then_goes_on() {
    // All in one packet, while the next hop has not answered anything.
    for text in ["A: b\r\n\r\n\0", "A: b\r\n\r\nx\n.\n1"] {
        let mut d = ready(Direction::Outbound, 100);
        d.client(&format!("MAIL FROM:<>\r\nRCPT TO:<x@else.example>\r\n{}NOOP\r\n", chunk(text, true)));
        assert_eq!((d.heard_by_client().as_str(), d.hop_closed), ("", 0));
        assert_eq!(d.hop("250 m\r\n"), "250 m\r\n");
        let heard = d.hop("250 r\r\n");
        assert!(heard.starts_with("250 r\r\n550 5."), "{heard}");
        assert!(d.hop_closed >= 1, "what it has of the message is never ended");
        assert_eq!(d.heard_by_hop().matches("QUIT").count(), 0);
        let smuggled = text.contains("\n.\n");
        assert_eq!((d.client_closed, d.opened.len()), (smuggled, if smuggled { 1 } else { 2 }));
    }
    // The previous message gets the next hop's reply.
    let mut d = ready(Direction::Outbound, 100);
    let first = format!("MAIL FROM:<>\r\nRCPT TO:<x@else.example>\r\n{}", chunk("one", true));
    let second = format!("MAIL FROM:<>\r\nRCPT TO:<x@else.example>\r\n{}", chunk("A: b\r\n\r\nx\n.\n1", true));
    d.client(&(first + &second));
    let mut heard = d.hop("250 m\r\n250 r\r\n");
    assert!(d.heard_by_hop().starts_with("BDAT 3 LAST\r\none"));
    heard += &d.hop("250 first\r\n250 m\r\n250 r\r\n");
    assert_eq!(heard.lines().map(|l| &l[..3]).collect::<Vec<_>>(), ["250", "250", "250", "250", "250", "550"]);
    assert_eq!(d.finished.iter().map(|f| f.code).collect::<Vec<_>>(), [250, 550]);
    // A next hop that never answers does not keep the session open.
    let mut d = ready(Direction::Outbound, 100);
    d.client(&format!("MAIL FROM:<>\r\nRCPT TO:<x@else.example>\r\n{}", chunk("A: b\r\n\r\n\0", true)));
    d.session.client_eof();
    d.session.hop_timeout();
    d.run();
    assert!(d.client_closed && d.heard_by_client().starts_with("421 4.4.2 "));
}

#[test]
fn no_empty_chunk_is_made_up() {
    // Some servers refuse an empty chunk that is not the last.
    let header = format!("A: {}\r\n", "x".repeat(97));
    for size in [4096, 4097, 5000, 8192, 8193] {
        for pieces in [100, 1000, 100_000] {
            let mut d = ready(Direction::Inbound, 10_000);
            envelope(&mut d, "bob@else.example");
            let text = header.repeat(100);
            let mut heard = String::new();
            for piece in chunk(&text[..size], false).as_bytes().chunks(pieces) {
                heard += &d.client(std::str::from_utf8(piece).unwrap());
            }
            assert!(!heard.contains("BDAT 0"), "{size}");
            let replies = "250 ok\r\n".repeat(heard.matches("BDAT ").count());
            assert_eq!(d.hop(&replies), "250 ok\r\n", "{size}");
        }
    }
    // If nothing is left of a chunk, or it is empty, no chunk is sent.
    for direction in [Direction::Inbound, Direction::Outbound] {
        let mut d = ready(direction, 10_000);
        envelope(&mut d, "bob@else.example");
        assert_eq!(d.client("BDAT 0\r\n"), "");
        assert!(d.heard_by_client().starts_with("250 "));
    }
    let mut d = ready(Direction::Inbound, 10_000);
    envelope(&mut d, "bob@else.example");
    assert_eq!(d.client(&chunk("Countersign", false)), "");
    assert!(d.heard_by_client().starts_with("250 "));
    assert_eq!(d.client(&chunk("ed: x\r\n\r\ny", true)), chunk("Countersigned: x\r\n\r\ny", true));
    // A message to be inspected that exceeds the buffer and ends with an empty chunk.
    let mut d = ready(Direction::Inbound, 16);
    envelope(&mut d, "");
    let heard = d.client(&chunk("A: b\r\n\r\nmore than the hold takes\r\n", false));
    d.hop(&"250 ok\r\n".repeat(heard.matches("BDAT ").count()));
    assert_eq!(d.client("BDAT 0 LAST\r\n"), "BDAT 0 LAST\r\n");
}

#[test]
fn no_bounce_hides_in_a_chunk() {
    let text = dsn("failed");
    let unended = text.split("\r\n\r\n--b--").next().unwrap();
    for ndr in [text.replacen("--b\r\n", ".--b--\r\n--b\r\n", 1), format!(".\r\n{text}"), unended.to_owned()] {
        for size in [1, 7, 10_000] {
            let mut d = ready(Direction::Inbound, 10_000);
            envelope(&mut d, "");
            let mut heard = String::new();
            for piece in chunk(&ndr, true).as_bytes().chunks(size) {
                heard += &d.client(std::str::from_utf8(piece).unwrap());
            }
            assert_eq!((heard.as_str(), d.heard_by_client().starts_with("550 5.7.1 ")), ("RSET\r\n", true), "{ndr}");
        }
    }
}

#[test]
fn a_chunk_line_that_is_refused_ends_the_session() {
    for (reject_stray, line) in
        [(true, "BDAT 30 LAST\n"), (false, "BDAT 5 \x01LAST\r\n"), (false, "bdat 5 \u{fc}\r\n"), (false, "BDATX 5\r\n")]
    {
        let mut d = Dialogue::with(Direction::Outbound, 100, |s| s.reject_stray = reject_stray, None);
        d.connect();
        d.client("EHLO c.example\r\n");
        d.hop(CHUNKING);
        assert_eq!(d.client(&format!("{line}MAIL FROM:<evil@x.example>\r\n")), "", "{line:?}");
        assert!(d.client_closed && d.heard_by_client().starts_with("50"), "{line:?}");
    }
    let line = format!("BDAT {} LAST\r\nMAIL FROM:<evil@x.example>\r\n", "1".repeat(3000));
    for at in [10, 2500, 3010, 4000] {
        let mut d = ready(Direction::Outbound, 100);
        let (head, tail) = line.split_at(at.min(line.len()));
        assert_eq!(d.client(head) + &d.client(tail), "");
        assert!(d.client_closed, "{at}");
    }
}

#[test]
fn a_next_hop_of_a_domain_without_chunking_is_a_later() {
    let mut d = ready(Direction::Inbound, 100);
    d.client("MAIL FROM:<bob@else.example>\r\nRCPT TO:<ann@branch.our.example>\r\n");
    d.hop("250 ok\r\n");
    d.session.hop_connected(false);
    d.hop("220 branch\r\n");
    d.hop("250-branch\r\n250 PIPELINING\r\n");
    d.hop("250 m\r\n250 r\r\n");
    d.client(&chunk("x", true));
    assert!(d.hop("250 reset\r\n").starts_with("451 4.3.5 "));
}

#[test]
fn lmtp_recipients_of_a_next_hop_without_chunking_are_all_answered() {
    let mut d = Dialogue::with(Direction::Outbound, 100, |s| s.lmtp = true, None);
    d.connect();
    d.client("LHLO c.example\r\n");
    d.hop(CHUNKING);
    d.client("MAIL FROM:<>\r\n");
    d.hop("250 ok\r\n");
    let rcpt = "RCPT TO:<a@branch.our.example>\r\nRCPT TO:<b@branch.our.example>\r\n";
    d.client(&format!("{rcpt}{}NOOP\r\n", chunk("hello", true)));
    d.session.hop_connected(false);
    d.hop("220 branch\r\n");
    d.hop("250-branch\r\n250 PIPELINING\r\n");
    let heard = d.hop("250 m\r\n250 a\r\n250 b\r\n") + &d.hop("250 reset\r\n") + &d.hop("250 noop\r\n");
    assert_eq!(heard.lines().map(|l| &l[..3]).collect::<Vec<_>>(), ["250", "250", "451", "451", "250"], "{heard}");
}
