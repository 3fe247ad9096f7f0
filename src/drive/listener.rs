//! Listeners: bind, accept, hand over. The acceptor passes sockets on before any runtime registers them.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::limited_warn;
use super::stream::Accepted;
use crate::config::{Access, Endpoint};

/// The sockets that systemd has passed to this process (sd_listen_fds(3)), by name.
pub(crate) struct Inherited {
    sockets: listenfd::ListenFd,
    names: Vec<String>,
    taken: Vec<usize>,
}

impl Inherited {
    /// No sockets.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self { sockets: listenfd::ListenFd::empty(), names: Vec::new(), taken: Vec::new() }
    }

    /// The sockets that the environment describes.
    #[must_use]
    pub(crate) fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(ToOwned::to_owned).collect();
        Self { sockets: listenfd::ListenFd::from_env(), names, taken: Vec::new() }
    }

    /// The names of sockets that no listener has taken. Clients that connect to them wait for ever.
    #[must_use]
    pub(crate) fn left(&self) -> Vec<&str> {
        let left = (0..self.sockets.len()).filter(|at| !self.taken.contains(at));
        left.map(|at| self.names.get(at).map_or("unknown", String::as_str)).collect()
    }

    fn take(&mut self, name: &str) -> io::Result<Socket> {
        for at in (0..self.sockets.len()).filter(|&at| self.names.get(at).is_some_and(|known| known == name)) {
            if let Ok(Some(tcp)) = self.sockets.take_tcp_listener(at) {
                self.taken.push(at);
                return Ok(tcp.into());
            }
            if let Ok(Some(unix)) = self.sockets.take_unix_listener(at) {
                self.taken.push(at);
                return Ok(unix.into());
            }
        }
        let there = self.names.iter().filter(|name| !name.is_empty()).map(String::as_str).collect::<Vec<_>>();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        Err(io::Error::other(format!(
            "systemd has passed no such socket (FileDescriptorName= in a .socket unit); there are: {there}"
        )))
    }
}

/// The length of the accept queue. A burst of some hundreds of connections must not lose a SYN, which delays the client
/// by a second.
const BACKLOG: i32 = 1024;
/// The pause after an error of accept, such as no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Socket,
    endpoint: Endpoint,
    /// The ids of users that may connect besides root; `None`: all users.
    users: Option<Vec<u32>>,
    _file: SocketFile,
}

impl Bound {
    /// Binds and listens. `access` applies to a Unix socket.
    ///
    /// # Errors
    /// The system's error, or a user or group that does not exist. The error does not name the address.
    pub(crate) fn bind(endpoint: &Endpoint, access: &Access, inherited: &mut Inherited) -> io::Result<Self> {
        let users = access.users.as_ref().map(|users| users.iter().map(|user| uid(user)).collect()).transpose()?;
        let (socket, address) = match endpoint {
            Endpoint::Systemd(name) => {
                let socket = inherited.take(name)?;
                socket.set_nonblocking(true)?;
                return Ok(Self { endpoint: endpoint.clone(), socket, users, _file: SocketFile(None) });
            }
            Endpoint::Tcp { host, port } => {
                let address = (host.as_str(), *port).to_socket_addrs()?.next();
                let address = address.ok_or_else(|| io::Error::other("the host name has no address"))?;
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                (socket, SockAddr::from(address))
            }
            Endpoint::Unix(path) => {
                // Remove the socket of a process that was killed.
                if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
                    && std::os::unix::net::UnixStream::connect(path).is_err()
                {
                    std::fs::remove_file(path)?;
                }
                (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?)
            }
        };
        socket.bind(&address)?;
        if let Endpoint::Unix(path) = endpoint {
            // Before any client can connect.
            guard(path, access)?;
        }
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let file = match endpoint {
            Endpoint::Unix(path) => Some(path.clone()),
            Endpoint::Tcp { .. } | Endpoint::Systemd(_) => None,
        };
        Ok(Self { endpoint: endpoint.clone(), socket, users, _file: SocketFile(file) })
    }

    /// The endpoint on which it listens, with the port that the system chose if the config says 0.
    #[must_use]
    pub(crate) fn endpoint(&self) -> Endpoint {
        match self.socket.local_addr().ok().and_then(|a| a.as_socket()) {
            Some(address) => Endpoint::Tcp { host: address.ip().to_string(), port: address.port() },
            None => self.endpoint.clone(),
        }
    }

    /// The IP address on which it listens, if it does.
    #[must_use]
    pub(crate) fn address(&self) -> Option<IpAddr> {
        Some(self.socket.local_addr().ok()?.as_socket()?.ip())
    }

    /// The socket, for another owner that accepts from it.
    #[must_use]
    pub(crate) fn into_std(self) -> std::net::TcpListener {
        self.socket.into()
    }

    /// Accepts connections for ever, and passes them to `take`.
    ///
    /// # Errors
    /// Only if the runtime cannot watch the socket.
    pub(crate) async fn accept_all(self, mut take: impl FnMut(Accepted)) -> io::Result<()> {
        let Self { socket, endpoint, users, _file } = self;
        let listener = match socket.local_addr()?.is_unix() {
            false => SystemListener::Tcp(TcpListener::from_std(socket.into())?),
            true => SystemListener::Unix(UnixListener::from_std(socket.into())?),
        };
        loop {
            match listener.accept().await {
                Ok(accepted) => match accepted.stranger_to(users.as_deref()) {
                    None => take(accepted),
                    Some(uid) => limited_warn!(listen = %endpoint, uid, "connection refused: not in users"),
                },
                Err(error) => {
                    // A connection that was closed already, or no descriptor left: neither ends the listener.
                    limited_warn!(listen = %endpoint, %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Sets group and permissions of a Unix socket.
fn guard(path: &Path, access: &Access) -> io::Result<()> {
    if let Some(group) = &access.group {
        give_to(path, group)?;
    }
    match access.mode {
        Some(mode) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Gives a socket to a group, unless its folder has done that (setgid).
fn give_to(path: &Path, group: &str) -> io::Result<()> {
    let gid = gid(group)?;
    if std::fs::symlink_metadata(path)?.gid() == gid {
        return Ok(());
    }
    std::os::unix::fs::chown(path, None, Some(gid)).map_err(|error| {
        let folder = path.parent().unwrap_or(path).display();
        io::Error::other(format!(
            "the socket cannot be given to the group {group}: {error}. Give it a folder that does that: install -d -m 2710 -g {group} \
             {folder} (for /run/countersign, Group={group} in the unit: systemctl edit countersign)"
        ))
    })
}

fn uid(name: &str) -> io::Result<u32> {
    let found = || nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let unknown = || io::Error::other(format!("users: this machine has no user `{name}`"));
    name.parse().ok().or_else(found).ok_or_else(unknown)
}

fn gid(name: &str) -> io::Result<u32> {
    let found = || nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    let unknown = || io::Error::other(format!("group: this machine has no group `{name}`"));
    name.parse().ok().or_else(found).ok_or_else(unknown)
}

enum SystemListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl SystemListener {
    /// An accepted socket without a runtime. Its server registers it with its own runtime: a registered socket would
    /// stay with the reactor that has accepted it.
    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Accepted::Tcp(stream.into_std()?, peer)
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}

/// The path of a Unix socket. The file is removed when this is dropped.
#[derive(Debug)]
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
