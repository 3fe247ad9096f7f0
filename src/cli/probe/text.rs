//! The results as text for a terminal.

use super::results::{ResultOf, Results, many};
use crate::cli::colours::{BOLD, DIM, GREEN, RED, YELLOW};
use crate::probe::finding::Outcome;

/// The width of the names of tests, in characters.
const NAME: usize = 34;
/// The width of lines that are wrapped.
const WIDTH: usize = 100;
/// So many tests with the same answer are shown as one.
const MANY: usize = 3;

/// All lines. `again`: whether the run is kept, so that `--only failed` works.
pub(super) fn lines(results: &Results, again: bool) -> Vec<String> {
    let mut lines = vec![head(results)];
    for section in results.results.chunk_by(|a, b| a.section == b.section) {
        lines.push(String::new());
        lines.extend(section.first().map(|it| format!("{BOLD}{}{BOLD:#}", it.section)));
        lines.extend(of_section(section));
    }
    lines.push(String::new());
    let again = match again && !results.is_clean() {
        true => ". Again, after mending: countersign probe --only failed",
        false => "",
    };
    let colour = match (results.failed, results.warnings) {
        (0, 0) => GREEN,
        (0, _) => YELLOW,
        _ => RED,
    };
    lines.push(format!("{colour}{}{colour:#}{again}", results.summary()));
    lines
}

fn head(results: &Results) -> String {
    let Results { host, address, software, sessions, seconds, .. } = results;
    let address = if host == address { String::new() } else { format!(" = {address}") };
    let software = if software.is_empty() { String::new() } else { format!(" ({software})") };
    let (tests, sessions) = (many(results.results.len(), "test"), many(*sessions, "session"));
    format!("{host}{address}{software}{DIM}   {tests}, {sessions}, {seconds} s{DIM:#}")
}

fn of_section(section: &[ResultOf]) -> Vec<String> {
    let mut lines = Vec::new();
    // Neighbours with the same answer, or the same meaning, belong together.
    let groups: Vec<&[ResultOf]> = section.chunk_by(|a, b| key(a) == key(b)).collect();
    for (n, group) in groups.iter().enumerate() {
        let Some(first) = group.first() else { continue };
        let comes_again =
            || groups.iter().skip(n + 1).flat_map(|later| later.first()).any(|it| it.meaning == first.meaning);
        match first.finding.outcome {
            Outcome::Passed | Outcome::Untested if group.len() >= MANY => lines.extend(list(first, group)),
            _ => lines.extend(group.iter().flat_map(line)),
        }
        if first.finding.outcome.is_finding() && !comes_again() {
            lines.extend(advice(first));
        }
    }
    lines
}

/// What neighbours must share to be shown together: the outcome, and for findings the meaning, for others the answer.
fn key(it: &ResultOf) -> (Outcome, &str) {
    let answer = match it.finding.outcome {
        Outcome::Passed => it.finding.detail.split([' ', '-']).next().unwrap_or_default(),
        Outcome::Untested => it.finding.detail.as_str(),
        Outcome::Warning | Outcome::Failed => it.meaning,
    };
    (it.finding.outcome, answer)
}

fn mark(outcome: Outcome) -> String {
    match outcome {
        Outcome::Passed => format!("{GREEN}✓{GREEN:#}"),
        Outcome::Untested => format!("{DIM}–{DIM:#}"),
        Outcome::Warning => format!("{YELLOW}!{YELLOW:#}"),
        Outcome::Failed => format!("{RED}✗{RED:#}"),
    }
}

/// What was seen; for a test that was not made, the reason.
fn detail(it: &ResultOf) -> String {
    match it.finding.outcome {
        Outcome::Untested => format!("not tested: {}", it.finding.detail),
        _ => it.finding.detail.clone(),
    }
}

/// One test: on one line if it fits.
fn line(it: &ResultOf) -> Vec<String> {
    let about = if it.finding.about.is_empty() { String::new() } else { format!(", {}", it.finding.about) };
    let by_name =
        if it.finding.outcome.is_finding() { format!(" ({})", it.finding.test.name()) } else { String::new() };
    let (mark, name, detail) = (mark(it.finding.outcome), format!("{}{about}{by_name}", it.title), detail(it));
    match 5 + name.chars().count().max(NAME) + detail.chars().count() <= WIDTH {
        true => vec![format!("  {mark} {name:NAME$} {detail}")],
        false => std::iter::once(format!("  {mark} {name}")).chain(wrapped(&detail, "      ")).collect(),
    }
}

/// Several tests with one answer.
fn list(first: &ResultOf, group: &[ResultOf]) -> Vec<String> {
    let titles: Vec<&str> = group.iter().map(|it| it.title).collect();
    let mut lines = wrapped(&titles.join(", "), "    ");
    if let Some(line) = lines.first_mut() {
        *line = format!("  {} {}", mark(first.finding.outcome), line.trim_start());
    }
    let detail = match first.finding.outcome {
        Outcome::Untested => detail(first),
        _ => format!("{} tests; the first: {}", group.len(), first.finding.detail),
    };
    lines.extend(wrapped(&detail, "      ").iter().map(|line| format!("{DIM}{line}{DIM:#}")));
    lines
}

/// What a finding means, and what to change.
fn advice(it: &ResultOf) -> Vec<String> {
    let mut lines = wrapped(it.meaning, "      ");
    for change in &it.change {
        let mut text = wrapped(&format!("{}: {}", change.program, change.text), "        ");
        if let Some(line) = text.first_mut() {
            *line = format!("      {YELLOW}→{YELLOW:#} {}", line.trim_start());
        }
        lines.extend(text);
    }
    lines
}

/// Breaks a text into lines, each with this indent.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}
