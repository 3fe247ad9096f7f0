//! The server for socketmap and policy requests: an MTA queries the rules, and keeps its mail.
//!
//! One connection is one task. Requests that arrive together are answered in one write.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::app_state::AppState;
use super::buffers;
use super::connection_slots::ConnectionSlot;
use super::drain::Drain;
use super::evaluate::Evaluator;
use super::prepared::Preparation;
use super::request_step::RequestStep;
use super::session_id::SessionId;
use super::stream::{Plain, Stream};
use super::work_budget::WorkBudget;
use super::{limited, limited_warn};
use super::{policy_service, socketmap};
use crate::config::{self, MtaService};

/// If unwritten answers exceed this many octets, they are written before more requests are answered.
const BACKLOG: usize = 8 << 10;

/// Answers the requests of one connection.
struct Answers {
    evaluator: Evaluator,
    kind: ServiceKind,
    /// What the first request needs.
    preparing: Option<Preparation>,
    /// Whether what the first request needs is there, or cannot be had.
    is_prepared: bool,
}

enum ServiceKind {
    Socketmap,
    /// The instance of the message that was marked last: it may have many recipients, but gets one mark.
    Policy(Vec<u8>),
}

impl Answers {
    /// Answers in the protocol of this listener. `None` for milters, which do not send requests.
    fn new(protocol: config::ServiceProtocol, app: Arc<AppState>) -> Option<Self> {
        let kind = match protocol {
            config::ServiceProtocol::Policy => ServiceKind::Policy(Vec::new()),
            config::ServiceProtocol::Socketmap => ServiceKind::Socketmap,
            config::ServiceProtocol::Milter => return None,
        };
        Some(Self { evaluator: Evaluator::new(app, None), kind, preparing: None, is_prepared: false })
    }

    /// The name of the session, for the log.
    fn id(&self) -> SessionId {
        self.evaluator.id
    }

    /// Answers the first request, if it is complete, and removes it from `input`. Returns whether there may be another,
    /// which has to wait for the other tasks of the worker.
    fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<bool, String> {
        let (evaluator, is_prepared) = (&mut self.evaluator, self.is_prepared);
        let step = match &mut self.kind {
            ServiceKind::Socketmap => {
                socketmap::look_up(evaluator, is_prepared, input, output).map_err(|broken| broken.to_string())
            }
            ServiceKind::Policy(marked) => policy_service::answer(evaluator, is_prepared, marked, input, output)
                .map_err(|broken| broken.to_string()),
        }?;
        self.is_prepared = false;
        match step {
            RequestStep::Incomplete => Ok(false),
            RequestStep::Answered(taken) => {
                input.drain(..taken);
                Ok(!input.is_empty())
            }
            RequestStep::Waits(work) => {
                self.preparing = Some(work);
                Ok(false)
            }
        }
    }

    /// Continues to wait for what the first request needs. `Ready`: there is nothing to wait for.
    fn poll_preparing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = &mut self.preparing {
            let prepared = ready!(work.as_mut().poll(cx));
            (self.preparing, self.is_prepared) = (None, true);
            self.evaluator.is_prepared(prepared);
        }
        Poll::Ready(())
    }
}

/// Whether this MTA may send queries. A refusal is logged.
pub(super) fn is_admitted(peer: Option<SocketAddr>, mta_service: &MtaService) -> bool {
    // Clients of a Unix socket are admitted by its permissions.
    let good = peer.is_none_or(|peer| mta_service.clients.contains(peer.ip()));
    if !good {
        limited_warn!(client = ?peer.map(|peer| peer.ip()), listen = %mta_service.listen, "connection refused: not in clients");
    }
    good
}

/// Serves a connection of an MTA until it ends.
pub(crate) async fn serve(
    client: Plain,
    peer: Option<SocketAddr>,
    app: Arc<AppState>,
    mta_service: Arc<MtaService>,
    slot: Arc<ConnectionSlot>,
    drain: CancellationToken,
) {
    if !is_admitted(peer, &mta_service) {
        return;
    }
    let patience = app.config().timeouts.command;
    let Some(answers) = Answers::new(mta_service.protocol, app) else { return };
    let mut line = RequestConnection {
        answers,
        stream: Stream::Plain(client),
        input: Vec::new(),
        output: Vec::new(),
        slot,
        drain: Drain::new(&drain),
        timer: Box::pin(sleep_until(Instant::now() + patience)),
        patience,
        progress: Instant::now(),
        turn: WorkBudget::default(),
        more: false,
    };
    let end = loop {
        if let Err(end) = poll_fn(|cx| line.poll_step(cx)).await {
            break end;
        }
        if line.more || line.turn.is_over() {
            tokio::task::yield_now().await;
        }
    };
    match end {
        End::Gone | End::Idle => {}
        End::Slow => {
            limited!(info, session = %line.answers.id(), listen = %mta_service.listen, "closing a connection: request incomplete for too long");
        }
        End::Broken(why) => {
            limited_warn!(session = %line.answers.id(), listen = %mta_service.listen, why, "closing a connection: not a valid request");
        }
    }
    // Answers to earlier requests are still written, but nothing more is read.
    let last = poll_fn(|cx| line.poll_write(cx));
    let _ = tokio::time::timeout(Duration::from_secs(2), last).await;
}

/// Why a connection ends.
enum End {
    Gone,
    /// No request is pending, and no answer is due.
    Idle,
    Slow,
    Broken(String),
}

struct RequestConnection {
    answers: Answers,
    stream: Stream,
    /// The beginning of a request; empty between requests.
    input: Vec<u8>,
    output: Vec<u8>,
    slot: Arc<ConnectionSlot>,
    drain: Drain,
    timer: Pin<Box<Sleep>>,
    patience: Duration,
    /// When a request was last answered, or part of an answer written.
    progress: Instant,
    turn: WorkBudget,
    /// Whether some input is not answered yet.
    more: bool,
}

impl RequestConnection {
    /// Reads the available input, answers it, and writes the answers.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.more || self.output.len() >= BACKLOG {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
                // A client that does not read answers is not read from.
                Poll::Pending => return self.poll_time(cx),
            }
        }
        if self.answers.preparing.is_some() {
            // What is answered already is not kept back.
            if matches!(self.poll_write(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(Err(End::Gone));
            }
            ready!(self.answers.poll_preparing(cx));
            return Poll::Ready(self.answer());
        }
        if self.more {
            return Poll::Ready(self.answer());
        }
        buffers::lend(&mut self.input);
        let (stream, input) = (&mut self.stream, &mut self.input);
        let read = buffers::with_read_buffer(|buffer| {
            let buffer = buffer.get_mut(..buffers::SMALL_READ).unwrap_or_default();
            let read = stream.poll_read(cx, buffer);
            if let Poll::Ready(Ok(n)) = read {
                input.extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
            read
        });
        match read {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(End::Gone)),
            Poll::Ready(Ok(n)) => {
                self.turn.add(n);
                Poll::Ready(self.answer())
            }
            Poll::Pending => {
                buffers::give_back(&mut self.input);
                self.poll_time(cx)
            }
        }
    }

    fn answer(&mut self) -> Result<(), End> {
        let answered = self.answers.answer(&mut self.input, &mut self.output);
        if !self.output.is_empty() {
            self.progress = Instant::now();
            // Part of a request is not work: a client that trickles octets is idle.
            self.slot.busy();
        }
        self.more = matches!(answered, Ok(true));
        answered.map(drop).map_err(End::Broken)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        while let Some(rest) = self.output.get(written..).filter(|rest| !rest.is_empty()) {
            match self.stream.poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if written > 0 {
                        self.progress = Instant::now();
                    }
                    self.output.drain(..written);
                    return Poll::Pending;
                }
            }
        }
        self.output.clear();
        buffers::give_back(&mut self.output);
        Poll::Ready(Ok(()))
    }

    /// Checks the timeout, the slot, and the signal to stop.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.turn.waited();
        let idle = self.input.is_empty() && self.output.is_empty();
        if self.output.is_empty() {
            self.slot.idle(cx);
            if self.slot.is_given_up() {
                return Poll::Ready(Err(End::Idle));
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let until = self.progress + self.patience;
            if until <= Instant::now() {
                return Poll::Ready(Err(if idle { End::Idle } else { End::Slow }));
            }
            self.timer.as_mut().reset(until);
        }
        if self.drain.has_come(cx) {
            return Poll::Ready(Err(End::Idle));
        }
        Poll::Pending
    }
}
