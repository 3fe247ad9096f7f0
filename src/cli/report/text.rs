//! The report as text for a terminal.

use std::fmt::Write as _;

use crate::cli::bars::bars;
use crate::cli::colours::{BOLD, DIM, GREEN, RED, YELLOW};
use crate::mail_log::figures::{Backscatter, Extent, HarvestSummary, Named, Reflector, Summary, Unsigned};
use crate::mail_log::published::{Listed, Published};
use crate::mail_log::stamp::Wall;
use crate::mail_log::verdict::{Level, Verdict, grouped};
use crate::mail_log::waiting::Waiting;

/// The longest chart, in characters.
const MAX_CHART: usize = 72;
/// The width of the longest bar of a list, in characters.
const BAR: u64 = 20;

/// All lines of the report.
pub(super) fn lines(summary: &Summary, seconds: u64) -> Vec<String> {
    let mut lines = vec![head(&summary.lines, seconds), String::new()];
    for (name, verdict) in [
        ("BACKSCATTER", &summary.backscatter.verdict),
        ("REFLECTOR", &summary.reflector.verdict),
        ("HARVEST", &summary.harvest.verdict),
        ("UNSIGNED MAIL", &summary.unsigned.verdict),
    ] {
        lines.push(verdict_line(name, verdict));
    }
    lines.extend(backscatter(&summary.backscatter));
    lines.extend(reflector(&summary.reflector, summary.queue.as_ref()));
    lines.extend(harvest(&summary.harvest));
    lines.extend(unsigned(&summary.unsigned));
    lines.extend(summary.dns.iter().flat_map(dns));
    lines
}

fn head(read: &Extent, seconds: u64) -> String {
    let software: Vec<&str> = read.software.iter().map(|software| software.name()).collect();
    let time = |at: Option<Wall>| at.map_or_else(String::new, |at| at.to_text("%a %-d %b %Y %H:%M"));
    let unknown = match read.not_understood {
        0 => String::new(),
        n => format!(", {} lines of {} not understood", grouped(n), grouped(read.total)),
    };
    format!(
        "{} of logs of {}, {} to {}{DIM}   {seconds} s{unknown}{DIM:#}",
        size(read.octets),
        software.join(" and "),
        time(read.first),
        time(read.last)
    )
}

fn verdict_line(name: &str, verdict: &Verdict) -> String {
    let colour = match verdict.level {
        Level::Calm => GREEN,
        Level::Unknown => DIM,
        Level::ThisWeek => YELLOW,
        Level::Today => RED,
    };
    // The words of a level that is not calm say what to do, so the line fits without them.
    format!("  {BOLD}{name:15}{BOLD:#} {colour}{:52}{colour:#} {}", verdict.words, verdict.level.words())
        .trim_end()
        .to_owned()
}

fn title(text: String) -> [String; 2] {
    [String::new(), format!("{BOLD}{text}{BOLD:#}")]
}

fn advice(verdict: &Verdict) -> impl Iterator<Item = String> {
    verdict.advice.iter().map(|advice| format!("  {YELLOW}→{YELLOW:#} {advice}"))
}

fn backscatter(found: &Backscatter) -> Vec<String> {
    let mut lines = Vec::from(title(format!(
        "Backscatter: {} of {} mails in had no sender ({})",
        grouped(found.null_sender),
        grouped(found.mail_in),
        percent(found.null_sender, found.mail_in)
    )));
    lines.extend(chart(found));
    let all = found.null_sender.max(1);
    for (what, list) in [("refused", &found.refused), ("delivered", &found.delivered)] {
        lines.extend(list.iter().map(|named| {
            let bar = "█".repeat(usize::try_from(named.count * BAR / all).unwrap_or(0));
            let name = format!("{what}: {}", named.name);
            format!("  {:>12}  {:>6}  {name:44} {DIM}{bar}{DIM:#}", grouped(named.count), percent(named.count, all))
                .trim_end()
                .to_owned()
        }));
    }
    let refused: u64 = found.refused.iter().map(|named| named.count).sum();
    if !found.forged_as.is_empty() {
        let unknown = match found.unknown_names {
            0 => String::new(),
            n => format!("; {} names that do not exist", grouped(n as u64)),
        };
        // Bounces that were only marked count, too.
        let forged = refused.max(found.forged_as.iter().map(|named| named.count).sum());
        lines.push(format!("  forged as  {}{unknown}", with_shares(&found.forged_as, forged)));
    }
    if !found.sent_by.is_empty() {
        let shown: Vec<String> = found
            .sent_by
            .iter()
            .take(3)
            .map(|it| {
                let name = it.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
                format!("{}{name} {}", it.network, grouped(it.count))
            })
            .collect();
        let more = match found.networks.saturating_sub(shown.len()) {
            0 => String::new(),
            n => format!("; {} networks more", grouped(n as u64)),
        };
        lines.push(format!("  sent by    {}{more}", shown.join("; ")));
    }
    lines.extend(advice(&found.verdict));
    lines
}

/// A bar for each hour, or for several.
fn chart(found: &Backscatter) -> Option<String> {
    let (first, last) = (found.hours.first()?.hour, found.hours.last()?.hour);
    let hours = usize::try_from(last - first).ok()? + 1;
    let each = hours.div_ceil(MAX_CHART);
    let mut counts = vec![0_u64; hours.div_ceil(each)];
    for hour in &found.hours {
        let place = usize::try_from(hour.hour - first).ok()? / each;
        if let Some(count) = counts.get_mut(place) {
            *count += hour.null_sender;
        }
    }
    let most = found.hours.iter().max_by_key(|hour| hour.null_sender)?;
    if most.null_sender == 0 {
        return None;
    }
    let unit = if each == 1 { "per hour".to_owned() } else { format!("per {each} hours") };
    let at = Wall(most.hour * 3600).to_text("%a %-d %b %H:%M");
    Some(format!("  {unit}  {}   most in an hour: {} on {at}", bars(&counts), grouped(most.null_sender)))
}

fn reflector(found: &Reflector, waiting: Option<&Waiting>) -> Vec<String> {
    let mut lines = Vec::new();
    if found.bounces > 0 || found.held > 0 {
        lines.extend(title(format!(
            "Reflector: {} own bounces left, to {} domains; {} delivered, {} undeliverable ({})",
            grouped(found.bounces),
            grouped(found.domains as u64),
            grouped(found.delivered),
            grouped(found.undeliverable),
            percent(found.undeliverable, found.delivered + found.undeliverable)
        )));
        for it in &found.causes {
            let places: Vec<String> =
                it.places.iter().map(|place| format!("{} {}", place.name, grouped(place.count))).collect();
            let places =
                if places.is_empty() { String::new() } else { format!("   {DIM}{}{DIM:#}", places.join(", ")) };
            lines.push(format!("  {:>12}  {:44}{places}", grouped(it.count), it.cause.words()).trim_end().to_owned());
        }
        if found.held > 0 {
            lines.push(format!("  {:>12}  not sent, by Countersign ([outbound.ndr])", grouped(found.held)));
        }
    }
    if let Some(waiting) = waiting {
        if lines.is_empty() {
            lines.extend(title("Queue".to_owned()));
        }
        let mut line =
            format!("  queue now  {} messages, {} from <>", grouped(waiting.messages), grouped(waiting.bounces));
        if waiting.bounces > 0 {
            let domains: Vec<String> =
                waiting.domains.iter().map(|(domain, count)| format!("{domain} {}", grouped(*count))).collect();
            let _ = write!(
                line,
                ", {}, oldest {}; most for {}",
                size(waiting.octets),
                age(waiting.oldest),
                domains.join(", ")
            );
        }
        lines.push(line);
    }
    lines.extend(advice(&found.verdict));
    lines
}

fn harvest(found: &HarvestSummary) -> Vec<String> {
    if found.networks.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::from(title("Harvest: unknown names that a network has asked for".to_owned()));
    for it in found.networks.iter().take(5) {
        let time = |at: Option<Wall>, format| at.map_or_else(String::new, |at| at.to_text(format));
        lines.push(format!(
            "  {:>12}  {}, {} to {}, at most {} in an hour",
            grouped(it.names),
            it.network,
            time(it.first, "%a %-d %b %H:%M"),
            time(it.last, "%a %-d %b %H:%M"),
            grouped(u64::from(it.most_in_an_hour))
        ));
    }
    if found.networks.len() > 5 {
        lines.push(format!("  {:>12}  networks more", found.networks.len() - 5));
    }
    lines.extend(advice(&found.verdict));
    lines
}

fn unsigned(found: &Unsigned) -> Vec<String> {
    if found.hosts.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::from(title("Unsigned: genuine bounces to mail that was not signed".to_owned()));
    for it in found.hosts.iter().take(10) {
        let last = it.last.map_or_else(String::new, |at| at.to_text("%a %-d %b %H:%M"));
        lines.push(format!("  {:>12}  {}, last {last}", grouped(it.bounces), it.host));
    }
    lines.extend(advice(&found.verdict));
    lines
}

fn dns(found: &Published) -> Vec<String> {
    let mut lines = Vec::from(title("DNS".to_owned()));
    for it in &found.listings {
        let colour = if it.state == Listed::Yes { RED } else { DIM };
        let reason = if it.reason.is_empty() { String::new() } else { format!("   {DIM}{}{DIM:#}", it.reason) };
        lines.push(format!("  {colour}{:10}{colour:#} {} in {}{reason}", it.state.words(), it.address, it.list));
    }
    lines.extend(found.domains.iter().map(|it| format!("  {:10} {}: {}", "policy", it.domain, it.words())));
    lines.extend(found.advice.iter().map(|advice| format!("  {YELLOW}→{YELLOW:#} {advice}")));
    lines
}

fn with_shares(list: &[Named], all: u64) -> String {
    let shown = list.iter().take(4).map(|named| format!("{} {}", named.name, percent(named.count, all)));
    shown.collect::<Vec<_>>().join(", ")
}

/// A share in per cent, with a digit behind the point if it is small.
pub(super) fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return "0 %".to_owned();
    }
    let thousandths = u128::from(part) * 1000 / u128::from(all);
    if thousandths >= 100 || thousandths == 0 {
        format!("{} %", (u128::from(part) * 100 + u128::from(all) / 2) / u128::from(all))
    } else {
        format!("{}.{} %", thousandths / 10, thousandths % 10)
    }
}

/// A size in its largest unit.
pub(super) fn size(octets: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = (octets, 0);
    let mut unit = "octets";
    for name in units {
        if value.0 < 1024 {
            break;
        }
        value = (value.0 / 1024, value.0 % 1024 * 10 / 1024);
        unit = name;
    }
    if value.0 < 10 && unit != "octets" {
        format!("{}.{} {unit}", value.0, value.1)
    } else {
        format!("{} {unit}", value.0)
    }
}

/// An age in its two largest units.
pub(super) fn age(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, hours) => format!("{hours} h {minutes} min"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [(1, 3), (5, 1000), (0, 7), (1, 2000), (2, 3), (0, 0)].map(|(a, b)| percent(a, b)),
            ["33 %", "0.5 %", "0 %", "0 %", "67 %", "0 %"]
        );
        assert_eq!([512, 2048, 1_572_864, 20 << 30].map(size), ["512 octets", "2.0 KiB", "1.5 MiB", "20 GiB"]);
        assert_eq!([90, 7260, 420_000].map(age), ["1 min", "2 h 1 min", "4 d 20 h"]);
    }
}
