//! Counts different things, in bounded memory.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

/// Different things that are told apart; beyond, no more are counted.
const MAX: usize = 1 << 20;

/// The number of different things.
#[derive(Debug, Default)]
pub(crate) struct Distinct {
    seen: HashSet<u64>,
    state: RandomState,
}

impl Distinct {
    pub(super) fn add(&mut self, thing: &(impl std::hash::Hash + ?Sized)) {
        if self.seen.len() < MAX {
            self.seen.insert(self.state.hash_one(thing));
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }
}
