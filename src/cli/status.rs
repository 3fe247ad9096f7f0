//! `status`, `trace`, `observe` and `reload`: commands to a running daemon, over its control socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::de::DeserializeOwned;

use super::bars::bars;
use super::common_args::{find_config, now, span_of};
use super::monitoring::{self, Form, Health};
use crate::cli::colours::{BOLD, GREEN, RED, YELLOW};
use crate::config::{Config, ControlSocket};
use crate::envelope::time::Timestamp;
use crate::service::control::{Answer, Observe, Trace};
use crate::service::decision_log::StoredDecision;
use crate::service::report::Report;
use crate::state::time_format::rfc3339;

/// Timeout for connecting, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most octets of an answer that are read.
const MAX_ANSWER: u64 = 8 << 20;
/// Where the packages put the socket.
const PACKAGED: &str = "/run/countersign/control";
/// The folder of the config of the packages.
const PACKAGED_CONFIG: &str = "/etc/countersign";
/// Why nothing is answered to other users.
const STRANGER: &str = "only root and the daemon's own user may ask";
/// No daemon answers. Exit status 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoDaemon(String);

/// The daemon is down, which standard output has said already. Exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is down")]
pub(super) struct Told;

/// How the running daemon is found.
#[derive(Debug, Args)]
struct Socket {
    /// Config file, which names the control socket [default: countersign.toml here, then
    /// /etc/countersign/countersign.toml; or the files in COUNTERSIGN_CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The control socket itself
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// `countersign status`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign status                     for you
  countersign status --check nagios      for Nagios, Icinga or Naemon; or: checkmk, container

Exit status: 0 all well, 1 something needs attention, 2 wrong usage or config, 3 no daemon answers.")]
pub(super) struct Status {
    #[command(flatten)]
    socket: Socket,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    /// Print one line for a monitoring system; exit status 0 well, 1 attention, 2 down or no daemon
    #[arg(long, value_name = "FORM", conflicts_with = "json")]
    check: Option<Form>,
}

/// `countersign trace`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign trace ann@our.example              what came for Ann, and what became of it
  countersign trace '<20261127.1@our.example>'   a bounce with this Message-ID, or bounces that return it
  countersign trace --since 2h 192.0.2.9         what this client sent

Decisions about bounces and tags are kept for 14 days, newest last; see [state] in docs/config.md. The
last second may be missing. Exit status: 0 something is found, 1 nothing, 3 no daemon answers.")]
pub(super) struct TraceCommand {
    #[command(flatten)]
    socket: Socket,
    /// How far to look back: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "2d", value_parser = span_of)]
    since: i64,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// An address, a Message-ID in <>, or the address of a client
    about: String,
}

/// `countersign observe`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign observe 24h    for a day, false bounces are delivered with a mark, to all domains
  countersign observe off    what the ramps say holds again

The daemon keeps this over a restart. `countersign ramp observe DOMAIN` is for one domain.")]
pub(super) struct ObserveCommand {
    #[command(flatten)]
    socket: Socket,
    /// For how long: a number with s, m, h or d; or `off`
    #[arg(value_name = "TIME", value_parser = pause)]
    time: Pause,
}

/// `countersign reload`
#[derive(Debug, Args)]
#[command(after_help = "\
Prints which changes of the config are in force now, and which take effect after a restart. A config
with an error changes nothing; exit status 2.")]
pub(super) struct ReloadCommand {
    #[command(flatten)]
    socket: Socket,
}

/// A time from now, in seconds; `None`: none.
#[derive(Debug, Clone, Copy)]
struct Pause(Option<i64>);

fn pause(text: &str) -> Result<Pause, String> {
    match text {
        "off" => Ok(Pause(None)),
        text => span_of(text).map(|seconds| Pause(Some(seconds))).map_err(|wrong| format!("{wrong}, or `off`")),
    }
}

/// Prints the state of the running daemon. `false`: something needs attention.
pub(super) fn status(args: &Status) -> Result<bool> {
    if let Some(form) = args.check {
        let report = ask(&args.socket, "GET", "/status", "").map_err(|error| format!("{error:#}"));
        let (line, health) = monitoring::line(form, &report);
        anstream::println!("{line}");
        return match (form, health) {
            (Form::Container, health) => Ok(health != Health::Down),
            (_, Health::Down) => Err(Told.into()),
            (_, health) => Ok(health == Health::Well),
        };
    }
    let report: Report = ask(&args.socket, "GET", "/status", "")?;
    if args.json {
        anstream::println!("{}", serde_json::to_string(&report)?);
    } else {
        for line in lines(&report) {
            anstream::println!("{line}");
        }
    }
    Ok(report.attention.is_empty())
}

/// The state of the daemon that runs with this config; `None`: none answers.
pub(super) fn running(config: &Config) -> Option<Report> {
    let socket = Socket { config: Some(config.path.clone()), control: None };
    ask(&socket, "GET", "/status", "").ok()
}

/// The config of a daemon that answers where this config's, or a package's, would, and runs with another one.
pub(super) fn other_config(config: &Config) -> Option<String> {
    let same = |path: &str| std::fs::canonicalize(path).ok() == std::fs::canonicalize(&config.path).ok();
    let places = config.control.path.iter().cloned().chain([PathBuf::from(PACKAGED)]);
    let reports = places.filter_map(|place| answer::<Report>(&request(&place, "GET", "/status", "").ok()?).ok());
    let configs: Vec<String> = reports.map(|report| report.config).collect();
    if configs.iter().any(|path| same(path)) { None } else { configs.into_iter().next() }
}

/// Whether the daemon runs with this config file as it is now, for people.
pub(super) fn compared(report: &Report, config: &Config) -> String {
    let same = |path: &Path| std::fs::canonicalize(path).ok();
    if same(Path::new(&report.config)) != same(&config.path) {
        return format!("A daemon runs with another file: {}", report.config);
    }
    if let Some(error) = &report.config_error {
        return format!(
            "{BOLD}Running{BOLD:#} for {}; the daemon cannot read the file now: {error}",
            span(report.uptime)
        );
    }
    let (applied, need_restart) = &report.config_changes;
    let differs = [(applied, "countersign reload"), (need_restart, "restart it")];
    let differs = differs.into_iter().filter(|(keys, _)| !keys.is_empty());
    let differs: Vec<String> = differs.map(|(keys, what)| format!("{} ({what})", keys.join(", "))).collect();
    let differs = match differs.as_slice() {
        [] => "is equal to the file".to_owned(),
        differs => format!("{YELLOW}differs{YELLOW:#} from the file in {}", differs.join(" and ")),
    };
    format!("{BOLD}Running{BOLD:#} for {}; its config, read {}, {differs}", span(report.uptime), report.config_read)
}

/// Prints recent decisions. `false`: there are none.
pub(super) fn trace(args: &TraceCommand) -> Result<bool> {
    let since = now().0.saturating_sub(args.since);
    let asked = Trace { about: args.about.clone(), since };
    let found: Vec<StoredDecision> = ask(&args.socket, "POST", "/trace", &serde_json::to_string(&asked)?)?;
    for decision in &found {
        match args.json {
            true => anstream::println!("{}", serde_json::to_string(decision)?),
            false => anstream::println!("{}", decision.line()),
        }
    }
    if found.is_empty() {
        anstream::eprintln!("nothing about {} is kept since {}", args.about, rfc3339(Timestamp(since)));
    }
    Ok(!found.is_empty())
}

/// Has the running daemon only observe all domains for a while.
pub(super) fn observe(args: &ObserveCommand) -> Result<bool> {
    let until = args.time.0.map(|seconds| now().0.saturating_add(seconds));
    let answer: Answer = ask(&args.socket, "POST", "/observe", &serde_json::to_string(&Observe { until })?)?;
    anstream::println!("{}", answer.text);
    Ok(true)
}

/// Has the running daemon read its config, key ring and certificates again.
pub(super) fn reload(args: &ReloadCommand) -> Result<bool> {
    let answer: Answer = ask(&args.socket, "POST", "/reload", "")?;
    anstream::println!("{}", answer.text);
    Ok(true)
}

/// The places where the control socket may be, in the order in which they are tried. With a config that has an error,
/// the usual ones: the daemon may run with an earlier version of it.
fn places(socket: &Socket) -> Result<(Vec<PathBuf>, Option<anyhow::Error>)> {
    if let Some(path) = &socket.control {
        return Ok((vec![path.clone()], None));
    }
    let config = match find_config(socket.config.as_deref()) {
        Ok(config) => config.context("there is no config; name one with -c FILE")?,
        Err(error) => {
            let folder = socket.config.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
            let own = folder.join(ControlSocket::DEFAULT);
            return Ok((or_packaged(own, folder), Some(error)));
        }
    };
    let own = config.control.path.clone().context("control.listen is \"none\", so no daemon can be asked")?;
    let folder = config.path.parent().unwrap_or(Path::new(""));
    Ok((if config.control.is_default { or_packaged(own, folder) } else { vec![own] }, None))
}

/// The socket of a package belongs to the daemon with the config of the package: a command for another daemon must not
/// reach it.
fn or_packaged(own: PathBuf, folder: &Path) -> Vec<PathBuf> {
    // A config in the current folder has no folder in its name.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_packaged = std::fs::canonicalize(folder).is_ok_and(|folder| folder == Path::new(PACKAGED_CONFIG));
    if is_packaged { vec![PACKAGED.into(), own] } else { vec![own] }
}

fn ask<T: DeserializeOwned>(socket: &Socket, method: &str, path: &str, body: &str) -> Result<T> {
    let (places, bad_config) = places(socket)?;
    let mut failed = Vec::new();
    for place in places {
        match request(&place, method, path, body) {
            Ok(text) => return answer(&text),
            Err(error) => failed.push(format!("{}: {error}", place.display())),
        }
    }
    let failed = failed.join("; ");
    let words = match failed.contains(STRANGER) {
        true => format!("a daemon runs, and does not answer this user ({failed}). Run this as root"),
        false => format!(
            "no running daemon answers ({failed}). Start it: systemctl start countersign (without a unit: countersign serve). Its log says why it ended"
        ),
    };
    Err(bad_config.unwrap_or_else(|| NoDaemon(words).into()))
}

fn request(place: &Path, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, PermissionDenied};

    let asked = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(place)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = "HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json";
        write!(stream, "{method} {path} {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut text = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut text)?;
        Ok(text)
    };
    match asked() {
        Ok(text) if !text.is_empty() => Ok(text),
        // The daemon closes the connections of strangers without a word.
        Ok(_) => Err(std::io::Error::other(STRANGER)),
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | PermissionDenied) => {
            Err(std::io::Error::other(STRANGER))
        }
        Err(error) => Err(error),
    }
}

fn answer<T: DeserializeOwned>(text: &str) -> Result<T> {
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is not HTTP; is another version running?")?;
    if head.split(' ').nth(1) == Some("200") {
        return serde_json::from_str(body).context("the answer is not understood; is another version running?");
    }
    let why = serde_json::from_str::<Answer>(body).map_or_else(|_| body.to_owned(), |answer| answer.text);
    Err(anyhow::anyhow!("the daemon refuses: {why}"))
}

fn lines(report: &Report) -> Vec<String> {
    let Report { version, pid, config, .. } = report;
    let good = if report.attention.is_empty() {
        format!("{GREEN}working{GREEN:#}")
    } else {
        format!("{YELLOW}working, and something needs attention{YELLOW:#}")
    };
    let mut lines = vec![format!(
        "{BOLD}Countersign {version}{BOLD:#} is {good}: up {}, process {pid}, {config}",
        span(report.uptime)
    )];
    for (name, state) in &report.ramps {
        lines.push(format!("  {name}: {state}"));
    }
    if report.mode != "ramp" {
        lines.push(format!("  inbound.mode is \"{}\", for all domains", report.mode));
    }
    for (role, listen, next, is_up) in &report.listeners {
        let state = if *is_up { format!("{GREEN}up{GREEN:#}") } else { format!("{RED}down{RED:#}") };
        lines.push(format!("  {role} on {listen}, next hop {next} {state}"));
    }
    lines.push(format!("  {} open sessions; key {} signs", report.sessions, report.signing_key));
    let total = |list: &[(String, u64)]| list.iter().map(|(_, count)| count).sum::<u64>();
    let listed = |list: &[(String, u64)]| {
        list.iter().take(5).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    if report.refused.is_empty() {
        lines.push("  nothing refused in 24 hours".to_owned());
    } else {
        lines.push(format!("  refused {} in 24 hours: {}", total(&report.refused), listed(&report.refused)));
        lines.push(format!("    by network: {}", listed(&report.refused_networks)));
        lines.push(format!("    by domain: {}", listed(&report.refused_domains)));
        lines.push(format!("    by hour: {}  most in an hour: {}", bars(&report.refused_by_hour), most(report)));
    }
    if !report.would_refuse.is_empty() {
        lines.push(format!(
            "  in the last 7 days, {} were passed on marked that enforcing would refuse: {}",
            total(&report.would_refuse),
            listed(&report.would_refuse)
        ));
    }
    if !report.aliases.is_empty() {
        lines.push(format!("  SRS aliases of long senders since the start: {}", listed(&report.aliases)));
    }
    lines.push(format!(
        "  signed {} and rewritten {} senders in 24 hours; bounces to them {}, rescued by evidence {}",
        report.signed, report.rewritten, report.genuine, report.rescued
    ));
    if report.harvest_networks > 0 {
        lines.push(format!(
            "  {} client network{} tried too many unknown recipients; deferred for up to an hour",
            report.harvest_networks,
            if report.harvest_networks == 1 { " has" } else { "s have" }
        ));
    }
    if report.forgery_chance > 0.0 {
        lines.push(format!("  chance that a guessed tag was valid: {:.6}", report.forgery_chance));
    }
    lines.extend(report.attention.iter().map(|text| format!("{YELLOW}→{YELLOW:#} {text}")));
    lines
}

fn most(report: &Report) -> u64 {
    report.refused_by_hour.iter().copied().max().unwrap_or(0)
}

/// A length of time, in its two largest units.
fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(pause(text).unwrap().0, Some(seconds), "{text}");
        }
        assert_eq!(pause("off").unwrap().0, None);
        for text in ["", "24", "h", "-1h", "0h", "1w", "24 h", "99999999999999999d"] {
            assert!(pause(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_chart_shows_each_hour_that_is_not_empty() {
        assert_eq!(bars(&[0, 1, 50, 100]), " ▁▄█");
        assert_eq!(bars(&[0, 0]), "  ");
    }

    #[test]
    fn times_are_shown_in_two_units() {
        assert_eq!([span(5), span(125), span(7300), span(1_047_000)], ["5 s", "2 min", "2 h 1 min", "12 d 2 h"]);
    }
}
