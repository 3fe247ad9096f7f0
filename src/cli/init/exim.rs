//! What Exim says about the site, and the lines that have it ask Countersign's map.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::argv::{Argv, quoted};
use super::exim_places::{self, Place};
use super::fit::Fit;
use super::marks;
use super::server::{Server, group_of};
use super::step::{Action, Stage, Step};
use crate::cli::mta::exim::{Exim, option};
use crate::cli::mta::tools::program;
use crate::config::{Config, Endpoint, ServiceProtocol};
use crate::recipes::Mta;

/// An Exim that asks the map.
pub(super) struct FittedExim {
    exim: Exim,
    /// The file that Exim reads.
    file: PathBuf,
    /// The files that it is made from, in order: the same one, or Debian's template or pieces.
    sources: Vec<PathBuf>,
}

/// The group of Debian's Exim.
const GROUP: &str = "Debian-exim";

impl FittedExim {
    /// Reads Exim's configuration. `file` is what Exim reads for `place`.
    pub(super) fn read(place: &Path, file: &Path) -> Result<Self> {
        let is_made = file.parent() != Some(place) && file != place;
        let sources = if is_made { debian_sources(place)? } else { vec![file.to_owned()] };
        Ok(Self { exim: Exim::read(file)?, file: file.to_owned(), sources })
    }

    fn is_made(&self) -> bool {
        !self.sources.contains(&self.file)
    }
}

/// The files from which Debian's `update-exim4.conf` makes the configuration.
fn debian_sources(place: &Path) -> Result<Vec<PathBuf>> {
    let settings = fs::read_to_string(place.join("update-exim4.conf.conf")).unwrap_or_default();
    if !settings.contains("dc_use_split_config='true'") {
        return Ok(vec![place.join("exim4.conf.template")]);
    }
    let mut files = Vec::new();
    for part in ["main", "acl", "router", "transport"] {
        let folder = place.join("conf.d").join(part);
        let mut pieces: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| folder.display().to_string())?
            .filter_map(|file| Some(file.ok()?.path()))
            // As run-parts, which takes no copies of editors.
            .filter(|path| path.is_file() && !path.to_string_lossy().ends_with('~'))
            .collect();
        pieces.sort();
        files.extend(pieces);
    }
    Ok(files)
}

impl Fit for FittedExim {
    fn method(&self) -> (Mta, &'static str) {
        (Mta::Exim, "map")
    }

    fn name(&self) -> &'static str {
        "Exim"
    }

    fn facts(&self) -> Server {
        let own_name = || option(&self.file, "primary_hostname").unwrap_or_default();
        facts(&self.exim, &own_name)
    }

    fn recipe(&self, text: &str) -> String {
        text.replace(&format!("group = \"{GROUP}\""), &format!("group = \"{}\"", self.group()))
    }

    fn group(&self) -> String {
        let user = option(&self.file, "exim_user").unwrap_or_else(|| GROUP.to_owned());
        option(&self.file, "exim_group").or_else(|| group_of(&user)).unwrap_or_else(|| GROUP.to_owned())
    }

    // The unit makes /run/countersign.
    fn socket_folder(&self) -> Option<String> {
        None
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sources.clone()
    }

    fn lacks(&self, config: &Config) -> Option<String> {
        map_of(config).is_none().then(|| "no socketmap on a socket in the file system".to_owned())
    }

    fn changes(&self, config: &Config) -> Result<Vec<Step>> {
        if !config.policy.domains.srs.is_empty() {
            bail!(
                "SRS needs more of Exim's own lines than can be put in by themselves: docs/mta/exim.md#srs says which"
            );
        }
        let texts: Vec<(PathBuf, String)> = self
            .sources
            .iter()
            .map(|path| Ok((path.clone(), fs::read_to_string(path).with_context(|| path.display().to_string())?)))
            .collect::<Result<_>>()?;
        if texts.iter().any(|(_, text)| marks::are_in(text)) {
            return Ok(Vec::new());
        }
        if self.exim.lines.iter().any(|line| line.starts_with("CS_SIGN")) || self.exim.mentions("CS_MAP") {
            bail!("this Exim has lines for Countersign already, which were put in by hand: see docs/mta/exim.md");
        }
        if self.exim.list("domainlist", "local_domains").is_none() {
            bail!(
                "this Exim has no `domainlist local_domains`, which the lines of docs/mta/exim.md#by-the-map name: put them in by hand"
            );
        }
        let map = map_of(config).context("the config has no socketmap")?;
        let acl = self.exim.get("acl_smtp_rcpt").unwrap_or_default();
        let pieces = pieces(map, acl)?;
        let edit = |(path, blocks)| Step {
            stage: Stage::Configure,
            why: "Exim signs in its transport, checks tags at RCPT, and takes them off in a router".to_owned(),
            action: Action::Edit(path, blocks),
        };
        Ok(exim_places::find(&texts, &pieces)?.into_iter().map(edit).collect())
    }

    // Exim looks at its whole configuration when it is asked to.
    fn greets_at(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn reload(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let file = self.file.display().to_string();
        if self.is_made() {
            let make = Argv::of(["update-exim4.conf"]);
            steps.push(Step::run(Stage::Reload, "Debian's file is made anew", make, None));
        }
        let found = program(&["exim4", "exim"]);
        let exim = found.as_ref().and_then(|path| path.file_name()?.to_str()).unwrap_or("exim");
        steps.push(Step::run(
            Stage::Reload,
            "Exim looks at its configuration",
            Argv::of([exim, "-C", &file, "-bV"]),
            None,
        ));
        let spool = option(&self.file, "spool_directory").unwrap_or_default();
        let usual = ["/run/exim4/exim.pid".to_owned(), format!("{spool}/exim-daemon.pid")];
        let pid_file =
            option(&self.file, "pid_file_path").into_iter().chain(usual).find(|path| Path::new(path).is_file());
        if let Some(path) = pid_file {
            let pid = format!("\"$(cat {})\"", quoted(&path));
            let hang_up = Argv::of(["sh", "-c", &format!("kill -HUP {pid}")]);
            // The number may be of another program by now.
            let test = Argv::of(["sh", "-c", &format!("grep -q '^exim' /proc/{pid}/comm")]);
            let action = Action::IfRunning(hang_up, test);
            steps.push(Step { stage: Stage::Reload, why: "and reads it".to_owned(), action });
        }
        steps
    }
}

/// The socket of the map.
fn map_of(config: &Config) -> Option<&Path> {
    let mut maps = config.mta_services.iter().filter(|it| it.protocol == ServiceProtocol::Socketmap);
    maps.find_map(|it| if let Endpoint::Unix(path) = &it.listen { Some(path.as_path()) } else { None })
}

/// What is put in, and where: the recipe of docs/mta, but for what waits until mail has been signed for a week.
fn pieces(map: &Path, acl: &str) -> Result<Vec<(Place, String)>> {
    let is_name = !acl.is_empty() && acl.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        bail!(
            "acl_smtp_rcpt = {acl} is not the name of an ACL: put the lines of docs/mta/exim.md#by-the-map in by hand"
        );
    }
    let recipe = Mta::Exim.recipe("map", false);
    let text = |file: &str| recipe.iter().find(|piece| piece.file == file).map_or("", |piece| &piece.text);
    let main: String = text("exim.conf/main")
        .lines()
        .filter(|it| !it.starts_with("acl_smtp_data"))
        .map(|it| format!("{it}\n"))
        .collect();
    let main = main.replace("CS_MAP = /run/countersign/map", &format!("CS_MAP = {}", map.display()));
    Ok(vec![
        (Place::Top, main),
        (Place::BeforeVerify(acl.to_owned()), text("exim.conf/acl_smtp_rcpt_mx").to_owned()),
        (Place::Routers, text("exim.conf/routers").to_owned()),
        (Place::Transports, text("exim.conf/remote_smtp").to_owned()),
    ])
}

/// Reads domains, networks and times.
fn facts(exim: &Exim, own_name: &dyn Fn() -> String) -> Server {
    let mut server = Server { queue_days: exim.longest_try().unwrap_or(5).max(1), ..Server::default() };
    let mut unlisted = Vec::new();
    let mut names = |list: &str| {
        let mut all = Vec::new();
        for entry in exim.list("domainlist", list).unwrap_or_default() {
            match entry.split_once(';') {
                None if entry == "@" => all.push(own_name()),
                None if entry.starts_with('@') || entry.starts_with('!') => {}
                None if entry.starts_with('+') || entry.contains('$') => unlisted.push(format!("{list} has {entry}")),
                None => all.push(entry.strip_prefix('*').unwrap_or(&entry).to_owned()),
                Some((kind, path)) => match keys(kind, Path::new(path.trim())) {
                    Some(keys) => all.extend(keys),
                    None => unlisted.push(format!("{list} has {entry}")),
                },
            }
        }
        all
    };
    let local = names("local_domains");
    let relay = names("relay_to_domains");
    for name in local {
        server.add_local(&name, "local_domains");
    }
    server.relay = relay.into_iter().filter(|name| !server.local.iter().any(|(known, _)| known == name)).collect();
    server.unlisted = unlisted;
    server
}

/// The keys of a table in a file or folder.
fn keys(kind: &str, path: &Path) -> Option<Vec<String>> {
    match kind.trim() {
        "lsearch" | "wildlsearch" | "nwildlsearch" => {
            let text = fs::read_to_string(path).ok()?;
            let lines = text.lines().filter(|line| !line.starts_with(['#', ' ', '\t']));
            Some(
                lines
                    .filter_map(|line| line.split([':', ' ', '\t']).next())
                    .map(str::to_owned)
                    .filter(|it| !it.is_empty())
                    .collect(),
            )
        }
        kind if kind.starts_with("dsearch") => {
            let names = fs::read_dir(path).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            Some(names.filter(|name| !name.starts_with('.')).collect())
        }
        _ => None,
    }
}
