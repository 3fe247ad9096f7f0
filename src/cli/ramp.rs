//! `ramp`: what an administrator decides about the ramp of a domain.

use anyhow::Result;
use clap::Subcommand;

use super::keys::{RingChoice, RingTarget, ramp_domain};
use crate::cli::colours::YELLOW;
use crate::envelope::keyring::RampDecision;
use crate::envelope::rules::Rules;
use crate::envelope::site_policy::InboundMode;
use crate::service::ramp_words::describe;
use crate::state::ring_file::{self, Changed};

const EXAMPLES: &str = "\
Examples:
  countersign ramp enforce our.example    false bounces are refused from now on
  countersign ramp observe our.example    they are only marked, until `ramp auto`
  countersign ramp auto our.example       the ramp decides again

The decision is noted in the key ring. A running daemon takes it within two seconds.";

/// `countersign ramp …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum RampCommand {
    /// Enforce a domain from now on, whatever its ramp says
    Enforce(OneDomain),
    /// Only observe a domain from now on, whatever its ramp says
    Observe(OneDomain),
    /// Let the ramp of a domain decide again
    Auto(OneDomain),
}

/// A ring, and a domain in it.
#[derive(Debug, clap::Args)]
pub(super) struct OneDomain {
    #[command(flatten)]
    common: RingChoice,
    /// The local domain, as the config names it
    domain: String,
}

/// Notes the decision in the key ring.
pub(super) fn run(command: &RampCommand) -> Result<bool> {
    let (OneDomain { common, domain }, decision) = match command {
        RampCommand::Enforce(one) => (one, Some(RampDecision::Enforce)),
        RampCommand::Observe(one) => (one, Some(RampDecision::Observe)),
        RampCommand::Auto(one) => (one, None),
    };
    let target = RingTarget::to_change(&common.ring)?;
    let domain = ramp_domain(domain)?;
    ring_file::update(&target.path, |ring| {
        Ok(if ring.ramp_decide(&domain, decision) { Changed::Yes(()) } else { Changed::No(()) })
    })?;
    let ring = ring_file::load(&target.path)?;
    let state = match decision {
        Some(RampDecision::Enforce) => "enforced, as you have decided".to_owned(),
        Some(RampDecision::Observe) => "observed, as you have decided".to_owned(),
        None => match &target.policy {
            Some(policy) => {
                describe(&Rules::new(policy, &ring, target.now).ramp(&target.name_in(&domain)), &domain, true)
            }
            None => "left to its ramp".to_owned(),
        },
    };
    anstream::println!("{domain}: {state}.");
    if let Some(mode) =
        target.policy.as_ref().map(|policy| policy.inbound.mode).filter(|mode| *mode != InboundMode::Ramp)
    {
        anstream::eprintln!(
            "{YELLOW}warning:{YELLOW:#} this has no effect now: inbound.mode is \"{}\" for all domains, and only \"ramp\" decides for each",
            mode.name()
        );
    }
    if !target.knows(&domain) {
        anstream::eprintln!(
            "{YELLOW}warning:{YELLOW:#} the config does not name {domain} in domains.local or as srs_domain, so nothing asks for it"
        );
    }
    Ok(true)
}
