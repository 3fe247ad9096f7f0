//! A verdict: how urgent something is, in words.

use serde::Serialize;

/// How urgent something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    Calm,
    /// The logs do not say.
    Unknown,
    ThisWeek,
    Today,
}

impl Level {
    pub(crate) fn wants_action(self) -> bool {
        self >= Self::ThisWeek
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Calm => "nothing to do",
            Self::Unknown => "",
            Self::ThisWeek => "act this week",
            Self::Today => "act today",
        }
    }
}

/// A verdict, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub level: Level,
    pub words: String,
    /// What to do, most important first.
    pub advice: Vec<String>,
}

impl Verdict {
    pub(super) fn new(level: Level, words: impl Into<String>) -> Self {
        Self { level, words: words.into(), advice: Vec::new() }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

/// A number with commas: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!([0, 12, 1234, 1_234_567].map(grouped), ["0", "12", "1,234", "1,234,567"]);
    }
}
