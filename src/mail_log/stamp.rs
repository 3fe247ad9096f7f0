//! The time at the beginning of a log line, in the forms of syslog, journal and mail servers.

use jiff::civil::{Date, date};

/// A moment in seconds since 1970 by the clock on the wall: logs without a zone are in local time, and those with one are
/// converted to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Wall(pub i64);

impl Wall {
    /// The number of its hour since 1970.
    pub(crate) fn hour(self) -> i64 {
        self.0.div_euclid(3600)
    }

    /// As text, in a format of strftime(3).
    pub(crate) fn to_text(self, format: &str) -> String {
        let at = jiff::Timestamp::from_second(self.0).unwrap_or_default();
        at.to_zoned(jiff::tz::TimeZone::UTC).strftime(format).to_string()
    }
}

/// How far local time is ahead of UTC at a moment, in seconds.
pub(crate) type ZoneOffset = fn(i64) -> i64;

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
const DAY: i64 = 86_400;
/// The length of a time in the form of syslog, with the space behind it.
const SYSLOG: usize = 16;
/// The longest text of a date, which is kept with its result.
const MAX_DATE: usize = 10;

/// Reads the times of one log, whose lines are nearly in order.
#[derive(Debug, Clone)]
pub(crate) struct Stamps {
    offset: ZoneOffset,
    /// No line is from later than this, which tells the year where the line does not.
    latest: Wall,
    /// The year of the line before, and its month.
    before: Option<(i16, i8)>,
    /// A date as text, and its first second.
    date: ([u8; MAX_DATE], usize, i64),
    /// The first octets of the line before, in the form of syslog, and its time: many lines are of the same second.
    second: ([u8; SYSLOG], Wall),
    /// The hour in UTC for which the offset was last asked, and the offset.
    hour: (i64, i64),
}

impl Stamps {
    pub(crate) fn new(offset: ZoneOffset, latest: Wall) -> Self {
        Self {
            offset,
            latest,
            before: None,
            date: ([0; MAX_DATE], 0, 0),
            second: ([0; SYSLOG], Wall(0)),
            hour: (i64::MIN, 0),
        }
    }

    /// A moment in UTC by the clock on the wall.
    pub(crate) fn wall_of(&mut self, seconds: i64) -> Wall {
        let hour = seconds.div_euclid(3600);
        if self.hour.0 != hour {
            self.hour = (hour, (self.offset)(seconds));
        }
        Wall(seconds.saturating_add(self.hour.1))
    }

    /// The time at the beginning of a line, and the rest after one space. `None`: it does not begin with a time.
    pub(crate) fn split<'a>(&mut self, line: &'a [u8]) -> Option<(Wall, &'a [u8])> {
        if line.first()?.is_ascii_digit() { self.split_iso(line) } else { self.split_syslog(line) }
    }

    /// `Nov  7 16:02:50`, RFC 3164 section 4.1.2.
    fn split_syslog<'a>(&mut self, line: &'a [u8]) -> Option<(Wall, &'a [u8])> {
        let stamp = line.first_chunk::<SYSLOG>()?;
        if *stamp == self.second.0 {
            return Some((self.second.1, line.get(SYSLOG..)?));
        }
        let (day, rest) = (line.get(..6)?, line.get(6..)?.strip_prefix(b" ")?);
        let start = match self.known(day) {
            Some(start) => start,
            None => {
                let start = self.day_without_year(day)?;
                self.keep(day, start)
            }
        };
        let (time, rest) = clock_time(rest)?;
        let (at, rest) = (Wall(start + time), rest.strip_prefix(b" ")?);
        if rest.len() + SYSLOG == line.len() {
            self.second = (*stamp, at);
        }
        Some((at, rest))
    }

    fn day_without_year(&mut self, day: &[u8]) -> Option<i64> {
        let month = MONTHS.chunks(3).position(|name| day.starts_with(name))?;
        let month = i8::try_from(month).ok()? + 1;
        let day = i8::try_from(number(day.get(4..)?.trim_ascii_start())?).ok()?;
        let of = |year: i16| Date::new(year, month, day).ok().map(start_of);
        if let Some((year, last)) = self.before {
            // Logs are kept for less than a year, so a month that is much earlier is in the next year.
            let year = year + i16::from(month + 6 < last) - i16::from(month > last + 6);
            if let Some(start) = of(year) {
                self.before = Some((year, month));
                return Some(start);
            }
        }
        let this_year = jiff::Timestamp::from_second(self.latest.0).ok()?.to_zoned(jiff::tz::TimeZone::UTC).year();
        // 29 February is not in every year.
        let mut years = (this_year - 8..=this_year + 1).rev();
        let (year, start) =
            years.find_map(|year| of(year).filter(|start| *start <= self.latest.0 + DAY).map(|start| (year, start)))?;
        self.before = Some((year, month));
        Some(start)
    }

    /// `2026-11-27T16:02:50.123+01:00` (RFC 3339), and with a space and without a zone, as Exim writes it.
    fn split_iso<'a>(&mut self, line: &'a [u8]) -> Option<(Wall, &'a [u8])> {
        let (day, rest) = (line.get(..10)?, line.get(10..)?);
        let start = match self.known(day) {
            Some(start) => start,
            None => {
                let start = iso_day(day)?;
                self.keep(day, start)
            }
        };
        let has_t = rest.starts_with(b"T");
        let (time, rest) = clock_time(rest.strip_prefix(b"T").or_else(|| rest.strip_prefix(b" "))?)?;
        let local = start + time;
        let (offset, rest) = match zone(rest, has_t) {
            Some((offset, rest)) => (Some(offset), rest),
            None => (None, rest),
        };
        let at = match offset {
            Some(offset) => self.wall_of(local - offset),
            None => Wall(local),
        };
        Some((at, rest.strip_prefix(b" ")?))
    }

    fn known(&self, day: &[u8]) -> Option<i64> {
        let (text, length, start) = &self.date;
        (text.get(..*length) == Some(day)).then_some(*start)
    }

    fn keep(&mut self, day: &[u8], start: i64) -> i64 {
        if let Some(text) = self.date.0.get_mut(..day.len()) {
            text.copy_from_slice(day);
            (self.date.1, self.date.2) = (day.len(), start);
        }
        start
    }
}

fn start_of(day: Date) -> i64 {
    let days = day.duration_since(date(1970, 1, 1)).as_secs();
    days - days.rem_euclid(DAY)
}

fn iso_day(day: &[u8]) -> Option<i64> {
    let [y, m, d] = [day.get(..4)?, day.get(5..7)?, day.get(8..10)?];
    let separated = day.get(4) == Some(&b'-') && day.get(7) == Some(&b'-');
    let (year, month, day) = (number(y)?, number(m)?, number(d)?);
    let new = Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    new.ok().filter(|_| separated).map(start_of)
}

/// `16:02:50`, with or without a fraction: its second of the day, and the rest.
fn clock_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else { return None };
    let two = |a: u8, b: u8| Some(digit(a)? * 10 + digit(b)?);
    let (hours, minutes, seconds) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let fraction = rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b",")).unwrap_or(rest);
    let digits =
        if fraction.len() == rest.len() { 0 } else { fraction.iter().take_while(|b| b.is_ascii_digit()).count() };
    Some((hours * 3600 + minutes * 60 + seconds, fraction.get(digits..)?))
}

/// A zone, right behind the time or, in logs of Exim, after a space: its offset, and the rest.
fn zone(text: &[u8], is_adjacent: bool) -> Option<(i64, &[u8])> {
    if let Some(rest) = text.strip_prefix(b"Z") {
        return Some((0, rest));
    }
    let text = if is_adjacent { text } else { text.strip_prefix(b" ").unwrap_or(text) };
    let (sign, digits) = match text.split_first()? {
        (b'+', digits) => (1, digits),
        (b'-', digits) => (-1, digits),
        _ => return None,
    };
    let (hours, rest) = (number(digits.get(..2)?)?, digits.get(2..)?);
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    let minutes = number(rest.get(..2)?)?;
    Some((sign * (hours * 3600 + minutes * 60), rest.get(2..)?))
}

fn digit(octet: u8) -> Option<i64> {
    octet.is_ascii_digit().then(|| i64::from(octet - b'0'))
}

fn number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 4 {
        return None;
    }
    text.iter().try_fold(0, |sum, octet| Some(sum * 10 + digit(*octet)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn an_hour(_: i64) -> i64 {
        3600
    }

    fn at(text: &str) -> Wall {
        Wall(
            text.parse::<jiff::civil::DateTime>()
                .unwrap()
                .to_zoned(jiff::tz::TimeZone::UTC)
                .unwrap()
                .timestamp()
                .as_second(),
        )
    }

    fn read(stamps: &mut Stamps, line: &str) -> Option<(Wall, String)> {
        let (at, rest) = stamps.split(line.as_bytes())?;
        Some((at, String::from_utf8(rest.to_vec()).unwrap()))
    }

    #[test]
    fn each_form_of_a_time_is_read() {
        let mut stamps = Stamps::new(an_hour, at("2026-11-27T20:00:00"));
        for (line, time) in [
            ("Nov 27 16:02:50 mx postfix", "2026-11-27T16:02:50"),
            ("Nov  7 16:02:50 mx postfix", "2026-11-07T16:02:50"),
            ("Nov 07 16:02:50.123456 mx postfix", "2026-11-07T16:02:50"),
            ("2026-11-27T16:02:50.123456+01:00 mx postfix", "2026-11-27T16:02:50"),
            ("2026-11-27T16:02:50Z mx postfix", "2026-11-27T17:02:50"),
            ("2026-11-27T16:02:50-0500 mx postfix", "2026-11-27T22:02:50"),
            ("2026-11-27 16:02:50 mx postfix", "2026-11-27T16:02:50"),
            ("2026-11-27 16:02:50.123 mx postfix", "2026-11-27T16:02:50"),
            ("2026-11-27 16:02:50 +0100 mx postfix", "2026-11-27T16:02:50"),
        ] {
            assert_eq!(read(&mut stamps, line), Some((at(time), "mx postfix".to_owned())), "{line}");
        }
        for line in
            ["", "x", "Nov 32 16:02:50 a", "Nev 07 16:02:50 a", "Nov 27 24:02:50 a", "2026-13-01T00:00:00Z a", "1"]
        {
            assert_eq!(read(&mut stamps, line), None, "{line}");
        }
    }

    #[test]
    fn the_year_comes_from_the_latest_time_and_from_the_order() {
        let years = |latest: &str, lines: &[&str]| {
            let mut stamps = Stamps::new(an_hour, at(latest));
            lines.iter().map(|line| stamps.split(line.as_bytes()).unwrap().0).collect::<Vec<_>>()
        };
        let two = ["Dec 31 23:59:59 a", "Jan  1 00:00:00 a", "Dec 31 23:59:59 late", "Jan  1 00:00:01 a"];
        assert_eq!(
            years("2026-01-02T00:00:00", &two),
            ["2025-12-31T23:59:59", "2026-01-01T00:00:00", "2025-12-31T23:59:59", "2026-01-01T00:00:01"].map(at)
        );
        assert_eq!(years("2026-11-27T00:00:00", &["Dec 24 00:00:00 a"]), [at("2025-12-24T00:00:00")]);
        // The clocks of two machines may differ.
        assert_eq!(years("2026-11-27T23:00:00", &["Nov 28 00:00:00 a"]), [at("2026-11-28T00:00:00")]);
        assert_eq!(years("2026-11-27T23:00:00", &["Feb 29 00:00:00 a"]), [at("2024-02-29T00:00:00")]);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Stamps::new(an_hour, Wall(1_795_000_000)).split(&line);
        }
    }
}
