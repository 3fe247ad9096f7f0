//! Who owns a file, and who asks for it: the words for a refusal of the operating system.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The daemon's user where packages and `scripts/install` have made it.
const DAEMON: &str = "countersign";

/// What a process wanted of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To read a file.
    Read,
    /// To write to a file.
    Write,
    /// To write in a folder.
    WriteIn,
}

/// Whether a folder is made for this program, by its name: another may be shared with other programs.
pub(crate) fn is_ours(path: &Path) -> bool {
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole.components().any(|part| part.as_os_str().to_string_lossy().contains("countersign"))
}

/// The name of a user, or its number if there is no such user.
pub(crate) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("the user with the id {uid}"), |user| user.name)
}

/// As whom the daemon runs, as far as this process can know: root asks for the user of the unit.
pub(crate) fn daemon_user() -> String {
    let own = own_name();
    let has_user = || matches!(nix::unistd::User::from_name(DAEMON), Ok(Some(_)));
    if own == "root" && has_user() { DAEMON.to_owned() } else { own }
}

/// The name of the user as whom this process runs.
pub(crate) fn own_name() -> String {
    user_name(rustix::process::geteuid().as_raw())
}

/// The command that makes a folder for sockets. With a group, sockets in it get that group, and no other user enters it.
pub(crate) fn make_folder(folder: &Path, user: &str, group: Option<&str>) -> String {
    let folder = folder.display();
    match group {
        Some(group) => format!("install -d -m 2710 -o {user} -g {group} {folder}"),
        None => format!("install -d -m 755 -o {user} {folder}"),
    }
}

/// Why the operating system refuses `wanted` at `path`, and the command that changes it; `None` for other errors.
pub(crate) fn refused(path: &Path, wanted: Wanted, error: &io::Error) -> Option<String> {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return Some(format!(
            "{} is on a file system that is read-only for this process. In a systemd unit, name it in ReadWritePaths=",
            path.display()
        ));
    }
    if error.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    // The first thing on the way that this user may not enter, or the thing itself.
    let folders: Vec<&Path> = path.ancestors().skip(1).filter(|it| !it.as_os_str().is_empty()).collect();
    let enters = |it: &&Path| rustix::fs::access(*it, rustix::fs::Access::EXEC_OK).is_ok();
    let closed = folders.into_iter().rev().find(|it| !enters(it));
    let (obstacle, may) = match (closed, wanted) {
        (Some(folder), _) => (folder, "enter"),
        (None, Wanted::Read) => (path, "read"),
        (None, Wanted::Write) => (path, "write to"),
        (None, Wanted::WriteIn) => (path, "write in"),
    };
    let asker = own_name();
    let shown = obstacle.display();
    let owner = std::fs::metadata(obstacle).map(|about| user_name(about.uid()));
    let Ok(owner) = owner else { return Some(format!("{asker} may not {may} {shown}")) };
    // Its rights, and not its owner, are in the way.
    if owner == asker {
        return Some(format!(
            "{shown} is {owner}'s own, and its mode does not let {asker} {may} it; run: chmod u+rwX {shown}"
        ));
    }
    let remedy = match (closed.is_some(), is_ours(obstacle)) {
        (true, false) => format!("run: setfacl -m u:{asker}:x {shown}"),
        (false, false) if wanted == Wanted::WriteIn => "use a folder of its own".to_owned(),
        // Nobody has to guess which of the two is the daemon.
        _ if asker == DAEMON => format!("run: chown {asker} {shown}"),
        _ if owner == DAEMON => "run this as root".to_owned(),
        _ => {
            let or_root = if owner == "root" { "" } else { " or root" };
            format!("run this as {owner}{or_root}; or if the daemon is to run as {asker}, run: chown {asker} {shown}")
        }
    };
    Some(format!("{shown} belongs to {owner}, and this runs as {asker}, who may not {may} it; {remedy}"))
}

/// Gives new files of root to the user who owns their folder, as the daemon does that of its keys.
///
/// # Errors
/// The error of the system.
pub(crate) fn give_as_folder(files: &[&Path]) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for path in files.iter().filter(|path| path.exists()) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let owner = std::fs::metadata(folder)?;
        if owner.uid() != 0 {
            // The user may put a link there, which is not followed.
            std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_refusal_names_owner_asker_and_remedy() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let asker = own_name();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ring.toml");
        std::fs::write(&file, "").unwrap();
        let shown = file.display();
        let own = refused(&file, Wanted::Read, &denied).unwrap();
        assert!(own.ends_with(&format!("does not let {asker} read it; run: chmod u+rwX {shown}")), "{own}");
        assert!(is_ours(Path::new("/etc/countersign/keys")) && is_ours(Path::new("/var/spool/postfix/countersign")));
        assert!(!is_ours(Path::new("/etc/ssl/private")) && !is_ours(Path::new("/run")));
        let unwritable = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let text = refused(folder.path(), Wanted::WriteIn, &unwritable).unwrap();
        assert!(text.contains("ReadWritePaths="), "{text}");
        assert_eq!(refused(Path::new("/"), Wanted::Read, &io::Error::from(io::ErrorKind::NotFound)), None);
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "the user with the id 4000000000");
    }
}
