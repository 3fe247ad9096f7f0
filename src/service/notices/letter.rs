//! Notices as mail and as JSON.

use std::hash::{Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};
use serde_json::json;
use siphasher::sip::SipHasher13;

use super::notice::Notice;
use crate::drive::submission::OwnMessage;
use crate::envelope::time::Timestamp;
use crate::service::report::Report;
use crate::state::time_format::{mail_date, rfc3339};

/// A notice, ready to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Letter {
    event: String,
    about: String,
    title: String,
    text: String,
    /// In seconds since 1970.
    at: i64,
}

impl Letter {
    /// A notice of this moment.
    pub(super) fn of(notice: &Notice, now: Timestamp) -> Self {
        Self {
            event: notice.event().to_owned(),
            about: notice.about().to_owned(),
            title: notice.title(),
            text: wrapped(&notice.text()),
            at: now.0,
        }
    }

    /// What became of mail in the last week.
    pub(super) fn digest(report: &Report, now: Timestamp) -> Self {
        Self {
            event: "digest".to_owned(),
            about: String::new(),
            title: "figures of the last 7 days".to_owned(),
            text: figures(report),
            at: now.0,
        }
    }

    /// The word for programs.
    pub(super) fn event(&self) -> &str {
        &self.event
    }

    /// One line.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// Identifies this notice of this machine: 16 hexadecimal digits. A repeat after a crash has the same.
    fn id(&self, host: &str) -> String {
        let mut hasher = SipHasher13::new();
        (host, &self.event, &self.about, self.at).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// As mail. `envelope`: the envelope sender; `host`: the name of this machine.
    pub(super) fn mail(&self, envelope: &str, from: &str, to: &[String], host: &str) -> OwnMessage {
        let (domain, title) = (from.rsplit_once('@').map_or(host, |(_, domain)| domain), ascii(&self.title));
        let text = format!(
            "From: Countersign on {host} <{from}>\r\nTo: {}\r\nSubject: [Countersign {host}] {title}\r\nDate: {}\r\n\
             Message-ID: <countersign.{}@{domain}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\r\n{}\r\n",
            to.join(", "),
            mail_date(Timestamp(self.at)),
            self.id(host),
            ascii(&self.text).replace('\n', "\r\n"),
        );
        OwnMessage { from: envelope.to_owned(), to: to.to_vec(), text }
    }

    /// As JSON.
    pub(super) fn json(&self, host: &str) -> String {
        json!({
            "id": self.id(host),
            "event": self.event,
            "about": self.about,
            "title": self.title,
            "text": self.text,
            "host": host,
            "time": rfc3339(Timestamp(self.at)),
            "version": env!("CARGO_PKG_VERSION"),
        })
        .to_string()
    }
}

/// Text for a message without an encoding: names from elsewhere may have other characters.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || matches!(c, ' ' | '\n') { c } else { '?' }).collect()
}

/// Lines of at most 72 characters.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 72 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn figures(report: &Report) -> String {
    let listed = |list: &[(String, u64)]| {
        list.iter().take(8).map(|(name, count)| format!("    {name}: {count}\n")).collect::<String>()
    };
    let total = |list: &[(String, u64)]| list.iter().map(|(_, count)| count).sum::<u64>();
    let week = &report.week;
    let mut text = format!(
        "Signed senders: {}\nRewritten senders: {}\nBounces to valid tags: {}\nBounces without a tag, rescued by evidence: {}\n\nRefused: {}\n",
        week.signed,
        week.rewritten,
        week.genuine,
        week.rescued,
        total(&week.refused)
    );
    text += &listed(&week.refused);
    if !week.networks.is_empty() {
        text += "  by network\n";
        text += &listed(&week.networks);
        text += "  by recipient domain\n";
        text += &listed(&week.domains);
    }
    if !week.observed.is_empty() {
        text += &format!("\nOnly marked, because not enforced: {}\n", total(&week.observed));
        text += &listed(&week.observed);
    }
    text += "\nDomains\n";
    text += &report.ramps.iter().map(|(name, state)| format!("    {name}: {state}\n")).collect::<String>();
    text += match report.attention.is_empty() {
        true => "\nNothing needs attention.\n",
        false => "\nWhat needs attention\n",
    };
    text += &report.attention.iter().map(|line| format!("    {line}\n")).collect::<String>();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_plain_message() {
        let letter = Letter::of(&Notice::SurgeBegan("b\u{fc}cher.example".into()), Timestamp(1_795_392_000));
        let mail = letter.mail("p@our.example", "p@our.example", &["ann@our.example".into()], "mx1");
        let (head, body) = mail.text.split_once("\r\n\r\n").unwrap();
        assert!(mail.text.is_ascii() && head.lines().all(|line| line.len() < 200), "{head}");
        assert!(
            head.contains("Subject: [Countersign mx1] a surge of false bounces to b?cher.example has begun"),
            "{head}"
        );
        assert!(
            head.contains("Date: Mon, 23 Nov 2026 00:00:00 +0000") && head.contains("Auto-Submitted: auto-generated")
        );
        assert!(body.lines().all(|line| line.len() <= 72) && body.lines().count() > 2, "{body}");
        let json: serde_json::Value = serde_json::from_str(&letter.json("mx1")).unwrap();
        assert_eq!((&json["event"], &json["host"]), (&"surge-began".into(), &"mx1".into()));
    }

    #[test]
    fn a_repeat_has_the_same_id_and_nothing_else_has() {
        let letter = |notice, at| Letter::of(&notice, Timestamp(at));
        let one = letter(Notice::SurgeBegan("our.example".into()), 1_795_392_000);
        let text = serde_json::to_string(&one).unwrap();
        let again: Letter = serde_json::from_str(&text).unwrap();
        let id = one.id("mx1");
        assert_eq!(again.id("mx1"), id);
        assert!(one.json("mx1").contains(&format!("\"id\":\"{id}\"")));
        let mail = one.mail("p@our.example", "p@our.example", &[], "mx1").text;
        assert!(mail.contains(&format!("\r\nMessage-ID: <countersign.{id}@our.example>\r\n")), "{mail}");
        for (other, host) in [
            (letter(Notice::SurgeEnded("our.example".into()), 1_795_392_000), "mx1"),
            (letter(Notice::SurgeBegan("your.example".into()), 1_795_392_000), "mx1"),
            (letter(Notice::SurgeBegan("our.example".into()), 1_795_392_001), "mx1"),
            (one.clone(), "mx2"),
        ] {
            assert_ne!(other.id(host), id, "{other:?} {host}");
        }
    }
}
