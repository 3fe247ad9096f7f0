//! `keys import`: adds the secrets of another program to the ring.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use zeroize::Zeroizing;

use super::target::{RingTarget, init, key_id, say};
use crate::cli::common_args::RingArgs;
use crate::envelope::keyring::{Algorithm, KeyId, Purpose, Secret};
use crate::state::ring_file::{self, Changed};

/// `countersign keys import`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign keys import --from postsrsd --sign /etc/postsrsd.secret
  countersign keys import --from exim --id 0 prvs.secret")]
pub(crate) struct Import {
    #[command(flatten)]
    ring: RingArgs,
    /// The program that the secret comes from
    #[arg(long, value_parser = ["exim", "batv-tools", "postsrsd1", "postsrsd", "libsrs2", "mail-srs", "pysrs", "exim-srs"])]
    from: String,
    /// The key id: a digit for prvs keys [default: 0], a name for SRS secrets [default: the program and a number]
    #[arg(long)]
    id: Option<String>,
    /// Sign with it, too, as the program did
    #[arg(long)]
    sign: bool,
    /// Length of the hash that the program writes, in characters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=27))]
    hash_length: Option<u8>,
    /// Shortest hash that it accepts, in characters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=27))]
    hash_min: Option<u8>,
    /// Lifetime of its addresses, in days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=1023))]
    max_age: Option<u16>,
    /// Import secrets of fewer than 8 octets, which can be guessed
    #[arg(long)]
    force: bool,
    /// The file with the secret; for SRS programs one per line, and the first one signs
    file: PathBuf,
}

pub(super) fn import(args: &Import) -> Result<()> {
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
    let imported = ring_file::update(&target.path, |ring| {
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

/// The shortest secret, in octets, that is imported without `--force`. Shorter ones can be found by trying all of them.
const MIN_SECRET: usize = 8;

/// The secrets in a file: SRS programs have one per line, the others one per file. Blank lines are skipped.
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
