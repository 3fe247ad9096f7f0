//! `init`: writes a config and a key ring, and prints the lines for the mail server, or changes its configuration.

mod backup;
mod block;
mod config;
mod exim;
mod exim_places;
mod files;
mod fit;
mod fitted;
mod marks;
mod postfix;
mod recipe;
mod server;
mod step;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use self::fitted::Fitted;
use self::recipe::{Recipe, same_domain};
use crate::recipes::Mta;

/// `countersign init`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Init {
    /// A local domain (repeatable)
    #[arg(long = "domain", value_name = "DOMAIN", required_unless_present_any = ["from", "undo"])]
    domains: Vec<String>,
    /// Your mail server
    #[arg(long, required_unless_present_any = ["from", "undo"], conflicts_with = "from")]
    mta: Option<Mta>,
    /// The method: how it uses Countersign [default: the first in docs/mta]
    #[arg(long, alias = "way")]
    method: Option<String>,
    /// Read domains, networks, times and filters from this mail server: the folder of Postfix's main.cf, or
    /// Exim's folder or file
    #[arg(long, value_name = "PLACE")]
    from: Option<PathBuf>,
    /// With --from: save the mail server's configuration, change it, and reload it
    #[arg(long, requires = "from")]
    apply: bool,
    /// Take back what --apply has changed in the mail server's configuration
    #[arg(long, conflicts_with_all = ["domains", "mta", "method", "from", "apply", "srs_domain"])]
    undo: bool,
    /// The SRS domain, for mail that you forward; without it, foreign senders are not rewritten
    #[arg(long, value_name = "DOMAIN")]
    srs_domain: Option<String>,
    /// The folder for countersign.toml and keys/ring.toml
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// The user as whom the daemon will run
    #[arg(long, value_name = "USER", default_value = "countersign")]
    user: String,
}

const EXAMPLES: &str = "\
Examples:
  countersign init --from /etc/postfix              fit Postfix, print what to change
  countersign init --from /etc/postfix --apply      change it, after a backup
  countersign init --undo                           take that back
  countersign init --domain our.example --mta postfix --method proxy --srs-domain srs.our.example
  countersign init --domain our.example --domain other.example --mta exim --dir /etc/countersign

Methods: postfix milter, proxy, edge, maps; exim proxy, map, run; opensmtpd proxy; sendmail milter;
exchange proxy. docs/mta says what each is for, and what every line does. --from uses the milter.
Nothing that exists is overwritten. A key ring that is there already stays in use.";

impl ValueEnum for Mta {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// Writes the config and the key ring, and prints or makes the changes of the mail server. `false`: something is left
/// to do before the mail server can be changed.
pub(super) fn run(args: &Init) -> Result<bool> {
    if args.undo {
        return backup::undo(&args.dir);
    }
    let srs_domain = args.srs_domain.as_deref();
    if let Some(srs) = srs_domain
        && args.domains.iter().any(|domain| domain.eq_ignore_ascii_case(srs))
    {
        bail!("{}", same_domain(srs));
    }
    match &args.from {
        None => recipe::run(&Recipe {
            mta: args.mta.context("name your mail server: --mta postfix")?,
            method: args.method.as_deref(),
            domains: &args.domains,
            srs_domain,
            dir: &args.dir,
            user: &args.user,
        }),
        Some(place) => fitted::run(&Fitted {
            place,
            method: args.method.as_deref(),
            domains: &args.domains,
            srs_domain,
            dir: &args.dir,
            user: &args.user,
            apply: args.apply,
        }),
    }
}
