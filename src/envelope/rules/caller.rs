//! Who asks about a recipient.

/// Who asks about a recipient: what it can do with the answer, and what it will show of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A proxy. It carries the message, and relays for nobody.
    Proxy,
    /// A milter. Its MTA has decided for whom it relays, and may take every tagged address for one of its users: what
    /// was not made here has to lead nowhere, or it would accept mail to users that do not exist, and bounce it. It
    /// shows the message.
    Milter,
    /// A policy service. As a milter, but it shows no content.
    Policy,
    /// A map: one address, and nothing of the message.
    Map,
}

impl Caller {
    /// Whether the rules will be asked about the content, too.
    #[must_use]
    pub fn sees_content(self) -> bool {
        matches!(self, Self::Proxy | Self::Milter)
    }

    /// Whether an MTA asks that decides itself for whom it relays.
    #[must_use]
    pub fn is_mta(self) -> bool {
        matches!(self, Self::Milter | Self::Policy)
    }
}
