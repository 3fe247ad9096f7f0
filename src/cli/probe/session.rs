//! One session over TCP, with a deadline for each reply.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::drive::tls::any_certificate;
use crate::probe::run::shown;
use crate::probe::server::{Expected, Session, Trouble};
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// How long a server may take to answer a command, and the end of a message. Filters and greet delays take some seconds.
const FOR_REPLY: Duration = Duration::from_secs(60);
const FOR_MESSAGE: Duration = Duration::from_secs(180);
/// How long it may take to read what is sent, and to say goodbye.
const FOR_WRITE: Duration = Duration::from_secs(30);
const FOR_GOODBYE: Duration = Duration::from_secs(1);
/// How long a probe may take. Minutes.
pub(super) const MINUTES: u64 = 30;

/// The connection. `None`: a handshake has failed.
enum Line {
    Plain(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

/// A session over TCP.
pub(super) struct TcpSession {
    line: Option<Line>,
    /// The reply to EHLO.
    pub hello: Reply,
    unread: Vec<u8>,
    reader: ReplyReader,
    took: Duration,
    ends: Instant,
    /// Whether the server may read what is sent next as part of a message or a header: then it is not told QUIT.
    is_raw: bool,
}

impl TcpSession {
    /// `ends`: when the whole probe must end.
    pub(super) fn new(stream: TcpStream, ends: Instant) -> Self {
        Self {
            line: Some(Line::Plain(stream)),
            ends,
            hello: Reply { code: 220, text: Vec::new() },
            unread: Vec::new(),
            reader: ReplyReader::default(),
            took: Duration::ZERO,
            is_raw: true,
        }
    }

    /// The server reads commands.
    pub(super) fn is_in_commands(&mut self) {
        self.is_raw = false;
    }

    /// The address of this end.
    pub(super) fn own_address(&self) -> io::Result<SocketAddr> {
        self.socket()?.local_addr()
    }

    /// A PROXY header that says what is so.
    pub(super) fn own_header(&self) -> io::Result<Vec<u8>> {
        let (own, server) = (self.own_address()?, self.socket()?.peer_addr()?);
        let family = if own.is_ipv4() { "TCP4" } else { "TCP6" };
        let header = format!("PROXY {family} {} {} {} {}\r\n", own.ip(), server.ip(), own.port(), server.port());
        Ok(header.into_bytes())
    }

    fn socket(&self) -> io::Result<&TcpStream> {
        match &self.line {
            Some(Line::Plain(stream)) => Ok(stream),
            Some(Line::Tls(_, stream)) => Ok(stream),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Reads once from the connection. `WouldBlock`: nothing has come in time, or nothing that is complete.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.line {
            Some(Line::Plain(stream)) => stream.read(buffer),
            Some(Line::Tls(tls, stream)) => match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if tls.read_tls(stream)? == 0 {
                        return Ok(0);
                    }
                    tls.process_new_packets().map_err(io::Error::other)?;
                    match tls.reader().read(buffer) {
                        // What has come is part of a record.
                        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::Interrupted.into()),
                        read => read,
                    }
                }
                read => read,
            },
            None => Ok(0),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.socket()?.set_write_timeout(Some(FOR_WRITE))?;
        match &mut self.line {
            Some(Line::Plain(stream)) => stream.write_all(octets),
            Some(Line::Tls(tls, stream)) => {
                tls.writer().write_all(octets)?;
                while tls.wants_write() {
                    tls.write_tls(stream)?;
                }
                Ok(())
            }
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// A reply that has arrived already.
    fn unread_reply(&mut self) -> Result<Option<Reply>, Trouble> {
        let (used, reply) = self.reader.push(&self.unread).map_err(|error| Trouble::Broken(error.to_string()))?;
        self.unread.drain(..used);
        Ok(reply)
    }
}

impl Session for TcpSession {
    fn hello(&self) -> &Reply {
        &self.hello
    }

    fn say(&mut self, line: &str, _: Expected) -> Result<Reply, Trouble> {
        if let Some(early) = self.unread_reply()? {
            return Err(Trouble::OutOfStep(shown(&early)));
        }
        self.write(format!("{line}\r\n").as_bytes()).map_err(|error| broken(&error))?;
        let patience = if line.contains('\n') { FOR_MESSAGE } else { FOR_REPLY };
        let begun = Instant::now();
        let reply = self.reply_within(patience)?.ok_or(Trouble::Silent(patience.as_secs()))?;
        self.took = begun.elapsed();
        self.is_raw = reply.code == 354;
        Ok(reply)
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        self.is_raw = true;
        self.write(octets).map_err(|error| broken(&error))
    }

    fn reply_within(&mut self, patience: Duration) -> Result<Option<Reply>, Trouble> {
        let deadline = (Instant::now() + patience).min(self.ends);
        loop {
            if let Some(reply) = self.unread_reply()? {
                return Ok(Some(reply));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return if Instant::now() >= self.ends { Err(Trouble::TimeUp(MINUTES)) } else { Ok(None) };
            }
            self.socket().and_then(|socket| socket.set_read_timeout(Some(left))).map_err(|error| broken(&error))?;
            let mut buffer = [0; 2048];
            match self.read(&mut buffer) {
                Ok(0) => return Err(Trouble::Closed),
                Ok(n) => self.unread.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    fn encrypt(&mut self) -> Result<(), Trouble> {
        let Some(Line::Plain(mut stream)) = self.line.take() else {
            return Err(Trouble::Broken("the connection is encrypted already".to_owned()));
        };
        // What the server has said before the handshake is not encrypted, and counts for nothing.
        (self.unread, self.reader) = (Vec::new(), ReplyReader::default());
        let name = ServerName::try_from("localhost").map_err(|error| Trouble::Broken(error.to_string()))?;
        let config = any_certificate().map_err(Trouble::Broken)?;
        let mut tls = ClientConnection::new(config, name).map_err(|error| Trouble::Broken(error.to_string()))?;
        let deadline = Instant::now() + FOR_REPLY;
        while tls.is_handshaking() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Trouble::Silent(FOR_REPLY.as_secs()));
            }
            handshake(&mut tls, &mut stream, left)?;
        }
        self.line = Some(Line::Tls(Box::new(tls), stream));
        Ok(())
    }

    fn took(&self) -> Duration {
        self.took
    }
}

impl Drop for TcpSession {
    /// Says goodbye, unless the server would read that as part of a message.
    fn drop(&mut self) {
        if !self.is_raw && self.write(b"QUIT\r\n").is_ok() {
            let _ = self.reply_within(FOR_GOODBYE);
        }
    }
}

/// One step of a handshake: writes, or reads once.
fn handshake(tls: &mut ClientConnection, stream: &mut TcpStream, left: Duration) -> Result<(), Trouble> {
    let timeouts = stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
    timeouts.map_err(|error| broken(&error))?;
    if tls.wants_write() {
        return tls.write_tls(stream).map(drop).map_err(|error| broken(&error));
    }
    match tls.read_tls(stream) {
        Ok(0) => Err(Trouble::Closed),
        Ok(_) => {
            tls.process_new_packets().map(drop).map_err(|error| Trouble::Broken(format!("TLS handshake: {error}")))
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(Trouble::Silent(FOR_REPLY.as_secs()))
        }
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected | ErrorKind::UnexpectedEof => {
            Trouble::Closed
        }
        _ => Trouble::Broken(error.to_string()),
    }
}
