//! The results as one page of HTML: no script, no other file.

use maud::{DOCTYPE, Markup, html};

use super::results::{ResultOf, Results};
use crate::cli::page::head;
use crate::probe::finding::Outcome;

/// The page.
pub(super) fn page(results: &Results) -> String {
    let software = if results.software.is_empty() { String::new() } else { format!(", {}", results.software) };
    let at = jiff::Timestamp::from_second(results.started);
    let at = at.map_or_else(|_| String::new(), |at| at.strftime("%-d %b %Y %H:%M UTC").to_string());
    let page: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("Probe of {}", results.host)))
            body {
                header {
                    h1 { "Probe of " (results.host) }
                    p.quiet {
                        (results.address) (software) ", " (results.domains.join(", ")) ", " (at) ", " (results.sessions)
                        " sessions in " (results.seconds) " s"
                    }
                }
                main {
                    div.tiles {
                        (tile(results.failed, "Holes", "today", "strangers can use them"))
                        (tile(results.warnings, "Warnings", "week", "weak, or mail can be lost"))
                        (tile(results.untested, "Not tested", "unknown", "the reason is below"))
                    }
                    @for section in results.results.chunk_by(|a, b| a.section == b.section) { (of_section(section)) }
                }
                footer {
                    p.quiet { "Made by countersign probe " (env!("CARGO_PKG_VERSION")) " as " (results.run) }
                }
            }
        }
    };
    page.into_string()
}

fn tile(count: usize, name: &str, class: &str, words: &str) -> Markup {
    let class = match (count, class) {
        (0, "unknown") => "unknown",
        (0, _) => "calm",
        (_, class) => class,
    };
    html! {
        div.tile.(class) {
            h2 { (name) }
            p.what { (count) }
            p.do { @if count == 0 { "none" } @else { (words) } }
        }
    }
}

fn of_section(section: &[ResultOf]) -> Markup {
    html! {
        section {
            h2 { (section.first().map_or("", |it| it.section)) }
            div.scroll { table.results {
                thead { tr { th { "result" } th { "test" } th { "answer" } } }
                tbody {
                    @for group in section.chunk_by(|a, b| a.meaning == b.meaning) {
                        @for it in group { (row(it)) }
                        @if let Some(first) = group.first().filter(|first| first.finding.outcome.is_finding()) { (advice(first)) }
                    }
                }
            } }
        }
    }
}

fn row(it: &ResultOf) -> Markup {
    let (class, word) = match it.finding.outcome {
        Outcome::Passed => ("calm", "✓ good"),
        Outcome::Untested => ("unknown", "– not tested"),
        Outcome::Warning => ("week", "! weak"),
        Outcome::Failed => ("today", "✗ hole"),
    };
    html! {
        tr {
            td { span.outcome.(class) { (word) } }
            td { (it.title) @if !it.finding.about.is_empty() { ", " (it.finding.about) } }
            td { div { (it.finding.detail) } }
        }
    }
}

fn advice(it: &ResultOf) -> Markup {
    html! {
        tr {
            td {}
            td.wide colspan="2" {
                p { (it.meaning) }
                ul.advice { @for change in &it.change { li { (change.program) ": " code { (change.text) } } } }
            }
        }
    }
}
