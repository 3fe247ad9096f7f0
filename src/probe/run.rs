//! A run of a probe: which tests are wanted, and what they have found.

use core::time::Duration;
use std::collections::BTreeMap;

use super::finding::{Finding, Outcome, Test};
use super::messages::Messages;
use super::server::{Expected, Host, Server, Session, Trouble, transaction};
use super::site::Site;
use crate::envelope::printable::printable;
use crate::wire::smtp::reply::Reply;

/// A check: the tests that it makes, and what it does.
pub(super) struct Check {
    pub tests: &'static [Test],
    pub run: fn(&mut Run<'_>) -> Result<(), Trouble>,
}

/// A run in progress.
pub(crate) struct Run<'a> {
    pub(super) server: &'a mut dyn Server,
    pub(super) site: &'a Site,
    pub(super) findings: Vec<Finding>,
    /// Domains of which it is known whether the server accepts any name.
    takes_all: BTreeMap<String, bool>,
    control: Option<Control>,
}

impl<'a> Run<'a> {
    pub(super) fn new(server: &'a mut dyn Server, site: &'a Site) -> Self {
        Self { server, site, findings: Vec::new(), takes_all: BTreeMap::new(), control: None }
    }

    pub(super) fn messages(&self) -> Messages<'a> {
        Messages::of(self.site)
    }

    /// The reply to a name in this domain that nobody has.
    pub(super) fn reply_to_nobody(&mut self, nobody: &str, domain: &str) -> Result<Reply, Trouble> {
        let reply = self.reply_to(nobody)?;
        self.takes_all.insert(domain.to_owned(), reply.is_positive());
        Ok(reply)
    }

    /// The reply to a recipient of mail from outside.
    pub(super) fn reply_to(&mut self, recipient: &str) -> Result<Reply, Trouble> {
        let site = self.site;
        transaction(self.open()?.as_mut(), &site.sender, recipient, None, Expected::Refused)
    }

    /// Whether the server accepts a name in this domain that nobody has. It is asked once.
    pub(super) fn takes_all(&mut self, domain: &str) -> Result<bool, Trouble> {
        match self.takes_all.get(domain) {
            Some(takes_all) => Ok(*takes_all),
            None => Ok(self.reply_to_nobody(&format!("{}@{domain}", self.site.nobody(70)), domain)?.is_positive()),
        }
    }

    /// Whether one of these tests is wanted.
    pub(super) fn wants(&self, tests: &[Test]) -> bool {
        tests.iter().any(|test| self.site.wanted.contains(test))
    }

    /// Opens a session with the server that is probed.
    pub(super) fn open(&mut self) -> Result<Box<dyn Session + '_>, Trouble> {
        self.server.open(Host::Probed)
    }

    /// Notes a result, if the test is wanted. `about`: what was tested where, or nothing.
    pub(super) fn note(&mut self, test: Test, outcome: Outcome, about: &str, detail: impl Into<String>) {
        if self.site.wanted.contains(&test) {
            self.findings.push(Finding { test, outcome, about: about.to_owned(), detail: detail.into() });
        }
    }

    pub(super) fn passed(&mut self, test: Test, detail: impl Into<String>) {
        self.note(test, Outcome::Passed, "", detail);
    }

    pub(super) fn failed(&mut self, test: Test, detail: impl Into<String>) {
        self.note(test, Outcome::Failed, "", detail);
    }

    pub(super) fn warning(&mut self, test: Test, detail: impl Into<String>) {
        self.note(test, Outcome::Warning, "", detail);
    }

    pub(super) fn untested(&mut self, test: Test, why: impl Into<String>) {
        self.note(test, Outcome::Untested, "", why);
    }

    /// Notes that tests could not be made. Those that have a result already keep it.
    pub(super) fn all_untested(&mut self, tests: &[Test], why: &str) {
        for test in tests {
            if !self.findings.iter().any(|finding| finding.test == *test) {
                self.untested(*test, why);
            }
        }
    }

    /// Notes a reply to something that must be refused.
    pub(super) fn must_refuse(&mut self, test: Test, reply: &Reply) {
        let outcome = match reply.code {
            200..300 => Outcome::Failed,
            400..500 => Outcome::Untested,
            _ => Outcome::Passed,
        };
        self.note(test, outcome, "", decided(reply, outcome));
    }

    /// Notes a reply to something that must be accepted.
    pub(super) fn must_accept(&mut self, test: Test, reply: &Reply) {
        let outcome = match reply.code {
            200..300 => Outcome::Passed,
            400..500 => Outcome::Untested,
            _ => Outcome::Warning,
        };
        self.note(test, outcome, "", decided(reply, outcome));
    }

    /// Runs transactions, each for a test, in one session or, if the server ends it, in several. Returns their replies;
    /// those after a trouble are missing.
    pub(super) fn transactions(&mut self, tries: &[Try], expected: Expected) -> Result<Vec<(Test, Reply)>, Trouble> {
        let wanted: Vec<&Try> = tries.iter().filter(|it| self.site.wanted.contains(&it.test)).collect();
        let mut replies: Vec<(Test, Reply)> = Vec::new();
        let mut answers_user = false;
        while let Some(rest) = wanted.get(replies.len()..).filter(|rest| !rest.is_empty()) {
            match self.in_one_session(rest, expected) {
                Ok((made, answers)) => {
                    replies.extend(made);
                    answers_user = answers;
                }
                Err(trouble) if replies.is_empty() => return Err(trouble),
                Err(_) => break,
            }
        }
        if expected == Expected::Refused && !replies.is_empty() && !answers_user {
            self.still_answers()?;
        }
        Ok(replies)
    }

    /// Runs at least one transaction, and more as long as the session lasts. Also returns whether mail for the user is
    /// accepted at its end, if that was asked.
    fn in_one_session(&mut self, tries: &[&Try], expected: Expected) -> Result<(Vec<(Test, Reply)>, bool), Trouble> {
        let site = self.site;
        let mut session = self.open()?;
        let mut replies = Vec::new();
        for Try { test, from, to, message } in tries {
            match transaction(session.as_mut(), from, to, message.as_deref(), expected) {
                Ok(reply) => {
                    let is_within_data = expected == Expected::Refused && reply.is_positive() && message.is_none();
                    replies.push((*test, reply));
                    if is_within_data {
                        return Ok((replies, false));
                    }
                }
                Err(trouble) if replies.is_empty() => return Err(trouble),
                Err(_) => return Ok((replies, false)),
            }
        }
        let asks = expected == Expected::Refused;
        let user = asks.then(|| transaction(session.as_mut(), &site.sender, &site.user, None, Expected::Accepted));
        let answers = matches!(user, Some(Ok(reply)) if reply.is_positive());
        Ok((replies, answers))
    }

    /// Makes sure that refusals were not meant for this client: some servers ban it in the middle of a probe.
    fn still_answers(&mut self) -> Result<(), Trouble> {
        let site = self.site;
        let reply = transaction(self.open()?.as_mut(), &site.sender, &site.user, None, Expected::Accepted)?;
        match reply.is_positive() {
            true => Ok(()),
            false => {
                Err(Trouble::Unwilling(format!("{} to mail for {}: it bans this client", shown(&reply), site.user)))
            }
        }
    }

    /// What an ordinary message from outside to the user is answered. It is sent once.
    pub(super) fn control(&mut self) -> Result<Control, Trouble> {
        if let Some(control) = &self.control {
            return Ok(control.clone());
        }
        let site = self.site;
        let message =
            self.messages().ordinary(&site.sender, &site.user, "Probe of an ordinary message", "Does this arrive?\r\n");
        let mut session = self.open()?;
        let reply = transaction(session.as_mut(), &site.sender, &site.user, Some(&message), Expected::Accepted)?;
        let control = Control { took: session.took(), reply };
        drop(session);
        self.control = Some(control.clone());
        Ok(control)
    }
}

/// A transaction for a test.
pub(super) struct Try {
    pub test: Test,
    pub from: String,
    pub to: String,
    pub message: Option<String>,
}

/// The reply to an ordinary message, and how long it took.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub reply: Reply,
    pub took: Duration,
}

/// The reply as a detail of a result.
fn decided(reply: &Reply, outcome: Outcome) -> String {
    match outcome {
        Outcome::Untested => format!("put off: {}", shown(reply)),
        _ => shown(reply),
    }
}

/// The most that is shown of a reply, in characters.
const LONGEST: usize = 120;

/// The first line of a reply, as text that is safe to print.
pub(crate) fn shown(reply: &Reply) -> String {
    let line = reply.first_line();
    let mut short: String = line.chars().take(LONGEST).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    printable(&short).into_owned()
}
