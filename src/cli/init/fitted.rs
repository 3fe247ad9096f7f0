//! `init --from`: a config that fits a mail server, and the changes of the mail server's own configuration.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::{Group, User, geteuid};

use super::backup;
use super::config::Draft;
use super::files::{make_ring, write_new};
use super::postfix::{self, Site};
use super::recipe::same_domain;
use super::server::Server;
use super::step::{Argv, Stage, Step};
use crate::cli::check;
use crate::cli::colours::{BOLD, DIM, GREEN, YELLOW};
use crate::cli::mta::postfix::Postfix;
use crate::config::{Config, Endpoint};
use crate::recipes::Mta;

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
    if !args.place.join("main.cf").exists() {
        bail!(
            "{}: there is no main.cf of Postfix. For other mail servers, name your domains and the server: \
             countersign init --domain our.example --mta exim",
            args.place.display()
        );
    }
    if let Some(method) = args.method.filter(|method| *method != "milter") {
        bail!(
            "--from fits the method `milter`, not `{method}`. For that one, name your domains: countersign init --domain our.example \
             --mta postfix --method {method}"
        );
    }
    // Commands that are pasted elsewhere need whole paths.
    let whole = |path: &Path| std::fs::canonicalize(path).with_context(|| path.display().to_string());
    std::fs::create_dir_all(args.dir).with_context(|| args.dir.display().to_string())?;
    let (place, dir) = (whole(args.place)?, whole(args.dir)?);
    fit(&Fitted { place: &place, dir: &dir, ..*args })
}

fn fit(args: &Fitted<'_>) -> Result<bool> {
    let postfix = Postfix::read(args.place)?;
    let server = postfix::read(&postfix);
    let config_path = args.dir.join("countersign.toml");
    let (config, is_new) = match config_path.exists() {
        true => (Config::load(&config_path)?, false),
        false => (new_config(args, &postfix, &server, &config_path)?, true),
    };
    let milter = Endpoint::Unix(PathBuf::from(postfix::socket_folder(&postfix)).join("milter"));
    if !config.mta_services.iter().any(|it| it.listen == milter) {
        bail!(
            "{} is there already, and has no milter on {milter}: it was written for another way. Move it away, or change Postfix by hand: \
             docs/mta/postfix.md",
            config_path.display()
        );
    }
    if !is_new {
        anstream::println!("{} is there already, and stays in use.", config_path.display());
    }
    make_ring(&config.ring, args.user)?;
    let names = config.policy.domains.local.names();
    // The machine's own name seldom has people.
    let has_people = |name: &&String| !name.starts_with('.') && *name != postfix.get("myhostname");
    let domain = names.iter().find(has_people).or(names.first()).cloned().unwrap_or_default();
    let site = Site { srs_domain: args.srs_domain, domain: &domain };
    let mut steps = preparations(args, &postfix)?;
    let changes = postfix::steps(&postfix, &site)?;
    let is_changed = !changes.is_empty();
    steps.extend(changes);
    if is_changed {
        steps.push(Step {
            stage: Stage::Reload,
            why: "Postfix reads its configuration".to_owned(),
            run: postfix::of_instance("postfix", &postfix, ["reload"]),
            undo: None,
        });
    }
    match args.apply {
        true => apply(args, &config, &steps),
        false => {
            print(args, &config_path, &steps);
            Ok(true)
        }
    }
}

fn new_config(args: &Fitted<'_>, postfix: &Postfix, server: &Server, path: &Path) -> Result<Config> {
    let from = args.place.display().to_string();
    let draft = Draft { server, named: args.domains, from: &from };
    let domains = draft.domains();
    if !server.unlisted.is_empty() && args.domains.is_empty() {
        let found = if domains.is_empty() { String::new() } else { format!(" (found so far: {})", domains.join(", ")) };
        bail!(
            "the domains of this Postfix are in a table that cannot be listed: {}. Name each of them{found}: countersign init --from {from} \
             --domain our.example",
            server.unlisted.join("; ")
        );
    }
    let Some(first) = domains.first() else {
        bail!("this Postfix has no domain of its own. Name yours: countersign init --from {from} --domain our.example");
    };
    if let Some(srs) = args.srs_domain.filter(|srs| domains.iter().any(|name| name.eq_ignore_ascii_case(srs))) {
        bail!("{}", same_domain(srs));
    }
    let recipe = Mta::Postfix.recipe("milter", args.srs_domain.is_some());
    let recipe = recipe.into_iter().find(|piece| piece.file == "countersign.toml").map(|piece| piece.text);
    let recipe = recipe.context("this countersign was built without milters; build it with the feature `milter`")?;
    let group = group_of(postfix.get("mail_owner"));
    // A domain of the user may have the example's name in it.
    const SRS: &str = "\u{1}";
    let recipe = recipe
        .replace("srs.our.example", SRS)
        .replace("our.example", first)
        .replace(SRS, args.srs_domain.unwrap_or_default())
        .replace("/var/spool/postfix/countersign", &postfix::socket_folder(postfix))
        .replace("group = \"postfix\"", &format!("group = \"{group}\""));
    let text = draft.text(&recipe);
    let config = Config::parse(path, &text)?;
    std::fs::create_dir_all(args.dir).with_context(|| args.dir.display().to_string())?;
    write_new(path, &text)?;
    anstream::println!("{GREEN}Wrote {}{GREEN:#}: {}.", path.display(), about(&domains, server));
    Ok(config)
}

fn about(domains: &[String], server: &Server) -> String {
    let first: Vec<&str> = domains.iter().take(5).map(String::as_str).collect();
    let more = domains.len().saturating_sub(first.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let days = server.queue_days;
    let networks = server.networks.len();
    let plural = if networks == 1 { "" } else { "s" };
    format!(
        "mail of {}{more}, and of {networks} network{plural}; it waits up to {days} days in the queue",
        first.join(", ")
    )
}

/// The group of a user, by which Postfix reaches the sockets.
fn group_of(user: &str) -> String {
    let user = User::from_name(user).ok().flatten();
    let group = user.and_then(|user| Group::from_gid(user.gid).ok().flatten());
    group.map_or_else(|| "postfix".to_owned(), |group| group.name)
}

/// Users, groups and folders, and the start of the daemon.
fn preparations(args: &Fitted<'_>, postfix: &Postfix) -> Result<Vec<Step>> {
    let (user, group) = (args.user, group_of(postfix.get("mail_owner")));
    let folder = postfix::socket_folder(postfix);
    let known = User::from_name(user).context("the users of this machine cannot be read")?;
    let mut steps = Vec::new();
    let mut push = |why: &str, run: Argv, undo: Option<Argv>| {
        steps.push(Step { stage: Stage::Prepare, why: why.to_owned(), run, undo });
    };
    if known.is_none() {
        let run = Argv::of(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user]);
        push("The user as whom Countersign runs", run, None);
        let ring = args.dir.join("keys").display().to_string();
        push("to whom the key ring belongs", Argv::of(["chown", "-R", &format!("{user}:"), &ring]), None);
    }
    if !Path::new(&folder).is_dir() {
        let run = Argv::of(["install", "-d", "-m", "2710", "-o", user, "-g", &group, &folder]);
        push("The folder of the sockets, in which Postfix finds them", run, Some(Argv::of(["rmdir", &folder])));
    }
    let is_member = known.as_ref().is_some_and(|user| user.uid.is_root() || is_in(user, &group));
    if !is_member {
        let undo = Argv::of(["gpasswd", "-d", user, &group]);
        push(
            "Countersign gives the sockets to this group",
            Argv::of(["usermod", "-a", "-G", &group, user]),
            Some(undo),
        );
    }
    if Path::new("/run/systemd/system").exists() && Argv::of(["systemctl", "cat", "countersign.service"]).run().is_ok()
    {
        let run = Argv::of(["systemctl", "enable", "--now", "countersign.service"]);
        steps.push(Step {
            stage: Stage::Start,
            why: "Countersign runs before Postfix asks it".into(),
            run,
            undo: None,
        });
    }
    Ok(steps)
}

fn is_in(user: &User, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else { return false };
    group.gid == user.gid || group.mem.contains(&user.name)
}

fn print(args: &Fitted<'_>, config: &Path, steps: &[Step]) {
    if steps.iter().all(|step| step.stage != Stage::Configure) {
        anstream::println!(
            "{GREEN}Postfix in {} asks Countersign already: there is nothing to change.{GREEN:#}",
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
                "{DIM}# Start Countersign now, and leave it running: Postfix puts mail off while it is down{DIM:#}"
            );
            anstream::println!("countersign serve -c {}\n", config.display());
        }
        anstream::println!("{DIM}# {}{DIM:#}\n{}", step.why, step.run);
        if let Some(undo) = &step.undo {
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

fn apply(args: &Fitted<'_>, config: &Config, steps: &[Step]) -> Result<bool> {
    if !geteuid().is_root() {
        bail!("--apply changes the mail server's configuration, and needs root for that");
    }
    let changes: Vec<Step> = steps.iter().filter(|it| it.stage >= Stage::Configure).cloned().collect();
    let before: Vec<&Step> = steps.iter().filter(|it| it.stage < Stage::Configure).collect();
    for step in &before {
        step.run.run()?;
        anstream::println!("{DIM}{}{DIM:#}", step.run);
    }
    let patience = if before.iter().any(|it| it.stage == Stage::Start) { START } else { Duration::ZERO };
    if let Some(silent) = silent(config, patience) {
        anstream::println!(
            "{YELLOW}Countersign does not run yet{YELLOW:#} ({silent} does not answer), and Postfix would put all mail off. Nothing was \
             changed in {}. Start it by its unit, packaging/countersign.service, or in another window, and run this again:\n  {}",
            args.place.display(),
            serve(args, &config.path)
        );
        return Ok(false);
    }
    if changes.is_empty() {
        anstream::println!("Postfix in {} asks Countersign already: nothing was changed.", args.place.display());
    } else {
        let files = ["main.cf", "master.cf"].map(|name| args.place.join(name));
        let prepared = before.into_iter().cloned().collect();
        backup::change(args.dir, &args.place.display().to_string(), &files, prepared, &changes)?;
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
