//! Instructions for a next hop.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use super::NextHop;

/// A place in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// After a client has connected, before the greeting.
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

/// What the next hop does at a place. Texts are without the last CR LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Sends this instead of the usual reply, and goes on. If the text is empty, sends nothing.
    Says(&'static str),
    /// As `Says`, after this time.
    SaysAfter(Duration, &'static str),
    /// Sends this as soon as [`NextHop::release`] allows it.
    Holds(&'static str),
    /// Sends this and closes. Unread input is answered with a TCP reset.
    SaysAndCloses(&'static str),
    Closes,
    Resets,
    /// Reads on, and sends nothing more.
    Silent,
    /// Stops reading, and keeps the connection open.
    Stuck,
    /// Sends an endless reply.
    Endless,
    /// Does not listen until [`NextHop::listens`]. For [`At::Connect`] only.
    Refuses,
}

pub(super) struct Rule {
    pub(super) at: At,
    /// The text that the command or the message must contain.
    pub(super) with: &'static str,
    pub(super) does: Does,
}

/// The configuration of a next hop.
pub struct Script {
    pub(super) offers: Vec<&'static str>,
    pub(super) rules: Vec<Rule>,
    pub(super) sessions: usize,
    pub(super) refuses_more: bool,
    pub(super) backlog: i32,
    pub(super) receive_buffer: Option<usize>,
    pub(super) takes_any_line_end: bool,
    pub(super) keeps_messages: bool,
    pub(super) keeps_pieces: bool,
    /// The TLS config, and whether TLS is used from the first octet.
    pub(super) tls: Option<(Arc<ServerConfig>, bool)>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self {
            offers: vec!["PIPELINING", "SMTPUTF8", "8BITMIME", "DSN", "CHUNKING", "BINARYMIME", "SIZE 99999999"],
            rules: vec![],
            sessions: usize::MAX,
            refuses_more: false,
            backlog: 1024,
            receive_buffer: None,
            takes_any_line_end: false,
            keeps_messages: true,
            keeps_pieces: false,
            tls: None,
        }
    }

    /// Does this each time the dialogue is at this place.
    pub fn on(self, at: At, does: Does) -> Self {
        self.when(at, "", does)
    }

    /// As `on`, if the command or the message contains this text. Later rules take precedence.
    pub fn when(mut self, at: At, with: &'static str, does: Does) -> Self {
        self.rules.push(Rule { at, with, does });
        self
    }

    /// The extensions in the reply to EHLO.
    pub fn offers(mut self, offers: &[&'static str]) -> Self {
        self.offers = offers.to_vec();
        self
    }

    /// The number of simultaneous sessions. Further connections wait in the backlog, as with Postfix.
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// Further connections are closed, as with Exim.
    pub fn refuses_more(mut self) -> Self {
        self.refuses_more = true;
        self
    }

    /// The size of the backlog. One more connection may wait.
    pub fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = backlog;
        self
    }

    /// The approximate size of the kernel's receive buffer, in octets.
    pub fn receive_buffer(mut self, octets: usize) -> Self {
        self.receive_buffer = Some(octets);
        self
    }

    /// Makes a bare CR or LF end a line, as in some servers when smuggling was found.
    pub fn takes_any_line_end(mut self) -> Self {
        self.takes_any_line_end = true;
        self
    }

    /// Discards messages, for tests that send much mail.
    pub fn keeps_no_messages(mut self) -> Self {
        self.keeps_messages = false;
        self
    }

    /// Records pieces; see [`NextHop::pieces`].
    pub fn keeps_pieces(mut self) -> Self {
        self.keeps_pieces = true;
        self
    }

    /// Requires TLS, from the first octet or by STARTTLS, before mail is accepted.
    pub fn tls(mut self, config: Arc<ServerConfig>, implicit: bool) -> Self {
        self.tls = Some((config, implicit));
        self
    }

    /// Starts the next hop on a port that the system chooses.
    pub fn start(self) -> NextHop {
        NextHop::follow(self)
    }
}
