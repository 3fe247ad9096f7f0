//! The most frequent of many names.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The most frequent of many names, in bounded memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Top<const MAX: usize>(HashMap<String, u64>);

impl<const MAX: usize> Top<MAX> {
    /// Counts a name once.
    pub(crate) fn count(&mut self, name: String) {
        self.count_times(name, 1);
    }

    /// Adds all counts of another list.
    pub(crate) fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.count_times(name.clone(), *count);
        }
    }

    /// Counts a name this many times. A name that is known already costs no memory.
    pub(crate) fn count_text(&mut self, name: &str, times: u64) {
        match self.0.get_mut(name) {
            Some(count) => *count += times,
            None => self.count_times(name.to_owned(), times),
        }
    }

    /// How many names are counted; at most `MAX`.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn count_times(&mut self, name: String, times: u64) {
        if self.0.len() >= MAX && !self.0.contains_key(&name) {
            let mut counts: Vec<u64> = self.0.values().copied().collect();
            counts.sort_unstable();
            let median = counts.get(counts.len() / 2).copied().unwrap_or(0);
            let mut spare = MAX / 2;
            self.0.retain(|_, count| {
                let stays = *count > median || spare == 0;
                spare -= usize::from(!stays);
                stays
            });
        }
        *self.0.entry(name).or_default() += times;
    }

    /// The `n` most frequent names with their counts, in descending order.
    #[must_use]
    pub(crate) fn first(&self, n: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.0.iter().map(|(name, count)| (name.clone(), *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_the_frequent_stay() {
        let mut top = Top::<1000>::default();
        for _ in 0..50 {
            top.count("often".into());
        }
        for n in 0..5000 {
            top.count(n.to_string());
        }
        assert!(top.0.len() <= 1000);
        assert_eq!(top.first(1), [("often".to_owned(), 50)]);
    }
}
