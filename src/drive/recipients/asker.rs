//! Asks a server whether it would take mail for a recipient.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{RecipientServer, SendProxy};
use crate::drive::client_dialogue::{Dialogue, host_name};
use crate::drive::next_hops::{NextHops, ProxyAddresses};
use crate::drive::tls::Connector;
use crate::envelope::address::Address;
use crate::wire::smtp::reply::{User, user_of};

/// Timeout for an answer, with the time to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections to one server. Fewer where the server takes fewer: Exim takes 20 of all clients, and Postfix 50 of each that
/// is not in its networks.
const MAX_CONNECTIONS: usize = 80;
/// Questions that may wait for a connection.
const MAX_WAITING: usize = 1000;
/// How many more connections are tried every few seconds, after a server has not taken one.
const MORE: usize = 4;
/// Why nothing is asked while others are.
const TOO_MANY: &str = "too many queries are waiting for it";
/// Why a server counts as failed.
const LATE: &str = "it does not answer in time";
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
    /// How many connections fewer there may be, because the server has not taken them.
    not_taken: AtomicUsize,
    /// Held by each open connection.
    open: Arc<()>,
    /// Held by each connection that is being opened: the server may count it already.
    opening: Arc<()>,
    waiting: Semaphore,
    rests_until: Mutex<Option<Instant>>,
}

/// Why there is no answer.
enum Failed {
    /// The server does not take one more connection than those that are open.
    NotTaken,
    Other(String),
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
    /// Held for as long as the connection is open.
    _open: Option<Arc<()>>,
}

impl Asker {
    pub(super) fn new(server: &RecipientServer) -> Self {
        Self {
            hops: hops_of(server),
            lmtp: server.lmtp,
            idle: Mutex::default(),
            connections: Semaphore::new(MAX_CONNECTIONS),
            not_taken: AtomicUsize::new(0),
            open: Arc::default(),
            opening: Arc::default(),
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
        let _place = self.waiting.try_acquire().map_err(|_| TOO_MANY)?;
        // Time in which others are asked about is not the server's fault.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let permit = tokio::time::timeout_at(deadline, self.connections.acquire()).await;
            let permit = permit.map_err(|_| TOO_MANY)?.map_err(|error| error.to_string())?;
            // Others that have waited before may have found that it fails.
            if self.rests() {
                return Err(RESTS.to_owned());
            }
            match self.ask_at_once(recipient).await {
                Ok(answer) => return answer,
                Err(Failed::Other(error)) => return Err(error),
                // Those that are open take this question, one after the other.
                Err(Failed::NotTaken) => {
                    permit.forget();
                    self.not_taken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn ask_at_once(&self, recipient: &Address) -> Result<Result<bool, String>, Failed> {
        let deadline = Instant::now() + PATIENCE;
        let late = |_| {
            self.fails();
            Failed::Other(LATE.to_owned())
        };
        // A server may close a connection at any time; then another one is opened.
        if let Some(mut connection) = self.take_idle()
            && let Ok(answer) = tokio::time::timeout_at(deadline, connection.ask(recipient)).await.map_err(late)?
        {
            self.keep(connection);
            return Ok(answer);
        }
        let mut connection = self.open(deadline).await?;
        // A server that closes the connection because of one recipient can be asked about others.
        let answer = tokio::time::timeout_at(deadline, connection.ask(recipient)).await.map_err(late)?;
        let answer = answer.map_err(Failed::Other)?;
        self.keep(connection);
        Ok(answer)
    }

    async fn open(&self, deadline: Instant) -> Result<Connection, Failed> {
        let opening = Arc::clone(&self.opening);
        let opened = tokio::time::timeout_at(deadline, Connection::open(&self.hops, self.lmtp, None)).await;
        // This one is not among the others.
        let others = |held: &Arc<()>, own: usize| Arc::strong_count(held) > 1 + own;
        let has_others = others(&self.open, 0) || (opened.is_ok() && others(&self.opening, 1));
        let result = match opened.unwrap_or_else(|_| Err(LATE.to_owned())) {
            Ok(connection) => Ok(Connection { _open: Some(Arc::clone(&self.open)), ..connection }),
            Err(_) if has_others => Err(Failed::NotTaken),
            Err(error) => {
                self.fails();
                Err(Failed::Other(error))
            }
        };
        // Not before it is held as an open one.
        drop(opening);
        result
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

    /// Closes connections that were not used for some time. The server may also take more of them again.
    pub(super) fn close_idle(&self) {
        let more = |not_taken: usize| Some(not_taken.saturating_sub(MORE));
        if let Ok(before) = self.not_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            self.connections.add_permits(before.min(MORE));
        }
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
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(LATE.to_owned()))
}

impl Connection {
    async fn open(hops: &NextHops, lmtp: bool, starttls: Option<(&Connector, bool)>) -> Result<Self, String> {
        let (mut dialogue, host, encrypted) = Dialogue::of(hops.reach(ProxyAddresses::default()).await?);
        dialogue.expect(220, "the greeting").await?;
        let hello = format!("{} {}", if lmtp { "LHLO" } else { "EHLO" }, host_name());
        let mut offer = dialogue.say(&hello, 250).await?;
        match starttls.filter(|_| !encrypted) {
            Some((connector, _)) if offer.offers(b"STARTTLS") => {
                dialogue.say("STARTTLS", 220).await?;
                dialogue = dialogue.secured(connector, &host).await?;
                offer = dialogue.say(&hello, 250).await?;
            }
            Some((_, true)) => return Err("it does not offer STARTTLS".to_owned()),
            Some((_, false)) | None => {}
        }
        Ok(Self {
            dialogue,
            pipelining: offer.offers(b"PIPELINING"),
            utf8: offer.offers(b"SMTPUTF8"),
            questions: 0,
            unknown: 0,
            since: Instant::now(),
            _open: None,
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
