//! What a client says: one line, one command. Only the path of MAIL and RCPT is taken apart; the rest goes on as it came.

/// The longest command line, in octets with its line end. RFC 5321 section 4.5.3.1.4 says 512 and each extension adds to
/// it; this is Postfix's limit.
pub const MAX_LINE: usize = 2048;

/// A command, as far as a proxy has to understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO or EHLO.
    Hello {
        /// Whether it was EHLO.
        extended: bool,
    },
    /// MAIL FROM.
    Mail(Path<'a>),
    /// RCPT TO.
    Rcpt(Path<'a>),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
    /// NOOP and HELP: for the next hop, without effect.
    Harmless,
    /// VRFY.
    Vrfy,
    /// A command that exists and is not offered here.
    NotOffered,
    /// XCLIENT and XFORWARD, by which a client would say who it is.
    Identity,
}

/// The argument of MAIL or RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a> {
    /// What stands between the angle brackets.
    pub path: &'a str,
    /// What follows, leading space included.
    pub params: &'a str,
}

/// Why a line is no command. The text goes into a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nobody knows it.
    #[error("command not recognized")]
    Unknown,
    /// A command with a wrong argument.
    #[error("syntax error, expected {0}")]
    Syntax(&'static str),
    /// Octets that are not UTF-8 (RFC 6531 section 3.3).
    #[error("the command is not UTF-8")]
    NotUtf8,
}

impl<'a> Command<'a> {
    /// Reads a line without its line end.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        let line = line.trim_ascii_end();
        let end = line.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
        if !rest.first().is_none_or(|b| matches!(b, b' ' | b'\t')) {
            return Err(CommandError::Unknown);
        }
        let has_argument = !rest.trim_ascii().is_empty();
        let plain = |command| if has_argument { Err(CommandError::Syntax("no argument")) } else { Ok(command) };
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        if is(b"EHLO") || is(b"HELO") {
            let hello = Self::Hello { extended: is(b"EHLO") };
            return if has_argument { Ok(hello) } else { Err(CommandError::Syntax("EHLO hostname")) };
        }
        match () {
            () if is(b"MAIL") => argument(rest, "FROM:", "MAIL FROM:<address>").map(Self::Mail),
            () if is(b"RCPT") => argument(rest, "TO:", "RCPT TO:<address>").map(Self::Rcpt),
            () if is(b"DATA") => plain(Self::Data),
            () if is(b"RSET") => plain(Self::Rset),
            () if is(b"QUIT") => plain(Self::Quit),
            () if is(b"NOOP") || is(b"HELP") => Ok(Self::Harmless),
            () if is(b"VRFY") => Ok(Self::Vrfy),
            () if is(b"XCLIENT") || is(b"XFORWARD") => Ok(Self::Identity),
            () if NOT_OFFERED.iter().any(|name| is(name)) => Ok(Self::NotOffered),
            () => Err(CommandError::Unknown),
        }
    }
}

const NOT_OFFERED: [&[u8]; 10] =
    [b"STARTTLS", b"AUTH", b"BDAT", b"BURL", b"EXPN", b"ETRN", b"ATRN", b"TURN", b"LHLO", b"SEND"];

fn argument<'a>(rest: &'a [u8], word: &str, expected: &'static str) -> Result<Path<'a>, CommandError> {
    let wrong = CommandError::Syntax(expected);
    let text = std::str::from_utf8(rest).map_err(|_| CommandError::NotUtf8)?.trim_ascii_start();
    let (head, tail) = text.split_at_checked(word.len()).ok_or(wrong)?;
    if !head.eq_ignore_ascii_case(word) {
        return Err(wrong);
    }
    // A space before the bracket is wrong and everywhere.
    let tail = tail.trim_ascii_start();
    let inner = tail.strip_prefix('<').ok_or(wrong)?;
    let end = closing_bracket(inner).ok_or(wrong)?;
    let (path, params) = (inner.get(..end).ok_or(wrong)?, inner.get(end + 1..).ok_or(wrong)?);
    if params.is_empty() || params.starts_with([' ', '\t']) { Ok(Path { path, params }) } else { Err(wrong) }
}

/// The `>` that ends a path: not one inside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' => return !quoted,
            _ => {}
        }
        false
    })
}

impl Path<'_> {
    /// Whether a parameter of that name is there (RFC 5321 section 4.1.2: `keyword[=value]`).
    #[must_use]
    pub fn has_param(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The values of a parameter; one without a value counts as empty.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let split = |word| str::split_once(word, '=').unwrap_or((word, ""));
        self.params
            .split_ascii_whitespace()
            .map(split)
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_and_parameters() {
        for (line, path, params) in [
            ("MAIL FROM:<>", "", ""),
            ("mail from: <a@b.example> SIZE=5 BODY=8BITMIME", "a@b.example", " SIZE=5 BODY=8BITMIME"),
            ("MAIL FROM:<\"a>b\"@c.example>", "\"a>b\"@c.example", ""),
            ("MAIL  FROM:<@r.example:a@b.example> ", "@r.example:a@b.example", ""),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Mail(Path { path, params })), "{line}");
        }
        let Ok(Command::Mail(mail)) = Command::parse(b"MAIL FROM:<a@b> auth=<> SIZE") else { panic!() };
        assert!(mail.has_param("AUTH") && mail.has_param("size") && !mail.has_param("BODY"));
    }

    #[test]
    fn what_is_no_command_is_told_why() {
        use CommandError::*;
        for (line, want) in [
            ("", Unknown),
            ("GET / HTTP/1.1", Unknown),
            ("MAILFROM:<a@b>", Unknown),
            ("MAIL TO:<a@b>", Syntax("MAIL FROM:<address>")),
            ("MAIL FROM:a@b", Syntax("MAIL FROM:<address>")),
            ("RCPT TO:<a@b", Syntax("RCPT TO:<address>")),
            ("RCPT TO:<a@b>x", Syntax("RCPT TO:<address>")),
            ("RCPT TO:<\"a>@b", Syntax("RCPT TO:<address>")),
            ("EHLO", Syntax("EHLO hostname")),
            ("DATA now", Syntax("no argument")),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(want), "{line}");
        }
        assert_eq!(Command::parse(b"MAIL FROM:<\xff@b>"), Err(NotUtf8));
        assert_eq!(Command::parse(b"xclient ADDR=127.0.0.1"), Ok(Command::Identity));
        assert_eq!(Command::parse(b"StartTLS"), Ok(Command::NotOffered));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Command::parse(&line);
            let _ = Command::parse(&[b"MAIL FROM:<", line.as_slice()].concat());
        }
    }
}
