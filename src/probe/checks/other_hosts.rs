//! The other MX hosts of the domain: bounces and spam go there, too.

use crate::probe::finding::{Outcome, Test};
use crate::probe::run::{Check, Run, shown};
use crate::probe::server::{Expected, Host, Trouble, transaction};
use crate::probe::site::OtherHost;

pub(super) const HOSTS: Check = Check { tests: &[Test::MxUnknownUser, Test::MxTags], run: hosts };

fn hosts(run: &mut Run<'_>) -> Result<(), Trouble> {
    let site = run.site;
    if let Err(why) = &site.other_hosts {
        run.all_untested(HOSTS.tests, why);
    }
    for host in site.other_hosts.iter().flatten() {
        if let Err(trouble) = one_host(run, host) {
            for test in HOSTS.tests {
                run.note(*test, Outcome::Untested, &host.name, trouble.to_string());
            }
        }
    }
    Ok(())
}

fn one_host(run: &mut Run<'_>, host: &OtherHost) -> Result<(), Trouble> {
    let site = run.site;
    let nobody = format!("{}@{}", site.nobody(80), site.domain());
    let mut session = run.server.open(Host::Other(host.address))?;
    let unknown = transaction(session.as_mut(), &site.sender, &nobody, None, Expected::Refused)?;
    // A session in which a recipient was accepted that should be refused is over.
    drop(session);
    let mut session = run.server.open(Host::Other(host.address))?;
    let tagged = match &site.tags {
        Ok(tags) => Some(transaction(session.as_mut(), "", &tags.valid, None, Expected::Accepted)?),
        Err(_) => None,
    };
    drop(session);
    let is_catch_all = run.takes_all(site.domain())?;
    let outcome = match unknown.code {
        200..300 if is_catch_all => Outcome::Untested,
        200..300 => Outcome::Failed,
        400..500 => Outcome::Untested,
        _ => Outcome::Passed,
    };
    run.note(
        Test::MxUnknownUser,
        outcome,
        &host.name,
        match is_catch_all {
            true => format!("any name @{} is accepted by the first host, too", site.domain()),
            false => format!("{} to {nobody}", shown(&unknown)),
        },
    );
    let (outcome, detail) = match tagged {
        None => (Outcome::Untested, "needs a signed return address: --config, --signed".to_owned()),
        Some(reply) if reply.is_positive() => (Outcome::Passed, shown(&reply)),
        Some(reply) if reply.code < 500 => (Outcome::Untested, format!("put off: {}", shown(&reply))),
        Some(reply) => (Outcome::Warning, shown(&reply)),
    };
    run.note(Test::MxTags, outcome, &host.name, detail);
    Ok(())
}
