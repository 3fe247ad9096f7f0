//! Changes of a mail server's configuration that can be taken back: copies of its files, and the steps.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::argv::Argv;
use super::marks;
use super::setting::Setting;
use super::step::{Stage, Step};
use crate::cli::colours::{DIM, GREEN, YELLOW};

/// The folder of the copies, beside the config.
const FOLDER: &str = "init-undo";
const RECORD: &str = "record.json";

/// What is changed.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The mail server's configuration, as it was named.
    place: String,
    files: Vec<Saved>,
    /// All steps, also those that were not taken yet.
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
    /// The hash of its content after the last step.
    now: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Saved {
    /// Copies a file into the folder.
    fn copy(path: &Path, number: usize, folder: &Path) -> Result<Self> {
        let about = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
        if about.is_symlink() {
            bail!(
                "{} is a symbolic link, and the mail server's own tools put a file in its place. Change it by hand, with the steps that are \
                 printed without --apply",
                path.display()
            );
        }
        let name = path.file_name().context("a file has no name")?.to_string_lossy();
        // Files of different folders may have the same name.
        let copy = format!("{number}-{name}");
        let content = fs::read(path).with_context(|| path.display().to_string())?;
        write_new(&folder.join(&copy), &content)?;
        let mode = about.permissions().mode() & 0o7777;
        Ok(Self { path: path.to_owned(), copy, now: hash(path)?, mode, uid: about.uid(), gid: about.gid() })
    }

    /// Gives the file the mode and owner that it had: tools that write it as a whole do not keep them.
    fn restore_rights(&self) -> Result<()> {
        let about = fs::symlink_metadata(&self.path)?;
        if (about.uid(), about.gid()) != (self.uid, self.gid) {
            lchown(&self.path, Some(self.uid), Some(self.gid))?;
        }
        if about.permissions().mode() & 0o7777 != self.mode && !about.is_symlink() {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }

    /// Whether nobody has changed the file since the last step.
    fn is_as_left(&self) -> bool {
        hash(&self.path).is_ok_and(|now| now == self.now)
    }
}

impl Record {
    /// Writes the record as a whole: a full disk leaves the one before.
    fn write(&self, folder: &Path) -> Result<()> {
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(folder.join(RECORD)).with_context(|| folder.display().to_string())?;
        Ok(())
    }

    /// The record of a change that is in force, or was interrupted.
    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(RECORD);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| path.display().to_string())?,
        };
        is_private(folder)?;
        Ok(Some(serde_json::from_str(&text).with_context(|| path.display().to_string())?))
    }
}

/// Refuses a folder that another user could write to: what stands in it is run as root.
fn is_private(folder: &Path) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let parent = folder.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for path in [parent, folder, &folder.join(RECORD)] {
        let Ok(about) = fs::symlink_metadata(path) else { continue };
        let mode = about.permissions().mode();
        let is_open = mode & 0o022 != 0 && mode & 0o1000 == 0;
        if (about.uid() != own && about.uid() != 0) || is_open || about.is_symlink() {
            bail!(
                "{0} can be written by other users, and what stands in it is run as root: nothing was done. chown root {0} && chmod go-w {0}, \
                 if what is in it is yours",
                path.display()
            );
        }
    }
    Ok(())
}

fn hash(path: &Path) -> Result<String> {
    let content = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(Sha256::digest(content).iter().map(|octet| format!("{octet:02x}")).collect())
}

/// Writes a file that is not there yet, readable by its owner only.
fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    file.write_all(content)?;
    file.sync_all().with_context(|| path.display().to_string())
}

/// Makes the folder anew. Without a record, one that is there holds nothing that is needed.
fn make_folder(folder: &Path) -> Result<()> {
    if fs::symlink_metadata(folder).is_ok() {
        is_private(folder)?;
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder).with_context(|| folder.display().to_string())?;
    is_private(folder)
}

/// Whether a change can be made now; keeps others from making one until it is dropped.
///
/// # Errors
/// Another one is being made, an earlier one was interrupted, or the folder of the config is open to other users.
pub(super) fn ready(dir: &Path) -> Result<File> {
    let lock = lock(dir)?;
    is_private(dir)?;
    match Record::read(&dir.join(FOLDER))? {
        Some(record) if !record.is_complete && !record.files.is_empty() => bail!(
            "an earlier --apply was interrupted. Take it back first: countersign init --undo --dir {}",
            dir.display()
        ),
        _ => Ok(lock),
    }
}

/// Locks the folder of the config.
fn lock(dir: &Path) -> Result<File> {
    let folder = File::open(dir).with_context(|| dir.display().to_string())?;
    folder.try_lock().map_err(|_| anyhow::anyhow!("another countersign init is at work in {}", dir.display()))?;
    Ok(folder)
}

/// Remembers steps that were taken before the mail server can be changed.
pub(super) fn remember(dir: &Path, place: &str, prepared: Vec<Step>) -> Result<()> {
    let folder = dir.join(FOLDER);
    if prepared.is_empty() || Record::read(&folder)?.is_some() {
        return Ok(());
    }
    make_folder(&folder)?;
    Record { place: place.to_owned(), files: Vec::new(), steps: prepared, is_complete: true }.write(&folder)
}

/// Saves the files, and takes the steps. If one fails, the files are put back.
///
/// # Errors
/// A step failed, or an earlier change has not been taken back.
pub(super) fn change(dir: &Path, place: &str, files: &[PathBuf], prepared: Vec<Step>, changes: &[Step]) -> Result<()> {
    let folder = dir.join(FOLDER);
    let mut steps = match Record::read(&folder)? {
        Some(earlier) if !earlier.files.is_empty() => bail!(
            "{} holds an earlier change. Take that back first: countersign init --undo --dir {}",
            folder.display(),
            dir.display()
        ),
        earlier => earlier.map(|record| record.steps).unwrap_or_default(),
    };
    make_folder(&folder)?;
    steps.extend(prepared);
    steps.extend(changes.iter().cloned());
    let saved = files.iter().enumerate().map(|(number, path)| Saved::copy(path, number, &folder));
    let files = saved.collect::<Result<Vec<_>>>().inspect_err(|_| {
        let _ = fs::remove_dir_all(&folder);
    })?;
    let mut record = Record { place: place.to_owned(), files, steps, is_complete: false };
    record.write(&folder)?;
    for group in groups(changes) {
        if let Err(error) = taken(group, &mut record, &folder) {
            put_back(&folder, &record)?;
            // It reads again what it was.
            reload(&record);
            fs::remove_dir_all(&folder)?;
            return Err(error.context(format!("a step failed, and {place} is as it was")));
        }
        group.iter().for_each(|step| anstream::println!("{DIM}{}{DIM:#}", step.shown()));
    }
    record.is_complete = true;
    record.write(&folder)?;
    anstream::println!("{GREEN}Changed {place}.{GREEN:#} Copies of what it was are in {}.", folder.display());
    Ok(())
}

/// Steps that one command takes, and the others by themselves.
fn groups(steps: &[Step]) -> Vec<&[Step]> {
    let fits = |group: &[Step]| command(group).is_some();
    let (mut groups, mut rest) = (Vec::new(), steps);
    while !rest.is_empty() {
        let most = (1..=rest.len()).rev().find(|n| rest.get(..*n).is_some_and(fits)).unwrap_or(1);
        let (group, others) = rest.split_at(most);
        groups.push(group);
        rest = others;
    }
    groups
}

/// The one command for all of these steps.
fn command(steps: &[Step]) -> Option<Argv> {
    let settings: Option<Vec<&Setting>> = steps.iter().map(Step::setting).collect();
    Setting::together(&settings?)
}

fn taken(group: &[Step], record: &mut Record, folder: &Path) -> Result<()> {
    match command(group) {
        Some(command) => command.run()?,
        None => group.iter().try_for_each(Step::take)?,
    }
    for file in &mut record.files {
        file.restore_rights()?;
        file.now = hash(&file.path)?;
    }
    record.write(folder)
}

/// Has the mail server read its files. What fails is no reason to stop.
fn reload(record: &Record) {
    for step in record.steps.iter().filter(|step| step.stage == Stage::Reload) {
        if let Err(error) = step.take() {
            anstream::eprintln!("{YELLOW}not done:{YELLOW:#} {error:#}");
        }
    }
}

/// Writes the copies over the files.
fn put_back(folder: &Path, record: &Record) -> Result<()> {
    for file in &record.files {
        let copy = fs::read(folder.join(&file.copy)).with_context(|| file.copy.clone())?;
        marks::replace(&file.path, &copy)?;
        file.restore_rights()?;
    }
    Ok(())
}

/// Takes back what [`change`] has changed: the files as they were, or if somebody has changed them since, each step by
/// itself. `false`: something could not be taken back, and the record stays.
pub(super) fn undo(dir: &Path) -> Result<bool> {
    let dir = &fs::canonicalize(dir).with_context(|| dir.display().to_string())?;
    let _lock = lock(dir)?;
    taken_back(dir)
}

/// The same, for who holds the lock.
pub(super) fn taken_back(dir: &Path) -> Result<bool> {
    let folder = dir.join(FOLDER);
    let Some(record) = Record::read(&folder)? else {
        bail!(
            "{}: there is no record of a change by `init --apply`. Is the config in another folder? countersign init --undo --dir \
             /etc/countersign",
            folder.display()
        );
    };
    let mut undone = Undone { all_well: true };
    if record.files.iter().all(Saved::is_as_left) {
        put_back(&folder, &record)?;
        anstream::println!("{GREEN}The configuration in {} is as it was.{GREEN:#}", record.place);
    } else {
        anstream::println!("{} has been changed since, so each step is taken back by itself:", record.place);
        undone.take_back(&record, Stage::Configure);
        for file in &record.files {
            undone.report("modes and owners", file.restore_rights());
        }
    }
    // The mail server reads what it was, in the order in which it was told.
    for step in record.steps.iter().filter(|step| step.stage == Stage::Reload) {
        undone.report(&step.shown(), step.take());
    }
    undone.take_back(&record, Stage::Prepare);
    if !undone.all_well {
        anstream::println!(
            "The record stays in {}: correct what is named above, and run this again.",
            folder.display()
        );
        return Ok(false);
    }
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    anstream::println!(
        "Left are the config, the key ring, the user and the daemon, which nobody asks now. Bounces to mail that was signed until now go to \
         prvs=…, and are refused as mail to unknown users. If that matters, run --apply again, set outbound.mode = \"off\" in the config, \
         and take it back 8 days later."
    );
    Ok(true)
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
