//! The command line: one file per subcommand. They call the library and print results; they decide nothing.

mod bars;
mod check;
mod classify;
mod colours;
mod common_args;
mod demo;
#[cfg_attr(not(feature = "dns"), path = "no_dns.rs")]
mod dns;
mod explain;
mod init;
mod interfaces;
mod keys;
mod mail_sink;
mod manual;
mod monitoring;
mod mta;
mod page;
mod probe;
mod ramp;
mod report;
mod serve;
mod status;
mod status_client;
mod tags;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::colours::RED;
use crate::envelope::keyring::ChangeError;
use crate::state::{Problem, RingFileError};

/// Signs the envelope sender of outbound mail, and refuses bounces to mail that you never sent.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  countersign demo                                       see what it does
  countersign init --domain our.example --mta postfix    write config and key ring, print the MTA's lines
  countersign sign --local our.example ann@our.example   what leaves
  countersign verify -c countersign.toml < addresses     what comes back, one a line
  countersign keys rotate                                a new key signs from now on

Exit status: 0 all well, 1 something was refused, 2 wrong usage, config or key ring.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show signing and verification in one process on loopback; needs no set-up
    Demo(demo::Demo),
    /// Write a config and a key ring, and print the lines for the mail server
    Init(init::Init),
    /// Validate the config and the key ring, and describe what they do
    Check(check::Check),
    /// Run the daemon
    Serve(serve::Serve),
    /// Show how the running daemon does, and what needs attention
    Status(status::Status),
    /// Show what became of bounces: by address, Message-ID or client
    Trace(status::TraceCommand),
    /// Show what mail logs say about backscatter; needs no set-up
    Report(report::Report),
    /// Audit your own mail server from outside; it need not run Countersign
    Probe(probe::Probe),
    /// Have the running daemon only observe all domains for a while
    Observe(status::ObserveCommand),
    /// Have the running daemon read its config, key ring and certificates again
    Reload(status::ReloadCommand),
    /// Create, show and change keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Enforce or observe a domain, or let its ramp decide
    #[command(subcommand)]
    Ramp(ramp::RampCommand),
    /// Show what outbound does with a sender
    Sign(tags::Sign),
    /// Show what inbound does with a recipient
    Verify(tags::Verify),
    /// Explain each part of a tagged address
    Explain(explain::Explain),
    /// Classify messages, and show what inbound does with them
    Classify(classify::Classify),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Write the man pages
    Manual(manual::Manual),
}

/// Parses the arguments, runs the subcommand, and returns the exit status: 0 for success, 1 if the subcommand returned
/// `false`, 2 for an error, 3 if no daemon answers, 75 (EX_TEMPFAIL of sysexits.h) if the answer is temporarily unknown.
#[must_use]
pub fn run() -> ExitCode {
    keep_keys_out_of_cores();
    let result = match Cli::parse().command {
        Command::Demo(command) => demo::run(&command),
        Command::Init(command) => init::run(&command),
        Command::Check(command) => check::run(&command),
        Command::Serve(command) => serve::run(&command),
        Command::Status(command) => status::status(&command),
        Command::Trace(command) => status::trace(&command),
        Command::Report(command) => report::run(&command),
        Command::Probe(command) => probe::run(&command),
        Command::Observe(command) => status::observe(&command),
        Command::Reload(command) => status::reload(&command),
        Command::Keys(command) => keys::run(command),
        Command::Ramp(command) => ramp::run(&command),
        Command::Sign(command) => tags::sign(&command),
        Command::Verify(command) => tags::verify(&command),
        Command::Explain(command) => explain::run(&command),
        Command::Classify(command) => classify::run(&command),
        Command::Completions(command) => manual::completions(&command, Cli::command()),
        Command::Manual(command) => manual::manual(&command, Cli::command()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader has closed the pipe: `countersign keys list | head`.
        Err(error) if broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<status::Told>() => ExitCode::from(2),
        Err(error) => {
            anstream::eprintln!("{RED}countersign:{RED:#} {error:#}");
            ExitCode::from(match () {
                () if error.is::<tags::TryLater>() => 75,
                () if error.is::<status::NoDaemon>() => 3,
                () if is_too_early(&error) => 1,
                () => 2,
            })
        }
    }
}

/// Whether a change of the ring was refused because it would come too early: nothing is wrong, and it can be made later.
fn is_too_early(error: &anyhow::Error) -> bool {
    let of_ring = error.downcast_ref::<RingFileError>();
    of_ring.is_some_and(|it| matches!(it.problem, Problem::Change(ChangeError::StillNeeded { .. })))
}

/// Nearly every subcommand has keys in memory. On Linux, this disables core dumps, and keeps other processes of the
/// same user from reading the memory.
fn keep_keys_out_of_cores() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // If the call fails, the limits of the systemd unit still apply.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
