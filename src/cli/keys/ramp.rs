//! `keys ramp-start` and `keys ramp-stop`: record since when the mail of a domain is signed.

use anyhow::{Result, bail};

use super::target::{RingTarget, say};
use crate::cli::colours::YELLOW;
use crate::cli::common_args::now;
use crate::envelope::address::canonical_domain;
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};
use crate::state::ring_file::{self, Changed};
use crate::state::time_format::rfc3339;

pub(super) fn ramp_start(target: &RingTarget, domain: &str, again: bool) -> Result<()> {
    let domain = ramp_domain(domain)?;
    if target.now > now() {
        anstream::eprintln!("{YELLOW}warning:{YELLOW:#} {} is in the future", rfc3339(target.now));
    }
    let (since, changed) = ring_file::update(&target.path, |ring| {
        let stopped = again && ring.ramp_stop(&domain, target.now);
        let changed = ring.ramp_start_by_hand(&domain, target.now) || stopped;
        let since = ring.signing_since().get(&domain).copied().unwrap_or(target.now);
        Ok(if changed { Changed::Yes((since, true)) } else { Changed::No((since, false)) })
    })?;
    let until = Timestamp(since.0 + i64::from(target.ramp_days) * SECONDS_PER_DAY);
    let then = if until <= now() { "it is enforced now" } else { "it is observed until" };
    let date = if until <= now() { String::new() } else { format!(" {}", rfc3339(until)) };
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

pub(super) fn ramp_stop(target: &RingTarget, domain: &str) -> Result<()> {
    let domain = ramp_domain(domain)?;
    let stopped = ring_file::update(&target.path, |ring| {
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

/// The name of a domain in the ring: `.our.example` stands for the domains below our.example.
pub(crate) fn ramp_domain(domain: &str) -> Result<String> {
    let below = domain.strip_prefix("*.").map(|parent| format!(".{parent}"));
    let domain = canonical_domain(below.as_deref().unwrap_or(domain)).into_owned();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if domain.trim_matches('.').is_empty() || !domain.bytes().all(plain) {
        bail!("`{domain}` is no domain name; write it as domains.local does");
    }
    Ok(domain)
}
