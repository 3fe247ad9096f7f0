//! `init --from`: a config that fits a mail server, and the changes of the mail server's own configuration.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use super::argv::{Argv, quoted};
use super::backup;
use super::exim::FittedExim;
use super::files::{make_ring, print_to_do};
use super::fit::Fit;
use super::greetings;
use super::new_config::{self, is_in_it};
use super::postfix::FittedPostfix;
use super::prepare::preparations;
use super::recipe::Recipe;
use super::request::Fitted;
use super::step::{Action, Stage, Step};
use crate::cli::check;
use crate::cli::colours::{BOLD, DIM, GREEN, YELLOW};
use crate::cli::mta::exim::config_file;
use crate::cli::status::other_config;
use crate::config::{Config, Endpoint};

/// Reads the mail server, writes config and ring, and prints the changes or makes them. `false`: the daemon has to be
/// started first.
pub(super) fn run(args: &Fitted<'_>) -> Result<bool> {
    // Commands that are pasted elsewhere need whole paths.
    let whole = |path: &Path| std::fs::canonicalize(path).with_context(|| path.display().to_string());
    let place = whole(args.place)?;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(args.dir);
    made.with_context(|| args.dir.display().to_string())?;
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
        return by_recipe(args, mta, other);
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
        is_in_it(args, &config)?;
        config
    } else {
        new_config::write(args, mta, method, &config_path)?.config
    };
    make_ring(&config.ring, args.user)?;
    let _lock = if args.apply { Some(backup::ready(args.dir)?) } else { None };
    let mut steps = preparations(args.user, args.dir, mta)?;
    let changes = mta.changes(&config)?;
    if !changes.is_empty() {
        steps.extend(changes);
        steps.extend(mta.reload());
    }
    match args.apply {
        true => apply(args, mta, &config, &steps),
        false => {
            let is_running = silent(&config, Duration::ZERO).is_none();
            print(args, mta, &config_path, &steps, is_running);
            print_to_do(&config_path);
            Ok(true)
        }
    }
}

/// Another method than the one whose steps are known: a config that fits, and the recipe's lines.
fn by_recipe(args: &Fitted<'_>, mta: &dyn Fit, method: &str) -> Result<bool> {
    let (kind, usual) = mta.method();
    if !kind.built_methods().contains(&method) {
        bail!("there is no method `{method}` for {kind}; there are: {}", kind.built_methods().join(", "));
    }
    if args.apply {
        bail!(
            "--apply takes the steps of the method `{usual}`. Those of `{method}` are printed without --apply, for you to paste"
        );
    }
    let path = args.dir.join("countersign.toml");
    if path.exists() {
        bail!("{} is there already: nothing was changed", path.display());
    }
    let new = new_config::write(args, mta, method, &path)?;
    make_ring(&new.config.ring, args.user)?;
    let (domains, srs_domain) = (new.domains.as_slice(), args.srs_domain);
    let recipe = Recipe { mta: kind, method: Some(method), domains, srs_domain, dir: args.dir, user: args.user };
    recipe.print(method, &|text| new_config::with_ports(&mta.recipe(text), &new.ports));
    Ok(true)
}

fn print(args: &Fitted<'_>, mta: &dyn Fit, config: &Path, steps: &[Step], is_running: bool) {
    let name = mta.name();
    if steps.iter().all(|step| step.stage != Stage::Configure) {
        anstream::println!(
            "{GREEN}{name} in {} asks Countersign already: there is nothing to change.{GREEN:#}",
            args.place.display()
        );
        return;
    }
    anstream::println!(
        "\nRun these as root, in this order. Below most of them stands the undo. Or let this program do it, after a backup:\n\n  \
         {BOLD}{}{BOLD:#}\n",
        apply_command(args)
    );
    let mut is_started = is_running || steps.iter().any(|step| step.stage == Stage::Start);
    for step in steps {
        if step.stage == Stage::Configure && !is_started {
            is_started = true;
            // As comments: pasted as they are, they would wait for the daemon's end.
            anstream::println!(
                "{DIM}# Start Countersign now, and leave it running: {name} defers mail while it is down:\n\
                 # systemctl enable --now countersign. Only to try it out, in another window:{DIM:#}\n# {}\n",
                serve(args, config)
            );
        }
        anstream::println!("{DIM}# {}{DIM:#}", step.why);
        match &step.action {
            Action::Run(..) | Action::Set(_) | Action::IfRunning(..) => anstream::println!("{}", step.shown()),
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
    let check = [
        "countersign",
        "check",
        "-c",
        &config.display().to_string(),
        "--mta-config",
        &args.place.display().to_string(),
    ];
    anstream::println!("Then see whether it fits: {}", Argv::of(check));
}

/// The command that makes the changes.
fn apply_command(args: &Fitted<'_>) -> String {
    let (place, dir) = (args.place.display().to_string(), args.dir.display().to_string());
    let user: &[&str] = if args.user == "countersign" { &[] } else { &["--user", args.user] };
    let words = ["countersign", "init", "--from", &place, "--dir", &dir].into_iter().chain(user.iter().copied());
    Argv::of(words.chain(["--apply"])).to_string()
}

/// The command that runs the daemon as its user.
fn serve(args: &Fitted<'_>, config: &Path) -> String {
    let serve = Argv::of(["countersign", "serve", "-c", &config.display().to_string()]);
    if args.user == "root" { serve.to_string() } else { format!("runuser -u {} -- {serve}", args.user) }
}

/// How long the daemon may take to listen after its start.
const START: Duration = Duration::from_secs(10);

fn apply(args: &Fitted<'_>, mta: &dyn Fit, config: &Config, steps: &[Step]) -> Result<bool> {
    let name = mta.name();
    if !geteuid().is_root() {
        bail!("--apply changes the mail server's configuration, and needs root for that");
    }
    let changes: Vec<Step> = steps.iter().filter(|it| it.stage >= Stage::Configure).cloned().collect();
    // Where nothing is left to do, a daemon that answers is not started again.
    let is_done = changes.is_empty() && silent(config, Duration::ZERO).is_none();
    let before: Vec<&Step> = steps.iter().filter(|it| it.stage < Stage::Configure && !is_done).collect();
    for step in &before {
        step.take()?;
        anstream::println!("{DIM}{}{DIM:#}", step.shown());
    }
    let patience = if before.iter().any(|it| it.stage == Stage::Start) { START } else { Duration::ZERO };
    if let Some(silent) = silent(config, patience) {
        let prepared = before.iter().filter(|it| it.stage == Stage::Prepare).map(|it| (*it).clone()).collect();
        backup::remember(args.dir, &args.place.display().to_string(), prepared)?;
        anstream::println!(
            "{YELLOW}Countersign does not run yet{YELLOW:#} ({silent} does not answer), and {name} would put all mail off. Nothing was \
             changed in {}. Start it by its unit, packaging/countersign.service, or in another window, and run this again:\n  {}",
            args.place.display(),
            serve(args, &config.path)
        );
        return Ok(false);
    }
    if let Some(other) = other_config(config).filter(|_| !changes.is_empty()) {
        bail!(
            "a daemon answers that runs with {other}, and not with {}: nothing was changed in {}. Run this in that folder, or name it with --dir",
            config.path.display(),
            args.place.display()
        );
    }
    if changes.is_empty() {
        anstream::println!("{name} in {} asks Countersign already: nothing was changed.", args.place.display());
    } else {
        let prepared = before.into_iter().cloned().collect();
        let greeted = greetings::that_greet(&mta.greets_at());
        backup::change(args.dir, &args.place.display().to_string(), &mta.files(), prepared, &changes)?;
        let still = greetings::that_greet(&greeted);
        if let Some(silent) = greeted.iter().find(|address| !still.contains(address)) {
            let result = match backup::taken_back(args.dir)? {
                true => "The change was taken back",
                false => "Not all of the change could be taken back; see above",
            };
            bail!("{name} did not greet clients at {silent} any more; its log says why. {result}");
        }
        anstream::println!(
            "Taken back by: countersign init --undo --dir {}\n",
            quoted(&args.dir.display().to_string())
        );
    }
    let fits = check::mail_server(config, args.place)?;
    if !fits {
        anstream::println!("What is wrong was not changed here. countersign init --undo takes back what was.");
    }
    Ok(fits)
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
