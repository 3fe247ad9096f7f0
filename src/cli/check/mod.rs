//! `check`: validates the config, and prints what it means.

mod connect;
mod dangers;
mod description;
mod mta;
mod rights;
mod warnings;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;

pub(super) use self::dangers::all as dangers;
use self::mta::MtaFindings;
use self::rights::Person;
pub(super) use self::warnings::all as warnings;
use self::warnings::writes_evidence;
use super::common_args::{Mistakes, find_config, now};
use crate::cli::colours::{GREEN, RED, YELLOW};
use crate::config::{Config, ConfigError, ServiceProtocol};
use crate::drive::proxy_listener::ProxyListener;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::{Ramp, Rules};
use crate::envelope::site_policy::InboundMode;
use crate::service::ramp_words;
use crate::service::report::Report;
use crate::state;
use crate::state::time_format::rfc3339;

/// `countersign check`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign check
  countersign check --mta-config /etc/postfix     does Postfix fit? What is missing, what is dangerous?
  countersign check --mta-config /etc/exim4

Exit status: 0 the config is good (warnings may still be worth reading), 1 the mail server's is not,
or with --strict there is a warning, 2 ours is wrong or dangerous.")]
pub(super) struct Check {
    /// Config file [default: countersign.toml here, then /etc/countersign/countersign.toml; or the files in
    /// COUNTERSIGN_CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check that Postfix (the folder of main.cf) or Exim (its folder or file) fits the config
    #[arg(long, value_name = "PLACE")]
    mta_config: Option<PathBuf>,
    /// Print what is dangerous or worth reading as one JSON object
    #[arg(long)]
    json: bool,
    /// Say what each reason means for which a bounce is refused
    #[arg(short, long)]
    verbose: bool,
    /// Connect to each next hop, and warn of those that do not answer [default: on a terminal]
    #[arg(long)]
    connect: bool,
    /// Do not connect to next hops
    #[arg(long, conflicts_with = "connect")]
    no_connect: bool,
    /// The daemon's user, whose rights are checked [default: the user countersign, if root runs this]
    #[arg(long, value_name = "USER")]
    as_user: Option<String>,
    /// Exit with 1 if there is a warning
    #[arg(long)]
    strict: bool,
}

/// Prints what the config means, with warnings about settings that have surprising effects. `false`: the mail server's
/// configuration is wrong.
pub(super) fn run(args: &Check) -> Result<bool> {
    let config = match find_config(args.config.as_deref()) {
        Err(error) if args.json => {
            if let Some(Mistakes(mistakes)) = error.downcast_ref() {
                writeln!(std::io::stdout(), "{}", mistakes_as_json(mistakes))?;
            }
            return Err(error);
        }
        config => config?,
    };
    let config = config.context("there is no config; name one with -c FILE, or write one: countersign init --help")?;
    let ring = state::ring_file::load(&config.ring)?;
    for listener in &config.listeners {
        ProxyListener::new(listener, &config)
            .map_err(|error| anyhow::anyhow!("{error}. Name yours: certificate and private_key of that listener"))
            .with_context(|| format!("{}: TLS of the listener {}", config.path.display(), listener.listen))?;
    }
    let mut lists = Vec::new();
    for path in &config.recipients.files {
        let list = state::recipient_file::load(path).map_err(anyhow::Error::msg).context("inbound.recipients")?;
        lists.push(list.len());
    }
    let mut dangers = dangers(&config);
    let mut warnings = warnings(&config, &ring);
    if args.connect || (std::io::stdout().is_terminal() && !args.no_connect && !args.json) {
        warnings.extend(connect::all(&config));
    }
    if let Some(person) = Person::asked(args.as_user.as_deref())? {
        dangers.extend(rights::of_daemon(&config, &person)?);
    }
    let swept = state::ring_file::sweep(&config.ring);
    if let Err(error) = &swept {
        warnings.push(format!("interrupted changes have left copies of the key ring beside it: {error}"));
    }
    let found = |place: &PathBuf| mta::find(&config, place);
    if args.json {
        let found = args.mta_config.as_ref().map(found).transpose()?;
        let fits = found.as_ref().is_none_or(MtaFindings::fits);
        let all = Findings {
            config: &config.path,
            ring: &config.ring,
            dangers: &dangers,
            warnings: &warnings,
            mail_server: found,
        };
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&all)?)?;
        return result(&config, &dangers, fits && (warnings.is_empty() || !args.strict));
    }
    let (good, colour) = if dangers.is_empty() { ("are good", GREEN) } else { ("can be read", YELLOW) };
    anstream::println!("{colour}{} and {} {good}.{colour:#}", config.path.display(), config.ring.display());
    match swept {
        Ok(0) | Err(_) => {}
        Ok(1) => anstream::println!("  Removed a copy of the key ring that an interrupted change had left beside it."),
        Ok(n) => {
            anstream::println!("  Removed {n} copies of the key ring that interrupted changes had left beside it.");
        }
    }
    for line in description::lines(&config, &ring, &lists, args.verbose).into_iter().chain(state_lines(&config, &ring))
    {
        anstream::println!("  {line}");
    }
    for danger in &dangers {
        anstream::println!("{RED}danger:{RED:#} {danger}");
    }
    for warning in &warnings {
        anstream::println!("{YELLOW}warning:{YELLOW:#} {warning}");
    }
    let found = args.mta_config.as_ref().map(found).transpose()?;
    found.iter().for_each(MtaFindings::print);
    let fits = found.as_ref().is_none_or(MtaFindings::fits);
    result(&config, &dangers, fits && (warnings.is_empty() || !args.strict))
}

/// Prints whether a mail server's configuration fits a config, and returns it.
pub(super) fn mail_server(config: &Config, place: &Path) -> Result<bool> {
    let found = mta::find(config, place)?;
    found.print();
    Ok(found.fits())
}

/// The mistakes of a config that cannot be used, for scripts.
fn mistakes_as_json(mistakes: &[ConfigError]) -> serde_json::Value {
    let one = |it: &ConfigError| json!({"file": it.path, "line": it.line, "text": it.text});
    json!({"mistakes": mistakes.iter().map(one).collect::<Vec<_>>()})
}

/// Everything that was found, for scripts.
#[derive(Serialize)]
struct Findings<'a> {
    config: &'a Path,
    ring: &'a Path,
    dangers: &'a [String],
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_server: Option<MtaFindings>,
}

/// The result of the command.
fn result(config: &Config, dangers: &[String], is_good: bool) -> Result<bool> {
    match dangers.len() {
        0 => Ok(is_good),
        1 => bail!("{} has a dangerous setting; see above", config.path.display()),
        n => bail!("{} has {n} dangerous settings; see above", config.path.display()),
    }
}

/// How far the ramps are, and what the daemon says.
fn state_lines(config: &Config, ring: &Keyring) -> Vec<String> {
    let running = super::status::running(config);
    let daemon = super::status_client::daemon(config);
    // Only the daemon knows on which days signed mail has left.
    let known = running.as_ref().map(|report| report.ramps.clone()).or(daemon.ramps);
    let ramps = known.filter(|ramps| !ramps.is_empty()).unwrap_or_else(|| ramps(config, ring));
    let ramps = ramps.into_iter().map(|(name, state)| format!("  {name}: {state}"));
    let of_running = running.iter().flat_map(|report| of_the_daemon(report, config));
    ramps.chain(daemon.lines).chain(of_running).collect()
}

/// What only a running daemon knows.
fn of_the_daemon(report: &Report, config: &Config) -> Vec<String> {
    let mut lines = vec![super::status::compared(report, config)];
    if !report.aliases.is_empty() {
        let listed: Vec<String> = report.aliases.iter().map(|(result, count)| format!("{result} {count}")).collect();
        lines.push(format!("SRS aliases of long senders since the start: {}", listed.join(", ")));
    }
    lines.extend(report.catch_all.iter().map(|domain| {
        format!(
            "{YELLOW}catch-all{YELLOW:#}: {domain} accepts mail for unknown recipients. If that is not a catch-all mailbox, it is \
             bounced later to forged senders: see inbound.recipients"
        )
    }));
    lines
}

/// Whether this daemon signs outbound mail.
fn signs(config: &Config) -> bool {
    writes_evidence(config)
        || config.mta_services.iter().any(|mta_service| mta_service.protocol == ServiceProtocol::Socketmap)
}

/// The state of the ramp of each local domain, by the ring alone.
fn ramps(config: &Config, ring: &Keyring) -> Vec<(String, String)> {
    if config.policy.inbound.mode != InboundMode::Ramp {
        return Vec::new();
    }
    let rules = Rules::new(&config.policy, ring, now());
    let names = config.policy.domains.local.names();
    let one = |name: &String| {
        // `.our.example` stands for the domains below our.example.
        let domain = if name.starts_with('.') { format!("x{name}") } else { name.clone() };
        let ramp = rules.ramp(&domain);
        let since = ring.signing_since().get(name).filter(|_| ramp == Ramp::Enforcing);
        let since = since.map_or_else(String::new, |at| format!(", signed since {}", rfc3339(*at)));
        (name.clone(), format!("{}{since}", ramp_words::describe(&ramp, name, signs(config))))
    };
    names.iter().map(one).collect()
}
