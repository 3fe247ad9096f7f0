//! One session over TCP, with a deadline for each reply.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::drive::tls::any_certificate;
use crate::probe::server::{Expected, Session, Trouble};
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// How long a server may take to answer a command, and the end of a message. Filters and greet delays take some seconds.
const FOR_REPLY: Duration = Duration::from_secs(60);
const FOR_MESSAGE: Duration = Duration::from_secs(180);
/// How long it may take to read what is sent, and to say goodbye.
const FOR_WRITE: Duration = Duration::from_secs(30);
const FOR_GOODBYE: Duration = Duration::from_secs(1);

/// The connection. `None`: a handshake has failed.
enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A session over TCP.
pub(super) struct TcpSession {
    line: Option<Line>,
    /// The reply to EHLO.
    pub hello: Reply,
    unread: Vec<u8>,
    reader: ReplyReader,
    took: Duration,
    /// Whether the server may read what is sent next as part of a message or a header: then it is not told QUIT.
    is_raw: bool,
}

impl TcpSession {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            line: Some(Line::Plain(stream)),
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
            Some(Line::Tls(stream)) => Ok(stream.get_ref()),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.line {
            Some(Line::Plain(stream)) => stream.read(buffer),
            Some(Line::Tls(stream)) => stream.read(buffer),
            None => Ok(0),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.socket()?.set_write_timeout(Some(FOR_WRITE))?;
        match &mut self.line {
            Some(Line::Plain(stream)) => stream.write_all(octets),
            Some(Line::Tls(stream)) => stream.write_all(octets).and_then(|()| stream.flush()),
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
        let deadline = Instant::now() + patience;
        loop {
            if let Some(reply) = self.unread_reply()? {
                return Ok(Some(reply));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
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
        stream.set_read_timeout(Some(FOR_REPLY)).map_err(|error| broken(&error))?;
        let name = ServerName::try_from("localhost").map_err(|error| Trouble::Broken(error.to_string()))?;
        let config = any_certificate().map_err(Trouble::Broken)?;
        let mut tls = ClientConnection::new(config, name).map_err(|error| Trouble::Broken(error.to_string()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Trouble::Closed,
                _ => Trouble::Broken(format!("TLS handshake: {error}")),
            })?;
        }
        self.line = Some(Line::Tls(Box::new(StreamOwned::new(tls, stream))));
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

fn broken(error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected | ErrorKind::UnexpectedEof => {
            Trouble::Closed
        }
        _ => Trouble::Broken(error.to_string()),
    }
}
