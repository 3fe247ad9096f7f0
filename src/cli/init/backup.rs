//! Changes of a mail server's configuration that can be taken back: copies of its files, and the command that takes
//! back each step.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::step::{Argv, Stage, Step};
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
        let copy = path.file_name().context("a file has no name")?.to_string_lossy().into_owned();
        fs::copy(path, folder.join(&copy)).with_context(|| path.display().to_string())?;
        Ok(Saved { path: path.clone(), copy, after: String::new() })
    };
    let files = files.iter().map(saved).collect::<Result<Vec<_>>>()?;
    let mut record = Record { place: place.to_owned(), files, steps: prepared, is_complete: false };
    record.write(&folder)?;
    for step in changes {
        let result = if step.stage == Stage::Reload { reload(step) } else { step.run.run() };
        if let Err(error) = result {
            put_back(&folder, &record)?;
            fs::remove_dir_all(&folder)?;
            return Err(error.context(format!("a step failed, and {place} is as it was")));
        }
        anstream::println!("{DIM}{}{DIM:#}", step.run);
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

/// Has a running Postfix read its configuration, after it has looked at it. One that does not run needs nothing.
fn reload(step: &Step) -> Result<()> {
    let with = |word: &str| step.run.with_last(word);
    with("check").run()?;
    if with("status").run().is_ok() { step.run.run() } else { Ok(()) }
}

/// Writes the copies over the files, each as a whole, with the owner and the mode that it has.
fn put_back(folder: &Path, record: &Record) -> Result<()> {
    for file in &record.files {
        let copy = fs::read(folder.join(&file.copy)).with_context(|| file.copy.clone())?;
        if fs::read(&file.path).is_ok_and(|now| now == copy) {
            continue;
        }
        let path = fs::canonicalize(&file.path).with_context(|| file.path.display().to_string())?;
        let about = fs::metadata(&path)?;
        let place = path.parent().unwrap_or(Path::new("/"));
        let mut new = tempfile::Builder::new().permissions(about.permissions()).tempfile_in(place)?;
        new.write_all(&copy)?;
        fchown(&new, Some(about.uid()), Some(about.gid()))?;
        new.as_file().sync_all()?;
        new.persist(&path).with_context(|| path.display().to_string())?;
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
    let mut all_well = true;
    let mut take_back = |command: &Argv| match command.run() {
        Ok(()) => anstream::println!("{DIM}{command}{DIM:#}"),
        Err(error) => {
            all_well = false;
            anstream::eprintln!("{YELLOW}not taken back:{YELLOW:#} {error:#}");
        }
    };
    let of = |stage: Stage| record.steps.iter().rev().filter(move |step| step.stage == stage);
    if are_as_left || !record.is_complete {
        put_back(&folder, &record)?;
        anstream::println!("{GREEN}The configuration in {} is as it was.{GREEN:#}", record.place);
    } else {
        anstream::println!("{} has been changed since, so each step is taken back by itself:", record.place);
        of(Stage::Configure).filter_map(|step| step.undo.as_ref()).for_each(&mut take_back);
    }
    if let Some(step) = of(Stage::Reload).next() {
        reload(step)?;
    }
    of(Stage::Prepare).filter_map(|step| step.undo.as_ref()).for_each(&mut take_back);
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    anstream::println!(
        "Bounces to mail that was signed until now go to prvs=…, and are refused as mail to unknown users. If that matters, run --apply \
         again, set outbound.mode = \"off\" in the config, and take it back 8 days later."
    );
    Ok(all_well)
}
