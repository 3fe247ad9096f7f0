//! The two connections of a session and the machine between them.
//!
//! Each wake-up does all work that can be done, and writes once: what arrives together is sent together. A session that
//! waits has no buffers.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::deadlines::{Deadlines, REST, TimeUp};
use crate::drive::app_state::AppState;
use crate::drive::buffers::{self, Large};
use crate::drive::connection_limit::CountedConnection;
use crate::drive::drain::Drain;
use crate::drive::evaluate::Evaluator;
use crate::drive::harvest::PendingQuery;
use crate::drive::hold_budget::HoldPermit;
use crate::drive::message_tally::MessageTally;
use crate::drive::next_hops::{OpenConnection, ProxyAddresses, Reached};
use crate::drive::prepared::Preparation;
use crate::drive::proxy_listener::ProxyListener;
use crate::drive::stream::Stream;
use crate::drive::work_budget::WorkBudget;
use crate::drive::{limited, limited_warn};
use crate::wire::message::NextHopChoice;
use crate::wire::smtp::identity::Identity;
use crate::wire::smtp::session::{Session, Settings};

/// The client of a session.
#[derive(Debug)]
pub(super) struct ConnectedClient {
    /// The client's address, if it is known.
    pub address: Option<SocketAddr>,
    /// The addresses for the PROXY header to the next hop.
    pub passed: ProxyAddresses,
    /// Whether the client may name another client (XCLIENT, XFORWARD).
    pub trusted: bool,
    /// Counts the session for the client's network.
    pub counted: Option<CountedConnection>,
}

/// If unwritten output for one side exceeds this many octets, the other side is not read.
const BACKLOG: usize = 8 << 10;
/// The longest time that the answer to a question is prepared: for others of the network, for a server, and for
/// `limits.tarpit`.
const PREPARING: Duration = Duration::from_secs(180);
/// Of so many messages of a session, the time that one takes is measured, beginning with the first.
const MEASURED: u32 = 8;
pub(super) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) struct ProxySession {
    pub evaluator: Evaluator,
    pub session: Session,
    pub caller: ConnectedClient,
    pub permit: Option<HoldPermit>,
    /// What to count when the next hop has accepted a message, oldest first.
    pub tallies: VecDeque<MessageTally>,
    /// Queries about the recipients that the next hop has not answered, oldest first. `None`: not limited.
    pub asked: VecDeque<Option<PendingQuery>>,
    pub proxy_listener: Arc<ProxyListener>,
    pub client: Stream,
    pub hop: Option<Stream>,
    /// Counts the connection to the next hop while it exists or is being secured.
    pub hop_in_use: Option<OpenConnection>,
    /// The host name of the next hop, to be verified.
    pub host: String,
    /// The name of the next hop in logs.
    pub next_hop: String,
    /// The large buffer that has the output for the next hop.
    large: Option<Large>,
    /// The longest time that connecting may take, for all next hops of the list together.
    pub reach: Duration,
    /// Whether writing to the next hop has failed. It is still read to its end.
    hop_is_deaf: bool,
    pub connecting: Option<Later<Result<Reached, String>>>,
    /// What the rules need for the answer to the open question.
    pub preparing: Option<Preparation>,
    pub securing_client: Option<Later<io::Result<Stream>>>,
    pub securing_hop: Option<Later<io::Result<Stream>>>,
    drain: Option<Drain>,
    timer: Pin<Box<Sleep>>,
    patience: Deadlines,
    turn: WorkBudget,
    /// Messages that have ended.
    messages: u32,
    /// Time spent since the last message, while it is measured.
    spent: Duration,
    /// Whether the machine has ended the session. Its last output has yet to be written.
    pub closing: bool,
    /// Whether the client's connection is lost.
    pub gone: bool,
}

impl ProxySession {
    pub(super) fn new(
        client: Stream,
        caller: ConnectedClient,
        settings: Settings,
        identity: Option<Identity>,
        app: Arc<AppState>,
        proxy_listener: Arc<ProxyListener>,
        drain: CancellationToken,
    ) -> Self {
        let reach = proxy_listener.hops(NextHopChoice::Main).patience();
        let deadline = Instant::now() + reach;
        Self {
            session: Session::new(settings, identity),
            permit: None,
            tallies: VecDeque::new(),
            asked: VecDeque::new(),
            client,
            hop: None,
            hop_in_use: None,
            host: String::new(),
            next_hop: String::new(),
            large: None,
            reach,
            hop_is_deaf: false,
            connecting: None,
            preparing: None,
            securing_client: None,
            securing_hop: None,
            drain: Some(Drain::new(&drain)),
            timer: Box::pin(sleep_until(deadline.min(Instant::now() + REST))),
            patience: Deadlines::new(deadline, app.config().limits.octets_per_second, app.config().timeouts.command),
            turn: WorkBudget::default(),
            messages: 0,
            spent: Duration::ZERO,
            closing: false,
            gone: false,
            evaluator: Evaluator::of_one_client(app, caller.address.map(|address| address.ip())),
            caller,
            proxy_listener,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.gone || (self.closing && self.session.out.to_client.is_empty())
    }

    /// The client's connection, unless it is lost.
    pub(super) fn into_client(self) -> Option<Stream> {
        (!self.gone).then_some(self.client)
    }

    /// Does all work that can be done. Ready if there was any.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Two clock readings for each step would cost more than they tell.
        let begun = self.messages.is_multiple_of(MEASURED).then(Instant::now);
        let step = self.poll_work(cx);
        if let Some(begun) = begun {
            self.spent += begun.elapsed();
        }
        step
    }

    /// The time spent on the message that has just ended, if it was measured.
    pub(super) fn time_spent(&mut self) -> Option<Duration> {
        let spent = std::mem::take(&mut self.spent);
        let is_measured = self.messages.is_multiple_of(MEASURED);
        self.messages = self.messages.wrapping_add(1);
        is_measured.then_some(spent)
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        buffers::lend(&mut self.session.out.to_client);
        buffers::lend(&mut self.session.out.to_hop);
        self.act(cx);
        let mut moved = self.poll_write_both(cx);
        if !self.closing {
            moved |= self.poll_handshakes(cx);
            moved |= self.poll_preparing(cx);
            // Input that came too early has to be seen before the reply that the client should have waited for.
            let silent = self.session.expects_silence();
            moved |= silent && self.poll_client(cx);
            moved |= self.poll_hop(cx);
            moved |= !silent && self.poll_client(cx);
        }
        moved |= self.keep_permit(cx);
        self.act(cx);
        moved |= self.poll_write_both(cx);
        buffers::give_back(&mut self.session.out.to_client);
        self.give_back_output();
        if moved {
            self.keep_time();
        }
        // Checked only before waiting, because most steps are followed by another one.
        moved = moved || self.poll_timer(cx) || (!self.closing && self.poll_drain(cx));
        if moved || self.is_over() {
            return Poll::Ready(());
        }
        self.turn.waited();
        Poll::Pending
    }

    /// Whether it is the turn of other sessions of this worker. Called after each step.
    pub(super) fn turn_is_over(&mut self) -> bool {
        self.turn.is_over()
    }

    /// The timeout for silence in the current state.
    fn wait(&self) -> Duration {
        let timeouts = &self.evaluator.app.config().timeouts;
        if self.preparing.is_some() {
            // It has time limits of its own.
            timeouts.command.max(PREPARING)
        } else if self.connecting.is_some() {
            self.reach
        } else if self.session.is_opening() || self.session.is_securing() {
            timeouts.connect
        } else if self.session.waits_for_hop() || !self.session.out.to_hop.is_empty() {
            timeouts.next_hop
        } else {
            timeouts.command
        }
    }

    fn keep_time(&mut self) {
        self.forget_given_up();
        let wait = self.wait();
        self.patience.moved(self.session.progress(), self.closing, wait);
        self.patience.transaction(self.session.transaction(), self.evaluator.app.config().timeouts.transaction);
        self.patience.body(self.session.in_message());
        self.patience.resting(self.session.can_rest());
        if self.session.waits_for_hop() {
            self.patience.held_up();
        }
        let next = self.patience.next();
        if next < self.timer.deadline() {
            self.timer.as_mut().reset(next);
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let wait = self.wait();
        match self.patience.time_up(wait) {
            None => {}
            Some(_) if self.closing => self.gone = true,
            Some(TimeUp::Silence) => self.silence(),
            Some(TimeUp::Transaction) => self.session.transaction_timeout(),
            Some(TimeUp::TooSlow) => self.session.client_too_slow(),
            Some(TimeUp::Rest) => self.session.rest(),
        }
        // Setting a timer to an earlier time costs two system calls; a timer that fires too early costs almost nothing.
        let next = self.patience.next().min(Instant::now() + REST);
        self.timer.as_mut().reset(next);
        true
    }

    fn silence(&mut self) {
        let hops_turn =
            self.connecting.is_some() || self.session.waits_for_hop() || !self.session.out.to_hop.is_empty();
        if hops_turn {
            limited_warn!(
                session = %self.evaluator.id,
                client = self.evaluator.who(),
                next_hop = self.next_hop,
                "next hop timeout: no reply for too long"
            );
            self.session.hop_timeout();
        } else {
            limited!(
                info,
                session = %self.evaluator.id,
                client = self.evaluator.who(),
                "client timeout: no progress for too long"
            );
            self.session.client_timeout();
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> bool {
        let draining = self.drain.as_mut().is_some_and(|drain| drain.has_come(cx));
        if draining {
            self.drain = None;
            self.session.drain();
        }
        draining
    }

    /// Takes room for the buffered message. Without room the session ends, and the client sends the message again
    /// later.
    fn keep_permit(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.session.is_holding() {
            // All of it was passed on. Whatever happens to its room now, the next hop's reply counts.
            self.permit = None;
        }
        let Some(permit) = &mut self.permit else { return false };
        if self.closing || (permit.grow(self.session.held()) && !permit.is_gone(cx)) {
            return false;
        }
        self.permit = None;
        self.log_no_room();
        self.session.no_room();
        true
    }

    pub(super) fn log_no_room(&self) {
        self.evaluator.app.metrics.limit("held");
        limited_warn!(
            session = %self.evaluator.id,
            client = self.evaluator.who(),
            "no room to buffer another message: limits.held is used up, or this network's share of it"
        );
    }

    fn give_back_output(&mut self) {
        if !self.session.out.to_hop.is_empty() {
            return;
        }
        match self.large.take() {
            Some(large) => large.give_back(&mut self.session.out.to_hop),
            None => buffers::give_back(&mut self.session.out.to_hop),
        }
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.session.wants_client() {
            return false;
        }
        let in_body = self.session.in_body();
        let unwritten = self.session.out.to_hop.len();
        // The next piece of a message is read only after the last one has been written, so at most one buffer waits.
        if unwritten > if in_body { 0 } else { BACKLOG } || self.session.out.to_client.len() > BACKLOG {
            self.patience.held_up();
            return false;
        }
        if in_body && self.large.is_none() {
            self.large = Large::lend(&mut self.session.out.to_hop);
        }
        let size = match (in_body, &self.large) {
            (true, Some(_)) => buffers::READ,
            (true, None) => buffers::SMALL_READ,
            (false, _) => 4096,
        };
        buffers::with_read_buffer(|buffer| {
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
                    self.patience.octets(n);
                    self.turn.add(n);
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
                Ok(reached) => {
                    (self.hop, self.host, self.hop_is_deaf) = (Some(reached.stream), reached.host, false);
                    self.next_hop = reached.name;
                    self.hop_in_use = Some(reached.in_use);
                    self.session.hop_connected(reached.encrypted);
                    self.session.hop_data(&reached.first);
                }
                Err(error) => {
                    let (session, client) = (self.evaluator.id, self.evaluator.who());
                    limited_warn!(%session, client, error, "no next hop can be reached");
                    self.session.hop_failed();
                }
            }
            return true;
        }
        if self.session.out.to_client.len() > BACKLOG {
            return false;
        }
        let Some(hop) = &mut self.hop else { return false };
        let session = &mut self.session;
        let read = buffers::with_read_buffer(|buffer| {
            // Replies are short.
            let buffer = buffer.get_mut(..buffers::SMALL_READ).unwrap_or_default();
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
                self.hop_in_use = None;
                self.session.hop_eof();
                true
            }
        }
    }

    fn poll_write_both(&mut self, cx: &mut Context<'_>) -> bool {
        let (hop_moved, hop_open) = match &mut self.hop {
            Some(hop) if !self.hop_is_deaf => {
                let (written, open) = write_out(hop, &mut self.session.out.to_hop, cx);
                self.session.wrote_to_hop(written);
                (written > 0, open)
            }
            _ => (false, true),
        };
        if !hop_open {
            // The next hop may have sent a reply before it closed. That is still read, up to the end.
            self.hop_is_deaf = true;
        }
        if hop_moved && self.session.in_body() {
            self.patience.moved(self.session.progress(), true, self.wait());
        }
        let (written, client_open) = write_out(&mut self.client, &mut self.session.out.to_client, cx);
        if !client_open && !self.gone {
            self.session.client_lost();
            self.gone = true;
        }
        self.begin_client_handshake();
        hop_moved || written > 0 || !hop_open || !client_open
    }
}

/// Writes as much as possible. Returns the number of octets, and whether the connection is still open.
#[inline]
pub(super) fn write_out(stream: &mut Stream, octets: &mut Vec<u8>, cx: &mut Context<'_>) -> (usize, bool) {
    if octets.is_empty() && !stream.keeps_back() {
        return (0, true);
    }
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
    // Data that TLS has buffered is sent as soon as possible.
    if stream.keeps_back() {
        open &= !matches!(stream.poll_flush(cx), Poll::Ready(Err(_)));
    }
    (written, open)
}
