//! Bounces to signed return addresses: bad tags must be refused, good ones accepted.

use crate::envelope::time::Day;
use crate::probe::finding::Test;
use crate::probe::run::{Check, Run, Try, shown};
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
    // A guess needs no exact day.
    let day = site.tags.as_ref().map_or(Day(0), |tags| tags.today);
    let mut addresses = vec![(Test::TagForged, forged(&site.user, day, &site.run))];
    if let Ok(tags) = &site.tags {
        addresses.extend([
            (Test::TagExpired, tags.expired.clone()),
            (Test::TagFuture, tags.future.clone()),
            (Test::TagWrapped, tags.wrapped.clone()),
            (Test::TagSpliced, tags.spliced.clone()),
        ]);
        let other = site.domains.get(1).map(|other| format!("{}@{other}", tags.local));
        addresses.extend(other.map(|address| (Test::TagOtherDomain, address)));
    }
    let mut tries = Vec::new();
    for (test, to) in addresses.into_iter().filter(|(test, _)| site.wanted.contains(test)) {
        let domain = to.rsplit_once('@').map_or("", |(_, domain)| domain);
        // Where any name is accepted, a message to a bad tag would wait in the queue as a bounce that cannot be returned.
        if run.takes_all(domain)? {
            run.untested(test, format!("any name @{domain} is accepted"));
        } else {
            let message = Some(run.messages().dsn(&to, &site.sender));
            tries.push(Try { test, from: String::new(), to, message });
        }
    }
    for (test, reply) in run.transactions(&tries, Expected::Refused)? {
        run.must_refuse(test, &reply);
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
        Try { test: Test::GenuineBounce, from: String::new(), to: tags.valid.clone(), message },
        Try { test: Test::TagLowerCase, from: String::new(), to: tags.other_case(), message: None },
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
        // 452: so many recipients in a message, not bounces to a tag.
        Some((n, reply)) if n == 0 || reply.code == 452 => run.untested(Test::TagReplayed, shown(&reply)),
        Some((n, reply)) => run.passed(Test::TagReplayed, format!("after {n} bounces: {}", shown(&reply))),
    }
    Ok(())
}
