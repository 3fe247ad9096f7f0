//! Replies of the next hop: lines that begin with a three-digit code. In the last line, a space follows it.

use std::fmt::Write as _;

/// The longest line of a reply, in octets. RFC 5321 section 4.5.3.1.5 says 512, but servers write longer ones.
const MAX_LINE: usize = 4096;
/// The longest reply, in octets of all lines.
const MAX_REPLY: usize = 64 << 10;

/// A complete reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The reply code, 200 to 599.
    pub code: u16,
    /// The lines as they are sent to a client, each with CR LF.
    pub text: Vec<u8>,
}

impl Reply {
    /// A reply of one line.
    #[must_use]
    pub fn new(code: u16, status: &str, text: &str) -> Self {
        let mut line = String::with_capacity(text.len() + 16);
        let space = if status.is_empty() { "" } else { " " };
        let _ = write!(line, "{code} {status}{space}{text}\r\n");
        Self { code, text: line.into_bytes() }
    }

    /// Whether the code is 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the code is 5xx.
    #[must_use]
    pub(crate) fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The first line as text, for a log.
    #[must_use]
    pub fn first_line(&self) -> String {
        let line = self.text.split(|&b| b == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// The last line as text, for a log.
    #[must_use]
    pub fn last_line(&self) -> String {
        let mut lines = self.text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end);
        let line = lines.rfind(|line| !line.is_empty()).unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// The text of each line, without code, separator and line end.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|&b| b == b'\n').filter_map(|line| line.trim_ascii_end().get(4..))
    }

    /// Whether a reply to EHLO offers an extension.
    #[must_use]
    pub(crate) fn offers(&self, extension: &[u8]) -> bool {
        self.lines().any(|line| {
            line.split(|octet| *octet == b' ').next().is_some_and(|word| word.eq_ignore_ascii_case(extension))
        })
    }
}

/// Whether a reply to RCPT says, or may say, that there is no such user.
pub(crate) fn is_unknown_user(reply: &str) -> bool {
    matches!(user_of(reply), User::Unknown | User::Doubtful)
}

/// What a reply to RCPT says about the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// The user exists; the mailbox may be full.
    Known,
    /// There is no such user.
    Unknown,
    /// A refusal without an enhanced code. Some servers refuse unknown users like that, and clients, too.
    Doubtful,
    /// The reply says nothing about the user.
    NotSaid,
}

/// What a reply to RCPT says about the user, by its enhanced code (RFC 3463 section 3): 5.1.1 and 5.1.6, 5.1.10
/// (Exchange), 5.2.1 (disabled) and 5.4.1 (Exchange Online) are about the recipient; other codes of 5.1 may be about
/// the sender.
pub(crate) fn user_of(reply: &str) -> User {
    if !matches!(reply.as_bytes().get(3), Some(b' ' | b'-')) {
        return User::NotSaid;
    }
    let code = reply.get(..3).unwrap_or_default();
    let word = reply.get(4..).and_then(|text| text.split(' ').next()).unwrap_or_default();
    let has_status = word.split('.').count() == 3 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    match (code, word) {
        _ if code.starts_with('2') || (has_status && word.ends_with(".2.2")) => User::Known,
        (_, "5.1.1" | "5.1.6" | "5.1.10" | "5.2.1" | "5.4.1") if code.starts_with('5') => User::Unknown,
        ("552", _) if !has_status => User::Known,
        ("550" | "551" | "553", _) if !has_status => User::Doubtful,
        _ => User::NotSaid,
    }
}

/// Why the next hop's output is not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyError {
    /// A line without a valid code, or with another code than the line before.
    #[error("the next hop said something that is no SMTP reply")]
    Garbage,
    /// A line or reply that exceeds the limits.
    #[error("the next hop's reply is too long")]
    TooLong,
}

/// Assembles replies from octets.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    line: Vec<u8>,
    text: Vec<u8>,
    code: u16,
}

impl ReplyReader {
    /// Reads octets up to the end of one reply, and returns how many were read. Has to be called again with the rest.
    ///
    /// # Errors
    /// See [`ReplyError`]; the reader cannot be used after an error.
    pub(crate) fn push(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let end = memchr::memchr(b'\n', rest);
            let part = rest.get(..end.map_or(rest.len(), |e| e + 1)).unwrap_or(rest);
            self.line.extend_from_slice(part);
            used += part.len();
            if self.line.len() > MAX_LINE || self.text.len() > MAX_REPLY {
                return Err(ReplyError::TooLong);
            }
            if end.is_some() && self.take_line()? {
                let text = std::mem::take(&mut self.text);
                return Ok((used, Some(Reply { code: self.code, text })));
            }
        }
        Ok((used, None))
    }

    /// Parses the buffered line. Returns whether it was the last line of a reply.
    fn take_line(&mut self) -> Result<bool, ReplyError> {
        let line = self.line.trim_ascii_end();
        let (digits, rest) = line.split_at_checked(3).ok_or(ReplyError::Garbage)?;
        let code =
            std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u16>().ok()).filter(|c| (200..600).contains(c));
        let code = code.ok_or(ReplyError::Garbage)?;
        let more = match rest.first() {
            Some(b'-') => true,
            Some(b' ') | None => false,
            Some(_) => return Err(ReplyError::Garbage),
        };
        if !self.text.is_empty() && code != self.code {
            return Err(ReplyError::Garbage);
        }
        self.code = code;
        self.text.extend_from_slice(digits);
        self.text.push(if more { b'-' } else { b' ' });
        // A CR inside a line must not end the line for the client. A NUL is replaced as well.
        let safe = |b: &u8| if matches!(b, b'\r' | 0) { b' ' } else { *b };
        self.text.extend(rest.get(1..).unwrap_or_default().iter().map(safe));
        self.text.extend_from_slice(b"\r\n");
        self.line.clear();
        Ok(!more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extensions_are_whole_words() {
        let hello = Reply { code: 250, text: b"250-x\r\n250-SIZE 100\r\n250 starttls\r\n".to_vec() };
        assert!(hello.offers(b"STARTTLS") && hello.offers(b"SIZE") && !hello.offers(b"8BITMIME"));
    }

    fn read(text: &[u8], size: usize) -> Result<Vec<Reply>, ReplyError> {
        let (mut reader, mut replies) = (ReplyReader::default(), Vec::new());
        for mut piece in text.chunks(size) {
            while !piece.is_empty() {
                let (used, reply) = reader.push(piece)?;
                piece = &piece[used..];
                replies.extend(reply);
            }
        }
        Ok(replies)
    }

    #[test]
    fn replies_are_put_together_whatever_the_pieces() {
        let text = b"220 mx.example ESMTP\r\n250-mx.example\r\n250-SIZE 100\r\n250 DSN\r\n354\r\n550 5.1.1 no\n";
        for size in 1..text.len() {
            let replies = read(text, size).unwrap();
            assert_eq!(replies.iter().map(|r| r.code).collect::<Vec<_>>(), [220, 250, 354, 550]);
            assert_eq!(replies[1].lines().collect::<Vec<_>>(), [b"mx.example".as_slice(), b"SIZE 100", b"DSN"]);
            assert_eq!(replies[2].text, b"354 \r\n");
            assert_eq!(replies[3].text, b"550 5.1.1 no\r\n");
        }
    }

    #[test]
    fn unknown_users_are_told_from_other_refusals() {
        for reply in [
            "550 5.1.1 no such user",
            "550-5.1.6 moved",
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound",
            "550 no such user here",
            "550 <x@y>: unknown",
        ] {
            assert!(is_unknown_user(reply), "{reply}");
        }
        for reply in [
            "550 5.7.1 relaying denied",
            "550 5.1.8 bad sender",
            "450 4.1.1 later",
            "250 2.1.5 ok",
            "550",
            "5501 x",
            "",
        ] {
            assert!(!is_unknown_user(reply), "{reply}");
        }
    }

    #[test]
    fn a_reply_says_whether_a_user_exists() {
        for (reply, user) in [
            ("250 2.1.5 Ok", User::Known),
            ("252 2.0.0 cannot verify", User::Known),
            ("452 4.2.2 mailbox full", User::Known),
            ("552 5.2.2 over quota", User::Known),
            ("552 mailbox full", User::Known),
            ("550 5.1.1 no", User::Unknown),
            ("554 5.1.1 no", User::Unknown),
            ("551 5.1.6 moved", User::Unknown),
            ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", User::Unknown),
            ("550 5.4.1 Recipient address rejected: Access denied", User::Unknown),
            ("550 5.2.1 disabled", User::Unknown),
            ("550 no such user", User::Doubtful),
            ("550-relay not permitted", User::Doubtful),
            ("553 not here", User::Doubtful),
            ("550 5.7.1 relaying denied", User::NotSaid),
            ("550 5.1.8 sender domain", User::NotSaid),
            ("550 5.1.7 bad sender", User::NotSaid),
            ("554 5.7.1 client host blocked", User::NotSaid),
            ("554 no", User::NotSaid),
            ("452 too many recipients", User::NotSaid),
            ("450 4.2.0 greylisted", User::NotSaid),
            ("450 4.1.1 being verified", User::NotSaid),
            ("421 4.3.2 shutting down", User::NotSaid),
            ("550", User::NotSaid),
            ("5501 x", User::NotSaid),
            ("", User::NotSaid),
        ] {
            assert_eq!(user_of(reply), user, "{reply}");
        }
    }

    #[test]
    fn a_hostile_next_hop_splits_no_replies() {
        assert_eq!(read(b"250 ok\r250 more\r\n", 99).unwrap()[0].text, b"250 ok 250 more\r\n");
        for garbage in ["hello\r\n", "99 x\r\n", "250x\r\n", "250-a\r\n251 b\r\n", "\r\n", "600 x\r\n", "150 x\r\n"] {
            assert_eq!(read(garbage.as_bytes(), 99), Err(ReplyError::Garbage), "{garbage:?}");
        }
        assert_eq!(read(&[b'2'; 5000], 99), Err(ReplyError::TooLong));
        assert_eq!(read(&b"250-x\r\n".repeat(20_000), 99), Err(ReplyError::TooLong));
    }

    proptest! {
        #[test]
        fn any_octets_are_read(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&text, 7);
        }
    }
}
