//! The kinds of callers that query about recipients.

/// The caller of a query about a recipient. It determines which answers are possible, and whether content will be
/// inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A proxy. It carries the message. Foreign recipients are refused unless `inbound.foreign = "pass"`.
    Proxy,
    /// A milter. Its MTA decides which domains it relays for, and may accept any tagged address as that of a user. A
    /// tag that was not signed by this site must therefore be refused, or the MTA would accept mail to unknown
    /// recipients and bounce it. The content can be inspected.
    Milter,
    /// A policy service. As for a milter, but without content.
    Policy,
    /// A map: one address, and nothing else of the message.
    Map,
}

impl Caller {
    /// Whether [`Rules::content`](super::Rules::content) will be queried, too.
    #[must_use]
    pub fn sees_content(self) -> bool {
        match self {
            Self::Proxy | Self::Milter => true,
            Self::Policy | Self::Map => false,
        }
    }

    /// Whether the caller is an MTA that decides itself which domains it relays for.
    #[must_use]
    pub fn is_mta(self) -> bool {
        match self {
            Self::Milter | Self::Policy => true,
            Self::Proxy | Self::Map => false,
        }
    }
}
