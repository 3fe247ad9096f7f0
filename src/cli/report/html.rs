//! The report as one page of HTML: no script, no other file.

use maud::{DOCTYPE, Markup, html};

use super::text::{age, percent, size};
use crate::cli::page::head;
use crate::html::chart::as_f64;
use crate::html::{bar, with_code};
use crate::mail_log::figures::{Backscatter, HarvestSummary, HourOfMail, Named, Reflector, Summary, Unsigned};
use crate::mail_log::published::Published;
use crate::mail_log::stamp::Wall;
use crate::mail_log::verdict::{Level, Verdict, grouped};
use crate::mail_log::waiting::Waiting;

/// The most bars of the chart.
const MAX_BARS: usize = 180;
/// The size of the chart, in units of the picture.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 220.0;
/// Room for the labels of the chart: on the left, and below.
const LEFT: f64 = 84.0;
const BELOW: f64 = 30.0;
const TIME: &str = "%a %-d %b %Y %H:%M";

/// The page.
pub(super) fn page(summary: &Summary) -> String {
    let read = &summary.lines;
    let software: Vec<&str> = read.software.iter().map(|software| software.name()).collect();
    let page: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("Mail logs, {} to {}", time(read.first), time(read.last))))
            body {
                header {
                    h1 { "What the mail logs say" }
                    p.quiet {
                        (software.join(" and ")) ", " (time(read.first)) " to " (time(read.last)) ", " (size(read.octets)) ", "
                        (grouped(read.total)) " lines"
                        @if read.not_understood > 0 { ", " (grouped(read.not_understood)) " of them not understood" }
                    }
                }
                main {
                    div.tiles {
                        (tile("Backscatter", "#backscatter", &summary.backscatter.verdict))
                        (tile("Reflector", "#reflector", &summary.reflector.verdict))
                        (tile("Harvest", "#harvest", &summary.harvest.verdict))
                        (tile("Unsigned mail", "#unsigned", &summary.unsigned.verdict))
                    }
                    (backscatter(&summary.backscatter))
                    (reflector(&summary.reflector, summary.queue.as_ref()))
                    (harvest(&summary.harvest))
                    (unsigned(&summary.unsigned))
                    @if let Some(found) = &summary.dns { (dns(found)) }
                }
                footer { p.quiet { "Made by countersign report " (env!("CARGO_PKG_VERSION")) } }
            }
        }
    };
    page.into_string()
}

fn time(at: Option<Wall>) -> String {
    at.map_or_else(String::new, |at| at.to_text(TIME))
}

fn tile(name: &str, target: &str, verdict: &Verdict) -> Markup {
    let (class, words) = match verdict.level {
        Level::Calm => ("calm", "nothing to do"),
        Level::Unknown => ("unknown", "not known"),
        Level::ThisWeek => ("week", "act this week"),
        Level::Today => ("today", "act today"),
    };
    html! {
        a.tile.(class) href=(target) {
            h2 { (name) }
            p.what { (verdict.words) }
            p.do { (words) }
        }
    }
}

fn advice(verdict: &Verdict) -> Markup {
    html! {
        @if !verdict.advice.is_empty() {
            ul.advice { @for line in &verdict.advice { li { (with_code(line)) } } }
        }
    }
}

fn backscatter(found: &Backscatter) -> Markup {
    let all = found.null_sender;
    html! {
        section #backscatter {
            h2 { "Backscatter" }
            p {
                (grouped(all)) " of " (grouped(found.mail_in)) " mails in had no sender (" (percent(all, found.mail_in)) ")."
            }
            (advice(&found.verdict))
            @if all > 0 { (chart(&found.hours)) }
            @if !found.refused.is_empty() || !found.delivered.is_empty() {
                div.scroll { table {
                    caption { "What became of mail without a sender" }
                    thead { tr { th { "result" } th { "reason" } th.n { "mails" } th.n { "share" } th.bar {} } }
                    tbody {
                        @for (result, list) in [("refused", &found.refused), ("delivered", &found.delivered)] {
                            @for it in list {
                                tr {
                                    td { (result) } td { (it.name) } td.n { (grouped(it.count)) } td.n { (percent(it.count, all)) }
                                    td.bar { (bar(result, it.count, all)) }
                                }
                            }
                        }
                    }
                } }
            }
            @if !found.forged_as.is_empty() {
                div.scroll { table {
                    caption {
                        "Forged as"
                        @if found.unknown_names > 0 { " (" (grouped(found.unknown_names as u64)) " names that do not exist)" }
                    }
                    thead { tr { th { "address" } th.n { "refused" } } }
                    tbody { (rows(&found.forged_as)) }
                } }
            }
            @if !found.sent_by.is_empty() {
                div.scroll { table {
                    caption { "Sent by (" (grouped(found.networks as u64)) " networks)" }
                    thead { tr { th { "network" } th { "a client" } th.n { "refused" } } }
                    tbody {
                        @for it in &found.sent_by {
                            tr {
                                td { (it.network) } td { @if let Some(name) = &it.name { (name) } } td.n { (grouped(it.count)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn rows(list: &[Named]) -> Markup {
    html! { @for it in list { tr { td { (it.name) } td.n { (grouped(it.count)) } } } }
}

/// Hours that share a bar.
#[derive(Clone, Copy, Default)]
struct Bar {
    hour: i64,
    refused: u64,
    other: u64,
}

fn bars(hours: &[HourOfMail]) -> (Vec<Bar>, i64) {
    let (Some(first), Some(last)) = (hours.first(), hours.last()) else { return (Vec::new(), 1) };
    let all = usize::try_from(last.hour - first.hour).unwrap_or(0) + 1;
    let each = all.div_ceil(MAX_BARS);
    let step = i64::try_from(each).unwrap_or(1);
    let mut bars: Vec<Bar> = (0..all.div_ceil(each))
        .map(|n| Bar { hour: first.hour + i64::try_from(n).unwrap_or(0) * step, ..Bar::default() })
        .collect();
    for hour in hours {
        let place = usize::try_from((hour.hour - first.hour) / step).unwrap_or(0);
        if let Some(bar) = bars.get_mut(place) {
            bar.refused += hour.refused;
            bar.other += hour.null_sender.saturating_sub(hour.refused);
        }
    }
    (bars, step)
}

/// Mail without a sender over time: refused, and delivered above it.
fn chart(hours: &[HourOfMail]) -> Markup {
    let (bars, step) = bars(hours);
    let most = bars.iter().map(|bar| bar.refused + bar.other).max().unwrap_or(0).max(1);
    let (room, height) = (WIDTH - LEFT, HEIGHT - BELOW);
    let wide = room / as_f64(bars.len().max(1) as u64);
    let scale = |count: u64| as_f64(count) / as_f64(most) * (height - 8.0);
    let per = if step == 1 { "per hour".to_owned() } else { format!("per {step} hours") };
    let at = |hour: i64, format| Wall(hour * 3600).to_text(format);
    let fixed = |number: f64| format!("{number:.1}");
    let label = format!("Mail without a sender {per}; at most {}", grouped(most));
    html! {
        figure {
            figcaption {
                "Mail without a sender " (per) ": "
                span.legend { span.key.refused {} " refused" } " " span.legend { span.key.delivered {} " delivered" }
            }
            svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
                @for part in [1.0, 0.5] {
                    @let y = height - (height - 8.0) * part;
                    line.grid x1=(LEFT) x2=(WIDTH) y1=(fixed(y)) y2=(fixed(y)) {}
                    text.axis x=(LEFT - 6.0) y=(fixed(y + 4.0)) text-anchor="end" {
                        (grouped(if part > 0.9 { most } else { most / 2 }))
                    }
                }
                @for (n, bar) in bars.iter().enumerate() {
                    @let x = LEFT + as_f64(n as u64) * wide;
                    @let (low, high) = (scale(bar.refused), scale(bar.other));
                    @if bar.refused + bar.other > 0 {
                        g {
                            title {
                                (at(bar.hour, "%a %-d %b %H:%M")) ": " (grouped(bar.refused)) " refused, " (grouped(bar.other)) " delivered"
                            }
                            @if bar.refused > 0 {
                                rect.refused x=(fixed(x)) y=(fixed(height - low)) width=(fixed((wide * 0.85).max(0.8))) height=(fixed(low)) {}
                            }
                            @if bar.other > 0 {
                                rect.delivered x=(fixed(x)) y=(fixed(height - low - high)) width=(fixed((wide * 0.85).max(0.8))) height=(fixed(high)) {}
                            }
                        }
                    }
                }
                line.base x1=(LEFT) x2=(WIDTH) y1=(height) y2=(height) {}
                @if let (Some(first), Some(last)) = (bars.first(), bars.last()) {
                    text.axis x=(LEFT) y=(HEIGHT - 6.0) { (at(first.hour, "%a %-d %b %H:%M")) }
                    @if bars.len() > 1 {
                        text.axis x=(WIDTH) y=(HEIGHT - 6.0) text-anchor="end" { (at(last.hour, "%a %-d %b %H:%M")) }
                    }
                }
            }
        }
    }
}

fn reflector(found: &Reflector, waiting: Option<&Waiting>) -> Markup {
    let known = found.delivered + found.undeliverable;
    html! {
        section #reflector {
            h2 { "Reflector" }
            p {
                (grouped(found.bounces)) " own bounces left, to " (grouped(found.domains as u64)) " domains"
                @if known > 0 {
                    "; " (grouped(found.undeliverable)) " could not be delivered (" (percent(found.undeliverable, known))
                    "), as is usual with forged senders"
                }
                "."
                @if found.held > 0 { " Countersign has not sent " (grouped(found.held)) "." }
            }
            (advice(&found.verdict))
            @if !found.causes.is_empty() {
                div.scroll { table {
                    caption { "Causes" }
                    thead { tr { th { "cause" } th.n { "bounces" } th { "most of them" } } }
                    tbody {
                        @for it in &found.causes {
                            tr {
                                td { (it.cause.words()) } td.n { (grouped(it.count)) }
                                td { @for place in &it.places { div { (place.name) ": " (grouped(place.count)) } } }
                            }
                        }
                    }
                } }
            }
            @if let Some(waiting) = waiting {
                p {
                    "In the queue now: " (grouped(waiting.messages)) " messages, " (grouped(waiting.bounces)) " of them bounces"
                    @if waiting.bounces > 0 { ", " (size(waiting.octets)) ", the oldest " (age(waiting.oldest)) " old" }
                    "."
                }
            }
        }
    }
}

fn dns(found: &Published) -> Markup {
    html! {
        section #dns {
            h2 { "DNS" }
            ul.advice { @for line in &found.advice { li { (with_code(line)) } } }
            @if !found.listings.is_empty() {
                div.scroll { table {
                    caption { "Block lists" }
                    thead { tr { th { "address" } th { "list" } th { "listed" } th { "reason" } } }
                    tbody {
                        @for it in &found.listings {
                            tr {
                                td { (it.address) } td { (it.list) } td { (it.state.words()) } td { div { (it.reason) } }
                            }
                        }
                    }
                } }
            }
            @if !found.domains.is_empty() {
                div.scroll { table {
                    caption { "Domains" }
                    thead { tr { th { "domain" } th { "policies" } } }
                    tbody { @for it in &found.domains { tr { td { (it.domain) } td { (it.words()) } } } }
                } }
            }
        }
    }
}

fn harvest(found: &HarvestSummary) -> Markup {
    html! {
        section #harvest {
            h2 { "Harvest" }
            p { (found.verdict.words) "." }
            (advice(&found.verdict))
            @if !found.networks.is_empty() {
                div.scroll { table {
                    caption { "Unknown names that a network has asked for" }
                    thead { tr { th { "network" } th.n { "names" } th.n { "most in an hour" } th { "first" } th { "last" } } }
                    tbody {
                        @for it in found.networks.iter().take(20) {
                            tr {
                                td { (it.network) } td.n { (grouped(it.names)) } td.n { (grouped(u64::from(it.most_in_an_hour))) }
                                td { (time(it.first)) } td { (time(it.last)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn unsigned(found: &Unsigned) -> Markup {
    html! {
        section #unsigned {
            h2 { "Unsigned mail" }
            p { (found.verdict.words) "." }
            (advice(&found.verdict))
            @if !found.hosts.is_empty() {
                div.scroll { table {
                    caption { "Genuine bounces to mail that was not signed" }
                    thead { tr { th { "host" } th.n { "bounces" } th { "last" } } }
                    tbody {
                        @for it in &found.hosts {
                            tr { td { (it.host) } td.n { (grouped(it.bounces)) } td { (time(it.last)) } }
                        }
                    }
                } }
            }
        }
    }
}
