//! How many names does the server tell a stranger, in one session and in many? And once it tells no more, does it
//! answer known and unknown users alike, in words and in time?

use core::time::Duration;

use super::relaying::INSIDE;
use crate::probe::finding::{Outcome, Test};
use crate::probe::run::{Check, Run, shown};
use crate::probe::samples::{differ, median};
use crate::probe::server::{Expected, Session, Trouble};
use crate::wire::smtp::reply::Reply;

pub(super) const HARVEST: Check =
    Check { tests: &[Test::HarvestSession, Test::HarvestSessions, Test::ReplyTime], run: harvest };

/// Names that are tried in one session. Countersign tells 25.
const IN_ONE: usize = 30;
/// Sessions, and names in each.
const SESSIONS: usize = 12;
const IN_EACH: usize = 5;
/// Replies to known and to unknown users whose times are compared.
const SAMPLES: usize = 6;
/// Slower than this for a name, and a harvest takes too long to be worth it.
const SLOW: Duration = Duration::from_secs(2);

/// What a session has told.
#[derive(Default)]
struct Told {
    names: usize,
    time: Duration,
    /// The reply that told nothing, if it came to that.
    stopped: Option<String>,
}

impl Told {
    fn is_slow(&self) -> bool {
        u32::try_from(self.names).is_ok_and(|names| names > 0 && self.time / names > SLOW)
    }
}

fn harvest(run: &mut Run<'_>) -> Result<(), Trouble> {
    if run.takes_all(run.site.domain())? {
        run.all_untested(HARVEST.tests, "any name is accepted, so there is nothing to find out");
        return Ok(());
    }
    let one = ask(run, 100, IN_ONE)?;
    if let Some(stopped) = one.stopped.as_ref().filter(|_| one.names == 0) {
        run.all_untested(HARVEST.tests, &format!("no name was told: {stopped}"));
        return Ok(());
    }
    let names = one.names;
    match &one.stopped {
        None if one.is_slow() => {
            run.passed(Test::HarvestSession, format!("{names} names, slowly: in {} s", one.time.as_secs()));
        }
        None => {
            let text = format!("{names} names in one session were told, in {:.1} s", one.time.as_secs_f64());
            told(run, Test::HarvestSession, Outcome::Warning, text);
        }
        Some(stopped) => run.passed(Test::HarvestSession, format!("after {names} names: {stopped}")),
    }
    if !run.wants(&[Test::HarvestSessions, Test::ReplyTime]) {
        return Ok(());
    }
    let mut all = Told::default();
    for n in 0..SESSIONS {
        let told = match ask(run, 200 + n * IN_EACH, IN_EACH) {
            Ok(told) => told,
            // A server that takes no more sessions from this client tells it no more.
            Err(Trouble::Unwilling(reply)) => Told { stopped: Some(reply), ..Told::default() },
            Err(Trouble::Closed) => Told { stopped: Some(Trouble::Closed.to_string()), ..Told::default() },
            Err(trouble) => return Err(trouble),
        };
        all = Told { names: all.names + told.names, time: all.time + told.time, stopped: told.stopped };
        if all.stopped.is_some() {
            break;
        }
    }
    match all.stopped.clone() {
        Some(stopped) => once_limited(run, &stopped, names + all.names),
        None => {
            let text =
                format!("{} names in {SESSIONS} sessions were told, in {:.1} s", all.names, all.time.as_secs_f64());
            match all.is_slow() {
                true => run.passed(Test::HarvestSessions, format!("slowly: {text}")),
                false => told(run, Test::HarvestSessions, Outcome::Failed, text),
            }
            run.untested(Test::ReplyTime, "not needed: the replies themselves tell which users exist");
            Ok(())
        }
    }
}

/// Notes that all names were told. A server may trust this machine.
fn told(run: &mut Run<'_>, test: Test, outcome: Outcome, text: String) {
    match run.site.is_inside {
        true => run.untested(test, INSIDE),
        false => run.note(test, outcome, "", text),
    }
}

/// Asks for names that nobody has, until the server says that it has had enough: to the mail, to a known user, or to one
/// of the names.
fn ask(run: &mut Run<'_>, first: usize, names: usize) -> Result<Told, Trouble> {
    let (site, mut told) = (run.site, Told::default());
    let mut session = run.open()?;
    for (line, what) in
        [(format!("MAIL FROM:<{}>", site.sender), "MAIL"), (format!("RCPT TO:<{}>", site.user), "a known user")]
    {
        let reply = session.say(&line, Expected::Anything)?;
        if !reply.is_positive() {
            told.stopped = Some(format!("{} to {what}", shown(&reply)));
            return Ok(told);
        }
    }
    for n in first..first + names {
        let line = format!("RCPT TO:<{}@{}>", site.nobody(n), site.domain());
        match session.say(&line, Expected::Refused) {
            Ok(reply) if reply.is_permanent() => {
                told.names += 1;
                told.time += session.took();
            }
            Ok(reply) => {
                told.stopped = Some(shown(&reply));
                break;
            }
            Err(trouble) => {
                told.stopped = Some(trouble.to_string());
                break;
            }
        }
    }
    Ok(told)
}

/// The server has had enough after so many names. Does it answer known and unknown users alike now?
fn once_limited(run: &mut Run<'_>, stopped: &str, names: usize) -> Result<(), Trouble> {
    let nothing = match by_turns(run) {
        Ok(Ok([known, unknown])) => {
            compare(run, stopped, &known, &unknown);
            return Ok(());
        }
        Ok(Err(mail)) => format!("after {names} names no mail is taken: {}", shown(&mail)),
        Err(Trouble::Unwilling(_) | Trouble::Closed) => format!("after {names} names no session is taken: {stopped}"),
        Err(trouble) => return Err(trouble),
    };
    run.passed(Test::HarvestSessions, nothing);
    run.untested(Test::ReplyTime, "not needed: no recipient is answered");
    Ok(())
}

/// Asks for known and unknown users by turns. The inner error: the reply to MAIL, if that is refused.
fn by_turns(run: &mut Run<'_>) -> Result<Result<[Vec<Sample>; 2], Reply>, Trouble> {
    let site = run.site;
    let mut session = run.open()?;
    let mail = session.say(&format!("MAIL FROM:<{}>", site.sender), Expected::Accepted)?;
    if !mail.is_positive() {
        return Ok(Err(mail));
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..SAMPLES {
        for is_known in [n % 2 == 0, n % 2 == 1] {
            let user = match is_known {
                true => site.user.clone(),
                false => format!("{}@{}", site.nobody(300 + n), site.domain()),
            };
            let sample = sample(session.as_mut(), &user)?;
            if is_known { known.push(sample) } else { unknown.push(sample) }
        }
    }
    Ok(Ok([known, unknown]))
}

/// A reply, and how long it took.
type Sample = (Reply, Duration);

fn sample(session: &mut dyn Session, user: &str) -> Result<Sample, Trouble> {
    let reply = session.say(&format!("RCPT TO:<{user}>"), Expected::Anything)?;
    Ok((reply, session.took()))
}

/// The basic and the enhanced code of a reply. Its text may repeat the address.
fn codes(reply: &Reply) -> String {
    let line = reply.first_line();
    let is_enhanced =
        |word: &&str| word.split('.').count() == 3 && word.bytes().all(|it| it == b'.' || it.is_ascii_digit());
    match line.split([' ', '-']).nth(1).filter(is_enhanced) {
        Some(enhanced) => format!("{} {enhanced}", reply.code),
        None => reply.code.to_string(),
    }
}

/// Once the limit is reached: are known and unknown users told apart?
fn compare(run: &mut Run<'_>, stopped: &str, known: &[Sample], unknown: &[Sample]) {
    let codes = |samples: &[Sample]| {
        let mut codes: Vec<String> = samples.iter().map(|(reply, _)| codes(reply)).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    };
    let ([known_codes, unknown_codes], times) = ([codes(known), codes(unknown)], |samples: &[Sample]| {
        samples.iter().map(|(_, took)| took.as_secs_f64() * 1000.0).collect::<Vec<f64>>()
    });
    if known_codes != unknown_codes {
        let text = format!("{stopped}; but known users are answered {}", known_codes.join(", "));
        run.note(Test::HarvestSessions, Outcome::Failed, "", text);
        run.untested(Test::ReplyTime, "not needed: the replies themselves tell which users exist");
        return;
    }
    run.passed(Test::HarvestSessions, format!("known users are answered like unknown ones: {stopped}"));
    let (a, b) = (times(known), times(unknown));
    let text = format!("{:.0} ms and {:.0} ms for known and unknown users ({SAMPLES} each)", median(&a), median(&b));
    match differ(&a, &b) {
        true => run.warning(Test::ReplyTime, text),
        false => run.passed(Test::ReplyTime, text),
    }
}
