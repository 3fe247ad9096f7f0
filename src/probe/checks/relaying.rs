//! Mail of strangers to strangers, in the forms in which servers have been open relays.

use crate::probe::finding::{Outcome, Test};
use crate::probe::run::{Check, Run, Try, shown};
use crate::probe::server::{Expected, Trouble};

pub(super) const FORMS: Check = Check {
    tests: &[
        Test::RelayPlain,
        Test::RelayNullSender,
        Test::RelayOwnSender,
        Test::RelayPercent,
        Test::RelayBang,
        Test::RelayQuoted,
        Test::RelaySourceRoute,
        Test::RelayLiteral,
        Test::RelayNoDomain,
    ],
    run: forms,
};

pub(super) const SRS: Check = Check { tests: &[Test::Srs0Forged, Test::Srs1Forged], run: srs };

/// Why a server that relays for this machine is no finding.
pub(super) const INSIDE: &str =
    "allowed from this machine, which servers usually trust; run the probe on another machine, or with --from";

/// Servers delay replies after ten errors, and close after twenty, so a session makes a few of them.
const IN_A_SESSION: usize = 5;

fn forms(run: &mut Run<'_>) -> Result<(), Trouble> {
    let site = run.site;
    let (sender, user, ours) = (&site.sender, &site.user, site.domain());
    let (local, domain) = site.sender_parts();
    let tries = [
        (Test::RelayPlain, sender.clone(), format!("{local}@{domain}")),
        (Test::RelayNullSender, String::new(), format!("{local}@{domain}")),
        (Test::RelayOwnSender, user.clone(), format!("{local}@{domain}")),
        (Test::RelayPercent, sender.clone(), format!("{local}%{domain}@{ours}")),
        (Test::RelayBang, sender.clone(), format!("{domain}!{local}@{ours}")),
        (Test::RelayQuoted, sender.clone(), format!("\"{local}@{domain}\"@{ours}")),
        (Test::RelaySourceRoute, sender.clone(), format!("@{ours}:{local}@{domain}")),
        (Test::RelayLiteral, sender.clone(), format!("{local}%{domain}@[{}]", site.literal)),
        (Test::RelayNoDomain, sender.clone(), format!("\"{local}@{domain}\"")),
    ];
    let tries = tries.map(|(test, from, to)| Try { test, from, to, message: None });
    for some in tries.chunks(IN_A_SESSION) {
        for (test, reply) in run.transactions(some, Expected::Refused)? {
            if reply.is_positive() && site.is_inside {
                run.untested(test, INSIDE);
            } else if reply.is_positive() && is_local(test) && run.takes_all(ours)? {
                run.untested(test, format!("any name @{ours} is accepted: {}", shown(&reply)));
            } else {
                run.must_refuse(test, &reply);
            }
        }
    }
    Ok(())
}

/// Whether the address is one of the server's by its domain, so that a catch-all takes it.
fn is_local(test: Test) -> bool {
    use Test::{RelayBang, RelayLiteral, RelayNoDomain, RelayPercent, RelayQuoted};
    matches!(test, RelayPercent | RelayBang | RelayQuoted | RelayNoDomain | RelayLiteral)
}

fn srs(run: &mut Run<'_>) -> Result<(), Trouble> {
    let site = run.site;
    let (local, domain) = site.sender_parts();
    let ours = site.srs_domain();
    let hash = site.run.get(..4).unwrap_or("AAAA");
    let tries = [
        (Test::Srs0Forged, format!("SRS0={hash}=AA={domain}={local}@{ours}")),
        (Test::Srs1Forged, format!("SRS1={hash}={domain}==AAAA=AA={domain}={local}@{ours}")),
    ];
    let tries = tries.map(|(test, to)| Try { test, from: String::new(), to, message: None });
    for (test, reply) in run.transactions(&tries, Expected::Refused)? {
        if reply.is_positive() && run.takes_all(ours)? {
            run.note(test, Outcome::Untested, "", format!("any name @{ours} is accepted: {}", shown(&reply)));
        } else {
            run.must_refuse(test, &reply);
        }
    }
    Ok(())
}
