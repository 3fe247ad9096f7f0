//! A scripted next hop: the SMTP server of these tests that is not a real mail server.
//!
//! ```ignore
//! let hop = NextHop::script()
//!     .on(At::Mail, Says("451 4.3.0 later"))
//!     .when(At::End, "a large one", SaysAndCloses("552 5.3.4 too big"))
//!     .start();
//! ```
//!
//! Where the script says nothing, everything is accepted, except mail to recipients named `refused`. The next hop
//! records its input, and a test can wait for a message or for a place in the dialogue.

mod script;
mod session;

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{PATIENCE, ports};
pub use script::{At, Does, Script};
use session::Session;

/// A message as received by the next hop.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

/// The record of events, and pending instructions.
#[derive(Default)]
struct State {
    heard: Vec<String>,
    messages: Vec<Message>,
    pieces: Vec<String>,
    reached: Vec<At>,
    next_session: Option<(At, Does)>,
    /// The number of replies that were released and not yet sent.
    released: usize,
    open: usize,
}

struct Shared {
    script: Script,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits without a timeout.
    fn wait(&self, mut until: impl FnMut(&mut State) -> bool) {
        let waiting = self.changed.wait_while(self.state(), |state| !until(state));
        drop(waiting);
    }

    /// Waits for a release, which is for one reply.
    fn wait_for_release(&self) {
        self.wait(|state| {
            let released = state.released > 0;
            state.released -= usize::from(released);
            released
        });
    }

    fn reached(&self, at: At) {
        self.change(|state| state.reached.push(at));
    }
}

/// A running next hop.
#[derive(Clone)]
pub struct NextHop {
    pub port: u16,
    shared: Arc<Shared>,
    /// The bound socket, until it listens.
    socket: Arc<Mutex<Option<socket2::Socket>>>,
}

/// A next hop that only has to accept mail.
pub type Sink = NextHop;

impl NextHop {
    /// A next hop that accepts everything, with all extensions.
    pub fn start() -> Self {
        Self::script().start()
    }

    /// A next hop that accepts everything, with these extensions.
    pub fn offering(offers: &[&'static str]) -> Self {
        Self::script().offers(offers).start()
    }

    pub fn script() -> Script {
        Script::new()
    }

    fn follow(script: Script) -> Self {
        let socket = ports::bound().expect("a port of loopback for a next hop");
        if let Some(octets) = script.receive_buffer {
            socket.set_recv_buffer_size(octets).unwrap();
        }
        let port = ports::number(&socket);
        let refuses = script.rules.iter().any(|rule| (rule.at, rule.does) == (At::Connect, Does::Refuses));
        let shared = Shared { script, state: Mutex::default(), changed: Condvar::new() };
        let hop = Self { port, shared: Arc::new(shared), socket: Arc::new(Mutex::new(Some(socket))) };
        if !refuses {
            hop.listens();
        }
        hop
    }

    /// Starts listening, for a next hop that [refuses](Does::Refuses) connections.
    pub fn listens(&self) {
        let socket = self.socket.lock().unwrap().take().expect("it listens already");
        socket.listen(self.shared.script.backlog).unwrap();
        let (listener, shared) = (TcpListener::from(socket), Arc::clone(&self.shared));
        std::thread::spawn(move || accept_all(&listener, &shared));
    }

    /// Makes only the next session do `does` at this place, regardless of the script.
    pub fn next_session(&self, at: At, does: Does) {
        self.shared.change(|state| state.next_session = Some((at, does)));
    }

    /// Clears the record, and the instruction for the next session.
    pub fn forget(&self) {
        self.shared.change(|state| {
            let (open, released) = (state.open, state.released);
            *state = State { open, released, ..State::default() };
        });
    }

    /// Releases one of the replies that [wait](Does::Holds).
    pub fn release(&self) {
        self.shared.change(|state| state.released += 1);
    }

    /// The accepted messages.
    pub fn all(&self) -> Vec<Message> {
        self.shared.state().messages.clone()
    }

    /// The number of accepted messages.
    pub fn count(&self) -> usize {
        self.shared.state().messages.len()
    }

    pub fn last(&self) -> Message {
        self.shared.state().messages.last().cloned().expect("no message arrived")
    }

    /// Every command received.
    pub fn heard(&self) -> Vec<String> {
        self.shared.state().heard.clone()
    }

    /// The input, in the pieces in which it arrived.
    pub fn pieces(&self) -> Vec<String> {
        self.shared.state().pieces.clone()
    }

    /// Waits until the instruction for this place was carried out.
    pub fn wait_at(&self, at: At) {
        self.wait_state(|| format!("{at:?}"), |state| state.reached.contains(&at).then_some(()));
    }

    /// Waits for a message, and returns the first for which `fits` is true. `what` describes the missing message, and
    /// may include a mail server's log.
    pub fn wait_message(&self, what: impl Fn() -> String, fits: impl Fn(&Message) -> bool) -> Message {
        self.wait_state(what, |state| state.messages.iter().find(|message| fits(message)).cloned())
    }

    /// Waits until more than this number of messages were accepted.
    pub fn wait_for_more_than(&self, messages: usize) {
        self.wait_state(
            || format!("more than {messages} messages"),
            |state| (state.messages.len() > messages).then_some(()),
        );
    }

    fn wait_state<T>(&self, what: impl Fn() -> String, found: impl Fn(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state();
        loop {
            if let Some(found) = found(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let last = state.heard.iter().rev().take(20).rev();
            assert!(
                !left.is_zero(),
                "waited in vain for {}; the last commands: {:?}",
                what(),
                last.collect::<Vec<_>>()
            );
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Serves each connection in a thread, up to the number of sessions.
fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let has_room = |state: &State| state.open < shared.script.sessions;
        shared.wait(|state| has_room(state) || shared.script.refuses_more);
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut is_taken = true;
        shared.change(|state| is_taken = has_room(state));
        if !is_taken {
            let _ = stream.write_all(b"421 4.7.0 too many connections\r\n");
            continue;
        }
        let mut once = None;
        shared.change(|state| {
            state.open += 1;
            once = state.next_session.take();
        });
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // The connection is closed first; the result is recorded afterwards.
            let done = Session::new(Arc::clone(&shared), stream, once).and_then(Session::run);
            shared.change(|state| {
                state.open -= 1;
                state.reached.extend(done);
            });
        });
    }
}
