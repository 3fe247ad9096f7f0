//! A server over TCP: sessions are paced and counted.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::bounces::Bounces;
use super::progress::Progress;
use super::session::{MINUTES, TcpSession};
use crate::probe::finding::Test;
use crate::probe::run::shown;
use crate::probe::server::{Bounce, Expected, Host, Server, Session, Trouble};

/// The port of mail between servers.
pub(super) const SMTP: u16 = 25;
/// Sessions of one probe, those for its proof included.
pub(super) const MAX_SESSIONS: usize = 40;
/// Time between two sessions: five a second.
const PACE: Duration = Duration::from_millis(200);
/// How long a server may take to accept a connection, and to greet. Some delay the greeting on purpose.
const FOR_CONNECTION: Duration = Duration::from_secs(15);
const FOR_GREETING: Duration = Duration::from_secs(30);

/// A server over TCP.
pub(super) struct RealServer {
    /// The address that is probed.
    pub address: SocketAddr,
    /// The address of this machine to connect from, if not the one that the system chooses.
    pub from: Option<IpAddr>,
    /// The name in EHLO; `None`: the address of the connection.
    pub hello: Option<String>,
    /// Whether the server greets nobody without a PROXY header. It then gets one with the address of the connection.
    pub needs_header: bool,
    /// The greeting of the first session.
    pub greeting: Option<String>,
    /// Sessions so far.
    pub sessions: usize,
    /// Where bounces arrive, and how long they are waited for.
    pub bounces: Option<Bounces>,
    pub patience: Duration,
    pub progress: Progress,
    /// Whether each session begins with STARTTLS, because the server takes no mail without.
    pub uses_tls: bool,
    last: Option<Instant>,
    ends: Instant,
}

impl RealServer {
    pub(super) fn new(address: SocketAddr, from: Option<IpAddr>, hello: Option<String>) -> Self {
        Self {
            address,
            from,
            hello,
            needs_header: false,
            greeting: None,
            sessions: 0,
            bounces: None,
            patience: Duration::from_secs(60),
            progress: Progress::default(),
            uses_tls: false,
            last: None,
            ends: Instant::now() + Duration::from_secs(MINUTES * 60),
        }
    }

    /// Opens the first session. Some servers greet nobody without a PROXY header; the others then get one, too.
    pub(super) fn open_first(&mut self) -> Result<TcpSession, Trouble> {
        let address = self.address;
        match self.open_at(address) {
            Err(trouble @ (Trouble::Broken(_) | Trouble::NoSessionLeft(_) | Trouble::TimeUp(_))) => Err(trouble),
            Err(trouble) if !self.needs_header => {
                self.needs_header = true;
                self.open_at(address).map_err(|_| trouble)
            }
            opened => opened,
        }
    }

    /// Opens a session, and says EHLO.
    pub(super) fn open_at(&mut self, address: SocketAddr) -> Result<TcpSession, Trouble> {
        let mut session = self.connect(address)?;
        if self.needs_header {
            let header = session.own_header().map_err(|error| Trouble::Broken(error.to_string()))?;
            session.send(&header)?;
        }
        self.read_greeting(&mut session)?;
        let name = match &self.hello {
            Some(name) => name.clone(),
            None => format!("[{}]", literal(session.own_address().map_err(|e| Trouble::Broken(e.to_string()))?.ip())),
        };
        session.hello = session.say(&format!("EHLO {name}"), Expected::Accepted)?;
        if self.uses_tls {
            let reply = session.say("STARTTLS", Expected::Accepted)?;
            if reply.code != 220 {
                return Err(Trouble::Unwilling(shown(&reply)));
            }
            session.encrypt()?;
            session.hello = session.say(&format!("EHLO {name}"), Expected::Accepted)?;
        }
        match session.hello.is_positive() {
            true => Ok(session),
            false => Err(Trouble::Unwilling(shown(&session.hello))),
        }
    }

    /// Connects, no sooner than the pace allows.
    fn connect(&mut self, address: SocketAddr) -> Result<TcpSession, Trouble> {
        if Instant::now() >= self.ends {
            return Err(Trouble::TimeUp(MINUTES));
        }
        if self.sessions >= MAX_SESSIONS {
            return Err(Trouble::NoSessionLeft(MAX_SESSIONS));
        }
        if let Some(wait) = self.last.and_then(|last| PACE.checked_sub(last.elapsed())) {
            pause(wait);
        }
        self.sessions += 1;
        self.last = Some(Instant::now());
        let stream = connected(address, self.from).map_err(|error| Trouble::Broken(in_words(address, &error)))?;
        Ok(TcpSession::new(stream, self.ends))
    }

    fn read_greeting(&mut self, session: &mut TcpSession) -> Result<(), Trouble> {
        let greeting = session.reply_within(FOR_GREETING)?.ok_or(Trouble::Silent(FOR_GREETING.as_secs()))?;
        match greeting.code {
            220 => {
                self.greeting.get_or_insert_with(|| shown(&greeting));
                session.is_in_commands();
                Ok(())
            }
            _ => Err(Trouble::Unwilling(shown(&greeting))),
        }
    }
}

impl Server for RealServer {
    fn open(&mut self, host: Host) -> Result<Box<dyn Session + '_>, Trouble> {
        let address = match host {
            Host::Probed => self.address,
            // Only on this machine are servers tested at another port than that of mail.
            Host::Other(address) if address.is_loopback() => SocketAddr::new(address, self.address.port()),
            Host::Other(address) => SocketAddr::new(address, SMTP),
        };
        Ok(Box::new(self.open_at(address)?))
    }

    fn open_with(&mut self, first: &[u8]) -> Result<Box<dyn Session + '_>, Trouble> {
        let mut session = self.connect(self.address)?;
        session.send(first)?;
        self.read_greeting(&mut session)?;
        Ok(Box::new(session))
    }

    fn bounce(&mut self, marker: &str) -> Option<Bounce> {
        let begun = Instant::now();
        self.progress.waits_for("a bounce");
        let found = self.bounces.as_ref()?.wait(self.patience, |message| message.text.contains(marker))?;
        Some(Bounce { text: found.text, after: begun.elapsed() })
    }

    fn progress(&mut self, done: usize, all: usize, _: &[Test]) {
        self.progress.show(done, all);
    }
}

#[expect(clippy::disallowed_methods, reason = "time itself is the matter: a probe is not faster than this")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The address of a name; `name` may be an address.
pub(super) fn address_of(name: &str, port: u16) -> Result<SocketAddr, Trouble> {
    let found = (name, port).to_socket_addrs();
    let found = found.map_err(|error| Trouble::Broken(format!("{name}: {error}")))?.next();
    found.ok_or_else(|| Trouble::Broken(format!("{name} has no address")))
}

/// An address as in an address literal (RFC 5321 section 4.1.3), without its brackets.
pub(super) fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPv6:{address}"),
    }
}

fn connected(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&address.into(), FOR_CONNECTION)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// The system's error for an address of another family.
const AFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

fn in_words(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!("nothing listens on {address}"),
        ErrorKind::TimedOut => format!("{address} does not answer"),
        ErrorKind::AddrNotAvailable => "the address of --from is not one of this machine".to_owned(),
        _ if error.raw_os_error() == Some(AFNOSUPPORT) => format!("--from and {address} are of different families"),
        _ => format!("{address}: {error}"),
    }
}
