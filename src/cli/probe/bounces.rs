//! Where bounces of a probe arrive: a listener of its own, or a Maildir.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cli::mail_sink::{MailSink, Received, Takes};

/// The most that is read of a file in a Maildir, in octets.
const MAX_FILE: u64 = 256 << 10;
/// How often a Maildir is looked at.
const PACE: Duration = Duration::from_millis(250);

/// Where bounces arrive, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BouncePlace {
    /// An address of this machine, at which a listener is started.
    Listen(SocketAddr),
    /// A Maildir.
    Maildir(PathBuf),
}

impl FromStr for BouncePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write listen:PORT, listen:ADDRESS:PORT or maildir:/PATH".to_owned();
        if let Some(path) = text.strip_prefix("maildir:").filter(|path| !path.is_empty()) {
            return Ok(Self::Maildir(path.into()));
        }
        let address = text.strip_prefix("listen:").ok_or_else(wrong)?;
        if let Ok(port) = address.parse() {
            return Ok(Self::Listen((IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into()));
        }
        address.parse().map(Self::Listen).map_err(|_| wrong())
    }
}

/// Where bounces arrive.
pub(super) enum Bounces {
    Listener(MailSink),
    Maildir {
        folder: PathBuf,
        /// Files that were there before.
        old: HashSet<PathBuf>,
    },
}

impl Bounces {
    /// Starts the listener, or looks at what is in the Maildir already. `domain`: that of the sender;
    /// `run`: what its messages have in them.
    ///
    /// # Errors
    /// The address or the folder cannot be used.
    pub(super) fn open(place: &BouncePlace, name: &str, domain: &str, run: &str) -> Result<Self> {
        Ok(match place {
            BouncePlace::Listen(address) => Self::Listener({
                let takes = Takes::Marked { domain: domain.to_owned(), marker: run.to_owned() };
                MailSink::start(*address, name, takes)?
            }),
            BouncePlace::Maildir(folder) => {
                let old = files(folder).with_context(|| {
                    format!("{}: no folder `new` that can be read; send the mailbox a message first", folder.display())
                })?;
                Self::Maildir { folder: folder.clone(), old: old.into_iter().collect() }
            }
        })
    }

    /// Waits for a message for which this is true.
    pub(super) fn wait(&self, patience: Duration, is_it: impl Fn(&Received) -> bool) -> Option<Received> {
        match self {
            Self::Listener(sink) => sink.wait(patience, is_it),
            Self::Maildir { folder, old } => {
                let deadline = Instant::now() + patience;
                loop {
                    let new = files(folder).unwrap_or_default().into_iter().filter(|file| !old.contains(file));
                    if let Some(found) = new.filter_map(|file| message(&file)).find(|message| is_it(message)) {
                        return Some(found);
                    }
                    deadline.checked_duration_since(Instant::now())?;
                    pause();
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a Maildir tells nobody when mail arrives")]
fn pause() {
    std::thread::sleep(PACE);
}

/// The messages of a Maildir that are new.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    fs::read_dir(folder.join("new"))?.map(|entry| Ok(entry?.path())).collect()
}

/// A message of a Maildir. Its sender is in the header that the mail server has written on delivery.
fn message(file: &Path) -> Option<Received> {
    use std::io::Read as _;
    // Something else than a file might never end.
    fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    let mut octets = Vec::new();
    fs::File::open(file).ok()?.take(MAX_FILE).read_to_end(&mut octets).ok()?;
    let text = String::from_utf8_lossy(&octets).into_owned();
    let path = text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Return-Path:"));
    let from = path.map(|path| path.trim().trim_matches(['<', '>']).to_owned()).unwrap_or_default();
    Some(Received { from, to: Vec::new(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_in_three_ways() {
        assert_eq!("listen:25".parse(), Ok(BouncePlace::Listen("0.0.0.0:25".parse().unwrap())));
        assert_eq!("listen:[::1]:25".parse(), Ok(BouncePlace::Listen("[::1]:25".parse().unwrap())));
        assert_eq!("maildir:/home/ann/Maildir".parse(), Ok(BouncePlace::Maildir("/home/ann/Maildir".into())));
        for wrong in ["", "25", "listen:", "listen:mail:25", "maildir:", "imap:ann@our.example"] {
            assert!(wrong.parse::<BouncePlace>().unwrap_err().starts_with("write listen:PORT"), "{wrong}");
        }
    }

    #[test]
    fn only_new_files_of_a_maildir_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("new")).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join("new").join(name), text).unwrap();
        write("1", "Return-Path: <old@else.example>\nSubject: bounce\n\nx\n");
        let bounces =
            Bounces::open(&BouncePlace::Maildir(folder.path().into()), "here", "else.example", "run").unwrap();
        assert!(bounces.wait(Duration::ZERO, |_| true).is_none());
        write("2", "Return-Path: <prvs=1=ann@our.example>\nSubject: bounce\n\nReturn-Path: <no@no.example>\n");
        assert_eq!(bounces.wait(Duration::ZERO, |_| true).unwrap().from, "prvs=1=ann@our.example");
    }
}
