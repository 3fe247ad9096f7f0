//! The key ring that a subcommand uses, and new keys for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use zeroize::Zeroizing;

use crate::cli::colours::YELLOW;
use crate::cli::common_args::{RingArgs, now};
use crate::config::Config;
use crate::envelope::keyring::{Algorithm, KeyId, Keyring, NewKey, Secret};
use crate::envelope::site_policy::Policy;
use crate::envelope::tag::batv::MacLength;
use crate::envelope::time::Timestamp;
use crate::state::ownership::give_as_folder;
use crate::state::ring_file::{self, Changed};

/// The ring that is meant.
#[derive(Debug, Args)]
pub(crate) struct RingChoice {
    #[command(flatten)]
    pub ring: RingArgs,
}

/// A ring, and a key in it.
#[derive(Debug, Args)]
pub(crate) struct WithId {
    #[command(flatten)]
    pub ring: RingArgs,
    /// The key's id, as `keys list` shows it
    pub id: String,
}

/// A ring file, the properties of new keys, and the time.
pub(crate) struct RingTarget {
    pub path: PathBuf,
    pub lifetime: u16,
    pub srs_lifetime: u16,
    pub short_tags: bool,
    /// The length of a ramp, in days.
    pub ramp_days: u16,
    /// The policy of the site, if there is a config.
    pub policy: Option<Policy>,
    pub now: Timestamp,
}

impl RingTarget {
    pub(crate) fn knows(&self, domain: &str) -> bool {
        let name = self.name_in(domain);
        let domains = self.policy.as_ref().map(|policy| &policy.domains);
        domains.is_none_or(|domains| domains.local.contains(&name) || domains.srs.contains(&name))
    }

    /// A domain that an entry includes: `.our.example` stands for the domains below our.example.
    pub(crate) fn name_in(&self, entry: &str) -> String {
        entry.strip_prefix('.').map_or_else(|| entry.to_owned(), |parent| format!("x.{parent}"))
    }

    pub(super) fn of(args: &RingArgs) -> Result<Self> {
        let config: Option<Config> = args.config()?;
        let (batv, srs) = config.as_ref().map(|c| (c.policy.batv, c.policy.srs)).unwrap_or_default();
        let queue = config.as_ref().map_or(5, |c| c.policy.inbound.queue_lifetime);
        Ok(Self {
            path: args.ring_path(config.as_ref()),
            ramp_days: batv.lifetime.max(queue),
            policy: config.map(|c| c.policy),
            lifetime: batv.lifetime,
            srs_lifetime: srs.lifetime,
            short_tags: batv.mac == MacLength::Short,
            now: args.now(),
        })
    }

    /// As `of`, for a command that changes the ring. If the user has not named the ring, its path is printed: it may be
    /// the ring that this machine's daemon uses, and not one in the current folder.
    pub(crate) fn to_change(args: &RingArgs) -> Result<Self> {
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

    pub(super) fn key(&self, algorithm: Algorithm, secret: Secret) -> NewKey {
        let (lifetime, srs_lifetime) = (self.lifetime, self.srs_lifetime);
        NewKey { algorithm, secret, lifetime, srs_lifetime, short_tags: self.short_tags }
    }

    pub(super) fn new_key(&self) -> Result<NewKey> {
        Ok(self.key(Algorithm::HmacSha256, new_secret()?))
    }

    /// Creates the folder of a new ring.
    pub(super) fn make_folder(&self) -> Result<()> {
        match self.path.parent() {
            Some(folder) => fs::create_dir_all(folder).with_context(|| format!("{}", folder.display())),
            None => Ok(()),
        }
    }
}

/// The secret of a new own key: 32 random octets from the system.
fn new_secret() -> Result<Secret> {
    let mut octets = Zeroizing::new(vec![0; 32]);
    getrandom::fill(&mut octets).map_err(|e| anyhow::anyhow!("the system gives no random octets: {e}"))?;
    Ok(Secret::new(octets))
}

/// A new own key with the default lifetimes: 7 days for tags, 21 days for SRS addresses.
pub(in crate::cli) fn new_own_key() -> Result<NewKey> {
    let (algorithm, secret) = (Algorithm::HmacSha256, new_secret()?);
    Ok(NewKey { algorithm, secret, lifetime: 7, srs_lifetime: 21, short_tags: true })
}

/// `keys rotate` without output.
pub(in crate::cli) fn rotate_quietly(path: &Path) -> Result<KeyId> {
    let key = new_own_key()?;
    Ok(ring_file::update(path, |ring| ring.rotate(key, now()).map(Changed::Yes))?)
}

pub(super) fn say(text: &str) {
    anstream::println!("{text}");
}

pub(super) fn key_id(text: &str) -> Result<KeyId> {
    KeyId::parse(text).with_context(|| format!("`{text}` is no key id; countersign keys list shows them"))
}

/// Creates a ring with one key.
pub(super) fn init(target: &RingTarget) -> Result<()> {
    target.make_folder()?;
    let ring = Keyring::create(target.new_key()?, target.now)?;
    ring_file::create(&target.path, &ring)?;
    let lock = target.path.with_extension("toml.lock");
    give_as_folder(&[&target.path, &lock]).with_context(|| target.path.display().to_string())?;
    say(&format!("Wrote {}: key 1 signs from now on.", target.path.display()));
    Ok(())
}
