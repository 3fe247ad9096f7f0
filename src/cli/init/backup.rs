//! Changes of a mail server's configuration that can be taken back: copies of its files, and the command that takes
//! back each step.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::marks;
use super::step::{Stage, Step};
use crate::cli::colours::{DIM, GREEN, YELLOW};

/// The folder of the copies, beside the config.
const FOLDER: &str = "init-undo";
const RECORD: &str = "record.json";

/// What was changed.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The mail server's configuration, as it was named.
    place: String,
    files: Vec<Saved>,
    /// The steps that were taken, the earliest first.
    steps: Vec<Step>,
    /// Whether all of them were taken.
    is_complete: bool,
}

/// A file of the mail server, and its copy.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    path: PathBuf,
    /// The name of the copy in the folder.
    copy: String,
    /// The hash of its content after the change; empty until then.
    after: String,
}

impl Record {
    fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(folder.join(RECORD), text).with_context(|| folder.display().to_string())
    }
}

fn hash(path: &Path) -> Result<String> {
    let content = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(Sha256::digest(content).iter().map(|octet| format!("{octet:02x}")).collect())
}

/// Saves the files, and takes the steps. If one fails, the files are put back.
///
/// # Errors
/// A step failed, or an earlier change has not been taken back.
pub(super) fn change(dir: &Path, place: &str, files: &[PathBuf], prepared: Vec<Step>, changes: &[Step]) -> Result<()> {
    let folder = dir.join(FOLDER);
    if folder.join(RECORD).exists() {
        bail!(
            "{} holds an earlier change. Take that back first: countersign init --undo --dir {}",
            folder.display(),
            dir.display()
        );
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(|| folder.display().to_string())?;
    let saved = |path: &PathBuf| {
        if fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
            bail!(
                "{} is a symbolic link, and the mail server's own tools put a file in its place. Change it by hand, with the steps that are \
                 printed without --apply",
                path.display()
            );
        }
        let name = path.file_name().context("a file has no name")?.to_string_lossy();
        // Files of different folders may have the same name.
        let number = files.iter().position(|it| it == path).unwrap_or_default();
        let copy = format!("{number}-{name}");
        fs::copy(path, folder.join(&copy)).with_context(|| path.display().to_string())?;
        Ok(Saved { path: path.clone(), copy, after: String::new() })
    };
    let files = files.iter().map(saved).collect::<Result<Vec<_>>>()?;
    let mut record = Record { place: place.to_owned(), files, steps: prepared, is_complete: false };
    record.write(&folder)?;
    for step in changes {
        if let Err(error) = step.take() {
            put_back(&folder, &record)?;
            fs::remove_dir_all(&folder)?;
            return Err(error.context(format!("a step failed, and {place} is as it was")));
        }
        anstream::println!("{DIM}{}{DIM:#}", step.shown());
        record.steps.push(step.clone());
    }
    for file in &mut record.files {
        file.after = hash(&file.path)?;
    }
    record.is_complete = true;
    record.write(&folder)?;
    anstream::println!("{GREEN}Changed {place}.{GREEN:#} Copies of what it was are in {}.", folder.display());
    Ok(())
}

/// Writes the copies over the files.
fn put_back(folder: &Path, record: &Record) -> Result<()> {
    for file in &record.files {
        let copy = fs::read(folder.join(&file.copy)).with_context(|| file.copy.clone())?;
        marks::replace(&file.path, &copy)?;
    }
    Ok(())
}

/// Takes back what [`change`] has changed: the files as they were, or if somebody has changed them since, by the
/// command of each step. `false`: a command failed, and its words are shown.
pub(super) fn undo(dir: &Path) -> Result<bool> {
    let folder = dir.join(FOLDER);
    let text = fs::read_to_string(folder.join(RECORD))
        .with_context(|| format!("{}: there is no record of a change by `init --apply`", folder.display()))?;
    let record: Record = serde_json::from_str(&text).with_context(|| folder.join(RECORD).display().to_string())?;
    let is_as_left = |file: &Saved| Ok(hash(&file.path)? == file.after);
    let are_as_left = record.files.iter().map(is_as_left).collect::<Result<Vec<bool>>>()?.into_iter().all(|it| it);
    let mut undone = Undone { all_well: true };
    if are_as_left || !record.is_complete {
        put_back(&folder, &record)?;
        anstream::println!("{GREEN}The configuration in {} is as it was.{GREEN:#}", record.place);
    } else {
        anstream::println!("{} has been changed since, so each step is taken back by itself:", record.place);
        undone.take_back(&record, Stage::Configure);
    }
    // The mail server reads what it was, in the order in which it was told.
    for step in record.steps.iter().filter(|step| step.stage == Stage::Reload) {
        undone.report(&step.shown(), step.take());
    }
    undone.take_back(&record, Stage::Prepare);
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    anstream::println!(
        "Bounces to mail that was signed until now go to prvs=…, and are refused as mail to unknown users. If that matters, run --apply \
         again, set outbound.mode = \"off\" in the config, and take it back 8 days later."
    );
    Ok(undone.all_well)
}

/// How far a change was taken back.
struct Undone {
    all_well: bool,
}

impl Undone {
    /// Takes back the steps of a stage, the latest first.
    fn take_back(&mut self, record: &Record, stage: Stage) {
        for step in record.steps.iter().rev().filter(|step| step.stage == stage) {
            if let Some(result) = step.take_back() {
                self.report(&step.undo_shown().unwrap_or_default(), result);
            }
        }
    }

    fn report(&mut self, words: &str, result: Result<()>) {
        match result {
            Ok(()) => anstream::println!("{DIM}{words}{DIM:#}"),
            Err(error) => {
                self.all_well = false;
                anstream::eprintln!("{YELLOW}not done:{YELLOW:#} {error:#}");
            }
        }
    }
}
