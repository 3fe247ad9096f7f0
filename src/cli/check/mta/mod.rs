//! `check --mta-config`: checks whether the mail server's own configuration fits the config.
//!
//! The settings are read with the mail server's tools (`postconf`, `exim -bP`), so that defaults and includes count as
//! they do for the mail server.

mod exim;
mod finding;
mod postfix;

use std::path::Path;

use anyhow::{Result, bail};

use self::finding::Finding;
use crate::cli::colours::RED;
use crate::cli::colours::{BOLD, GREEN, YELLOW};
use crate::config::Config;

/// Prints what is missing or dangerous. Returns whether nothing is wrong.
pub(super) fn check(config: &Config, place: &Path) -> Result<bool> {
    let (name, findings) = if place.join("main.cf").exists() {
        ("Postfix", postfix::findings(config, place)?)
    } else if let Some(file) = exim::config_file(place) {
        ("Exim", exim::findings(config, &file)?)
    } else {
        bail!("{}: neither a main.cf of Postfix nor a configuration file of Exim is there", place.display());
    };
    let wrong = findings.iter().filter(|finding| matches!(finding, Finding::Wrong(_))).count();
    if findings.is_empty() {
        anstream::println!("{GREEN}{name} in {} fits.{GREEN:#}", place.display());
    } else {
        anstream::println!("{BOLD}{name}{BOLD:#} in {}:", place.display());
    }
    for finding in findings {
        match finding {
            Finding::Wrong(text) => anstream::println!("{RED}wrong:{RED:#} {text}"),
            Finding::Careful(text) => anstream::println!("{YELLOW}careful:{YELLOW:#} {text}"),
        }
    }
    Ok(wrong == 0)
}
