//! Commands of a client, one per line. Only the path of MAIL and RCPT is parsed; everything else passes unchanged.

/// The longest line of an AUTH dialogue, in octets with its line end (RFC 4954 section 4).
pub(crate) const MAX_AUTH_LINE: usize = 12_288;

/// The verb with which a client greets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// HELO: no extensions.
    Helo,
    /// EHLO: with extensions.
    Ehlo,
    /// LHLO, of LMTP (RFC 2033).
    Lhlo,
}

/// A command, as far as a proxy has to understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// HELO, EHLO or LHLO.
    Hello(Verb),
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
    /// NOOP and HELP: passed to the next hop, without effect.
    Harmless,
    /// VRFY.
    Vrfy,
    /// EXPN, which is not offered.
    Expn,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth,
    /// BDAT (RFC 3030): a chunk of the message follows.
    Bdat {
        /// Octets in the chunk.
        size: u64,
        /// Whether this is the last chunk of the message.
        last: bool,
    },
    /// A known command that is not offered here.
    NotOffered,
    /// XCLIENT with its attributes: names the client that the connection is for.
    XClient(&'a str),
    /// XFORWARD with its attributes: names the client from which forwarded mail came.
    XForward(&'a str),
}

/// The argument of MAIL or RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    /// The text between the angle brackets.
    pub path: &'a str,
    /// The parameters, with the space before them.
    pub params: &'a str,
}

/// Why a line is not a command. The text is sent in the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// A verb that is not known.
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
    /// Parses a line without its line end.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        let line = line.trim_ascii_end();
        let end = line.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
        if !rest.first().is_none_or(|b| matches!(b, b' ' | b'\t')) {
            return Err(CommandError::Unknown);
        }
        let has_argument = !rest.trim_ascii().is_empty();
        let plain = |command| if has_argument { Err(CommandError::Syntax("no argument")) } else { Ok(command) };
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        let hello =
            |verb, expected| if has_argument { Ok(Self::Hello(verb)) } else { Err(CommandError::Syntax(expected)) };
        let text = || std::str::from_utf8(rest).map(str::trim_ascii).map_err(|_| CommandError::NotUtf8);
        match () {
            () if is(b"EHLO") => hello(Verb::Ehlo, "EHLO hostname"),
            () if is(b"HELO") => hello(Verb::Helo, "HELO hostname"),
            () if is(b"LHLO") => hello(Verb::Lhlo, "LHLO hostname"),
            () if is(b"MAIL") => argument(rest, "FROM:", "MAIL FROM:<address>").map(Self::Mail),
            () if is(b"RCPT") => argument(rest, "TO:", "RCPT TO:<address>").map(Self::Rcpt),
            () if is(b"DATA") => plain(Self::Data),
            () if is(b"RSET") => plain(Self::Rset),
            // QUIT is accepted with any argument.
            () if is(b"QUIT") => Ok(Self::Quit),
            () if is(b"NOOP") || is(b"HELP") => Ok(Self::Harmless),
            () if is(b"VRFY") && !has_argument => Err(CommandError::Syntax("VRFY user")),
            () if is(b"VRFY") => Ok(Self::Vrfy),
            () if is(b"EXPN") => Ok(Self::Expn),
            () if is(b"STARTTLS") => plain(Self::StartTls),
            () if is(b"AUTH") => {
                if has_argument {
                    Ok(Self::Auth)
                } else {
                    Err(CommandError::Syntax("AUTH mechanism"))
                }
            }
            () if is(b"BDAT") => bdat(text()?),
            () if is(b"XCLIENT") => text().map(Self::XClient),
            () if is(b"XFORWARD") => text().map(Self::XForward),
            () if NOT_OFFERED.iter().any(|name| is(name)) => Ok(Self::NotOffered),
            () => Err(CommandError::Unknown),
        }
    }
}

const NOT_OFFERED: [&[u8]; 7] = [b"BURL", b"ETRN", b"ATRN", b"TURN", b"SEND", b"SOML", b"SAML"];

/// The error about a BDAT command that cannot be parsed. It is then unknown where the next command begins.
pub(crate) const BDAT_SYNTAX: CommandError = CommandError::Syntax("BDAT size [LAST]");

fn bdat<'a>(text: &str) -> Result<Command<'a>, CommandError> {
    let mut words = text.split_ascii_whitespace();
    let size = words.next().filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok());
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(BDAT_SYNTAX),
    };
    match (size, words.next()) {
        (Some(size), None) => Ok(Command::Bdat { size, last }),
        _ => Err(BDAT_SYNTAX),
    }
}

fn argument<'a>(rest: &'a [u8], word: &str, expected: &'static str) -> Result<Path<'a>, CommandError> {
    let wrong = CommandError::Syntax(expected);
    let text = std::str::from_utf8(rest).map_err(|_| CommandError::NotUtf8)?.trim_ascii_start();
    let (head, tail) = text.split_at_checked(word.len()).ok_or(wrong)?;
    if !head.eq_ignore_ascii_case(word) {
        return Err(wrong);
    }
    // A space before the bracket is a syntax error, but common.
    let tail = tail.trim_ascii_start();
    let Some(inner) = tail.strip_prefix('<') else {
        // Many clients omit the brackets, and servers accept that.
        let end = tail.find([' ', '\t']).unwrap_or(tail.len());
        let (path, params) = tail.split_at_checked(end).ok_or(wrong)?;
        let plain = !path.is_empty() && !path.contains(['<', '>', '"', '\\']) && are_params(params);
        return if plain { Ok(Path { path, params }) } else { Err(wrong) };
    };
    let end = closing_bracket(inner).ok_or(wrong)?;
    let (path, params) = (inner.get(..end).ok_or(wrong)?, inner.get(end + 1..).ok_or(wrong)?);
    if (params.is_empty() || params.starts_with([' ', '\t'])) && are_params(params) {
        Ok(Path { path, params })
    } else {
        Err(wrong)
    }
}

/// Whether all parameters have the form `keyword[=value]` (RFC 5321 section 4.1.2). The next hop checks the values.
fn are_params(params: &str) -> bool {
    params.split_ascii_whitespace().all(|word| {
        let keyword = word.split_once('=').map_or(word, |(keyword, _)| keyword);
        !keyword.is_empty() && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// The position of the `>` that ends a path. One in a quoted string does not.
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
    /// Whether there is a parameter of this name (RFC 5321 section 4.1.2: `keyword[=value]`).
    #[must_use]
    pub(crate) fn has_param(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The values of all parameters of this name. A parameter without a value counts as empty.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
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
            ("MAIL FROM:a@b.example SIZE=3", "a@b.example", " SIZE=3"),
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
            ("MAIL FROM:", Syntax("MAIL FROM:<address>")),
            ("MAIL FROM:a@b>", Syntax("MAIL FROM:<address>")),
            ("MAIL FROM:\"a\"@b", Syntax("MAIL FROM:<address>")),
            ("RCPT TO:<a@b", Syntax("RCPT TO:<address>")),
            ("RCPT TO:<a@b>x", Syntax("RCPT TO:<address>")),
            ("MAIL FROM:<a@b> RCPT TO:<c@d>", Syntax("MAIL FROM:<address>")),
            ("MAIL FROM:<a@b> =x", Syntax("MAIL FROM:<address>")),
            ("RCPT TO:<\"a>@b", Syntax("RCPT TO:<address>")),
            ("EHLO", Syntax("EHLO hostname")),
            ("DATA now", Syntax("no argument")),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(want), "{line}");
        }
        assert_eq!(Command::parse(b"MAIL FROM:<\xff@b>"), Err(NotUtf8));
        assert_eq!(Command::parse(b"xclient ADDR=127.0.0.1"), Ok(Command::XClient("ADDR=127.0.0.1")));
        assert_eq!(Command::parse(b"StartTLS"), Ok(Command::StartTls));
        assert_eq!(Command::parse(b"StartTLS now"), Err(Syntax("no argument")));
        assert_eq!(Command::parse(b"lhlo x"), Ok(Command::Hello(Verb::Lhlo)));
    }

    #[test]
    fn chunks_have_a_size() {
        assert_eq!(Command::parse(b"BDAT 100"), Ok(Command::Bdat { size: 100, last: false }));
        assert_eq!(Command::parse(b"bdat 0 last "), Ok(Command::Bdat { size: 0, last: true }));
        for wrong in
            ["BDAT", "BDAT LAST", "BDAT -1", "BDAT +1", "BDAT 1 LAST x", "BDAT 1 FIRST", "BDAT 99999999999999999999"]
        {
            assert_eq!(Command::parse(wrong.as_bytes()), Err(BDAT_SYNTAX), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Command::parse(&line);
            let _ = Command::parse(&[b"MAIL FROM:<", line.as_slice()].concat());
        }
    }
}
