//! The audit of a mail server from outside, for `probe`: what is said to it, and what its replies mean.
//!
//! Nothing here does I/O. [`run()`] makes the checks through the [`Server`] and [`Session`](server::Session) traits; `cli`
//! implements them over TCP, and [`DryRun`](dry_run::DryRun) for a plan.
//!
//! - `site` is what is known of the site, `tags` its signed return addresses and what a forger makes of them;
//! - `checks` has the dialogues, `messages` what they send, `samples` compares times;
//! - `finding` names the tests and their results, `advice` says what to change.
//!
//! A probe leaves nothing behind: recipients without a message are reset, messages without an end are dropped by the
//! server, and a message to an unknown user is only sent where its bounce is awaited.

pub(crate) mod advice;
mod checks;
pub(crate) mod dry_run;
pub(crate) mod finding;
pub(crate) mod messages;
pub(crate) mod run;
mod samples;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod tags;
#[cfg(test)]
mod tests;

use self::finding::Finding;
use self::run::{Check, Run};
use self::server::Server;
use self::site::Site;

/// Makes all tests that are wanted. Each of them has at least one result.
pub(crate) fn run(server: &mut dyn Server, site: &Site) -> Vec<Finding> {
    let wanted = |check: &&Check| check.tests.iter().any(|test| site.wanted.contains(test));
    let checks: Vec<_> = checks::ALL.iter().filter(wanted).collect();
    let mut run = Run::new(server, site);
    for (n, check) in checks.iter().enumerate() {
        run.server.progress(n, checks.len(), check.tests);
        let result = (check.run)(&mut run);
        // A test without a result has met trouble: its own, or that of an earlier one in the same session.
        let why = match result {
            Err(trouble) => trouble.to_string(),
            Ok(()) => "the server ended the session before".to_owned(),
        };
        let open: Vec<_> = check.tests.iter().copied().filter(|test| is_open(&run, *test)).collect();
        run.all_untested(&open, &why);
    }
    run.server.progress(checks.len(), checks.len(), &[]);
    let mut findings = run.findings;
    findings.sort_by_key(|finding| finding.test);
    findings
}

/// Whether a test should have a result and has none. Two of them depend on what others find.
fn is_open(run: &Run<'_>, test: finding::Test) -> bool {
    use finding::Test;
    let is_answered = |test: Test| run.findings.iter().any(|finding| finding.test == test);
    match test {
        // Unknown users are either refused, or a bounce shows what becomes of them.
        Test::LateBounce | Test::UnknownUser => !is_answered(Test::UnknownUser) && !is_answered(Test::LateBounce),
        test => !is_answered(test),
    }
}
