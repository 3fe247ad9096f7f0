//! Ends of messages that are none (SMTP smuggling), and commands that are sent before a TLS handshake.
//!
//! A server that keeps to CR LF "." CR LF (RFC 5321 section 4.1.1.4) says nothing after any of these line ends, because
//! the message goes on. The connection is then closed without an end, so no message is delivered.

use core::time::Duration;

use super::relaying::INSIDE;
use crate::probe::finding::Test;
use crate::probe::run::{Check, Run, shown};
use crate::probe::server::{Expected, Session, Trouble};
use crate::wire::smtp::reply::Reply;

pub(super) const LINE_ENDS: Check = Check {
    tests: &[
        Test::SmuggleLfLf,
        Test::SmuggleLfCrlf,
        Test::SmuggleCrCr,
        Test::SmuggleCrCrlf,
        Test::SmuggleCrlfCr,
        Test::SmuggleCrlfLf,
        Test::SmuggleNulDot,
        Test::SmuggleDotNul,
        Test::SmuggleLfCr,
    ],
    run: line_ends,
};

pub(super) const STARTTLS: Check = Check { tests: &[Test::StarttlsInjection], run: starttls };

/// How long a server may take to say that a message has ended.
const FOR_END: Duration = Duration::from_secs(3);
/// How long it may take to answer NOOP.
const FOR_NOOP: Duration = Duration::from_secs(2);

/// The octets of each variant, between the last octet of one line and the next command.
const VARIANTS: [(Test, &[u8]); 9] = [
    (Test::SmuggleLfLf, b"\n.\n"),
    (Test::SmuggleLfCrlf, b"\n.\r\n"),
    (Test::SmuggleCrCr, b"\r.\r"),
    (Test::SmuggleCrCrlf, b"\r.\r\n"),
    (Test::SmuggleCrlfCr, b"\r\n.\r"),
    (Test::SmuggleCrlfLf, b"\r\n.\n"),
    (Test::SmuggleNulDot, b"\r\n\0.\r\n"),
    (Test::SmuggleDotNul, b"\r\n.\0\r\n"),
    (Test::SmuggleLfCr, b"\n.\r"),
];

/// What a server did after a variant.
enum After {
    /// It waits for the end of the message.
    Waits,
    /// It has refused the message, and does not read commands.
    Refused(Reply),
    /// It has closed the connection.
    Closed,
    /// It reads commands: the message has ended for it.
    Ended(Reply),
}

fn line_ends(run: &mut Run<'_>) -> Result<(), Trouble> {
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|(test, _)| run.site.wanted.contains(test)).collect();
    let mut rest = wanted.as_slice();
    while !rest.is_empty() {
        let results = one_session(run, rest)?;
        rest = rest.get(results.len().max(1)..).unwrap_or_default();
        for (test, after) in results {
            match after {
                After::Waits => run.passed(test, "the message goes on"),
                After::Refused(reply) => run.passed(test, shown(&reply)),
                After::Closed => run.passed(test, "the server closed the connection"),
                // Postfix checks line ends of strangers only (smtpd_forbid_bare_newline_exclusions).
                After::Ended(_) if run.site.is_inside => run.untested(test, INSIDE),
                After::Ended(reply) => run.failed(test, format!("it ends the message: {}", shown(&reply))),
            }
        }
    }
    Ok(())
}

/// Tries variants in one message, until one of them ends it. Returns what came of those that were tried.
fn one_session(run: &mut Run<'_>, variants: &[(Test, &[u8])]) -> Result<Vec<(Test, After)>, Trouble> {
    let (sender, user) = (run.site.sender.clone(), run.site.user.clone());
    let message = run.messages().ordinary(&sender, &user, "Probe of line ends", "What ends a message?\r\n");
    let mut session = run.open()?;
    for (line, expected) in [
        (format!("MAIL FROM:<{sender}>"), Expected::Accepted),
        (format!("RCPT TO:<{user}>"), Expected::Accepted),
        ("DATA".to_owned(), Expected::GoOn),
    ] {
        let reply = session.say(&line, expected)?;
        if reply.code >= 400 {
            return Err(Trouble::Unwilling(shown(&reply)));
        }
    }
    session.send(message.trim_end().as_bytes())?;
    let mut results = Vec::new();
    for (test, octets) in variants {
        session.send(&[octets, b"NOOP\r\n".as_slice()].concat())?;
        let after = after(session.as_mut());
        let goes_on = matches!(after, After::Waits);
        results.push((*test, after));
        if !goes_on {
            break;
        }
    }
    Ok(results)
}

fn after(session: &mut dyn Session) -> After {
    let reply = match session.reply_within(FOR_END) {
        Ok(None) => return After::Waits,
        Ok(Some(reply)) => reply,
        Err(_) => return After::Closed,
    };
    // A server in which the message has ended answers NOOP, too. One that ends the session by 421 or 521 does not.
    match session.reply_within(FOR_NOOP) {
        Ok(Some(noop)) if noop.code != 421 => After::Ended(reply),
        _ if reply.is_positive() => After::Ended(reply),
        _ => After::Refused(reply),
    }
}

fn starttls(run: &mut Run<'_>) -> Result<(), Trouble> {
    let mut session = run.open()?;
    if !session.hello().offers(b"STARTTLS") {
        drop(session);
        run.untested(Test::StarttlsInjection, "STARTTLS is not offered");
        return Ok(());
    }
    session.send(b"STARTTLS\r\nNOOP\r\n")?;
    let result = injected(session.as_mut());
    drop(session);
    match result {
        Ok(Some(reply)) => run.failed(Test::StarttlsInjection, format!("{} after the handshake", shown(&reply))),
        Ok(None) => run.passed(Test::StarttlsInjection, "ignored"),
        Err(trouble) => run.passed(Test::StarttlsInjection, trouble.to_string()),
    }
    Ok(())
}

/// The reply that comes after the handshake, though nothing was said.
fn injected(session: &mut dyn Session) -> Result<Option<Reply>, Trouble> {
    match session.reply_within(Duration::from_secs(30))? {
        Some(reply) if reply.code == 220 => {}
        Some(reply) => return Err(Trouble::Unwilling(shown(&reply))),
        None => return Err(Trouble::Silent(30)),
    }
    session.encrypt()?;
    session.reply_within(FOR_NOOP)
}
