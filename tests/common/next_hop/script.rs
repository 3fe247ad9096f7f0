//! What a next hop is told to do.

use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;

use super::NextHop;

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

pub(super) struct Rule {
    pub(super) at: At,
    /// What stands in the command, or in the message.
    pub(super) with: &'static str,
    pub(super) does: Does,
}

/// What a next hop is and does.
pub struct Script {
    pub(super) offers: Vec<&'static str>,
    pub(super) rules: Vec<Rule>,
    pub(super) sessions: usize,
    pub(super) backlog: i32,
    pub(super) receive_buffer: Option<usize>,
    pub(super) takes_any_line_end: bool,
    pub(super) keeps_messages: bool,
    pub(super) keeps_pieces: bool,
    /// With what, and whether from the first octet.
    pub(super) tls: Option<(Arc<ServerConfig>, bool)>,
}

impl Script {
    pub(super) fn new() -> Self {
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
        NextHop::follow(self)
    }
}
