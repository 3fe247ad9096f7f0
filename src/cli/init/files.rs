//! The files of a new site: config and key ring.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::colours::{GREEN, YELLOW};
use crate::cli::common_args::now;
use crate::cli::keys;
use crate::envelope::keyring::Keyring;
use crate::state::ring_file;

/// Writes a new file.
pub(super) fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file =
        fs::File::options().write(true).create_new(true).open(path).with_context(|| path.display().to_string())?;
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        // An incomplete config is worse than none.
        let _ = fs::remove_file(path);
        return Err(error).with_context(|| path.display().to_string());
    }
    Ok(())
}

/// Makes a key ring, unless it is there. As root, it is given to the daemon's user if there is one.
pub(super) fn make_ring(path: &Path, user: &str) -> Result<()> {
    if path.exists() {
        ring_file::load(path)?;
        anstream::println!("{} is there already, and stays in use.", path.display());
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let is_new = !folder.exists();
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    ring_file::create(path, &Keyring::create(keys::new_own_key()?, now())?)?;
    let lock = path.with_extension("toml.lock");
    let ours = [Some(path), Some(lock.as_path()), is_new.then_some(folder)];
    give(&ours.into_iter().flatten().collect::<Vec<_>>(), user)?;
    anstream::println!("{GREEN}Wrote {}: key 1 signs from now on.{GREEN:#}", path.display());
    Ok(())
}

/// Prints the lines of a config that only a person can fill in.
pub(super) fn print_to_do(path: &Path) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| line.contains("# TODO")).collect();
    if lines.is_empty() {
        return;
    }
    anstream::println!("\n{YELLOW}What only you know, in {}:{YELLOW:#}", path.display());
    for (number, line) in lines {
        anstream::println!("  line {}: {}", number + 1, line.trim());
    }
}

/// Gives files to a user, if this is root and there is such a user.
fn give(files: &[&Path], user: &str) -> Result<()> {
    let Some(user) = nix::unistd::User::from_name(user).ok().flatten() else { return Ok(()) };
    if !nix::unistd::geteuid().is_root() || user.uid.is_root() {
        return Ok(());
    }
    for path in files.iter().filter(|path| path.exists()) {
        // The user may own the folder: a link that it puts there is not followed.
        lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
