//! A listener for a few brief connections, so that a client that opens many, or keeps one open, cannot block the
//! others.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// Maximum number of connections; another one closes the oldest of the busiest client.
const CONNECTIONS: usize = 32;
/// Time limit for the head of a request.
const HEAD: Duration = Duration::from_secs(2);
/// Time limit for a whole connection.
const LASTS: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for example when no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts brief connections.
#[derive(Debug)]
pub(super) struct CappedListener {
    listener: TcpListener,
    /// Open connections, the oldest first. Dropping a sender closes its connection.
    open: VecDeque<(IpAddr, oneshot::Sender<()>)>,
}

impl CappedListener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, open: VecDeque::with_capacity(CONNECTIONS) }
    }

    /// Makes room for another connection: closes the oldest one of the address with the most connections.
    fn admit(&mut self, address: IpAddr) -> oneshot::Receiver<()> {
        self.open.retain(|(_, connection)| !connection.is_closed());
        if self.open.len() >= CONNECTIONS {
            let count = |address: &IpAddr| self.open.iter().filter(|(other, _)| other == address).count();
            // Of several addresses with the most, the one with the oldest connection.
            let most = self.open.iter().rev().map(|(address, _)| *address).max_by_key(count);
            let oldest = self.open.iter().position(|(address, _)| Some(*address) == most);
            oldest.and_then(|at| self.open.remove(at));
        }
        let (keeps, kept) = oneshot::channel();
        self.open.push_back((address, keeps));
        kept
    }
}

impl Listener for CappedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let (ends, last) = (Box::pin(sleep(HEAD)), Some(Instant::now() + LASTS));
                    let (kept, head) = (self.admit(address.ip()), Vec::new());
                    return (Connection { stream, ends, last, kept, over: false, head }, address);
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with time limits.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    ends: Pin<Box<Sleep>>,
    /// Time limit for the connection once the head of a request is read; `None` if it is.
    last: Option<Instant>,
    /// Ready when the connection has to make room for another.
    kept: oneshot::Receiver<()>,
    over: bool,
    /// The last octets that were read, until the head of the request is there.
    head: Vec<u8>,
}

impl Connection {
    /// Once the head of a request is there, its answer may take until the last time limit.
    fn has_read(&mut self, octets: &[u8]) {
        if self.last.is_none() {
            return;
        }
        self.head.extend_from_slice(octets);
        let is_whole = self.head.windows(4).any(|four| four == b"\r\n\r\n");
        self.head.drain(..self.head.len().saturating_sub(3));
        if let Some(last) = self.last.take_if(|_| is_whole) {
            self.ends.as_mut().reset(last);
        }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.over = self.over || self.ends.as_mut().poll(cx).is_ready() || Pin::new(&mut self.kept).poll(cx).is_ready();
        self.over
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.has_read(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(last) = self.last.take() {
            self.ends.as_mut().reset(last);
        }
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_makes_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut brief = CappedListener::new(listener);
        let (mut clients, mut connections) = (Vec::new(), Vec::new());
        for _ in 0..=CONNECTIONS {
            clients.push(TcpStream::connect(address).await.unwrap());
            connections.push(brief.accept().await.0);
        }
        let begun = Instant::now();
        // The oldest connection has made room for the last one; the others end at the time limit for the head of a
        // request.
        assert_eq!(connections[0].read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < HEAD);
        assert_eq!(connections[1].read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= HEAD && begun.elapsed() < LASTS);
        connections.clear();
        drop(brief.admit([127, 0, 0, 1].into()));
        assert_eq!(brief.open.len(), 1, "what has ended takes no room");
    }

    #[tokio::test]
    async fn who_opens_many_ends_its_own() {
        let mut brief = CappedListener::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let mut health = brief.admit([192, 0, 2, 1].into());
        let others: Vec<_> = (0..10 * CONNECTIONS).map(|_| brief.admit([192, 0, 2, 2].into())).collect();
        assert!(health.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty), "it still stands");
        assert_eq!((brief.open.len(), others.len()), (CONNECTIONS, 10 * CONNECTIONS));
    }
}
