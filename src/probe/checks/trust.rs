//! Does the server believe a stranger who says to be somebody else?

use super::relaying::INSIDE;
use crate::probe::finding::Test;
use crate::probe::run::{Check, Run, shown};
use crate::probe::server::{Expected, Trouble};
use crate::wire::smtp::reply::Reply;

pub(super) const CLAIMS: Check = Check { tests: &[Test::Xclient, Test::Xforward], run: claims };
pub(super) const PROXY: Check = Check { tests: &[Test::ProxyHeader], run: proxy };

/// An address for documentation (RFC 5737), which is nobody's.
const SOMEBODY: &str = "203.0.113.9";

fn claims(run: &mut Run<'_>) -> Result<(), Trouble> {
    let mut session = run.open()?;
    let xforward = session.say(&format!("XFORWARD ADDR={SOMEBODY}"), Expected::Refused)?;
    let xclient = session.say(&format!("XCLIENT ADDR={SOMEBODY}"), Expected::Refused)?;
    drop(session);
    believed(run, Test::Xclient, &xclient);
    believed(run, Test::Xforward, &xforward);
    Ok(())
}

fn believed(run: &mut Run<'_>, test: Test, reply: &Reply) {
    match reply.is_positive() {
        true if run.site.is_inside => run.untested(test, INSIDE),
        true => run.failed(test, shown(reply)),
        false if reply.code != 421 && !reply.is_permanent() => run.untested(test, format!("put off: {}", shown(reply))),
        false => run.passed(test, shown(reply)),
    }
}

fn proxy(run: &mut Run<'_>) -> Result<(), Trouble> {
    if run.site.needs_header && run.site.is_inside {
        run.untested(Test::ProxyHeader, INSIDE);
        return Ok(());
    }
    if run.site.needs_header {
        run.failed(Test::ProxyHeader, "the server greets nobody without one, and believes it");
        return Ok(());
    }
    let header = format!("PROXY TCP4 {SOMEBODY} 203.0.113.10 4242 25\r\n");
    // A server that has read the header answers EHLO; any other one answers the header as a command, or turns a client
    // away that speaks first.
    let opened = run.server.open_with(header.as_bytes());
    let reply = opened.and_then(|mut session| session.say("EHLO countersign-probe.invalid", Expected::Refused));
    match reply {
        Ok(reply) => believed(run, Test::ProxyHeader, &reply),
        Err(trouble) => run.passed(Test::ProxyHeader, trouble.to_string()),
    }
    Ok(())
}
