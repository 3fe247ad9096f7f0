//! `report`: what mail logs say about backscatter, and whether this server sends it itself.

mod html;
mod journal;
mod mail;
mod progress;
mod published;
mod queue;
mod reader;
mod reading;
mod sources;
mod text;

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::published::Subject;
use self::reading::Reading;
use self::sources::Log;
use super::common_args::{now, span_of};
use super::dns::Dns;
use super::page::write_page;
use crate::cli::colours::RED;
use crate::envelope::address::Address;
use crate::envelope::printable::printable;
use crate::mail_log::figures::Summary;
use crate::mail_log::summary::summary;
use crate::mail_log::tally::Section;

/// `countersign report`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign report                                 the usual logs of this machine
  countersign report --queue /var/log/mail.log*      rotated logs, plain or gz, zst, xz; and the queue
  countersign report --journal --since 7d            the journal, the last seven days
  countersign report --dns --domain our.example      block lists, SPF and DMARC, too
  countersign report --html report.html mail.log     a page for the browser, too
  countersign report --since 7d --mail postmaster@our.example > /dev/null    once a week, by cron
  countersign report --explain reflector mail.log    the lines behind the figures of a section
  countersign report --queue-ids | postsuper -d -    delete the bounces that wait in Postfix's queue

Reads logs of Postfix, Exim, Sendmail, OpenSMTPD and Countersign, which need not be installed. docs/report.md
says what each figure means.

Exit status: 0 nothing to do, 1 something is to be done, 2 a log could not be read.")]
pub(super) struct Report {
    /// Log files; `-` for standard input [default: /var/log/mail.log and the like]
    files: Vec<PathBuf>,
    /// Read the journal of systemd
    #[arg(long)]
    journal: bool,
    /// Show what waits in the queue of Postfix or Exim
    #[arg(long)]
    queue: bool,
    /// Print only the names of the bounces in the queue
    #[arg(long, conflicts_with_all = ["files", "journal", "queue", "json", "explain"])]
    queue_ids: bool,
    /// Only what is not older: a number with m, h or d
    #[arg(long, value_name = "TIME", value_parser = span_of)]
    since: Option<i64>,
    /// Only mail to this domain; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
    /// Look up this server's addresses in block lists, and SPF and DMARC of its domains
    #[arg(long, conflicts_with = "explain")]
    dns: bool,
    /// For --dns: an address from which this server sends; may be repeated [default: public ones of this machine and of
    /// the domains' MX hosts]
    #[arg(long, value_name = "ADDRESS", requires = "dns")]
    address: Vec<IpAddr>,
    /// For --dns: another block list; may be repeated
    #[arg(long, value_name = "ZONE", requires = "dns")]
    block_list: Vec<String>,
    /// For --dns: ask this name server, instead of those of this machine
    #[arg(long, value_name = "ADDRESS:PORT", requires = "dns")]
    name_server: Option<SocketAddr>,
    /// Print the lines behind a section of the report
    #[arg(long, value_name = "SECTION", conflicts_with = "json")]
    explain: Option<SectionName>,
    /// Also write the report as a page of HTML, which needs no other file
    #[arg(long, value_name = "FILE", conflicts_with = "explain")]
    html: Option<PathBuf>,
    /// Also mail the report to this address, by the mail server of this machine
    #[arg(long, value_name = "ADDRESS", conflicts_with = "explain", value_parser = address)]
    mail: Option<Address>,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
}

/// A section, as it is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SectionName {
    Backscatter,
    Reflector,
    Harvest,
    Unsigned,
}

impl SectionName {
    fn section(self) -> Section {
        match self {
            Self::Backscatter => Section::Backscatter,
            Self::Reflector => Section::Reflector,
            Self::Harvest => Section::Harvest,
            Self::Unsigned => Section::Unsigned,
        }
    }
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| error.to_string())
}

/// Prints the report. `false`: something is to be done.
pub(super) fn run(args: &Report) -> Result<bool> {
    if args.queue_ids {
        queue::waiting()?.ids.iter().for_each(|id| anstream::println!("{id}"));
        return Ok(true);
    }
    let queue = if args.queue { Some(queue::waiting()?) } else { None };
    let dns = if args.dns { Some(Dns::new(args.name_server)?) } else { None };
    let begun = Instant::now();
    let (logs, unreadable) = logs(args)?;
    let since = args.since.map_or(i64::MIN, |span| sources::wall(now().0.saturating_sub(span)).0);
    let mut reading = Reading::new(&args.domain, since, args.explain.map(SectionName::section), &logs);
    let mut failed = unreadable;
    for log in &logs {
        if let Err(error) = reading.read(log) {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                return Err(error);
            }
            reading.clear();
            complain(log, &error);
            failed = true;
        }
    }
    let (tally, extent) = reading.end()?;
    if extent.of_mail == 0 {
        let since = if args.since.is_some() { " since then" } else { "" };
        bail!("no line of Postfix, Exim, Sendmail, OpenSMTPD or Countersign was found{since}");
    }
    let mut summary = summary(tally, extent);
    summary.queue = queue;
    let subject = Subject { addresses: &args.address, domains: &args.domain, block_lists: &args.block_list };
    summary.dns = dns.map(|dns| published::look_up(&dns, &subject, &summary));
    if let Some(path) = &args.html {
        write_page(&html::page(&summary), path)?;
    }
    if let Some(to) = &args.mail {
        mail::send(&summary, &text::lines(&summary, begun.elapsed().as_secs()), to)?;
    }
    if args.explain.is_none() {
        print(args, &summary, begun.elapsed())?;
    }
    if failed {
        bail!("the report is incomplete: not all logs could be read");
    }
    Ok(!summary.wants_action())
}

fn print(args: &Report, summary: &Summary, time: Duration) -> Result<()> {
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(summary)?)?;
        return Ok(());
    }
    let mut out = anstream::AutoStream::auto(io::stdout());
    for line in text::lines(summary, time.as_secs()) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// Says why a log cannot be read. Its name may have been chosen by a stranger.
fn complain(log: &Log, error: &anyhow::Error) {
    let text = format!("{log}: {error:#}");
    anstream::eprintln!("{RED}countersign:{RED:#} {}", printable(&text));
}

/// The logs that are meant, in the order of their times; whether one cannot be read.
fn logs(args: &Report) -> Result<(Vec<Log>, bool)> {
    let since = args.since.map(|span| now().0.saturating_sub(span));
    let mut files = args.files.clone();
    let is_default = files.is_empty() && !args.journal;
    if is_default {
        files = sources::usual();
        if files.is_empty() {
            bail!("there is no log in the usual places; name the files, or use --journal");
        }
    }
    let mut failed = false;
    let mut logs = Vec::new();
    for file in files {
        let log = if file.as_os_str() == "-" { Log::Stdin } else { Log::File(file) };
        match log.begin() {
            Ok(begin) => logs.push((begin.is_none(), begin, log)),
            Err(error) => {
                complain(&log, &error);
                failed = true;
            }
        }
    }
    // Those without a time come last.
    logs.sort_by_key(|(has_no_time, begin, _)| (*has_no_time, *begin));
    let mut logs: Vec<Log> = logs.into_iter().map(|(_, _, log)| log).collect();
    if args.journal {
        logs.push(Log::Journal(since));
    }
    if logs.is_empty() {
        bail!("no log could be read");
    }
    Ok((logs, failed))
}
