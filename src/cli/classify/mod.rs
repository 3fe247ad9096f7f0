//! `classify`: prints the kind of each message, the reasons, what it shows of an original, and what inbound would do
//! with it.

mod sources;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::sources::{ClassifiedMessage, MessageSource};
use super::common_args::{default_policy, find_config, now};
use crate::cli::colours::{BOLD, DIM, GREEN, RED, YELLOW};
use crate::envelope::abuse::Memory;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::MessageKind;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::{Candidate, Delivery, Disposition, Rules};
use crate::envelope::site_policy::Policy;
use crate::envelope::tag::batv;
use crate::state::ring_file;

/// `countersign classify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign classify bounce.eml                 what it is, and what becomes of it
  countersign classify --summary ~/Maildir        what is in a mailbox
  countersign classify --tsv /var/mail/ann        one line a message
  countersign classify --to ann@our.example < bounce.eml

A path is a message, an mbox, a Maildir, or a folder with such in it. Who sent
a message is read from Return-Path (else it is taken for the null sender), for
whom it is from Delivered-To, X-Original-To or To.

What inbound would do is asked with the config and its key ring. Where there is
no config, the recipient's domain is taken for ours, defaults are enforced, and
of tagged recipients nothing can be said.

Exit status: 0 all was read, 1 something could not be, 2 usage, config or ring.")]
pub(super) struct Classify {
    /// Config file [default: countersign.toml here, then /etc/countersign/countersign.toml; or the files in
    /// COUNTERSIGN_CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The envelope sender, instead of the Return-Path; "" is the null sender
    #[arg(long, value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// The envelope recipient, instead of the one that the message names
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Print one line per message, with tabs between the fields
    #[arg(long, conflicts_with_all = ["json", "summary"])]
    tsv: bool,
    /// Print one JSON object per message
    #[arg(long, conflicts_with = "summary")]
    json: bool,
    /// Print only a table: the number of messages of each kind and action
    #[arg(long)]
    summary: bool,
    /// Messages, mbox files, Maildirs, folders; without any, standard input
    paths: Vec<PathBuf>,
}

/// What inbound would do with a message, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fate {
    action: &'static str,
    reason: &'static str,
}

/// The policy and keys with which the rules are queried.
struct Site {
    policy: Policy,
    ring: Keyring,
    /// There is no config: every recipient counts as local.
    everybody: bool,
}

/// Classifies all messages. `false`: some input could not be read.
pub(super) fn run(args: &Classify) -> Result<bool> {
    let judges = Site::load(args)?;
    let mail_from = args.mail_from.as_deref().map(ReversePath::parse).transpose().context("--mail-from")?;
    let to = args.to.as_deref().map(Address::parse).transpose().context("--to")?;
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let mut table = CountTable::default();
    let (sources, errors) =
        if args.paths.is_empty() { (vec![MessageSource::Stdin], vec![]) } else { sources::find(&args.paths) };
    for error in &errors {
        anstream::eprintln!("{RED}countersign:{RED:#} {error:#}");
    }
    let mut progress = ClassifyProgress::new(&sources);
    if args.tsv {
        writeln!(out, "file\tkind\tndr\tevidence\taction\treason")?;
    }
    let mut all = errors.is_empty();
    for source in &sources {
        let read = source.each(&mut |mut message| {
            message.sender = mail_from.clone().unwrap_or(message.sender);
            message.recipient = to.clone().or(message.recipient);
            let fate = judges.fate(&message);
            table.add(message.found.kind, &fate);
            progress.message();
            if args.tsv {
                writeln!(out, "{}\t{}\t{}", tsv(&message), fate.action, fate.reason)?;
            } else if args.json {
                writeln!(out, "{}", as_json(&message, &fate))?;
            } else if !args.summary {
                print(&mut out, &message, &fate)?;
            }
            Ok(())
        });
        if let Err(error) = read {
            if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
                return Err(error);
            }
            progress.clear();
            out.flush()?;
            anstream::eprintln!("{RED}countersign:{RED:#} {source}: {error:#}");
            all = false;
        }
        progress.source();
    }
    progress.clear();
    if table.kinds.is_empty() && all {
        anstream::eprintln!("{YELLOW}countersign:{YELLOW:#} there is no message there");
    }
    if args.summary {
        table.print(&mut out)?;
    }
    out.flush()?;
    Ok(all)
}

impl Site {
    fn load(args: &Classify) -> Result<Self> {
        match find_config(args.config.as_deref())? {
            Some(config) => {
                let ring = ring_file::load(&config.ring)?;
                Ok(Self { policy: config.policy, ring, everybody: false })
            }
            None => {
                let ring = Keyring::create(super::keys::new_own_key()?, now())?;
                Ok(Self { policy: default_policy(), ring, everybody: true })
            }
        }
    }

    fn fate(&self, message: &ClassifiedMessage) -> Fate {
        let Some(recipient) = &message.recipient else { return Fate { action: "unknown", reason: "no-recipient" } };
        let mut policy = self.policy.clone();
        if self.everybody {
            if batv::strip(recipient).is_some() && message.sender == ReversePath::Null {
                return Fate { action: "unknown", reason: "no-key-ring" };
            }
            policy.domains.local.insert(recipient.domain());
        }
        let rules = Rules::new(&policy, &self.ring, now());
        let mut memory = Memory::default();
        let inbound = rules.inbound(&mut memory, None, &message.sender, recipient);
        let action = inbound.disposition.name();
        match inbound.disposition {
            Disposition::Refuse(refusal) => Fate { action, reason: refusal.reason.name() },
            Disposition::Discard => Fate { action, reason: inbound.reason.name() },
            Disposition::Deliver(Delivery { mark: Some(mark), .. }) => Fate { action, reason: mark.reason.name() },
            Disposition::Deliver(Delivery { mark: None, .. }) => Fate { action, reason: inbound.reason.name() },
            Disposition::Inspect(Delivery { to, .. }, check) => {
                let case = Candidate { client: None, check, recipient: &to, complete: true };
                let content = rules.content(&mut memory, case, &message.found);
                Fate { action: content.name(), reason: content.reason() }
            }
        }
    }
}

fn tsv(message: &ClassifiedMessage) -> String {
    let found = &message.found;
    let names = found.returned.names().join(",");
    let evidence = if names.is_empty() { "-" } else { names.as_str() };
    let name = message.name.replace(['\t', '\n'], " ");
    format!("{name}\t{}\t{}\t{evidence}", found.kind.name(), u8::from(found.kind.is_ndr()))
}

fn as_json(message: &ClassifiedMessage, fate: &Fate) -> serde_json::Value {
    let found = &message.found;
    let recipients: Vec<serde_json::Value> = found
        .recipients
        .iter()
        .map(|r| {
            json!({
                "action": r.action.map(crate::envelope::bounce::DsnAction::name), "status": r.status,
                "final_recipient": r.final_recipient, "original_recipient": r.original_recipient,
            })
        })
        .collect();
    json!({
        "file": message.name,
        "kind": found.kind.name(),
        "ndr": found.kind.is_ndr(),
        "reasons": found.reasons,
        "recipients": recipients,
        "evidence": found.returned.names(),
        "mail_from": message.sender.address().map(ToString::to_string).unwrap_or_default(),
        "rcpt_to": message.recipient.as_ref().map(ToString::to_string),
        "action": fate.action,
        "reason": fate.reason,
    })
}

fn print(out: &mut impl Write, message: &ClassifiedMessage, fate: &Fate) -> Result<()> {
    let found = &message.found;
    let style = if found.kind.is_ndr() { YELLOW } else { GREEN };
    writeln!(out, "{}: {style}{}{style:#}", shown(&message.name), found.kind.name())?;
    if !found.reasons.is_empty() {
        writeln!(out, "  seen by     {}", found.reasons.join(", "))?;
    }
    for recipient in &found.recipients {
        let who = recipient.original_recipient.as_ref().or(recipient.final_recipient.as_ref());
        let action = recipient.action.map_or("no action", crate::envelope::bounce::DsnAction::name);
        let status = recipient.status.as_deref().unwrap_or("no status");
        writeln!(out, "  recipient   {}: {action}, {}", shown(who.map_or("?", String::as_str)), shown(status))?;
    }
    let names = found.returned.names();
    if !names.is_empty() {
        writeln!(out, "  returned    {}", names.join(", "))?;
    }
    let sender = message.sender.address().map_or_else(|| "<>".to_owned(), ToString::to_string);
    let recipient = message.recipient.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    writeln!(out, "  inbound     {} ({}) {DIM}from {sender} to {recipient}{DIM:#}", fate.action, fate.reason)?;
    Ok(())
}

/// Text from a message or a file name, with control characters replaced, for a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The number of messages of each kind and of each fate.
#[derive(Default)]
struct CountTable {
    kinds: BTreeMap<MessageKind, u64>,
    fates: BTreeMap<Fate, u64>,
}

impl CountTable {
    fn add(&mut self, kind: MessageKind, fate: &Fate) {
        *self.kinds.entry(kind).or_default() += 1;
        *self.fates.entry(fate.clone()).or_default() += 1;
    }

    fn print(&self, out: &mut impl Write) -> Result<()> {
        let all: u64 = self.kinds.values().sum();
        let ndrs: u64 = self.kinds.iter().filter(|(kind, _)| kind.is_ndr()).map(|(_, n)| n).sum();
        writeln!(out, "{BOLD}{:<14}{:>8}{BOLD:#}", "KIND", "MESSAGES")?;
        for (kind, count) in &self.kinds {
            writeln!(out, "{:<14}{count:>8}", kind.name())?;
        }
        writeln!(out, "{all} messages, {ndrs} of them say that mail was not, or not yet, delivered\n")?;
        writeln!(out, "{BOLD}{:<12}{:<18}{:>8}{BOLD:#}", "INBOUND", "BECAUSE", "MESSAGES")?;
        for (fate, count) in &self.fates {
            writeln!(out, "{:<12}{:<18}{count:>8}", fate.action, fate.reason)?;
        }
        Ok(())
    }
}

/// A progress bar on standard error, shown after one second and only on a terminal.
struct ClassifyProgress {
    started: Instant,
    bar: Option<ProgressBar>,
    sources: u64,
    done: u64,
    messages: u64,
}

impl ClassifyProgress {
    fn new(sources: &[MessageSource]) -> Self {
        Self { started: Instant::now(), bar: None, sources: sources.len() as u64, done: 0, messages: 0 }
    }

    fn message(&mut self) {
        self.messages += 1;
        if self.bar.is_none() && self.started.elapsed() > Duration::from_secs(1) {
            let bar = ProgressBar::new(self.sources);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {msg}, {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            self.bar = Some(bar);
        }
        if let Some(bar) = self.bar.as_ref().filter(|_| self.messages.is_multiple_of(64)) {
            bar.set_position(self.done);
            bar.set_message(format!("{} messages", self.messages));
        }
    }

    fn source(&mut self) {
        self.done += 1;
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
