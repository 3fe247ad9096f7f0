//! Replay: how many bounces one tag may receive.
//!
//! Everyone who receives a message sees its tag, and could send false bounces to it until it expires. Bounces beyond
//! the number that the message can have earned are deferred.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, Hasher as _, RandomState};

use siphasher::sip::SipHasher13;

use crate::envelope::address::{Address, canonical_domain};
use crate::envelope::tag::srs::Srs;
use crate::envelope::time::{Day, Timestamp};

/// Maximum number of tags that are remembered, of each kind. A kind that is full does not affect the others.
const MAX_TAGS: usize = 50_000;

/// Kinds of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sort {
    Batv,
    Srs,
    Evidence,
}

/// The count of one tag, to be kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptCount {
    /// The name of the tag in a store: its kind and its hash.
    pub name: [u8; 9],
    /// Recipients and bounces, and the last day on which the tag is valid; `None`: it is not counted any more.
    pub count: Option<(u32, u32, Day)>,
}

/// Identifies a tag: a keyed hash, so that a sender cannot create collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TagId {
    sort: Sort,
    hash: u64,
    /// The first day on which the tag can have been used. `None` for evidence, which is made for one message only: a
    /// process that has counted its recipients has counted all of them.
    from: Option<Day>,
    /// The last day on which the tag is valid.
    until: Day,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    recipients: u32,
    bounces: u32,
    /// Bounces that have been accepted and not delivered yet.
    reserved: u32,
    until: i64,
}

/// Number of recipients and bounces, by tag.
#[derive(Debug)]
pub struct Replay {
    counts: [HashMap<u64, Count>; 3],
    /// The last day on which expired tags were removed, for each kind.
    cleaned: [i64; 3],
    /// The key of the hashes of tags.
    key: [u64; 2],
    started: Timestamp,
    /// Tags whose counts have changed since they were kept.
    changed: HashSet<(usize, u64)>,
}

impl Default for Replay {
    fn default() -> Self {
        Self::since(Timestamp(i64::MAX))
    }
}

impl Replay {
    /// Empty counters of a process that started at `started`. Tags from before that day may have uses that were not
    /// counted.
    #[must_use]
    pub fn since(started: Timestamp) -> Self {
        let random = RandomState::new();
        let key = [random.hash_one(0), random.hash_one(1)];
        Self { counts: Default::default(), cleaned: [i64::MIN; 3], key, started, changed: HashSet::new() }
    }

    /// Empty counters that go on where an earlier process ended: with the key of its hashes, and since the moment at
    /// which it began to count.
    #[must_use]
    pub fn resumed(key: [u64; 2], started: Timestamp) -> Self {
        Self { key, ..Self::since(started) }
    }

    /// The key of the hashes, and the moment since which tags are counted.
    #[must_use]
    pub fn identity(&self) -> ([u64; 2], Timestamp) {
        (self.key, self.started)
    }

    /// Puts back a count that was kept. Returns whether it is still of use.
    pub fn restore(&mut self, name: &[u8; 9], count: (u32, u32, Day), today: Day) -> bool {
        let [sort, hash @ ..] = *name;
        let Some(counts) = self.counts.get_mut(usize::from(sort)) else { return false };
        let (recipients, bounces, until) = count;
        if until < today || counts.len() >= MAX_TAGS {
            return false;
        }
        counts.insert(u64::from_be_bytes(hash), Count { recipients, bounces, reserved: 0, until: until.0 });
        true
    }

    /// The counts that have changed since the last call.
    pub fn take_changes(&mut self) -> Vec<KeptCount> {
        let changed = std::mem::take(&mut self.changed);
        let kept = |(sort, hash): (usize, u64)| {
            let mut name = [0; 9];
            let octets = u8::try_from(sort).into_iter().chain(hash.to_be_bytes());
            name.iter_mut().zip(octets).for_each(|(octet, from)| *octet = from);
            let count = self.counts.get(sort).and_then(|counts| counts.get(&hash));
            // A reservation alone is not kept: its session ends with the process.
            let count = count.filter(|count| (count.recipients, count.bounces) != (0, 0));
            KeptCount { name, count: count.map(|count| (count.recipients, count.bounces, Day(count.until))) }
        };
        changed.into_iter().map(kept).collect()
    }

    fn hash_of(&self, value: impl Hash) -> u64 {
        let [a, b] = self.key;
        let mut hasher = SipHasher13::new_with_keys(a, b);
        value.hash(&mut hasher);
        hasher.finish()
    }

    /// The id of a prvs address. `from` is the first day on which it can have been made, `until` the last day on which
    /// it is valid.
    #[must_use]
    pub fn id_of_batv(&self, tagged: &Address, from: Day, until: Day) -> TagId {
        let content = tagged.content().to_ascii_lowercase();
        let hash = self.hash_of((content, tagged.canonical_domain()));
        TagId { sort: Sort::Batv, hash, from: Some(from), until }
    }

    /// The id of an SRS address, made of the fields that its hash covers, so that all spellings of an address share one
    /// id. `stamp_is_proven`: whether the hash covers the day stamp.
    #[must_use]
    pub fn id_of_srs(&self, form: &Srs<'_>, alias: &Address, stamp_is_proven: bool, from: Day, until: Day) -> TagId {
        let (stamp, host, user) = match *form {
            Srs::Zero { stamp, host, user, .. } => (stamp, host, user),
            Srs::One { host, rest, .. } => ("", host, rest),
        };
        let is_one = matches!(form, Srs::One { .. });
        let stamp = if stamp_is_proven { stamp.to_ascii_uppercase() } else { String::new() };
        let fields = (is_one, stamp, canonical_domain(host), user.to_ascii_lowercase(), alias.canonical_domain());
        TagId { sort: Sort::Srs, hash: self.hash_of(fields), from: Some(from), until }
    }

    /// The id of the evidence in one message.
    #[must_use]
    pub fn id_of_evidence(&self, nonce: &str, until: Day) -> TagId {
        TagId { sort: Sort::Evidence, hash: self.hash_of(nonce), from: None, until }
    }

    /// Counts a message with this tag that the next hop has accepted for so many recipients.
    pub fn sent(&mut self, tag: TagId, recipients: u32, today: Day) {
        if let Some(count) = self.count(tag, today) {
            count.recipients = count.recipients.saturating_add(recipients);
            self.changed.insert((tag.sort as usize, tag.hash));
        }
    }

    /// Counts a bounce to this tag as delivered while it is in progress, until [`release`](Self::release).
    pub fn reserve(&mut self, tag: TagId, today: Day) {
        if let Some(count) = self.count(tag, today) {
            count.reserved = count.reserved.saturating_add(1);
        }
    }

    /// Ends a reservation. A delivered bounce has been counted by then.
    pub fn release(&mut self, tag: TagId) {
        let Some(counts) = self.counts.get_mut(tag.sort as usize) else { return };
        if let Some(count) = counts.get_mut(&tag.hash) {
            count.reserved = count.reserved.saturating_sub(1);
            if (count.recipients, count.bounces, count.reserved) == (0, 0, 0) {
                counts.remove(&tag.hash);
            }
        }
    }

    /// Counts a delivered bounce to this tag.
    pub fn bounced(&mut self, tag: TagId, today: Day) {
        if let Some(count) = self.count(tag, today) {
            count.bounces = count.bounces.saturating_add(1);
            self.changed.insert((tag.sort as usize, tag.hash));
        }
    }

    /// Whether a tag has received as many bounces as its messages can have earned: `3 x recipients + 20`. Bounces in
    /// progress count. A BATV tag or evidence is limited only if this process has counted its recipients since the
    /// first day of its use. An SRS address is always limited, because mail to it is relayed.
    #[must_use]
    pub fn is_used_up(&self, tag: TagId) -> bool {
        let counts = self.counts.get(tag.sort as usize);
        let Some(count) = counts.and_then(|counts| counts.get(&tag.hash)) else { return false };
        let from_the_first = tag.from.is_none_or(|from| self.started <= from.start()) && count.recipients > 0;
        let bounces = u64::from(count.bounces) + u64::from(count.reserved);
        (from_the_first || tag.sort == Sort::Srs) && bounces >= u64::from(count.recipients) * 3 + 20
    }

    fn count(&mut self, tag: TagId, today: Day) -> Option<&mut Count> {
        let (counts, cleaned) = (self.counts.get_mut(tag.sort as usize)?, self.cleaned.get_mut(tag.sort as usize)?);
        if counts.len() >= MAX_TAGS && !counts.contains_key(&tag.hash) {
            // Expired tags are removed at most once a day, when room is needed.
            if std::mem::replace(cleaned, today.0) != today.0 {
                let (sort, changed) = (tag.sort as usize, &mut self.changed);
                counts.retain(|hash, count| {
                    let stays = count.until >= today.0;
                    if !stays {
                        changed.insert((sort, *hash));
                    }
                    stays
                });
            }
            if counts.len() >= MAX_TAGS {
                // A tag that is not counted is not limited.
                return None;
            }
        }
        let count = counts.entry(tag.hash).or_default();
        count.until = tag.until.0;
        Some(count)
    }

    /// Number of tags that are counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.iter().map(HashMap::len).sum()
    }

    /// Whether no tags are counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Day = Day(20_000);

    #[test]
    fn what_is_kept_goes_on_after_a_restart() {
        let mut replay = Replay::since(TODAY.start());
        let text = "prvs=1000abcdef=ann@our.example";
        let id = tag(&replay, text);
        replay.sent(id, 1, TODAY);
        (0..23).for_each(|_| replay.bounced(id, TODAY));
        replay.reserve(tag(&replay, "prvs=1000abcdee=ann@our.example"), TODAY);
        let kept = replay.take_changes();
        assert_eq!((kept.len(), replay.take_changes().len()), (1, 0));
        let (key, started) = replay.identity();
        let mut later = Replay::resumed(key, started);
        for kept in kept {
            assert!(later.restore(&kept.name, kept.count.unwrap(), TODAY.plus(1)));
            assert!(!later.restore(&kept.name, kept.count.unwrap(), TODAY.plus(8)), "it has expired");
            assert!(!later.restore(&[9; 9], kept.count.unwrap(), TODAY), "there is no such kind");
        }
        assert!(later.is_used_up(tag(&later, text)));
        assert_eq!(later.take_changes(), []);
    }

    #[test]
    fn what_is_forgotten_is_not_kept() {
        let mut replay = Replay::since(Timestamp(0));
        for n in 0..=MAX_TAGS {
            let id = replay.id_of_evidence(&n.to_string(), TODAY);
            replay.bounced(id, TODAY);
        }
        assert_eq!(replay.take_changes().len(), MAX_TAGS);
        let id = replay.id_of_evidence("later", TODAY.plus(8));
        replay.bounced(id, TODAY.plus(1));
        let kept = replay.take_changes();
        assert_eq!(kept.iter().filter(|kept| kept.count.is_none()).count(), MAX_TAGS);
        assert_eq!(kept.len(), MAX_TAGS + 1);
    }

    fn tag(replay: &Replay, text: &str) -> TagId {
        let address = Address::parse(text).unwrap();
        let content = address.content();
        match Srs::parse(&content) {
            Ok(Some(form)) => replay.id_of_srs(&form, &address, true, TODAY, TODAY.plus(7)),
            _ => replay.id_of_batv(&address, TODAY, TODAY.plus(7)),
        }
    }

    #[test]
    fn all_spellings_of_one_address_are_one() {
        let replay = Replay::default();
        let first = tag(&replay, "SRS0=3ME34U=JQ=else.example=bob@srs.our.example");
        for other in [
            "SRS0+3ME34U=JQ=else.example=bob@srs.our.example",
            "srs0-3me34u=jq=ELSE.example=BOB@SRS.our.example",
            "SRS0=3ME34U7A=JQ=el\u{ad}se.example=bob@srs.our.example",
            "SRS0=3ME34U=JQ=else\u{ff0e}example=bob@srs.our.example",
        ] {
            assert_eq!(tag(&replay, other), first, "{other}");
        }
        for other in [
            "SRS0=3ME34U=JR=else.example=bob@srs.our.example",
            "SRS0=3ME34U=JQ=else.example=rob@srs.our.example",
            "SRS0=3ME34U=JQ=other.example=bob@srs.our.example",
            "SRS0=3ME34U=JQ=else.example=bob@srs2.our.example",
            "SRS1=3ME34U=else.example=bob@srs.our.example",
        ] {
            assert_ne!(tag(&replay, other), first, "{other}");
        }
        let one = tag(&replay, "SRS1=AAAA=else.example==BBBB=JQ=third.example=bob@srs.our.example");
        assert_eq!(tag(&replay, "SRS1+AAAA=ELSE.example==bbbb=jq=third.example=bob@srs.our.example"), one);
        // If the hash does not cover the stamp, all stamps share one id.
        let exim = |text: &str| {
            let address = Address::parse(text).unwrap();
            let content = address.content();
            replay.id_of_srs(&Srs::parse(&content).unwrap().unwrap(), &address, false, TODAY, TODAY.plus(7))
        };
        let text = "SRS0=3ME3=JQ=else.example=bob@srs.our.example";
        assert_eq!(exim(text), exim(&text.replace("=JQ=", "=AA=")));
    }

    #[test]
    fn what_is_on_its_way_counts_until_it_has_come_or_is_given_up() {
        let mut replay = Replay::since(TODAY.start());
        let id = tag(&replay, "SRS0=3ME34U=JQ=else.example=bob@srs.our.example");
        (0..20).for_each(|_| replay.reserve(id, TODAY));
        assert!(replay.is_used_up(id));
        replay.release(id);
        assert!(!replay.is_used_up(id));
        replay.bounced(id, TODAY);
        (0..19).for_each(|_| replay.release(id));
        assert!(!replay.is_used_up(id) && replay.len() == 1);
        let other = tag(&replay, "prvs=1000abcdef=ann@our.example");
        replay.reserve(other, TODAY);
        replay.release(other);
        assert_eq!(replay.len(), 1, "nothing has come of it");
    }

    #[test]
    fn a_tag_earns_so_many_bounces() {
        let mut replay = Replay::since(TODAY.start());
        let id = tag(&replay, "prvs=1000abcdef=ann@our.example");
        replay.sent(id, 2, TODAY);
        replay.sent(id, 1, TODAY);
        for n in 0..29 {
            assert!(!replay.is_used_up(id), "{n}");
            replay.bounced(tag(&replay, "PRVS=1000ABCDEF=Ann@our.example"), TODAY);
        }
        assert!(replay.is_used_up(id));
        replay.sent(id, 1, TODAY);
        assert!(!replay.is_used_up(id));
    }

    #[test]
    fn what_was_used_before_is_not_limited() {
        // The process started in the middle of the day, or another host sent the message.
        let mut late = Replay::since(Timestamp(TODAY.start().0 + 1));
        let id = tag(&late, "prvs=1000abcdef=ann@our.example");
        late.sent(id, 1, TODAY);
        let mut elsewhere = Replay::since(Timestamp(0));
        let other = tag(&elsewhere, "prvs=1000abcdef=ann@our.example");
        for _ in 0..1000 {
            late.bounced(id, TODAY);
            elsewhere.bounced(other, TODAY);
        }
        assert!(!late.is_used_up(id) && !elsewhere.is_used_up(other));
    }

    #[test]
    fn an_srs_address_that_nobody_has_counted_has_an_allowance() {
        let mut replay = Replay::since(Timestamp(i64::MAX));
        let id = tag(&replay, "SRS0=AAAAAA=AA=else.example=bob@srs.our.example");
        for n in 0..20 {
            assert!(!replay.is_used_up(id), "{n}");
            replay.bounced(id, TODAY);
        }
        assert!(replay.is_used_up(id));
    }

    #[test]
    fn memory_is_bounded_and_old_tags_make_room() {
        let mut replay = Replay::since(Timestamp(0));
        for n in 0..MAX_TAGS + 10 {
            let id = replay.id_of_evidence(&n.to_string(), TODAY);
            replay.bounced(id, TODAY);
        }
        assert_eq!(replay.len(), MAX_TAGS);
        // Other kinds have room of their own.
        let id = tag(&replay, "prvs=1000abcdef=ann@our.example");
        replay.bounced(id, TODAY);
        assert_eq!(replay.len(), MAX_TAGS + 1);
        let id = replay.id_of_evidence("later", TODAY.plus(8));
        replay.bounced(id, TODAY.plus(1));
        assert_eq!(replay.len(), 2);
    }

    #[test]
    fn evidence_of_a_message_earns_what_its_recipients_do() {
        let mut replay = Replay::since(Timestamp(i64::MAX));
        let id = replay.id_of_evidence("N", TODAY.plus(7));
        replay.sent(id, 1, TODAY);
        (0..23).for_each(|_| replay.bounced(id, TODAY));
        assert!(replay.is_used_up(id));
    }
}
