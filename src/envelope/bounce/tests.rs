//! Any input gives the same result however it is divided, never panics, and stays within the limits.

use proptest::prelude::*;

use super::*;

fn scan(text: &[u8], size: usize) -> Findings {
    let mut scanner = Scanner::of_text();
    text.chunks(size.max(1)).for_each(|piece| scanner.push(piece));
    scanner.finish();
    scanner.found()
}

/// Text composed of pieces of well-formed and malformed mail.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "From: MAILER-DAEMON@x.example\n",
        "Subject: Undeliverable: \n",
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n",
        "Content-Type: multipart/mixed; boundary=\"c\"\n",
        "Content-Type: message/rfc822\n",
        "Content-Type: message/delivery-status\n",
        "Content-Type: text/html; charset=utf-16\n",
        "Content-Transfer-Encoding: base64\n",
        "Content-Transfer-Encoding: quoted-printable\n",
        "\n",
        "--b\n",
        "--b--\n",
        "--c\n",
        "--c--\n",
        "Action: failed\n",
        "Final-Recipient: rfc822; a@b\n",
        "> Message-ID: <1@x>\n",
        "Countersign-Evidence: v=1;\n n=A\n",
        "SGVsbG8=\n",
        "=3D=\n",
        "\u{e4}\u{3042}<&#9;>\n",
        " folded\n",
        "Received: from a by b\n",
        "=?iso-2022-jp?B?GyRC?=",
        "<style>",
        "x",
        ":",
        "\r",
        "\r\n",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn pieces_change_nothing(text in pieces(), size in 1usize..40) {
        let whole = scan(text.as_bytes(), text.len());
        prop_assert_eq!(scan(text.as_bytes(), size), whole.clone());
        prop_assert_eq!(whole.kind == MessageKind::Ordinary || !whole.reasons.is_empty(), true);
    }

    #[test]
    fn any_octets_can_be_read(octets in prop::collection::vec(any::<u8>(), 0..4000), head in pieces()) {
        scan(&[head.as_bytes(), &octets].concat(), 1000);
    }
}

#[test]
fn depth_length_and_number_have_limits() {
    let deep: String = (0..2000).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n")).collect();
    let nested = "Content-Type: message/rfc822\n\n".repeat(5000);
    let headers = format!("Subject: {}\n", "x".repeat(1 << 20));
    let many = "Received: from a by b\nMessage-ID: <1@x>\nCountersign-Evidence: v=1; k=1\n".repeat(20_000);
    let long = "x".repeat(1 << 20);
    let boundaries = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\nA: b\n\nc\n".repeat(50_000));
    let html = format!("Content-Type: text/html\n\n{}", "<style><".repeat(2000));
    for text in [deep, nested, headers, many, long, boundaries, html] {
        let found = scan(text.as_bytes(), 1 << 16);
        assert_eq!(found.kind, MessageKind::Ordinary);
        assert!(found.returned.message_ids.len() <= 8 && found.recipients.len() <= 20);
    }
}

#[test]
fn what_html_returns_is_read_as_it_is_shown() {
    let evidence = "v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP; a=ABCDEFGHIJKLMNOP";
    let lines = format!(
        "From: Ann &lt;ann@our.example&gt;<br>\nMessage-ID: &lt;1@our.example&gt;<br>\nCountersign-Evidence: {evidence}<br>\n"
    );
    let one_line = lines.replace('\n', "");
    for (head, html) in [
        ("", format!("<html><body>Not delivered.<p>\n{lines}</body></html>")),
        ("", format!("<html><body><pre>{}</pre></body></html>", lines.replace("<br>", ""))),
        ("", format!("<html><body><p>{one_line}</body></html>")),
        ("Content-Transfer-Encoding: quoted-printable\n", format!("<p>{}", lines.replace('=', "=3D"))),
    ] {
        let text = format!("From: mailer-daemon@third.example\nContent-Type: text/html\n{head}\n{html}\n");
        for size in [1, 7, text.len()] {
            let mut scanner = Scanner::of_text();
            text.as_bytes().chunks(size).for_each(|piece| scanner.push(piece));
            scanner.finish();
            let returned = scanner.found().returned;
            assert_eq!(returned.message_ids, ["<1@our.example>"], "{text}");
            assert_eq!(returned.evidence, [evidence], "{text}");
            let author = returned.from.as_deref().and_then(crate::envelope::evidence::author);
            assert_eq!(author.as_ref().map(super::super::address::Address::as_str), Some("ann@our.example"), "{text}");
        }
    }
}
