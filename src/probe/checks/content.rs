//! Mail with the null sender to an address without a tag: bounces must be refused, all else must arrive.

use crate::probe::finding::Test;
use crate::probe::run::{Check, Run, Try, shown};
use crate::probe::server::{Expected, Trouble};

pub(super) const BOUNCES: Check = Check { tests: &[Test::UntaggedDsn, Test::TextBounce], run: bounces };

pub(super) const WANTED: Check =
    Check { tests: &[Test::Vacation, Test::Receipt, Test::Calendar, Test::DmarcReport], run: wanted };

/// A recipient of mail that was never sent.
const NOBODY: &str = "nobody@countersign-probe.invalid";

/// Whether an ordinary message is accepted. If not, what becomes of others says nothing about their kind.
fn takes_mail(run: &mut Run<'_>, tests: &[Test]) -> Result<bool, Trouble> {
    let control = run.control()?;
    if !control.reply.is_positive() {
        run.all_untested(tests, &format!("an ordinary message is not accepted: {}", shown(&control.reply)));
    }
    Ok(control.reply.is_positive())
}

fn bounces(run: &mut Run<'_>) -> Result<(), Trouble> {
    let (user, messages) = (&run.site.user, run.messages());
    let tries = [(Test::UntaggedDsn, messages.dsn(user, NOBODY)), (Test::TextBounce, messages.text_bounce(NOBODY))];
    let tries = tries.map(|(test, text)| Try { test, from: String::new(), to: user.clone(), message: Some(text) });
    if !takes_mail(run, BOUNCES.tests)? {
        return Ok(());
    }
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
    let tries = tries.map(|(test, text)| Try { test, from: String::new(), to: user.clone(), message: Some(text) });
    if !takes_mail(run, WANTED.tests)? {
        return Ok(());
    }
    for (test, reply) in run.transactions(&tries, Expected::Accepted)? {
        run.must_accept(test, &reply);
    }
    Ok(())
}
