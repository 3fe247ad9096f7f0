//! What is made before the daemon starts: its user, folders, and lines for its unit.

use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::{Group, User};

use super::argv::{Argv, quoted};
use super::fit::Fit;
use super::step::{Stage, Step};

/// Where systemd finds what is added to the unit.
const DROP_IN: &str = "/etc/systemd/system/countersign.service.d";
/// The folder of sockets that the unit names.
const USUAL_SOCKETS: &str = "/var/spool/postfix/countersign";

/// A line for the unit.
fn drop_in(why: &str, line: &str) -> Vec<Step> {
    let file = format!("{DROP_IN}/init.conf");
    let write = format!("mkdir -p {DROP_IN} && printf '[Service]\\n%s\\n' {} > {file}", quoted(line));
    let remove = format!("rm -f {file} && systemctl daemon-reload");
    let step =
        |why: &str, run: &str, undo: Option<Argv>| Step::run(Stage::Prepare, why, Argv::of(["sh", "-c", run]), undo);
    let undo = Argv::of(["sh", "-c", &remove]);
    vec![step(why, &write, Some(undo)), step("and reads that", "systemctl daemon-reload", None)]
}

/// Users, groups and folders, and the start of the daemon.
pub(super) fn preparations(user: &str, dir: &Path, mta: &dyn Fit) -> Result<Vec<Step>> {
    let group = mta.group();
    let known = User::from_name(user).context("the users of this machine cannot be read")?;
    let mut steps = Vec::new();
    let mut push = |why: &str, run: Argv, undo: Option<Argv>| steps.push(Step::run(Stage::Prepare, why, run, undo));
    if known.is_none() {
        let run = Argv::of(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user]);
        push("The user that runs Countersign", run, None);
        let ring = dir.join("keys").display().to_string();
        push("and that owns the key ring", Argv::of(["chown", "-R", &format!("{user}:"), &ring]), None);
    }
    if let Some(folder) = mta.socket_folder().filter(|folder| !Path::new(folder).is_dir()) {
        let run = Argv::of(["install", "-d", "-m", "2710", "-o", user, "-g", &group, &folder]);
        let why = format!("The folder of the sockets, in which {} finds them", mta.name());
        push(&why, run, Some(Argv::of(["rmdir", "--ignore-fail-on-non-empty", &folder])));
    }
    let has_systemd = has_systemd();
    if !has_systemd {
        // Without the unit, what the daemon writes is beside its config.
        for name in ["state", "run"].iter().map(|name| dir.join(name).display().to_string()) {
            if !Path::new(&name).exists() && known.as_ref().is_none_or(|user| !user.uid.is_root()) {
                let run = Argv::of(["install", "-d", "-m", "750", "-o", user, &name]);
                push("A folder that Countersign writes to", run, None);
            }
        }
    }
    // Sockets get the group of their folder. In /run/countersign, that is the one of the unit.
    let has_right = known.as_ref().is_some_and(|user| user.uid.is_root() || is_in(user, &group));
    match mta.socket_folder() {
        None if has_systemd => {
            steps.extend(drop_in("The unit gives the sockets to this group", &format!("Group={group}")));
        }
        None if !has_right => {
            let undo = Argv::of(["gpasswd", "-d", user, &group]);
            push(
                "Countersign gives the sockets to this group",
                Argv::of(["usermod", "-a", "-G", &group, user]),
                Some(undo),
            );
        }
        Some(folder) if has_systemd && folder != USUAL_SOCKETS => {
            steps.extend(drop_in("The unit lets Countersign write there", &format!("ReadWritePaths={folder}")));
        }
        _ => {}
    }
    let is_of_unit = dir == Path::new("/etc/countersign") && user == "countersign";
    if has_systemd && is_of_unit && Argv::of(["systemctl", "cat", "countersign.service"]).run().is_ok() {
        let why = format!("Countersign runs before {} asks it", mta.name());
        for word in ["enable", "restart"] {
            let run = Argv::of(["systemctl", word, "countersign.service"]);
            steps.push(Step::run(Stage::Start, &why, run, None));
        }
    }
    Ok(steps)
}

fn is_in(user: &User, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else { return false };
    group.gid == user.gid || group.mem.contains(&user.name)
}

/// Whether systemd runs this machine.
fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}
