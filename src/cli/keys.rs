//! `keys`: make, show and change the ring. What may be changed is `envelope::keyring`'s business, how it is written
//! `state::ring`'s.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::common_args::RingArgs;
use crate::cli::colours::{BOLD, DIM, GREEN, YELLOW};
use crate::config::Config;
use crate::envelope::address::canonical_domain;
use crate::envelope::keyring::{Algorithm, Key, KeyId, KeyState, Keyring, NewKey, Purpose, Secret};
use crate::envelope::site_policy::SiteDomains;
use crate::envelope::tag::batv::MacLength;
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};
use crate::state::ring::{self, Changed, Secrets, rfc3339};

/// `countersign keys …`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
One host: `keys rotate` twice a year. Several hosts: `keys add`, copy the ring to all of them,
then `keys promote`, and copy again. Old keys go on verifying until `keys list` says that they
are not needed; then `keys retire` and `keys prune`.")]
pub(super) enum Keys {
    /// Make a ring with one key, which signs
    Init(RingChoice),
    /// Show the keys: state, age, algorithm, and until when each is needed
    List {
        #[command(flatten)]
        common: RingChoice,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Add a key that verifies and does not sign yet
    Add(RingChoice),
    /// Make a key sign; the one before it goes on verifying
    Promote(WithId),
    /// Add a key and make it sign at once
    Rotate(RingChoice),
    /// End a key: its tags answer `expired` from now on
    Retire {
        #[command(flatten)]
        key: WithId,
        /// Although bounces to mail signed with it may still come back: for a key that leaked
        #[arg(long)]
        force: bool,
    },
    /// Remove retired keys that no living tag needs
    Prune {
        #[command(flatten)]
        common: RingChoice,
        /// Only this one
        id: Option<String>,
    },
    /// Take over the secret of another program, so that its tags keep verifying
    Import(Import),
    /// Print the ring without its secrets
    Export {
        #[command(flatten)]
        common: RingChoice,
        /// With its secrets: whoever sees the output can sign
        #[arg(long)]
        reveal_secrets: bool,
        /// Into a new file that only its owner can read; `> FILE` makes one that others can read, too
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Write down that mail of a domain is signed from now on, on every path: its ramp begins
    #[command(after_help = RAMP_EXAMPLES)]
    RampStart {
        #[command(flatten)]
        common: RingChoice,
        /// Begin anew: some of its mail has left unsigned since
        #[arg(long)]
        again: bool,
        /// The local domain, as the config names it
        domain: String,
    },
    /// Take that back: the domain is observed until its ramp begins anew
    RampStop {
        #[command(flatten)]
        common: RingChoice,
        /// The local domain, as the config names it
        domain: String,
    },
}

const RAMP_EXAMPLES: &str = "\
With inbound.mode = \"ramp\" the daemon that signs the first mail of a domain
writes this down by itself. It has to be done by hand where another program
signs, or where the daemon may not write the ring.

It is observed for the longer of batv.lifetime and batv.queue_lifetime, then
enforced; --at names an earlier beginning. The earliest one counts.

Examples:
  countersign keys ramp-start our.example
  countersign keys ramp-start --again our.example    a host has sent unsigned mail";

/// The ring that is meant.
#[derive(Debug, Args)]
pub(super) struct RingChoice {
    #[command(flatten)]
    ring: RingArgs,
}

/// A ring, and a key in it.
#[derive(Debug, Args)]
pub(super) struct WithId {
    #[command(flatten)]
    ring: RingArgs,
    /// The key's id, as `keys list` shows it
    id: String,
}

/// `countersign keys import`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign keys import --from postsrsd --sign /etc/postsrsd.secret
  countersign keys import --from exim --id 0 prvs.secret")]
pub(super) struct Import {
    #[command(flatten)]
    ring: RingArgs,
    /// Whose secret it is
    #[arg(long, value_parser = ["exim", "batv-tools", "postsrsd1", "postsrsd", "libsrs2", "mail-srs", "pysrs", "exim-srs"])]
    from: String,
    /// Its id: a digit for prvs keys [default: 0], a name for SRS secrets [default: the program and a number]
    #[arg(long)]
    id: Option<String>,
    /// Let it make the tags of its scheme, too, as the program did
    #[arg(long)]
    sign: bool,
    /// Characters of hash that the program writes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=27))]
    hash_length: Option<u8>,
    /// Fewest characters of hash that it takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=27))]
    hash_min: Option<u8>,
    /// Days that its addresses live
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=1023))]
    max_age: Option<u16>,
    /// Although a secret has fewer than 8 octets and can be guessed
    #[arg(long)]
    force: bool,
    /// The file with the secret; SRS programs: one a line, the first is the one that signs
    file: PathBuf,
}

/// A ring file, what new keys sign with, and the moment.
struct RingTarget {
    path: PathBuf,
    lifetime: u16,
    srs_lifetime: u16,
    short_tags: bool,
    /// How long a ramp takes.
    ramp_days: u16,
    /// What the config calls ours, where there is one.
    domains: Option<SiteDomains>,
    now: Timestamp,
}

impl RingTarget {
    fn knows(&self, domain: &str) -> bool {
        let name = domain.strip_prefix('.').map_or_else(|| domain.to_owned(), |parent| format!("x.{parent}"));
        self.domains.as_ref().is_none_or(|domains| domains.local.contains(&name) || domains.srs.contains(&name))
    }

    fn of(args: &RingArgs) -> Result<Self> {
        let config: Option<Config> = args.config()?;
        let (batv, srs) = config.as_ref().map(|c| (c.policy.batv, c.policy.srs)).unwrap_or_default();
        let queue = config.as_ref().map_or(5, |c| c.policy.inbound.queue_lifetime);
        Ok(Self {
            path: args.ring_path(config.as_ref()),
            ramp_days: batv.lifetime.max(queue),
            domains: config.map(|c| c.policy.domains),
            lifetime: batv.lifetime,
            srs_lifetime: srs.lifetime,
            short_tags: batv.mac == MacLength::Short,
            now: args.now(),
        })
    }

    /// The same for a command that changes the ring. It says which ring where the user has not named it: the one that is in
    /// use on this machine is easily taken for one in the current folder.
    fn to_change(args: &RingArgs) -> Result<Self> {
        let target = Self::of(args)?;
        if let Some(config) = args.config_by_default() {
            anstream::eprintln!(
                "{YELLOW}note:{YELLOW:#} the key ring is {}, named by {}",
                target.path.display(),
                config.display()
            );
        }
        Ok(target)
    }

    fn key(&self, algorithm: Algorithm, secret: Secret) -> NewKey {
        let (lifetime, srs_lifetime) = (self.lifetime, self.srs_lifetime);
        NewKey { algorithm, secret, lifetime, srs_lifetime, short_tags: self.short_tags }
    }

    fn new_key(&self) -> Result<NewKey> {
        Ok(self.key(Algorithm::HmacSha256, new_secret()?))
    }

    /// Makes the folder of a ring that is to be made.
    fn make_folder(&self) -> Result<()> {
        match self.path.parent() {
            Some(folder) => fs::create_dir_all(folder).with_context(|| format!("{}", folder.display())),
            None => Ok(()),
        }
    }
}

/// The secret of a new own key: 32 octets from the system.
fn new_secret() -> Result<Secret> {
    let mut octets = Zeroizing::new(vec![0; 32]);
    getrandom::fill(&mut octets).map_err(|e| anyhow::anyhow!("the system gives no random octets: {e}"))?;
    Ok(Secret::new(octets))
}

/// A new own key as a config without a word about lifetimes would make it.
pub(super) fn new_own_key() -> Result<NewKey> {
    let (algorithm, secret) = (Algorithm::HmacSha256, new_secret()?);
    Ok(NewKey { algorithm, secret, lifetime: 7, srs_lifetime: 21, short_tags: true })
}

/// What `keys rotate` does, without a word.
pub(super) fn rotate_quietly(path: &Path) -> Result<KeyId> {
    let key = new_own_key()?;
    Ok(ring::update(path, |ring| ring.rotate(key, super::common_args::now()).map(Changed::Yes))?)
}

/// Runs a subcommand. Refusals come back as errors.
pub(super) fn run(command: Keys) -> Result<bool> {
    match command {
        Keys::Init(common) => init(&RingTarget::to_change(&common.ring)?)?,
        Keys::List { common, json } => list(&RingTarget::of(&common.ring)?, json)?,
        Keys::Add(common) => {
            let target = RingTarget::to_change(&common.ring)?;
            let key = target.new_key()?;
            let id = ring::update(&target.path, |ring| ring.add(key, target.now).map(Changed::Yes))?;
            say(&format!(
                "Key {id} is in the ring and verifies. When every host has it: countersign keys promote {id}"
            ));
        }
        Keys::Promote(key) => {
            let (target, id) = (RingTarget::to_change(&key.ring)?, key_id(&key.id)?);
            ring::update(&target.path, |ring| {
                ring.promote(&id, target.now)?;
                ring.raise(target.lifetime, target.srs_lifetime, target.short_tags);
                Ok(Changed::Yes(()))
            })?;
            say(&format!("Key {id} signs from now on."));
        }
        Keys::Rotate(common) => rotate(&RingTarget::to_change(&common.ring)?)?,
        Keys::Retire { key, force } => retire(&RingTarget::to_change(&key.ring)?, &key_id(&key.id)?, force)?,
        Keys::Prune { common, id } => prune(&RingTarget::to_change(&common.ring)?, id.as_deref())?,
        Keys::Import(args) => import(&args)?,
        Keys::Export { common, reveal_secrets, to } => {
            let target = RingTarget::of(&common.ring)?;
            let secrets = if reveal_secrets { Secrets::Revealed } else { Secrets::Hidden };
            let ring = ring::load(&target.path)?;
            match to {
                Some(to) => ring::export(&to, &ring, secrets)?,
                None => anstream::print!("{}", *ring::to_text(&ring, secrets)),
            }
        }
        Keys::RampStart { common, again, domain } => ramp_start(&RingTarget::to_change(&common.ring)?, &domain, again)?,
        Keys::RampStop { common, domain } => ramp_stop(&RingTarget::to_change(&common.ring)?, &domain)?,
    }
    Ok(true)
}

fn say(text: &str) {
    anstream::println!("{text}");
}

fn key_id(text: &str) -> Result<KeyId> {
    KeyId::parse(text).with_context(|| format!("`{text}` is no key id; countersign keys list shows them"))
}

fn init(target: &RingTarget) -> Result<()> {
    target.make_folder()?;
    let ring = Keyring::create(target.new_key()?, target.now)?;
    ring::create(&target.path, &ring)?;
    say(&format!("Wrote {}: key 1 signs from now on.", target.path.display()));
    Ok(())
}

fn rotate(target: &RingTarget) -> Result<()> {
    let key = target.new_key()?;
    let (id, before) = ring::update(&target.path, |ring| {
        let before = ring.own_signer().map(|k| k.id.clone());
        let id = ring.rotate(key, target.now)?;
        Ok(Changed::Yes((id, before)))
    })?;
    let before = before.map_or(String::new(), |b| format!(" Key {b} goes on verifying what it signed."));
    say(&format!("Key {id} signs from now on.{before}"));
    Ok(())
}

fn retire(target: &RingTarget, id: &KeyId, force: bool) -> Result<()> {
    let lost = ring::update(&target.path, |ring| {
        let until = ring.key(id).and_then(Key::needed_until);
        ring.retire(id, target.now, force)?;
        Ok(Changed::Yes(until.filter(|until| *until > target.now)))
    })?;
    match lost {
        Some(until) => say(&format!(
            "Key {id} is retired. Bounces to mail signed with it are refused from now on; genuine ones could have come until {}.",
            rfc3339(until)
        )),
        None => say(&format!("Key {id} is retired. Remove it with: countersign keys prune")),
    }
    Ok(())
}

fn prune(target: &RingTarget, id: Option<&str>) -> Result<()> {
    let id = id.map(key_id).transpose()?;
    let pruned = ring::update(&target.path, |ring| {
        let pruned = ring.prune(id.as_ref(), target.now)?;
        Ok(if pruned.is_empty() { Changed::No(pruned) } else { Changed::Yes(pruned) })
    })?;
    let names: Vec<String> = pruned.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        say("Nothing to remove: no retired key is free to go.");
    } else {
        say(&format!("Removed: {}", names.join(", ")));
    }
    Ok(())
}

fn ramp_start(target: &RingTarget, domain: &str, again: bool) -> Result<()> {
    let domain = ramp_domain(domain)?;
    if target.now > super::common_args::now() {
        anstream::eprintln!("{YELLOW}warning:{YELLOW:#} {} is in the future", rfc3339(target.now));
    }
    let (since, changed) = ring::update(&target.path, |ring| {
        let stopped = again && ring.ramp_stop(&domain, target.now);
        let changed = ring.ramp_start(&domain, target.now) || stopped;
        let since = ring.signing_since().get(&domain).copied().unwrap_or(target.now);
        Ok(if changed { Changed::Yes((since, true)) } else { Changed::No((since, false)) })
    })?;
    let until = Timestamp(since.0 + i64::from(target.ramp_days) * SECONDS_PER_DAY);
    let then = if until <= super::common_args::now() { "it is enforced now" } else { "it is observed until" };
    let date = if until <= super::common_args::now() { String::new() } else { format!(" {}", rfc3339(until)) };
    let already = if changed { "" } else { " already (--again begins anew)" };
    say(&format!(
        "Mail of {domain} counts as signed since {}{already}; where inbound.mode is \"ramp\", {then}{date}.",
        rfc3339(since)
    ));
    if !target.knows(&domain) {
        anstream::eprintln!(
            "{YELLOW}warning:{YELLOW:#} the config does not name {domain} in domains.local or as srs_domain, so nothing asks for it; take it back with: countersign keys ramp-stop {domain}"
        );
    }
    Ok(())
}

fn ramp_stop(target: &RingTarget, domain: &str) -> Result<()> {
    let domain = ramp_domain(domain)?;
    let stopped = ring::update(&target.path, |ring| {
        let stopped = ring.ramp_stop(&domain, Timestamp(i64::MAX));
        Ok(if stopped { Changed::Yes(true) } else { Changed::No(false) })
    })?;
    if stopped {
        say(&format!(
            "{domain} is observed until its ramp begins anew: with the next mail that leaves signed, or by ramp-start."
        ));
    } else {
        say(&format!("The ring says nothing about {domain}."));
    }
    Ok(())
}

/// A domain as the ring names it: `.our.example` for what is below it.
fn ramp_domain(domain: &str) -> Result<String> {
    let below = domain.strip_prefix("*.").map(|parent| format!(".{parent}"));
    let domain = canonical_domain(below.as_deref().unwrap_or(domain)).into_owned();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if domain.trim_matches('.').is_empty() || !domain.bytes().all(plain) {
        bail!("`{domain}` is no domain name; write it as domains.local does");
    }
    Ok(domain)
}

fn import(args: &Import) -> Result<()> {
    let target = RingTarget::to_change(&args.ring)?;
    let algorithm = Algorithm::from_name(&args.from).context("unknown program")?;
    let secrets = read_secrets(&args.file, algorithm, args.force).with_context(|| args.file.display().to_string())?;
    let id = args.id.as_deref().map(key_id).transpose()?;
    if id.is_some() && secrets.len() > 1 {
        bail!("{} holds {} secrets; leave --id away, each gets a name of its own", args.file.display(), secrets.len());
    }
    let mut limits = algorithm.srs_limits();
    limits.hash_length = args.hash_length.unwrap_or(limits.hash_length);
    limits.hash_min = args.hash_min.unwrap_or(limits.hash_length);
    limits.max_age = args.max_age.unwrap_or(limits.max_age);
    if limits.hash_min > limits.hash_length {
        bail!("--hash-min {} is more than the hash length {}", limits.hash_min, limits.hash_length);
    }
    if !target.path.exists() {
        init(&target)?;
    }
    let imported = ring::update(&target.path, |ring| {
        let mut ids = Vec::new();
        for (i, secret) in secrets.into_iter().enumerate() {
            let id = match (&id, algorithm.purpose()) {
                (Some(id), _) => id.clone(),
                (None, Purpose::Srs) => ring.free_name(algorithm),
                (None, Purpose::All | Purpose::Batv) => KeyId::Digit(0),
            };
            ring.import(target.key(algorithm, secret), &id, limits, args.sign && i == 0, target.now)?;
            ids.push(id.to_string());
        }
        Ok(Changed::Yes(ids))
    })?;
    let does = match (args.sign, algorithm.purpose()) {
        (false, _) => "verifies".to_owned(),
        (true, purpose) => format!("signs {} from now on", purpose.name()),
    };
    let (first, rest) = imported.split_first().context("the file is empty")?;
    let rest = if rest.is_empty() { String::new() } else { format!(", {} verifies", rest.join(", ")) };
    say(&format!("Key {first} of {} {does}{rest}.", algorithm.name()));
    Ok(())
}

/// The fewest octets of a secret that is imported without a word: below, all of them can be tried.
const MIN_SECRET: usize = 8;

/// The secrets of a file: SRS programs have one a line, the others one. Blanks are none.
fn read_secrets(path: &PathBuf, algorithm: Algorithm, force: bool) -> Result<Vec<Secret>> {
    let octets = Zeroizing::new(fs::read(path)?);
    let lines: Vec<&[u8]> = match algorithm.purpose() {
        Purpose::Srs => octets.split(|&b| b == b'\n').collect(),
        Purpose::All | Purpose::Batv => vec![octets.strip_suffix(b"\n").unwrap_or(&octets)],
    };
    let mut secrets = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if line.len() < MIN_SECRET && !force {
            bail!(
                "line {}: the secret is {} octets long, and one below {MIN_SECRET} can be guessed; if it is in use, add --force",
                at + 1,
                line.len()
            );
        }
        secrets.push(Secret::new(Zeroizing::new(line.to_vec())));
    }
    if secrets.is_empty() {
        bail!("there is no secret in the file");
    }
    Ok(secrets)
}

fn list(target: &RingTarget, as_json: bool) -> Result<()> {
    let ring = ring::load(&target.path)?;
    if as_json {
        for key in ring.keys() {
            anstream::println!(
                "{}",
                json!({
                    "id": key.id.to_string(), "state": key.state.name(), "algorithm": key.algorithm.name(),
                    "purpose": key.algorithm.purpose().name(), "created": rfc3339(key.created),
                    "needed_until": key.needed_until().map(rfc3339),
                })
            );
        }
        for (domain, since) in ring.signing_since() {
            anstream::println!("{}", json!({"domain": domain, "signed_since": rfc3339(*since)}));
        }
        return Ok(());
    }
    let width = ring.keys().iter().map(|k| k.id.to_string().len()).max().unwrap_or(0).max(2);
    anstream::println!(
        "{BOLD}{:width$}  {:9}  {:11}  {:4}  {:>8}  NEEDED{BOLD:#}",
        "ID",
        "STATE",
        "ALGORITHM",
        "FOR",
        "AGE"
    );
    for key in ring.keys() {
        let style = match key.state {
            KeyState::Signing => GREEN,
            KeyState::Next => YELLOW,
            KeyState::Verifying => anstyle::Style::new(),
            KeyState::Retired => DIM,
        };
        let (state, algorithm, purpose) = (key.state.name(), key.algorithm.name(), key.algorithm.purpose().name());
        let (age, needed) = (age(key.created, target.now), needed(key, target.now));
        let id = key.id.to_string();
        anstream::println!("{id:width$}  {style}{state:9}{style:#}  {algorithm:11}  {purpose:4}  {age:>8}  {needed}");
    }
    for (domain, since) in ring.signing_since() {
        anstream::println!("{DIM}mail of {domain} is signed since {}{DIM:#}", rfc3339(*since));
    }
    Ok(())
}

fn age(created: Timestamp, now: Timestamp) -> String {
    match now.0.saturating_sub(created.0) {
        ..0 => "not yet".into(),
        s @ 0..3600 => format!("{} min", s / 60),
        s @ 3600..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

fn needed(key: &Key, now: Timestamp) -> String {
    match (key.state, key.needed_until()) {
        (KeyState::Next, _) => "until it has signed".into(),
        (KeyState::Signing, _) | (_, None) => "while it signs".into(),
        (KeyState::Verifying, Some(until)) if until <= now => "no more: retire it".into(),
        (KeyState::Retired, Some(until)) if until <= now => "no more: prune it".into(),
        (KeyState::Verifying, Some(until)) => format!("until {}", rfc3339(until)),
        (KeyState::Retired, Some(until)) => format!("kept until {}", rfc3339(until)),
    }
}
