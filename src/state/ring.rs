//! The key ring as a file: TOML, readable by its owner alone, written whole or not at all.
//!
//! A change takes a lock beside the file, reads what stands there *now*, changes that, writes a new file, syncs it,
//! renames it over the old one and syncs the folder. Whatever moment the power goes, one whole ring is there.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use zeroize::Zeroizing;

use crate::envelope::keyring::{
    Algorithm, ChangeError, Key, KeyId, KeyState, Keyring, Purpose, RingError, Secret, SrsLimits,
};
use crate::envelope::time::Timestamp;

/// The largest file taken for a key ring, in octets.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a ring file: where, what, and what would be right.
#[derive(Debug)]
pub struct RingFileError {
    /// The ring file.
    pub path: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// The problem, and what would be right.
    pub problem: Problem,
}

/// What is wrong with a ring file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is none.
    #[error("there is no key ring; is the name right? A new one is made with: countersign keys init")]
    Missing,
    /// There is one already.
    #[error("there is a key ring already; it was left as it is")]
    Exists,
    /// Others can read the secrets.
    #[error("mode {mode:04o} lets others read the secrets; run: chmod 600 {path}")]
    Open {
        /// The permission bits.
        mode: u32,
        /// The file, for the command line.
        path: String,
    },
    /// Others can put another file in its place.
    #[error(
        "every user may write into the folder {folder}, and so put another key ring in its place; run: chmod o-w {folder}"
    )]
    OpenFolder {
        /// The folder, for the command line.
        folder: String,
    },
    /// In a folder for everybody, somebody else has put it there.
    #[error(
        "it belongs to the user with the id {uid}, in a folder where every user may write; move it to a folder of its own"
    )]
    Foreign {
        /// Whose file it is.
        uid: u32,
    },
    /// The system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not what a ring looks like.
    #[error("{0}")]
    Syntax(String),
    /// It reads well and cannot be a ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The change cannot be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl fmt::Display for RingFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.problem),
            None => write!(f, "{}: {}", self.path.display(), self.problem),
        }
    }
}

impl std::error::Error for RingFileError {}

fn at<T>(path: &Path, result: Result<T, impl Into<Problem>>) -> Result<T, RingFileError> {
    result.map_err(|problem| RingFileError { path: path.to_owned(), line: None, problem: problem.into() })
}

/// Reads a ring.
///
/// # Errors
/// It is missing, readable by others, or no ring.
pub fn load(path: &Path) -> Result<Keyring, RingFileError> {
    // Who finds a FIFO there does not wait for somebody to write into it.
    let no_wait = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = match File::options().read(true).custom_flags(no_wait).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return at(path, Err(Problem::Missing)),
        file => at(path, file)?,
    };
    // The open file is asked, not the path: it cannot be another one by now.
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

/// A ring that anybody can replace is no secret of this site. A folder for everybody whose files only their owners may replace
/// (the sticky bit) may hold one's own.
fn check_folder(path: &Path, uid: u32) -> Result<(), Problem> {
    const STICKY: u32 = 0o1000;
    let own = uid == 0 || uid == rustix::process::geteuid().as_raw();
    // A link can be replaced where it stands, and its target where that is.
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

/// Reads a ring from its text; `path` is for messages.
///
/// # Errors
/// It is no ring.
pub fn parse(path: &Path, text: &str) -> Result<Keyring, RingFileError> {
    let raw: RawRing = toml::from_str(text).map_err(|error| RingFileError {
        path: path.to_owned(),
        line: error.span().and_then(|span| text.get(..span.start)).map(|head| head.matches('\n').count() + 1),
        problem: Problem::Syntax(error.message().trim_end().to_owned()),
    })?;
    let keys = raw.key.into_iter().map(RawKey::build).collect();
    let since = raw.signing_since.into_iter().map(|(domain, at)| (domain, at.0)).collect();
    at(path, Keyring::new(keys, since))
}

/// Writes a new ring where none is.
///
/// # Errors
/// There is one, or the folder cannot be written.
pub fn create(path: &Path, ring: &Keyring) -> Result<(), RingFileError> {
    let _lock = lock(path)?;
    if at(path, path.try_exists())? {
        return at(path, Err(Problem::Exists));
    }
    write(path, ring)
}

/// Changes a ring under its lock. The file is written only when `change` says that something changed.
///
/// # Errors
/// Reading, changing or writing failed; the file is as it was then.
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

/// Whether there is something to write.
#[derive(Debug)]
pub enum Changed<T> {
    /// The change was made, and the ring was written.
    Yes(T),
    /// The ring is as it was.
    No(T),
}

/// The lock is a file of its own: the ring itself is replaced by each change.
fn lock(path: &Path) -> Result<File, RingFileError> {
    // Beside the file that is replaced, by whatever name it is reached.
    let ring = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let ring = ring.as_path();
    let mut name = ring.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    // The folder may belong to the daemon's user and root be at work: only a file made here is given away, and a link in
    // its place is not followed.
    let file = match File::options().create_new(true).write(true).mode(0o600).open(&path) {
        Ok(file) => {
            keep_owner(ring, &file);
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let no_links = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            let no_links = i32::try_from(no_links.bits()).unwrap_or_default();
            at(&path, File::options().write(true).custom_flags(no_links).open(&path))?
        }
        Err(error) => return at(&path, Err(error)),
    };
    // A signal may come while another process holds the lock.
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return at(&path, locked.map(|()| file)),
        }
    }
}

fn write(path: &Path, ring: &Keyring) -> Result<(), RingFileError> {
    // A ring may be a link into a mounted folder; the file behind it is the one to replace.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = to_text(ring, Secrets::Revealed);
    remove_leftovers(&path);
    at(&path, replace(&path, folder_of(&path), &text))
}

/// Removes what changes that were interrupted have left beside a ring: whole rings, with their secrets. How many there were.
///
/// # Errors
/// The lock cannot be had.
pub fn sweep(path: &Path) -> Result<usize, RingFileError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if leftovers(&real).next().is_none() {
        return Ok(0);
    }
    let _lock = lock(path)?;
    Ok(remove_leftovers(&real))
}

/// The same, under the lock: nobody is writing one of them.
fn remove_leftovers(path: &Path) -> usize {
    leftovers(path).filter(|file| fs::remove_file(file).is_ok()).count()
}

/// How a file begins that will be the ring.
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

/// Writes a copy of a ring where no file is, for its owner alone.
///
/// # Errors
/// There is a file, or the folder cannot be written.
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

/// Gives a file to the owner of the ring: root rotates, the daemon's own user reads. Without the right to do so, it stays
/// ours.
fn keep_owner(ring: &Path, file: &File) {
    if let Ok(ring) = fs::metadata(ring) {
        let _ = fchown(file, Some(ring.uid()), Some(ring.gid()));
    }
}

/// Whether a text shows the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// It is the ring itself.
    Revealed,
    /// It is for looking at.
    Hidden,
}

/// The text of a ring file.
#[must_use]
pub fn to_text(ring: &Keyring, secrets: Secrets) -> Zeroizing<String> {
    // Room enough that no half-filled buffer with a secret in it is left behind when it grows.
    let mut text = Zeroizing::new(String::with_capacity(512 + ring.keys().len() * 1024 + secret_room(ring)));
    text.push_str("# Key ring of countersign. Change it with `countersign keys`, never by hand while a daemon runs.\n");
    if secrets == Secrets::Hidden {
        text.push_str("# The secrets are left out: this text is no key ring. `--reveal-secrets` shows them.\n");
    }
    for key in ring.keys() {
        write_key(&mut text, key, secrets);
    }
    if !ring.signing_since().is_empty() {
        text.push_str("\n[signing_since]\n");
        for (domain, since) in ring.signing_since() {
            let _ = writeln!(text, "\"{domain}\" = {}", rfc3339(*since));
        }
    }
    text
}

fn secret_room(ring: &Keyring) -> usize {
    ring.keys().iter().map(|k| BASE64.encode_len(k.secret.expose().len())).sum()
}

fn write_key(text: &mut String, key: &Key, secrets: Secrets) {
    let _ = writeln!(text, "\n[[key]]\nid = \"{}\"\nalgorithm = \"{}\"", key.id, key.algorithm.name());
    let _ = writeln!(text, "state = \"{}\"", key.state.name());
    if secrets == Secrets::Revealed {
        text.push_str("secret = \"");
        BASE64.encode_append(key.secret.expose(), text);
        text.push_str("\"\n");
    }
    let _ = writeln!(text, "created = {}", rfc3339(key.created));
    if let Some(at) = key.signed_from {
        let _ = writeln!(text, "signed_from = {}", rfc3339(at));
    }
    if let Some(at) = key.signed_until {
        let _ = writeln!(text, "signed_until = {}", rfc3339(at));
    }
    if key.algorithm.purpose() != Purpose::Srs {
        let _ = writeln!(text, "longest_lifetime = {}", key.longest_lifetime);
    }
    match key.algorithm.purpose() {
        Purpose::All => {
            let _ =
                writeln!(text, "longest_srs_lifetime = {}\nshort_tags = {}", key.longest_srs_lifetime, key.short_tags);
        }
        Purpose::Batv => {}
        Purpose::Srs => {
            let SrsLimits { hash_length, hash_min, max_age } = key.srs;
            let _ = writeln!(text, "hash_length = {hash_length}\nhash_min = {hash_min}\nmax_age = {max_age}");
        }
    }
}

/// A moment as RFC 3339 in UTC; one that no calendar holds as the nearest that one does.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(at.0).unwrap_or(if at.0 < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    at.to_string()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRing {
    #[serde(default)]
    key: Vec<RawKey>,
    #[serde(default)]
    signing_since: BTreeMap<String, Moment>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: Id,
    algorithm: Named<Algorithm>,
    state: Named<KeyState>,
    secret: Base64,
    created: Moment,
    signed_from: Option<Moment>,
    signed_until: Option<Moment>,
    longest_lifetime: Option<u16>,
    longest_srs_lifetime: Option<u16>,
    short_tags: Option<bool>,
    hash_length: Option<u8>,
    hash_min: Option<u8>,
    max_age: Option<u16>,
}

impl RawKey {
    fn build(self) -> Key {
        let peer = self.algorithm.0.srs_limits();
        Key {
            id: self.id.0,
            algorithm: self.algorithm.0,
            state: self.state.0,
            secret: self.secret.0,
            created: self.created.0,
            signed_from: self.signed_from.map(|m| m.0),
            signed_until: self.signed_until.map(|m| m.0),
            longest_lifetime: self.longest_lifetime.unwrap_or(7),
            longest_srs_lifetime: self.longest_srs_lifetime.unwrap_or(21),
            short_tags: self.short_tags.unwrap_or(true),
            srs: SrsLimits {
                hash_length: self.hash_length.unwrap_or(peer.hash_length),
                hash_min: self.hash_min.unwrap_or(peer.hash_min),
                max_age: self.max_age.unwrap_or(peer.max_age),
            },
        }
    }
}

struct Id(KeyId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = KeyId::parse(&text);
        id.map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is no key id: one digit, or a name like postsrsd-1")))
    }
}

/// A word of the ring file.
struct Named<T>(T);

macro_rules! named {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for Named<$type> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                <$type>::from_name(&text).map(Self).ok_or_else(|| {
                    let known: Vec<&str> = <$type>::ALL.iter().map(|v| v.name()).collect();
                    de::Error::custom(format!("`{text}` is none of: {}", known.join(", ")))
                })
            }
        }
    };
}

named!(Algorithm);
named!(KeyState);

/// Decoded straight into memory that is wiped, and never named in an error.
struct Base64(Secret);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decode;
        impl Visitor<'_> for Decode {
            type Value = Base64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
                let octets = BASE64.decode(text.as_bytes());
                octets.map(|o| Base64(Secret::new(Zeroizing::new(o)))).map_err(|_| E::custom("the secret is no base64"))
            }
        }
        deserializer.deserialize_str(Decode)
    }
}

/// A moment, as a TOML date or as a string of the same form.
struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "expected a time in UTC, for example 2026-11-22T00:00:00Z")]
        enum Either {
            Date(toml::value::Datetime),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Date(date) => date.to_string(),
            Either::Text(text) => text,
        };
        let at: jiff::Timestamp = text
            .parse()
            .map_err(|_| de::Error::custom(format!("`{text}` is no time in UTC, for example 2026-11-22T00:00:00Z")))?;
        Ok(Self(Timestamp(at.as_second())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::NewKey;
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
