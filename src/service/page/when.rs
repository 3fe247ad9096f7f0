//! Moments as people of this machine's time zone read them.

use jiff::tz::TimeZone;

use crate::envelope::time::Timestamp;

/// A moment in local time, by a format of strftime.
pub(super) fn local(at: Timestamp, format: &str) -> String {
    let moment = jiff::Timestamp::from_second(at.0).unwrap_or_default();
    moment.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// How far local time is ahead of UTC at a moment, in seconds.
pub(super) fn offset(at: Timestamp) -> i32 {
    TimeZone::system().to_offset(jiff::Timestamp::from_second(at.0).unwrap_or_default()).seconds()
}

/// A moment as RFC 3339 has it, in local time.
pub(super) fn local_of(text: &str, format: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(|_| text.to_owned(), |at| local(Timestamp(at.as_second()), format))
}

/// The seconds from now to a moment as RFC 3339 has it; less than 0 if that is over.
pub(super) fn seconds_until(text: &str, now: Timestamp) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|at| at.as_second().saturating_sub(now.0))
}

/// The time of a recent moment, with its day if that is not today.
pub(super) fn recent(at: Timestamp, now: Timestamp) -> String {
    let day = |at| local(at, "%F");
    local(at, if day(at) == day(now) { "%H:%M:%S" } else { "%a %-d %b %H:%M" })
}

/// A length of time, in its two largest units.
pub(super) fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (1..14, ..) => format!("{days} d {hours} h"),
        _ => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let cases = [(5, "5 s"), (65, "1 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h"), (41 * 86_400, "41 days")];
        for (seconds, expected) in cases {
            assert_eq!(span(seconds), expected);
        }
        assert_eq!(seconds_until("1970-01-01T00:01:00Z", Timestamp(100)), Some(-40));
        assert_eq!(seconds_until("never", Timestamp(100)), None);
    }
}
