//! Bounces to signed return addresses: bad tags must be refused, good ones accepted.

use crate::envelope::time::Day;
use crate::probe::finding::Test;
use crate::probe::run::{Check, Run, shown};
use crate::probe::server::{Expected, Trouble};
use crate::probe::tags::forged;

pub(super) const BAD: Check = Check {
    tests: &[
        Test::TagForged,
        Test::TagExpired,
        Test::TagFuture,
        Test::TagWrapped,
        Test::TagSpliced,
        Test::TagOtherDomain,
    ],
    run: bad,
};

pub(super) const GOOD: Check =
    Check { tests: &[Test::TagLowerCase, Test::TagReplayed, Test::GenuineBounce], run: good };

/// More bounces to one tag than one message can have earned.
const REPLAYS: usize = 40;

fn bad(run: &mut Run<'_>) -> Result<(), Trouble> {
    let site = run.site;
    let failed = &site.sender;
    // A guess needs no exact day.
    let day = site.tags.as_ref().map_or(Day(0), |tags| tags.today);
    // Where any name is accepted, a message to a bad tag would wait in the queue as a bounce that cannot be returned.
    let takes_all = run.takes_all(site.domain())?;
    let dsn = |to: &str| (String::new(), to.to_owned(), (!takes_all).then(|| run.messages().dsn(to, failed)));
    let mut tries = vec![(Test::TagForged, dsn(&forged(&site.user, day, &site.run)))];
    if let Ok(tags) = &site.tags {
        tries.extend([
            (Test::TagExpired, dsn(&tags.expired)),
            (Test::TagFuture, dsn(&tags.future)),
            (Test::TagWrapped, dsn(&tags.wrapped)),
            (Test::TagSpliced, dsn(&tags.spliced)),
        ]);
        tries.extend(site.domains.get(1).map(|other| (Test::TagOtherDomain, dsn(&format!("{}@{other}", tags.local)))));
    }
    let tries: Vec<_> = tries.into_iter().map(|(test, (from, to, text))| (test, from, to, text)).collect();
    for (test, reply) in run.transactions(&tries, Expected::Refused)? {
        match reply.is_positive() && takes_all {
            true => run.untested(test, format!("any name @{} is accepted", site.domain())),
            false => run.must_refuse(test, &reply),
        }
    }
    match &site.tags {
        Err(why) => run.all_untested(BAD.tests, why),
        Ok(_) if site.domains.len() < 2 => run.all_untested(&[Test::TagOtherDomain], "needs a second --domain"),
        Ok(_) => {}
    }
    Ok(())
}

fn good(run: &mut Run<'_>) -> Result<(), Trouble> {
    let site = run.site;
    let tags = match &site.tags {
        Ok(tags) => tags,
        Err(why) => {
            if let Some(unsigned) = &site.unsigned {
                run.warning(Test::GenuineBounce, format!("mail of {} leaves unsigned, as {unsigned}", site.user));
            }
            run.all_untested(GOOD.tests, why);
            return Ok(());
        }
    };
    let message = (!run.takes_all(site.domain())?).then(|| run.messages().dsn(&tags.valid, &site.sender));
    let tries = [
        (Test::GenuineBounce, String::new(), tags.valid.clone(), message),
        (Test::TagLowerCase, String::new(), tags.other_case(), None),
    ];
    let mut is_refused = false;
    for (test, reply) in run.transactions(&tries, Expected::Accepted)? {
        match test {
            // The letter case makes no difference where the address is refused in any case.
            Test::TagLowerCase if is_refused && !reply.is_positive() => {
                run.untested(test, format!("refused in the usual case, too: {}", shown(&reply)));
            }
            _ => run.must_accept(test, &reply),
        }
        is_refused |= !reply.is_positive();
    }
    if run.wants(&[Test::TagReplayed]) {
        replay(run, &tags.valid)?;
    }
    Ok(())
}

/// Names one tag many times in a transaction that never has a message.
fn replay(run: &mut Run<'_>, valid: &str) -> Result<(), Trouble> {
    let mut session = run.open()?;
    session.say("MAIL FROM:<>", Expected::Accepted)?;
    let mut stopped = None;
    for n in 1..=REPLAYS {
        let reply = session.say(&format!("RCPT TO:<{valid}>"), Expected::Anything)?;
        if !reply.is_positive() {
            stopped = Some((n - 1, reply));
            break;
        }
    }
    session.say("RSET", Expected::Accepted)?;
    drop(session);
    match stopped {
        None => run.untested(
            Test::TagReplayed,
            format!("{REPLAYS} bounces to a new tag are accepted; a limit shows after mail was sent with the tag"),
        ),
        Some((0, reply)) => run.untested(Test::TagReplayed, shown(&reply)),
        Some((n, reply)) => run.passed(Test::TagReplayed, format!("after {n} bounces: {}", shown(&reply))),
    }
    Ok(())
}
