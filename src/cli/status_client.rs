//! Queries a running daemon over its status listener: what enforcing would have refused.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::colours::BOLD;
use crate::config::{Config, Endpoint};

/// Timeout for connecting, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most octets of an answer that are read.
const MAX_ANSWER: u64 = 1 << 20;

/// The answer at `/observed`.
#[derive(Debug, Deserialize)]
struct ObservedReport {
    since: String,
    would_refuse: Vec<(String, u64)>,
    genuine: u64,
    rescued: u64,
    networks: Vec<(String, u64)>,
    unsigned_paths: Vec<(String, u64)>,
    surges: Vec<String>,
    guesses: u64,
    forgery_chance: f64,
    #[serde(default)]
    ramps: Vec<(String, String)>,
}

/// What a running daemon says.
pub(super) struct Daemon {
    /// The state of the ramp of each domain, in words; `None`: no daemon answers.
    pub ramps: Option<Vec<(String, String)>>,
    /// What enforcing would have refused so far, as lines of text. Empty without a status listener on TCP; one line
    /// with the error if no daemon answers.
    pub lines: Vec<String>,
}

/// Asks a running daemon over its status listener.
pub(super) fn daemon(config: &Config) -> Daemon {
    let Some(Endpoint::Tcp { host, port }) = &config.status else { return Daemon { ramps: None, lines: Vec::new() } };
    match ask(host, *port) {
        Ok(observed) => Daemon { lines: observed.lines(), ramps: Some(observed.ramps) },
        Err(error) => Daemon {
            ramps: None,
            lines: vec![format!(
                "No running daemon answers on {host}:{port} ({error}): what it has seen is not shown."
            )],
        },
    }
}

fn ask(host: &str, port: u16) -> Result<ObservedReport, String> {
    let address = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or("no such host")?;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /observed HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            "what listens there does not answer in time".to_owned()
        }
        _ => error.to_string(),
    })?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).ok_or("it does not speak HTTP")?;
    serde_json::from_str(body).map_err(|_| "its answer is not that of this program".to_owned())
}

impl ObservedReport {
    fn lines(&self) -> Vec<String> {
        let listed = |list: &[(String, u64)]| {
            list.iter().take(5).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let total: u64 = self.would_refuse.iter().map(|(_, count)| count).sum();
        let mut lines =
            vec![format!("{BOLD}Seen{BOLD:#} since {}: {total} that enforcing would have refused", self.since)];
        if total > 0 {
            lines.push(format!(
                "  by reason: {}; with evidence of being genuine: {}",
                listed(&self.would_refuse),
                self.genuine
            ));
            lines.push(format!("  by network: {}", listed(&self.networks)));
        }
        if !self.unsigned_paths.is_empty() {
            lines.push(format!(
                "  said by these bounces, not proven: originals of ours left unsigned, by: {}",
                listed(&self.unsigned_paths)
            ));
        }
        if !self.surges.is_empty() {
            let domains = self.surges.join(", ");
            lines.push(format!("  a surge is on: null-sender mail without a tag is put off at RCPT, but for one a minute of each network, for {domains}"));
        }
        lines.push(format!(
            "  untagged bounces rescued by evidence: {}; bad tags: {}, the chance that one was good by luck: {:.6}",
            self.rescued, self.guesses, self.forgery_chance
        ));
        lines
    }
}
