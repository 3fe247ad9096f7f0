//! The fields of a delivery status notification (RFC 3464 section 2, RFC 6533): recipients, and the status of their
//! delivery.

use super::decode::words;
use super::lines::Piece;
use super::mime::{field, without_comments};

/// Maximum number of recipients that are kept. The others still count in [`DsnStatus::worst`].
const MAX_RECIPIENTS: usize = 20;
/// Maximum length of a value, in octets.
const MAX_VALUE: usize = 512;

/// The delivery status of a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DsnAction {
    /// The message was delivered, relayed or expanded.
    Delivered,
    /// The message was not delivered yet; delivery is still tried.
    Delayed,
    /// The message was not delivered, and delivery is no longer tried.
    Failed,
}

impl DsnAction {
    /// `delivered`, `delayed` or `failed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Delayed => "delayed",
            Self::Failed => "failed",
        }
    }

    /// Reads the five words of RFC 3464 section 2.3.3, and those that some servers use instead.
    fn read(value: &[u8]) -> Option<Self> {
        let word = value.split(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
        let is = |stems: &[&str]| stems.iter().any(|stem| word.starts_with(stem.as_bytes()));
        if is(&["fail", "error", "reject", "bounce", "undeliver", "refus", "expired", "hardbounce", "softbounce"]) {
            Some(Self::Failed)
        } else if is(&["delay", "defer", "warn", "retry", "transient"]) {
            Some(Self::Delayed)
        } else if is(&["deliver", "relay", "expand", "success"]) {
            Some(Self::Delivered)
        } else {
            None
        }
    }

    /// The action that the first digit of an enhanced status code implies (RFC 3463 section 2).
    fn of_status(status: &str) -> Option<Self> {
        match status.trim_start().as_bytes().first() {
            Some(b'5') => Some(Self::Failed),
            Some(b'4') => Some(Self::Delayed),
            Some(b'2') => Some(Self::Delivered),
            _ => None,
        }
    }
}

/// The fields of one recipient, as the notification claims them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DsnRecipient {
    /// The status of the delivery (`Action`).
    pub action: Option<DsnAction>,
    /// The enhanced status code (`Status`, RFC 3463).
    pub status: Option<String>,
    /// The recipient as known to the reporting server (`Final-Recipient`).
    pub final_recipient: Option<String>,
    /// The recipient as given by the sender (`Original-Recipient`).
    pub original_recipient: Option<String>,
}

impl DsnRecipient {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn outcome(&self) -> Option<DsnAction> {
        self.action.or_else(|| self.status.as_deref().and_then(DsnAction::of_status))
    }
}

/// A delivery status part, read line by line.
#[derive(Debug, Clone, Default)]
pub struct DsnStatus {
    recipients: Vec<DsnRecipient>,
    current: DsnRecipient,
    /// The name of a field whose value is still missing: some servers put it on the next line.
    empty: Vec<u8>,
    worst: Option<DsnAction>,
    /// Number of fields of RFC 3464 read so far.
    fields: u32,
}

impl DsnStatus {
    pub(super) fn line(&mut self, piece: Piece<'_>) {
        if !piece.first {
            return;
        }
        if piece.text.trim_ascii().is_empty() {
            return self.recipient_done();
        }
        let folded = piece.text.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        let name = std::mem::take(&mut self.empty);
        let (name, value) = match field(piece.text) {
            _ if folded && !name.is_empty() => (name, piece.text.trim_ascii()),
            Some((name, [])) => {
                self.empty = name.get(..MAX_VALUE).unwrap_or(name).to_vec();
                return;
            }
            Some((name, value)) if !folded => (name.to_vec(), value),
            _ => return,
        };
        // Comments may precede the value (RFC 822), and some servers use encoded words even here.
        let plain = without_comments(words(value.get(..MAX_VALUE).unwrap_or(value)).as_bytes());
        let value = plain.trim_ascii();
        // `rfc822; ann@our.example`
        let address = || {
            let address = value.iter().position(|&b| b == b';').and_then(|at| value.get(at + 1..)).unwrap_or(value);
            let address = String::from_utf8_lossy(address.trim_ascii()).into_owned();
            Some(address.trim_matches(['<', '>']).to_owned())
        };
        let current = &mut self.current;
        match name.to_ascii_lowercase().as_slice() {
            // Of two contradicting actions, the worse one counts.
            b"action" => current.action = current.action.max(DsnAction::read(value)),
            b"status" => {
                current.status.get_or_insert_with(|| String::from_utf8_lossy(value).into_owned());
            }
            b"final-recipient" => {
                // The blank line between two recipients may be missing.
                if current.final_recipient.is_some() {
                    self.recipient_done();
                }
                self.current.final_recipient = address();
            }
            b"original-recipient" => current.original_recipient = address(),
            b"reporting-mta" | b"arrival-date" | b"diagnostic-code" | b"remote-mta" | b"last-attempt-date" => {}
            _ => return,
        }
        self.fields += 1;
    }

    pub(super) fn recipient_done(&mut self) {
        let recipient = std::mem::take(&mut self.current);
        if recipient.is_empty() {
            return;
        }
        self.worst = self.worst.max(recipient.outcome());
        if self.recipients.len() < MAX_RECIPIENTS {
            self.recipients.push(recipient);
        }
    }

    /// Whether no field has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields == 0
    }

    /// The worst status of all recipients.
    #[must_use]
    pub fn worst(&self) -> Option<DsnAction> {
        self.worst.max(self.current.outcome())
    }

    /// The first twenty recipients.
    #[must_use]
    pub fn recipients(&self) -> &[DsnRecipient] {
        &self.recipients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> DsnStatus {
        let mut status = DsnStatus::default();
        text.lines().for_each(|line| status.line(Piece::whole(line.as_bytes())));
        status.recipient_done();
        status
    }

    #[test]
    fn each_recipient_and_the_worst_of_them() {
        let status = read(
            "Reporting-MTA: dns; mx.third.example\n\nFinal-Recipient: rfc822; <a@third.example>\nAction: delayed\n\
             Status: 4.4.1\n\nOriginal-Recipient: rfc822;b@third.example\nFinal-Recipient: RFC822; c@third.example\n\
             ACTION : Failed (gone)\nStatus: 5.1.1\n",
        );
        assert_eq!(status.worst(), Some(DsnAction::Failed));
        let [a, b] = status.recipients() else { panic!("{status:?}") };
        assert_eq!((a.final_recipient.as_deref(), a.action), (Some("a@third.example"), Some(DsnAction::Delayed)));
        assert_eq!(b.original_recipient.as_deref(), Some("b@third.example"));
        assert_eq!(b.status.as_deref(), Some("5.1.1"));
    }

    #[test]
    fn what_is_left_out_is_read_from_what_is_there() {
        assert_eq!(read("Status: 5.0.0").worst(), Some(DsnAction::Failed));
        assert_eq!(read("Final-Recipient: rfc822;a\nAction: x\nStatus: 4.2.2").worst(), Some(DsnAction::Delayed));
        let two = read("Final-Recipient: rfc822;a\nAction: relayed\nFinal-Recipient: rfc822;b\nAction: expanded");
        assert_eq!((two.recipients().len(), two.worst()), (2, Some(DsnAction::Delivered)));
        assert_eq!(read("Reporting-MTA: dns; x").worst(), None);
        assert!(!read("Reporting-MTA: dns; x").is_empty() && read("Hello: x\n\nyou").is_empty());
    }

    #[test]
    fn nothing_hides_what_failed() {
        for text in [
            "Action: failed\nAction: delivered",
            "Action:\n failed",
            "Action: (it) failed",
            "Action: =?utf-8?q?failed?=",
            "Status:\n\t5.1.1",
            "Status: (x) 5.1.1",
        ] {
            assert_eq!(read(text).worst(), Some(DsnAction::Failed), "{text}");
        }
    }

    #[test]
    fn only_so_many_are_kept() {
        let status = read(&"Final-Recipient: rfc822; a@b.example\nAction: failed\n\n".repeat(500));
        assert_eq!(status.recipients().len(), MAX_RECIPIENTS);
    }
}
