//! A mail server that keeps what it receives: the other servers of the demo, and the place where bounces of a probe arrive.
//! It uses plain threads and blocking sockets; the daemon does not use this code.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The longest line that is read, and the most that is kept of a message, in octets.
const MAX_LINE: u64 = 8192;
const MAX_MESSAGE: usize = 64 << 10;
/// Messages that are kept, connections at a time, and recipients of a message.
const MAX_KEPT: usize = 200;
const MAX_CONNECTIONS: usize = 32;
const MAX_RECIPIENTS: usize = 50;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message as a mail server received it.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

/// The recipients of a mail server.
#[derive(Debug, Clone)]
pub(super) enum Takes {
    /// Every recipient.
    All,
    /// All of this domain. Of messages, those are kept that have a text in them.
    Marked { domain: String, marker: String },
    /// All but unknown users of this domain; these are its users.
    Users { domain: String, users: Vec<String> },
}

impl Takes {
    fn takes(&self, recipient: &str) -> bool {
        let (user, at) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
        match self {
            Self::All => true,
            Self::Marked { domain, .. } => at.eq_ignore_ascii_case(domain),
            Self::Users { domain, users } => {
                !at.eq_ignore_ascii_case(domain) || users.iter().any(|it| it.eq_ignore_ascii_case(user))
            }
        }
    }
}

/// A mail server that accepts messages and keeps them.
pub(super) struct MailSink {
    pub address: SocketAddr,
    mailbox: Arc<Mailbox>,
}

struct Mailbox {
    name: String,
    takes: Takes,
    received: Mutex<Vec<Received>>,
    arrival: Condvar,
    connections: AtomicUsize,
}

impl MailSink {
    /// Starts to accept connections. `name`: what it says in its greeting.
    ///
    /// # Errors
    /// The port is in use, or may not be used.
    pub(super) fn start(at: SocketAddr, name: &str, takes: Takes) -> Result<Self> {
        let listener = TcpListener::bind(at).with_context(|| format!("no listener on {at}"))?;
        let address = listener.local_addr()?;
        let mailbox = Arc::new(Mailbox {
            name: name.to_owned(),
            takes,
            received: Mutex::default(),
            arrival: Condvar::new(),
            connections: AtomicUsize::new(0),
        });
        let store = Arc::clone(&mailbox);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    pause();
                    continue;
                };
                let store = Arc::clone(&store);
                if store.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                    store.connections.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                std::thread::spawn(move || {
                    // A client that disconnects is not an error of ours.
                    let _ = store.converse(&stream);
                    store.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { address, mailbox })
    }

    /// The newest message; an error if there is none.
    pub(super) fn last(&self) -> Result<Received> {
        self.mailbox.received().last().cloned().context("no message arrived")
    }

    /// The number of messages received.
    pub(super) fn count(&self) -> usize {
        self.mailbox.received().len()
    }

    /// Waits for a message for which this is true.
    pub(super) fn wait(&self, patience: Duration, is_it: impl Fn(&Received) -> bool) -> Option<Received> {
        let deadline = Instant::now() + patience;
        let mut received = self.mailbox.received();
        loop {
            if let Some(found) = received.iter().find(|message| is_it(message)) {
                return Some(found.clone());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.mailbox.arrival.wait_timeout(received, left);
            (received, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl Mailbox {
    fn received(&self) -> std::sync::MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = &self.name;
        let mut out = stream;
        let mut lines = BufReader::new(stream);
        let mut message = Received::default();
        write!(out, "220 {name} ESMTP\r\n")?;
        loop {
            let line = line(&mut lines)?;
            if line.is_empty() {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let path = || line.split_once('<').and_then(|(_, p)| p.rsplit_once('>')).map_or("", |(p, _)| p).to_owned();
            match line.get(..4).unwrap_or(&line).to_ascii_uppercase().as_str() {
                "EHLO" => write!(out, "250-{name}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n")?,
                "MAIL" => {
                    message = Received { from: path(), ..Received::default() };
                    write!(out, "250 2.1.0 ok\r\n")?;
                }
                "RCPT" if !self.takes.takes(&path()) => write!(out, "550 5.1.1 no such user here\r\n")?,
                "RCPT" if message.to.len() >= MAX_RECIPIENTS => write!(out, "452 4.5.3 too many recipients\r\n")?,
                "RCPT" => {
                    message.to.push(path());
                    write!(out, "250 2.1.5 ok\r\n")?;
                }
                "DATA" if message.to.is_empty() => write!(out, "554 5.5.1 no valid recipients\r\n")?,
                "DATA" => {
                    write!(out, "354 go on\r\n")?;
                    message.text = body(&mut lines)?;
                    let kept = self.keep(std::mem::take(&mut message));
                    let reply = if kept { "250 2.0.0 delivered" } else { "451 4.3.0 not now, try again later" };
                    write!(out, "{reply}\r\n")?;
                }
                "QUIT" => return write!(out, "221 2.0.0 bye\r\n"),
                "RSET" => {
                    message = Received::default();
                    write!(out, "250 2.0.0 ok\r\n")?;
                }
                _ => write!(out, "250 2.0.0 ok\r\n")?,
            }
        }
    }

    fn keep(&self, message: Received) -> bool {
        if let Takes::Marked { marker, .. } = &self.takes
            && !message.text.contains(marker)
        {
            // It may be somebody's mail to this domain, and is sent again when this listener is gone.
            return false;
        }
        let mut received = self.received();
        let has_room = received.len() < MAX_KEPT;
        if has_room {
            received.push(message);
            self.arrival.notify_all();
        }
        has_room
    }
}

/// Waits until connections may have ended that have used up the file descriptors.
#[expect(clippy::disallowed_methods, reason = "nothing tells when a descriptor is free again")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// The next line; empty at the end. The rest of a line that is too long is the next one.
fn line(lines: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    lines.take(MAX_LINE).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The message, without the dots of RFC 5321 section 4.5.2. What is too long is read and not kept.
fn body(lines: &mut impl BufRead) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        let line = line(lines)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        if text.len() < MAX_MESSAGE {
            text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }
}
