//! The command line: one file per subcommand. They call the library and print results; they decide nothing.

mod check;
mod classify;
mod colours;
mod common_args;
mod demo;
mod explain;
mod init;
mod keys;
mod serve;
mod status_client;
mod tags;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::colours::RED;

/// Signs the envelope sender of mail that leaves, and refuses bounces to mail that never left.
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
    /// The whole story in one process on loopback, without any set-up
    Demo(demo::Demo),
    /// Write a config and a key ring, and print what the mail server has to be told
    Init(init::Init),
    /// Validate config and key ring, and say in words what would happen
    Check(check::Check),
    /// Run the daemon
    Serve(serve::Serve),
    /// Make, show and change the keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// What outbound would make of a sender
    Sign(tags::Sign),
    /// What inbound would make of a recipient
    Verify(tags::Verify),
    /// Each part of a tagged address, in words
    Explain(explain::Explain),
    /// What kind of message each is, and what would become of it
    Classify(classify::Classify),
}

/// Parses the arguments, runs the subcommand, and returns the exit status: 0 for success, 1 if the subcommand returned
/// `false`, 2 for an error, 75 (EX_TEMPFAIL of sysexits.h) if the answer is temporarily unknown.
#[must_use]
pub fn run() -> ExitCode {
    keep_keys_out_of_cores();
    let result = match Cli::parse().command {
        Command::Demo(command) => demo::run(&command),
        Command::Init(command) => init::run(&command),
        Command::Check(command) => check::run(&command),
        Command::Serve(command) => serve::run(&command),
        Command::Keys(command) => keys::run(command),
        Command::Sign(command) => tags::sign(&command),
        Command::Verify(command) => tags::verify(&command),
        Command::Explain(command) => explain::run(&command),
        Command::Classify(command) => classify::run(&command),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader has closed the pipe: `countersign keys list | head`.
        Err(error) if broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{RED}countersign:{RED:#} {error:#}");
            ExitCode::from(if error.is::<tags::TryLater>() { 75 } else { 2 })
        }
    }
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
