//! Replay: how many bounces one tag may get.
//!
//! A tag is seen by everybody who gets the message. Who has one can send "bounces" to it until it expires; more than the
//! message can have earned are put off.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::envelope::address::Address;
use crate::envelope::time::{Day, Timestamp};

/// The most tags that are remembered, of each sort: who fills one leaves the others alone.
const MAX_TAGS: usize = 50_000;

/// The sorts of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sort {
    Batv,
    Srs,
    Evidence,
}

/// What tells one tag from another: a keyed hash, so that nobody can make two that look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TagId {
    sort: Sort,
    hash: u64,
    /// The first day on which it can have been used. Evidence is of one message: who has counted that, has counted it from the
    /// first.
    from: Option<Day>,
    /// The last.
    until: Day,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    recipients: u32,
    bounces: u32,
    until: i64,
}

/// Recipients and bounces by tag.
#[derive(Debug)]
pub struct Replay {
    counts: [HashMap<u64, Count>; 3],
    /// The last day on which room was made in each.
    cleaned: [i64; 3],
    hasher: RandomState,
    started: Timestamp,
}

impl Default for Replay {
    fn default() -> Self {
        Self::since(Timestamp(i64::MAX))
    }
}

impl Replay {
    /// For a process that started at this moment. Of tags that were used before that it cannot know how often.
    #[must_use]
    pub fn since(started: Timestamp) -> Self {
        Self { counts: Default::default(), cleaned: [i64::MIN; 3], hasher: RandomState::new(), started }
    }

    /// The id of a tagged address that was made, or can have been made first, on the day `from`.
    #[must_use]
    pub fn id(&self, tagged: &Address, from: Day, until: Day) -> TagId {
        let content = tagged.content().to_ascii_lowercase();
        let sort = if content.starts_with("srs") { Sort::Srs } else { Sort::Batv };
        TagId { sort, hash: self.hasher.hash_one((content, tagged.canonical_domain())), from: Some(from), until }
    }

    /// The id of the evidence in one message.
    #[must_use]
    pub fn id_of_evidence(&self, nonce: &str, until: Day) -> TagId {
        TagId { sort: Sort::Evidence, hash: self.hasher.hash_one(nonce), from: None, until }
    }

    /// A message with this tag was taken by the next hop, for so many recipients.
    pub fn sent(&mut self, tag: TagId, recipients: u32, today: Day) {
        if let Some(count) = self.count(tag, today) {
            count.recipients = count.recipients.saturating_add(recipients);
        }
    }

    /// A bounce to this tag was delivered.
    pub fn bounced(&mut self, tag: TagId, today: Day) {
        if let Some(count) = self.count(tag, today) {
            count.bounces = count.bounces.saturating_add(1);
        }
    }

    /// Whether this tag has had more bounces than its messages can have earned: `3 x recipients + 20`. A return address of our own
    /// is not limited where this process has not counted its recipients from its first day on. An SRS address is, for what comes to it
    /// leaves again: where nothing was counted, it has the 20.
    #[must_use]
    pub fn is_used_up(&self, tag: TagId) -> bool {
        let counts = self.counts.get(tag.sort as usize);
        let Some(count) = counts.and_then(|counts| counts.get(&tag.hash)) else { return false };
        let from_the_first = tag.from.is_none_or(|from| self.started <= from.start()) && count.recipients > 0;
        (from_the_first || tag.sort == Sort::Srs) && u64::from(count.bounces) >= u64::from(count.recipients) * 3 + 20
    }

    fn count(&mut self, tag: TagId, today: Day) -> Option<&mut Count> {
        let (counts, cleaned) = (self.counts.get_mut(tag.sort as usize)?, self.cleaned.get_mut(tag.sort as usize)?);
        if counts.len() >= MAX_TAGS && !counts.contains_key(&tag.hash) {
            // Once a day there is something to forget.
            if std::mem::replace(cleaned, today.0) != today.0 {
                counts.retain(|_, count| count.until >= today.0);
            }
            if counts.len() >= MAX_TAGS {
                // Not counted is not limited.
                return None;
            }
        }
        let count = counts.entry(tag.hash).or_default();
        count.until = tag.until.0;
        Some(count)
    }

    /// How many tags are being counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.iter().map(HashMap::len).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Day = Day(20_000);

    fn tag(replay: &Replay, text: &str) -> TagId {
        replay.id(&Address::parse(text).unwrap(), TODAY, TODAY.plus(7))
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
        // It began in the middle of the day, or somebody else has sent the message.
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
        // Other sorts have room of their own.
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
