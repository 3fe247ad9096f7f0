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

/// How long a server may take to say that a message has ended, at least.
const FOR_END: Duration = Duration::from_secs(3);
/// How long it may take to answer NOOP, and STARTTLS.
const FOR_NOOP: Duration = Duration::from_secs(3);
const FOR_TLS: Duration = Duration::from_secs(30);

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
    /// It has closed the connection, or said something that is no reply.
    Ended(Trouble),
    /// It reads commands: the message has ended for it.
    Reads(Reply),
}

fn line_ends(run: &mut Run<'_>) -> Result<(), Trouble> {
    let control = run.control()?;
    if !control.reply.is_positive() {
        return Err(Trouble::Unwilling(format!("{} to an ordinary message", shown(&control.reply))));
    }
    // Filters in the session take their time at the end of a message.
    let patience = FOR_END.max(control.took * 2);
    let wanted: Vec<_> = VARIANTS.into_iter().filter(|(test, _)| run.site.wanted.contains(test)).collect();
    let mut rest = wanted.as_slice();
    while !rest.is_empty() {
        let mut session = within_message(run)?;
        let made = try_all(session.as_mut(), rest, FOR_END);
        // A reply that came late may belong to any of them.
        let is_doubtful = match made.last() {
            Some((_, After::Waits)) => !matches!(session.reply_within(patience), Ok(None)),
            Some((_, After::Reads(_))) => made.len() > 1,
            _ => false,
        };
        drop(session);
        let made = match rest.get(..made.len()).filter(|_| is_doubtful) {
            Some(tried) => one_by_one(run, tried, patience + FOR_END)?,
            None => made,
        };
        rest = rest.get(made.len().max(1)..).unwrap_or_default();
        made.into_iter().for_each(|(test, after)| note(run, test, after));
    }
    Ok(())
}

fn note(run: &mut Run<'_>, test: Test, after: After) {
    match after {
        After::Waits => run.passed(test, "the message goes on"),
        After::Refused(reply) if reply.is_permanent() || reply.code == 421 => run.passed(test, shown(&reply)),
        After::Refused(reply) => run.untested(test, format!("put off: {}", shown(&reply))),
        After::Ended(Trouble::Closed) => run.passed(test, "the server closed the connection"),
        After::Ended(trouble) => run.untested(test, trouble.to_string()),
        // Postfix checks line ends of strangers only (smtpd_forbid_bare_newline_exclusions).
        After::Reads(_) if run.site.is_inside => run.untested(test, INSIDE),
        After::Reads(reply) => run.failed(test, format!("it ends the message: {}", shown(&reply))),
    }
}

/// A session in the middle of a message.
fn within_message<'a>(run: &'a mut Run<'_>) -> Result<Box<dyn Session + 'a>, Trouble> {
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
    Ok(session)
}

/// Tries variants in one message, until one of them ends it. Returns what came of those that were tried.
fn try_all(session: &mut dyn Session, variants: &[(Test, &[u8])], patience: Duration) -> Vec<(Test, After)> {
    let mut made = Vec::new();
    for (test, octets) in variants {
        let sent = session.send(&[octets, b"NOOP\r\n".as_slice()].concat());
        let after = sent.map_or_else(After::Ended, |()| after(session, patience));
        let goes_on = matches!(after, After::Waits);
        made.push((*test, after));
        if !goes_on {
            break;
        }
    }
    made
}

/// Tries each variant in a message of its own.
fn one_by_one(
    run: &mut Run<'_>,
    variants: &[(Test, &[u8])],
    patience: Duration,
) -> Result<Vec<(Test, After)>, Trouble> {
    let mut made = Vec::new();
    for variant in variants {
        let mut session = within_message(run)?;
        made.extend(try_all(session.as_mut(), core::slice::from_ref(variant), patience));
    }
    Ok(made)
}

fn after(session: &mut dyn Session, patience: Duration) -> After {
    let reply = match session.reply_within(patience) {
        Ok(None) => return After::Waits,
        Ok(Some(reply)) => reply,
        Err(trouble) => return After::Ended(trouble),
    };
    // A server in which the message has ended answers NOOP, too. One that ends the session by 421 or 521 does not.
    match session.reply_within(FOR_NOOP) {
        Ok(Some(noop)) if noop.code != 421 => After::Reads(reply),
        _ if reply.is_positive() => After::Reads(reply),
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
        Ok(Some(reply)) if reply.is_positive() => {
            run.failed(Test::StarttlsInjection, format!("{} after the handshake", shown(&reply)));
        }
        Ok(Some(reply)) => run.passed(Test::StarttlsInjection, shown(&reply)),
        Ok(None) => run.passed(Test::StarttlsInjection, "ignored"),
        // A server may refuse such a client. One that cannot do TLS with this program says nothing.
        Err(trouble) => match encrypts(run) {
            Ok(()) => run.passed(Test::StarttlsInjection, trouble.to_string()),
            Err(without) => run.untested(Test::StarttlsInjection, format!("without it, too: {without}")),
        },
    }
    Ok(())
}

/// Whether a handshake succeeds that nothing is sent before.
fn encrypts(run: &mut Run<'_>) -> Result<(), Trouble> {
    let mut session = run.open()?;
    let reply = session.say("STARTTLS", Expected::Accepted)?;
    match reply.code {
        220 => session.encrypt(),
        _ => Err(Trouble::Unwilling(shown(&reply))),
    }
}

/// The reply that comes after the handshake, though nothing was said.
fn injected(session: &mut dyn Session) -> Result<Option<Reply>, Trouble> {
    match session.reply_within(FOR_TLS)? {
        Some(reply) if reply.code == 220 => {}
        Some(reply) => return Err(Trouble::Unwilling(shown(&reply))),
        None => return Err(Trouble::Silent(FOR_TLS.as_secs())),
    }
    session.encrypt()?;
    session.reply_within(FOR_NOOP * 2)
}
