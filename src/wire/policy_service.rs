//! Policy requests of Postfix's smtpd (SMTPD_POLICY_README): lines of `name=value` and an empty line in, one action
//! out.

use thiserror::Error;

/// The longest request, in octets. Postfix's requests have less than 2000, but names and certificate fields may be
/// long.
pub const MAX_REQUEST: usize = 32 << 10;

/// Why input is not a request. The stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A line without `=`.
    #[error("a line that is not name=value")]
    Line,
    /// Longer than [`MAX_REQUEST`].
    #[error("a request of more than 32768 octets")]
    TooLong,
    /// Another kind of request.
    #[error("a request that is not smtpd_access_policy")]
    Kind,
}

/// A policy request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyRequest<'a> {
    /// The state of the SMTP session, such as `RCPT`.
    pub state: &'a [u8],
    /// The client's address, or `unknown`.
    pub client: &'a [u8],
    /// The envelope sender; empty: the null sender.
    pub sender: &'a [u8],
    /// The recipient in RCPT, without angle brackets.
    pub recipient: &'a [u8],
    /// The instance: the same for all recipients of a message.
    pub instance: &'a [u8],
    /// The name of the user who has logged in; empty: none.
    pub user: &'a [u8],
}

/// The first request in the input, and its length in octets; `None`: it is incomplete.
///
/// # Errors
/// The input is not a request, whatever follows.
pub fn next(input: &[u8]) -> Result<Option<(PolicyRequest<'_>, usize)>, PolicyError> {
    let mut request = PolicyRequest::default();
    let mut at = 0;
    for newline in memchr::memchr_iter(b'\n', input) {
        let line = input.get(at..newline).unwrap_or_default();
        at = newline + 1;
        if at > MAX_REQUEST {
            return Err(PolicyError::TooLong);
        }
        if line.is_empty() {
            return Ok(Some((request, at)));
        }
        let (name, value) =
            line.split_at_checked(memchr::memchr(b'=', line).ok_or(PolicyError::Line)?).ok_or(PolicyError::Line)?;
        let value = value.get(1..).unwrap_or_default();
        match name {
            b"request" if value != b"smtpd_access_policy" => return Err(PolicyError::Kind),
            b"protocol_state" => request.state = value,
            b"client_address" => request.client = value,
            b"sender" => request.sender = value,
            b"recipient" => request.recipient = value,
            b"instance" => request.instance = value,
            b"sasl_username" => request.user = value,
            // Postfix sends more attributes, and may add others.
            _ => {}
        }
    }
    if input.len() > MAX_REQUEST { Err(PolicyError::TooLong) } else { Ok(None) }
}

/// An action for smtpd (access(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessAction {
    /// No opinion: smtpd goes on.
    Dunno,
    /// Refuse, with this enhanced status code and text.
    Reject(&'static str, &'static str),
    /// Refuse temporarily, unless a later restriction refuses permanently.
    Defer(&'static str, &'static str),
    /// Refuse temporarily, whatever later restrictions say, so that they do not make a difference.
    DeferNow(&'static str, &'static str),
    /// Add this header before the message, and go on.
    Prepend(String),
}

impl AccessAction {
    /// Appends the action to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let text = match self {
            Self::Dunno => "action=DUNNO\n\n".to_owned(),
            Self::Reject(status, text) => format!("action=REJECT {status} {text}\n\n"),
            Self::Defer(status, text) => format!("action=DEFER_IF_PERMIT {status} {text}\n\n"),
            Self::DeferNow(status, text) => format!("action=DEFER {status} {text}\n\n"),
            Self::Prepend(header) => format!("action=PREPEND {header}\n\n"),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &[u8] = b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nsender=\n\
        recipient=prvs=1786abcdef=ann@our.example\nclient_address=192.0.2.1\ninstance=1a.2b.0\nsasl_username=\n\n";

    #[test]
    fn a_request_ends_with_an_empty_line() {
        for end in 0..ONE.len() {
            assert_eq!(next(&ONE[..end]), Ok(None));
        }
        let two = [ONE, b"sender=x"].concat();
        let (request, length) = next(&two).unwrap().unwrap();
        assert_eq!(length, ONE.len());
        assert_eq!(request.recipient, b"prvs=1786abcdef=ann@our.example");
        assert_eq!((request.state, request.client, request.sender), (&b"RCPT"[..], &b"192.0.2.1"[..], &b""[..]));
        assert_eq!((request.instance, request.user), (&b"1a.2b.0"[..], &b""[..]));
    }

    #[test]
    fn what_is_no_request() {
        assert_eq!(next(b"request=junk\n"), Err(PolicyError::Kind));
        assert_eq!(next(b"GET / HTTP/1.1\r\n"), Err(PolicyError::Line));
        assert_eq!(next(&[b'x'; MAX_REQUEST + 1]), Err(PolicyError::TooLong));
        assert_eq!(next(&b"a=b\n".repeat(MAX_REQUEST / 4 + 1)), Err(PolicyError::TooLong));
    }

    #[test]
    fn actions() {
        let written = |action: AccessAction| {
            let mut out = Vec::new();
            action.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(AccessAction::Dunno), "action=DUNNO\n\n");
        assert_eq!(written(AccessAction::Reject("5.7.1", "no")), "action=REJECT 5.7.1 no\n\n");
        assert_eq!(written(AccessAction::Defer("4.7.5", "later")), "action=DEFER_IF_PERMIT 4.7.5 later\n\n");
        assert_eq!(written(AccessAction::Prepend("A: b".into())), "action=PREPEND A: b\n\n");
    }

    proptest! {
        #[test]
        fn anything_can_be_read(input in "[a-z=\n]{0,60}") {
            if let Ok(Some((_, length))) = next(input.as_bytes()) {
                prop_assert!(input[..length].ends_with("\n\n") || &input[..length] == "\n");
            }
        }
    }
}
