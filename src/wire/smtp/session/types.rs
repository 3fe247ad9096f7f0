//! Settings of a session, its events, and its questions to the rules.

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
    /// STARTTLS is used if the other side supports it.
    May,
    /// STARTTLS is required before any mail.
    Require,
}

/// Limits for a client, each with the reply that is sent when it is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// The most commands between two accepted messages: 421 4.7.0.
    pub commands: u32,
    /// The most mistakes in a session: 421 4.7.0.
    pub bad_commands: u32,
    /// The most permanently refused recipients in a row: 421 4.7.0. 0: no limit.
    pub refused_recipients: u32,
    /// The most recipients of a message: 452 4.5.3.
    pub recipients: u32,
    /// The most octets of a command line, with its line end (RFC 5321 section 4.5.3.1.4): 500 5.5.2. AUTH lines may
    /// have 12,288 (RFC 4954 section 4).
    pub line: usize,
    /// The most octets of the header block of a message: 552 5.3.4.
    pub header: u64,
    /// The most octets of a message: 552 5.3.4. 0: the limit of the next hop.
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

/// Settings that are fixed when a session begins.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The direction of mail.
    pub direction: Direction,
    /// Whether both sides speak LMTP (RFC 2033) instead of SMTP.
    pub lmtp: bool,
    /// Whether the client has to wait for replies where RFC 2920 requires it. Otherwise, early input is processed in
    /// order.
    pub sync: bool,
    /// Whether line ends other than CR LF are refused. Otherwise, they are corrected.
    pub reject_stray: bool,
    /// The most octets of a message to be inspected that are buffered.
    pub hold: usize,
    /// Whether there is a separate next hop for reversed SRS recipients.
    pub has_srs_next_hop: bool,
    /// Whether STARTTLS is offered to the client, or required.
    pub client_tls: Tls,
    /// Whether the client's connection is encrypted from its first octet.
    pub encrypted: bool,
    /// Whether a PROXY header is sent to next hops. A next hop that does not expect it cannot parse what follows.
    pub sends_proxy: bool,
    /// Whether STARTTLS is used with next hops, or required.
    pub hop_tls: Tls,
    /// Whether the next hop's certificate is verified. Only then may REQUIRETLS be offered (RFC 8689 section 4.2.1).
    pub hop_verified: bool,
    /// Whether STARTTLS is used with the next hop for reversed SRS recipients, or required.
    pub srs_tls: Tls,
    /// Whether the client may name the client that it speaks for (XCLIENT, XFORWARD, `AUTH=`).
    pub trusted: bool,
    /// Whether bounces of this site return headers alone. Then messages in chunks, whose length is announced, are not
    /// accepted.
    pub strips_content: bool,
    /// Limits for the client.
    pub limits: SessionLimits,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Event {
    /// Query the rules about [`Session::question`](super::Session::question), and pass the verdict to
    /// [`Session::answer`](super::Session::answer), now or later. Nothing is read from the client until then.
    Ask,
    /// Connect to this next hop.
    Open(NextHopChoice),
    /// Send what is in [`Output::to_hop`](super::Output::to_hop) if that is possible without waiting, and close the
    /// connection to the next hop.
    CloseHop,
    /// Send what is in [`Output::to_client`](super::Output::to_client) and end the session.
    CloseClient,
    /// Send what is in [`Output::to_client`](super::Output::to_client), then perform the TLS handshake with the client;
    /// see [`Session::client_secured`](super::Session::client_secured).
    SecureClient,
    /// Perform the TLS handshake with the next hop; see [`Session::hop_secured`](super::Session::hop_secured) and
    /// [`Session::hop_not_secured`](super::Session::hop_not_secured).
    SecureHop,
    /// A trusted proxy has named the client by XCLIENT or (`forwarded`) XFORWARD.
    Client {
        /// The address from which the named client has connected, if known.
        address: Option<SocketAddr>,
        /// Whether the name is only for the log and the rules; access is decided for the proxy itself.
        forwarded: bool,
    },
    /// For the log: the next hop has refused a command.
    Refused {
        /// MAIL, RCPT, DATA or BDAT.
        command: &'static str,
        /// The next hop's reply.
        reply: String,
    },
    /// For the log: the next hop cannot be used, for this reason.
    Unfit(&'static str),
    /// For the log: the client has reached the limit of this name.
    Limit(&'static str),
    /// For the log: the client was disconnected because it does not speak SMTP correctly: `sync` (it did not wait for a
    /// reply) or `another-protocol`.
    NotSmtp(&'static str),
    /// For the log: the client has authenticated to the next hop.
    LoggedIn,
    /// The last inbound recipient that was queried was sent to the next hop, whose reply is reported by
    /// [`Event::RecipientAnswered`]. Replies come in the order of the recipients.
    RecipientSent,
    /// The last recipient that was queried is not sent to the next hop.
    RecipientNotSent,
    /// The next hop has replied to an inbound recipient.
    RecipientAnswered {
        /// Whether the client is told that there is no such user.
        unknown: bool,
    },
    /// The client has asked for a user by VRFY or EXPN.
    Verify,
    /// For the log: the last recipient that was queried has to be sent again, in a separate transaction.
    OwnTransaction,
    /// For the log: the outcome of a message.
    Finished(Finished),
}

/// A question for the rules, returned by [`Session::question`](super::Session::question).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question<'a> {
    /// What is done with this sender? The answer is [`Answer::Sender`].
    Mail {
        /// The sender in MAIL FROM.
        sender: &'a ReversePath,
    },
    /// What is done with this recipient? The answer is [`Answer::SenderFor`] for outbound mail, and
    /// [`Answer::Recipient`] for inbound mail.
    Rcpt {
        /// The sender in MAIL FROM.
        sender: &'a ReversePath,
        /// The recipient in RCPT TO.
        recipient: &'a Address,
    },
    /// Is memory available to buffer a message? The answer is [`Answer::Hold`].
    Hold,
    /// What is done with this message? The answer is [`Answer::Content`].
    Content {
        /// Why the content is inspected.
        check: ContentCheck,
        /// The recipient, without a tag.
        recipient: &'a Address,
        /// What the classifier has found.
        found: Box<Findings>,
        /// Whether the whole message was inspected.
        complete: bool,
        /// The Message-ID, with its angle brackets.
        message_id: Option<String>,
    },
    /// Which evidence header is added to this message? The answer is [`Answer::Evidence`].
    Evidence {
        /// The sender in MAIL FROM.
        sender: &'a ReversePath,
        /// Its Message-ID, with angle brackets.
        message_id: Option<&'a str>,
        /// The value of its From header.
        from: Option<&'a str>,
    },
}

/// The rules' answer to a [`Question`].
#[derive(Debug)]
pub enum Answer<'a> {
    /// The verdict on the sender.
    Sender(&'a Outbound),
    /// The sender with which mail to this recipient leaves (`None`: the sender in MAIL), and the next hop for the
    /// recipient's domain, if there is one. The last: why the content of the message is inspected; `None`: it is not.
    SenderFor(Option<&'a Outbound>, Option<u16>, Option<ContentCheck>),
    /// The verdict on the recipient, and the next hop for its domain, if there is one.
    Recipient(&'a Inbound, Option<u16>),
    /// Whether memory is available.
    Hold(bool),
    /// The verdict on the message.
    Content(&'a ContentVerdict),
    /// The evidence header, without its line end, which is added at the end of the header block; `None`: no header is
    /// added.
    Evidence(Option<String>),
}
