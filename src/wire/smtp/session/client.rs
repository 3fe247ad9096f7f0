//! What is known of the client, and what it has said that is not dealt with yet.

use super::body::Swallow;
use crate::wire::smtp::command::Verb;
use crate::wire::smtp::identity::Identity;

/// The client of a session.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Who it is, as far as that is known.
    pub identity: Option<Identity>,
    /// Whose message it passes on, as a trusted proxy has said by XFORWARD: true of the next message only.
    pub forwarded: Option<Identity>,
    pub forwarded_is_used: bool,
    /// Counts the changes of that.
    pub identity_version: u32,
    /// What its octets are, unless they are those of a message.
    pub input: Input,
    /// What it has sent and has not been looked at.
    pub pending: Vec<u8>,
    /// In the middle of a line that is too long; and whether that began as a chunk.
    pub skipping: bool,
    pub skipping_bdat: bool,
    /// Mistakes in this session.
    pub bad_commands: u32,
    /// Refused recipients since the last one that was accepted.
    pub refused_recipients: u32,
    /// Commands since the last message that was accepted.
    pub commands: u32,
    /// Its HELO or EHLO, for a second connection to a next hop.
    pub hello: Option<Hello>,
    /// A hello that the next hop has not answered.
    pub hello_asked: Option<Hello>,
    /// Whether its connection is encrypted.
    pub encrypted: bool,
    /// A TLS handshake with it is under way.
    pub securing: bool,
    /// Whether it has logged in at the next hop.
    pub authenticated: bool,
    /// Whether it was offered CHUNKING.
    pub offered_chunking: bool,
}

impl Client {
    /// One that has said nothing yet.
    pub(super) fn new(encrypted: bool, identity: Option<Identity>) -> Self {
        Self { encrypted, identity, ..Self::default() }
    }
}

/// What a client's octets are, apart from a message that is accepted.
#[derive(Debug, Default)]
pub(super) enum Input {
    /// Lines with commands.
    #[default]
    Commands,
    /// The answer to a challenge of AUTH.
    AuthAnswer,
    /// A chunk that was refused.
    Swallow(Swallow),
}

/// A client's HELO, EHLO or LHLO.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub line: Vec<u8>,
    pub verb: Verb,
}

impl Hello {
    /// The name in it.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(self.line.get(4..).unwrap_or_default()).trim().to_owned()
    }
}
