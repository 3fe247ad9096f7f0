//! The queue of this machine's mail server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cli::common_args::now;
use crate::mail_log::waiting::Waiting;

const POSTQUEUE: [&str; 3] = ["/usr/sbin/postqueue", "/usr/local/sbin/postqueue", "/sbin/postqueue"];
const EXIM: [&str; 4] = ["/usr/sbin/exim4", "/usr/sbin/exim", "/usr/exim/bin/exim", "/usr/local/sbin/exim"];

/// Lists the queue.
///
/// # Errors
/// There is no Postfix or Exim here, or it does not list its queue.
pub(super) fn waiting() -> Result<Waiting> {
    let mut waiting = Waiting::default();
    let there = |places: &[&'static str]| places.iter().copied().find(|place| Path::new(place).exists());
    match (there(&POSTQUEUE), there(&EXIM)) {
        (Some(postqueue), _) => {
            let text = output(postqueue, "-j")?;
            waiting.add_postfix(&text, now().0).with_context(|| format!("{postqueue} -j"))?;
        }
        (None, Some(exim)) => waiting.add_exim(&output(exim, "-bp")?),
        (None, None) => bail!("--queue: there is neither Postfix (postqueue) nor Exim on this machine"),
    }
    Ok(waiting)
}

fn output(program: &str, option: &str) -> Result<String> {
    let output = Command::new(program).arg(option).output().with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!("{program} {option}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
