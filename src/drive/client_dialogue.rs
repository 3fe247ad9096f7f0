//! An SMTP dialogue in which this program is the client.

use std::future::poll_fn;
use std::io;

use super::next_hops::{OpenConnection, Reached};
use super::stream::Stream;
use super::tls::Connector;
use crate::envelope::tag::masked_text;
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// A dialogue with a server that has been reached.
#[derive(Debug)]
pub(super) struct Dialogue {
    stream: Stream,
    unread: Vec<u8>,
    in_use: OpenConnection,
}

impl Dialogue {
    /// Begins with the greeting. Returns the host name of the server, too, and whether the connection is encrypted.
    pub(super) fn of(reached: Reached) -> (Self, String, bool) {
        let Reached { stream, first, host, encrypted, in_use, name: _ } = reached;
        (Self { stream, unread: first, in_use }, host, encrypted)
    }

    /// Sends a command, and reads the reply, whose code has to begin like this one.
    pub(super) async fn say(&mut self, line: &str, code: u16) -> Result<Reply, String> {
        self.send(&format!("{line}\r\n")).await?;
        self.expect(code, line.split([' ', ':', '\r']).next().unwrap_or_default()).await
    }

    /// Sends lines, with their line ends.
    pub(super) async fn send(&mut self, lines: &str) -> Result<(), String> {
        let mut rest = lines.as_bytes();
        while !rest.is_empty() {
            let written = poll_fn(|cx| self.stream.poll_write(cx, rest)).await.map_err(|error| error.to_string())?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).to_string());
            }
            rest = rest.get(written..).unwrap_or_default();
        }
        poll_fn(|cx| self.stream.poll_flush(cx)).await.map_err(|error| error.to_string())
    }

    /// Reads a reply, whose code has to begin like this one. `what`: what it is about.
    pub(super) async fn expect(&mut self, code: u16, what: &str) -> Result<Reply, String> {
        let reply = self.reply(what).await?;
        match reply.code / 100 == code / 100 {
            true => Ok(reply),
            false => Err(format!("{what}: {}", masked_text(&reply.first_line()))),
        }
    }

    /// Reads a reply. `what`: what it is about.
    pub(super) async fn reply(&mut self, what: &str) -> Result<Reply, String> {
        let mut reader = ReplyReader::default();
        loop {
            let (used, reply) = reader.push(&self.unread).map_err(|error| error.to_string())?;
            self.unread.drain(..used);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            let mut buffer = [0; 1024];
            let n = poll_fn(|cx| self.stream.poll_read(cx, &mut buffer)).await.map_err(|error| error.to_string())?;
            if n == 0 {
                return Err(format!("{what}: the next hop has closed the connection"));
            }
            self.unread.extend_from_slice(buffer.get(..n).unwrap_or_default());
        }
    }

    /// Whether nothing was received that is not read yet.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unread.is_empty()
    }

    /// Encrypts the connection. What was read before the handshake is not part of it, and is dropped.
    pub(super) async fn secured(self, connector: &Connector, host: &str) -> Result<Self, String> {
        let Stream::Plain(plain) = self.stream else { return Err("the connection is encrypted already".to_owned()) };
        let stream = connector.connect(host, plain).await.map_err(|error| super::tls::in_words(&error))?;
        Ok(Self { stream, unread: Vec::new(), in_use: self.in_use })
    }
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
