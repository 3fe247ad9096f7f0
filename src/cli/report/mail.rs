//! The report as a message, handed to the mail server of this machine.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::cli::common_args::now;
use crate::envelope::address::Address;
use crate::mail_log::figures::Summary;
use crate::mail_log::verdict::Verdict;
use crate::state::time_format::mail_date;

/// Where each mail server installs its program, beside the folders of PATH.
const PLACES: [&str; 2] = ["/usr/sbin", "/usr/lib"];

/// Sends the report, with the null sender: nobody is to answer it.
///
/// # Errors
/// There is no `sendmail` here, or it has not accepted the message.
pub(super) fn send(summary: &Summary, lines: &[String], to: &Address) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    let program = folders.map(|folder| folder.join("sendmail")).find(|file| file.is_file());
    let program = program.context("--mail: there is no `sendmail` in PATH, /usr/sbin or /usr/lib")?;
    let shown = || format!("--mail: {}", program.display());
    let mut child = Command::new(&program)
        .args(["-oi", "-f", "", "--", to.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(shown)?;
    let message = message(summary, lines, to);
    let written = child.stdin.take().map(|mut input| input.write_all(message.as_bytes()));
    let status = child.wait().with_context(shown)?;
    if !status.success() {
        bail!("{} has not accepted the message ({status})", shown());
    }
    written.transpose().map(drop).with_context(shown)
}

fn message(summary: &Summary, lines: &[String], to: &Address) -> String {
    let named = [
        ("backscatter", &summary.backscatter.verdict),
        ("reflector", &summary.reflector.verdict),
        ("harvest", &summary.harvest.verdict),
        ("unsigned mail", &summary.unsigned.verdict),
    ];
    let acting = |(name, verdict): &(&str, &Verdict)| {
        verdict.level.wants_action().then(|| format!("{name}: {}", verdict.level.words()))
    };
    let acting: Vec<String> = named.iter().filter_map(acting).collect();
    let subject = if acting.is_empty() { "nothing to do".to_owned() } else { acting.join(", ") };
    let text: Vec<String> = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
    format!(
        "To: {to}\nSubject: Mail logs: {subject}\nDate: {}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}\n",
        mail_date(now()),
        text.join("\n")
    )
}
