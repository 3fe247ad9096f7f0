//! The words of a message before the original that it returns: their senses, and other features of the text.

use super::features::Seen;
use super::original::{plain_field, unquoted};
use super::phrases::{Sense, senses};

/// Maximum number of lines that are inspected.
const LINES: usize = 120;
/// Maximum number of lines that are inspected at the end of a long text.
const LAST_LINES: usize = 40;

/// The words of a message, before the original that it returns.
pub(super) struct Text {
    senses: Vec<Sense>,
    /// Number of SMTP reply codes and enhanced status codes (RFC 3463).
    pub codes: u32,
    /// Whether a line begins with an address, as in a server's list of recipients.
    pub listed: bool,
    /// Whether there is an address other than those of the message's recipients, or a telephone number.
    pub stranger: bool,
    /// Whether the text contains a header block.
    pub returned: bool,
    /// Whether the text counts messages, as in `3 of 100`, `12 messages` or `Bounced: 3`.
    pub counts: bool,
    pub is_empty: bool,
}

impl Text {
    pub(super) fn of(seen: &Seen) -> Self {
        let all = seen.text();
        let start = returned_at(&all);
        // Quoted lines are the words of another message.
        let is_said = |line: &&str| !line.is_empty() && unquoted(line.as_bytes()).len() == line.len();
        let before = all.iter().take(start.unwrap_or(all.len())).map(|line| line.trim());
        // Nothing after an original is inspected.
        let last = if start.is_none() { seen.last_lines() } else { Vec::new() };
        let last = last.get(..returned_at(&last).unwrap_or(last.len())).unwrap_or_default();
        let end = last.iter().rev().map(|line| line.trim()).filter(is_said).take(LAST_LINES);
        let said: Vec<&str> = before.filter(is_said).take(LINES).chain(end).collect();
        let joined = said.join(" ");
        let mut senses: Vec<Sense> = senses(&joined).into_iter().map(|(sense, _)| sense).collect();
        senses.sort_by_key(|sense| *sense as u8);
        senses.dedup();
        let for_us = |address: &str| seen.heads.to.iter().any(|to| to.contains(address));
        let addresses = || said.iter().flat_map(|line| addresses(line));
        Self {
            senses,
            codes: said.iter().map(|line| codes(line)).sum(),
            listed: said.iter().any(|line| is_listed(line)),
            // Gateways to telephone networks name a telephone number.
            stranger: addresses().any(|address| !for_us(address)) || said.iter().any(|line| has_number(line)),
            returned: start.is_some(),
            counts: counts_messages(&joined),
            is_empty: said.is_empty(),
        }
    }

    pub(super) fn has(&self, sense: Sense) -> bool {
        self.senses.contains(&sense)
    }
}

/// Whether a text counts messages, as summaries do: a number before `messages`, `3 of 100`, or a number after
/// `bounced:`.
pub(super) fn counts_messages(text: &str) -> bool {
    const THINGS: &str =
        "messages; mails; emails; e-mails; bounces; bounced; nachrichten; mensajes; mensagens; messaggi; berichten";
    const LABELS: &str = "sent:; bounced:; delivered:; failed:; undelivered:; deferred:; zugestellt:";
    let words: Vec<&str> = text.split([' ', '\t', '(', ')', ',']).filter(|word| !word.is_empty()).collect();
    let value = |word: &str| word.parse::<u32>().ok().filter(|n| (1..1_000_000).contains(n));
    let number = |word: &str| value(word).is_some();
    let is = |words: &str, word: &str| words.split("; ").any(|known| known == word.trim_end_matches('.'));
    words.windows(3).any(|three| matches!(three, [a, "of", b] if value(a).zip(value(b)).is_some_and(|(a, b)| a < b)))
        || words.windows(2).any(|two| match two {
            [first, second] => {
                (number(first) && *first != "1" && is(THINGS, second)) || (is(LABELS, first) && number(second))
            }
            _ => false,
        })
}

/// The line at which a header block begins, if there are at least three header fields in a row.
fn returned_at(lines: &[String]) -> Option<usize> {
    const NAMES: &str = "received; from; to; subject; date; message-id; return-path; mime-version; content-type; reply-to; cc; sender; \
        x-mailer; dkim-signature; delivered-to; content-transfer-encoding";
    let (mut start, mut fields) = (None, 0);
    for (at, line) in lines.iter().enumerate() {
        let bare = unquoted(line.as_bytes()).trim_ascii();
        match plain_field(bare) {
            Some((name, _)) if NAMES.split("; ").any(|known| name == known.as_bytes()) => {
                start = start.or(Some(at));
                fields += 1;
                if fields >= 3 && is_header_block(lines, start) {
                    return start;
                }
            }
            // Other fields, and folded lines.
            Some(_) if start.is_some() => {}
            None if start.is_some() && !bare.is_empty() && line.starts_with(' ') => {}
            _ => (start, fields) = (None, 0),
        }
    }
    None
}

/// Whether a header block is complete enough to be that of an original. Exchange quotes "To: … Subject: … Sent: …"
/// without returning the original.
fn is_header_block(lines: &[String], start: Option<usize>) -> bool {
    let block = lines.iter().skip(start.unwrap_or_default()).take(40);
    block.take_while(|line| !line.trim().is_empty()).any(|line| {
        let bare = line.trim_start_matches([' ', '>', '|']);
        ["received:", "message-id:", "return-path:", "mime-version:", "content-type:", "from:"]
            .iter()
            .any(|name| bare.starts_with(name))
    })
}

fn addresses(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', '<', '>', '(', ')', '[', ']', '"', '\'', ',', ';', ':', '='])
        .map(|word| word.trim_matches('.'))
        .filter(|word| word.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.')))
}

/// Whether a line begins with an address: `<bob@third.example>:`, `bob@third.example: no such user`
fn is_listed(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or_default();
    let bare = first.trim_matches(['<', '>', ':', ',', '*', '"', '\'']);
    addresses(bare).next() == Some(bare)
}

/// Whether there is a telephone number: 8 to 15 digits in a row.
fn has_number(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_digit()).any(|digits| (8..=15).contains(&digits.len()))
}

/// Number of SMTP reply codes and enhanced status codes in a line: 550, 5.1.1, #5.1.1.
fn codes(line: &str) -> u32 {
    let count = line
        .split([' ', '(', ')', '[', ']', '#', ';', ':', ',', '-'])
        .filter(|word| {
            let word = word.trim_end_matches('.').as_bytes();
            match word {
                [b'4' | b'5', b'0'..=b'7', c] => c.is_ascii_digit(),
                [b'4' | b'5', b'.', rest @ ..] => {
                    let mut parts = rest.split(|&b| b == b'.');
                    let number = |part: Option<&[u8]>| {
                        part.is_some_and(|p| (1..=3).contains(&p.len()) && p.iter().all(u8::is_ascii_digit))
                    };
                    number(parts.next()) && number(parts.next()) && parts.next().is_none()
                }
                _ => false,
            }
        })
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}
