//! Asks a server whether it would take mail for a recipient.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{RecipientServer, SendProxy};
use crate::drive::client_dialogue::{Dialogue, host_name, offers};
use crate::drive::next_hops::{NextHops, ProxyAddresses};
use crate::drive::tls::Connector;
use crate::envelope::address::Address;
use crate::wire::smtp::reply::user_exists;

/// Timeout for an answer, with the time to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections to one server, as many as Postfix lets a client have.
const MAX_CONNECTIONS: usize = 50;
/// Questions that may wait for a connection.
const MAX_WAITING: usize = 1000;
/// How long a server is left alone after it has failed.
const REST: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next question.
const IDLE: Duration = Duration::from_secs(10);
/// Unknown recipients of a connection: Postfix begins to delay its replies after 10 mistakes.
const MAX_UNKNOWN: u32 = 8;
/// Questions of a connection.
const MAX_QUESTIONS: u32 = 100;

/// A server, and connections to it.
#[derive(Debug)]
pub(super) struct Asker {
    hops: NextHops,
    lmtp: bool,
    idle: Mutex<Vec<Connection>>,
    connections: Semaphore,
    waiting: Semaphore,
    rests_until: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Connection {
    dialogue: Dialogue,
    /// Whether commands may be sent without waiting for replies.
    pipelining: bool,
    utf8: bool,
    questions: u32,
    unknown: u32,
    since: Instant,
}

impl Asker {
    pub(super) fn new(server: &RecipientServer) -> Self {
        Self {
            hops: hops_of(server),
            lmtp: server.lmtp,
            idle: Mutex::default(),
            connections: Semaphore::new(MAX_CONNECTIONS),
            waiting: Semaphore::new(MAX_WAITING),
            rests_until: Mutex::default(),
        }
    }

    /// Whether the server knows this recipient.
    ///
    /// # Errors
    /// In words: it cannot be asked, or says neither yes nor no.
    pub(super) async fn ask(&self, recipient: &Address) -> Result<bool, String> {
        if self.rests() {
            return Err("it has just failed, and is left alone for a while".to_owned());
        }
        let _place = self.waiting.try_acquire().map_err(|_| "too many questions wait for it")?;
        let asked = async {
            let _connection = self.connections.acquire().await.map_err(|error| error.to_string())?;
            // Others that have waited before may have found that it fails.
            if self.rests() {
                return Err("it has just failed, and is left alone for a while".to_owned());
            }
            self.ask_at_once(recipient).await
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                self.fails();
                Err("it does not answer in time".to_owned())
            }
        }
    }

    async fn ask_at_once(&self, recipient: &Address) -> Result<bool, String> {
        // A server may close a connection at any time; then another one is tried.
        while let Some(mut connection) = self.take_idle() {
            if let Ok(answer) = connection.ask(recipient).await {
                self.keep(connection);
                return answer;
            }
        }
        let opened = Connection::open(&self.hops, self.lmtp, None).await;
        let asked = match opened {
            Ok(mut connection) => connection.ask(recipient).await.map(|answer| (connection, answer)),
            Err(error) => Err(error),
        };
        match asked {
            Ok((connection, answer)) => {
                self.keep(connection);
                answer
            }
            Err(error) => {
                self.fails();
                Err(error)
            }
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.since.elapsed() < IDLE);
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        if connection.questions < MAX_QUESTIONS && connection.unknown < MAX_UNKNOWN {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// Closes connections that were not used for some time.
    pub(super) fn close_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.since.elapsed() < IDLE);
    }

    fn rests(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn fails(&self) {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }
}

fn hops_of(server: &RecipientServer) -> NextHops {
    NextHops::new(std::slice::from_ref(&server.endpoint), None, SendProxy::Off, PATIENCE)
}

/// Whether a server knows this recipient, asked on a connection of its own, whatever was asked before.
///
/// # Errors
/// In words: it cannot be asked, or says neither yes nor no.
pub(crate) async fn ask_server(server: &RecipientServer, recipient: &Address) -> Result<bool, String> {
    ask_once(&hops_of(server), server.lmtp, None, recipient).await
}

/// As [`ask_server`], for next hops. `starttls`: the client side of TLS, which is used where it is offered.
///
/// # Errors
/// See [`ask_server`].
pub(crate) async fn ask_once(
    hops: &NextHops,
    lmtp: bool,
    starttls: Option<&Connector>,
    recipient: &Address,
) -> Result<bool, String> {
    let asked = async { Connection::open(hops, lmtp, starttls).await?.ask(recipient).await? };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
}

impl Connection {
    async fn open(hops: &NextHops, lmtp: bool, starttls: Option<&Connector>) -> Result<Self, String> {
        let (mut dialogue, host, encrypted) = Dialogue::of(hops.reach(ProxyAddresses::default()).await?);
        dialogue.expect(220, "the greeting").await?;
        let hello = format!("{} {}", if lmtp { "LHLO" } else { "EHLO" }, host_name());
        let mut offer = dialogue.say(&hello, 250).await?;
        if let Some(connector) = starttls.filter(|_| !encrypted && offers(&offer, b"STARTTLS")) {
            dialogue.say("STARTTLS", 220).await?;
            dialogue = dialogue.secured(connector, &host).await?;
            offer = dialogue.say(&hello, 250).await?;
        }
        Ok(Self {
            dialogue,
            pipelining: offers(&offer, b"PIPELINING"),
            utf8: offers(&offer, b"SMTPUTF8"),
            questions: 0,
            unknown: 0,
            since: Instant::now(),
        })
    }

    /// Asks about a recipient. The outer error: the connection is of no more use. The inner one: the server says neither
    /// yes nor no.
    async fn ask(&mut self, recipient: &Address) -> Result<Result<bool, String>, String> {
        let utf8 = match recipient.as_str().is_ascii() {
            true => "",
            // A server without the extension has no such user.
            false if !self.utf8 => return Ok(Ok(false)),
            false => " SMTPUTF8",
        };
        (self.questions, self.since) = (self.questions + 1, Instant::now());
        let (mail, rcpt) = (format!("MAIL FROM:<>{utf8}\r\n"), format!("RCPT TO:<{recipient}>\r\n"));
        let dialogue = &mut self.dialogue;
        let (taken, answer) = if self.pipelining {
            dialogue.send(&[&mail, &rcpt, "RSET\r\n"].concat()).await?;
            (dialogue.reply("MAIL").await?, dialogue.reply("RCPT").await?)
        } else {
            dialogue.send(&mail).await?;
            let taken = dialogue.reply("MAIL").await?;
            dialogue.send(&rcpt).await?;
            let answer = dialogue.reply("RCPT").await?;
            dialogue.send("RSET\r\n").await?;
            (taken, answer)
        };
        dialogue.expect(250, "RSET").await?;
        self.since = Instant::now();
        if !taken.is_positive() {
            // Who refuses the null sender says nothing about recipients.
            return Ok(Err(taken.first_line()));
        }
        let line = answer.first_line();
        let exists = user_exists(&line);
        self.unknown += u32::from(exists == Some(false));
        Ok(exists.ok_or(line))
    }
}
