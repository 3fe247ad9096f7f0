//! What the daemon's user, and the mail server's, may do with the files and sockets of a config.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups, setegid, seteuid, setgroups};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::config::{Config, Endpoint};
use crate::state::ownership::{is_ours, user_name};

/// As whom the unit runs the daemon.
const USER_OF_THE_UNIT: &str = "countersign";
/// The folder that the unit makes when the daemon starts.
pub(super) const RUN_FOLDER: &str = "/run/countersign";
/// The folder that the unit makes for the state.
const STATE_FOLDER: &str = "/var/lib/countersign";

/// A user whose rights are tried.
pub(super) struct Person {
    user: User,
    groups: Vec<Gid>,
}

impl Person {
    /// The user named on the command line, or as root the one of the unit, if there is such a user.
    ///
    /// # Errors
    /// There is no such user, or only root may try its rights.
    pub(super) fn asked(name: Option<&str>) -> Result<Option<Self>> {
        let is_root = geteuid().is_root();
        match name {
            None if !is_root => Ok(None),
            None => Self::find(USER_OF_THE_UNIT),
            Some(name) => {
                let person = Self::find(name)?.with_context(|| format!("--as-user: there is no user {name}"))?;
                if !is_root && person.user.uid != geteuid() {
                    bail!("--as-user {name}: only root can try the rights of another user");
                }
                Ok(Some(person))
            }
        }
    }

    /// A user of this machine.
    pub(super) fn find(name: &str) -> Result<Option<Self>> {
        let Some(user) = User::from_name(name).ok().flatten() else { return Ok(None) };
        let groups = getgrouplist(&CString::new(user.name.as_str())?, user.gid)?;
        Ok(Some(Self { user, groups }))
    }

    /// The user's name.
    fn name(&self) -> &str {
        &self.user.name
    }

    /// Calls `look` with the rights of this user.
    pub(super) fn try_rights<T>(&self, look: impl FnOnce() -> T) -> Result<T> {
        if !geteuid().is_root() || self.user.uid.is_root() {
            return Ok(look());
        }
        let (groups, gid) = (getgroups()?, getegid());
        setgroups(&self.groups)?;
        setegid(self.user.gid)?;
        seteuid(self.user.uid)?;
        let found = look();
        seteuid(Uid::from_raw(0))?;
        setegid(gid)?;
        setgroups(&groups)?;
        Ok(found)
    }

    fn is_in(&self, group: &str) -> bool {
        let gid = group.parse().map(Gid::from_raw).ok();
        let named = || nix::unistd::Group::from_name(group).ok().flatten().map(|group| group.gid);
        gid.or_else(named).is_none_or(|gid| self.groups.contains(&gid) || self.user.uid.is_root())
    }
}

/// What the daemon needs: to read a file, or to write in a folder.
struct Need {
    /// What it is, with the key of the config.
    what: String,
    path: PathBuf,
    access: Access,
    remedy: Remedy,
}

impl Need {
    fn read(what: impl Into<String>, path: &Path, remedy: Remedy) -> Self {
        Self { what: what.into(), path: path.to_owned(), access: Access::READ_OK, remedy }
    }

    fn write_in(what: impl Into<String>, folder: &Path) -> Self {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let access = Access::WRITE_OK.union(Access::EXEC_OK);
        Self { what: what.into(), path: folder.to_owned(), access, remedy: Remedy::Folder }
    }

    /// What is in the way of this user, with a command that changes it.
    fn obstacle(&self, user: &str) -> Option<String> {
        let error = accessat(CWD, &self.path, self.access, AtFlags::EACCESS).err()?;
        let (what, path) = (&self.what, self.path.display());
        if error == rustix::io::Errno::NOENT {
            return None;
        }
        if let Some(folder) = closed_folder(&self.path) {
            return Some(format!("{what} {path}: {user} may not enter {folder}: setfacl -m u:{user}:x {folder}"));
        }
        let owner = std::fs::metadata(&self.path).map(|about| user_name(about.uid())).unwrap_or_default();
        let may = if self.access == Access::READ_OK { "read it" } else { "write in it" };
        let remedy = match self.remedy {
            Remedy::Own => format!("chown {user} {path}"),
            Remedy::Folder if is_ours(&self.path) => format!("chown {user} {path}"),
            Remedy::Folder => "name a folder of its own".to_owned(),
            Remedy::Group => format!("chgrp {user} {path} && chmod 640 {path}"),
            Remedy::List => format!("setfacl -m u:{user}:r {path}, or LoadCredential= in the unit"),
        };
        Some(format!("{what} {path} belongs to {owner}, and {user} may not {may}: {remedy}"))
    }
}

/// How a right is given without taking one from another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The file is the daemon's alone.
    Own,
    /// A folder, which may be shared.
    Folder,
    /// Root writes the file, the daemon reads it.
    Group,
    /// Other programs read the file, too.
    List,
}

/// The first folder on the way that this user may not enter.
fn closed_folder(path: &Path) -> Option<String> {
    let folders: Vec<&Path> = path.ancestors().skip(1).filter(|it| !it.as_os_str().is_empty()).collect();
    let is_closed =
        |it: &&Path| accessat(CWD, *it, Access::EXEC_OK, AtFlags::EACCESS) == Err(rustix::io::Errno::ACCESS);
    folders.into_iter().rev().find(is_closed).map(|it| it.display().to_string())
}

/// What the daemon could not do if it ran as this user.
pub(super) fn of_daemon(config: &Config, person: &Person) -> Result<Vec<String>> {
    let needs = needs(config);
    let user = person.name();
    let mut found = person.try_rights(|| {
        let mut found: Vec<String> = needs.iter().filter_map(|need| need.obstacle(user)).collect();
        found.extend(state(config, user));
        found
    })?;
    let accesses = config.listeners.iter().map(|it| (&it.listen, &it.access));
    let accesses = accesses.chain(config.mta_services.iter().map(|it| (&it.listen, &it.access)));
    for (listen, access) in accesses {
        if let (Endpoint::Unix(path), Some(group)) = (listen, &access.group)
            && !person.is_in(group)
            && let Some(folder) =
                path.parent().filter(|folder| *folder != Path::new(RUN_FOLDER) && !gives(folder, group))
        {
            let folder = folder.display();
            found.push(format!(
                "the socket {listen} would not get the group {group}: give it a folder of its own, install -d -m 2710 -o {user} -g {group} \
                 {folder}"
            ));
        }
    }
    Ok(found)
}

/// Whether what is made in a folder gets this group.
fn gives(folder: &Path, group: &str) -> bool {
    let gid = nix::unistd::Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw());
    let setgid = |about: std::fs::Metadata| about.mode() & 0o2000 != 0 && Some(about.gid()) == gid;
    std::fs::metadata(folder).is_ok_and(setgid)
}

fn needs(config: &Config) -> Vec<Need> {
    let folder = |path: &Path| path.parent().unwrap_or(Path::new(".")).to_owned();
    let mut needs = vec![
        Need::read("the config", &config.path, Remedy::Group),
        Need::read("the key ring", &config.ring, Remedy::Own),
        Need::write_in("the folder of the key ring,", &folder(&config.ring)),
    ];
    for certificate in config.listeners.iter().filter_map(|it| it.certificate.as_ref()) {
        needs.push(Need::read("certificate", &certificate.chain, Remedy::List));
        needs.push(Need::read("private_key", &certificate.key, Remedy::List));
    }
    needs.extend(config.recipients.files.iter().map(|path| Need::read("inbound.recipients", path, Remedy::List)));
    let sockets = config.listeners.iter().map(|it| &it.listen).chain(config.mta_services.iter().map(|it| &it.listen));
    for path in sockets.filter_map(|it| if let Endpoint::Unix(path) = it { Some(path) } else { None }) {
        let folder = folder(path);
        // The unit makes this one for its user.
        if folder != Path::new(RUN_FOLDER) {
            needs.push(Need::write_in("the folder of the socket,", &folder));
        }
    }
    if let (Some(path), false) = (&config.control.path, config.control.is_default) {
        needs.push(Need::write_in("the folder of control.listen,", &folder(path)));
    }
    needs
}

/// The folder of the state file. Where the config names none, the unit's goes first.
fn state(config: &Config, user: &str) -> Option<String> {
    let path = config.state.path.as_ref()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    // What does not exist is made, if its parent lets this user.
    let existing = folder.ancestors().find(|it| it.exists()).unwrap_or(Path::new("."));
    let of_config = Need::write_in("the folder of state.path,", existing).obstacle(user)?;
    if !config.state.is_default {
        return Some(of_config);
    }
    let of_unit = Need::write_in("the state folder of the unit,", Path::new(STATE_FOLDER));
    match Path::new(STATE_FOLDER).exists() {
        true => of_unit.obstacle(user),
        // The unit makes it. Without the unit, the folder of the config counts.
        false => None,
    }
}

/// Sockets in folders that the mail server's user cannot enter. Only root can try that; for others it is empty.
pub(super) fn of_mail_server(config: &Config, user: &str) -> Result<Vec<String>> {
    let Some(person) = Person::find(user)?.filter(|_| geteuid().is_root()) else { return Ok(Vec::new()) };
    let sockets = config.mta_services.iter().map(|it| &it.listen).chain(config.listeners.iter().map(|it| &it.listen));
    let paths: Vec<&PathBuf> =
        sockets.filter_map(|it| if let Endpoint::Unix(path) = it { Some(path) } else { None }).collect();
    person.try_rights(|| {
        let closed = |path: &&PathBuf| {
            let folder = closed_folder(path)?;
            Some(format!(
                "{user} may not enter {folder}, so the mail server cannot reach the socket {}: setfacl -m u:{user}:x {folder}",
                path.display()
            ))
        };
        let mut found: Vec<String> = paths.iter().filter_map(closed).collect();
        found.dedup();
        found
    })
}
