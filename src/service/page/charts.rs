//! What was refused and signed, as numbers and as bars over time.

use maud::{Markup, html};

use super::figures::{Figures, View};
use super::when::{local, offset};
use crate::drive::history::Counts;
use crate::envelope::time::Timestamp;
use crate::html::chart::{Area, Series, as_f64, highest, stacked};
use crate::mail_log::verdict::grouped;
use crate::service::decision_words::ReasonGroup;

/// The size of the picture, in its units. It is stretched to any size, so words are beside it.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 220.0;
/// Bars of what came in, and below them of what was signed. The style has the same places.
const IN: Area = Area { left: 0.0, right: WIDTH, top: 0.0, base: 154.0 };
const OUT: Area = Area { left: 0.0, right: WIDTH, top: 176.0, base: HEIGHT };
/// Moments below the bars.
const LABELS: i64 = 6;

/// The class of a group's colour.
fn class(group: ReasonGroup) -> &'static str {
    match group {
        ReasonGroup::NoTag => "no-tag",
        ReasonGroup::Forged => "forged",
        ReasonGroup::Expired => "expired",
        ReasonGroup::UnknownUser => "unknown-user",
        ReasonGroup::Other => "other",
    }
}

fn refused(counts: &Counts, group: ReasonGroup) -> u64 {
    counts.refused.iter().filter(|(reason, _)| ReasonGroup::of(reason) == group).map(|(_, count)| count).sum()
}

fn passed_on(counts: &Counts) -> u64 {
    counts.genuine + counts.rescued + counts.replies + counts.marked
}

/// The section with numbers and bars.
pub(super) fn section(figures: &Figures, view: View, query: &str) -> Markup {
    let counts = &figures.counts;
    html! {
        section #time aria-labelledby="time-title" {
            div.head {
                h2 #time-title { (title(figures, view)) }
                nav aria-label="Time" {
                    @for named in View::NAMED {
                        @let here = (named == view).then_some("page");
                        a href={ "?time=" (named.name()) (query) } aria-current=[here] {
                            @match named { View::Hour => "1 hour", View::Day => "24 hours", _ => "7 days" }
                        }
                    }
                }
            }
            dl.numbers {
                (number("refused", counts.all_refused(), "", "strong"))
                (number("genuine bounces", counts.genuine, "recipients with a valid tag", ""))
                (number("rescued", counts.rescued, "by evidence", ""))
                (number("replies, reports", counts.replies, "passed on", ""))
                @if counts.marked > 0 { (number("would be refused", counts.marked, "observed, only marked", "")) }
                (number("signed", counts.signed, "our senders", ""))
                (number("rewritten", counts.rewritten, "forwards, SRS", ""))
            }
            (picture(figures))
            (legend(counts))
            (table(figures))
        }
    }
}

fn title(figures: &Figures, view: View) -> String {
    match view {
        View::Hour => "The last hour".to_owned(),
        View::Day => "The last 24 hours".to_owned(),
        View::Week => "The last 7 days".to_owned(),
        View::Between(..) => {
            let at = |moment| local(Timestamp(moment), "%a %-d %b %H:%M");
            format!("{} to {}", at(figures.first), at(figures.end()))
        }
    }
}

fn number(name: &str, count: u64, what: &str, class: &str) -> Markup {
    html! { div class=[(!class.is_empty()).then_some(class)] { dt { (name) } dd { (grouped(count)) @if !what.is_empty() { small { (what) } } } } }
}

/// How long a bar is, in words.
fn per(figures: &Figures) -> String {
    match figures.each {
        60 => "per minute".to_owned(),
        3600 => "per hour".to_owned(),
        seconds => format!("per {} hours", seconds / 3600),
    }
}

fn start(figures: &Figures, n: usize) -> i64 {
    figures.first + figures.each * i64::try_from(n).unwrap_or(0)
}

fn picture(figures: &Figures) -> Markup {
    let values = |of: &dyn Fn(&Counts) -> u64| figures.bars.iter().map(of).collect::<Vec<u64>>();
    let mut came: Vec<Series<'_>> = ReasonGroup::ALL
        .into_iter()
        .map(|group| Series { class: class(group), values: values(&|counts| refused(counts, group)) })
        .collect();
    came.push(Series { class: "delivered", values: values(&passed_on) });
    let left = [Series { class: "signed", values: values(&|counts| counts.signed + counts.rewritten) }];
    let (most_in, most_out) = (highest(&came), highest(&left));
    let label = format!(
        "Bounces {}: at most {} in a bar; signed at most {}. The numbers are in the table below.",
        per(figures),
        grouped(most_in),
        grouped(most_out)
    );
    let step = (IN.right - IN.left) / as_f64(figures.bars.len().max(1) as u64);
    let fixed = |place: f64| format!("{place:.1}");
    html! {
        figure {
            figcaption { "Bounces and other mail without a sender, " (per(figures)) }
            div.plot {
                svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="group" aria-label=(label)
                    data-first=(figures.first) data-each=(figures.each) data-bars=(figures.bars.len()) data-offset=(offset(Timestamp(figures.first))) {
                    @for (y, class) in [(IN.top, "grid"), (f64::midpoint(IN.top, IN.base), "grid"), (IN.base, "base"), (OUT.top, "grid"), (OUT.base, "base")] {
                        line class=(class) x1="0" x2=(WIDTH) y1=(y) y2=(y) {}
                    }
                    (stacked(IN, &came, most_in))
                    (stacked(OUT, &left, most_out))
                    @for (n, counts) in figures.bars.iter().enumerate().filter(|_| figures.each > 60) {
                        @let from = start(figures, n);
                        a href={ "?from=" (from) "&to=" (from + figures.each) } tabindex="-1" {
                            title {
                                (local(Timestamp(from), "%a %H:%M")) ": refused " (grouped(counts.all_refused()))
                                ", passed on " (grouped(passed_on(counts))) ", signed " (grouped(counts.signed + counts.rewritten))
                            }
                            rect x=(fixed(step * as_f64(n as u64))) width=(fixed(step)) height=(HEIGHT) {}
                        }
                    }
                    rect.selected x="0" y="0" width="0" height=(HEIGHT) {}
                }
                div.y aria-hidden="true" {
                    span { (short(most_in)) } span { @if most_in > 1 { (short(most_in / 2)) } } span { (short(most_out)) }
                }
                span.what aria-hidden="true" { "signed" }
                div.x aria-hidden="true" { @for text in times(figures) { span { (text) } } }
            }
            p.selection role="status" {}
        }
    }
}

/// A number for little room.
fn short(count: u64) -> String {
    match count {
        ..10_000 => grouped(count),
        10_000..10_000_000 => format!("{} k", grouped(count / 1000)),
        _ => format!("{} M", grouped(count / 1_000_000)),
    }
}

/// The moments below the bars, at even places.
fn times(figures: &Figures) -> Vec<String> {
    let seconds = figures.end() - figures.first;
    let format = if seconds > 2 * 86_400 { "%a %-d %b" } else { "%a %H:%M" };
    (0..LABELS).map(|n| local(Timestamp(figures.first + seconds * n / LABELS), format)).collect()
}

/// What the colours mean, with the numbers.
fn legend(counts: &Counts) -> Markup {
    let all = counts.all_refused();
    html! {
        ul.legend-list {
            @for group in ReasonGroup::ALL {
                @let count = refused(counts, group);
                @if count > 0 {
                    li { span class={ "key " (class(group)) } {} (group.label()) " " b { (grouped(count)) } span.quiet { (share(count, all)) } }
                }
            }
            @if passed_on(counts) > 0 { li { span.key.delivered {} "passed on " b { (grouped(passed_on(counts))) } } }
            li { span.key.signed {} "signed " b { (grouped(counts.signed + counts.rewritten)) } }
        }
    }
}

/// A part of a whole, in percent.
pub(super) fn share(part: u64, all: u64) -> String {
    match part.saturating_mul(100) / all.max(1) {
        0 => " <1 %".to_owned(),
        percent => format!(" {percent} %"),
    }
}

/// The numbers of the picture, for those who do not see it.
fn table(figures: &Figures) -> Markup {
    html! {
        details {
            summary { "The numbers as a table" }
            div.scroll tabindex="0" role="region" aria-label="Numbers" { table.counts {
                thead { tr {
                    th scope="col" { "from" }
                    @for group in ReasonGroup::ALL { th scope="col" { (group.label()) } }
                    th scope="col" { "passed on" } th scope="col" { "signed" }
                } }
                tbody {
                    @for (n, counts) in figures.bars.iter().enumerate().rev().filter(|(_, counts)| **counts != Counts::default()) {
                        tr {
                            @let from = start(figures, n);
                            td {
                                @if figures.each > 60 { a href={ "?from=" (from) "&to=" (from + figures.each) } { (local(Timestamp(from), "%a %H:%M")) } }
                                @else { (local(Timestamp(from), "%a %H:%M")) }
                            }
                            @for group in ReasonGroup::ALL { td { (grouped(refused(counts, group))) } }
                            td { (grouped(passed_on(counts))) }
                            td { (grouped(counts.signed + counts.rewritten)) }
                        }
                    }
                }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_week_of_attack_is_a_small_page() {
        let counts = Counts {
            signed: 123_456,
            genuine: 12_345,
            refused: [("forged", 1_234_567), ("untagged-ndr", 9_876_543), ("expired", 12_345), ("harvest", 123_456)]
                .map(|(reason, count)| (reason.to_owned(), count))
                .into(),
            ..Counts::default()
        };
        let figures = Figures {
            first: 1_795_392_000,
            each: 10_800,
            bars: vec![counts.clone(); 56],
            counts,
            names: crate::drive::history::Hour::default(),
            names_since: 0,
        };
        let page = section(&figures, View::Week, "").into_string();
        // The rest of the page, its style and its script take less than 25,000.
        assert!(page.len() < 34_000, "{}", page.len());
        assert_eq!(page.matches("<title>").count(), 56);
        assert!(page.contains("Sun 22 Nov") || page.contains("Mon 23 Nov"), "{page}");
    }

    #[test]
    fn shares_and_short_numbers() {
        assert_eq!([share(0, 0), share(1, 1000), share(5, 10)], [" <1 %", " <1 %", " 50 %"]);
        assert_eq!([short(9_999), short(10_000), short(12_345_678)], ["9,999", "10 k", "12 M"]);
    }
}
