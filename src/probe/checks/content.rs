//! Mail with the null sender to an address without a tag: bounces must be refused, all else must arrive.

use crate::probe::finding::Test;
use crate::probe::run::{Check, Run};
use crate::probe::server::{Expected, Trouble};

pub(super) const BOUNCES: Check = Check { tests: &[Test::UntaggedDsn, Test::TextBounce], run: bounces };

pub(super) const WANTED: Check =
    Check { tests: &[Test::Vacation, Test::Receipt, Test::Calendar, Test::DmarcReport], run: wanted };

/// A recipient of mail that was never sent.
const NOBODY: &str = "nobody@countersign-probe.invalid";

fn bounces(run: &mut Run<'_>) -> Result<(), Trouble> {
    let (user, messages) = (&run.site.user, run.messages());
    let tries = [
        (Test::UntaggedDsn, String::new(), user.clone(), Some(messages.dsn(user, NOBODY))),
        (Test::TextBounce, String::new(), user.clone(), Some(messages.text_bounce(NOBODY))),
    ];
    for (test, reply) in run.transactions(&tries, Expected::Refused)? {
        run.must_refuse(test, &reply);
    }
    Ok(())
}

fn wanted(run: &mut Run<'_>) -> Result<(), Trouble> {
    let (user, messages) = (&run.site.user, run.messages());
    let tries = [
        (Test::Vacation, messages.vacation()),
        (Test::Receipt, messages.receipt()),
        (Test::Calendar, messages.calendar()),
        (Test::DmarcReport, messages.dmarc_report()),
    ];
    let tries = tries.map(|(test, text)| (test, String::new(), user.clone(), Some(text)));
    for (test, reply) in run.transactions(&tries, Expected::Accepted)? {
        run.must_accept(test, &reply);
    }
    Ok(())
}
