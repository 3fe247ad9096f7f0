//! Arguments of several subcommands: the config or the options that replace it, the key ring, and the time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::config::{Config, ConfigError};
use crate::envelope::keyring::Keyring;
use crate::envelope::match_lists::{AddressSet, AliasDomains};
use crate::envelope::site_policy::{InboundMode, Policy};
use crate::envelope::time::Timestamp;
use crate::state;

/// The default paths of the config. The first file that exists is used.
const CONFIG_PLACES: [&str; 2] = [CONFIG_HERE, "/etc/countersign/countersign.toml"];
/// The config in the current folder. No note is printed if it is used.
const CONFIG_HERE: &str = "countersign.toml";
/// The environment variable that replaces [`CONFIG_PLACES`]: file names, separated by colons.
const CONFIG_PATH: &str = "COUNTERSIGN_CONFIG_PATH";
/// The path of the ring if neither an option nor a config names one.
const RING_PLACE: &str = "keys/ring.toml";

/// The key ring, and the moment.
#[derive(Debug, Args)]
pub(super) struct RingArgs {
    /// Config file [default: countersign.toml here, then /etc/countersign/countersign.toml; or the files in
    /// COUNTERSIGN_CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Key ring [default: the config's, else keys/ring.toml]
    #[arg(long, value_name = "FILE")]
    pub ring: Option<PathBuf>,
    /// Use this time instead of now: RFC 3339 (2026-11-22T12:00:00Z) or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    pub at: Option<Timestamp>,
}

impl RingArgs {
    /// The config: the named one, or the first at the default paths; `None` if there is none.
    pub(super) fn config(&self) -> Result<Option<Config>> {
        find_config(self.config.as_deref())
    }

    /// The config that names the ring, if the user has named neither of them and it is not in the current folder.
    pub(super) fn config_by_default(&self) -> Option<PathBuf> {
        let by_default = self.ring.is_none() && self.config.is_none();
        by_default.then(default_config).flatten().filter(|path| path != Path::new(CONFIG_HERE))
    }

    /// The path of the key ring.
    pub(super) fn ring_path(&self, config: Option<&Config>) -> PathBuf {
        let configured = || config.map(|c| c.ring.clone());
        self.ring.clone().or_else(configured).unwrap_or_else(|| RING_PLACE.into())
    }

    /// The time given by `--at`, or now.
    pub(super) fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(now)
    }
}

/// The switches that make `sign` and `verify` work without a config.
#[derive(Debug, Args)]
pub(super) struct SiteArgs {
    #[command(flatten)]
    pub ring: RingArgs,
    /// A local domain (repeatable); instead of a config
    #[arg(long, value_name = "DOMAIN")]
    local: Vec<String>,
    /// The domain of SRS addresses; instead of a config
    #[arg(long, value_name = "DOMAIN")]
    srs_domain: Option<String>,
    /// Lifetime of a prvs tag, in days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=400))]
    lifetime: Option<u16>,
    /// The separator after SRS0 and SRS1
    #[arg(long, value_name = "CHAR", value_parser = ["=", "+", "-"])]
    srs_separator: Option<String>,
    /// Length of the hash in SRS addresses, in characters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=52))]
    srs_hash_length: Option<u8>,
    /// Shortest hash that is accepted, in characters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=52))]
    srs_hash_min: Option<u8>,
    /// Lifetime of an SRS address, in days; for an own key, at least the lifetime set when the key was created
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=1023))]
    srs_max_age: Option<u16>,
    /// Also rewrite senders that are already in the SRS domain
    #[arg(long)]
    always_rewrite: bool,
}

/// The policy, keys and time with which the rules are queried.
pub(super) struct RuleContext {
    pub policy: Policy,
    pub ring: Keyring,
    pub now: Timestamp,
}

impl SiteArgs {
    /// Loads config, options and key ring.
    pub(super) fn load(&self) -> Result<RuleContext> {
        let by_switches = !self.local.is_empty() || self.srs_domain.is_some();
        // Options that name domains replace the config, unless a config is named, too.
        let config = if by_switches && self.ring.config.is_none() { None } else { self.ring.config()? };
        let mut policy = match &config {
            Some(config) => config.policy.clone(),
            None if by_switches => default_policy(),
            None => bail!(
                "which domains are yours? Name them with --local our.example (and --srs-domain), or a config with -c FILE"
            ),
        };
        self.apply(&mut policy)?;
        let ring = state::ring_file::load(&self.ring.ring_path(config.as_ref()))?;
        Ok(RuleContext { policy, ring, now: self.ring.now() })
    }

    fn apply(&self, policy: &mut Policy) -> Result<()> {
        for name in &self.local {
            policy.domains.local.insert(name);
        }
        if let Some(alias) = &self.srs_domain {
            policy.domains.srs = AliasDomains::one(alias);
        }
        let srs = &mut policy.srs;
        if let Some(days) = self.lifetime {
            policy.batv.lifetime = days;
        }
        if let Some(separator) = self.srs_separator.as_ref().and_then(|s| s.chars().next()) {
            srs.separator = separator;
        }
        if let Some(length) = self.srs_hash_length {
            (srs.hash_length, srs.hash_min, srs.peer_hash_length) = (length, length, Some(length));
        }
        if let Some(min) = self.srs_hash_min {
            (srs.hash_min, srs.peer_hash_min) = (min, Some(min));
        }
        if let Some(days) = self.srs_max_age {
            (srs.lifetime, srs.peer_max_age) = (days, Some(days));
        }
        srs.always_rewrite |= self.always_rewrite;
        Ok(())
    }
}

/// The policy of a config that sets only the domains, but with false bounces enforced.
pub(super) fn default_policy() -> Policy {
    let mut policy = Policy::default();
    policy.outbound.exempt_senders = AddressSet::from_iter(["double-bounce@", "postmaster@"]);
    policy.inbound.mode = InboundMode::Enforce;
    (policy.inbound.evidence, policy.outbound.evidence) = (true, true);
    policy.inbound.exempt_recipients = AddressSet::from_iter(["postmaster@", "abuse@"]);
    policy.inbound.daemon_senders =
        AddressSet::from_iter(["mailer-daemon@", "postmaster@", "mail-daemon@", "double-bounce@"]);
    policy
}

/// The named config, or the first at the default paths.
pub(super) fn find_config(named: Option<&Path>) -> Result<Option<Config>> {
    let place = named.map(Path::to_owned).or_else(default_config);
    place.as_deref().map(Config::load).transpose().map_err(|first| Mistakes::of(first).into())
}

/// All mistakes of a config file, one a line.
#[derive(Debug)]
pub(super) struct Mistakes(pub Vec<ConfigError>);

impl Mistakes {
    /// The first mistake is known; the file is read again for the others.
    fn of(first: ConfigError) -> Self {
        let text = std::fs::read_to_string(&first.path).unwrap_or_default();
        let all = Config::mistakes(&first.path, &text);
        // A file that cannot be read, or that was changed meanwhile.
        Self(if all.contains(&first) { all } else { vec![first] })
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// The first existing file at the default paths of the config.
fn default_config() -> Option<PathBuf> {
    match std::env::var_os(CONFIG_PATH) {
        Some(places) => std::env::split_paths(&places).find(|path| path.is_file()),
        None => CONFIG_PLACES.iter().map(PathBuf::from).find(|path| path.exists()),
    }
}

/// The current time of this machine.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
}

fn parse_time(text: &str) -> Result<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        // Times more than 34,800 years from 1970 are rejected.
        return if seconds.unsigned_abs() < 1 << 40 {
            Ok(Timestamp(seconds))
        } else {
            bail!("the time is out of range")
        };
    }
    let at: jiff::Timestamp = text.parse().ok().context("write 2026-11-22T12:00:00Z or seconds since 1970")?;
    Ok(Timestamp(at.as_second()))
}

/// A length of time in seconds, from a number with s, m, h or d.
///
/// # Errors
/// In words: it is not written so, or not above 0.
pub(super) fn span_of(text: &str) -> Result<i64, String> {
    let wrong = || "write a number with s, m, h or d, for example 24h".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<i64>().ok()).filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}
