//! The connection to an MTA: changes wait for the verdict behind them, and all leave in one packet.
//!
//! Written one by one over TCP, each but the first would wait for the acknowledgement of the one before it, which the MTA
//! delays: 44 ms a message (Nagle's algorithm against delayed acknowledgements).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::drive::stream::Plain;

/// Replies that change a message; the MTA reads on after them until something else comes. (`mfdef.h`, SMFIR_*)
const CHANGES: &[u8] = b"+2-bmhieq";
/// More than this is written whatever it is.
const MOST: usize = 64 << 10;

/// A connection that holds changes back.
#[derive(Debug)]
pub(super) struct Corked {
    plain: Plain,
    out: Vec<u8>,
    /// Counts it among the open sessions.
    open: Gauge,
}

impl Corked {
    pub fn new(plain: Plain, open: Gauge) -> Self {
        open.inc();
        Self { plain, out: Vec::new(), open }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.plain).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..n);
        }
        Pin::new(&mut self.plain).poll_flush(cx)
    }
}

impl Drop for Corked {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Whether the last of these frames (a length of four octets, then so many) changes a message, so that more will follow.
fn is_waiting(mut frames: &[u8]) -> bool {
    let mut waiting = false;
    while let Some((length, rest)) = frames.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((frame, next)) = rest.split_at_checked(length) else { return false };
        waiting = frame.first().is_some_and(|kind| CHANGES.contains(kind));
        frames = next;
    }
    waiting
}

impl AsyncRead for Corked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.plain).poll_read(cx, buffer))?;
        // Sendmail writes macros and the command behind them one by one, and Nagle's algorithm holds the second back until the
        // first is acknowledged.
        self.plain.acknowledge_at_once();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Corked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() > MOST {
            ready!(self.poll_drain(cx))?;
        }
        self.out.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() <= MOST && is_waiting(&self.out) {
            return Poll::Ready(Ok(()));
        }
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.plain).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::drive::stream::Accepted;

    fn frame(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
    }

    #[test]
    fn changes_wait_and_verdicts_do_not() {
        for (frames, waiting) in [
            (vec![], false),
            (frame(b"c"), false),
            (frame(b"e<ann@our.example>\0"), true),
            ([frame(b"e<a@b>\0"), frame(b"hA\0b\0")].concat(), true),
            ([frame(b"e<a@b>\0"), frame(b"c")].concat(), false),
            // What is not whole is not understood, and goes.
            (frame(b"hA\0b\0")[..6].to_vec(), false),
        ] {
            assert_eq!(is_waiting(&frames), waiting, "{frames:?}");
        }
    }

    #[tokio::test]
    async fn all_of_a_verdict_is_one_write() {
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        there.set_nonblocking(true).unwrap();
        let mut corked = Corked::new(Accepted::Unix(here).into_plain().unwrap(), Gauge::default());
        for (text, arrives) in [(&b"e<a@b>\0"[..], false), (b"hA\0b\0", false), (b"c", true)] {
            corked.write_all(&frame(text)).await.unwrap();
            corked.flush().await.unwrap();
            let n = there.read(&mut [0; 100]).unwrap_or(0);
            assert_eq!(n, if arrives { 11 + 9 + 5 } else { 0 }, "{text:?}");
        }
        corked.shutdown().await.unwrap();
        assert_eq!(there.read(&mut [0; 1]).unwrap(), 0);
    }
}
