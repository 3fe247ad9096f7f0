//! Next hops: which of them is up, and how one is reached.
//!
//! A next hop that cannot be reached is left out for a while, unless there is no other; `service` looks whether it is back.
//! Its greeting is waited for before it counts as reached, so that a server that accepts and says no is passed over, too.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tracing::{info, warn};

use super::stream::{Plain, Stream};
use super::tls::Connector;
use crate::config::{Endpoint, SendProxy};
use crate::wire::proxy;

/// A list of next hops, in the order in which they are tried.
#[derive(Debug)]
pub struct Hops {
    hops: Vec<Hop>,
    /// For TLS from the first octet.
    implicit: Option<Connector>,
    send_proxy: SendProxy,
    timeout: Duration,
}

#[derive(Debug)]
struct Hop {
    endpoint: Endpoint,
    down: AtomicBool,
}

/// Whose connection is passed on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    /// Where it came from; none: we speak for ourselves.
    pub source: Option<SocketAddr>,
    /// Where it went.
    pub destination: Option<SocketAddr>,
}

/// A next hop that has greeted.
#[derive(Debug)]
pub struct Reached {
    /// The connection.
    pub stream: Stream,
    /// The beginning of what it has said.
    pub first: Vec<u8>,
    /// Its host name, or its address.
    pub host: String,
    /// The same with its port, for logs.
    pub name: String,
    /// Whether it was encrypted from the first octet.
    pub encrypted: bool,
}

impl Hops {
    /// These, each waited for as long as `timeout`.
    #[must_use]
    pub fn new(hops: &[Endpoint], implicit: Option<Connector>, send_proxy: SendProxy, timeout: Duration) -> Self {
        let hop = |endpoint: &Endpoint| Hop { endpoint: endpoint.clone(), down: AtomicBool::new(false) };
        Self { hops: hops.iter().map(hop).collect(), implicit, send_proxy, timeout }
    }

    /// How long [`Hops::reach`] may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.timeout.saturating_mul(u32::try_from(self.hops.len()).unwrap_or(u32::MAX)) + Duration::from_secs(1)
    }

    /// Whether at least one of them is up, as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.hops.iter().any(|hop| !hop.down.load(Ordering::Relaxed))
    }

    /// Those that are down.
    #[must_use]
    pub fn down(&self) -> Vec<&Endpoint> {
        self.hops.iter().filter(|hop| hop.down.load(Ordering::Relaxed)).map(|hop| &hop.endpoint).collect()
    }

    /// Connects to the first that can be reached and greets with 220. Where none does, the last that said anything at all
    /// is returned with what it said.
    ///
    /// # Errors
    /// None can be reached: what the last error was, and at which.
    pub async fn reach(&self, passed: Passed) -> Result<Reached, String> {
        let (up, down): (Vec<&Hop>, Vec<&Hop>) = self.hops.iter().partition(|hop| !hop.down.load(Ordering::Relaxed));
        let mut unfriendly = None;
        let mut failure = String::new();
        for hop in up.into_iter().chain(down) {
            match self.try_one(hop, passed).await {
                Ok(reached) if reached.first.starts_with(b"220") => {
                    self.mark(hop, None);
                    return Ok(reached);
                }
                // It lives, and wants nobody now, or not this client.
                Ok(reached) => {
                    let greeting = String::from_utf8_lossy(&reached.first).trim_end().to_owned();
                    warn!(next_hop = %hop.endpoint, greeting, "next hop wants no mail now");
                    unfriendly = Some(reached);
                }
                Err(error) => {
                    self.mark(hop, Some(&error));
                    failure = format!("{}: {error}", hop.endpoint);
                }
            }
        }
        unfriendly.ok_or(failure)
    }

    /// Looks whether those that are down are back.
    pub async fn probe(&self) {
        for hop in self.hops.iter().filter(|hop| hop.down.load(Ordering::Relaxed)) {
            if let Ok(mut reached) = self.try_one(hop, Passed::default()).await {
                if reached.first.starts_with(b"220") {
                    self.mark(hop, None);
                }
                let quit = poll_fn(|cx| reached.stream.poll_write(cx, b"QUIT\r\n"));
                let _ = tokio::time::timeout(Duration::from_secs(1), quit).await;
            }
        }
    }

    fn mark(&self, hop: &Hop, error: Option<&io::Error>) {
        let was_down = hop.down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_down => warn!(next_hop = %hop.endpoint, %error, "next hop cannot be reached"),
            None if was_down => info!(next_hop = %hop.endpoint, "next hop is back"),
            _ => {}
        }
    }

    async fn try_one(&self, hop: &Hop, passed: Passed) -> io::Result<Reached> {
        let timeout = || io::Error::new(io::ErrorKind::TimedOut, "it did not greet in time");
        tokio::time::timeout(self.timeout, self.connect(&hop.endpoint, passed)).await.map_err(|_| timeout())?
    }

    async fn connect(&self, endpoint: &Endpoint, passed: Passed) -> io::Result<Reached> {
        let mut plain = Plain::connect(endpoint).await?;
        let header = match self.send_proxy {
            SendProxy::Off => Vec::new(),
            SendProxy::V1 => proxy::v1(passed.source, passed.destination),
            SendProxy::V2 => proxy::v2(passed.source, passed.destination),
        };
        if !header.is_empty() {
            plain.write_all(&header).await?;
        }
        let host = match endpoint {
            Endpoint::Tcp { host, .. } => host.clone(),
            Endpoint::Unix(_) | Endpoint::Systemd(_) => String::new(),
        };
        let mut stream = match &self.implicit {
            Some(tls) => tls.connect(&host, plain).await?,
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
        Ok(Reached { stream, first, host, name: endpoint.to_string(), encrypted: self.implicit.is_some() })
    }
}
