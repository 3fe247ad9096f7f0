//! The steps that tell a mail server of Countersign: commands, each with the one that takes it back.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::block::Block;
use super::marks;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Argv(Vec<String>);

impl Argv {
    /// A command of these words.
    pub(super) fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self(words.into_iter().map(str::to_owned).collect())
    }

    /// Runs the command; what it prints is shown only if it fails.
    pub(super) fn run(&self) -> Result<()> {
        let (program, arguments) = self.0.split_first().context("a step has no command")?;
        let found = crate::cli::mta::tools::program(&[program]).unwrap_or_else(|| program.into());
        let output = Command::new(found).args(arguments).output().with_context(|| format!("{self}: cannot be run"))?;
        if !output.status.success() {
            let said = [output.stderr, output.stdout].concat();
            bail!("{self}: {}", String::from_utf8_lossy(&said).trim());
        }
        Ok(())
    }
}

/// As a person pastes it into a shell.
impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<String> = self.0.iter().map(|word| quoted(word)).collect();
        f.write_str(&quoted.join(" "))
    }
}

pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%[]".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// When a step is taken: the daemon has to answer before the mail server is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Users, groups and folders.
    Prepare,
    /// The daemon starts.
    Start,
    /// The mail server's own configuration.
    Configure,
    /// The mail server checks it and, if it runs, reads it.
    Reload,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    /// A command, and the one that takes it back; `None`: it may stay.
    Run(Argv, Option<Argv>),
    /// Blocks that are put into a file, between marks by which they are found again.
    Edit(PathBuf, Vec<Block>),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub stage: Stage,
    /// What it is for, in a few words.
    pub why: String,
    pub action: Action,
}

impl Step {
    /// A command.
    pub(super) fn run(stage: Stage, why: &str, run: Argv, undo: Option<Argv>) -> Self {
        Self { stage, why: why.to_owned(), action: Action::Run(run, undo) }
    }

    /// Takes the step.
    pub(super) fn take(&self) -> Result<()> {
        match &self.action {
            Action::Run(command, _) => command.run(),
            Action::Edit(path, blocks) => marks::put(path, blocks),
        }
    }

    /// Takes it back; `None`: there is nothing to take back.
    pub(super) fn take_back(&self) -> Option<Result<()>> {
        match &self.action {
            Action::Run(_, undo) => undo.as_ref().map(Argv::run),
            Action::Edit(path, _) => Some(marks::remove(path)),
        }
    }

    /// What it does, in a line.
    pub(super) fn shown(&self) -> String {
        match &self.action {
            Action::Run(command, _) => command.to_string(),
            Action::Edit(path, _) => format!("lines for Countersign put into {}", path.display()),
        }
    }

    /// What takes it back, in a line.
    pub(super) fn undo_shown(&self) -> Option<String> {
        match &self.action {
            Action::Run(_, undo) => undo.as_ref().map(ToString::to_string),
            Action::Edit(path, _) => Some(format!("remove these lines from {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        let set = Argv::of(["postconf", "-e", "smtpd_milters = { unix:a, default_action=tempfail }"]);
        assert_eq!(set.to_string(), "postconf -e 'smtpd_milters = { unix:a, default_action=tempfail }'");
        assert_eq!(Argv::of(["x", "", "it's", "$(y)"]).to_string(), "x '' 'it'\\''s' '$(y)'");
        assert_eq!(
            Argv::of(["rmdir", "/var/spool/postfix/countersign"]).to_string(),
            "rmdir /var/spool/postfix/countersign"
        );
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let error = Argv::of(["ls", "/no/such/place"]).run().unwrap_err().to_string();
        assert!(error.starts_with("ls /no/such/place: ") && error.contains("No such file"), "{error}");
        Argv::of(["true"]).run().unwrap();
    }
}
