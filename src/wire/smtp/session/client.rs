//! The state of the client, and its pending input.

use super::body::Swallow;
use crate::wire::smtp::command::Verb;
use crate::wire::smtp::identity::Identity;

/// The client of a session.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The client's identity, as far as known.
    pub identity: Option<Identity>,
    /// The client that a trusted proxy has named by XFORWARD, for the next message only.
    pub forwarded: Option<Identity>,
    pub forwarded_is_used: bool,
    /// The number of changes to these identities.
    pub identity_version: u32,
    /// What the client's octets are, unless they belong to a message.
    pub input: Input,
    /// Octets received and not yet processed.
    pub pending: Vec<u8>,
    /// Whether the rest of an overlong line is being skipped, and whether that line began with BDAT.
    pub skipping: bool,
    pub skipping_bdat: bool,
    /// The number of mistakes in this session.
    pub bad_commands: u32,
    /// The number of recipients refused since the last one that was accepted.
    pub refused_recipients: u32,
    /// The number of recipients that were put off, because the client's network has found out about too many unknown ones.
    pub put_off: u32,
    /// The number of commands since the last message that was accepted.
    pub commands: u32,
    /// The last accepted HELO or EHLO, for further connections to next hops.
    pub hello: Option<Hello>,
    /// A HELO or EHLO that the next hop has not answered.
    pub hello_asked: Option<Hello>,
    /// Whether the client's connection is encrypted.
    pub encrypted: bool,
    /// Whether a TLS handshake with the client is in progress.
    pub securing: bool,
    /// Whether the client has authenticated to the next hop.
    pub authenticated: bool,
    /// Whether the client was offered CHUNKING.
    pub offered_chunking: bool,
}

impl Client {
    /// A client that has not sent anything.
    pub(super) fn new(encrypted: bool, identity: Option<Identity>) -> Self {
        Self { encrypted, identity, ..Self::default() }
    }
}

/// What a client's octets are, apart from an accepted message.
#[derive(Debug, Default)]
pub(super) enum Input {
    /// Lines with commands.
    #[default]
    Commands,
    /// The response to an AUTH challenge.
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
    /// The name that the client gave.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(self.line.get(4..).unwrap_or_default()).trim().to_owned()
    }
}
