//! `init`: writes a config and a key ring, and prints the lines to add to the mail server's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::common_args::now;
use super::keys;
use crate::cli::colours::{BOLD, DIM, GREEN};
use crate::config::Config;
use crate::envelope::keyring::Keyring;
use crate::recipes::{Mta, RecipePiece};
use crate::state::ring_file;

/// `countersign init`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Init {
    /// A local domain (repeatable)
    #[arg(long = "domain", value_name = "DOMAIN", required = true)]
    domains: Vec<String>,
    /// Your mail server
    #[arg(long)]
    mta: Mta,
    /// The method: how it uses Countersign [default: the first in docs/mta]
    #[arg(long, alias = "way")]
    method: Option<String>,
    /// The SRS domain, for mail that you forward; without it, foreign senders are not rewritten
    #[arg(long, value_name = "DOMAIN")]
    srs_domain: Option<String>,
    /// The folder for countersign.toml and keys/ring.toml
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  countersign init --domain our.example --mta postfix
  countersign init --domain our.example --mta postfix --method proxy --srs-domain srs.our.example
  countersign init --domain our.example --domain other.example --mta exim --dir /etc/countersign

Methods: postfix milter, proxy, edge, maps; exim proxy, map, run; opensmtpd proxy; sendmail milter;
exchange proxy. docs/mta says what each is for, and what every line does.
Nothing that exists is overwritten. A key ring that is there already stays in use.";

impl ValueEnum for Mta {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// Writes the config and the key ring, and prints the mail server's lines.
pub(super) fn run(args: &Init) -> Result<bool> {
    let methods = args.mta.methods();
    let built = args.mta.built_methods();
    let method = args.method.as_deref().or(built.first().copied()).unwrap_or("milter");
    if !methods.contains(&method) {
        bail!("there is no method `{method}` for {}; there are: {}", args.mta, built.join(", "));
    }
    if !built.contains(&method) {
        let instead =
            if built.is_empty() { String::new() } else { format!(", or use --method {}", built.join(" or ")) };
        bail!("this countersign was built without milters; build it with the feature `milter`{instead}");
    }
    let pieces = args.mta.recipe(method, args.srs_domain.is_some());
    let (config, pieces): (Vec<RecipePiece>, Vec<RecipePiece>) =
        pieces.into_iter().partition(|piece| piece.file == "countersign.toml");
    let config_path = args.dir.join("countersign.toml");
    let config = config.into_iter().map(|piece| with_domains(&args.in_words(&piece.text), &args.domains));
    let config = args.heading(method) + &config.collect::<String>();
    // Parsing the config also finds invalid domains.
    let parsed = Config::parse(&config_path, &config)?;
    fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    if config_path.exists() {
        bail!("{} is there already: nothing was changed", config_path.display());
    }
    // The ring is written first, and an existing ring is used, so that the command can be repeated after an error.
    make_ring(&parsed.ring)?;
    write_new(&config_path, &config)?;
    anstream::println!("{GREEN}Wrote {}.{GREEN:#}", config_path.display());
    anstream::println!(
        "\nWhat follows is added to what {} has: where a list or table is there already, its entries stay.",
        args.mta
    );
    for piece in pieces {
        let heading = if piece.file == "shell" { "Once, as root".into() } else { format!("Into {}", piece.file) };
        anstream::println!("\n{BOLD}{heading}:{BOLD:#}");
        anstream::println!("\n{}", args.in_words(&piece.text).trim_end());
    }
    args.what_is_next();
    Ok(true)
}

impl Init {
    /// The first line of the config: the recipe that it comes from.
    fn heading(&self, method: &str) -> String {
        format!(
            "# For {}, by its recipe `{method}`: docs/mta/{}.md. All settings: docs/config.md.\n",
            self.mta, self.mta
        )
    }

    /// The lines of a recipe with the domains and the folder of this site.
    fn in_words(&self, text: &str) -> String {
        let text = &one_entry_for_each(text, &self.domains);
        let text = match &self.srs_domain {
            Some(domain) => {
                text.replace("srs.our.example", "\u{1}").replace_domain(&self.domains).replace('\u{1}', domain)
            }
            None => text.replace_domain(&self.domains),
        };
        match fs::canonicalize(&self.dir).ok().as_deref().and_then(Path::to_str) {
            Some(folder) => text.replace("/etc/countersign/", &format!("{}/", folder.trim_end_matches('/'))),
            None => text,
        }
    }

    fn what_is_next(&self) {
        let config = self.dir.join("countersign.toml");
        anstream::println!();
        if let [first, others @ ..] = self.domains.as_slice()
            && !others.is_empty()
        {
            anstream::println!("Where {first} stands in these lines, {} belongs, too.", others.join(", "));
        }
        anstream::println!("{DIM}What each line is for, and what else to mind: docs/mta/{}.md{DIM:#}", self.mta);
        anstream::println!("Then: countersign check -c {0}\n      countersign serve -c {0}", config.display());
    }
}

trait ReplaceDomain {
    fn replace_domain(&self, domains: &[String]) -> String;
}

impl ReplaceDomain for str {
    fn replace_domain(&self, domains: &[String]) -> String {
        self.replace("our.example", domains.first().map_or("our.example", String::as_str))
    }
}

/// Repeats the entry `{our.example = …}` of an inline table for each domain.
fn one_entry_for_each(text: &str, domains: &[String]) -> String {
    const FIRST: &str = "{our.example = ";
    let mut parts = text.split(FIRST);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (value, rest) = part.split_once('}').unwrap_or((part, ""));
        let entries: Vec<String> = domains.iter().map(|domain| format!("{{{domain} = {value}}}")).collect();
        filled += &entries.join(", ");
        filled += rest;
    }
    filled
}

/// Replaces the first domain in `domains.local` with all domains.
fn with_domains(text: &str, domains: &[String]) -> String {
    let Some(first) = domains.first() else { return text.to_owned() };
    let quoted: Vec<String> = domains.iter().map(|domain| format!("\"{domain}\"")).collect();
    text.replace(&format!("domains.local = [\"{first}\"]"), &format!("domains.local = [{}]", quoted.join(", ")))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file =
        fs::File::options().write(true).create_new(true).open(path).with_context(|| path.display().to_string())?;
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        // An incomplete config is worse than none.
        let _ = fs::remove_file(path);
        return Err(error).with_context(|| path.display().to_string());
    }
    Ok(())
}

fn make_ring(path: &Path) -> Result<()> {
    if path.exists() {
        ring_file::load(path)?;
        anstream::println!("{} is there already, and stays in use.", path.display());
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    ring_file::create(path, &Keyring::create(keys::new_own_key()?, now())?)?;
    anstream::println!("{GREEN}Wrote {}: key 1 signs from now on.{GREEN:#}", path.display());
    Ok(())
}
