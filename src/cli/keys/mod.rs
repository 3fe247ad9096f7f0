//! `keys`: creates, shows and changes the key ring. `envelope::keyring` decides which changes are valid, and
//! `state::ring_file` writes them.

mod import;
mod list;
mod ramp;
mod target;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use self::import::{Import, import};
use self::list::list;
pub(super) use self::ramp::ramp_domain;
use self::ramp::{ramp_start, ramp_stop};
pub(super) use self::target::{RingChoice, RingTarget, new_own_key, rotate_quietly};
use self::target::{WithId, init, key_id, say};
use crate::envelope::keyring::{Key, KeyId};
use crate::state::ring_file::{self, Changed};
use crate::state::ring_text::{self, Secrets};
use crate::state::time_format::rfc3339;

/// `countersign keys …`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
One host: `keys rotate` twice a year. Several hosts: `keys add`, copy the ring to all of them,
then `keys promote`, and copy again. Old keys go on verifying until `keys list` says that they
are not needed; then `keys retire` and `keys prune`.")]
pub(super) enum Keys {
    /// Create a ring with one key, which signs
    Init(RingChoice),
    /// Show the keys: state, age, algorithm, and until when each is needed
    List {
        #[command(flatten)]
        common: RingChoice,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Add a key that verifies, but does not sign yet
    Add(RingChoice),
    /// Make a key sign; the previous key still verifies
    Promote(WithId),
    /// Add a key and make it sign at once
    Rotate(RingChoice),
    /// Retire a key: its tags are `expired` from now on
    Retire {
        #[command(flatten)]
        key: WithId,
        /// Retire it even if genuine bounces to its tags may still arrive: for a key that leaked
        #[arg(long)]
        force: bool,
    },
    /// Remove retired keys whose tags have all expired
    Prune {
        #[command(flatten)]
        common: RingChoice,
        /// Only this key
        id: Option<String>,
    },
    /// Import the secret of another program, so that its tags stay valid
    Import(Import),
    /// Print the ring without its secrets
    Export {
        #[command(flatten)]
        common: RingChoice,
        /// Include the secrets: everyone who sees the output can sign
        #[arg(long)]
        reveal_secrets: bool,
        /// Write to a new file that only its owner can read; `> FILE` may create one that others can read
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Record that all mail of a domain is signed from now on: its ramp begins
    #[command(after_help = RAMP_EXAMPLES)]
    RampStart {
        #[command(flatten)]
        common: RingChoice,
        /// Begin again, because some of its mail has left unsigned since
        #[arg(long)]
        again: bool,
        /// The local domain, as the config names it
        domain: String,
    },
    /// Remove that record: the domain is observed until its ramp begins again
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

/// Runs a subcommand. A change that the ring refuses is an error.
pub(super) fn run(command: Keys) -> Result<bool> {
    match command {
        Keys::Init(common) => init(&RingTarget::to_change(&common.ring)?)?,
        Keys::List { common, json } => list(&RingTarget::of(&common.ring)?, json)?,
        Keys::Add(common) => {
            let target = RingTarget::to_change(&common.ring)?;
            let key = target.new_key()?;
            let id = ring_file::update(&target.path, |ring| ring.add(key, target.now).map(Changed::Yes))?;
            say(&format!(
                "Key {id} is in the ring and verifies. When every host has it: countersign keys promote {id}"
            ));
        }
        Keys::Promote(key) => {
            let (target, id) = (RingTarget::to_change(&key.ring)?, key_id(&key.id)?);
            ring_file::update(&target.path, |ring| {
                ring.promote(&id, target.now)?;
                ring.record_lifetimes(target.lifetime, target.srs_lifetime, target.short_tags);
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
            let ring = ring_file::load(&target.path)?;
            match to {
                Some(to) => ring_file::export(&to, &ring, secrets)?,
                None => anstream::print!("{}", *ring_text::to_text(&ring, secrets)),
            }
        }
        Keys::RampStart { common, again, domain } => ramp_start(&RingTarget::to_change(&common.ring)?, &domain, again)?,
        Keys::RampStop { common, domain } => ramp_stop(&RingTarget::to_change(&common.ring)?, &domain)?,
    }
    Ok(true)
}

fn rotate(target: &RingTarget) -> Result<()> {
    let key = target.new_key()?;
    let (id, before) = ring_file::update(&target.path, |ring| {
        let before = ring.own_signer().map(|k| k.id.clone());
        let id = ring.rotate(key, target.now)?;
        Ok(Changed::Yes((id, before)))
    })?;
    let before = before.map_or(String::new(), |b| format!(" Key {b} goes on verifying what it signed."));
    say(&format!("Key {id} signs from now on.{before}"));
    Ok(())
}

fn retire(target: &RingTarget, id: &KeyId, force: bool) -> Result<()> {
    let lost = ring_file::update(&target.path, |ring| {
        let until = ring.key(id).and_then(Key::needed_until);
        ring.retire(id, target.now, force)?;
        Ok(Changed::Yes(until.filter(|until| *until > target.now)))
    })?;
    match lost {
        Some(until) => say(&format!(
            "Key {id} is retired. Bounces to mail signed with it are refused from now on (where a domain is observed, marked); genuine ones could have come until {}.",
            rfc3339(until)
        )),
        None => say(&format!("Key {id} is retired. Remove it with: countersign keys prune")),
    }
    Ok(())
}

fn prune(target: &RingTarget, id: Option<&str>) -> Result<()> {
    let id = id.map(key_id).transpose()?;
    let pruned = ring_file::update(&target.path, |ring| {
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
