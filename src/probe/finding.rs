//! The tests of a probe by name, and what they have found.

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};

/// The group of tests in which a test is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Section {
    UnknownUsers,
    Tags,
    Content,
    Relaying,
    Smuggling,
    Trust,
    OtherHosts,
    Harvest,
}

impl Section {
    /// The heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::UnknownUsers => "Unknown users",
            Self::Tags => "Tags",
            Self::Content => "Mail without a sender",
            Self::Relaying => "Relaying",
            Self::Smuggling => "Smuggling",
            Self::Trust => "Claims of a stranger",
            Self::OtherHosts => "Other MX hosts",
            Self::Harvest => "Harvesting",
        }
    }
}

/// The tests, in the order in which they are run and shown.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumIter,
    EnumString,
    IntoStaticStr,
    Serialize,
    Deserialize,
)]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Test {
    UnknownUser,
    LateBounce,
    ReplyText,
    Vrfy,
    Expn,
    TagForged,
    TagExpired,
    TagFuture,
    TagWrapped,
    TagSpliced,
    TagOtherDomain,
    TagLowerCase,
    TagReplayed,
    GenuineBounce,
    UntaggedDsn,
    TextBounce,
    Vacation,
    Receipt,
    Calendar,
    DmarcReport,
    RelayPlain,
    RelayNullSender,
    RelayOwnSender,
    RelayPercent,
    RelayBang,
    RelayQuoted,
    RelaySourceRoute,
    RelayLiteral,
    RelayNoDomain,
    Srs0Forged,
    Srs1Forged,
    SmuggleLfLf,
    SmuggleLfCrlf,
    SmuggleCrCr,
    SmuggleCrCrlf,
    SmuggleCrlfCr,
    SmuggleCrlfLf,
    SmuggleNulDot,
    SmuggleDotNul,
    SmuggleLfCr,
    StarttlsInjection,
    Xclient,
    Xforward,
    ProxyHeader,
    MxUnknownUser,
    MxTags,
    HarvestSession,
    HarvestSessions,
    ReplyTime,
}

impl Test {
    /// The name for commands and scripts.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// The group in which it is shown.
    pub(crate) fn section(self) -> Section {
        match self {
            Self::UnknownUser | Self::LateBounce | Self::ReplyText | Self::Vrfy | Self::Expn => Section::UnknownUsers,
            Self::TagForged
            | Self::TagExpired
            | Self::TagFuture
            | Self::TagWrapped
            | Self::TagSpliced
            | Self::TagOtherDomain
            | Self::TagLowerCase
            | Self::TagReplayed
            | Self::GenuineBounce => Section::Tags,
            Self::UntaggedDsn
            | Self::TextBounce
            | Self::Vacation
            | Self::Receipt
            | Self::Calendar
            | Self::DmarcReport => Section::Content,
            Self::RelayPlain
            | Self::RelayNullSender
            | Self::RelayOwnSender
            | Self::RelayPercent
            | Self::RelayBang
            | Self::RelayQuoted
            | Self::RelaySourceRoute
            | Self::RelayLiteral
            | Self::RelayNoDomain
            | Self::Srs0Forged
            | Self::Srs1Forged => Section::Relaying,
            Self::SmuggleLfLf
            | Self::SmuggleLfCrlf
            | Self::SmuggleCrCr
            | Self::SmuggleCrCrlf
            | Self::SmuggleCrlfCr
            | Self::SmuggleCrlfLf
            | Self::SmuggleNulDot
            | Self::SmuggleDotNul
            | Self::SmuggleLfCr
            | Self::StarttlsInjection => Section::Smuggling,
            Self::Xclient | Self::Xforward | Self::ProxyHeader => Section::Trust,
            Self::MxUnknownUser | Self::MxTags => Section::OtherHosts,
            Self::HarvestSession | Self::HarvestSessions | Self::ReplyTime => Section::Harvest,
        }
    }

    /// What is tested, in a few words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown user",
            Self::LateBounce => "bounce after acceptance",
            Self::ReplyText => "text of the refusal",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::TagForged => "forged tag",
            Self::TagExpired => "expired tag",
            Self::TagFuture => "tag of the future",
            Self::TagWrapped => "tag half a cycle of days away",
            Self::TagSpliced => "tag of another user",
            Self::TagOtherDomain => "tag of another domain",
            Self::TagLowerCase => "valid tag in other letter case",
            Self::TagReplayed => "one tag for any number of bounces",
            Self::GenuineBounce => "genuine bounce",
            Self::UntaggedDsn => "delivery report without a tag",
            Self::TextBounce => "bounce in words without a tag",
            Self::Vacation => "absence notice",
            Self::Receipt => "receipt",
            Self::Calendar => "answer to an invitation",
            Self::DmarcReport => "DMARC report",
            Self::RelayPlain => "a@b",
            Self::RelayNullSender => "a@b from <>",
            Self::RelayOwnSender => "a@b from a user of yours",
            Self::RelayPercent => "a%b@yours",
            Self::RelayBang => "b!a@yours",
            Self::RelayQuoted => "\"a@b\"@yours",
            Self::RelaySourceRoute => "@yours:a@b",
            Self::RelayLiteral => "a%b@[address]",
            Self::RelayNoDomain => "\"a@b\"",
            Self::Srs0Forged => "forged SRS0",
            Self::Srs1Forged => "forged SRS1",
            Self::SmuggleLfLf => "LF.LF",
            Self::SmuggleLfCrlf => "LF.CRLF",
            Self::SmuggleCrCr => "CR.CR",
            Self::SmuggleCrCrlf => "CR.CRLF",
            Self::SmuggleCrlfCr => "CRLF.CR",
            Self::SmuggleCrlfLf => "CRLF.LF",
            Self::SmuggleNulDot => "CRLF NUL.CRLF",
            Self::SmuggleDotNul => "CRLF.NUL CRLF",
            Self::SmuggleLfCr => "LF.CR",
            Self::StarttlsInjection => "command before the TLS handshake",
            Self::Xclient => "XCLIENT",
            Self::Xforward => "XFORWARD",
            Self::ProxyHeader => "PROXY header",
            Self::MxUnknownUser => "unknown user at another MX host",
            Self::MxTags => "valid tag at another MX host",
            Self::HarvestSession => "many names in one session",
            Self::HarvestSessions => "many names in many sessions",
            Self::ReplyTime => "time of the reply",
        }
    }
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Outcome {
    /// As it should be.
    Passed,
    /// Nothing can be said. The detail says why, and what would help.
    Untested,
    /// Something is weak, or mail can be lost.
    Warning,
    /// A hole that strangers can use.
    Failed,
}

impl Outcome {
    /// Whether something should be changed.
    pub(crate) fn is_finding(self) -> bool {
        matches!(self, Self::Warning | Self::Failed)
    }
}

/// The result of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// The test.
    pub test: Test,
    /// How it ended.
    pub outcome: Outcome,
    /// What was tested where, if that differs from run to run: a domain, a host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What was seen: the reply that decided, or why there is none.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn tests_are_listed_section_by_section() {
        let sections: Vec<Section> = Test::iter().map(Test::section).collect();
        assert!(sections.is_sorted());
        assert!(Section::iter().all(|section| sections.contains(&section)));
        assert!("late-bounce".parse() == Ok(Test::LateBounce) && Test::SmuggleLfLf.name() == "smuggle-lf-lf");
    }
}
