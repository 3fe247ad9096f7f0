//! `check --mta-config`: checks whether the mail server's own configuration fits the config.
//!
//! The settings are read with the mail server's tools (`postconf`, `exim -bP`), so that defaults and includes count as
//! they do for the mail server.

mod dkim;
mod exim;
mod finding;
mod postfix;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use self::finding::Finding;
use crate::cli::colours::{BOLD, GREEN, RED, YELLOW};
use crate::cli::mta::exim::config_file;
use crate::config::Config;

/// What was found in a mail server's configuration.
#[derive(Debug, Serialize)]
pub(super) struct MtaFindings {
    /// The mail server.
    name: &'static str,
    /// Its configuration, as it was named.
    place: PathBuf,
    /// Errors: mail would be lost, refused, looped, or sent unsigned.
    wrong: Vec<String>,
    /// Settings that may be intended.
    careful: Vec<String>,
    #[serde(skip)]
    all: Vec<Finding>,
}

/// Finds what is missing or dangerous.
pub(super) fn find(config: &Config, place: &Path) -> Result<MtaFindings> {
    // The file itself may be named, too.
    let is_main_cf = place.file_name().is_some_and(|name| name == "main.cf");
    let place = place.parent().filter(|folder| is_main_cf && !folder.as_os_str().is_empty()).unwrap_or(place);
    let (name, all) = if place.join("main.cf").exists() {
        ("Postfix", postfix::findings(config, place)?)
    } else if let Some(file) = config_file(place) {
        ("Exim", exim::findings(config, &file)?)
    } else {
        bail!("{}: neither a main.cf of Postfix nor a configuration file of Exim is there", place.display());
    };
    let (mut wrong, mut careful) = (Vec::new(), Vec::new());
    for finding in &all {
        match finding {
            Finding::Wrong(text) => wrong.push(text.clone()),
            Finding::Careful(text) => careful.push(text.clone()),
        }
    }
    Ok(MtaFindings { name, place: place.to_owned(), wrong, careful, all })
}

impl MtaFindings {
    /// Whether nothing is wrong.
    pub(super) fn fits(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Prints the findings, in the order in which a message passes the settings.
    pub(super) fn print(&self) {
        let (name, place) = (self.name, self.place.display());
        match self.all.is_empty() {
            true => anstream::println!("{GREEN}{name} in {place} fits.{GREEN:#}"),
            false => anstream::println!("{BOLD}{name}{BOLD:#} in {place}:"),
        }
        for finding in &self.all {
            match finding {
                Finding::Wrong(text) => anstream::println!("{RED}wrong:{RED:#} {text}"),
                Finding::Careful(text) => anstream::println!("{YELLOW}careful:{YELLOW:#} {text}"),
            }
        }
    }
}
