//! Ways in: bind, accept, hand on. The acceptor gives sockets away before any runtime knows them.

use std::io;
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tracing::warn;

use super::stream::Accepted;
use crate::config::Endpoint;

/// Connections that wait to be accepted: a burst of some hundreds must not lose a SYN, which costs its sender a second.
const BACKLOG: i32 = 1024;
/// How long to wait after an error of accept, such as having no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    endpoint: Endpoint,
    _file: SocketFile,
}

impl Bound {
    /// Binds and listens.
    ///
    /// # Errors
    /// As the system says; the address is for the caller to name.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let (socket, address) = match endpoint {
            Endpoint::Tcp { host, port } => {
                let address = (host.as_str(), *port).to_socket_addrs()?.next();
                let address = address.ok_or_else(|| io::Error::other("the host name has no address"))?;
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                (socket, SockAddr::from(address))
            }
            Endpoint::Unix(path) => {
                // What a process that was killed left behind.
                if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
                    && std::os::unix::net::UnixStream::connect(path).is_err()
                {
                    std::fs::remove_file(path)?;
                }
                (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?)
            }
        };
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let file = match endpoint {
            Endpoint::Unix(path) => Some(path.clone()),
            Endpoint::Tcp { .. } => None,
        };
        Ok(Self { endpoint: endpoint.clone(), socket, _file: SocketFile(file) })
    }

    /// Where it listens: with the port that the system chose, where 0 was asked for.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        match self.socket.local_addr().ok().and_then(|a| a.as_socket()) {
            Some(address) => Endpoint::Tcp { host: address.ip().to_string(), port: address.port() },
            None => self.endpoint.clone(),
        }
    }

    /// Accepts for ever; what comes goes to `take`.
    ///
    /// # Errors
    /// Only if the runtime cannot watch the socket.
    pub async fn accept_all(self, mut take: impl FnMut(Accepted)) -> io::Result<()> {
        let Self { socket, endpoint, _file } = self;
        let listener = match endpoint {
            Endpoint::Tcp { .. } => Listener::Tcp(TcpListener::from_std(socket.into())?),
            Endpoint::Unix(_) => Listener::Unix(UnixListener::from_std(socket.into())?),
        };
        loop {
            match listener.accept().await {
                Ok(accepted) => take(accepted),
                Err(error) => {
                    // A connection that was gone again already, or no descriptor left: neither ends the listener.
                    warn!(listen = %endpoint, %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The socket as the system made it: whoever serves it registers it with a runtime of their own, for one that moves
    /// stays with the reactor where it was accepted.
    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Accepted::Tcp(stream.into_std()?, peer.ip())
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}

/// A socket's name in the file system; it goes when the socket does.
#[derive(Debug)]
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
