//! One SMTP session: a client, a next hop, and the machine of `wire` between them, in one task.
//!
//! This file has the beginning and the end: the client's address, implicit TLS, and the last reply. The session itself
//! is in `proxy_session`.

mod answers;
mod deadlines;
mod events;
mod handshakes;
mod proxy_session;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::proxy_session::{ConnectedClient, ProxySession};
use super::app_state::AppState;
use super::buffers;
use super::connection_limit::CountedConnection;
use super::next_hops::ProxyAddresses;
use super::proxy_listener::ProxyListener;
use super::stream::{Plain, Stream};
use super::{limited, limited_warn};
use crate::config::{ProxyUnknown, TlsMode};
use crate::wire::proxy_header::{self, Source};
use crate::wire::smtp::identity::Identity;
use crate::wire::smtp::replies::{NOT_YOUR_SERVER, OwnReply, TOO_MANY_FROM_NETWORK};

/// How long a client may take to read its last reply.
const LINGER: Duration = Duration::from_secs(2);
/// The most octets that are read from a client after its last reply.
const LINGER_OCTETS: usize = 1 << 20;

/// Serves one client until its session ends.
pub(crate) async fn serve(
    client: Plain,
    peer: Option<SocketAddr>,
    app: Arc<AppState>,
    proxy_listener: Arc<ProxyListener>,
    drain: CancellationToken,
) {
    let Some((client, address)) = read_proxy_header(client, peer, &app, &proxy_listener).await else { return };
    let destination = client.local_address();
    let caller = match admit(address, &app, &proxy_listener) {
        Ok(counted) => ConnectedClient {
            address,
            passed: ProxyAddresses { source: address, destination },
            trusted: proxy_listener.listener.trusted_proxies.contains(ip(address)),
            counted,
        },
        Err(reply) => return refuse(client, address, reply, &proxy_listener).await,
    };
    let implicit = proxy_listener.listener.tls == TlsMode::Implicit;
    let client = match proxy_listener.acceptor.as_ref().filter(|_| implicit) {
        None => Stream::Plain(client),
        Some(acceptor) => match tokio::time::timeout(app.config().timeouts.connect, acceptor.accept(client)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return limited!(info, client = %ip(address), %error, "TLS handshake failed"),
            Err(_) => return limited!(info, client = %ip(address), "TLS handshake took too long"),
        },
    };
    let identity = caller.address.map(|address| Identity::of(address.ip(), address.port()));
    let settings = proxy_listener.settings(&app.config(), implicit, caller.trusted);
    let mut session = ProxySession::new(client, caller, settings, identity, app, proxy_listener, drain);
    session.evaluator.is_spared = session.client_is_spared();
    while !session.is_over() {
        poll_fn(|cx| session.poll_step(cx)).await;
        if session.turn_is_over() {
            tokio::task::yield_now().await;
        }
    }
    if let Some(client) = session.into_client() {
        say_goodbye(client).await;
    }
}

/// The client's address for comparison with networks. A client of a Unix socket counts as 127.0.0.1.
fn ip(address: Option<SocketAddr>) -> IpAddr {
    address.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

/// Reads the PROXY header, if the listener expects one from this peer. Returns the connection and the client's address.
/// `None`: there is no valid header.
async fn read_proxy_header(
    mut client: Plain,
    peer: Option<SocketAddr>,
    app: &AppState,
    proxy_listener: &ProxyListener,
) -> Option<(Plain, Option<SocketAddr>)> {
    if !proxy_listener.listener.accept_proxy || !proxy_listener.listener.trusted_proxies.contains(ip(peer)) {
        return Some((client, peer));
    }
    let read = tokio::time::timeout(app.config().timeouts.connect, read_header(&mut client));
    let read = read.await.unwrap_or_else(|_| Err("its PROXY header did not come in time".into()));
    let unknown_is_proxy = proxy_listener.listener.proxy_unknown == ProxyUnknown::Proxy;
    let address = read.and_then(|source| match source {
        Source::Client(address) => Ok(Some(address)),
        Source::Proxy => Ok(peer),
        Source::Unknown if unknown_is_proxy => Ok(peer),
        Source::Unknown => {
            Err("its PROXY header does not say who the client is; if it is a health check, see proxy_unknown"
                .to_owned())
        }
    });
    match address {
        Ok(address) => Some((client, address)),
        Err(error) => {
            limited_warn!(proxy = %ip(peer), listen = %proxy_listener.listener.listen, error, "a trusted proxy's connection is refused");
            None
        }
    }
}

async fn read_header(client: &mut Plain) -> Result<Source, String> {
    let mut head = Vec::with_capacity(64);
    loop {
        let missing = proxy_header::missing(&head).map_err(|error| error.to_string())?;
        if missing == 0 {
            return proxy_header::parse(&head).map_err(|error| error.to_string());
        }
        let at = head.len();
        head.resize(at + missing, 0);
        let part = head.get_mut(at..).unwrap_or_default();
        client.read_exact(part).await.map_err(|error| error.to_string())?;
    }
}

/// Whether the client may connect. The error is the reply if it may not.
fn admit(
    address: Option<SocketAddr>,
    app: &AppState,
    proxy_listener: &ProxyListener,
) -> Result<Option<CountedConnection>, OwnReply> {
    let Some(address) = address.map(|address| address.ip()) else { return Ok(None) };
    let listener = &proxy_listener.listener;
    if !listener.clients.is_empty() && !listener.clients.contains(address) {
        return Err(NOT_YOUR_SERVER);
    }
    let limit = app.config().limits.connections_per_client;
    if limit == 0 || is_known(address, proxy_listener) {
        return Ok(None);
    }
    let counted = app.clients.admit(address, limit);
    if counted.is_none() {
        app.metrics.limit("connections_per_client");
    }
    counted.map(Some).ok_or(TOO_MANY_FROM_NETWORK)
}

/// Whether the client is not a stranger: the config names it, or it is on this machine.
fn is_known(address: IpAddr, proxy_listener: &ProxyListener) -> bool {
    let listener = &proxy_listener.listener;
    address.is_loopback() || !listener.clients.is_empty() || listener.trusted_proxies.contains(address)
}

/// Sends one reply on a connection that is not served, and closes it.
pub(crate) async fn refuse(
    client: Plain,
    address: Option<SocketAddr>,
    reply: OwnReply,
    proxy_listener: &ProxyListener,
) {
    let (text, reply) = (reply.reply().text, reply.line());
    limited_warn!(client = %ip(address), listen = %proxy_listener.listener.listen, reply, "connection refused");
    // A client that begins with a handshake cannot read the reply.
    if proxy_listener.listener.tls == TlsMode::Implicit {
        return;
    }
    let mut client = Stream::Plain(client);
    let say = async {
        let mut text = text.as_slice();
        while !text.is_empty() {
            let n = poll_fn(|cx| client.poll_write(cx, text)).await?;
            text = text.get(n..).unwrap_or_default();
        }
        poll_fn(|cx| client.poll_shutdown(cx)).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, say).await {
        debug!(%error, "the last reply was not read");
    }
}

/// Lets the client read its last reply. If a connection is closed with unread input, the reply may be lost.
async fn say_goodbye(mut client: Stream) {
    let farewell = async {
        poll_fn(|cx| client.poll_shutdown(cx)).await?;
        let mut left = LINGER_OCTETS;
        while left > 0 {
            match poll_fn(|cx| buffers::with_read_buffer(|buffer| client.poll_read(cx, buffer))).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}
