//! A command, as it is run and as a person pastes it.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

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
