//! What the checks need of a server: sessions, and the place where its bounces arrive.
//!
//! The checks speak through these traits and do no I/O. Three servers implement them: a real one over TCP, the dry run
//! that prints what would be sent, and the scripted one of the unit tests.

use core::net::IpAddr;
use core::time::Duration;

use super::finding::Test;
use crate::wire::smtp::reply::Reply;

/// The reply that a well-kept server gives. It is what a dry run answers, and what it prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// 2xx.
    Accepted,
    /// 354, to DATA.
    GoOn,
    /// 5xx.
    Refused,
    /// A reply of any sort, as long as it tells nothing.
    Anything,
}

/// Why a dialogue could not be continued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The server has closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// No reply in time.
    #[error("no reply within {0} s")]
    Silent(u64),
    /// The connection could not be made, or broke. The text of the system.
    #[error("{0}")]
    Broken(String),
    /// A greeting, EHLO or another step that every session begins with was refused. The first line of the reply.
    #[error("the server answered {0}")]
    Unwilling(String),
    /// The server has said something before it was asked, so replies cannot be matched to commands.
    #[error("the server said {0} before it was asked")]
    OutOfStep(String),
    /// The time that a probe may take is over. Minutes.
    #[error("the {0} minutes of a probe are over")]
    TimeUp(u64),
    /// All sessions that a probe may open are used up.
    #[error("all {0} sessions of a probe are used up")]
    NoSessionLeft(usize),
}

/// A server that may be probed.
pub(crate) trait Server {
    /// Opens a session, and says EHLO.
    ///
    /// # Errors
    /// There was no connection, no greeting, or a refusal.
    fn open(&mut self, host: Host) -> Result<Box<dyn Session + '_>, Trouble>;

    /// Opens a connection that begins with these octets, before the greeting is read. Returns it after the greeting.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_with(&mut self, first: &[u8]) -> Result<Box<dyn Session + '_>, Trouble>;

    /// Waits for a bounce that contains this text. Returns it, and how long it took.
    fn bounce(&mut self, marker: &str) -> Option<Bounce>;

    /// These tests come next. `done` of `all` steps are made.
    fn progress(&mut self, done: usize, all: usize, next: &[Test]);
}

/// A server of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// The server that is probed.
    Probed,
    /// Another MX host of the domain.
    Other(IpAddr),
}

/// A bounce that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounce {
    /// Header and body.
    pub text: String,
    /// Since the message was sent.
    pub after: Duration,
}

/// A session with a server.
pub(crate) trait Session {
    /// The reply to EHLO.
    fn hello(&self) -> &Reply;

    /// Sends a command line, and reads its reply.
    ///
    /// # Errors
    /// There is no reply.
    fn say(&mut self, line: &str, expected: Expected) -> Result<Reply, Trouble>;

    /// Sends octets as they are.
    ///
    /// # Errors
    /// The connection is broken.
    fn send(&mut self, octets: &[u8]) -> Result<(), Trouble>;

    /// Reads a reply that comes within this time; `None`: none came.
    ///
    /// # Errors
    /// The connection is closed or broken.
    fn reply_within(&mut self, patience: Duration) -> Result<Option<Reply>, Trouble>;

    /// Encrypts the connection, after the reply to STARTTLS.
    ///
    /// # Errors
    /// The handshake failed.
    fn encrypt(&mut self) -> Result<(), Trouble>;

    /// How long the last reply took.
    fn took(&self) -> Duration;
}

/// Runs a transaction up to the reply that decides: of MAIL, RCPT, DATA or the message. Without a message it ends after
/// RCPT, and is reset. If a recipient is accepted that should be refused, DATA is said, too: some servers refuse it
/// there. Where they do not, the session ends in the middle of a message, and must be dropped.
///
/// # Errors
/// There is no reply.
pub(crate) fn transaction(
    session: &mut dyn Session,
    sender: &str,
    recipient: &str,
    message: Option<&str>,
    expected: Expected,
) -> Result<Reply, Trouble> {
    let mail = session.say(&format!("MAIL FROM:<{sender}>"), Expected::Accepted)?;
    if !mail.is_positive() {
        return Ok(mail);
    }
    let at_rcpt = if message.is_some() { Expected::Accepted } else { expected };
    let rcpt = session.say(&format!("RCPT TO:<{recipient}>"), at_rcpt)?;
    if message.is_none() && expected == Expected::Refused && rcpt.is_positive() {
        let data = session.say("DATA", Expected::Refused)?;
        return Ok(if data.code == 354 { rcpt } else { data });
    }
    let Some(message) = message.filter(|_| rcpt.is_positive()) else {
        // A server that ends the session after its reply is noticed at the next command.
        let _ = session.say("RSET", Expected::Accepted);
        return Ok(rcpt);
    };
    let data = session.say("DATA", Expected::GoOn)?;
    if data.code != 354 {
        let _ = session.say("RSET", Expected::Accepted);
        return Ok(data);
    }
    session.say(&format!("{}\r\n.", message.trim_end()), expected)
}
