//! A run that sends nothing. It answers like a server without holes, and keeps what would have been said.

use core::time::Duration;

use super::finding::Test;
use super::server::{Bounce, Expected, Host, Server, Session, Trouble};
use crate::wire::smtp::reply::Reply;

/// A line of the dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// What the sessions that follow are for: the names of tests.
    Purpose(String),
    /// A session begins, with this host.
    Opens(String),
    /// What is sent. In octets that are no lines, line ends and NUL are written out.
    Client(String),
    /// What a server without holes answers.
    Server(String),
}

/// A server that is not there.
#[derive(Debug)]
pub(crate) struct DryRun {
    host: String,
    hello: String,
    /// The dialogue so far.
    pub spoken: Vec<Spoken>,
    /// Whether so many unknown recipients were asked for that no more are told.
    is_limited: bool,
}

impl DryRun {
    /// `hello`: the name that the client says in EHLO.
    pub(crate) fn new(host: &str, hello: &str) -> Self {
        Self { host: host.to_owned(), hello: hello.to_owned(), spoken: Vec::new(), is_limited: false }
    }

    fn session(&mut self, host: String, first: Option<&[u8]>) -> DrySession<'_> {
        self.spoken.push(Spoken::Opens(host));
        self.spoken.extend(first.map(|octets| Spoken::Client(written_out(octets))));
        self.spoken.push(Spoken::Server("220 server".to_owned()));
        let Self { spoken, is_limited, .. } = self;
        DrySession { spoken, is_limited, hello: hello(), is_asked_for_tls: false, is_raw: false, commands: 0 }
    }
}

impl Server for DryRun {
    fn open(&mut self, host: Host) -> Result<Box<dyn Session + '_>, Trouble> {
        let host = match host {
            Host::Probed => self.host.clone(),
            Host::Other(address) => address.to_string(),
        };
        let ehlo = format!("EHLO {}", self.hello);
        let mut session = self.session(host, None);
        session.say(&ehlo, Expected::Accepted)?;
        session.commands = 0;
        Ok(Box::new(session))
    }

    fn open_with(&mut self, first: &[u8]) -> Result<Box<dyn Session + '_>, Trouble> {
        Ok(Box::new(self.session(self.host.clone(), Some(first))))
    }

    fn bounce(&mut self, _: &str) -> Option<Bounce> {
        None
    }

    fn progress(&mut self, _: usize, _: usize, next: &[Test]) {
        let names: Vec<&str> = next.iter().map(|test| test.name()).collect();
        self.spoken.push(Spoken::Purpose(names.join(", ")));
    }
}

fn hello() -> Reply {
    Reply { code: 250, text: b"250-server\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n".to_vec() }
}

/// Octets as text. Those that are no line between CR LF show their line ends.
fn written_out(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    let lines = text.strip_suffix("\r\n").unwrap_or(&text);
    let is_lines = !lines.replace("\r\n", "").contains(['\r', '\n', '\0']) && !lines.starts_with("\r\n");
    match is_lines {
        true => lines.replace("\r\n", "\n"),
        false => text.replace('\0', "<NUL>").replace('\r', "<CR>").replace('\n', "<LF>"),
    }
}

struct DrySession<'a> {
    spoken: &'a mut Vec<Spoken>,
    is_limited: &'a mut bool,
    hello: Reply,
    is_asked_for_tls: bool,
    /// Whether the session ends in the middle of a message.
    is_raw: bool,
    commands: usize,
}

/// Unknown recipients after which the server that is not there tells no more.
const TELLS: usize = 25;

impl DrySession<'_> {
    fn answers(&mut self, code: u16, text: &str) -> Reply {
        let reply = Reply::new(code, "", text);
        self.spoken.push(Spoken::Server(reply.first_line()));
        reply
    }
}

impl Session for DrySession<'_> {
    fn hello(&self) -> &Reply {
        &self.hello
    }

    fn say(&mut self, line: &str, expected: Expected) -> Result<Reply, Trouble> {
        self.spoken.push(Spoken::Client(written_out(line.as_bytes())));
        self.commands += 1;
        *self.is_limited |= expected == Expected::Refused && self.commands > TELLS;
        let says_no_more = *self.is_limited || self.commands > TELLS;
        Ok(match expected {
            Expected::Anything | Expected::Refused if says_no_more => self.answers(450, "try again later"),
            Expected::Accepted => self.answers(250, "ok"),
            Expected::GoOn => self.answers(354, "go on"),
            Expected::Refused => self.answers(550, "refused"),
            Expected::Anything if line.starts_with("RCPT") => self.answers(250, "ok"),
            Expected::Anything => self.answers(252, "not told"),
        })
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        self.is_asked_for_tls = octets.starts_with(b"STARTTLS");
        self.is_raw = !self.is_asked_for_tls;
        self.spoken.push(Spoken::Client(written_out(octets)));
        Ok(())
    }

    fn reply_within(&mut self, _: Duration) -> Result<Option<Reply>, Trouble> {
        let is_due = core::mem::take(&mut self.is_asked_for_tls);
        Ok(is_due.then(|| self.answers(220, "ready")))
    }

    fn encrypt(&mut self) -> Result<(), Trouble> {
        self.spoken.push(Spoken::Client("(TLS handshake)".to_owned()));
        Ok(())
    }

    fn took(&self) -> Duration {
        Duration::ZERO
    }
}

impl Drop for DrySession<'_> {
    fn drop(&mut self) {
        self.spoken.push(Spoken::Client(if self.is_raw { "(the connection is closed)" } else { "QUIT" }.to_owned()));
    }
}

#[cfg(test)]
pub(in crate::probe) mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;
    use crate::envelope::time::Day;
    use crate::probe::finding::Outcome;
    use crate::probe::site::{OtherHost, Site};
    use crate::probe::tags::Tags;

    /// A site for tests, with all that a probe can be told.
    pub(in crate::probe) fn site() -> Site {
        Site {
            domains: vec!["our.example".to_owned(), "branch.example".to_owned()],
            user: "ann@our.example".to_owned(),
            sender: "ann@else.example".to_owned(),
            literal: "192.0.2.25".to_owned(),
            tags: Tags::captured("prvs=1790a1b2c3=ann@our.example", Day(20_780), "postmaster").ok_or_else(String::new),
            unsigned: None,
            run: "4f91c2d3e4f5".to_owned(),
            by: "root@mail.our.example".to_owned(),
            date: "Fri, 27 Nov 2026 12:00:00 +0000".to_owned(),
            is_inside: false,
            needs_header: false,
            sees_bounces: true,
            srs_domain: None,
            other_hosts: Ok(vec![OtherHost { name: "mx2.our.example".to_owned(), address: [192, 0, 2, 26].into() }]),
            wanted: Test::iter().collect(),
        }
    }

    #[test]
    fn a_server_without_holes_has_no_finding_and_every_test_a_result() {
        let site = site();
        let mut server = DryRun::new("mx.our.example", "client.example");
        let findings = crate::probe::run(&mut server, &site);
        for test in Test::iter().filter(|test| *test != Test::LateBounce) {
            let found = findings.iter().find(|finding| finding.test == test);
            assert_eq!(found.map(|finding| finding.outcome), Some(Outcome::Passed), "{test:?}: {found:?}");
        }
        let shown: Vec<&str> = server
            .spoken
            .iter()
            .filter_map(|it| if let Spoken::Client(it) = it { Some(it.as_str()) } else { None })
            .collect();
        assert!(
            shown.contains(&"<LF>.<LF>NOOP<CR><LF>") && shown.contains(&"<CR><LF><NUL>.<CR><LF>NOOP<CR><LF>"),
            "{shown:?}"
        );
        let sessions = server.spoken.iter().filter(|line| matches!(line, Spoken::Opens(_))).count();
        assert!(sessions <= 40, "{sessions}");
    }
}
