//! The arguments of `probe`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use strum::IntoEnumIterator as _;

use super::bounces::BouncePlace;
use crate::cli::common_args::span_of;
use crate::envelope::address::Address;
use crate::probe::finding::{Section, Test};

/// `countersign probe`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign probe mx.our.example --user ann@our.example --plan      what would be sent; nothing is
  countersign probe mx.our.example --user ann@our.example --sender me@elsewhere.example
  countersign probe mx.our.example --user ann@our.example --domain branch.example --domain our.example
  countersign probe 127.0.0.1 --user ann@our.example -c /etc/countersign/countersign.toml
  countersign probe mx.our.example --user ann@our.example --sender me@elsewhere.example --bounces listen:25
  countersign probe --only failed                                     again, after mending

Only your own server may be probed. The proof is an address of this machine, a code that is mailed
to --user, or a TXT record of the domain. A probe opens 40 sessions at most, 5 a second, and leaves
nothing in a queue. The server needs no Countersign. docs/probe.md says what each test means.

Exit status: 0 no finding, 1 something is weak, 2 not allowed or not reached.")]
pub(in crate::cli) struct Probe {
    /// The server: a name or an address, and a port if it is not 25 [default with --only failed: that of the last run]
    #[arg(value_name = "HOST[:PORT]")]
    pub(super) host: Option<String>,
    /// A domain whose mail it accepts; may be repeated [default: that of --user]
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub(super) domain: Vec<String>,
    /// The name that is said in EHLO [default: this machine's, or its address]
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub(super) helo: Option<String>,
    /// A mailbox of yours on this server
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(super) user: Option<Address>,
    /// An address of yours elsewhere, the sender of mail from outside [default: countersign-probe at this machine]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(super) sender: Option<Address>,
    /// Where mail to --sender arrives: listen:PORT, listen:ADDRESS:PORT, or maildir:/PATH
    #[arg(long, value_name = "PLACE")]
    pub(super) bounces: Option<BouncePlace>,
    /// How long a bounce is waited for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span_of)]
    pub(super) wait: i64,
    /// A config of Countersign with its key ring, to make tags that are valid, expired and of the future
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A signed return address of --user, as in the Return-Path of a message that was sent today
    #[arg(long, value_name = "ADDRESS", value_parser = return_path, conflicts_with = "config")]
    pub(super) signed: Option<Address>,
    /// The server through which --user sends, to send a message to --sender and read its return address; needs --bounces
    #[arg(long, value_name = "HOST:PORT", requires = "bounces", conflicts_with_all = ["config", "signed"])]
    pub(super) submit: Option<String>,
    /// Connect from this address of this machine, which the server treats as a stranger's
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Option<IpAddr>,
    /// The proof that the server is yours [default: local, else txt with --token, else code]
    #[arg(long, value_enum)]
    pub(super) prove: Option<Proof>,
    /// The secret whose hash is in the TXT record _countersign-probe of the domain
    #[arg(long)]
    pub(super) token: Option<String>,
    /// Ask this name server, instead of those of this machine
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) name_server: Option<SocketAddr>,
    /// Only these tests or sections, with commas between them
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = tests_named)]
    pub(super) tests: Vec<Named>,
    /// Only the tests that failed in the last run
    #[arg(long, value_enum, conflicts_with = "tests")]
    pub(super) only: Option<Only>,
    /// Print what would be said to the server, and send nothing
    #[arg(long, conflicts_with_all = ["json", "html"])]
    pub(super) plan: bool,
    /// Print the results as one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the results as a page of HTML, which needs no other file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

/// The longest time for which a bounce is waited for, in seconds: a probe has half an hour.
const LONGEST_WAIT: u64 = 1200;

/// Which tests of the last run are made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Only {
    /// Those with a finding
    Failed,
}

/// The tests that a word of `--tests` names.
#[derive(Debug, Clone)]
pub(super) struct Named(Vec<Test>);

fn tests_named(word: &str) -> Result<Named, String> {
    if let Ok(test) = word.parse::<Test>() {
        return Ok(Named(vec![test]));
    }
    let section = word.parse::<Section>().map_err(|_| {
        let sections: Vec<&'static str> = Section::iter().map(Into::into).collect();
        let tests: Vec<&str> = Test::iter().map(Test::name).filter(|name| name.contains(word)).collect();
        let tests = if tests.is_empty() { "docs/probe.md has the names of tests".to_owned() } else { tests.join(", ") };
        format!("no such test; {tests}. Sections: {}", sections.join(", "))
    })?;
    Ok(Named(Test::iter().filter(|test| test.section() == section).collect()))
}

/// An address as in Return-Path, with or without its brackets.
fn return_path(text: &str) -> Result<Address, String> {
    address(text.trim().trim_start_matches('<').trim_end_matches('>'))
}

fn domain(text: &str) -> Result<String, String> {
    Address::parse(&format!("x@{text}")).map(|it| it.domain().to_owned()).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| error.to_string())
}

/// The arguments of the last run.
#[derive(Debug, clap::Parser)]
pub(super) struct Again {
    #[command(flatten)]
    pub(super) probe: Probe,
}

impl Probe {
    /// The tests that are wanted, in order.
    pub(super) fn wanted(&self) -> Vec<Test> {
        match self.tests.is_empty() {
            true => Test::iter().collect(),
            false => {
                let named: Vec<Test> = self.tests.iter().flat_map(|named| named.0.clone()).collect();
                Test::iter().filter(|test| named.contains(test)).collect()
            }
        }
    }

    /// The same, with paths as they are seen from another folder.
    pub(super) fn started_in(mut self, folder: &Path) -> Self {
        self.config = self.config.map(|path| folder.join(path));
        if let Some(BouncePlace::Maildir(path)) = &mut self.bounces {
            *path = folder.join(&*path);
        }
        self
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.wait.unsigned_abs().min(LONGEST_WAIT))
    }
}

/// A proof that the server may be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Proof {
    /// The server has an address of this machine
    Local,
    /// A code that is mailed to --user is typed in
    Code,
    /// The domain has a TXT record with the hash of --token
    Txt,
}

impl Proof {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Local => "The server has an address of this machine",
            Self::Code => "The code proves that you read the mail of --user",
            Self::Txt => "The TXT record proves that the domain is yours",
        }
    }
}
