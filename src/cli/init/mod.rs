//! `init`: writes a config and a key ring, and prints the lines for the mail server, or changes its configuration.

mod argv;
mod backup;
mod block;
mod config;
mod exim;
mod exim_places;
mod files;
mod fit;
mod fitted;
mod greetings;
mod marks;
mod new_config;
mod postfix;
mod postfix_facts;
mod prepare;
mod recipe;
mod request;
mod server;
mod setting;
mod step;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use self::recipe::{Recipe, same_domain};
use self::request::Fitted;
use crate::recipes::Mta;

/// `countersign init`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Init {
    /// A local domain (repeatable)
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Your mail server
    #[arg(long, conflicts_with = "from")]
    mta: Option<Mta>,
    /// How the mail server uses Countersign [default: the first in docs/mta; with --from, milter for Postfix, map for Exim]
    #[arg(long, alias = "way")]
    method: Option<String>,
    /// Read domains, networks, times and filters from this mail server: the folder of Postfix's main.cf, or
    /// Exim's folder or file
    #[arg(long, value_name = "PLACE")]
    from: Option<PathBuf>,
    /// With --from: save the mail server's configuration, change it, and reload it
    #[arg(long)]
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
    /// The user that will run the daemon
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
exchange proxy. docs/mta says what each is for, and what every line does. --from --apply knows milter and map.
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
    if args.from.is_none() && (args.apply || args.domains.is_empty() || args.mta.is_none()) {
        bail!(
            "name your mail server's configuration: countersign init --from /etc/postfix (or /etc/exim4){}. For other mail servers, or another \
             method: countersign init --domain our.example --mta sendmail",
            if args.apply { "; --apply needs that" } else { "" }
        );
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
            place: folder_of(place),
            method: args.method.as_deref(),
            domains: &args.domains,
            srs_domain,
            dir: &args.dir,
            user: &args.user,
            apply: args.apply,
        }),
    }
}

/// The folder of a main.cf that was named itself.
fn folder_of(place: &Path) -> &Path {
    let is_main_cf = place.file_name().is_some_and(|name| name == "main.cf");
    place.parent().filter(|folder| is_main_cf && !folder.as_os_str().is_empty()).unwrap_or(place)
}
