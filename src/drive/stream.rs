//! A connection: over TCP or a socket in the file system, in plain text or encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use crate::config::Endpoint;

/// A connection as the system gives it.
#[derive(Debug)]
pub(crate) enum Plain {
    /// Over TCP, with Nagle's algorithm off: replies are small, and the other side waits for each.
    Tcp(TcpStream),
    /// Over a socket in the file system.
    Unix(UnixStream),
}

impl Plain {
    /// Opens a connection to a next hop, over TCP or a socket in the file system.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) async fn connect(to: &Endpoint) -> io::Result<Self> {
        match to {
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                if stream.local_addr()? == stream.peer_addr()? {
                    // Where nobody listens on a port of the ephemeral range, TCP can connect a socket to itself.
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            Endpoint::Systemd(name) => Err(io::Error::other(format!("systemd:{name} is no next hop"))),
        }
    }

    /// Acknowledges what has come without waiting for something to send with it (TCP_QUICKACK). The system forgets it
    /// again, so it is said after each read from a peer that writes small pieces.
    #[cfg(feature = "milter")]
    pub(crate) fn acknowledge_at_once(&self) {
        #[cfg(target_os = "linux")]
        if let Self::Tcp(stream) = self {
            // Without it all is slower, and nothing else.
            let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
        }
    }

    /// The address of this end, where it has one.
    #[must_use]
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A connection to a client or a next hop, plain or encrypted.
#[derive(Debug)]
pub(crate) enum Stream {
    /// In plain text.
    Plain(Plain),
    /// TLS over TCP or a socket in the file system.
    Tls(Box<TlsStream<Plain>>),
    /// None: it is lent out for a handshake, or lost in one.
    Gone,
}

impl Stream {
    /// Takes the connection out, to encrypt it. One that is encrypted stays.
    pub(crate) fn take_plain(&mut self) -> Option<Plain> {
        match std::mem::replace(self, Self::Gone) {
            Self::Plain(plain) => Some(plain),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Reads what is there. `Ok(0)`: the other side has closed.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Tls(stream) => match Pin::new(stream).poll_read(cx, &mut buffer) {
                // Closed without a word. SMTP has its own ends, so nothing is cut short by that, and what is owed is
                // owed.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
            Self::Gone => Poll::Pending,
        };
        read.map_ok(|()| buffer.filled().len())
    }

    /// Writes what can be written.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Gone => Poll::Pending,
        }
    }

    /// Whether some of what was written may not have been sent: encryption keeps it back.
    #[inline]
    pub(crate) fn keeps_back(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Sends what encryption has kept back; in plain text there is never anything.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

/// An accepted connection that no runtime has yet.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// Over TCP.
    Tcp(std::net::TcpStream, SocketAddr),
    /// Over a socket in the file system.
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// The user of the process on the other side of a socket in the file system, if it is neither root nor one of
    /// these. `None`: it may connect. One that the system cannot name counts as a stranger.
    #[must_use]
    pub(crate) fn stranger_to(&self, users: Option<&[u32]>) -> Option<u32> {
        let (Some(users), Self::Unix(stream)) = (users, self) else { return None };
        let uid = rustix::net::sockopt::socket_peercred(stream).map_or(u32::MAX, |peer| peer.uid.as_raw());
        (uid != 0 && !users.contains(&uid)).then_some(uid)
    }

    /// Who it is, where that is an address.
    #[must_use]
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, peer) => Some(SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            Self::Unix(_) => None,
        }
    }

    /// Registers it with the runtime of the caller.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn into_plain(self) -> io::Result<Plain> {
        match self {
            Self::Tcp(stream, _) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(Plain::Tcp(TcpStream::from_std(stream)?))
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Plain::Unix(UnixStream::from_std(stream)?))
            }
        }
    }
}
