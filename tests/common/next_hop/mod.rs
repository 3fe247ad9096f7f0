//! A next hop that follows a script: the one SMTP server of these tests that is no real mail server.
//!
//! ```ignore
//! let hop = NextHop::script()
//!     .on(At::Mail, Says("451 4.3.0 later"))
//!     .when(At::End, "a large one", SaysAndCloses("552 5.3.4 too big"))
//!     .start();
//! ```
//!
//! Where the script says nothing, it takes everything, but for mail to anybody called `refused`. It keeps what it is
//! sent, and a test waits until something has come or until the dialogue has reached a place.

mod script;
mod session;

use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{PATIENCE, ports};
pub use script::{At, Does, Script};
use session::Session;

/// A message as the next hop got it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

/// What has happened, and what is still to come.
#[derive(Default)]
struct State {
    heard: Vec<String>,
    messages: Vec<Message>,
    pieces: Vec<String>,
    reached: Vec<At>,
    next_session: Option<(At, Does)>,
    /// So many replies need not be held any more.
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

    /// Waits for ever: a next hop has nothing better to do.
    fn wait(&self, mut until: impl FnMut(&mut State) -> bool) {
        let waiting = self.changed.wait_while(self.state(), |state| !until(state));
        drop(waiting);
    }

    /// Each release is for one reply.
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

/// A next hop that runs.
#[derive(Clone)]
pub struct NextHop {
    pub port: u16,
    shared: Arc<Shared>,
    /// Bound, until it listens.
    socket: Arc<Mutex<Option<socket2::Socket>>>,
}

/// What most tests want of a next hop is that it takes mail.
pub type Sink = NextHop;

impl NextHop {
    /// One that takes everything, with all extensions.
    pub fn start() -> Self {
        Self::script().start()
    }

    /// One that takes everything, with these extensions.
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

    /// Listens from now on: for one that [refuses](Does::Refuses).
    pub fn listens(&self) {
        let socket = self.socket.lock().unwrap().take().expect("it listens already");
        socket.listen(self.shared.script.backlog).unwrap();
        let (listener, shared) = (TcpListener::from(socket), Arc::clone(&self.shared));
        std::thread::spawn(move || accept_all(&listener, &shared));
    }

    /// The next session does this there, whatever the script says; those after it do not.
    pub fn next_session(&self, at: At, does: Does) {
        self.shared.change(|state| state.next_session = Some((at, does)));
    }

    /// Forgets what it has heard and got, where it has been, and what the next session was to do.
    pub fn forget(&self) {
        self.shared.change(|state| {
            let (open, released) = (state.open, state.released);
            *state = State { open, released, ..State::default() };
        });
    }

    /// Lets it say one of the replies that it [holds](Does::Holds).
    pub fn release(&self) {
        self.shared.change(|state| state.released += 1);
    }

    /// The messages that it has taken.
    pub fn all(&self) -> Vec<Message> {
        self.shared.state().messages.clone()
    }

    /// How many messages it has taken.
    pub fn count(&self) -> usize {
        self.shared.state().messages.len()
    }

    pub fn last(&self) -> Message {
        self.shared.state().messages.last().cloned().expect("no message arrived")
    }

    /// Every command that it has heard.
    pub fn heard(&self) -> Vec<String> {
        self.shared.state().heard.clone()
    }

    /// What has come, cut as it came.
    pub fn pieces(&self) -> Vec<String> {
        self.shared.state().pieces.clone()
    }

    /// Waits until it has done there what it had to do.
    pub fn wait_at(&self, at: At) {
        self.wait_state(|| format!("{at:?}"), |state| state.reached.contains(&at).then_some(()));
    }

    /// Waits for a message; the first that fits. `what` says what is missing, and may say what a mail server wrote of
    /// it.
    pub fn wait_message(&self, what: impl Fn() -> String, fits: impl Fn(&Message) -> bool) -> Message {
        self.wait_state(what, |state| state.messages.iter().find(|message| fits(message)).cloned())
    }

    /// Waits until it has taken more messages than so many.
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

/// Serves each connection in a thread of its own, as many at a time as there are sessions.
fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        shared.wait(|state| state.open < shared.script.sessions);
        let Ok((stream, _)) = listener.accept() else { return };
        let mut once = None;
        shared.change(|state| {
            state.open += 1;
            once = state.next_session.take();
        });
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // The connection is closed when this is over, and what has been done is told afterwards.
            let done = Session::new(Arc::clone(&shared), stream, once).and_then(Session::run);
            shared.change(|state| {
                state.open -= 1;
                state.reached.extend(done);
            });
        });
    }
}
