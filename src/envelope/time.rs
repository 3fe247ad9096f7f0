//! Time as tags see it: whole UTC days, and the short day numbers that fit into an address.
//!
//! The clock is never read here. A caller passes [`Timestamp`]; the drivers load it anew for each command, because
//! midnight passes while a connection is open.

use std::fmt;

/// Seconds in a day. Unix time does not count leap seconds, so all days are equally long.
pub const SECONDS_PER_DAY: i64 = 86_400;

/// A moment: seconds since 1970-01-01T00:00:00Z.
///
/// ```
/// use countersign::envelope::time::{Day, Timestamp};
///
/// // 2026-11-23, shortly after midnight (UTC).
/// assert_eq!(Timestamp(1_795_392_001).day(), Day(20_780));
/// assert_eq!(Day(20_780).start(), Timestamp(1_795_392_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The UTC day of this moment.
    #[must_use]
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(SECONDS_PER_DAY))
    }
}

/// A full day number: days since 1970-01-01, UTC. MACs of own keys cover it, so that a tag does not become valid again
/// when the digits in the address wrap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl Day {
    /// The first second of this day.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(SECONDS_PER_DAY))
    }

    /// This many days later (or earlier).
    #[must_use]
    pub fn plus(self, days: i64) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// The three digits DDD that stand for this day in a BATV tag (draft-levine-smtp-batv-01 section 4.2.2).
    #[must_use]
    pub fn batv(self) -> BatvDay {
        BatvDay(u16::try_from(self.0.rem_euclid(1000)).unwrap_or_default())
    }

    /// The ten bits that stand for this day in an SRS0 stamp.
    #[must_use]
    pub fn srs(self) -> SrsStamp {
        SrsStamp(u16::try_from(self.0.rem_euclid(1024)).unwrap_or_default())
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "day {}", self.0)
    }
}

/// The low three digits of a day, 0 to 999.
///
/// ```
/// use countersign::envelope::time::Day;
///
/// let expires = Day(20_786).batv();
/// assert_eq!(expires.value(), 786);
/// assert_eq!(expires.nearest(Day(20_780)), Day(20_786));
/// // A thousand days later it means another day.
/// assert_eq!(expires.nearest(Day(21_780)), Day(21_786));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatvDay(u16);

impl BatvDay {
    /// From the three digits of a tag; `None` above 999.
    #[must_use]
    pub fn new(value: u16) -> Option<Self> {
        (value < 1000).then_some(Self(value))
    }

    /// The number, 0 to 999.
    #[must_use]
    pub fn value(self) -> u16 {
        self.0
    }

    /// The one day in today-500 … today+499 that ends in these digits.
    #[must_use]
    pub fn nearest(self, today: Day) -> Day {
        let ahead = self.ahead_of(today);
        today.plus(if ahead >= 500 { ahead - 1000 } else { ahead })
    }

    /// `(DDD - today) mod 1000`, the unsigned difference the draft compares with.
    #[must_use]
    pub fn ahead_of(self, today: Day) -> i64 {
        (i64::from(self.0) - today.0).rem_euclid(1000)
    }
}

impl fmt::Display for BatvDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

const STAMP_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The two-character day of an SRS0 address: ten bits, high five first, in the alphabet `A-Z2-7`.
///
/// ```
/// use countersign::envelope::time::{Day, SrsStamp};
///
/// let stamp = Day(20_780).srs();
/// assert_eq!(SrsStamp::parse(&stamp.to_string()), Some(stamp));
/// assert_eq!(stamp.age(Day(20_783)), 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrsStamp(u16);

impl SrsStamp {
    /// Reads a stamp of exactly two characters, without case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |c: u8| STAMP_ALPHABET.iter().position(|&a| a == c.to_ascii_uppercase());
        match *text.as_bytes() {
            [high, low] => u16::try_from(digit(high)? * 32 + digit(low)?).ok().map(Self),
            _ => None,
        }
    }

    /// The one day in today-512 … today+511 that has this stamp.
    #[must_use]
    pub fn nearest(self, today: Day) -> Day {
        let age = self.age(today);
        today.plus(if age > 512 { 1024 - age } else { -age })
    }

    /// `(today - TT) mod 1024`: how many days ago this was, on the day circle.
    #[must_use]
    pub fn age(self, today: Day) -> i64 {
        (today.0 - i64::from(self.0)).rem_euclid(1024)
    }
}

impl fmt::Display for SrsStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |i: u16| char::from(STAMP_ALPHABET.get(usize::from(i & 31)).copied().unwrap_or(b'A'));
        write!(f, "{}{}", letter(self.0 >> 5), letter(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_find_their_day(today in 0i64..100_000, offset in -500i64..500) {
            let (today, day) = (Day(today), Day(today + offset));
            prop_assert_eq!(day.batv().nearest(today), day);
        }

        #[test]
        fn stamps_find_their_day(today in 0i64..100_000, offset in -512i64..512) {
            let (today, day) = (Day(today), Day(today + offset));
            prop_assert_eq!(day.srs().nearest(today), day);
            prop_assert_eq!(SrsStamp::parse(&day.srs().to_string()), Some(day.srs()));
        }
    }

    #[test]
    fn a_stamp_has_two_letters_of_the_alphabet() {
        assert_eq!(Day(20480).srs().to_string(), "AA");
        assert_eq!(Day(20479).srs().to_string(), "77");
        assert_eq!(SrsStamp::parse("qi"), SrsStamp::parse("QI"));
        for bad in ["", "A", "AAA", "1A", "é"] {
            assert_eq!(SrsStamp::parse(bad), None, "{bad}");
        }
    }
}
