//! A recipe of docs/mta with the domains of this site: the config is written, the mail server's lines are printed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::argv::quoted;
use super::files::{make_ring, print_to_do, write_new};
use crate::cli::colours::{BOLD, DIM, GREEN};
use crate::config::Config;
use crate::recipes::Mta;

/// What a recipe is filled in with.
pub(super) struct Recipe<'a> {
    pub mta: Mta,
    /// How the mail server uses Countersign; `None`: in the usual way.
    pub method: Option<&'a str>,
    pub domains: &'a [String],
    pub srs_domain: Option<&'a str>,
    /// The folder of the config.
    pub dir: &'a Path,
    /// As whom the daemon runs.
    pub user: &'a str,
}

/// The words for an SRS domain that is a local domain, too.
pub(super) fn same_domain(srs: &str) -> String {
    format!(
        "--srs-domain {srs} is one of the domains: forwarded mail of others would leave in its name. Use a domain of its own: \
         --srs-domain srs.{srs}"
    )
}

/// Writes the config and the key ring, and prints the mail server's lines.
pub(super) fn run(args: &Recipe<'_>) -> Result<bool> {
    let methods = args.mta.methods();
    let built = args.mta.built_methods();
    let method = args.method.or(built.first().copied()).unwrap_or("milter");
    if !methods.contains(&method) {
        bail!("there is no method `{method}` for {}; there are: {}", args.mta, built.join(", "));
    }
    if !built.contains(&method) {
        let instead =
            if built.is_empty() { String::new() } else { format!(", or use --method {}", built.join(" or ")) };
        bail!("this countersign was built without milters; build it with the feature `milter`{instead}");
    }
    let pieces = args.mta.recipe(method, args.srs_domain.is_some());
    let config = pieces.iter().filter(|piece| piece.file == "countersign.toml");
    let config_path = args.config_path();
    let config = config.map(|piece| with_domains(&args.in_words(&piece.text), args.domains));
    let config = args.heading(method) + &config.collect::<String>();
    // Parsing the config also finds invalid domains.
    let parsed = Config::parse(&config_path, &config)?;
    fs::create_dir_all(args.dir).with_context(|| args.dir.display().to_string())?;
    if config_path.exists() {
        bail!("{} is there already: nothing was changed", config_path.display());
    }
    // The ring is written first, and an existing ring is used, so that the command can be repeated after an error.
    make_ring(&parsed.ring, args.user)?;
    write_new(&config_path, &config)?;
    anstream::println!("{GREEN}Wrote {}.{GREEN:#}", config_path.display());
    args.print(method, &str::to_owned);
    Ok(true)
}

impl Recipe<'_> {
    fn config_path(&self) -> PathBuf {
        self.dir.join("countersign.toml")
    }

    /// Prints the lines for the mail server. `fit`: what else of them is other at this site.
    pub(super) fn print(&self, method: &str, fit: &dyn Fn(&str) -> String) {
        let config_path = self.config_path();
        anstream::println!(
            "\nFirst: countersign check -c {0}, and start the daemon: countersign serve -c {0}. While it does not run, {1} defers mail.\n\
             What follows is for {1}. Where a list is there already, add ours to it: pasted as it stands, it would replace yours.",
            quoted(&config_path.display().to_string()),
            self.mta
        );
        let pieces = self.mta.recipe(method, self.srs_domain.is_some());
        for piece in pieces.into_iter().filter(|piece| piece.file != "countersign.toml") {
            let heading = if piece.file == "shell" { "Once, as root".into() } else { format!("Into {}", piece.file) };
            anstream::println!("\n{BOLD}{heading}:{BOLD:#}");
            anstream::println!("\n{}", fit(&self.in_words(&piece.text)).trim_end());
        }
        print_to_do(&config_path);
        self.what_is_next();
    }

    /// The first line of the config: the recipe that it comes from.
    fn heading(&self, method: &str) -> String {
        format!(
            "# For {}, by its recipe `{method}`: docs/mta/{}.md. All settings: docs/config.md.\n",
            self.mta, self.mta
        )
    }

    /// The lines of a recipe with the domains and the folder of this site.
    fn in_words(&self, text: &str) -> String {
        let text = &one_entry_for_each(text, self.domains);
        let text = match self.srs_domain {
            Some(domain) => {
                text.replace("srs.our.example", "\u{1}").replace_domain(self.domains).replace('\u{1}', domain)
            }
            None => text.replace_domain(self.domains),
        };
        match fs::canonicalize(self.dir).ok().as_deref().and_then(Path::to_str) {
            Some(folder) => text.replace("/etc/countersign/", &format!("{}/", folder.trim_end_matches('/'))),
            None => text,
        }
    }

    fn what_is_next(&self) {
        let config = self.dir.join("countersign.toml");
        anstream::println!();
        if let [first, others @ ..] = self.domains
            && !others.is_empty()
        {
            anstream::println!("Where {first} stands in these lines, {} belongs, too.", others.join(", "));
        }
        anstream::println!("{DIM}What each line is for, and what else to mind: docs/mta/{}.md{DIM:#}", self.mta);
        anstream::println!(
            "Does it fit? countersign check -c {} --mta-config …",
            quoted(&config.display().to_string())
        );
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
