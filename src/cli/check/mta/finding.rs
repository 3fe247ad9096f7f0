//! Findings about a mail server's configuration.

/// A finding about a mail server's configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// An error: mail would be lost, refused, looped, or sent unsigned.
    Wrong(String),
    /// A warning: the setting may be intended.
    Careful(String),
}

impl Finding {
    /// An error: mail would be lost, refused, looped, or sent unsigned.
    pub(super) fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }

    /// A warning: the setting may be intended.
    pub(super) fn careful(text: impl Into<String>) -> Self {
        Self::Careful(text.into())
    }
}
