//! Inspection of messages by DATA or BDAT: their size, forbidden octets, and their content.

use crate::envelope::bounce::{Findings, Scanner};
use crate::envelope::rules::ContentCheck;
use crate::wire::smtp::data::DataScanner;
use crate::wire::smtp::replies::{HEADER_TOO_LONG, MESSAGE_TOO_LONG, NUL, STRAY_LINE_END};
use crate::wire::smtp::reply::Reply;
use crate::wire::smtp::session::types::SessionLimits;
use crate::wire::smtp::size_limits::{Meter, TooLong};

/// Why a message cannot be accepted, regardless of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The message contains NUL (RFC 5321 section 4.5.2).
    Nul,
    /// The message has a line end other than CR LF, and the config has `stray_newline = "reject"`.
    Stray,
    /// The message or its header block exceeds the size limit.
    Long(TooLong),
}

impl BodyError {
    /// The reply to the client.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::Nul => NUL.reply(),
            Self::Stray => STRAY_LINE_END.reply(),
            Self::Long(TooLong::Header) => HEADER_TOO_LONG.reply(),
            Self::Long(TooLong::Message) => MESSAGE_TOO_LONG.reply(),
        }
    }

    /// The name in the config of the limit that was exceeded.
    pub(crate) fn limit(self) -> Option<&'static str> {
        match self {
            Self::Long(TooLong::Header) => Some("header"),
            Self::Long(TooLong::Message) => Some("message"),
            Self::Nul | Self::Stray => None,
        }
    }
}

/// The inspector of one message.
#[derive(Debug)]
pub(crate) struct Inspector {
    meter: Meter,
    too_long: Option<TooLong>,
    bounce: Option<Scanner>,
    check: Option<ContentCheck>,
}

impl Inspector {
    /// An inspector for a message that is delivered regardless of its content.
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self { meter: Meter::new(limits.header, limits.message), too_long: None, bounce: None, check: None }
    }

    /// Adds the classifier. `check`: why its verdict decides; `None`: its findings are for the log only.
    pub(crate) fn classifying(self, scanner: Scanner, check: Option<ContentCheck>) -> Self {
        Self { bounce: Some(scanner), check, ..self }
    }

    /// Inspects the next octets.
    pub(crate) fn push(&mut self, part: &[u8]) {
        self.too_long = self.too_long.or(self.meter.push(part));
        if let Some(bounce) = &mut self.bounce {
            bounce.push(part);
        }
    }

    /// Inspects the end of the message.
    pub(crate) fn finish(&mut self) {
        if let Some(bounce) = &mut self.bounce {
            bounce.finish();
        }
    }

    /// Drops the classifier and its memory.
    pub(crate) fn stop_classifying(&mut self) {
        self.bounce = None;
    }

    /// The number of octets so far.
    pub(crate) fn octets(&self) -> u64 {
        self.meter.octets()
    }

    /// The Message-ID, with its angle brackets, as far as it was read.
    pub(crate) fn message_id(&self) -> Option<String> {
        self.meter.message_id()
    }

    /// The classifier's findings so far; `None` without a classifier.
    pub(crate) fn findings(&self) -> Option<Findings> {
        self.bounce.as_ref().map(Scanner::found)
    }

    /// Why the content decides about the message; `None` if it does not, or is decided already.
    pub(crate) fn check(&self) -> Option<ContentCheck> {
        self.check
    }

    /// Records that the message is decided.
    pub(crate) fn decided(&mut self) {
        self.check = None;
    }

    /// Why the message cannot be accepted, if so. `text` is `None` for a binary message (RFC 3030 section 3).
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
