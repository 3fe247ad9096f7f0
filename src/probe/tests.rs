//! The checks against a server that answers as a test says.

use core::time::Duration;

use super::dry_run::tests::site;
use super::finding::{Finding, Outcome, Test};
use super::server::{Bounce, Expected, Host, Server, Session, Trouble};
use super::site::Site;
use crate::wire::smtp::reply::Reply;

/// A server that answers with codes. What a rule does not answer is answered as it should be.
struct Scripted<'a> {
    /// The code for a line. 0: the server closes the connection.
    rule: &'a dyn Fn(&str) -> Option<u16>,
    /// Codes that come after octets that are no line.
    raw: &'a dyn Fn(&[u8]) -> Vec<u16>,
    /// Code after a TLS handshake.
    injected: Option<u16>,
    bounce: Option<&'static str>,
    sessions: usize,
    /// Milliseconds that the last reply took, by line.
    took: &'a dyn Fn(&str) -> u64,
}

/// In place of a code: what follows comes five seconds later.
const LATE: u16 = 1;

struct ScriptedSession<'a> {
    server: &'a Scripted<'a>,
    hello: Reply,
    due: Vec<u16>,
    took: u64,
}

fn reply(code: u16) -> Reply {
    Reply::new(code, "", "text")
}

impl Server for Scripted<'_> {
    fn open(&mut self, _: Host) -> Result<Box<dyn Session + '_>, Trouble> {
        self.sessions += 1;
        let hello = Reply { code: 250, text: b"250-server\r\n250 STARTTLS\r\n".to_vec() };
        Ok(Box::new(ScriptedSession { server: self, hello, due: Vec::new(), took: 0 }))
    }

    fn open_with(&mut self, _: &[u8]) -> Result<Box<dyn Session + '_>, Trouble> {
        self.open(Host::Probed)
    }

    fn bounce(&mut self, marker: &str) -> Option<Bounce> {
        self.bounce.map(|text| Bounce { text: format!("{marker} {text}"), after: Duration::from_secs(3) })
    }

    fn progress(&mut self, _: usize, _: usize, _: &[Test]) {}
}

impl Session for ScriptedSession<'_> {
    fn hello(&self) -> &Reply {
        &self.hello
    }

    fn say(&mut self, line: &str, expected: Expected) -> Result<Reply, Trouble> {
        self.took = (self.server.took)(line);
        let usual = match expected {
            Expected::Accepted => 250,
            Expected::GoOn => 354,
            Expected::Refused => 550,
            Expected::Anything => 252,
        };
        // DATA is said to learn whether a recipient is refused there.
        let usual = if line == "DATA" { 354 } else { usual };
        match (self.server.rule)(line).unwrap_or(usual) {
            0 => Err(Trouble::Closed),
            code => Ok(reply(code)),
        }
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        self.due.extend(match octets.starts_with(b"STARTTLS") {
            true => vec![220],
            false => (self.server.raw)(octets),
        });
        Ok(())
    }

    fn reply_within(&mut self, patience: Duration) -> Result<Option<Reply>, Trouble> {
        if self.due.first() == Some(&LATE) {
            self.due.remove(0);
            if patience < Duration::from_secs(5) {
                return Ok(None);
            }
        }
        match self.due.is_empty() {
            true => Ok(None),
            false => match self.due.remove(0) {
                0 => Err(Trouble::Closed),
                code => Ok(Some(reply(code))),
            },
        }
    }

    fn encrypt(&mut self) -> Result<(), Trouble> {
        self.due = self.server.injected.into_iter().collect();
        Ok(())
    }

    fn took(&self) -> Duration {
        Duration::from_millis(self.took)
    }
}

const GOOD: Scripted<'static> =
    Scripted { rule: &|_| None, raw: &|_| Vec::new(), injected: None, bounce: None, sessions: 0, took: &|_| 1 };

/// The findings of some tests, without those that passed.
fn found(server: &mut Scripted<'_>, site: &Site, tests: &[Test]) -> Vec<(Test, Outcome)> {
    let site = Site { wanted: tests.to_vec(), ..site.clone() };
    let all = super::run(server, &site);
    assert!(tests.iter().all(|test| has_result(&all, *test)), "{all:#?}");
    all.into_iter().filter(|it| it.outcome != Outcome::Passed).map(|it| (it.test, it.outcome)).collect()
}

fn has_result(all: &[Finding], test: Test) -> bool {
    // These two are results of the same question.
    let alike = [Test::UnknownUser, Test::LateBounce];
    all.iter().any(|it| it.test == test || (alike.contains(&test) && alike.contains(&it.test)))
}

fn is_rcpt_to(line: &str, part: &str) -> bool {
    line.starts_with("RCPT") && line.contains(part)
}

#[test]
fn unknown_users_that_are_accepted_are_a_hole_if_they_bounce() {
    let site = Site { domains: vec!["our.example".to_owned()], ..site() };
    let accepts = |line: &str| is_rcpt_to(line, "x4f91").then_some(250).or((line.ends_with("\r\n.")).then_some(250));
    let tests = [Test::UnknownUser, Test::LateBounce];
    let mut server = Scripted { rule: &accepts, bounce: Some("Does this bounce?"), ..GOOD };
    assert_eq!(found(&mut server, &site, &tests), [(Test::LateBounce, Outcome::Failed)]);
    let mut server = Scripted { rule: &accepts, ..GOOD };
    assert_eq!(found(&mut server, &site, &tests), [(Test::UnknownUser, Outcome::Warning)]);
    // Without a place for bounces no message is sent.
    let sends_nothing = |line: &str| match line {
        line if line.ends_with("\r\n.") => panic!("a message was sent"),
        line => accepts(line),
    };
    let blind = Site { sees_bounces: false, ..site.clone() };
    let mut server = Scripted { rule: &sends_nothing, ..GOOD };
    assert_eq!(found(&mut server, &blind, &tests), [(Test::UnknownUser, Outcome::Warning)]);
    // Refused at the end of the message, or put off.
    let late = |line: &str| is_rcpt_to(line, "x4f91").then_some(250);
    assert_eq!(found(&mut Scripted { rule: &late, ..GOOD }, &site, &tests), []);
    // If only the bounce is asked for, a refusal answers that; so does silence.
    assert_eq!(found(&mut Scripted { ..GOOD }, &site, &[Test::LateBounce]), []);
    let mut server = Scripted { rule: &accepts, ..GOOD };
    assert_eq!(found(&mut server, &site, &[Test::LateBounce]), [(Test::LateBounce, Outcome::Warning)]);
    // A server trusts its own machine.
    let inside = Site { is_inside: true, ..site.clone() };
    assert_eq!(
        found(&mut Scripted { rule: &sends_nothing, ..GOOD }, &inside, &tests),
        [(Test::UnknownUser, Outcome::Untested)]
    );
    let later = |line: &str| is_rcpt_to(line, "x4f91").then_some(451);
    let mut server = Scripted { rule: &later, ..GOOD };
    assert_eq!(found(&mut server, &site, &tests), [(Test::UnknownUser, Outcome::Untested)]);
}

#[test]
fn a_domain_that_is_mistyped_passes_no_test() {
    let mistyped = |line: &str| is_rcpt_to(line, "@branch.example").then_some(554);
    let mut server = Scripted { rule: &mistyped, ..GOOD };
    let tests = [Test::UnknownUser, Test::ReplyText];
    let untested = tests.map(|test| (test, Outcome::Untested));
    assert_eq!(found(&mut server, &site(), &tests), untested);
    let right = |line: &str| is_rcpt_to(line, "postmaster@branch.example").then_some(250);
    assert_eq!(found(&mut Scripted { rule: &right, ..GOOD }, &site(), &tests), []);
}

#[test]
fn vrfy_tells_by_250_or_by_a_difference() {
    let site = site();
    for (known, unknown, tells) in [(252, 550, true), (250, 250, true), (252, 252, false), (502, 502, false)] {
        let rule = move |line: &str| match line {
            "VRFY ann@our.example" => Some(known),
            line if line.starts_with("VRFY") => Some(unknown),
            _ => None,
        };
        let expected = if tells { vec![(Test::Vrfy, Outcome::Warning)] } else { Vec::new() };
        assert_eq!(found(&mut Scripted { rule: &rule, ..GOOD }, &site, &[Test::Vrfy, Test::Expn]), expected, "{known}");
    }
    let expands = |line: &str| line.starts_with("EXPN").then_some(250);
    let mut server = Scripted { rule: &expands, ..GOOD };
    assert_eq!(found(&mut server, &site, &[Test::Vrfy, Test::Expn]), [(Test::Expn, Outcome::Warning)]);
}

#[test]
fn refusals_by_a_ban_are_no_results() {
    let refused = core::cell::Cell::new(0);
    // After four refusals, the server takes nothing from this client.
    let bans = |line: &str| {
        let is_rcpt = line.starts_with("RCPT") && !line.contains("<ann@our.example>");
        refused.set(refused.get() + usize::from(is_rcpt));
        (refused.get() > 4 && line.starts_with("MAIL")).then_some(554)
    };
    let tests = [Test::RelayPlain, Test::RelayNullSender, Test::RelayOwnSender, Test::RelayPercent, Test::RelayBang];
    let untested: Vec<_> = tests.iter().map(|test| (*test, Outcome::Untested)).collect();
    assert_eq!(found(&mut Scripted { rule: &bans, ..GOOD }, &site(), &tests), untested);
}

#[test]
fn a_server_that_closes_after_each_refusal_is_tested_all_the_same() {
    // Exim's `drop`: the refusal is read, and the next command finds no connection.
    let closes = |line: &str| (line == "RSET").then_some(0);
    let tests = [Test::RelayPlain, Test::RelayNullSender, Test::RelayPercent];
    let mut server = Scripted { rule: &closes, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), []);
}

#[test]
fn what_is_refused_at_data_is_refused() {
    let at_data = |line: &str| if line == "DATA" { Some(554) } else { is_rcpt_to(line, "else.example").then_some(250) };
    let tests = [Test::RelayPlain, Test::RelayNullSender];
    assert_eq!(found(&mut Scripted { rule: &at_data, ..GOOD }, &site(), &tests), []);
}

#[test]
fn content_says_nothing_where_no_message_is_accepted() {
    let refuses = |line: &str| line.ends_with("\r\n.").then_some(550);
    let tests = [Test::UntaggedDsn, Test::TextBounce, Test::Vacation];
    let mut server = Scripted { rule: &refuses, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), tests.map(|test| (test, Outcome::Untested)));
}

#[test]
fn relaying_is_a_hole_for_strangers_only() {
    let relays = |line: &str| is_rcpt_to(line, "ann%else.example@our.example").then_some(250);
    let tests = [Test::RelayPlain, Test::RelayPercent];
    let mut server = Scripted { rule: &relays, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), [(Test::RelayPercent, Outcome::Failed)]);
    let inside = Site { is_inside: true, ..site() };
    assert_eq!(found(&mut server, &inside, &tests), [(Test::RelayPercent, Outcome::Untested)]);
    // A catch-all takes any local part.
    let any = |line: &str| is_rcpt_to(line, "@our.example>").then_some(250);
    let mut server = Scripted { rule: &any, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), [(Test::RelayPercent, Outcome::Untested)]);
}

#[test]
fn bad_tags_are_a_hole_and_good_ones_must_not_be_refused() {
    let takes = |line: &str| (line.starts_with("RCPT TO:<prvs=") || line.ends_with("\r\n.")).then_some(250);
    let bad = [Test::TagForged, Test::TagExpired, Test::TagFuture, Test::TagWrapped, Test::TagSpliced];
    let expected: Vec<_> = bad.iter().map(|test| (*test, Outcome::Failed)).collect();
    assert_eq!(found(&mut Scripted { rule: &takes, ..GOOD }, &site(), &bad), expected);
    let refuses = |line: &str| line.to_lowercase().starts_with("rcpt to:<prvs=").then_some(550);
    let good = [Test::GenuineBounce, Test::TagLowerCase];
    let mut server = Scripted { rule: &refuses, ..GOOD };
    let expected = [(Test::TagLowerCase, Outcome::Untested), (Test::GenuineBounce, Outcome::Warning)];
    assert_eq!(found(&mut server, &site(), &good), expected);
    let compares_case = |line: &str| line.starts_with("RCPT TO:<PRVS=").then_some(550);
    let mut server = Scripted { rule: &compares_case, ..GOOD };
    assert_eq!(found(&mut server, &site(), &good), [(Test::TagLowerCase, Outcome::Warning)]);
    // Without a return address, and with one that was not signed.
    let without = Site { tags: Err("none".to_owned()), ..site() };
    let expected = [(Test::TagLowerCase, Outcome::Untested), (Test::GenuineBounce, Outcome::Untested)];
    assert_eq!(found(&mut Scripted { ..GOOD }, &without, &good), expected);
    let unsigned = Site { unsigned: Some("ann@our.example".to_owned()), ..without };
    let expected = [(Test::TagLowerCase, Outcome::Untested), (Test::GenuineBounce, Outcome::Warning)];
    assert_eq!(found(&mut Scripted { ..GOOD }, &unsigned, &good), expected);
}

#[test]
fn a_tag_is_limited_or_not() {
    let count = core::cell::Cell::new(0);
    let limits = |line: &str| {
        count.set(count.get() + usize::from(line.starts_with("RCPT TO:<prvs=")));
        line.starts_with("RCPT TO:<prvs=").then_some(if count.get() > 23 { 451 } else { 250 })
    };
    assert_eq!(found(&mut Scripted { rule: &limits, ..GOOD }, &site(), &[Test::TagReplayed]), []);
    let takes = |line: &str| line.starts_with("RCPT TO:<prvs=").then_some(250);
    let mut server = Scripted { rule: &takes, ..GOOD };
    assert_eq!(found(&mut server, &site(), &[Test::TagReplayed]), [(Test::TagReplayed, Outcome::Untested)]);
}

#[test]
fn a_message_that_ends_too_early_is_a_hole() {
    let tests = [Test::SmuggleLfLf, Test::SmuggleCrCr, Test::SmuggleCrlfLf];
    let after = |codes: &'static [u16]| {
        move |octets: &[u8]| if octets.starts_with(b"\r.\r") { codes.to_vec() } else { Vec::new() }
    };
    // The message is accepted, and the command behind it is executed.
    let mut server = Scripted { raw: &after(&[250, 250]), ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), [(Test::SmuggleCrCr, Outcome::Failed)]);
    assert_eq!(
        server.sessions, 5,
        "one for an ordinary message, one for all variants, one for each up to the hole, one for the rest"
    );
    // A server whose filter takes five seconds: the hole is found, and not another one.
    let late = |octets: &[u8]| if octets.starts_with(b"\n.\n") { vec![LATE, 250, 250] } else { Vec::new() };
    let took = |line: &str| if line.ends_with("\r\n.") { 5000 } else { 1 };
    let mut server = Scripted { raw: &late, took: &took, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), [(Test::SmuggleLfLf, Outcome::Failed)]);
    let mut server = Scripted { raw: &late, took: &took, ..GOOD };
    assert_eq!(found(&mut server, &site(), &[Test::SmuggleLfLf]), [(Test::SmuggleLfLf, Outcome::Failed)]);
    // A server that takes no ordinary message either.
    let refuses = |line: &str| line.ends_with("\r\n.").then_some(550);
    let mut server = Scripted { rule: &refuses, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), tests.map(|test| (test, Outcome::Untested)));
    // Even a refusal: the command behind it was executed.
    let mut server = Scripted { raw: &after(&[550, 250]), ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), [(Test::SmuggleCrCr, Outcome::Failed)]);
    let inside = Site { is_inside: true, ..site() };
    let mut server = Scripted { raw: &after(&[250, 250]), ..GOOD };
    assert_eq!(found(&mut server, &inside, &tests), [(Test::SmuggleCrCr, Outcome::Untested)]);
    for codes in [&[521, 0][..], &[0], &[550], &[421, 421]] {
        let after = move |octets: &[u8]| if octets.starts_with(b"\r.\r") { codes.to_vec() } else { Vec::new() };
        assert_eq!(found(&mut Scripted { raw: &after, ..GOOD }, &site(), &tests), [], "{codes:?}");
    }
}

#[test]
fn commands_before_the_handshake_and_claims_of_strangers() {
    let tests = [Test::StarttlsInjection];
    let mut server = Scripted { injected: Some(250), ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), [(Test::StarttlsInjection, Outcome::Failed)]);
    let believes = |line: &str| match line.get(..6) {
        Some("XCLIEN") => Some(220),
        Some("XFORWA" | "EHLO c") => Some(250),
        _ => None,
    };
    let tests = [Test::Xclient, Test::Xforward, Test::ProxyHeader];
    let mut server = Scripted { rule: &believes, ..GOOD };
    assert_eq!(found(&mut server, &site(), &tests), tests.map(|test| (test, Outcome::Failed)));
    let inside = Site { is_inside: true, ..site() };
    assert_eq!(found(&mut server, &inside, &tests), tests.map(|test| (test, Outcome::Untested)));
    let needs = Site { needs_header: true, ..site() };
    assert_eq!(found(&mut Scripted { ..GOOD }, &needs, &tests), [(Test::ProxyHeader, Outcome::Failed)]);
}

/// A server that tells so many names, and what it answers then to known and to unknown users.
fn limited(names: usize, [known, unknown]: [u16; 2]) -> impl Fn(&str) -> Option<u16> {
    let told = core::cell::Cell::new(0);
    move |line: &str| match line {
        line if is_rcpt_to(line, "<ann@") => Some(if told.get() >= names { known } else { 250 }),
        line if is_rcpt_to(line, "<x4f91") => {
            told.set(told.get() + 1);
            Some(if told.get() > names { unknown } else { 550 })
        }
        _ => None,
    }
}

#[test]
fn harvesters_are_told_a_few_names_and_nothing_by_words_or_time() {
    let tests = [Test::HarvestSession, Test::HarvestSessions, Test::ReplyTime];
    let run = |names: usize, codes: [u16; 2], took: &dyn Fn(&str) -> u64| {
        let rule = limited(names, codes);
        found(&mut Scripted { rule: &rule, took, ..GOOD }, &site(), &tests)
    };
    let same = |_: &str| 40;
    assert_eq!(run(26, [450, 450], &same), []);
    let all = [
        (Test::HarvestSession, Outcome::Warning),
        (Test::HarvestSessions, Outcome::Failed),
        (Test::ReplyTime, Outcome::Untested),
    ];
    assert_eq!(run(1000, [450, 450], &same), all);
    assert_eq!(run(40, [450, 450], &same), [(Test::HarvestSession, Outcome::Warning)]);
    // Known users are told apart by the reply, or by its time.
    let apart = [(Test::HarvestSessions, Outcome::Failed), (Test::ReplyTime, Outcome::Untested)];
    assert_eq!(run(26, [250, 450], &same), apart);
    let slower = |line: &str| if is_rcpt_to(line, "<ann@") { 90 } else { 40 };
    assert_eq!(run(26, [450, 450], &slower), [(Test::ReplyTime, Outcome::Warning)]);
    // A server that is slow on purpose.
    let slow = |_: &str| 3000;
    assert_eq!(run(1000, [450, 450], &slow), [(Test::ReplyTime, Outcome::Untested)]);
    // A limit whose refusals are permanent, for known and unknown users alike.
    assert_eq!(run(32, [550, 550], &same).first(), Some(&(Test::HarvestSession, Outcome::Warning)));
    // Greylisting: nothing is told, and nothing can be said.
    assert_eq!(run(0, [450, 450], &same), tests.map(|test| (test, Outcome::Untested)));
}

#[test]
fn a_server_that_ends_every_session_leaves_tests_without_a_result_and_says_why() {
    let site = site();
    let closes = |_: &str| Some(0);
    let all = super::run(&mut Scripted { rule: &closes, ..GOOD }, &site);
    let open: Vec<_> = all.iter().filter(|it| it.outcome == Outcome::Untested).collect();
    assert!(open.len() > 30 && open.iter().all(|it| !it.detail.is_empty()), "{all:#?}");
    assert!(all.iter().all(|it| !it.outcome.is_finding()), "{all:#?}");
}
