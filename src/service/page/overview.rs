//! The parts of the page that say how the daemon does: state, domains, who was refused, and the parts of the machine.

use maud::{Markup, html};

use super::access::Reader;
use super::charts::share;
use super::decisions::shown;
use super::figures::Figures;
use super::when::{local, local_of, seconds_until, span};
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};
use crate::html::bar;
use crate::mail_log::verdict::grouped;
use crate::service::parts::{DomainRamp, KeyLife, NextHopState};
use crate::service::report::Report;

/// The most names of a list.
const MOST_NAMES: usize = 8;
/// The most domains that have a card of their own.
const MOST_DOMAINS: usize = 12;
/// Days before the end of a certificate or a key from which on it is marked.
const SOON: i64 = 14 * SECONDS_PER_DAY;

/// How the daemon does, in one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing to do.
    Working,
    /// Mail flows, and something needs attention.
    Attention,
    /// Mail of a listener is deferred.
    Down,
}

impl Health {
    /// How this daemon does.
    pub(super) fn of(report: &Report) -> Self {
        if report.listeners.iter().any(|(.., is_up)| !is_up) {
            return Self::Down;
        }
        if report.attention.is_empty() { Self::Working } else { Self::Attention }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Working => "calm",
            Self::Attention => "week",
            Self::Down => "today",
        }
    }

    /// One word for the title of the page.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Working => "Working",
            Self::Attention => "Needs attention",
            Self::Down => "Mail is deferred",
        }
    }
}

/// The first lines: is it working?
pub(super) fn state(report: &Report, now: Timestamp) -> Markup {
    let health = Health::of(report);
    html! {
        header #state class=(health.class()) {
            p.where {
                b { "Countersign" } " on " (report.host) " "
                span.quiet {
                    "version " (report.version) ", up " (span(report.uptime.max(0))) ", config of " (local_of(&report.config_read, "%-d %b %H:%M"))
                    @if report.config_error.is_none() && report.config_changes.0.is_empty() && report.config_changes.1.is_empty() { ", as in the file" }
                    ". It is " (local(now, "%H:%M:%S %Z"))
                }
            }
            h1 { span.dot {} (sentence(report, health)) }
            @if !report.attention.is_empty() { ul.advice { @for line in &report.attention { li { (line) } } } }
        }
    }
}

fn sentence(report: &Report, health: Health) -> String {
    let down: Vec<&str> =
        report.listeners.iter().filter(|(.., is_up)| !is_up).map(|(_, listen, ..)| listen.as_str()).collect();
    let enforced = report.domains.iter().filter(|domain| is_enforced(report, domain)).count();
    let all = report.domains.len();
    match health {
        Health::Down => format!("Mail of {} is deferred: no next hop can be reached.", down.join(", ")),
        Health::Attention if report.attention.len() == 1 => "Working, but one thing needs attention.".to_owned(),
        Health::Attention => format!("Working, but {} things need attention.", report.attention.len()),
        Health::Working if report.mode == "enforce" => "Working. False bounces are refused.".to_owned(),
        Health::Working if report.mode == "observe" => {
            "Working. inbound.mode is \"observe\": false bounces are marked, not refused.".to_owned()
        }
        Health::Working if all > 0 && all == enforced => "Working. False bounces are refused.".to_owned(),
        Health::Working if enforced == 0 => {
            "Working. Domains are only observed: false bounces are marked, not refused.".to_owned()
        }
        Health::Working => {
            format!("Working. False bounces to {enforced} of {all} domains are refused; the others are observed.")
        }
    }
}

fn is_enforced(report: &Report, domain: &DomainRamp) -> bool {
    match report.mode.as_str() {
        "enforce" => true,
        "observe" => false,
        _ => domain.state == "enforced",
    }
}

/// The domains, and how far each of them is.
pub(super) fn domains(report: &Report) -> Markup {
    html! {
        @if !report.domains.is_empty() {
            section #domains aria-labelledby="domains-title" {
                h2 #domains-title { "Domains" }
                ul.cards {
                    @for domain in report.domains.iter().take(MOST_DOMAINS) { (card(report, domain)) }
                }
                @if report.domains.len() > MOST_DOMAINS {
                    p.quiet { (report.domains.len() - MOST_DOMAINS) " more: `countersign status`" }
                }
            }
        }
    }
}

fn card(report: &Report, domain: &DomainRamp) -> Markup {
    let (word, class) = match (is_enforced(report, domain), domain.state.as_str()) {
        (true, _) => ("enforced", "calm"),
        (false, "held") => ("held", "week"),
        (false, "waiting") => ("observed", "unknown"),
        (false, "paused") => ("observed, by command", "week"),
        (false, _) => ("observed", "unknown"),
    };
    html! {
        li class=(class) {
            b { (domain.domain) } " " span.badge { (word) }
            @if report.surges.contains(&domain.domain) { " " span.badge.today { "surge" } }
            @if report.catch_all.contains(&domain.domain) { " " span.badge.week { "catch-all" } }
            @if let (Some((signed, needed)), false) = (domain.days, word == "enforced") {
                p { "day " (signed) " of " (needed)
                    progress value=(signed) max=(needed) aria-label={ "Ramp of " (domain.domain) } {}
                }
            }
            p.quiet { @if word == "enforced" { "False bounces are refused." } @else { (domain.words) } }
        }
    }
}

/// Who was refused, and who was hit.
pub(super) fn who(figures: &Figures, report: &Report, reader: Reader) -> Markup {
    let names = &figures.names;
    let all = names.counts.all_refused();
    let recipients: Vec<(String, u64)> =
        names.recipients.first(MOST_NAMES).into_iter().map(|(name, count)| (shown(reader, &name), count)).collect();
    html! {
        section #who aria-labelledby="who-title" {
            h2 #who-title { "Who was refused" }
            @if all == 0 {
                p { "Nothing was refused since " (local(Timestamp(figures.names_since), "%a %H:%M")) "." }
            } @else {
                p.quiet { (grouped(all)) " since " (local(Timestamp(figures.names_since), "%a %-d %b %H:%M")) ", counted by the hour" }
                (list("Networks", &names.networks.first(MOST_NAMES), names.networks.len(), all))
                (list("Users hit", &recipients, names.recipients.len(), all))
            }
            @if report.harvest_networks > 0 {
                p { (report.harvest_networks) " networks have tried too many unknown recipients. They are deferred for up to an hour." }
            }
        }
    }
}

fn list(title: &str, names: &[(String, u64)], known: usize, all: u64) -> Markup {
    let rest = all.saturating_sub(names.iter().map(|(_, count)| count).sum());
    html! {
        table {
            caption { (title) }
            tbody {
                @for (name, count) in names {
                    tr { th scope="row" { (name) } td.n { (grouped(*count)) } td.n.quiet { (share(*count, all)) } td.bar { (bar("refused", *count, all)) } }
                }
                @if rest > 0 {
                    tr { th.quiet scope="row" { @if known > names.len() { (known - names.len()) " more, at least" } @else { "others" } } td.n { (grouped(rest)) } td.n.quiet { (share(rest, all)) } td.bar {} }
                }
            }
        }
    }
}

/// Listeners, next hops, keys, certificates, clock and state.
pub(super) fn parts(report: &Report, now: Timestamp) -> Markup {
    let parts = &report.parts;
    html! {
        section #parts aria-labelledby="parts-title" {
            h2 #parts-title { "Parts" }
            ul.parts {
                @for (role, listen, ..) in &report.listeners {
                    li {
                        b { (role) } " " (listen)
                        ul { @for hop in parts.next_hops.iter().filter(|hop| hop.listener == *listen && hop.role == *role) { (next_hop(hop)) } }
                    }
                }
                @for (protocol, listen) in &parts.services { li { b { (protocol) } " " (listen) } }
                li { b { (grouped(u64::try_from(report.sessions).unwrap_or(0))) } " sessions open" }
                @for key in &parts.keys { (key_line(key, now)) }
                @for (listener, until) in &parts.certificates {
                    li class=[due(until, now)] { b { "certificate" } " of " (listener) " until " (day(until, now)) }
                }
                li class=[(parts.clock_set.abs() > 60).then_some("week")] {
                    b { "clock" }
                    @if parts.clock_set.abs() > 60 { " was set by " (span(parts.clock_set.abs())) @if parts.clock_set > 0 { " forward" } @else { " back" } " since the start" }
                    @else { " " (local(now, "%H:%M:%S")) ", not set since the start" }
                }
                li class=[(!parts.state.is_written).then_some("week")] {
                    b { "state" } " "
                    @match &parts.state.path {
                        None => "in memory only: nothing survives a restart",
                        Some(_) if !parts.state.is_written => "the file cannot be written",
                        Some(path) => { (size(parts.state.octets)) " in " (path) }
                    }
                }
                @if report.forgery_chance >= 1e-6 { li { b { "forgery" } " chance that a guessed tag was valid: " (format!("{:.6}", report.forgery_chance)) } }
            }
        }
    }
}

fn next_hop(hop: &NextHopState) -> Markup {
    let (class, word) = match (hop.is_up, hop.is_refusing) {
        (false, _) => ("today", "down"),
        (true, true) => ("week", "refuses connections"),
        (true, false) => ("calm", "up"),
    };
    html! {
        li class=(class) {
            span.dot {} "next hop " (hop.next_hop) " " b { (word) }
            @if let (Some(micros), true) = (hop.greeting, hop.is_up) { ", greets in " (millis(micros)) }
            @if hop.open > 0 { ", " (hop.open) " open" }
        }
    }
}

fn millis(micros: u64) -> String {
    if micros < 10_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

fn key_line(key: &KeyLife, now: Timestamp) -> Markup {
    let age = seconds_until(&key.since, now).map_or(0, |left| -left);
    let until = key.until.as_deref();
    html! {
        @match key.state.as_str() {
            "signing" => li class=[until.and_then(|until| due(until, now))] {
                b { "key " (key.id) } " signs, " (span(age.max(0))) " old"
                @if let Some(until) = until { "; rotate by " (day(until, now)) }
            },
            "next" => li { b { "key " (key.id) } " is next" },
            "verifying" => li { b { "key " (key.id) } " verifies" @if let Some(until) = until { " until " (day(until, now)) } },
            _ => {}
        }
    }
}

/// The class of something that ends soon.
fn due(until: &str, now: Timestamp) -> Option<&'static str> {
    match seconds_until(until, now)? {
        ..0 => Some("today"),
        0..SOON => Some("week"),
        _ => None,
    }
}

fn day(until: &str, now: Timestamp) -> String {
    let left = seconds_until(until, now).unwrap_or(0);
    let date = local_of(until, "%-d %b %Y");
    if left < 0 { format!("{date} (over)") } else { format!("{date} ({})", span(left)) }
}

fn size(octets: u64) -> String {
    match octets {
        ..1_048_576 => format!("{} KiB", octets / 1024),
        _ => format!("{} MiB", octets >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_marked() {
        let now = Timestamp(0);
        assert_eq!(due("1970-01-20T00:00:00Z", now), None);
        assert_eq!(due("1970-01-05T00:00:00Z", now), Some("week"));
        assert_eq!(due("1969-12-31T00:00:00Z", now), Some("today"));
        assert_eq!([millis(380), millis(12_345)], ["0.3 ms", "12 ms"]);
        assert_eq!([size(2048), size(3 << 20)], ["2 KiB", "3 MiB"]);
    }
}
