//! The results of a probe, for people and for scripts.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::arguments::Proof;
use super::real_server::RealServer;
use crate::envelope::printable::printable;
use crate::envelope::time::Timestamp;
use crate::probe::advice::{Software, advice};
use crate::probe::finding::{Finding, Outcome};
use crate::probe::site::Site;

/// The results of a probe.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    /// The server, as it was typed, and its address.
    pub host: String,
    pub address: String,
    /// The program that greets; empty: its greeting does not say.
    pub software: &'static str,
    /// The domains, the user and the sender.
    pub domains: Vec<String>,
    pub user: String,
    pub sender: String,
    /// How it is proven that the server may be probed.
    pub proof: Proof,
    /// Identifies the run, as `X-Countersign-Probe` does.
    pub run: String,
    /// Seconds since 1970 at which it began, and seconds that it took.
    pub started: i64,
    pub seconds: u64,
    /// Sessions that it opened.
    pub sessions: usize,
    /// The address of this machine from which it came, if that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The number of tests that passed, with a hole, with a warning, and without a result.
    pub passed: usize,
    pub failed: usize,
    pub warnings: usize,
    pub untested: usize,
    /// The results, test by test.
    pub results: Vec<ResultOf>,
}

/// The result of a test, with what it means.
#[derive(Debug, Serialize)]
pub(super) struct ResultOf {
    /// The group of tests, as it is shown.
    pub section: &'static str,
    /// What is tested, in a few words.
    pub title: &'static str,
    #[serde(flatten)]
    pub finding: Finding,
    /// What a finding means; empty for others.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub meaning: &'static str,
    /// What to change, by program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub change: Vec<Change>,
}

/// Something to change.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    pub program: &'static str,
    pub text: &'static str,
}

/// A number of things.
pub(super) fn many(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

impl Results {
    pub(super) fn of(
        host: &str,
        server: &RealServer,
        site: &Site,
        proof: Proof,
        started: Timestamp,
        took: Duration,
        findings: Vec<Finding>,
    ) -> Self {
        let software = server.greeting.as_deref().and_then(Software::of_greeting);
        let count = |outcome: Outcome| findings.iter().filter(|it| it.outcome == outcome).count();
        Self {
            host: host.to_owned(),
            address: server.address.to_string(),
            software: software.map_or("", Software::name),
            domains: site.domains.clone(),
            user: site.user.clone(),
            sender: site.sender.clone(),
            proof,
            run: site.run.clone(),
            started: started.0,
            seconds: took.as_secs(),
            sessions: server.sessions,
            from: server.from,
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            warnings: count(Outcome::Warning),
            untested: count(Outcome::Untested),
            results: findings.into_iter().map(|finding| ResultOf::of(finding, software)).collect(),
        }
    }

    /// Whether there is nothing to change.
    pub(super) fn is_clean(&self) -> bool {
        self.failed + self.warnings == 0
    }

    /// The counts in words.
    pub(super) fn summary(&self) -> String {
        let found = match self.is_clean() {
            true => "No finding".to_owned(),
            false => format!("{}, {}", many(self.failed, "hole"), many(self.warnings, "warning")),
        };
        match self.untested {
            0 => found,
            n => format!("{found}, {n} not tested"),
        }
    }
}

impl ResultOf {
    fn of(finding: Finding, software: Option<Software>) -> Self {
        let advice = finding.outcome.is_finding().then(|| advice(finding.test, finding.outcome));
        let change = advice.iter().flat_map(|advice| advice.changes(software));
        Self {
            section: finding.test.section().title(),
            title: finding.test.title(),
            meaning: advice.map_or("", |advice| advice.meaning),
            change: change.map(|(program, text)| Change { program, text }).collect(),
            // What a server says may have been chosen by a stranger.
            finding: Finding { detail: printable(&finding.detail).into_owned(), ..finding },
        }
    }
}
