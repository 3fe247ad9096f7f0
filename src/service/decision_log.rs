//! Recent decisions in the store: written with the other changes, the oldest removed, and read for `countersign trace`.

use std::collections::VecDeque;
use std::net::IpAddr;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::decision_words::in_words;
use crate::config::AddressDetail;
use crate::drive::decisions::{Decision, is_about, mailbox};
use crate::envelope::address::Address;
use crate::envelope::printable::is_dangerous;
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};
use crate::state::store::{Change, Store, StoreError, Table};
use crate::state::time_format::rfc3339;

/// Age at which a decision is removed, in seconds.
const MAX_AGE: i64 = 14 * SECONDS_PER_DAY;
/// The most characters of an address or a Message-ID that are kept.
const MAX_TEXT: usize = 200;
/// The most decisions of one answer.
const MAX_SHOWN: usize = 1_000;

/// Which decisions the store has: their numbers and times, the oldest first.
#[derive(Debug, Default)]
pub(super) struct DecisionLog {
    kept: VecDeque<(u64, i64)>,
    next: u64,
}

/// A decision as it is stored, and as `trace --json` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoredDecision {
    /// When it was made, in seconds since 1970.
    pub at: i64,
    /// The session, as in the log.
    pub session: String,
    /// The client, if it is known.
    pub client: Option<String>,
    /// `recipient` or `content`.
    pub event: String,
    /// The sender; empty: the null sender.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The verdict on the tag, or the kind of the message.
    pub found: String,
    /// What was done.
    pub action: String,
    /// Why.
    pub reason: String,
    /// The Message-ID of the message itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The Message-ID of the returned original.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned_message_id: Option<String>,
    /// The recipient that the bounce is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_recipient: Option<String>,
    /// The signs for the kind of the message, in words, if its content was inspected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signs: Vec<String>,
    /// The lines of its header that say what it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<String>,
    /// The lines of the returned original's header that say where that comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub original: Vec<String>,
    /// What its evidence of being genuine is worth, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// A decision in the store, with its number there.
pub(super) type Numbered = (u64, StoredDecision);

impl DecisionLog {
    /// Reads which decisions the store has.
    pub(super) fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let mut kept = VecDeque::new();
        store.scan(Table::Decision, &mut |key, value| {
            let number = <[u8; 8]>::try_from(key).map(u64::from_be_bytes);
            if let (Ok(number), Ok(stored)) = (number, serde_json::from_slice::<StoredDecision>(value)) {
                kept.push_back((number, stored.at));
            }
        })?;
        let next = kept.back().map_or(0, |(number, _)| number + 1);
        Ok(Self { kept, next })
    }

    /// The number of decisions in the store.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The changes that write these decisions, and remove those that are too old or too many.
    pub(super) fn changes(
        &mut self,
        decisions: VecDeque<Decision>,
        detail: AddressDetail,
        most: usize,
        now: Timestamp,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for decision in decisions {
            let stored = StoredDecision::of(&decision, detail);
            let Ok(value) = serde_json::to_vec(&stored) else { continue };
            changes.push(change(self.next, Some(value)));
            self.kept.push_back((self.next, stored.at));
            self.next += 1;
        }
        while let Some((number, at)) = self.kept.front().copied()
            && (self.kept.len() > most || now.0.saturating_sub(at) > MAX_AGE)
        {
            self.kept.pop_front();
            changes.push(change(number, None));
        }
        changes
    }
}

fn change(number: u64, value: Option<Vec<u8>>) -> Change {
    Change { table: Table::Decision, key: number.to_be_bytes().to_vec(), value }
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum About {
    Address(Address),
    MessageId(String),
    Client(IpAddr),
}

impl About {
    /// An address of a client, a Message-ID in angle brackets, or an address.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Client(address.to_canonical()));
        }
        if text.starts_with('<') && text.ends_with('>') {
            return Ok(Self::MessageId(text.to_owned()));
        }
        Address::parse(text)
            // Somebody may ask for the signed address, of which no hash is kept.
            .and_then(|address| Address::parse(&mailbox(&address)))
            .map(Self::Address)
            .map_err(|error| format!("`{text}` is no client's address, no Message-ID in <>, and no address: {error}"))
    }

    /// What every fitting decision has in its JSON, in some case; `None`: it may be written in other ways.
    fn needle(&self) -> Option<AhoCorasick> {
        let text = match self {
            // An address may be written in another form.
            Self::Client(_) => return None,
            Self::MessageId(text) => clean(text),
            Self::Address(address) => address.content().into_owned(),
        };
        let is_plain = text.chars().all(|c| !matches!(c, '"' | '\\') && !c.is_control());
        is_plain.then(|| AhoCorasick::builder().ascii_case_insensitive(true).build([text]).ok()).flatten()
    }

    fn fits(&self, decision: &StoredDecision) -> bool {
        match self {
            Self::Client(client) => {
                let kept = decision.client.as_ref().and_then(|kept| kept.parse::<IpAddr>().ok());
                kept.is_some_and(|kept| kept.to_canonical() == *client)
            }
            Self::MessageId(id) => {
                let id = clean(id);
                [&decision.message_id, &decision.returned_message_id].into_iter().flatten().any(|kept| *kept == id)
            }
            Self::Address(address) => [&decision.to, &decision.from]
                .into_iter()
                .chain(&decision.final_recipient)
                .any(|kept| is_about(kept, address)),
        }
    }
}

/// The decisions about an address, a client or a Message-ID since a moment, the newest last.
///
/// # Errors
/// The text is none of these, or the store cannot be read: in words.
pub(super) fn find(store: &dyn Store, about: &str, since: Timestamp) -> Result<Vec<StoredDecision>, String> {
    let about = About::parse(about)?;
    let found = newest(store, since, MAX_SHOWN, Some(&about))?;
    Ok(found.into_iter().rev().map(|(_, decision)| decision).collect())
}

/// At most this many decisions about an address, a client or a Message-ID, the newest first.
///
/// # Errors
/// As [`find`].
pub(super) fn search(store: &dyn Store, about: &str, most: usize) -> Result<Vec<Numbered>, String> {
    let about = About::parse(about)?;
    newest(store, Timestamp(i64::MIN), most, Some(&about))
}

/// At most this many decisions, the newest first.
///
/// # Errors
/// The store cannot be read: in words.
pub(super) fn latest(store: &dyn Store, most: usize) -> Result<Vec<Numbered>, String> {
    newest(store, Timestamp(i64::MIN), most, None)
}

/// The decision with this number, if it is still kept.
///
/// # Errors
/// The store cannot be read: in words.
pub(super) fn one(store: &dyn Store, number: u64) -> Result<Option<StoredDecision>, String> {
    let value = store.get(Table::Decision, &number.to_be_bytes()).map_err(|error| unreadable(&error))?;
    Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
}

fn newest(store: &dyn Store, since: Timestamp, most: usize, about: Option<&About>) -> Result<Vec<Numbered>, String> {
    let mut found = Vec::new();
    let needle = about.and_then(About::needle);
    // Most decisions are about others, and are not parsed. A quoted local part may have its letters behind backslashes.
    let may_fit = |value: &[u8]| {
        needle.as_ref().is_none_or(|needle| needle.is_match(value) || memchr::memmem::find(value, br"\\").is_some())
    };
    let read = store.scan_back(Table::Decision, &mut |key, value| {
        if !may_fit(value) {
            return true;
        }
        let number = <[u8; 8]>::try_from(key).map(u64::from_be_bytes);
        let (Ok(number), Ok(stored)) = (number, serde_json::from_slice::<StoredDecision>(value)) else { return true };
        if stored.at >= since.0 && about.is_none_or(|about| about.fits(&stored)) {
            found.push((number, stored));
        }
        found.len() < most
    });
    read.map_err(|error| unreadable(&error))?;
    Ok(found)
}

/// When the oldest decision was made that is kept; `None`: there is none.
pub(super) fn oldest(store: &dyn Store) -> Option<Timestamp> {
    let mut last = None;
    store
        .scan_back(Table::Decision, &mut |key, _| {
            last = <[u8; 8]>::try_from(key).ok().map(u64::from_be_bytes);
            true
        })
        .ok()?;
    one(store, last?).ok()?.map(|decision| Timestamp(decision.at))
}

fn unreadable(error: &StoreError) -> String {
    format!("the state file cannot be read: {error}")
}

impl StoredDecision {
    fn of(decision: &Decision, detail: AddressDetail) -> Self {
        let content = decision.content.clone().unwrap_or_default();
        let lines = |lines: &[String]| {
            let shown = lines.iter().filter_map(|line| match detail {
                AddressDetail::Full => Some(clean(line)),
                AddressDetail::Masked | AddressDetail::None => Self::without_names(&clean(line)),
            });
            shown.collect()
        };
        Self {
            at: decision.at.0,
            session: decision.session.to_string(),
            client: decision.client.map(|client| client.to_string()),
            event: decision.event.to_owned(),
            from: kept(&decision.from, detail),
            to: kept(&decision.to, detail),
            found: decision.found.to_owned(),
            action: decision.action.to_owned(),
            reason: decision.reason.to_owned(),
            message_id: decision.message_id.as_deref().map(clean),
            returned_message_id: decision.returned_message_id.as_deref().map(clean),
            final_recipient: decision.final_recipient.as_deref().map(|address| kept(address, detail)),
            signs: content.signs.iter().map(|sign| (*sign).to_owned()).collect(),
            header: lines(&content.header),
            original: lines(&content.original),
            evidence: content.evidence.map(str::to_owned),
        }
    }

    /// A line of a header without what may name a person: the type of a message, whether it was sent automatically, and the
    /// hosts that it passed. `None`: nothing is left.
    pub(super) fn without_names(line: &str) -> Option<String> {
        let (name, value) = line.split_once(": ")?;
        match name {
            "Content-Type" => {
                let parts = value.split(';').map(str::trim);
                let kept = parts.enumerate().filter(|(n, part)| *n == 0 || part.starts_with("report-type="));
                let kept: Vec<&str> = kept.map(|(_, part)| part).collect();
                Some(format!("{name}: {}", kept.join("; ")))
            }
            "Auto-Submitted" => Some(format!("{name}: {}", value.split([' ', ';', '(']).next().unwrap_or_default())),
            "Received" if !line.contains('@') => Some(line.to_owned()),
            _ => None,
        }
    }

    /// One line for a person.
    pub(crate) fn line(&self) -> String {
        let from = if self.from.is_empty() { "<>" } else { &self.from };
        let client = self.client.as_deref().unwrap_or("local");
        let about = match (&self.final_recipient, &self.returned_message_id) {
            (Some(recipient), Some(id)) => format!(" (about {recipient}, original {id})"),
            (Some(recipient), None) => format!(" (about {recipient})"),
            (None, Some(id)) => format!(" (original {id})"),
            (None, None) => String::new(),
        };
        format!(
            "{}  {client}  {from} → {}  {}{about}  session={}",
            rfc3339(Timestamp(self.at)),
            self.to,
            in_words(&self.event, &self.found, &self.action, &self.reason),
            self.session
        )
    }
}

/// An address as it is kept: with so much detail, and with its domain if it is too long.
fn kept(address: &str, detail: AddressDetail) -> String {
    let (local, domain) = match address.rsplit_once('@') {
        Some((local, domain)) => (local, domain),
        // What is no address may be a name.
        None if detail != AddressDetail::Full && !address.is_empty() => return "…".to_owned(),
        None => return clean(address),
    };
    if address.chars().count() <= MAX_TEXT {
        return clean(&detail.shown(address));
    }
    let most = MAX_TEXT.saturating_sub(domain.chars().count() + 2).max(20);
    let cut: String = local.chars().take(most).collect();
    let domain: String = domain.chars().take(MAX_TEXT).collect();
    clean(&detail.shown(&format!("{cut}…@{domain}")))
}

/// Text that a stranger may have written, for a file and a terminal: without control characters, and not too long.
fn clean(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if is_dangerous(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::decisions::Content;
    use crate::drive::session_id::SessionId;
    use crate::state::store;

    fn decision(at: i64, to: &str) -> Decision {
        Decision {
            at: Timestamp(at),
            session: SessionId::default(),
            message_id: None,
            client: Some("192.0.2.9".parse().unwrap()),
            event: "content",
            from: String::new(),
            to: to.into(),
            found: "dsn-failed",
            action: "reject",
            reason: "untagged-ndr",
            returned_message_id: Some("<1@x.example>".into()),
            final_recipient: Some("bob@third.example".into()),
            content: Some(Content {
                signs: vec!["delivery status"],
                header: vec!["Content-Type: multipart/report".into(), "Subject: Undelivered".into()],
                original: vec!["From: eve@our.example".into(), "Received: from bot.example".into()],
                evidence: None,
            }),
        }
    }

    #[test]
    fn decisions_are_found_by_address_client_and_message_id() {
        let opened = store::open(None, 0, "");
        let store = &*opened.store;
        let mut log = DecisionLog::default();
        let all = [
            decision(100, "ann@our.example"),
            decision(200, "prvs=1786~=ann@our.example"),
            decision(300, "eve@our.example"),
        ];
        store.commit(&log.changes(all.into(), AddressDetail::Full, 100, Timestamp(300))).unwrap();
        let times = |about: &str, since: i64| {
            let found = find(store, about, Timestamp(since)).unwrap();
            found.iter().map(|stored| stored.at).collect::<Vec<_>>()
        };
        assert_eq!(times("ann@our.example", 0), [100, 200]);
        assert_eq!(times("ann@our.example", 150), [200]);
        assert_eq!(times("192.0.2.9", 0), [100, 200, 300]);
        assert_eq!(times("::ffff:192.0.2.9", 0), [100, 200, 300], "another form of the address");
        assert_eq!(oldest(store), Some(Timestamp(100)));
        assert_eq!(times("<1@x.example>", 250), [300]);
        assert_eq!(times("bob@third.example", 0), [100, 200, 300], "the recipient of the original");
        assert!(find(store, "no address", Timestamp(0)).unwrap_err().contains("no Message-ID in <>"));
        let line = find(store, "eve@our.example", Timestamp(0)).unwrap()[0].line();
        assert_eq!(
            line,
            "1970-01-01T00:05:00Z  192.0.2.9  <> → eve@our.example  refused: a bounce without a tag (dsn-failed) \
             (about bob@third.example, original <1@x.example>)  session=00000000-0"
        );
    }

    #[test]
    fn names_are_left_out_of_header_lines() {
        for (line, expected) in [
            (
                "Content-Type: multipart/report; report-type=delivery-status; boundary=ann",
                Some("Content-Type: multipart/report; report-type=delivery-status"),
            ),
            ("Auto-Submitted: auto-replied (Ann Smith is ill)", Some("Auto-Submitted: auto-replied")),
            ("Received: from pc.dyn.example by mx.example", Some("Received: from pc.dyn.example by mx.example")),
            ("Received: from ann@pc", None),
            ("Return-Path: <annsmith>", None),
            ("From: Ann Smith", None),
            ("Subject: Ann is ill", None),
            ("X-Failed-Recipients: aaaaaaaa…", None),
        ] {
            assert_eq!(StoredDecision::without_names(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_clock_that_was_behind_for_a_while_hides_nothing() {
        let opened = store::open(None, 0, "");
        let store = &*opened.store;
        // As after a start before the clock was set.
        let all = [1_000_000, 5, 6, 1_000_100].map(|at| decision(at, "ann@our.example"));
        store
            .commit(&DecisionLog::default().changes(all.into(), AddressDetail::Full, 100, Timestamp(1_000_100)))
            .unwrap();
        let found = find(store, "ann@our.example", Timestamp(999_000)).unwrap();
        assert_eq!(found.iter().map(|stored| stored.at).collect::<Vec<_>>(), [1_000_000, 1_000_100]);
    }

    #[test]
    fn a_search_finds_every_spelling() {
        let opened = store::open(None, 0, "");
        let store = &*opened.store;
        let spellings = ["ann@our.example", "ANN@Our.Example", r#""ann"@our.example"#, r#""a\nn"@our.example"#];
        let others = ["anna@our.example", "ann@else.example"];
        let all = spellings.iter().chain(&others).map(|to| decision(1, to));
        store.commit(&DecisionLog::default().changes(all.collect(), AddressDetail::Full, 100, Timestamp(1))).unwrap();
        for asked in spellings {
            let found = find(store, asked, Timestamp(0)).unwrap();
            let to: Vec<&str> = found.iter().map(|stored| stored.to.as_str()).collect();
            assert_eq!(to, spellings, "{asked}");
        }
    }

    #[test]
    fn a_signed_address_is_found_as_the_log_of_others_has_it() {
        let opened = store::open(None, 0, "");
        let store = &*opened.store;
        let all =
            ["prvs=1786~=ann@our.example", "SRS0=~=XY=else.example=bob@srs.our.example"].map(|to| decision(1, to));
        store.commit(&DecisionLog::default().changes(all.into(), AddressDetail::Full, 100, Timestamp(1))).unwrap();
        for asked in ["prvs=1786a1b2c3=ann@our.example", "SRS0=a1b2c3=XY=else.example=bob@srs.our.example"] {
            assert_eq!(find(store, asked, Timestamp(0)).unwrap().len(), 1, "{asked}");
        }
    }

    #[test]
    fn what_a_stranger_writes_cannot_reach_a_terminal() {
        let mut evil = decision(1, "ann@our.example");
        evil.returned_message_id = Some("<\u{1b}[2J\r\n\u{202e}@x>".into());
        evil.final_recipient = Some("x".repeat(5000));
        let stored = StoredDecision::of(&evil, AddressDetail::Full);
        assert_eq!(stored.returned_message_id.as_deref(), Some("<?[2J???@x>"));
        assert_eq!(stored.final_recipient.map(|text| text.len()), Some(MAX_TEXT));
        // The domain of a long address stays, so that it can be masked.
        evil.to = format!("{}@our.example", "y".repeat(5000));
        let to = |detail| StoredDecision::of(&evil, detail).to;
        assert!(
            to(AddressDetail::Full).ends_with("y…@our.example") && to(AddressDetail::Full).chars().count() <= MAX_TEXT
        );
        assert_eq!(to(AddressDetail::Masked), "y……@our.example");
    }

    #[test]
    fn the_oldest_go_and_numbers_go_on_after_a_restart() {
        let opened = store::open(None, 0, "");
        let store = &*opened.store;
        let mut log = DecisionLog::default();
        for at in 0..10 {
            let changes = log.changes([decision(at, "ann@our.example")].into(), AddressDetail::None, 4, Timestamp(at));
            store.commit(&changes).unwrap();
        }
        let times = |store: &dyn Store| {
            let found = find(store, "192.0.2.9", Timestamp(0)).unwrap();
            found.iter().map(|stored| (stored.at, stored.to.clone())).collect::<Vec<_>>()
        };
        let hidden = "…@our.example".to_owned();
        assert_eq!(times(store), [6, 7, 8, 9].map(|at| (at, hidden.clone())));
        let mut again = DecisionLog::of(store).unwrap();
        assert_eq!(again.next, 10);
        let late = Timestamp(8 + MAX_AGE + 1);
        store.commit(&again.changes(VecDeque::new(), AddressDetail::Full, 4, late)).unwrap();
        assert_eq!(times(store), [(9, hidden)]);
    }
}
