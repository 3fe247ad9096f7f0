//! The table of cases in `cases/verdicts.toml`: the placeholders in it, and the expected outcomes.

use std::collections::BTreeMap;
use std::ops::Add as _;

use countersign::envelope::address::{Address, strip_source_route};
use countersign::envelope::evidence;
use countersign::envelope::keyring::Keyring;
use countersign::envelope::tag::{batv, srs};
use countersign::envelope::time::Timestamp;
use serde::Deserialize;

use super::dsn;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub inbound: Vec<Inbound>,
    pub outbound: Vec<Outbound>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    pub name: String,
    #[serde(default)]
    pub config: String,
    #[serde(default)]
    pub sender: String,
    pub to_address: String,
    #[serde(default = "ordinary")]
    pub content: String,
    #[serde(default = "yes")]
    pub rcpt: u16,
    #[serde(default = "yes")]
    pub data: u16,
    pub to: Option<String>,
    pub mark: Option<String>,
    /// The message is accepted, but not delivered.
    #[serde(default)]
    pub discarded: bool,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    pub name: String,
    #[serde(default)]
    pub config: String,
    pub sender: String,
    #[serde(default = "bob")]
    pub recipient: String,
    #[serde(default = "yes")]
    pub mail: u16,
    #[serde(default)]
    pub leaves: String,
}

pub fn ordinary() -> String {
    "ordinary".into()
}
pub fn bob() -> String {
    "bob@third.example".into()
}
pub fn yes() -> u16 {
    250
}

/// The outcome of a case, for every front end.
#[derive(Debug, PartialEq, Eq)]
pub struct Came {
    pub rcpt: u16,
    pub data: Option<u16>,
    pub to: Option<String>,
    pub mark: Option<String>,
}

pub fn table() -> Table {
    toml::from_str(include_str!("../cases/verdicts.toml")).unwrap()
}

pub fn config_text(extra: &str, listeners: &str) -> String {
    // The lines of a case override the common ones.
    let mut lines: BTreeMap<&str, String> = BTreeMap::from([
        ("domains.local", "[\"our.example\", \"deep.our.example\"]".to_owned()),
        ("domains.srs_domain", "\"srs.our.example\"".to_owned()),
        ("inbound.mode", "\"enforce\"".to_owned()),
    ]);
    for line in extra.lines() {
        let (key, value) = line.split_once(" = ").unwrap();
        lines.insert(key, value.to_owned());
    }
    let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("keys.ring = \"keys/ring.toml\"\n{}\n{listeners}", lines.join("\n"))
}

/// A message of a kind. Kinds that begin with `evidence` are untagged bounces that return an original signed by this
/// site.
pub fn content(kind: &str, ring: &Keyring, now: Timestamp) -> String {
    match kind {
        evidence if evidence.starts_with("evidence") => bounce_with_evidence(evidence, ring, now),
        "ordinary" => "Subject: hi\r\n\r\nHello\r\n".into(),
        "reply" => "Subject: away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away\r\n".into(),
        "dsn-failed" => dsn("failed"),
        "dsn-delayed" => dsn("delayed"),
        "dsn-success" => dsn("delivered"),
        "text-bounce" => "From: MAILER-DAEMON@third.example\r\nSubject: failure notice\r\n\r\n\
            I was not able to deliver your message.\r\n<bob@third.example>: no such user\r\n"
            .into(),
        "doubtful" => "From: MAILER-DAEMON@third.example\r\nSubject: failure notice\r\n\r\n\
            I was not able to deliver your message.\r\n"
            .into(),
        "text-bounce-ja" => "From: MAILER-DAEMON@third.example\r\nSubject: =?utf-8?B?6YWN5L+h5LiN6IO9?=\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            5qyh44Gu5a6b5YWI44Gr44Gv6YWN5L+h44Gn44GN44G+44Gb44KTDQo8Ym9iQHRoaXJkLmV4YW1wbGU+DQo=\r\n"
            .into(),
        "mdn" => dsn("displayed").replace("delivery-status", "disposition-notification"),
        "calendar" => {
            "Subject: Accepted: lunch\r\nContent-Type: text/calendar; method=REPLY\r\n\r\nBEGIN:VCALENDAR\r\n".into()
        }
        "arf" => {
            "Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\r\nSpam.\r\n--b\r\n\
            Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n--b--\r\n"
                .into()
        }
        "report" => "Subject: Report Domain: our.example Submitter: third.example Report-ID: 1\r\n\r\nx\r\n".into(),
        "challenge" => {
            "Subject: Please confirm your message\r\nAuto-Submitted: auto-replied\r\n\r\nIt is being held.\r\n".into()
        }
        other => panic!("{other}"),
    }
}

/// A failure DSN that returns an original with evidence, in one of the forms that servers use.
pub fn bounce_with_evidence(how: &str, ring: &Keyring, now: Timestamp) -> String {
    let address = if how == "evidence-other-recipient" { "bea@our.example" } else { "ann@our.example" };
    let days = if how == "evidence-expired" { -9 } else { 0 };
    let (key, address) = (ring.own_signer().unwrap(), Address::parse(address).unwrap());
    let (params, day) = (batv::BatvParams::default(), now.day().plus(days));
    let mut line = evidence::header(key, &params, day, *b"0123456789", "<1@our.example>", &address).unwrap().line;
    if how == "evidence-forged" {
        let last = if line.ends_with('A') { "B" } else { "A" };
        line.replace_range(line.len() - 1.., last);
    }
    if how == "evidence-folded" {
        line = line.replace("; n=", ";\r\n\tn=").replace("; a=", ";\r\n a=");
    }
    let id = if how == "evidence-other-id" { "<2@our.example>" } else { "<1@our.example>" };
    let original = format!(
        "Received: from a by b; Mon, 1 Jan 2026 00:00:00 +0000\r\nFrom: ann@our.example\r\nMessage-ID: {id}\r\n{line}\r\n\r\nHello\r\n"
    );
    let (encoding, original) = match how {
        "evidence-quoted" => ("", original.lines().map(|line| format!("> {line}\r\n")).collect()),
        "evidence-base64" => {
            let text = data_encoding::BASE64.encode(original.as_bytes());
            let lines: Vec<&str> = text.as_bytes().chunks(76).map(|l| std::str::from_utf8(l).unwrap()).collect();
            ("Content-Transfer-Encoding: base64\r\n", lines.join("\r\n") + "\r\n")
        }
        "evidence-qp" => {
            ("Content-Transfer-Encoding: quoted-printable\r\n", original.replace('=', "=3D").replace("; n", ";=\r\n n"))
        }
        _ => ("", original),
    };
    let kind = if how == "evidence-quoted" || how == "evidence-qp" { "text/plain" } else { "message/rfc822" };
    let mut part = format!("Content-Type: {kind}\r\n{encoding}\r\n{original}");
    if how == "evidence-nested" {
        for depth in 0..4 {
            part = format!(
                "Content-Type: multipart/mixed; boundary=d{depth}\r\n\r\n--d{depth}\r\n{part}\r\n--d{depth}--\r\n"
            );
        }
    }
    // Beyond the part of a message that is buffered.
    let padding = if how == "evidence-late" { "x".repeat(70).add("\r\n").repeat(3000) } else { String::new() };
    format!(
        "From: MAILER-DAEMON@third.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"b=1\"\r\n\r\n\
         --b=1\r\n\r\nSorry.\r\n{padding}--b=1\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n\
         Final-Recipient: rfc822; bob@third.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b=1\r\n{part}--b=1--\r\n"
    )
}

/// Fills in placeholders such as `{valid ann@our.example}`.
pub fn fill(text: &str, ring: &Keyring, now: Timestamp) -> String {
    let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else { return text.to_owned() };
    let (kind, rest) = inner.split_once(' ').unwrap();
    if kind == "upper" {
        return fill(rest, ring, now).to_uppercase();
    }
    let address = Address::parse(rest).unwrap();
    let key = ring.own_signer().unwrap();
    let days = |days: i64| now.day().plus(days);
    let params = batv::BatvParams::default();
    let tag = |day| batv::sign(key, &params, day, &address).unwrap().address().to_string();
    let srs_of = |day| match srs::forward(key, &srs::SrsParams::default(), day, &address, "srs.our.example").unwrap() {
        srs::Forwarded::Rewritten(signed) => signed.address().to_string(),
        srs::Forwarded::Unchanged => panic!("{rest}"),
    };
    match kind {
        "valid" => tag(days(0)),
        "expired" => tag(days(-9)),
        "future" => tag(days(9)),
        "unknown" => tag(days(0)).replacen("prvs=1", "prvs=7", 1),
        "forged" => other_hex(&tag(days(0))),
        "srs" => srs_of(days(0)),
        "srs-expired" => srs_of(days(-30)),
        "srs-forged" => srs_of(days(0)).replace("=bob@", "=rob@"),
        other => panic!("{other}"),
    }
}

/// Whether an address is the expected one; `…` stands for a tag.
pub fn fits(got: &str, want: &str) -> bool {
    match want.split_once('…') {
        Some((head, tail)) => got.starts_with(head) && got.ends_with(tail) && got.len() > want.len(),
        None => got == want,
    }
}

/// A tag with another last digit of the hash.
pub fn other_hex(tag: &str) -> String {
    let at = tag.find("prvs=").unwrap() + 14;
    let digit = if &tag[at..=at] == "0" { "1" } else { "0" };
    format!("{}{digit}{}", &tag[..at], &tag[at + 1..])
}

pub fn expected(case: &Inbound, ring: &Keyring, now: Timestamp) -> Came {
    let taken = case.rcpt == 250 && case.data == 250 && !case.discarded;
    let address = || strip_source_route(&fill(&case.to_address, ring, now)).to_owned();
    Came {
        rcpt: case.rcpt,
        data: (case.rcpt == 250).then_some(case.data),
        to: taken.then(|| case.to.as_deref().map_or_else(address, |to| fill(to, ring, now))),
        mark: case.mark.clone(),
    }
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_secs() as i64)
}
