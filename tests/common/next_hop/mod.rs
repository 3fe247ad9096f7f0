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

mod session;

use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_rustls::rustls::ServerConfig;

use super::{PATIENCE, ports};
use session::Session;

/// A place in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A client connects; the greeting is not yet said.
    Connect,
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// After the first line of a message, or after half of a chunk.
    Body,
    /// After a chunk that is not the last.
    Chunk,
    /// After the end of a message.
    End,
    Quit,
    /// Any other command.
    Other,
}

/// What it does there. Texts are without the last CR LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Says this instead of what is usual, and goes on. Where the text is empty it says nothing.
    Says(&'static str),
    /// The same, as soon as [`NextHop::release`] allows it.
    Holds(&'static str),
    /// What is unread then is answered with a reset.
    SaysAndCloses(&'static str),
    Closes,
    Resets,
    /// Reads on, and says nothing more.
    Silent,
    /// Reads nothing more, and keeps the connection.
    Stuck,
    /// Sends a reply that never ends.
    Endless,
    /// Does not listen, until [`NextHop::listens`]. This is for [`At::Connect`] only.
    Refuses,
}

use Does::Refuses;

/// A message as the next hop got it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

struct Rule {
    at: At,
    /// What stands in the command, or in the message.
    with: &'static str,
    does: Does,
}

/// What a next hop is and does.
pub struct Script {
    offers: Vec<&'static str>,
    rules: Vec<Rule>,
    sessions: usize,
    backlog: i32,
    receive_buffer: Option<usize>,
    takes_any_line_end: bool,
    keeps_messages: bool,
    keeps_pieces: bool,
    /// With what, and whether from the first octet.
    tls: Option<(Arc<ServerConfig>, bool)>,
}

impl Script {
    fn new() -> Self {
        Self {
            offers: vec!["PIPELINING", "SMTPUTF8", "8BITMIME", "DSN", "CHUNKING", "BINARYMIME", "SIZE 99999999"],
            rules: vec![],
            sessions: usize::MAX,
            backlog: 1024,
            receive_buffer: None,
            takes_any_line_end: false,
            keeps_messages: true,
            keeps_pieces: false,
            tls: None,
        }
    }

    /// Each time the dialogue is there, it does this.
    pub fn on(self, at: At, does: Does) -> Self {
        self.when(at, "", does)
    }

    /// The same, where the command or the message has this in it. What is scripted later wins.
    pub fn when(mut self, at: At, with: &'static str, does: Does) -> Self {
        self.rules.push(Rule { at, with, does });
        self
    }

    /// The extensions in its answer to EHLO.
    pub fn offers(mut self, offers: &[&'static str]) -> Self {
        self.offers = offers.to_vec();
        self
    }

    /// So many sessions at a time. Further connections wait in the backlog, as with Postfix.
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// So many connections may wait, and one more.
    pub fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = backlog;
        self
    }

    /// So many octets, about, are taken by the kernel before anybody reads them.
    pub fn receive_buffer(mut self, octets: usize) -> Self {
        self.receive_buffer = Some(octets);
        self
    }

    /// CR and LF end a line each, as some servers had it when smuggling was found.
    pub fn takes_any_line_end(mut self) -> Self {
        self.takes_any_line_end = true;
        self
    }

    /// For much mail: it is read and forgotten.
    pub fn keeps_no_messages(mut self) -> Self {
        self.keeps_messages = false;
        self
    }

    /// See [`NextHop::pieces`].
    pub fn keeps_pieces(mut self) -> Self {
        self.keeps_pieces = true;
        self
    }

    /// TLS from the first octet, or by STARTTLS; without it no mail is taken.
    pub fn tls(mut self, config: Arc<ServerConfig>, implicit: bool) -> Self {
        self.tls = Some((config, implicit));
        self
    }

    /// Runs it, on a port that the system chooses.
    pub fn start(self) -> NextHop {
        let socket = ports::bound().expect("a port of loopback for a next hop");
        if let Some(octets) = self.receive_buffer {
            socket.set_recv_buffer_size(octets).unwrap();
        }
        let port = ports::number(&socket);
        let refuses = self.rules.iter().any(|rule| (rule.at, rule.does) == (At::Connect, Refuses));
        let shared = Shared { script: self, state: Mutex::default(), changed: Condvar::new() };
        let hop = NextHop { port, shared: Arc::new(shared), socket: Arc::new(Mutex::new(Some(socket))) };
        if !refuses {
            hop.listens();
        }
        hop
    }
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

    /// Listens from now on: for one that [`Refuses`].
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

    /// Waits for a message; the first that fits. `what` says what is missing, and may say what a mail server wrote of it.
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
