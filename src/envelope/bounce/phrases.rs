//! The words by which mail servers and people say what a message is, in the spelling of [`fold`](super::decode::fold).
//!
//! Stems rather than sentences, so that a wording nobody has seen yet is still recognised. No phrase decides alone.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

/// What a phrase says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sense {
    /// Mail was not delivered, or not yet.
    Failure,
    /// It was not delivered yet.
    Delay,
    /// It was delivered.
    Success,
    /// Why a server did not take it.
    Cause,
    /// What follows is the original.
    Original,
    /// Nobody has read it: a machine answers for a person.
    Away,
    /// A person has to prove to be one.
    Challenge,
    /// Something other than mail was not delivered.
    Parcel,
    /// What those write who want to be clicked on.
    Lure,
    /// It is about mail that comes to the reader.
    Arrived,
    /// What people write to people.
    Person,
    /// Somebody is to decide.
    Moderated,
    /// It speaks of several messages, or of what becomes of mail from now on: a summary, not the fate of one message.
    Many,
    /// It is about one message to the reader.
    ToReader,
}

/// `[sense]`, then phrases separated by semicolons.
const WORDS: &str = include_str!("phrases.txt");

fn sense(name: &str) -> Option<Sense> {
    Some(match name {
        "failure" => Sense::Failure,
        "delay" => Sense::Delay,
        "success" => Sense::Success,
        "cause" => Sense::Cause,
        "original" => Sense::Original,
        "away" => Sense::Away,
        "challenge" => Sense::Challenge,
        "parcel" => Sense::Parcel,
        "lure" => Sense::Lure,
        "arrived" => Sense::Arrived,
        "person" => Sense::Person,
        "moderated" => Sense::Moderated,
        "many" => Sense::Many,
        "to reader" => Sense::ToReader,
        _ => return None,
    })
}

/// Each phrase of the table, with its sense.
fn phrases() -> Vec<(Sense, &'static str)> {
    let mut current = None;
    let mut all = Vec::new();
    for line in WORDS.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|name| name.strip_suffix(']')).and_then(sense) {
            Some(next) => current = Some(next),
            None => {
                // White space at the ends is meant where it is in quotes.
                let phrases = line.split(';').map(|phrase| phrase.trim().trim_matches('"')).filter(|p| !p.is_empty());
                all.extend(phrases.filter_map(|phrase| Some((current?, phrase))));
            }
        }
    }
    all
}

struct PhraseTable {
    automaton: Option<AhoCorasick>,
    senses: Vec<Sense>,
}

static TABLE: LazyLock<PhraseTable> = LazyLock::new(|| {
    let all = phrases();
    // Phrases of several senses may overlap, so all matches are wanted.
    let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(all.iter().map(|(_, phrase)| phrase));
    PhraseTable { automaton: automaton.ok(), senses: all.iter().map(|(sense, _)| *sense).collect() }
});

/// The senses of all phrases in a folded text, each with its place.
pub(super) fn senses(text: &str) -> Vec<(Sense, usize)> {
    let Some(automaton) = &TABLE.automaton else { return Vec::new() };
    let matches = automaton.find_overlapping_iter(text);
    matches.filter_map(|m| TABLE.senses.get(m.pattern().as_usize()).map(|sense| (*sense, m.start()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::bounce::decode::fold;

    #[test]
    fn every_phrase_is_in_the_spelling_that_it_is_compared_with() {
        for (sense, phrase) in phrases() {
            assert_eq!(fold(phrase), phrase, "{sense:?}");
        }
        let headings = WORDS.lines().filter(|line| line.starts_with('[') && line.ends_with(']')).count();
        let mut known: Vec<Sense> = phrases().iter().map(|(sense, _)| *sense).collect();
        known.dedup();
        assert_eq!(known.len(), headings);
    }

    #[test]
    fn all_senses_are_found() {
        let found = senses(&fold("Warning: could NOT  send message for past 4 hours; out of office"));
        for sense in [Sense::Failure, Sense::Delay, Sense::Away] {
            assert!(found.iter().any(|(s, _)| *s == sense), "{sense:?}");
        }
        assert!(senses("nothing to see").is_empty());
    }
}
