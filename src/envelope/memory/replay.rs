//! Replay: how many bounces one tag may get.
//!
//! A tag is seen by everybody who gets the message. Who has one can send "bounces" to it until it expires; more than the
//! message can have earned are put off.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::envelope::address::Address;
use crate::envelope::time::{Day, Timestamp};

/// The most tags that are remembered, of either sort.
const MAX_TAGS: usize = 100_000;

/// What tells one tag from another: a keyed hash, so that nobody can make two that look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TagId {
    hash: u64,
    /// The first day on which it can have been used.
    from: Day,
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
    counts: HashMap<u64, Count>,
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
        Self { counts: HashMap::new(), hasher: RandomState::new(), started }
    }

    /// The id of a tagged address that was made, or can have been made first, on the day `from`.
    #[must_use]
    pub fn id(&self, tagged: &Address, from: Day, until: Day) -> TagId {
        let key = (tagged.content().to_ascii_lowercase(), tagged.canonical_domain());
        TagId { hash: self.hasher.hash_one(key), from, until }
    }

    /// The id of the evidence in one message.
    #[must_use]
    pub fn id_of_evidence(&self, nonce: &str, from: Day, until: Day) -> TagId {
        TagId { hash: self.hasher.hash_one(("evidence", nonce)), from, until }
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

    /// Whether this tag has had more bounces than its messages can have earned: `3 x recipients + 20`. Never where this
    /// process has not counted its recipients from its first day on.
    #[must_use]
    pub fn is_used_up(&self, tag: TagId) -> bool {
        let Some(count) = self.counts.get(&tag.hash) else { return false };
        let from_the_first = self.started <= tag.from.start() && count.recipients > 0;
        from_the_first && u64::from(count.bounces) >= u64::from(count.recipients) * 3 + 20
    }

    fn count(&mut self, tag: TagId, today: Day) -> Option<&mut Count> {
        if self.counts.len() >= MAX_TAGS && !self.counts.contains_key(&tag.hash) {
            self.counts.retain(|_, count| count.until >= today.0);
            if self.counts.len() >= MAX_TAGS {
                // Not counted is not limited.
                return None;
            }
        }
        let count = self.counts.entry(tag.hash).or_default();
        count.until = tag.until.0;
        Some(count)
    }

    /// How many tags are being counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
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
    fn memory_is_bounded_and_old_tags_make_room() {
        let mut replay = Replay::since(Timestamp(0));
        for n in 0..MAX_TAGS + 10 {
            let id = replay.id_of_evidence(&n.to_string(), TODAY, TODAY);
            replay.bounced(id, TODAY);
        }
        assert_eq!(replay.len(), MAX_TAGS);
        let id = replay.id_of_evidence("later", TODAY.plus(1), TODAY.plus(8));
        replay.bounced(id, TODAY.plus(1));
        assert_eq!(replay.len(), 1);
    }
}
