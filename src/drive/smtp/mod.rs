//! One SMTP session: a client, a next hop, and `wire`'s machine between them, in one task.
//!
//! All that can be done is done on each wake-up and written once: what arrives together leaves together. Nothing is
//! buffered while the session waits.

mod answers;
mod drain;

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{info, warn};

use self::drain::Drain;
use super::pool;
use super::shared::{Door, Room, Shared};
use super::stream::Stream;
use crate::config::{Role, StrayNewline};
use crate::envelope::rules::Route;
use crate::envelope::tag::masked_text;
use crate::wire::smtp::session::{Direction, Event, Session, Settings};

/// Above this much unwritten output for one side, the other is not read.
const BACKLOG: usize = 64 << 10;
/// How long a client may take to read its last reply.
const LINGER: Duration = Duration::from_secs(2);
/// How much a client that was shown the door may still say.
const LINGER_OCTETS: usize = 1 << 20;

type Connecting = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

/// Serves one client until it is done.
pub async fn serve(
    client: Stream,
    peer: Option<IpAddr>,
    shared: Arc<Shared>,
    door: Arc<Door>,
    drain: watch::Receiver<bool>,
) {
    let settings = Settings {
        direction: match door.listener.role {
            Role::Outbound => Direction::Outbound,
            Role::Inbound => Direction::Inbound,
        },
        reject_stray: door.listener.stray_newline == StrayNewline::Reject,
        hold: shared.config.hold,
        has_srs_next_hop: door.srs_next_hop.is_some(),
    };
    let deadline = Instant::now() + shared.config.timeouts.connect;
    let mut link = Link {
        id: shared.next_session(),
        session: Session::new(settings),
        client,
        hop: None,
        hop_is_deaf: false,
        connecting: None,
        peer,
        room: None,
        asked: String::new(),
        candidate: String::new(),
        drain: Some(Drain::new(drain)),
        timer: Box::pin(sleep_until(deadline)),
        deadline,
        closing: false,
        gone: false,
        shared,
        door,
    };
    while !link.is_over() {
        poll_fn(|cx| link.poll_step(cx)).await;
    }
    link.say_goodbye().await;
}

struct Link {
    id: u64,
    session: Session,
    client: Stream,
    hop: Option<Stream>,
    /// Writing to the next hop has failed; it is read to its end.
    hop_is_deaf: bool,
    connecting: Option<Connecting>,
    peer: Option<IpAddr>,
    room: Option<Room>,
    /// The recipient last asked about, as logs show it.
    asked: String,
    /// The recipient whose content decides, as logs show it.
    candidate: String,
    drain: Option<Drain>,
    timer: Pin<Box<Sleep>>,
    /// When somebody has been silent for too long. The timer may fire earlier and is then set again.
    deadline: Instant,
    /// The machine has ended the session; its last words are still to be written.
    closing: bool,
    /// The client's connection is of no more use.
    gone: bool,
    shared: Arc<Shared>,
    door: Arc<Door>,
}

impl Link {
    fn is_over(&self) -> bool {
        self.gone || (self.closing && self.session.to_client.is_empty())
    }

    /// Does what can be done; ready when anything was.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pool::lend(&mut self.session.to_client);
        pool::lend(&mut self.session.to_hop);
        self.act(cx);
        let mut moved = self.poll_write_both(cx);
        if !self.closing {
            moved |= self.poll_hop(cx);
            moved |= self.poll_client(cx);
        }
        self.act(cx);
        moved |= self.poll_write_both(cx);
        pool::give_back(&mut self.session.to_client);
        pool::give_back(&mut self.session.to_hop);
        if moved {
            self.deadline = Instant::now() + self.patience();
            if self.deadline < self.timer.deadline() {
                self.timer.as_mut().reset(self.deadline);
            }
        }
        // Only before it really waits: most steps are followed by another.
        moved = moved || self.poll_timer(cx) || (!self.closing && self.poll_drain(cx));
        if moved || self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How long to wait, given whose turn it is.
    fn patience(&self) -> Duration {
        let timeouts = &self.shared.config.timeouts;
        if self.session.is_opening() {
            timeouts.connect
        } else if self.session.waits_for_hop() || !self.session.to_hop.is_empty() {
            timeouts.next_hop
        } else {
            timeouts.command
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        if Instant::now() < self.deadline {
            let deadline = self.deadline;
            self.timer.as_mut().reset(deadline);
            return true;
        }
        if self.closing {
            self.gone = true;
        } else if self.connecting.is_some() || self.session.waits_for_hop() || !self.session.to_hop.is_empty() {
            warn!(session = self.id, next_hop = %self.door.listener.next_hop, "the next hop owed an answer for too long");
            self.session.hop_timeout();
        } else {
            info!(session = self.id, "the client was silent for too long");
            self.session.client_timeout();
        }
        self.deadline = Instant::now() + self.patience();
        true
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> bool {
        let draining = self.drain.as_mut().is_some_and(|drain| drain.has_come(cx));
        if draining {
            self.drain = None;
            self.session.drain();
        }
        draining
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.session.wants_client() || self.session.to_hop.len() > BACKLOG || self.session.to_client.len() > BACKLOG
        {
            return false;
        }
        let size = if self.session.in_body() { pool::READ } else { 4096 };
        pool::with_read_buffer(|buffer| {
            let buffer = buffer.get_mut(..size).unwrap_or_default();
            match self.client.poll_read(cx, buffer) {
                Poll::Pending => false,
                Poll::Ready(Ok(0)) => {
                    self.session.client_eof();
                    true
                }
                Poll::Ready(Err(_)) => {
                    self.session.client_lost();
                    self.gone = true;
                    self.act(cx);
                    true
                }
                Poll::Ready(Ok(n)) => {
                    self.session.client_data(buffer.get(..n).unwrap_or_default());
                    true
                }
            }
        })
    }

    fn poll_hop(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(connecting) = &mut self.connecting {
            let Poll::Ready(connected) = connecting.as_mut().poll(cx) else { return false };
            self.connecting = None;
            match connected {
                Ok(stream) => {
                    self.hop = Some(stream);
                    self.hop_is_deaf = false;
                    self.session.hop_connected();
                }
                Err(error) => {
                    warn!(session = self.id, next_hop = %self.door.listener.next_hop, %error, "next hop cannot be reached");
                    self.session.hop_failed();
                }
            }
            return true;
        }
        if self.session.to_client.len() > BACKLOG {
            return false;
        }
        let Some(hop) = &mut self.hop else { return false };
        let session = &mut self.session;
        let read = pool::with_read_buffer(|buffer| {
            let read = hop.poll_read(cx, buffer);
            if let Poll::Ready(Ok(n)) = read {
                session.hop_data(buffer.get(..n).unwrap_or_default());
            }
            read
        });
        match read {
            Poll::Pending => false,
            Poll::Ready(Ok(n)) if n > 0 => true,
            Poll::Ready(_) => {
                self.hop = None;
                self.session.hop_eof();
                true
            }
        }
    }

    fn poll_write_both(&mut self, cx: &mut Context<'_>) -> bool {
        let (hop_moved, hop_open) = match &mut self.hop {
            Some(_) if self.hop_is_deaf => (false, true),
            Some(hop) => write_out(hop, &mut self.session.to_hop, cx),
            None => (false, true),
        };
        if !hop_open {
            // It may have said why before it closed: what it said is still to be read, and then its end.
            self.hop_is_deaf = true;
        }
        let (client_moved, client_open) = write_out(&mut self.client, &mut self.session.to_client, cx);
        if !client_open && !self.gone {
            self.session.client_lost();
            self.gone = true;
        }
        hop_moved || client_moved || !hop_open || !client_open
    }

    /// Acts on what the machine wants done.
    fn act(&mut self, cx: &mut Context<'_>) {
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Ask(ask) => self.answer(ask),
                Event::Open(route) => self.connecting = Some(self.connect(route)),
                Event::CloseHop => {
                    if let Some(mut hop) = self.hop.take() {
                        let _ = write_out(&mut hop, &mut self.session.to_hop, cx);
                    }
                    self.connecting = None;
                    self.session.to_hop.clear();
                }
                Event::CloseClient => self.closing = true,
                Event::Refused { command, reply } => {
                    let reply = masked_text(&reply);
                    info!(session = self.id, client = self.who(), event = "next-hop", command, reply);
                }
                Event::OwnTransaction => {
                    let (action, reason) = ("defer", "own-transaction");
                    info!(session = self.id, client = self.who(), event = "recipient", to = self.asked, action, reason);
                }
                Event::Finished(finished) => self.log_finished(&finished),
            }
        }
        if !self.session.is_holding() {
            self.room = None;
        }
    }

    fn connect(&self, route: Route) -> Connecting {
        let to = match (route, &self.door.srs_next_hop) {
            (Route::SrsNextHop, Some(srs_next_hop)) => srs_next_hop.clone(),
            (Route::SrsNextHop | Route::NextHop, _) => self.door.listener.next_hop.clone(),
        };
        Box::pin(async move { Stream::connect(&to).await })
    }

    /// Lets the client read its last reply: closing with unread input would take it away.
    async fn say_goodbye(mut self) {
        if self.gone {
            return;
        }
        let farewell = async {
            poll_fn(|cx| self.client.poll_shutdown(cx)).await?;
            let mut left = LINGER_OCTETS;
            while left > 0 {
                match poll_fn(|cx| pool::with_read_buffer(|buffer| self.client.poll_read(cx, buffer))).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

/// Says one thing to a connection that is not served, and closes it.
///
/// # Errors
/// As the system says.
pub async fn refuse(mut client: Stream, text: &str) -> io::Result<()> {
    let mut text = text.as_bytes();
    while !text.is_empty() {
        let n = poll_fn(|cx| client.poll_write(cx, text)).await?;
        text = text.get(n..).unwrap_or_default();
    }
    poll_fn(|cx| client.poll_shutdown(cx)).await
}

/// Writes what goes. Says whether anything did, and whether the connection still stands.
fn write_out(stream: &mut Stream, octets: &mut Vec<u8>, cx: &mut Context<'_>) -> (bool, bool) {
    let mut written = 0;
    let mut open = true;
    while let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.poll_write(cx, rest) {
            Poll::Ready(Ok(n)) if n > 0 => written += n,
            Poll::Ready(_) => {
                open = false;
                break;
            }
            Poll::Pending => break,
        }
    }
    octets.drain(..written);
    (written > 0, open)
}
