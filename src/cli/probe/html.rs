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
                        @if let Some(from) = results.from { ", from " (from) }
                    }
                }
                main {
                    div.tiles {
                        (tile(results.failed, "Holes", "today", "strangers can use them"))
                        (tile(results.warnings, "Warnings", "week", "weak, or mail can be lost"))
                        (tile(results.untested, "Not tested", "unknown", "the reason is below"))
                        (tile(results.passed, "Passed", "calm", "as it should be"))
                    }
                    @for section in results.results.chunk_by(|a, b| a.section == b.section) { (of_section(section)) }
                }
                footer {
                    @if !results.is_clean() { p { "Again, after mending: " code { "countersign probe --only failed" } } }
                    p.quiet {
                        (results.proof.words()) ". Made by countersign probe " (env!("CARGO_PKG_VERSION")) ", run " (results.run)
                        "."
                    }
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
                    @for (n, it) in section.iter().enumerate() {
                        (row(it))
                        @if is_last_of_its_meaning(section, n) { (advice(it)) }
                    }
                }
            } }
        }
    }
}

/// Whether what a result means is not said by a later one.
fn is_last_of_its_meaning(section: &[ResultOf], n: usize) -> bool {
    let Some(it) = section.get(n).filter(|it| it.finding.outcome.is_finding()) else { return false };
    section.iter().skip(n + 1).all(|later| later.meaning != it.meaning)
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
            td { (it.title) " " span.quiet { "(" (it.finding.test.name()) ")" } @if !it.finding.about.is_empty() { ", " (it.finding.about) } }
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
                ul.advice { @for change in &it.change { li { b { (change.program) } ": " (change.text) } } }
            }
        }
    }
}
