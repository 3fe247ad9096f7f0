//! What is looked for in a message, whether it comes by DATA or by BDAT: its size, octets that no message may have, and
//! what is said in it.

use crate::envelope::bounce::{Findings, Scanner};
use crate::envelope::rules::ContentCheck;
use crate::wire::smtp::data::DataScanner;
use crate::wire::smtp::replies::{HEADER_TOO_LONG, MESSAGE_TOO_LONG, NUL, STRAY_LINE_END};
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::session::types::SessionLimits;
use crate::wire::smtp::size_limits::{Meter, TooLong};

/// Why a message cannot be accepted, whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It has an octet 0 (RFC 5321 section 4.5.2).
    Nul,
    /// It has a line end other than CR LF, and the config says `stray_newline = "reject"`.
    Stray,
    /// It, or its header block, is longer than the limit.
    Long(TooLong),
}

impl BodyError {
    /// What the client is sent.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::Nul => NUL.reply(),
            Self::Stray => STRAY_LINE_END.reply(),
            Self::Long(TooLong::Header) => HEADER_TOO_LONG.reply(),
            Self::Long(TooLong::Message) => MESSAGE_TOO_LONG.reply(),
        }
    }

    /// The limit that was reached, by its name in the config.
    pub(crate) fn limit(self) -> Option<&'static str> {
        match self {
            Self::Long(TooLong::Header) => Some("header"),
            Self::Long(TooLong::Message) => Some("message"),
            Self::Nul | Self::Stray => None,
        }
    }
}

/// Inspects one message.
#[derive(Debug)]
pub(crate) struct Inspector {
    meter: Meter,
    too_long: Option<TooLong>,
    bounce: Option<Scanner>,
    check: Option<ContentCheck>,
}

impl Inspector {
    /// For a message that is delivered whatever is in it.
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self { meter: Meter::new(limits.header, limits.message), too_long: None, bounce: None, check: None }
    }

    /// The classifier reads the message, too. `check`: why its verdict decides; `None`: it is for the log alone.
    pub(crate) fn classifying(self, scanner: Scanner, check: Option<ContentCheck>) -> Self {
        Self { bounce: Some(scanner), check, ..self }
    }

    /// The next octets.
    pub(crate) fn push(&mut self, part: &[u8]) {
        self.too_long = self.too_long.or(self.meter.push(part));
        if let Some(bounce) = &mut self.bounce {
            bounce.push(part);
        }
    }

    /// The last octet has come.
    pub(crate) fn finish(&mut self) {
        if let Some(bounce) = &mut self.bounce {
            bounce.finish();
        }
    }

    /// The classifier is not needed any more, and neither is what it keeps.
    pub(crate) fn stop_classifying(&mut self) {
        self.bounce = None;
    }

    /// Octets so far.
    pub(crate) fn octets(&self) -> u64 {
        self.meter.octets()
    }

    /// What the classifier has found so far; `None`: it does not read this message.
    pub(crate) fn findings(&self) -> Option<Findings> {
        self.bounce.as_ref().map(Scanner::found)
    }

    /// Why the content decides what becomes of the message, until it is decided.
    pub(crate) fn check(&self) -> Option<ContentCheck> {
        self.check
    }

    /// It is decided.
    pub(crate) fn decided(&mut self) {
        self.check = None;
    }

    /// Why the message cannot be accepted, if that is so. A binary message (RFC 3030 section 3) has no `text`.
    pub(crate) fn error(&self, text: Option<&DataScanner>, reject_stray: bool) -> Option<BodyError> {
        if let Some(too_long) = self.too_long {
            return Some(BodyError::Long(too_long));
        }
        match text? {
            text if text.saw_nul() => Some(BodyError::Nul),
            text if text.saw_stray() && reject_stray => Some(BodyError::Stray),
            _ => None,
        }
    }
}
