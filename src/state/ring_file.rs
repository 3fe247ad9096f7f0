//! The key ring as a file in TOML, readable by its owner only, and always written as a whole.
//!
//! A change takes a lock beside the file, reads the file *then*, changes the ring, writes a new file, syncs it, renames
//! it over the old one, and syncs the folder. A crash at any moment leaves one complete ring.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ownership::{self, Wanted};
use super::ring_error::{Problem, RingFileError, at};
use super::ring_text::{Secrets, parse, to_text};
use crate::envelope::keyring::{ChangeError, Keyring};

/// Maximum size of a key ring file, in octets.
const MAX_FILE: u64 = 1 << 20;

/// Reads a ring.
///
/// # Errors
/// The file is missing, can be read or replaced by others, or is not a key ring.
pub fn load(path: &Path) -> Result<Keyring, RingFileError> {
    // Opening a FIFO must not wait for a writer.
    let no_wait = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = match File::options().read(true).custom_flags(no_wait).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return at(path, Err(Problem::Missing)),
        Err(error) => return at(path, Err(Problem::refused(path, Wanted::Read, error))),
        Ok(file) => file,
    };
    // Metadata of the open file, because the path may lead to another file by now.
    let metadata = at(path, file.metadata())?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return at(path, Err(Problem::Syntax("this is no key ring: not a file, or far too large for one".into())));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return at(path, Err(Problem::Open { mode, path: path.display().to_string() }));
    }
    at(path, check_folder(path, metadata.uid()))?;
    let mut text = Zeroizing::new(String::new());
    at(path, file.read_to_string(&mut text))?;
    parse(path, &text)
}

/// Refuses a ring in a folder where other users can replace it. In a world-writable folder with the sticky bit, a ring
/// of root or of this user is accepted.
fn check_folder(path: &Path, uid: u32) -> Result<(), Problem> {
    const STICKY: u32 = 0o1000;
    let own = uid == 0 || uid == rustix::process::geteuid().as_raw();
    // A symbolic link can be replaced in its own folder, and its target in that of the target.
    for folder in [folder_of(path), folder_of(&fs::canonicalize(path)?)] {
        let mode = fs::metadata(folder)?.mode();
        match mode & 0o002 != 0 {
            true if mode & STICKY == 0 => return Err(Problem::OpenFolder { folder: folder.display().to_string() }),
            true if !own => return Err(Problem::Foreign { uid }),
            _ => {}
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a new ring, if the file does not exist.
///
/// # Errors
/// The file exists, or the folder cannot be written.
pub fn create(path: &Path, ring: &Keyring) -> Result<(), RingFileError> {
    let _lock = lock(path)?;
    if at(path, path.try_exists())? {
        return at(path, Err(Problem::Exists));
    }
    write(path, ring)
}

/// Changes a ring under its lock. The file is written only if `change` returns [`Changed::Yes`].
///
/// # Errors
/// Reading, changing or writing failed. The file is then unchanged, unless only the last sync of its folder failed.
pub fn update<T>(
    path: &Path,
    change: impl FnOnce(&mut Keyring) -> Result<Changed<T>, ChangeError>,
) -> Result<T, RingFileError> {
    if !at(path, path.try_exists())? {
        return at(path, Err(Problem::Missing));
    }
    let _lock = lock(path)?;
    let mut ring = load(path)?;
    match at(path, change(&mut ring))? {
        Changed::Yes(value) => {
            write(path, &ring)?;
            Ok(value)
        }
        Changed::No(value) => Ok(value),
    }
}

/// Why this process could not change the ring, and what would be right; `None` if it could.
pub(crate) fn cannot_change(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (folder, wanted) = (folder_of(&real), rustix::fs::Access::WRITE_OK.union(rustix::fs::Access::EXEC_OK));
    let error = io::Error::from(rustix::fs::access(folder, wanted).err()?);
    Some(ownership::refused(folder, Wanted::WriteIn, &error).unwrap_or_else(|| error.to_string()))
}

/// Whether the ring has to be written.
#[derive(Debug)]
pub enum Changed<T> {
    /// The ring was changed, and has to be written.
    Yes(T),
    /// The ring was not changed.
    No(T),
}

/// Takes the lock, which is a file of its own, because each change replaces the ring file.
fn lock(path: &Path) -> Result<File, RingFileError> {
    // The lock is beside the real file, through whatever link that is reached.
    let ring = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let ring = ring.as_path();
    let mut name = ring.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    // The folder may belong to the daemon's user while root runs this. So the owner is changed only for a file that was
    // created here, and a symbolic link in its place is not followed.
    let file = match File::options().create_new(true).write(true).mode(0o600).open(&path) {
        Ok(file) => {
            keep_owner(ring, &file);
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let no_links = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            let no_links = i32::try_from(no_links.bits()).unwrap_or_default();
            let opened = File::options().write(true).custom_flags(no_links).open(&path);
            at(&path, opened.map_err(|error| Problem::refused(&path, Wanted::Write, error)))?
        }
        Err(error) => return at(ring, Err(Problem::refused(folder_of(ring), Wanted::WriteIn, error))),
    };
    // A signal may arrive while another process holds the lock.
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return at(&path, locked.map(|()| file)),
        }
    }
}

fn write(path: &Path, ring: &Keyring) -> Result<(), RingFileError> {
    // A ring may be a symbolic link into a mounted folder; the target is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = to_text(ring, Secrets::Revealed);
    remove_leftovers(&path);
    at(&path, replace(&path, folder_of(&path), &text))
}

/// Removes files that interrupted changes have left beside a ring. They are complete rings, with secrets. Returns their
/// number.
///
/// # Errors
/// The lock cannot be taken.
pub fn sweep(path: &Path) -> Result<usize, RingFileError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if leftovers(&real).next().is_none() {
        return Ok(0);
    }
    let _lock = lock(path)?;
    Ok(remove_leftovers(&real))
}

/// Removes such files. The caller holds the lock, so none of them is being written.
fn remove_leftovers(path: &Path) -> usize {
    leftovers(path).filter(|file| fs::remove_file(file).is_ok()).count()
}

/// The prefix of the names of new ring files.
fn prefix_of(path: &Path) -> String {
    format!(".{}-new-", path.file_name().unwrap_or_default().to_string_lossy())
}

fn leftovers(path: &Path) -> impl Iterator<Item = PathBuf> {
    let prefix = prefix_of(path);
    let entries = fs::read_dir(folder_of(path)).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let random = name.strip_prefix(&prefix)?;
        let ours = random.len() == 6 && random.bytes().all(|b| b.is_ascii_alphanumeric());
        let private = entry.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o077 == 0);
        (ours && private).then(|| entry.path())
    })
}

/// Writes a copy of a ring to a new file, readable by its owner only.
///
/// # Errors
/// The file exists, or the folder cannot be written.
pub fn export(path: &Path, ring: &Keyring, secrets: Secrets) -> Result<(), RingFileError> {
    let file = File::options().create_new(true).write(true).mode(0o600).open(path);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return at(path, Err(Problem::Syntax("there is a file already; it was left as it is".into())));
        }
        file => at(path, file)?,
    };
    at(path, file.write_all(to_text(ring, secrets).as_bytes()).and_then(|()| file.sync_all()))
}

fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(&prefix_of(path)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    keep_owner(path, file.as_file());
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Gives a file to the owner of the ring, because root may rotate keys and the daemon's user reads them. Without
/// permission to do so, the owner is not changed.
fn keep_owner(ring: &Path, file: &File) {
    // The unit does not let the daemon change owners, and there is nothing to change where it writes its own ring.
    let owner = |about: fs::Metadata| (about.uid(), about.gid());
    if let Ok(ring) = fs::metadata(ring)
        && !file.metadata().is_ok_and(|own| owner(own) == (ring.uid(), ring.gid()))
    {
        let _ = fchown(file, Some(ring.uid()), Some(ring.gid()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, KeyId, NewKey, Secret, SrsLimits};
    use crate::envelope::keyring::{RampDecision, RampNote};
    use crate::envelope::time::Timestamp;
    use crate::state::ring_text::parse;
    use std::os::unix::fs::PermissionsExt as _;

    fn new_key(algorithm: Algorithm) -> NewKey {
        let secret = Secret::new(Zeroizing::new(b"a secret of thirty-two octets ok".to_vec()));
        NewKey { algorithm, secret, lifetime: 9, srs_lifetime: 30, short_tags: true }
    }

    fn ring() -> Keyring {
        let mut ring = Keyring::create(new_key(Algorithm::HmacSha256), Timestamp(1_795_000_000)).unwrap();
        ring.rotate(new_key(Algorithm::HmacSha256), Timestamp(1_795_100_000)).unwrap();
        let limits = SrsLimits { hash_length: 6, hash_min: 5, max_age: 40 };
        let id = KeyId::Name("postsrsd-1".into());
        ring.import(new_key(Algorithm::Postsrsd), &id, limits, true, Timestamp(1_795_200_000)).unwrap();
        ring.ramp_start("our.example", Timestamp(1_795_300_000));
        ring.ramp_start_by_hand(".branch.example", Timestamp(1_795_300_000));
        ring.ramp_enforced("our.example", Timestamp(1_795_900_000));
        ring.ramp_decide("our.example", Some(RampDecision::Observe));
        ring
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.toml");
        create(&path, &ring()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = load(&path).unwrap();
        assert_eq!(to_text(&again, Secrets::Revealed), to_text(&ring(), Secrets::Revealed));
        let enforced = Some(Timestamp(1_795_900_000));
        let note = RampNote { enforced, decision: Some(RampDecision::Observe), by_hand: false, counted: false };
        assert_eq!(again.ramp_note("our.example"), note);
        assert!(again.ramp_note(".branch.example").by_hand);
        let text = fs::read_to_string(&path).unwrap().replace("\"observe\"", "\"perhaps\"");
        let error = parse(&path, &text).unwrap_err().to_string();
        assert!(error.contains("`perhaps` is not a decision"), "{error}");
        assert!(matches!(create(&path, &ring()).unwrap_err().problem, Problem::Exists));
    }

    #[test]
    fn a_ring_that_others_can_read_is_refused_with_the_command_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.toml");
        create(&path, &ring()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("run: chmod 600 {}", path.display())), "{error}");
    }

    #[test]
    fn the_export_hides_secrets_unless_asked() {
        let hidden = to_text(&ring(), Secrets::Hidden);
        assert!(!hidden.contains("secret ="), "{}", *hidden);
        assert!(parse(Path::new("x"), &hidden).unwrap_err().to_string().contains("missing field `secret`"));
    }

    #[test]
    fn broken_files_are_named_with_their_line() {
        let good = to_text(&ring(), Secrets::Revealed).to_string();
        for (from, to, want) in [
            ("id = \"2\"", "id = \"é\"", "ring.toml:16: `é` is no key id"),
            ("state = \"verifying\"", "state = \"old\"", "`old` is none of: next, signing, verifying, retired"),
            ("algorithm = \"postsrsd\"", "algorithm = \"rot13\"", "`rot13` is none of: hmac-sha256"),
            ("secret = \"", "secret = \"*", "the secret is no base64"),
            ("created = ", "created = \"soon\" #", "`soon` is no time in UTC"),
            ("id = \"1\"", "id = \"2\"", "key 2 stands in the ring twice"),
            ("longest_lifetime", "longest_life", "unknown field `longest_life`"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            let error = parse(Path::new("ring.toml"), &text).unwrap_err().to_string();
            assert!(error.contains(want), "{from}: {error}");
            assert!(!error.contains("YSBzZWNyZXQ"), "a secret in an error: {error}");
        }
        assert!(parse(Path::new("x"), "").unwrap_err().to_string().contains("has the state signing"));
    }

    #[test]
    fn a_failed_change_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.toml");
        create(&path, &ring()).unwrap();
        let before = fs::read(&path).unwrap();
        let id = KeyId::Digit(2);
        let result = update(&path, |ring| ring.retire(&id, Timestamp(0), true).map(Changed::Yes));
        assert!(result.unwrap_err().to_string().contains("key 2 signs"));
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
