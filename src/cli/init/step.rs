//! The steps that tell a mail server of Countersign, each with the one that takes it back.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::argv::Argv;
use super::block::Block;
use super::marks;
use super::setting::Setting;

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
    /// A parameter of Postfix.
    Set(Setting),
    /// A command that is only for a mail server that runs, and the one that finds out.
    IfRunning(Argv, Argv),
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

    /// The parameter that it sets.
    pub(super) fn setting(&self) -> Option<&Setting> {
        if let Action::Set(setting) = &self.action { Some(setting) } else { None }
    }

    /// Takes the step.
    pub(super) fn take(&self) -> Result<()> {
        match &self.action {
            Action::Run(command, _) => command.run(),
            Action::Set(setting) => setting.command().run(),
            Action::IfRunning(command, test) => {
                if test.run().is_ok() {
                    command.run()
                } else {
                    Ok(())
                }
            }
            Action::Edit(path, blocks) => marks::put(path, blocks),
        }
    }

    /// Takes it back; `None`: there is nothing to take back.
    pub(super) fn take_back(&self) -> Option<Result<()>> {
        match &self.action {
            Action::Run(_, undo) => undo.as_ref().map(Argv::run),
            Action::Set(setting) => Some(setting.take_back()),
            Action::IfRunning(..) => None,
            Action::Edit(path, _) => Some(marks::remove(path)),
        }
    }

    /// What it does, in a line.
    pub(super) fn shown(&self) -> String {
        match &self.action {
            Action::Run(command, _) | Action::IfRunning(command, _) => command.to_string(),
            Action::Set(setting) => setting.command().to_string(),
            Action::Edit(path, _) => format!("lines for Countersign put into {}", path.display()),
        }
    }

    /// What takes it back, in a line.
    pub(super) fn undo_shown(&self) -> Option<String> {
        match &self.action {
            Action::Run(_, undo) => undo.as_ref().map(ToString::to_string),
            Action::Set(setting) => Some(setting.undo().to_string()),
            Action::IfRunning(..) => None,
            Action::Edit(path, _) => Some(format!("remove these lines from {}", path.display())),
        }
    }
}
