//! The classification of messages: by a table of texts, by messages from real software, and by a labelled corpus if it
//! is present.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::skip::skip_for_good;
use crate::common::{folder, run, run_ok};
use countersign::envelope::bounce::{Findings, MessageKind, Scanner};
use serde::Deserialize;

fn scan(text: &[u8], size: usize) -> Findings {
    let mut scanner = Scanner::of_text();
    text.chunks(size.max(1)).for_each(|piece| scanner.push(piece));
    scanner.finish();
    scanner.found()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    message: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    name: String,
    kind: String,
    text: String,
}

#[test]
fn each_text_is_what_it_is() {
    let table: Table = toml::from_str(include_str!("cases/kinds.toml")).unwrap();
    assert!(table.message.len() > 45);
    for message in table.message {
        let text = message.text.as_bytes();
        let found = scan(text, text.len());
        assert_eq!(found.kind.name(), message.kind, "{}: {:?}", message.name, found.reasons);
        assert!(found.kind == MessageKind::Ordinary || !found.reasons.is_empty(), "{}: no reason given", message.name);
        for size in [1, 3, 17] {
            assert_eq!(scan(text, size), found, "{} in pieces of {size}", message.name);
        }
        // The message as sent by DATA.
        let stuffed: String =
            message.text.lines().map(|l| format!("{}{l}\r\n", if l.starts_with('.') { "." } else { "" })).collect();
        let mut scanner = Scanner::of_data();
        scanner.push(stuffed.as_bytes());
        scanner.finish();
        assert_eq!(scanner.found(), found, "{} dot-stuffed", message.name);
    }
}

#[test]
fn a_notice_that_shows_nothing_is_doubtful() {
    let from =
        "From: Mail Delivery System <MAILER-DAEMON@third.example>\nTo: ann@our.example\nSubject: Undelivered mail\n";
    let said = "Your message could not be delivered: mailbox full.\n";
    for (text, doubtful) in [
        (format!("{from}\n{said}"), true),
        (format!("{from}\n{said}<bob@third.example>\n"), false),
        (format!("X-Failed-Recipients: bob@third.example\n{from}\n{said}"), false),
        (format!("{from}\n{said}\nMessage-ID: <1@our.example>\n"), false),
        (
            format!("{from}\n{said}\nReceived: from a by b\nFrom: ann@our.example\nTo: bob@x.example\nSubject: x\n"),
            false,
        ),
    ] {
        let found = scan(text.as_bytes(), 100);
        assert_eq!((found.kind, found.doubtful), (MessageKind::TextBounce, doubtful), "{text}");
    }
    let report = format!("{from}Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b--\n");
    assert!(!scan(report.as_bytes(), 100).doubtful, "a report says what it is");
}

fn messages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages")
}

#[test]
fn what_real_software_makes_is_known() {
    let kinds = [
        ("dovecot-lda-overquota", "dsn-failed", 1),
        ("dovecot-lmtp-overquota", "dsn-failed", 1),
        ("dovecot-reject", "mdn", 1),
        ("dovecot-vacation", "auto-reply", 0),
        ("exim-delayed", "dsn-delayed", 1),
        ("exim-failed", "dsn-failed", 1),
        ("exim-headers", "dsn-failed", 1),
        ("exim-success", "dsn-success", 1),
        ("maildrop-dsn", "dsn-success", 1),
        ("maildrop-vacation", "auto-reply", 0),
        ("mdn-horde", "mdn", 1),
        ("mdn-roundcube", "mdn", 0),
        ("opensmtpd-delayed", "dsn-delayed", 1),
        ("opensmtpd-failed", "dsn-failed", 1),
        ("opensmtpd-success", "dsn-success", 1),
        ("postfix-delayed", "dsn-delayed", 1),
        ("postfix-failed", "dsn-failed", 1),
        ("postfix-headers", "dsn-failed", 1),
        ("postfix-success", "dsn-success", 1),
        ("postfix-verbose", "dsn-success", 1),
        ("postfix-verify", "dsn-failed", 0),
    ];
    let files = fs::read_dir(messages())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "eml"));
    assert_eq!(files.count(), kinds.len(), "a message that this test does not know");
    for (name, kind, evidence) in kinds {
        let text = fs::read(messages().join(format!("{name}.eml"))).unwrap();
        let found = scan(&text, 1000);
        assert_eq!(found.kind.name(), kind, "{name}: {:?}", found.reasons);
        assert_eq!(found.returned.evidence.len(), evidence, "{name}: {:?}", found.returned);
        if evidence == 1 {
            assert_eq!(found.returned.evidence[0], "v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP; a=ABCDEFGHIJKLMNOP", "{name}");
            assert!(
                found.returned.message_ids.contains(&"<original-1@our.example>".to_owned()),
                "{name}: {:?}",
                found.returned
            );
        }
        if kind.starts_with("dsn") {
            let recipient = found.recipients.first().unwrap_or_else(|| panic!("{name}: no recipient"));
            let address = recipient.final_recipient.as_deref().unwrap();
            assert!(
                address.contains('@') && recipient.action.is_some() && recipient.status.is_some(),
                "{name}: {recipient:?}"
            );
        }
    }
}

#[test]
fn the_command_line_reads_what_people_have() {
    let folder = folder();
    let maildir = folder.path().join("Maildir");
    for part in ["cur", "new", "tmp", ".Sent/cur", ".Sent/new"] {
        fs::create_dir_all(maildir.join(part)).unwrap();
    }
    let copy = |name: &str, to: &str| fs::copy(messages().join(name), maildir.join(to)).unwrap();
    copy("postfix-failed.eml", "cur/1:2,S");
    copy("mdn-horde.eml", "new/2");
    copy("exim-failed.eml", "tmp/3");
    copy("exim-delayed.eml", ".Sent/cur/4:2,");
    fs::write(maildir.join("dovecot.index"), "no message").unwrap();
    let text = |name: &str| fs::read_to_string(messages().join(name)).unwrap();
    let separator = "From x@y.example Mon Nov 23 02:15:55 2026\n";
    let mbox = format!("{separator}{}\n{separator}{}", text("exim-failed.eml"), text("dovecot-vacation.eml"));
    fs::write(folder.path().join("mbox"), &mbox).unwrap();

    let tsv = run_ok(folder.path(), &["classify", "--tsv", "Maildir", "mbox"]);
    let kinds: Vec<&str> = tsv.lines().skip(1).map(|line| line.split('\t').nth(1).unwrap()).collect();
    assert_eq!(kinds, ["dsn-delayed", "dsn-failed", "mdn", "dsn-failed", "auto-reply"], "{tsv}");
    assert!(tsv.starts_with("file\tkind\tndr\tevidence\taction\treason\n"), "{tsv}");
    assert!(tsv.contains("mbox:2\tauto-reply\t0\t-\tunknown\tno-key-ring"), "{tsv}");

    let summary = run_ok(folder.path(), &["classify", "--summary", "Maildir", "mbox"]);
    assert!(summary.contains("5 messages, 3 of them say that mail was not"), "{summary}");
    let one = run_ok(folder.path(), &["classify", "--to", "ann@our.example", "Maildir/cur"]);
    for line in [
        "dsn-failed",
        "seen by     delivery status",
        "recipient   bob@third.example: failed, 5.",
        "returned    message-id",
        "inbound     reject (untagged-ndr)",
    ] {
        assert!(one.contains(line), "{line}: {one}");
    }
    let json = run_ok(folder.path(), &["classify", "--json", "mbox"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["kind"], &first["ndr"]), (&"dsn-failed".into(), &true.into()), "{first}");
    let missing = run(folder.path(), &["classify", "--tsv", "nothing.eml", "mbox"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nothing.eml: No such file"));
    assert_eq!(String::from_utf8_lossy(&missing.stdout).lines().count(), 3);
    fs::create_dir(folder.path().join("empty")).unwrap();
    let empty = run(folder.path(), &["classify", "empty"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("there is no message there"));
}

/// The number of bounces in an mbox, and the number of messages.
fn ndrs_in(mbox: &str) -> (usize, usize) {
    let tsv = run_ok(&messages(), &["classify", "--tsv", mbox]);
    let ndrs = tsv.lines().skip(1).filter(|line| line.split('\t').nth(2) == Some("1")).count();
    (ndrs, tsv.lines().count() - 1)
}

#[test]
fn messages_written_by_others_are_recognised() {
    let (found, all) = ndrs_in("written/bounces.mbox");
    assert!(all == 340 && found >= 336, "{found} of {all} bounces");
    let (wrong, all) = ndrs_in("written/others.mbox");
    assert!(all == 313 && wrong <= 3, "{wrong} of {all} others");
}

/// Null-sender mail that is not a bounce. It is kept outside of this repository; `-` marks messages that people
/// classify differently.
#[test]
fn notices_are_no_bounces() {
    let notices = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/notices");
    let Ok(labels) = fs::read_to_string(notices.join("labels.tsv")) else {
        skip_for_good("notices that are no bounces", "../shared/corpus/notices is not here");
        return;
    };
    let (mut all, mut wrong) = (0, Vec::new());
    for line in labels.lines().skip(1) {
        let (file, ndr) = line.split_once('\t').unwrap();
        if ndr.trim() == "0" {
            all += 1;
            let says = scan(&fs::read(notices.join(file)).unwrap(), 4096);
            wrong.extend(says.kind.is_ndr().then_some(file));
        }
    }
    assert!(all > 80 && wrong.len() <= 2, "taken for a bounce, of {all}: {wrong:?}");
}

/// The labelled corpus is kept outside of this repository.
#[test]
fn the_corpus_is_recognised() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/dev");
    let Ok(labels) = fs::read_to_string(corpus.join("labels.tsv")) else {
        skip_for_good("the labelled corpus", "../shared/corpus/dev is not here");
        return;
    };
    let (mut ndrs, mut found, mut wrong) = (0, 0, Vec::new());
    for line in labels.lines().skip(1) {
        let [file, kind, ndr, ..] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let says = scan(&fs::read(corpus.join("mail").join(file)).unwrap(), 4096).kind;
        match ndr {
            "1" => {
                ndrs += 1;
                found += usize::from(says.is_ndr());
            }
            "0" if says.is_ndr() => wrong.push(format!("{file} ({kind})")),
            _ => {}
        }
    }
    assert!(ndrs > 150 && found * 1000 >= ndrs * 996, "only {found} of {ndrs}");
    assert!(wrong.is_empty(), "taken for a bounce: {wrong:?}");
}
