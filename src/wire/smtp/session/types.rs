//! What a session is told, and what it wants done.

use core::net::SocketAddr;

use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::Findings;
use crate::envelope::rules::{ContentCheck, ContentVerdict, Inbound, Outbound};
use crate::wire::message::{Direction, Finished, NextHopChoice};

/// Whether a connection is to be encrypted by STARTTLS (RFC 3207).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// STARTTLS is neither offered nor used.
    #[default]
    Off,
    /// Where the other side can.
    May,
    /// Before any mail.
    Require,
}

/// What a client may cost. Each limit has a reply of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Commands between two messages that were taken: 421 4.7.0.
    pub commands: u32,
    /// Mistakes in a session: 421 4.7.0.
    pub bad_commands: u32,
    /// Recipients refused for good, one after the other without one that is accepted: 421 4.7.0. 0: any number.
    pub refused_recipients: u32,
    /// Recipients of a message: 452 4.5.3.
    pub recipients: u32,
    /// Octets of a command line, its end included (RFC 5321 section 4.5.3.1.4): 500 5.5.2. Lines of AUTH may have
    /// 12,288 (RFC 4954 section 4).
    pub line: usize,
    /// Octets of the header block of a message: 552 5.3.4.
    pub header: u64,
    /// Octets of a message: 552 5.3.4. 0: as many as the next hop takes.
    pub message: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            commands: 5000,
            bad_commands: 20,
            refused_recipients: 50,
            recipients: 1000,
            line: 2048,
            header: 256 << 10,
            message: 256 << 20,
        }
    }
}

/// What a session is told once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which way mail goes.
    pub direction: Direction,
    /// Whether both sides speak LMTP (RFC 2033) instead of SMTP.
    pub lmtp: bool,
    /// Whether the client has to wait for answers where RFC 2920 says so; else what it sends early waits for its turn.
    pub sync: bool,
    /// Whether line ends other than CR LF are refused; else they are mended.
    pub reject_stray: bool,
    /// How much of a candidate is held, in octets.
    pub hold: usize,
    /// Whether reversed SRS recipients have a next hop of their own.
    pub has_srs_next_hop: bool,
    /// What the client may or must ask for.
    pub client_tls: Tls,
    /// Whether the client's connection is encrypted from its first octet.
    pub encrypted: bool,
    /// Whether next hops get a PROXY header. To one that does not expect it everything after that is out of step.
    pub sends_proxy: bool,
    /// What is asked of the next hop.
    pub hop_tls: Tls,
    /// Whether the next hop's certificate is verified: only then may REQUIRETLS be promised (RFC 8689 section 4.2.1).
    pub hop_verified: bool,
    /// What is asked of the next hop of reversed SRS recipients.
    pub srs_tls: Tls,
    /// Whether the client may say on whose behalf it speaks (XCLIENT, XFORWARD, `AUTH=`).
    pub trusted: bool,
    /// What the client may cost.
    pub limits: SessionLimits,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Event {
    /// Ask the rules [`Session::question`](super::Session::question), and give back
    /// [`Session::answer`](super::Session::answer), now or later. Nothing is read from the client until then.
    Ask,
    /// Connect to this next hop.
    Open(NextHopChoice),
    /// Send what is in [`Output::to_hop`](super::Output::to_hop) if that goes at once, and close the connection to the
    /// next hop.
    CloseHop,
    /// Send what is in [`Output::to_client`](super::Output::to_client) and end the session.
    CloseClient,
    /// Send what is in [`Output::to_client`](super::Output::to_client), then do the TLS handshake with the client; see
    /// [`Session::client_secured`](super::Session::client_secured).
    SecureClient,
    /// Do the TLS handshake with the next hop; see [`Session::hop_secured`](super::Session::hop_secured) and
    /// [`Session::hop_not_secured`](super::Session::hop_not_secured).
    SecureHop,
    /// A trusted proxy says that the client is somebody else, by XCLIENT or (`forwarded`) XFORWARD.
    Client {
        /// Where that one connected from, if that is an address.
        address: Option<SocketAddr>,
        /// Whether it is only for the log and the rules: access has been decided for the proxy itself.
        forwarded: bool,
    },
    /// For the log: the next hop has refused a command.
    Refused {
        /// MAIL, RCPT, DATA or BDAT.
        command: &'static str,
        /// What it said.
        reply: String,
    },
    /// For the log: the next hop cannot be used, and why.
    Unfit(&'static str),
    /// For the log: the client has reached this limit.
    Limit(&'static str),
    /// For the log: the client was let go because it does not speak SMTP as it should, and how that was seen: `sync`
    /// (it did not wait for an answer) or `another-protocol`.
    NotSmtp(&'static str),
    /// For the log: the client has logged in at the next hop.
    LoggedIn,
    /// For the log: the recipient last asked about has to come again, in a transaction of its own.
    OwnTransaction,
    /// For the log: what became of a message.
    Finished(Finished),
}

/// A question for the rules, as [`Session::question`](super::Session::question) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question<'a> {
    /// What becomes of this sender? The answer is [`Answer::Sender`].
    Mail {
        /// The sender in MAIL FROM.
        sender: &'a ReversePath,
    },
    /// What becomes of this recipient? The answer is [`Answer::SenderFor`] on the way out, [`Answer::Recipient`] on the
    /// way in.
    Rcpt {
        /// The sender in MAIL FROM.
        sender: &'a ReversePath,
        /// The recipient in RCPT TO.
        recipient: &'a Address,
    },
    /// Is there room to hold a message? The answer is [`Answer::Hold`].
    Hold,
    /// What becomes of this message? The answer is [`Answer::Content`].
    Content {
        /// Why it is asked.
        check: ContentCheck,
        /// For whom it is, without a tag.
        recipient: &'a Address,
        /// What was found in it.
        found: Findings,
        /// Whether all of it has been seen.
        complete: bool,
    },
    /// Which evidence header does this message get? The answer is [`Answer::Evidence`].
    Evidence {
        /// Whose it is.
        sender: &'a ReversePath,
        /// Its Message-ID, with angle brackets.
        message_id: Option<&'a str>,
        /// The value of its From header.
        from: Option<&'a str>,
    },
}

/// What the rules say to a [`Question`].
#[derive(Debug)]
pub enum Answer<'a> {
    /// What becomes of the sender.
    Sender(&'a Outbound),
    /// With which sender mail to this recipient leaves (`None`: with that of MAIL), and the next hop of the recipient's
    /// domain, if it has one of its own.
    SenderFor(Option<&'a Outbound>, Option<u16>),
    /// What becomes of the recipient, and the next hop of its domain, if it has one of its own.
    Recipient(&'a Inbound, Option<u16>),
    /// Whether there is room.
    Hold(bool),
    /// What becomes of the message.
    Content(&'a ContentVerdict),
    /// The evidence header, without its line end. It goes last in the header block.
    Evidence(Option<String>),
}
