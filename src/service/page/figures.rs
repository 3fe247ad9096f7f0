//! What the page counts: the time that somebody looks at, and what became of mail in it.

use std::sync::Arc;

use serde::Deserialize;

use crate::drive::history::{Counts, HOURS, Hour, number, sum_of};
use crate::envelope::time::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
/// The most bars of a chart.
const MAX_BARS: i64 = 60;
/// The longest time that is shown by minutes, in seconds.
const BY_MINUTES: i64 = 2 * HOUR;

/// What a request asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Query {
    /// `hour`, `day` or `week`.
    pub time: Option<String>,
    /// A moment, in seconds since 1970. With `to`, it replaces `time`.
    pub from: Option<i64>,
    /// A later moment.
    pub to: Option<i64>,
    /// An address, a Message-ID or a client's address.
    pub q: Option<String>,
}

/// The time that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// The last 60 minutes.
    Hour,
    /// The last 24 hours.
    Day,
    /// The last 7 days.
    Week,
    /// From one moment to another.
    Between(i64, i64),
}

impl View {
    /// Views with a name, in the order of their links.
    pub(super) const NAMED: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// The view of a request.
    pub(super) fn of(query: &Query) -> Self {
        match (query.from, query.to) {
            (Some(from), Some(to)) if from < to => Self::Between(from, to),
            _ => Self::NAMED.into_iter().find(|view| query.time.as_deref() == Some(view.name())).unwrap_or(Self::Day),
        }
    }

    /// Its name in links; empty: none.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Between(..) => "",
        }
    }

    /// Its bars: the first moment, the length of each in seconds, and their number.
    fn bars(self, now: Timestamp) -> (i64, i64, i64) {
        let this_hour = number(now);
        let by_hours = |first: i64, last: i64| {
            let hours = last - first + 1;
            let each = hours.div_euclid(MAX_BARS) + i64::from(hours.rem_euclid(MAX_BARS) > 0);
            (first * HOUR, each * HOUR, hours.div_euclid(each) + i64::from(hours.rem_euclid(each) > 0))
        };
        match self {
            Self::Hour => ((now.0.div_euclid(MINUTE) - 59) * MINUTE, MINUTE, 60),
            Self::Day => by_hours(this_hour - 23, this_hour),
            Self::Week => by_hours(this_hour - HOURS + 1, this_hour),
            Self::Between(from, to) => {
                let (from, to) = (from.clamp((this_hour - HOURS + 1) * HOUR, now.0), to.clamp(from.min(now.0), now.0));
                let is_recent = from >= (this_hour - 1) * HOUR;
                if is_recent && to - from <= BY_MINUTES {
                    let (first, last) = (from.div_euclid(MINUTE), (to - 1).max(from).div_euclid(MINUTE));
                    (first * MINUTE, MINUTE, last - first + 1)
                } else {
                    by_hours(from.div_euclid(HOUR), (to - 1).max(from).div_euclid(HOUR))
                }
            }
        }
    }
}

/// What became of mail in the time of a view.
#[derive(Debug)]
pub(super) struct Figures {
    /// The first moment.
    pub first: i64,
    /// The length of each bar, in seconds.
    pub each: i64,
    /// The numbers of each bar, the oldest first.
    pub bars: Vec<Counts>,
    /// Their sum.
    pub counts: Counts,
    /// Names are counted by the hour: the sum of all hours of the view.
    pub names: Hour,
    /// The beginning of the first of these hours.
    pub names_since: i64,
}

impl Figures {
    /// The first and the last hour that a view needs.
    pub(super) fn hours(view: View, now: Timestamp) -> (i64, i64) {
        let (first, each, bars) = view.bars(now);
        (first.div_euclid(HOUR), (first + each * bars - 1).div_euclid(HOUR))
    }

    /// The figures of a view, from the hours that it needs.
    pub(super) fn of(hours: &[(i64, Arc<Hour>)], view: View, now: Timestamp) -> Self {
        let (first, each, number) = view.bars(now);
        let mut bars = vec![Counts::default(); usize::try_from(number).unwrap_or(0)];
        let mut add = |at: i64, counts: &Counts| {
            let place = usize::try_from((at - first).div_euclid(each)).ok();
            if let Some(bar) = place.and_then(|place| bars.get_mut(place)) {
                bar.add(counts);
            }
        };
        for (hour, counted) in hours {
            if each >= HOUR {
                add(hour * HOUR, &counted.counts);
            } else {
                counted.minutes.iter().for_each(|(m, counts)| add(hour * HOUR + i64::from(*m) * MINUTE, counts));
            }
        }
        let mut counts = Counts::default();
        bars.iter().for_each(|bar| counts.add(bar));
        Self { first, each, bars, counts, names: sum_of(hours), names_since: Self::hours(view, now).0 * HOUR }
    }

    /// The moment after the last bar.
    pub(super) fn end(&self) -> i64 {
        self.first + self.each * i64::try_from(self.bars.len()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::history::{History, Refused};

    const NOW: Timestamp = Timestamp(1_795_392_000 + 30 * 60 + 40);

    fn history() -> History {
        let mut history = History::default();
        let refused = Refused { reason: "forged", client: None, domain: "our.example", recipient: "a@our.example" };
        for ago in [200 * HOUR, 100 * HOUR, 23 * HOUR, 59 * MINUTE, 30, 10] {
            history.refuse(Timestamp(NOW.0 - ago), refused);
        }
        history
    }

    fn figures(view: View) -> Figures {
        let (first, last) = Figures::hours(view, NOW);
        Figures::of(&history().hours(first, last), view, NOW)
    }

    #[test]
    fn each_view_counts_its_time() {
        for (view, bars, each, refused) in
            [(View::Hour, 60, 60, 3), (View::Day, 24, HOUR, 4), (View::Week, 56, 3 * HOUR, 5)]
        {
            let figures = figures(view);
            assert_eq!((figures.bars.len(), figures.each), (bars, each), "{view:?}");
            assert_eq!(figures.counts.all_refused(), refused, "{view:?}");
            assert!(figures.end() > NOW.0 && figures.end() <= NOW.0 + 3 * HOUR, "{view:?}");
        }
        assert_eq!(figures(View::Hour).bars[59].all_refused(), 2);
        assert_eq!(figures(View::Hour).names_since, NOW.0 - 90 * MINUTE - 40, "the hour before");
        assert_eq!(figures(View::Hour).names.recipients.first(1), [("a@our.example".to_owned(), 3)]);
    }

    #[test]
    fn a_chosen_time_is_shown_by_minutes_or_by_hours() {
        let minutes = figures(View::Between(NOW.0 - 20 * MINUTE, NOW.0));
        assert_eq!((minutes.bars.len(), minutes.each, minutes.counts.all_refused()), (21, MINUTE, 2));
        let hours = figures(View::Between(NOW.0 - 101 * HOUR, NOW.0 - 99 * HOUR));
        assert_eq!((hours.each, hours.counts.all_refused()), (HOUR, 1));
        for odd in [
            View::Between(0, 1),
            View::Between(i64::MIN, i64::MAX),
            View::Between(NOW.0 + 1, NOW.0 + 5),
            View::Between(i64::MAX - 1, i64::MAX),
            View::Between(NOW.0 - 1, NOW.0),
        ] {
            let figures = figures(odd);
            assert!((1..=60).contains(&figures.bars.len()) && figures.each > 0, "{odd:?}");
        }
    }

    #[test]
    fn requests_name_their_time() {
        let time = |time: &str| View::of(&Query { time: Some(time.into()), ..Query::default() });
        assert_eq!((time("hour"), time("week"), time("year")), (View::Hour, View::Week, View::Day));
        let between = |from, to| View::of(&Query { from: Some(from), to: Some(to), ..Query::default() });
        assert_eq!((between(1, 5), between(5, 1)), (View::Between(1, 5), View::Day));
    }
}
