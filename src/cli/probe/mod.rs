//! `probe`: audits one's own mail server from outside. The tests are those of `crate::probe`; here are the connection, the
//! proof of ownership, and the results for people and scripts.

mod arguments;
mod bounces;
mod html;
mod last_run;
mod ownership;
mod plan;
mod progress;
mod real_server;
mod results;
mod session;
mod set_up;
mod text;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;

use self::arguments::Again;
pub(super) use self::arguments::Probe;
use self::last_run::LastRun;
use self::results::Results;
use super::common_args::now;
use super::page::write_page;
use crate::cli::colours::DIM;
use crate::probe;
use crate::probe::finding::Test;

/// Audits the server. `false`: there is a finding.
pub(super) fn run(args: &Probe) -> Result<bool> {
    let last = if args.only.is_some() { Some(LastRun::load()?) } else { None };
    let Some(last) = last else { return audit(args, args.wanted()) };
    if last.failed.is_empty() {
        anstream::println!("The last run had no finding. Without --only, all tests are made again.");
        return Ok(true);
    }
    if let Some(host) = &args.host {
        if *host != last.host {
            bail!("the last run was of {}, not of {host}; leave out --only", last.host);
        }
        return audit(args, last.failed);
    }
    let again = Again::try_parse_from(std::iter::once("probe".to_owned()).chain(last.arguments))
        .context("the arguments of the last run cannot be read; name HOST and --user again")?;
    let again = again.probe.started_in(&last.folder);
    let again = Probe { json: args.json, plan: args.plan, html: args.html.clone(), ..again };
    audit(&again, last.failed)
}

fn audit(args: &Probe, wanted: Vec<Test>) -> Result<bool> {
    let Some(host) = &args.host else { bail!("which server? countersign probe HOST --user ADDRESS") };
    let mut site = set_up::site(args, wanted)?;
    if args.plan {
        print(plan::lines(args, host, &mut site)?)?;
        return Ok(true);
    }
    let begun = Instant::now();
    let started = now();
    let mut server = set_up::server(args, host, &mut site)?;
    let proof = ownership::prove(args, &mut server, &site)?;
    set_up::greet(&mut server, &mut site)?;
    set_up::tags(args, &mut server, &mut site)?;
    set_up::other_hosts(args, host, &mut site);
    if io::stderr().is_terminal() && !args.json {
        anstream::eprintln!("{DIM}{}. This takes up to three minutes.{DIM:#}", proof.words());
    }
    let findings = probe::run(&mut server, &site);
    let results = Results::of(host, &server, &site, proof, started, begun.elapsed(), findings);
    // The next run may ask only for what failed in this one.
    let kept = LastRun::of(&results).save();
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&results)?)?;
    } else {
        print(text::lines(&results, kept.is_ok()))?;
    }
    if let Some(path) = &args.html {
        write_page(&html::page(&results), path)?;
    }
    if results.passed < results.untested && results.is_clean() {
        bail!("most tests could not be made; see above");
    }
    Ok(results.is_clean())
}

fn print(lines: Vec<String>) -> Result<()> {
    let mut out = anstream::AutoStream::auto(io::stdout());
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(out.flush()?)
}
