//! Finds the returned original anywhere in a bounce: as a part, as a header block, within the text, indented, or quoted
//! with `> `.
//!
//! A separate scan, line by line and in bounded memory, for those headers of the original that identify it.

use super::lines::Piece;
use super::trace::hosts_after_by;
use crate::envelope::evidence::message_id;
use crate::envelope::tag::masked_text;

/// Maximum number of values of each header.
const MAX_KEPT: usize = 8;
/// Maximum length of a value, folded lines included, in octets. RFC 5322 section 2.1.1 limits lines to 998.
const MAX_VALUE: usize = 1000;

/// Headers of the returned original, as the bounce shows them. They are not proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    /// Message-IDs with their angle brackets, in the order in which they occur.
    pub message_ids: Vec<String>,
    /// The envelope sender (Return-Path), without angle brackets.
    pub return_path: Option<String>,
    /// The value of the From header.
    pub from: Option<String>,
    /// The hosts that relayed it, the last one first.
    pub received: Vec<ReceivedHop>,
    /// Whether there is a DKIM signature (RFC 6376); it is not verified.
    pub dkim: bool,
    /// Values of `Countersign-Evidence` headers.
    pub evidence: Vec<String>,
}

/// One Received header (RFC 5321 section 4.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedHop {
    /// The host that sent the message, in lower case.
    pub from: Option<String>,
    /// The host that received the message, in lower case.
    pub by: Option<String>,
}

/// The most Received lines that are shown.
const MAX_HOPS_SHOWN: usize = 4;
/// The most characters of a header line that is shown.
const MAX_SHOWN: usize = 160;

/// A header line for people: on one line, and shortened.
pub(super) fn shown_line(name: &str, value: &str) -> String {
    let words = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = format!("{name}: {words}");
    if let Some((cut, _)) = line.char_indices().nth(MAX_SHOWN) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

impl Returned {
    /// The headers that say where the original comes from, as lines for people. Hashes of tags are masked.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let path = self.return_path.iter().map(|path| shown_line("Return-Path", &format!("<{}>", masked_text(path))));
        let from = self.from.iter().map(|from| shown_line("From", from));
        let id = self.message_ids.iter().take(1).map(|id| shown_line("Message-ID", id));
        let hops = self.received.iter().map(|hop| {
            let from = hop.from.iter().map(|host| format!("from {host}"));
            let by = hop.by.iter().map(|host| format!("by {host}"));
            shown_line("Received", &from.chain(by).collect::<Vec<_>>().join(" "))
        });
        path.chain(from).chain(id).chain(hops.take(MAX_HOPS_SHOWN)).collect()
    }

    /// The names of the headers that were found: `message-id`, `return-path`, `received`, `dkim`, `evidence`.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let found = [
            ("message-id", !self.message_ids.is_empty()),
            ("return-path", self.return_path.is_some()),
            ("received", !self.received.is_empty()),
            ("dkim", self.dkim),
            ("evidence", !self.evidence.is_empty()),
        ];
        found.into_iter().filter_map(|(name, found)| found.then_some(name)).collect()
    }

    fn take(&mut self, header: OriginalHeader, value: &[u8]) {
        let text = String::from_utf8_lossy(value.trim_ascii());
        match header {
            OriginalHeader::MessageId => keep(&mut self.message_ids, message_id(&text)),
            OriginalHeader::ReturnPath => {
                self.return_path.get_or_insert_with(|| text.trim_matches(['<', '>']).to_owned());
            }
            OriginalHeader::From => {
                self.from.get_or_insert_with(|| text.into_owned());
            }
            OriginalHeader::Received => {
                let mut words = text.split_ascii_whitespace();
                let from = words.find(|word| word.eq_ignore_ascii_case("from")).and_then(|_| words.next());
                let from = from.map(|host| host.trim_end_matches([';', ',']).to_ascii_lowercase());
                // A client can have another host written before the last.
                let hop = ReceivedHop { from, by: hosts_after_by(value).pop() };
                if (hop.from.is_some() || hop.by.is_some()) && self.received.len() < MAX_KEPT {
                    self.received.push(hop);
                }
            }
            OriginalHeader::Dkim => self.dkim = true,
            OriginalHeader::Evidence => {
                let value = end_of_evidence(value).and_then(|end| value.get(..end)).unwrap_or(value);
                keep(&mut self.evidence, Some(String::from_utf8_lossy(value.trim_ascii()).into_owned()));
            }
        }
    }
}

fn keep(list: &mut Vec<String>, value: Option<String>) {
    list.extend(value.filter(|value| list.len() < MAX_KEPT && !list.contains(value)));
}

/// The end of the sixteenth character of `a=` in the value of an evidence header. Text after it does not belong to the
/// header: the next line may be the boundary of a part, or text that a server adds below the original.
fn end_of_evidence(value: &[u8]) -> Option<usize> {
    let is_mac =
        |at: &usize| value.get(..*at).is_none_or(|before| matches!(before.trim_ascii_end().last(), None | Some(b';')));
    let start = memchr::memmem::find_iter(&value.to_ascii_lowercase(), b"a=").find(is_mac)? + 2;
    let characters = value.iter().enumerate().skip(start).filter(|(_, octet)| !octet.is_ascii_whitespace());
    let sixteenth = characters.take_while(|(_, octet)| octet.is_ascii_alphanumeric()).nth(15)?;
    Some(sixteenth.0 + 1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OriginalHeader {
    MessageId,
    ReturnPath,
    From,
    Received,
    Dkim,
    Evidence,
}

impl OriginalHeader {
    fn named(name: &[u8]) -> Option<Self> {
        const NAMES: [(&str, OriginalHeader); 6] = [
            ("message-id", OriginalHeader::MessageId),
            ("return-path", OriginalHeader::ReturnPath),
            ("from", OriginalHeader::From),
            ("received", OriginalHeader::Received),
            ("dkim-signature", OriginalHeader::Dkim),
            ("countersign-evidence", OriginalHeader::Evidence),
        ];
        NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes())).map(|(_, header)| *header)
    }
}

/// Reads lines, and adds the headers that it finds to a [`Returned`].
#[derive(Debug, Default)]
pub(super) struct Finder {
    pending: Option<(OriginalHeader, Vec<u8>)>,
}

impl Finder {
    pub(super) fn line(&mut self, piece: Piece<'_>, found: &mut Returned) {
        if !piece.first {
            return;
        }
        let rest = unquoted(piece.text);
        let text = rest.trim_ascii_start();
        if self.pending.is_none() && !text.first().is_some_and(|b| b"mMrRfFdDcC".contains(b)) {
            return;
        }
        if let Some((name, value)) = plain_field(text) {
            self.finish(found);
            self.pending =
                OriginalHeader::named(name).map(|header| (header, value.get(..MAX_VALUE).unwrap_or(value).to_vec()));
            return;
        }
        let Some((header, value)) = &mut self.pending else { return };
        if *header == OriginalHeader::Evidence && end_of_evidence(value).is_some() {
            return self.finish(found);
        }
        // Folded lines begin with white space, but a mail program that wrapped an evidence header may have removed it.
        let folded = rest.len() > text.len() || value.is_empty() || *header == OriginalHeader::Evidence;
        if folded && !text.is_empty() && value.len() + text.len() < MAX_VALUE {
            value.push(b' ');
            value.extend_from_slice(text.trim_ascii_end());
        } else {
            self.finish(found);
        }
    }

    /// Ends the last header.
    pub(super) fn finish(&mut self, found: &mut Returned) {
        if let Some((header, value)) = self.pending.take() {
            found.take(header, &value);
        }
    }
}

/// A line without its quote marks (`> ` or `| `).
pub(super) fn unquoted(line: &[u8]) -> &[u8] {
    let mut rest = line;
    loop {
        let inner = rest.trim_ascii_start();
        match inner.split_first() {
            Some((b'>' | b'|', tail)) => rest = tail.strip_prefix(b" ").unwrap_or(tail),
            _ => return rest,
        }
    }
}

/// The name and value of a header whose name consists of letters, digits, hyphens and underscores.
pub(super) fn plain_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().take(60).position(|&b| b == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let good = !name.is_empty() && name.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    good.then(|| (name, value.get(1..).unwrap_or_default().trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(text: &str) -> Returned {
        let (mut finder, mut found) = (Finder::default(), Returned::default());
        text.lines().for_each(|line| finder.line(Piece::whole(line.as_bytes()), &mut found));
        finder.finish(&mut found);
        found
    }

    const ORIGINAL: &str = "Return-Path: <prvs=1786a1b2c3=ann@our.example>\n\
        Received: from mail.our.example (mail.our.example [192.0.2.1])\n\tby mx.third.example with ESMTP id 1:2\n\
        Received: by mail.our.example (Postfix)\nDKIM-Signature: v=1; a=rsa-sha256; h=from:to;\n\tb=abc\n\
        From: Ann <ann@our.example>\nMessage-ID:\n <1:2@our.example>\n\
        Countersign-Evidence: v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP;\n a=ABCDEFGHIJKLMNOP\nTo: Bob <bob@third.example>\n";

    #[test]
    fn the_original_is_found_however_it_is_shown() {
        let plain = find(ORIGINAL);
        assert_eq!(plain.names(), ["message-id", "return-path", "received", "dkim", "evidence"]);
        assert_eq!(plain.message_ids, ["<1:2@our.example>"]);
        assert_eq!(plain.evidence, ["v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP; a=ABCDEFGHIJKLMNOP"]);
        let hop = ReceivedHop { from: Some("mail.our.example".into()), by: Some("mx.third.example".into()) };
        assert_eq!(plain.received, [hop, ReceivedHop { from: None, by: Some("mail.our.example".into()) }]);
        for prefix in ["> ", ">", ">> ", "> > ", "| ", "   ", "\t"] {
            let quoted: String = ORIGINAL.lines().map(|line| format!("{prefix}{line}\n")).collect();
            assert_eq!(find(&quoted), plain, "{prefix:?}");
        }
    }

    #[test]
    fn evidence_that_was_wrapped_without_white_space() {
        let found = find("> Countersign-Evidence: v=1; k=1; d=786;\n> n=ABC;\n> a=DEF\n>\n> text");
        assert_eq!(found.evidence, ["v=1; k=1; d=786; n=ABC; a=DEF"]);
    }

    #[test]
    fn what_stands_below_evidence_is_not_of_it() {
        let want = "v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP; a=ABCDEFGHIJKLMNOP";
        for header in [
            "v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP; a=ABCDEFGHIJKLMNOP",
            "v=1; k=1; d=786; n=ABCDEFGHIJKLMNOP;\n a=ABCDEFGHIJKLMNOP",
            "v=1; k=1; d=786;\nn=ABCDEFGHIJKLMNOP; a=ABCDEFGHIJKLMNOP",
        ] {
            for below in ["--b--", "--- End of headers ---", " indented", "NEXT", "</pre>", "ABCD", ""] {
                let found = find(&format!("Countersign-Evidence: {header}\n{below}\nTo: bob@third.example\n"));
                assert_eq!(found.evidence, [want], "{header:?} {below:?}");
            }
            let found = find(&format!("Countersign-Evidence: {header}</pre>\n"));
            assert_eq!(found.evidence, [want], "{header:?}");
        }
    }

    #[test]
    fn prose_is_no_header() {
        let found = find("We received: nothing\nfrom here: on\nMessage-ID is missing\nReceived: yesterday\n");
        assert_eq!(found.names(), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn memory_is_bounded(lines in prop::collection::vec("(Message-ID|Received|From|Countersign-Evidence|): ?[ -~]{0,300}|[ ] [ -~]{300}", 0..100)) {
            let found = find(&lines.join("\n"));
            prop_assert!(found.message_ids.len() <= MAX_KEPT && found.evidence.len() <= MAX_KEPT);
            prop_assert!(found.evidence.iter().chain(&found.message_ids).all(|v| v.len() <= MAX_VALUE + 2));
        }
    }
}
