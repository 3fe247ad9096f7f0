//! Connections over TCP or a Unix socket, plain or encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsStream;

use crate::config::Endpoint;

/// A plain connection.
#[derive(Debug)]
pub(crate) enum Plain {
    /// Over TCP, with Nagle's algorithm off: replies are short, and the other side waits for each.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Plain {
    /// Connects to a next hop.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) async fn connect(to: &Endpoint) -> io::Result<Self> {
        match to {
            Endpoint::Tcp { host, port } => {
                let unknown = |error| {
                    io::Error::other(format!(
                        "the name {host} has no address ({error}); correct it, or this machine's DNS"
                    ))
                };
                let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), *port)).await.map_err(unknown)?.collect();
                let stream = TcpStream::connect(addresses.as_slice()).await?;
                if stream.local_addr()? == stream.peer_addr()? {
                    // If nothing listens on a port of the ephemeral range, TCP can connect a socket to itself.
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            Endpoint::Systemd(name) => Err(io::Error::other(format!("systemd:{name} is no next hop"))),
        }
    }

    /// Acknowledges input without waiting for output to send with it (TCP_QUICKACK). The system resets this option, so
    /// it is set after each read from a peer that writes small pieces.
    #[cfg(feature = "milter")]
    pub(crate) fn acknowledge_at_once(&self) {
        #[cfg(target_os = "linux")]
        if let Self::Tcp(stream) = self {
            // If this fails, the connection is only slower.
            let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
        }
    }

    /// The local address; `None` for a Unix socket.
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
    /// A plain connection.
    Plain(Plain),
    /// TLS over TCP or a Unix socket.
    Tls(Box<TlsStream<Plain>>),
    /// No connection: it is taken for a handshake, or was lost in one.
    Gone,
}

impl Stream {
    /// Takes the connection out, for a handshake. `None`: it is encrypted already, or gone.
    pub(crate) fn take_plain(&mut self) -> Option<Plain> {
        match std::mem::replace(self, Self::Gone) {
            Self::Plain(plain) => Some(plain),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Reads what is available. `Ok(0)`: the other side has closed.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Tls(stream) => match Pin::new(stream).poll_read(cx, &mut buffer) {
                // Closed without close_notify. SMTP marks its own ends, so nothing can be truncated unnoticed, and
                // pending replies are still sent.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
            Self::Gone => Poll::Pending,
        };
        read.map_ok(|()| buffer.filled().len())
    }

    /// Writes as much as possible, and returns the number of octets.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Gone => Poll::Pending,
        }
    }

    /// Whether some of what was written may not have been sent: TLS buffers output.
    #[inline]
    pub(crate) fn keeps_back(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Sends what TLS has buffered. Does nothing on a plain connection.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Closes the connection for writing.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

/// An accepted connection that no runtime has registered yet.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// Over TCP.
    Tcp(std::net::TcpStream, SocketAddr),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// The user id of a Unix socket's client that is neither root nor one of `users`. `None`: the client may connect. A
    /// client whose id is not known counts as a stranger.
    #[must_use]
    pub(crate) fn stranger_to(&self, users: Option<&[u32]>) -> Option<u32> {
        let (Some(users), Self::Unix(stream)) = (users, self) else { return None };
        let uid = rustix::net::sockopt::socket_peercred(stream).map_or(u32::MAX, |peer| peer.uid.as_raw());
        (uid != 0 && !users.contains(&uid)).then_some(uid)
    }

    /// The client's address; `None` for a Unix socket.
    #[must_use]
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, peer) => Some(SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            Self::Unix(_) => None,
        }
    }

    /// Registers the connection with the caller's runtime.
    ///
    /// # Errors
    /// The system's error.
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
