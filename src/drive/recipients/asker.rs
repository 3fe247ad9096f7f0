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
use crate::wire::smtp::reply::{User, user_of};

/// Timeout for an answer, with the time to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections to one server, as many as Postfix lets a client have.
const MAX_CONNECTIONS: usize = 50;
/// Questions that may wait for a connection.
const MAX_WAITING: usize = 1000;
/// Why nothing is asked.
const RESTS: &str = "it failed within the last 5 seconds and is not queried";
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
            return Err(RESTS.to_owned());
        }
        let _place = self.waiting.try_acquire().map_err(|_| "too many queries are waiting for it")?;
        // Time in which others are asked about is not the server's fault.
        let permit = tokio::time::timeout(PATIENCE, self.connections.acquire()).await;
        let _connection =
            permit.map_err(|_| "too many queries are waiting for it")?.map_err(|error| error.to_string())?;
        // Others that have waited before may have found that it fails.
        if self.rests() {
            return Err(RESTS.to_owned());
        }
        match tokio::time::timeout(PATIENCE, self.ask_at_once(recipient)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.fails();
                Err("it does not answer in time".to_owned())
            }
        }
    }

    async fn ask_at_once(&self, recipient: &Address) -> Result<bool, String> {
        // A server may close a connection at any time; then another one is opened.
        if let Some(mut connection) = self.take_idle()
            && let Ok(answer) = connection.ask(recipient).await
        {
            self.keep(connection);
            return answer;
        }
        let mut connection = Connection::open(&self.hops, self.lmtp, None).await.inspect_err(|_| self.fails())?;
        // A server that closes the connection because of one recipient can be asked about others.
        let answer = connection.ask(recipient).await?;
        self.keep(connection);
        answer
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.since.elapsed() < IDLE);
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        if connection.questions < MAX_QUESTIONS && connection.unknown < MAX_UNKNOWN && connection.is_at_rest() {
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

/// As [`ask_server`], for next hops. `starttls`: the client side of TLS, which is used where it is offered, and whether
/// nothing is asked without it.
///
/// # Errors
/// See [`ask_server`].
pub(crate) async fn ask_once(
    hops: &NextHops,
    lmtp: bool,
    starttls: Option<(&Connector, bool)>,
    recipient: &Address,
) -> Result<bool, String> {
    let asked = async { Connection::open(hops, lmtp, starttls).await?.ask(recipient).await? };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
}

impl Connection {
    async fn open(hops: &NextHops, lmtp: bool, starttls: Option<(&Connector, bool)>) -> Result<Self, String> {
        let (mut dialogue, host, encrypted) = Dialogue::of(hops.reach(ProxyAddresses::default()).await?);
        dialogue.expect(220, "the greeting").await?;
        let hello = format!("{} {}", if lmtp { "LHLO" } else { "EHLO" }, host_name());
        let mut offer = dialogue.say(&hello, 250).await?;
        match starttls.filter(|_| !encrypted) {
            Some((connector, _)) if offers(&offer, b"STARTTLS") => {
                dialogue.say("STARTTLS", 220).await?;
                dialogue = dialogue.secured(connector, &host).await?;
                offer = dialogue.say(&hello, 250).await?;
            }
            Some((_, true)) => return Err("it does not offer STARTTLS".to_owned()),
            Some((_, false)) | None => {}
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

    /// Asks about a recipient. The outer error: the connection is of no more use. The inner one: the server says
    /// neither yes nor no.
    async fn ask(&mut self, recipient: &Address) -> Result<Result<bool, String>, String> {
        if !recipient.as_str().is_ascii() && !self.utf8 {
            // A server without the extension has no such user.
            return Ok(Ok(false));
        }
        let line = match self.verdict(recipient.as_str()).await? {
            Ok(line) => line,
            Err(refused) => return Ok(Err(refused)),
        };
        let known = match user_of(&line) {
            User::Known => true,
            User::Unknown => false,
            User::NotSaid => return Ok(Err(line)),
            // A server that refuses its postmaster as well refuses this client, or the whole domain.
            User::Doubtful => match self.verdict(&format!("postmaster@{}", recipient.domain())).await? {
                Ok(postmaster) if user_of(&postmaster) == User::Known => false,
                Ok(_) | Err(_) => return Ok(Err(line)),
            },
        };
        self.unknown += u32::from(!known);
        Ok(Ok(known))
    }

    /// The reply to RCPT. The inner error: the server refuses the null sender, which says nothing about recipients.
    async fn verdict(&mut self, recipient: &str) -> Result<Result<String, String>, String> {
        (self.questions, self.since) = (self.questions + 1, Instant::now());
        let utf8 = if recipient.is_ascii() { "" } else { " SMTPUTF8" };
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
        if let Some(leaves) = [&taken, &answer].into_iter().find(|reply| reply.code == 421) {
            return Err(leaves.first_line());
        }
        dialogue.expect(250, "RSET").await?;
        self.since = Instant::now();
        Ok(if taken.is_positive() { Ok(answer.first_line()) } else { Err(taken.first_line()) })
    }

    /// Whether all replies were read. What a server sends unasked would be taken for the reply to the next question.
    fn is_at_rest(&self) -> bool {
        self.dialogue.is_at_rest()
    }
}
