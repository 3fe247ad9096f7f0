//! `init --from`: a config that fits a mail server, and the changes of the mail server's own configuration.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::{Group, User, geteuid};

use super::backup;
use super::config::Draft;
use super::exim::FittedExim;
use super::files::{make_ring, print_to_do, write_new};
use super::fit::Fit;
use super::postfix::FittedPostfix;
use super::recipe::same_domain;
use super::server::Server;
use super::step::{Action, Argv, Stage, Step};
use crate::cli::check;
use crate::cli::colours::{BOLD, DIM, GREEN, YELLOW};
use crate::cli::mta::exim::config_file;
use crate::config::{Config, Endpoint};

/// What `init --from` is asked for.
#[derive(Clone, Copy)]
pub(super) struct Fitted<'a> {
    /// The mail server's configuration.
    pub place: &'a Path,
    pub method: Option<&'a str>,
    /// Domains that were named on the command line.
    pub domains: &'a [String],
    pub srs_domain: Option<&'a str>,
    /// The folder of the config.
    pub dir: &'a Path,
    /// As whom the daemon runs.
    pub user: &'a str,
    /// Whether the mail server is changed.
    pub apply: bool,
}

/// Reads the mail server, writes config and ring, and prints the changes or makes them. `false`: the daemon has to be
/// started first.
pub(super) fn run(args: &Fitted<'_>) -> Result<bool> {
    // Commands that are pasted elsewhere need whole paths.
    let whole = |path: &Path| std::fs::canonicalize(path).with_context(|| path.display().to_string());
    let place = whole(args.place)?;
    std::fs::create_dir_all(args.dir).with_context(|| args.dir.display().to_string())?;
    let dir = whole(args.dir)?;
    let args = Fitted { place: &place, dir: &dir, ..*args };
    if place.join("main.cf").exists() {
        fit(&args, &FittedPostfix::read(&place)?)
    } else if let Some(file) = config_file(&place) {
        fit(&args, &FittedExim::read(&place, &file)?)
    } else {
        bail!(
            "{}: neither a main.cf of Postfix nor a configuration of Exim is there. For other mail servers, name your domains and the \
             server: countersign init --domain our.example --mta sendmail",
            place.display()
        );
    }
}

fn fit(args: &Fitted<'_>, mta: &dyn Fit) -> Result<bool> {
    let (kind, method) = mta.method();
    if let Some(other) = args.method.filter(|other| *other != method) {
        bail!(
            "--from fits {} by the method `{method}`, not `{other}`. For that one, name your domains: countersign init --domain our.example \
             --mta {kind} --method {other}",
            mta.name()
        );
    }
    let config_path = args.dir.join("countersign.toml");
    let config = if config_path.exists() {
        let config = Config::load(&config_path)?;
        if let Some(lacks) = mta.lacks(&config) {
            bail!(
                "{} is there already, and has {lacks}: it was written for another way. Move it away, or change {} by hand: \
                 docs/mta/{kind}.md",
                config_path.display(),
                mta.name()
            );
        }
        anstream::println!("{} is there already, and stays in use.", config_path.display());
        config
    } else {
        new_config(args, mta, &config_path)?
    };
    make_ring(&config.ring, args.user)?;
    let mut steps = preparations(args, mta)?;
    let changes = mta.changes(&config, args.srs_domain)?;
    if !changes.is_empty() {
        steps.extend(changes);
        steps.extend(mta.reload());
    }
    match args.apply {
        true => apply(args, mta, &config, &steps),
        false => {
            print(args, mta, &config_path, &steps);
            print_to_do(&config_path);
            Ok(true)
        }
    }
}

fn new_config(args: &Fitted<'_>, mta: &dyn Fit, path: &Path) -> Result<Config> {
    let (from, name, server) = (args.place.display().to_string(), mta.name(), mta.facts());
    let draft = Draft { server: &server, named: args.domains, from: &from };
    let domains = draft.domains();
    if !server.unlisted.is_empty() && args.domains.is_empty() {
        let found = if domains.is_empty() { String::new() } else { format!(" (found so far: {})", domains.join(", ")) };
        bail!(
            "the domains of this {name} are in a table that cannot be listed: {}. Name each of them{found}: countersign init --from {from} \
             --domain our.example",
            server.unlisted.join("; ")
        );
    }
    let Some(first) = domains.first() else {
        bail!("this {name} has no domain of its own. Name yours: countersign init --from {from} --domain our.example");
    };
    if let Some(srs) = args.srs_domain.filter(|srs| domains.iter().any(|name| name.eq_ignore_ascii_case(srs))) {
        bail!("{}", same_domain(srs));
    }
    let (kind, method) = mta.method();
    if !kind.built_methods().contains(&method) {
        bail!("this countersign was built without milters; build it with the feature `milter`");
    }
    let recipe = kind.recipe(method, args.srs_domain.is_some());
    let recipe = recipe.into_iter().find(|piece| piece.file == "countersign.toml").map(|piece| piece.text);
    // A domain of the user may have the example's name in it.
    const SRS: &str = "\u{1}";
    let recipe = recipe
        .unwrap_or_default()
        .replace("srs.our.example", SRS)
        .replace("our.example", first)
        .replace(SRS, args.srs_domain.unwrap_or_default());
    let text = draft.text(&mta.recipe(&recipe));
    let config = Config::parse(path, &text)?;
    write_new(path, &text)?;
    anstream::println!("{GREEN}Wrote {}{GREEN:#}: {}.", path.display(), about(&domains, &server));
    Ok(config)
}

fn about(domains: &[String], server: &Server) -> String {
    let first: Vec<&str> = domains.iter().take(5).map(String::as_str).collect();
    let more = domains.len().saturating_sub(first.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let days = server.queue_days;
    let networks = match server.networks.len() {
        0 => String::new(),
        1 => ", and of 1 network".to_owned(),
        n => format!(", and of {n} networks"),
    };
    format!("mail of {}{more}{networks}; it waits up to {days} days in the queue", first.join(", "))
}

/// Where systemd finds what is added to the unit.
const DROP_IN: &str = "/etc/systemd/system/countersign.service.d";

/// Users, groups and folders, and the start of the daemon.
fn preparations(args: &Fitted<'_>, mta: &dyn Fit) -> Result<Vec<Step>> {
    let (user, group) = (args.user, mta.group());
    let known = User::from_name(user).context("the users of this machine cannot be read")?;
    let mut steps = Vec::new();
    let mut push = |why: &str, run: Argv, undo: Option<Argv>| steps.push(Step::run(Stage::Prepare, why, run, undo));
    if known.is_none() {
        let run = Argv::of(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user]);
        push("The user as whom Countersign runs", run, None);
        let ring = args.dir.join("keys").display().to_string();
        push("to whom the key ring belongs", Argv::of(["chown", "-R", &format!("{user}:"), &ring]), None);
    }
    if let Some(folder) = mta.socket_folder().filter(|folder| !Path::new(folder).is_dir()) {
        let run = Argv::of(["install", "-d", "-m", "2710", "-o", user, "-g", &group, &folder]);
        let why = format!("The folder of the sockets, in which {} finds them", mta.name());
        push(&why, run, Some(Argv::of(["rmdir", &folder])));
    }
    let has_systemd = Path::new("/run/systemd/system").exists();
    // Sockets get the group of their folder. In /run/countersign, that is the one of the unit.
    if mta.socket_folder().is_none() && !known.as_ref().is_some_and(|user| user.uid.is_root() || is_in(user, &group)) {
        let undo = Argv::of(["gpasswd", "-d", user, &group]);
        push(
            "Countersign gives the sockets to this group",
            Argv::of(["usermod", "-a", "-G", &group, user]),
            Some(undo),
        );
        if has_systemd {
            let write =
                format!("mkdir -p {DROP_IN} && printf '[Service]\\nGroup=%s\\n' {group} > {DROP_IN}/group.conf");
            let undo = Argv::of(["rm", "-f", &format!("{DROP_IN}/group.conf")]);
            push("also where systemd runs it", Argv::of(["sh", "-c", &write]), Some(undo));
            push("which reads that", Argv::of(["systemctl", "daemon-reload"]), None);
        }
    }
    if has_systemd && Argv::of(["systemctl", "cat", "countersign.service"]).run().is_ok() {
        let run = Argv::of(["systemctl", "enable", "--now", "countersign.service"]);
        let why = format!("Countersign runs before {} asks it", mta.name());
        steps.push(Step::run(Stage::Start, &why, run, None));
    }
    Ok(steps)
}

fn is_in(user: &User, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else { return false };
    group.gid == user.gid || group.mem.contains(&user.name)
}

fn print(args: &Fitted<'_>, mta: &dyn Fit, config: &Path, steps: &[Step]) {
    let name = mta.name();
    if steps.iter().all(|step| step.stage != Stage::Configure) {
        anstream::println!(
            "{GREEN}{name} in {} asks Countersign already: there is nothing to change.{GREEN:#}",
            args.place.display()
        );
        return;
    }
    anstream::println!(
        "\nRun these as root, in this order. Under each stands what takes it back. Or let this program do it, after a backup:\n\n  \
         {BOLD}countersign init --from {} --dir {} --apply{BOLD:#}\n",
        args.place.display(),
        args.dir.display()
    );
    let mut is_started = steps.iter().any(|step| step.stage == Stage::Start);
    for step in steps {
        if step.stage == Stage::Configure && !is_started {
            is_started = true;
            anstream::println!(
                "{DIM}# Start Countersign now, and leave it running: {name} puts mail off while it is down{DIM:#}"
            );
            anstream::println!("countersign serve -c {}\n", config.display());
        }
        anstream::println!("{DIM}# {}{DIM:#}", step.why);
        match &step.action {
            Action::Run(command, _) => anstream::println!("{command}"),
            Action::Edit(path, blocks) => {
                for block in blocks {
                    anstream::println!(
                        "{DIM}# Into {}, {}:{DIM:#}\n{}",
                        path.display(),
                        block.place,
                        block.text.trim_end()
                    );
                }
            }
        }
        if let Some(undo) = step.undo_shown() {
            anstream::println!("{DIM}# undo: {undo}{DIM:#}");
        }
        anstream::println!();
    }
    anstream::println!(
        "Then see whether it fits: countersign check -c {} --mta-config {}",
        config.display(),
        args.place.display()
    );
}

/// The command that runs the daemon as its user.
fn serve(args: &Fitted<'_>, config: &Path) -> String {
    let serve = format!("countersign serve -c {}", config.display());
    if args.user == "root" { serve } else { format!("runuser -u {} -- {serve}", args.user) }
}

/// How long the daemon may take to listen after its start.
const START: Duration = Duration::from_secs(10);

fn apply(args: &Fitted<'_>, mta: &dyn Fit, config: &Config, steps: &[Step]) -> Result<bool> {
    let name = mta.name();
    if !geteuid().is_root() {
        bail!("--apply changes the mail server's configuration, and needs root for that");
    }
    let changes: Vec<Step> = steps.iter().filter(|it| it.stage >= Stage::Configure).cloned().collect();
    let before: Vec<&Step> = steps.iter().filter(|it| it.stage < Stage::Configure).collect();
    for step in &before {
        step.take()?;
        anstream::println!("{DIM}{}{DIM:#}", step.shown());
    }
    let patience = if before.iter().any(|it| it.stage == Stage::Start) { START } else { Duration::ZERO };
    if let Some(silent) = silent(config, patience) {
        anstream::println!(
            "{YELLOW}Countersign does not run yet{YELLOW:#} ({silent} does not answer), and {name} would put all mail off. Nothing was \
             changed in {}. Start it by its unit, packaging/countersign.service, or in another window, and run this again:\n  {}",
            args.place.display(),
            serve(args, &config.path)
        );
        return Ok(false);
    }
    if changes.is_empty() {
        anstream::println!("{name} in {} asks Countersign already: nothing was changed.", args.place.display());
    } else {
        let prepared = before.into_iter().cloned().collect();
        backup::change(args.dir, &args.place.display().to_string(), &mta.files(), prepared, &changes)?;
        anstream::println!("Taken back by: countersign init --undo --dir {}\n", args.dir.display());
    }
    check::mail_server(config, args.place)
}

/// A socket of the config on which nobody answers.
fn silent(config: &Config, patience: Duration) -> Option<Endpoint> {
    let started = Instant::now();
    let answers = |path: &Path| loop {
        if UnixStream::connect(path).is_ok() {
            return true;
        }
        if started.elapsed() >= patience {
            return false;
        }
        pause();
    };
    let sockets = config.mta_services.iter().map(|it| &it.listen);
    sockets.filter(|it| matches!(it, Endpoint::Unix(path) if !answers(path))).map(Clone::clone).next()
}

#[expect(clippy::disallowed_methods, reason = "a command line program, which waits for the start of the daemon")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
