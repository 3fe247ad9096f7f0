//! Names that nobody has: are they refused at once, or accepted and bounced later? And do VRFY and EXPN tell them?

use super::relaying::INSIDE;
use crate::probe::finding::{Outcome, Test};
use crate::probe::run::{Check, Run, shown};
use crate::probe::server::{Expected, Trouble, transaction};
use crate::wire::smtp::reply::Reply;

pub(super) const RECIPIENTS: Check =
    Check { tests: &[Test::UnknownUser, Test::LateBounce, Test::ReplyText], run: recipients };

pub(super) const QUERIES: Check = Check { tests: &[Test::Vrfy, Test::Expn], run: queries };

/// Texts of replies that name a table (Postfix, `show_user_unknown_table_name`).
const TABLES: [&str; 5] = [
    "in local recipient table",
    "in virtual mailbox table",
    "in virtual alias table",
    "in relay recipient table",
    "recipient address rejected: unknown user in",
];

fn recipients(run: &mut Run<'_>) -> Result<(), Trouble> {
    for (n, domain) in run.site.domains.iter().enumerate() {
        let nobody = format!("{}@{domain}", run.site.nobody(n));
        let reply = match run.reply_to_nobody(&nobody, domain) {
            Ok(reply) => reply,
            Err(trouble) => {
                for test in RECIPIENTS.tests {
                    run.note(*test, Outcome::Untested, domain, trouble.to_string());
                }
                continue;
            }
        };
        match reply.code {
            200..300 if run.site.is_inside => run.note(refusal(run), Outcome::Untested, domain, INSIDE),
            200..300 => accepted(run, &nobody, domain)?,
            400..500 => run.note(refusal(run), Outcome::Untested, domain, format!("put off: {}", shown(&reply))),
            _ => refused(run, &reply, &nobody, domain)?,
        }
        if !reply.is_permanent() {
            run.note(Test::ReplyText, Outcome::Untested, domain, "needs a refusal of an unknown user");
        }
    }
    Ok(())
}

/// The test that a refusal answers. If only the bounce is asked for, a refusal answers that.
fn refusal(run: &Run<'_>) -> Test {
    if run.wants(&[Test::UnknownUser]) { Test::UnknownUser } else { Test::LateBounce }
}

fn refused(run: &mut Run<'_>, reply: &Reply, nobody: &str, domain: &str) -> Result<(), Trouble> {
    // The user is accepted in the first domain. The others may be mistyped.
    if domain != run.site.domain() {
        let postmaster = run.reply_to(&format!("postmaster@{domain}"))?;
        if postmaster.is_permanent() {
            let why =
                format!("postmaster@{domain} is refused, too; is this a domain of the server? {}", shown(&postmaster));
            run.note(refusal(run), Outcome::Untested, domain, why.clone());
            run.note(Test::ReplyText, Outcome::Untested, domain, why);
            return Ok(());
        }
    }
    run.note(refusal(run), Outcome::Passed, domain, format!("{} to {nobody}", shown(reply)));
    let text = reply.first_line().to_ascii_lowercase();
    match TABLES.iter().any(|table| text.contains(table)) {
        true => run.note(Test::ReplyText, Outcome::Warning, domain, shown(reply)),
        false => run.note(Test::ReplyText, Outcome::Passed, domain, "names no table"),
    }
    Ok(())
}

/// A name that nobody has was accepted. What becomes of a message to it?
fn accepted(run: &mut Run<'_>, nobody: &str, domain: &str) -> Result<(), Trouble> {
    if !run.site.sees_bounces {
        let text = format!("250 to {nobody}; whether it bounces later shows with --bounces");
        run.note(refusal(run), Outcome::Warning, domain, text);
        return Ok(());
    }
    let sender = &run.site.sender;
    let message = run.messages().ordinary(sender, nobody, "Probe of an unknown user", "Does this bounce?\r\n");
    let reply = transaction(run.open()?.as_mut(), sender, nobody, Some(&message), Expected::Refused)?;
    if !reply.is_positive() {
        let outcome = if reply.is_permanent() { Outcome::Passed } else { Outcome::Untested };
        run.note(Test::LateBounce, outcome, domain, format!("{} at the end of the message", shown(&reply)));
        return Ok(());
    }
    match run.server.bounce(nobody) {
        Some(bounce) => {
            let whole = if bounce.text.contains("Does this bounce?") { "the whole message" } else { "its header" };
            let seconds = bounce.after.as_secs();
            let text = format!("250 to {nobody}, and a bounce with {whole} came to {sender} after {seconds} s");
            run.note(Test::LateBounce, Outcome::Failed, domain, text);
        }
        None => {
            let text = format!(
                "any name @{domain} is accepted, and no bounce has come: a catch-all, or a queue in which it waits"
            );
            run.note(refusal(run), Outcome::Warning, domain, text);
        }
    }
    Ok(())
}

fn queries(run: &mut Run<'_>) -> Result<(), Trouble> {
    let (user, nobody) = (&run.site.user, format!("{}@{}", run.site.nobody(90), run.site.domain()));
    let mut session = run.open()?;
    let mut ask = |line: String| session.say(&line, Expected::Anything);
    let known = ask(format!("VRFY {user}"))?;
    let unknown = ask(format!("VRFY {nobody}"))?;
    let members = ask(format!("EXPN {user}"))?;
    drop(session);
    let replies = format!("to a known user: {}; to an unknown one: {}", shown(&known), shown(&unknown));
    // 252 says that the server does not tell.
    let tells = known.code != unknown.code || matches!(known.code, 250 | 251);
    let is_put_off = |reply: &Reply| (400..500).contains(&reply.code);
    match tells {
        _ if is_put_off(&known) || is_put_off(&unknown) => run.untested(Test::Vrfy, replies),
        true => run.warning(Test::Vrfy, replies),
        false => run.passed(Test::Vrfy, shown(&known)),
    }
    match members.code {
        250 => run.warning(Test::Expn, shown(&members)),
        400..500 => run.untested(Test::Expn, shown(&members)),
        _ => run.passed(Test::Expn, shown(&members)),
    }
    Ok(())
}
