//! Moments as text, in UTC.

use serde::de::{self, Deserialize, Deserializer};

use crate::envelope::time::Timestamp;

/// A moment in RFC 3339 format, in UTC. A moment outside the range of the calendar becomes its limit.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(at.0).unwrap_or(if at.0 < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    at.to_string()
}

/// A moment as the date of a mail message (RFC 5322 section 3.3), in UTC.
#[must_use]
pub(crate) fn mail_date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(at.0).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// A moment, from a TOML date or a string of the same form.
pub(super) struct Moment(pub Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "expected a time in UTC, for example 2026-11-22T00:00:00Z")]
        enum Either {
            Date(toml::value::Datetime),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Date(date) => date.to_string(),
            Either::Text(text) => text,
        };
        let at: jiff::Timestamp = text
            .parse()
            .map_err(|_| de::Error::custom(format!("`{text}` is no time in UTC, for example 2026-11-22T00:00:00Z")))?;
        Ok(Self(Timestamp(at.as_second())))
    }
}
