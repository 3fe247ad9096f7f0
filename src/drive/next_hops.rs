//! Next hops: which of them are up, and how they are reached.
//!
//! A next hop that cannot be reached is skipped for a while, unless there is no other; `service` probes whether it is
//! back. A next hop counts as reached when it has greeted, so that a server that accepts connections only to refuse
//! them is skipped, too.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tracing::{info, warn};

use super::limited_warn;
use super::stream::{Plain, Stream};
use super::tls::{Connector, in_words};
use crate::config::{Endpoint, SendProxy};
use crate::wire::proxy_header;

/// A list of next hops, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct NextHops {
    hops: Vec<NextHop>,
    /// The client side of implicit TLS, if it is used.
    implicit: Option<Connector>,
    send_proxy: SendProxy,
    timeout: Duration,
}

#[derive(Debug)]
struct NextHop {
    endpoint: Endpoint,
    down: AtomicBool,
    /// Whether it greeted the last probe with a refusal.
    refusing: AtomicBool,
    /// Whether it greeted a session or a probe since the last round of probes.
    greeted: AtomicBool,
    /// Whether the log already says that it is busy.
    busy: AtomicBool,
    /// The number of open connections of sessions to it.
    open: Arc<AtomicUsize>,
    /// The time until its last greeting, in microseconds; 0: it has not greeted yet.
    greeting: AtomicU64,
}

/// What is known of a next hop.
#[derive(Debug)]
pub(crate) struct HopDetails<'a> {
    /// Its address.
    pub endpoint: &'a Endpoint,
    /// Whether it can be reached.
    pub is_up: bool,
    /// Whether it refuses connections in its greeting.
    pub is_refusing: bool,
    /// The time from the connection to its last greeting; `None`: it has not greeted yet.
    pub greeting: Option<Duration>,
    /// The number of open connections of sessions to it.
    pub open: usize,
}

/// Counts an open connection to a next hop, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    fn of(hop: &NextHop) -> Self {
        hop.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&hop.open))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a next hop was not reached.
#[derive(Debug)]
enum Failure {
    /// It did not accept the connection or greet in time.
    Silent(&'static str),
    /// This process lacks descriptors, ports or memory, which says nothing about the next hop.
    Ours(io::Error),
    /// The connection failed for any other reason, such as a refused port.
    Theirs(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use rustix::io::Errno;
        let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        match error.raw_os_error() {
            // The error of a Unix socket.
            Some(code) if code == Errno::AGAIN.raw_os_error() => Self::Silent("its backlog is full"),
            Some(code) if code == Errno::TIMEDOUT.raw_os_error() => Self::Silent("no connection in time"),
            Some(code) if ours.iter().any(|errno| errno.raw_os_error() == code) => Self::Ours(error),
            _ => Self::Theirs(error),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(what) => f.write_str(what),
            Self::Ours(error) | Self::Theirs(error) => error.fmt(f),
        }
    }
}

/// The addresses of a client's connection, for a PROXY header.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProxyAddresses {
    /// The client's address; `None`: the connection is not for a client.
    pub source: Option<SocketAddr>,
    /// The address to which the client has connected.
    pub destination: Option<SocketAddr>,
}

/// A next hop that has greeted.
#[derive(Debug)]
pub(crate) struct Reached {
    /// The connection, encrypted where the config asks for TLS from the first octet.
    pub stream: Stream,
    /// The beginning of its greeting.
    pub first: Vec<u8>,
    /// Its host name or address, for TLS; empty for a Unix socket.
    pub host: String,
    /// The endpoint of the next hop, for logs.
    pub name: String,
    /// Whether the connection is encrypted from the first octet.
    pub encrypted: bool,
    /// Counts the connection as long as it is open.
    pub in_use: OpenConnection,
}

impl NextHops {
    /// These next hops, with a timeout for each connection and its greeting.
    #[must_use]
    pub(crate) fn new(
        hops: &[Endpoint],
        implicit: Option<Connector>,
        send_proxy: SendProxy,
        timeout: Duration,
    ) -> Self {
        let hop = |endpoint: &Endpoint| NextHop {
            endpoint: endpoint.clone(),
            down: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            greeted: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            open: Arc::default(),
            greeting: AtomicU64::new(0),
        };
        Self { hops: hops.iter().map(hop).collect(), implicit, send_proxy, timeout }
    }

    /// The longest time that [`NextHops::reach`] may take.
    #[must_use]
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.saturating_mul(u32::try_from(self.hops.len()).unwrap_or(u32::MAX)) + Duration::from_secs(1)
    }

    /// Whether at least one of them is up, as far as is known.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        self.hops.iter().any(|hop| !hop.down.load(Ordering::Relaxed) && !hop.refusing.load(Ordering::Relaxed))
    }

    /// Each next hop, whether it is up, and whether it refuses connections in its greeting.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&Endpoint, bool, bool)> {
        self.hops
            .iter()
            .map(|hop| (&hop.endpoint, !hop.down.load(Ordering::Relaxed), hop.refusing.load(Ordering::Relaxed)))
    }

    /// What is known of each next hop.
    pub(crate) fn details(&self) -> impl Iterator<Item = HopDetails<'_>> {
        self.hops.iter().map(|hop| HopDetails {
            endpoint: &hop.endpoint,
            is_up: !hop.down.load(Ordering::Relaxed),
            is_refusing: hop.refusing.load(Ordering::Relaxed),
            greeting: Some(hop.greeting.load(Ordering::Relaxed)).filter(|time| *time > 0).map(Duration::from_micros),
            open: hop.open.load(Ordering::Relaxed),
        })
    }

    /// The next hops that are down.
    #[must_use]
    pub(crate) fn down(&self) -> Vec<&Endpoint> {
        self.hops.iter().filter(|hop| hop.down.load(Ordering::Relaxed)).map(|hop| &hop.endpoint).collect()
    }

    /// Connects to the first next hop that can be reached and greets with 220. If none does, returns the last one that
    /// has sent another greeting.
    ///
    /// # Errors
    /// None can be reached: the last error, and the next hop that it is about.
    pub(crate) async fn reach(&self, passed: ProxyAddresses) -> Result<Reached, String> {
        let (up, down): (Vec<&NextHop>, Vec<&NextHop>) =
            self.hops.iter().partition(|hop| !hop.down.load(Ordering::Relaxed));
        let mut unfriendly = None;
        let mut failure = String::new();
        for hop in up.into_iter().chain(down) {
            match self.try_one(hop, passed).await {
                Ok(reached) if reached.first.starts_with(b"220") => {
                    self.answers(hop);
                    return Ok(reached);
                }
                // It is up, but refuses all connections now, or this client.
                Ok(reached) => {
                    let greeting = String::from_utf8_lossy(&reached.first).trim_end().to_owned();
                    limited_warn!(next_hop = %hop.endpoint, greeting, "next hop refused the connection in its greeting");
                    unfriendly = Some(reached);
                }
                Err(error) => {
                    self.failed(hop, &error);
                    failure = format!("{}: {error}", hop.endpoint);
                }
            }
        }
        unfriendly.ok_or(failure)
    }

    /// Probes whether the next hops that are down are back. `all`: also those that have greeted nobody since the last
    /// such round.
    pub(crate) async fn probe(&self, all: bool) {
        for hop in &self.hops {
            let has_greeted = all && hop.greeted.swap(false, Ordering::Relaxed);
            let is_well = !hop.down.load(Ordering::Relaxed) && !hop.refusing.load(Ordering::Relaxed);
            if is_well && (has_greeted || !all) {
                continue;
            }
            match self.try_one(hop, ProxyAddresses::default()).await {
                Ok(reached) => self.probed(hop, reached).await,
                Err(error) => self.failed(hop, &error),
            }
        }
    }

    async fn probed(&self, hop: &NextHop, mut reached: Reached) {
        let greets = reached.first.starts_with(b"220");
        if greets {
            self.answers(hop);
        } else if !hop.refusing.swap(true, Ordering::Relaxed) {
            let greeting = String::from_utf8_lossy(&reached.first).trim_end().to_owned();
            warn!(next_hop = %hop.endpoint, greeting, "next hop refuses connections in its greeting");
        }
        let quit = poll_fn(|cx| reached.stream.poll_write(cx, b"QUIT\r\n"));
        let _ = tokio::time::timeout(Duration::from_secs(1), quit).await;
    }

    fn answers(&self, hop: &NextHop) {
        hop.busy.store(false, Ordering::Relaxed);
        hop.greeted.store(true, Ordering::Relaxed);
        if hop.refusing.swap(false, Ordering::Relaxed) {
            info!(next_hop = %hop.endpoint, "next hop accepts connections again");
        }
        if hop.down.swap(false, Ordering::Relaxed) {
            info!(next_hop = %hop.endpoint, "next hop is back");
        }
    }

    /// Records a failed attempt. A next hop that serves sessions of this process and does not greet another one is
    /// busy, not down.
    fn failed(&self, hop: &NextHop, failure: &Failure) {
        let sessions = hop.open.load(Ordering::Relaxed);
        match failure {
            Failure::Ours(error) => {
                limited_warn!(next_hop = %hop.endpoint, %error, "this process cannot connect to its next hop");
            }
            Failure::Silent(_) if sessions > 0 => {
                if !hop.busy.swap(true, Ordering::Relaxed) {
                    warn!(next_hop = %hop.endpoint, sessions, "next hop is busy: it does not greet another session (process limit?)");
                }
            }
            Failure::Silent(_) | Failure::Theirs(_) => {
                if !hop.down.swap(true, Ordering::Relaxed) {
                    warn!(next_hop = %hop.endpoint, error = %failure, "next hop cannot be reached");
                }
            }
        }
    }

    async fn try_one(&self, hop: &NextHop, passed: ProxyAddresses) -> Result<Reached, Failure> {
        let (accepted, begun) = (AtomicBool::new(false), Instant::now());
        match tokio::time::timeout(self.timeout, self.connect(hop, passed, &accepted)).await {
            Ok(connected) => {
                let reached = connected?;
                let time = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                hop.greeting.store(time.max(1), Ordering::Relaxed);
                Ok(reached)
            }
            Err(_) if accepted.into_inner() => Err(Failure::Silent("it did not greet in time")),
            Err(_) => Err(Failure::Silent("no connection in time")),
        }
    }

    async fn connect(&self, hop: &NextHop, passed: ProxyAddresses, accepted: &AtomicBool) -> io::Result<Reached> {
        let endpoint = &hop.endpoint;
        let mut plain = Plain::connect(endpoint).await?;
        accepted.store(true, Ordering::Relaxed);
        let header = match self.send_proxy {
            SendProxy::Off => Vec::new(),
            SendProxy::V1 => proxy_header::v1(passed.source, passed.destination),
            SendProxy::V2 => proxy_header::v2(passed.source, passed.destination),
        };
        if !header.is_empty() {
            plain.write_all(&header).await?;
        }
        let host = match endpoint {
            Endpoint::Tcp { host, .. } => host.clone(),
            Endpoint::Unix(_) | Endpoint::Systemd(_) => String::new(),
        };
        let mut stream = match &self.implicit {
            Some(tls) => {
                tls.connect(&host, plain).await.map_err(|error| io::Error::new(error.kind(), in_words(&error)))?
            }
            None => Stream::Plain(plain),
        };
        let mut first = Vec::new();
        while first.len() < 3 {
            let mut buffer = [0; 512];
            let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
            if n == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed without a greeting"));
            }
            first.extend_from_slice(buffer.get(..n).unwrap_or_default());
        }
        let (name, encrypted, in_use) = (endpoint.to_string(), self.implicit.is_some(), OpenConnection::of(hop));
        Ok(Reached { stream, first, host, name, encrypted, in_use })
    }
}
