//! What one line of a log says, whichever program has written it.

use core::net::IpAddr;
use std::borrow::Cow;

/// The program that writes a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Software {
    Postfix,
    Exim,
    Sendmail,
    Opensmtpd,
    Countersign,
}

impl Software {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postfix => "Postfix",
            Self::Exim => "Exim",
            Self::Sendmail => "Sendmail",
            Self::Opensmtpd => "OpenSMTPD",
            Self::Countersign => "Countersign",
        }
    }
}

/// An event. Texts are as in the line, and may have been chosen by a stranger.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The server has begun to receive a message, or received it.
    Received(Received<'a>),
    /// The envelope sender of a message in the queue; empty: the null sender.
    Sender { id: &'a [u8], sender: &'a [u8] },
    /// What became of a recipient of a message in the queue.
    Delivery(Delivery<'a>),
    /// The server has made a bounce (`notice`) about a message.
    Bounced { id: &'a [u8], notice: &'a [u8], kind: NoticeKind },
    /// The server has refused a recipient or a message in the SMTP dialogue.
    Refused(Refused<'a>),
    /// A client has asked for an unknown user by VRFY.
    Asked { client: IpAddr, to: &'a [u8] },
    /// A message has left the queue.
    Gone { id: &'a [u8] },
    /// Countersign has decided about a recipient.
    Decision(Decision<'a>),
    /// A session of OpenSMTPD begins.
    Session { name: [u8; 16], by: Client },
}

/// What a bounce says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    Failure,
    /// The message is late.
    Delay,
    /// The message was delivered, and its sender has asked to be told.
    Success,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub id: &'a [u8],
    pub by: Client,
    /// The envelope sender, where the same line has it.
    pub sender: Option<&'a [u8]>,
    /// The message that it is a bounce about.
    pub bounce_of: Option<&'a [u8]>,
}

/// Who has handed a message in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Client {
    #[default]
    Unknown,
    /// A user who has logged in, or a program on this machine.
    User,
    Host(IpAddr),
    /// The client of a session of OpenSMTPD, which an earlier line has named.
    OfSession([u8; 16]),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery<'a> {
    pub id: &'a [u8],
    pub to: &'a [u8],
    /// The recipient before aliases, where it was another one.
    pub asked: Option<&'a [u8]>,
    /// Where it was delivered: the name of a host, or of a part of this server.
    pub by: &'a [u8],
    /// Whether it was delivered on this machine, to a mailbox or a program.
    pub is_local: bool,
    pub result: Outcome,
    pub enhanced: Option<[u16; 3]>,
    pub words: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Deferred,
    Failed,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused<'a> {
    pub client: Option<IpAddr>,
    /// The session, where only that is known (OpenSMTPD).
    pub session: Option<[u8; 16]>,
    /// The name of the client, where the server knows one.
    pub name: Option<&'a [u8]>,
    /// The envelope sender; `None`: the line does not have it.
    pub sender: Option<&'a [u8]>,
    pub to: &'a [u8],
    pub why: Refusal,
}

/// Why a server has refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Refusal {
    UnknownUser,
    /// A filter, such as a milter, has refused it.
    Filter,
    RelayingDenied,
    /// A temporary refusal, such as greylisting.
    Later,
    Other,
}

impl Refusal {
    /// The reason in words, for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown user",
            Self::Filter => "a filter",
            Self::RelayingDenied => "relaying denied",
            Self::Later => "deferred",
            Self::Other => "other reasons",
        }
    }
}

/// A line of Countersign about a recipient.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    pub client: Option<IpAddr>,
    pub is_null_sender: bool,
    pub to: Cow<'a, str>,
    pub result: DecisionResult,
    /// As in the log.
    pub reason: Cow<'a, str>,
    /// The host by which the message that a bounce returns has left unsigned.
    pub unsigned_host: Option<Cow<'a, str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecisionResult {
    Refused,
    Deferred,
    /// Delivered, and enforcing would have refused it.
    WouldRefuse,
    Delivered,
    /// A bounce of this site that is not sent.
    Held,
    /// The next hop has refused the recipient.
    NextHopRefused,
}
