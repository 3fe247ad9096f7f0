//! Phrases that mail servers and people use, in the spelling of [`fold`](super::decode::fold), and their meaning.
//!
//! The phrases are stems rather than sentences, so that they match new wordings, too. No single phrase is decisive.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

/// The meaning of a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sense {
    /// Mail was not delivered, or not yet.
    Failure,
    /// Mail was not delivered yet.
    Delay,
    /// Mail was delivered.
    Success,
    /// The reason why a server did not accept mail.
    Cause,
    /// The original follows.
    Original,
    /// A program answers for a person who is away.
    Away,
    /// The sender is asked to prove to be a person.
    Challenge,
    /// A parcel or payment was not delivered.
    Parcel,
    /// The reader is asked to click on a link.
    Lure,
    /// Mail to the reader has arrived or is waiting.
    Arrived,
    /// Words that people write in letters.
    Person,
    /// A person has to decide about the mail.
    Moderated,
    /// Several messages, or future mail: a summary, not the status of one message.
    Many,
    /// One message to the reader.
    ToReader,
}

/// `[sense]` on a line of its own, followed by phrases separated by semicolons.
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

/// All phrases, each with its sense.
fn phrases() -> Vec<(Sense, &'static str)> {
    let mut current = None;
    let mut all = Vec::new();
    for line in WORDS.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|name| name.strip_suffix(']')).and_then(sense) {
            Some(next) => current = Some(next),
            None => {
                // White space at the ends of a phrase counts only within quotes.
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
    // Phrases of several senses may overlap, so all matches are needed.
    let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(all.iter().map(|(_, phrase)| phrase));
    PhraseTable { automaton: automaton.ok(), senses: all.iter().map(|(sense, _)| *sense).collect() }
});

/// The senses of all phrases in a folded text, each with the offset of its phrase.
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
