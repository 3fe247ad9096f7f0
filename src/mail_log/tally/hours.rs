//! How much mail came in, by the hour.

use std::collections::BTreeMap;

use super::super::stamp::Wall;

/// Hours that are kept, more than two years.
const MAX: usize = 20_000;

/// Mail of an hour: messages that a server has accepted, and recipients that were refused. Each is counted in the log of
/// the server and in that of Countersign; [`super::Tally`] knows which of them count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hour {
    pub server: Counts,
    /// Of a client on the server's own machine, such as a proxy in front.
    pub inner: Counts,
    pub countersign: Counts,
}

/// Mail in the log of one program.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub accepted: Pair,
    pub refused: Pair,
    /// Of the refused ones, those that a filter has refused.
    pub filtered: Pair,
    /// What the next hop has refused.
    pub next_hop: Pair,
}

/// With the null sender, and with another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub null: u64,
    pub other: u64,
}

impl Pair {
    pub(super) fn add(&mut self, is_null: bool, times: u64) {
        let count = if is_null { &mut self.null } else { &mut self.other };
        *count = count.saturating_add(times);
    }

    pub(crate) fn plus(self, more: Self) -> Self {
        Self { null: self.null.saturating_add(more.null), other: self.other.saturating_add(more.other) }
    }

    pub(crate) fn least(self, other: Self) -> Self {
        Self { null: self.null.min(other.null), other: self.other.min(other.other) }
    }

    pub(crate) fn minus(self, less: Self) -> Self {
        Self { null: self.null.saturating_sub(less.null), other: self.other.saturating_sub(less.other) }
    }
}

/// All hours in which something happened.
#[derive(Debug, Default)]
pub(crate) struct Hours(BTreeMap<i64, Hour>);

impl Hours {
    pub(super) fn at(&mut self, at: Wall) -> &mut Hour {
        let hour = at.hour();
        if self.0.len() >= MAX && !self.0.contains_key(&hour) {
            self.0.pop_first();
        }
        self.0.entry(hour).or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Hour)> {
        self.0.iter().map(|(hour, counts)| (*hour, counts))
    }
}
