//! The connection to an MTA. Changes are buffered until the verdict after them, and are sent with it in one packet. The
//! length and duration of input is limited, because the library would accept a megabyte at a time and wait for two
//! hours.
//!
//! If changes were written one by one over TCP, each would wait for the acknowledgement of the one before it, which the
//! MTA delays: 44 ms per message (Nagle's algorithm and delayed acknowledgements).

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::drive::connection_slots::ConnectionSlot;
use crate::drive::limited_warn;
use crate::drive::stream::Plain;

/// Replies that change a message. After them, the MTA reads on until another reply comes (SMFIR_* in `mfdef.h`).
const CHANGES: &[u8] = b"+2-bmhieq";
/// Output of more than this many octets is written in any case.
const MAX_OUTPUT: usize = 64 << 10;

/// The longest frame, in octets: MTAs split bodies after 64 KiB, and headers after a little more (Postfix:
/// `header_size_limit`, 100 KiB).
const MAX_FRAME: usize = 256 << 10;
/// The longest frame of macros, in octets. Macros are a few words each.
const MAX_MACROS: usize = 8 << 10;

/// The position in a stream of frames: each has four octets of length, one octet that says what it is, and the rest.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    rest: usize,
    begun: bool,
    /// Whether a message is open: between MAIL and its end, or its abort.
    in_message: bool,
}

impl Frames {
    /// Follows input, and returns whether a frame has ended in it. The error is a frame length that is out of range.
    fn follow(&mut self, mut octets: &[u8]) -> Result<bool, usize> {
        let mut ended = false;
        while let Some((&octet, more)) = octets.split_first() {
            self.begun = true;
            if self.rest > 0 {
                let taken = self.rest.min(octets.len());
                self.rest -= taken;
                ended |= self.rest == 0;
                octets = octets.get(taken..).unwrap_or_default();
                continue;
            }
            self.head.push(octet);
            octets = more;
            if let [a, b, c, d, kind] = *self.head.as_slice() {
                self.head.clear();
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                // A frame of length 0 has no octet that says what it is.
                if length == 0 || length > if kind == b'D' { MAX_MACROS } else { MAX_FRAME } {
                    return Err(length);
                }
                self.rest = length.saturating_sub(1);
                match kind {
                    b'M' => self.in_message = true,
                    // SMFIC_ABORT, SMFIC_BODYEOB, and the ends of a connection.
                    b'A' | b'E' | b'Q' | b'K' => self.in_message = false,
                    _ => {}
                }
                ended |= self.rest == 0;
            }
        }
        Ok(ended)
    }

    /// Whether the stream is between two frames. The MTA may then be silent for as long as its client is.
    fn is_between(&self) -> bool {
        self.begun && self.rest == 0 && self.head.is_empty()
    }

    /// Whether the stream is between two messages: nothing is lost if the connection is closed.
    fn is_idle(&self) -> bool {
        !self.in_message && self.rest == 0 && self.head.is_empty()
    }
}

/// Timeouts for frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameTimeouts {
    /// For the first frame, and for the rest of an incomplete frame.
    pub frame: Duration,
    /// For the next frame, while no message is open.
    pub idle: Duration,
}

/// A connection that buffers changes until the verdict.
#[derive(Debug)]
pub(super) struct BufferedConnection {
    plain: Plain,
    out: Vec<u8>,
    frames: Frames,
    slot: Arc<ConnectionSlot>,
    patience: FrameTimeouts,
    timer: Pin<Box<Sleep>>,
    /// When the incomplete frame began.
    since: Option<Instant>,
    /// When the last input came.
    heard: Instant,
    /// The gauge of open sessions, in which this connection counts.
    open: Gauge,
}

impl BufferedConnection {
    pub(super) fn new(plain: Plain, slot: Arc<ConnectionSlot>, patience: FrameTimeouts, open: Gauge) -> Self {
        open.inc();
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + patience.frame));
        Self {
            plain,
            out: Vec::new(),
            frames: Frames::default(),
            slot,
            patience,
            timer,
            since: Some(now),
            heard: now,
            open,
        }
    }

    /// An error if a frame is incomplete for too long, if the MTA is idle for too long, or if another connection needs
    /// the slot.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.frames.is_idle() {
            self.slot.idle(cx);
            if self.slot.is_given_up() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let until = match self.since {
            Some(since) => since + self.patience.frame,
            None if self.frames.is_idle() => self.heard + self.patience.idle,
            // The library limits the duration of a message.
            None => return Poll::Pending,
        };
        while self.timer.as_mut().poll(cx).is_ready() {
            if until <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(until);
        }
        Poll::Pending
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

impl Drop for BufferedConnection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Whether the last of these frames (a length of four octets, then that many octets) changes a message, so that more
/// will follow.
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

impl AsyncRead for BufferedConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.plain).poll_read(cx, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending => return self.poll_patience(cx),
        }
        self.slot.busy();
        self.heard = Instant::now();
        let come = buffer.filled().get(before..).unwrap_or_default();
        let ended = match self.frames.follow(come) {
            Ok(ended) => ended,
            Err(length) => {
                limited_warn!(length, "closing a milter connection: frame length out of range");
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        };
        self.since = match self.since.filter(|_| !ended) {
            _ if self.frames.is_between() => None,
            Some(since) => Some(since),
            None => Some(Instant::now()),
        };
        // Sendmail writes macros and the command after them separately, and Nagle's algorithm delays the second until
        // the first is acknowledged.
        self.plain.acknowledge_at_once();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BufferedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() > MAX_OUTPUT {
            ready!(self.poll_drain(cx))?;
        }
        self.out.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() <= MAX_OUTPUT && is_waiting(&self.out) {
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

    fn corked(here: std::os::unix::net::UnixStream, patience: FrameTimeouts) -> BufferedConnection {
        let slot = crate::drive::connection_slots::ConnectionSlots::new(1).take().unwrap();
        BufferedConnection::new(Accepted::Unix(here).into_plain().unwrap(), slot, patience, Gauge::default())
    }

    #[tokio::test(start_paused = true)]
    async fn an_mta_without_a_message_is_not_waited_for_for_ever() {
        use tokio::io::AsyncReadExt as _;
        let message = [frame(b"O\0\0\0\x06"), frame(b"M<a@b.example>\0")].concat();
        for (sent, late) in
            [(frame(b"O\0\0\0\x06"), true), (message.clone(), false), ([message, frame(b"A")].concat(), true)]
        {
            let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
            io::Write::write_all(&mut there, &sent).unwrap();
            let mut corked =
                corked(here, FrameTimeouts { frame: Duration::from_secs(9), idle: Duration::from_secs(90) });
            let mut buffer = vec![0; sent.len() + 1];
            let read = tokio::time::timeout(Duration::from_secs(200), corked.read_exact(&mut buffer)).await;
            let timed_out = matches!(&read, Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut);
            assert_eq!(timed_out, late, "{sent:?}: {read:?}");
        }
    }

    #[test]
    fn changes_wait_and_verdicts_do_not() {
        for (frames, waiting) in [
            (vec![], false),
            (frame(b"c"), false),
            (frame(b"e<ann@our.example>\0"), true),
            ([frame(b"e<a@b>\0"), frame(b"hA\0b\0")].concat(), true),
            ([frame(b"e<a@b>\0"), frame(b"c")].concat(), false),
            // An incomplete frame cannot be interpreted, and is sent.
            (frame(b"hA\0b\0")[..6].to_vec(), false),
        ] {
            assert_eq!(is_waiting(&frames), waiting, "{frames:?}");
        }
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let good = [frame(b"O\0\0\0\x06"), frame(&[b'B'; 65_536]), frame(b"DMi\x001\0"), frame(b"Q")].concat();
        for size in [1, 3, 5, 70_000] {
            let mut frames = Frames::default();
            assert!(!frames.is_between());
            for piece in good.chunks(size) {
                let ended = frames.follow(piece).unwrap();
                assert!(ended || size < good.len());
            }
            assert!(frames.is_between(), "{size}");
            assert!(!frames.follow(b"\0\0").unwrap());
            assert!(!frames.is_between());
        }
        assert_eq!(Frames::default().follow(&frame(&[b'D'; MAX_MACROS + 1])), Err(MAX_MACROS + 1));
        assert_eq!(Frames::default().follow(b"\xff\xff\xff\xffL"), Err(0xffff_ffff));
        for head in [&b"\0\0\0\0"[..], b"\0\0\0\0L"] {
            let refused = Frames::default().follow(head) == Err(0);
            assert_eq!(refused, head.len() == 5, "a piece of no octets is seen with the next one's first octet");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_frame_is_not_waited_for_for_ever() {
        use tokio::io::AsyncReadExt as _;
        for (sent, late) in [(&b""[..], true), (b"\0\0\0\x02O", true), (b"\0\0\0\x01O", false)] {
            let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
            io::Write::write_all(&mut there, sent).unwrap();
            let patience = FrameTimeouts { frame: Duration::from_secs(9), idle: Duration::from_secs(90) };
            let mut corked = corked(here, patience);
            let mut buffer = [0; 6];
            let read = tokio::time::timeout(patience.frame * 3, corked.read_exact(&mut buffer)).await;
            let timed_out = matches!(&read, Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut);
            assert_eq!(timed_out, late, "{sent:?}: {read:?}");
        }
    }

    #[tokio::test]
    async fn all_of_a_verdict_is_one_write() {
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        there.set_nonblocking(true).unwrap();
        let mut corked = corked(here, FrameTimeouts { frame: Duration::from_secs(9), idle: Duration::from_secs(90) });
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
