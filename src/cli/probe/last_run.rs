//! The last run, kept for `--only failed`: how it was called, and which tests had a finding.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::results::Results;
use crate::probe::finding::{Outcome, Test};

/// The last run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LastRun {
    /// The server, as it was typed.
    pub host: String,
    /// The folder in which it was started, and its arguments without those about its output.
    pub folder: PathBuf,
    pub arguments: Vec<String>,
    /// The tests that had a finding.
    pub failed: Vec<Test>,
}

impl LastRun {
    /// This run, with the arguments of the process.
    pub(super) fn of(results: &Results) -> Self {
        let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut arguments = repeatable(arguments.iter().skip(1).skip_while(|word| *word != "probe").skip(1));
        let mut folder = std::env::current_dir().unwrap_or_default();
        let mut failed: Vec<Test> = Vec::new();
        if let Ok(last) = Self::load()
            && last.host == results.host
        {
            // What this run has not tested again is as it was.
            let is_decided = |test: Test| {
                let mut of_test = results.results.iter().filter(|it| it.finding.test == test);
                of_test.any(|it| it.finding.outcome != Outcome::Untested)
            };
            failed.extend(last.failed.into_iter().filter(|test| !is_decided(*test)));
            // A run that repeats the last one names no server.
            if !arguments.contains(&results.host) {
                (arguments, folder) = (last.arguments, last.folder);
            }
        }
        let found = results.results.iter().filter(|it| it.finding.outcome.is_finding());
        failed.extend(found.map(|it| it.finding.test));
        failed.sort();
        failed.dedup();
        Self { host: results.host.clone(), folder, arguments, failed }
    }

    /// The last run of this user.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn load() -> Result<Self> {
        let path = place()?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!("there was no run before this"),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        serde_json::from_str(&text).with_context(|| format!("{}: not written by this version", path.display()))
    }

    /// Keeps it for the next run. Others cannot read it.
    ///
    /// # Errors
    /// There is no home folder, or it cannot be written.
    pub(super) fn save(&self) -> Result<()> {
        let path = place()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.persist(&path)?;
        Ok(())
    }
}

/// The arguments without those that say which tests are made and how they are shown.
fn repeatable<'a>(words: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut has_value = false;
    for word in words {
        match word.as_str() {
            _ if has_value => has_value = false,
            "--only" | "--html" => has_value = true,
            "--json" => {}
            word if word.starts_with("--only=") || word.starts_with("--html=") => {}
            word => kept.push(word.to_owned()),
        }
    }
    kept
}

fn place() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = of("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| of("HOME").map(|home| home.join(".local/state")));
    Ok(state.context("neither HOME nor XDG_STATE_HOME is set")?.join("countersign/probe.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_output_is_not_repeated() {
        let words =
            ["mx", "--json", "--html", "a.html", "--user", "ann@our.example", "--only=failed", "--only", "failed"];
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(repeatable(words.iter()), ["mx", "--user", "ann@our.example"]);
    }
}
