//! `keys list`: prints the state of each key, and until when it is needed.

use anyhow::Result;
use serde_json::json;

use super::target::RingTarget;
use crate::cli::colours::{BOLD, DIM, GREEN, YELLOW};
use crate::envelope::keyring::{Key, KeyState};
use crate::envelope::time::Timestamp;
use crate::state::ring_file;
use crate::state::time_format::rfc3339;

pub(super) fn list(target: &RingTarget, as_json: bool) -> Result<()> {
    let ring = ring_file::load(&target.path)?;
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
