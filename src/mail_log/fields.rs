//! Pieces of log lines. What a stranger may have written is among them, so nothing here trusts it.

use core::net::IpAddr;

use memchr::{memchr, memmem, memrchr};

use crate::envelope::printable::printable;

/// What stands behind `key`, to the end.
pub(super) fn after<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    text.get(memmem::find(text, key)? + key.len()..)
}

/// What stands between `key` and the next `end`, or the end of the text.
pub(super) fn between<'a>(text: &'a [u8], key: &[u8], end: u8) -> Option<&'a [u8]> {
    after(text, key).map(|rest| until(rest, end))
}

/// What stands before the first `end`, or everything.
pub(super) fn until(text: &[u8], end: u8) -> &[u8] {
    memchr(end, text).and_then(|at| text.get(..at)).unwrap_or(text)
}

/// What stands before and behind the first `separator`.
pub(super) fn cut(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(separator, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// What stands before and behind the first `separator`.
pub(super) fn cut_at<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memmem::find(text, separator)?;
    Some((text.get(..at)?, text.get(at + separator.len()..)?))
}

/// An address in angle brackets at the beginning of a text.
pub(super) fn path(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"<").and_then(|rest| address(rest, b'>')).map(|(address, _)| address)
}

/// An address before `end`, and what is behind that. A quoted local part may contain anything.
pub(super) fn address(text: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    if !text.starts_with(b"\"") {
        return cut(text, end);
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    let ends = |octet: &u8| {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            octet if !is_quoted && *octet == end => return true,
            _ => {}
        }
        false
    };
    // Without the other quotation mark, nothing is quoted.
    match text.iter().position(ends) {
        Some(at) => Some((text.get(..at)?, text.get(at + 1..)?)),
        None => cut(text, end),
    }
}

/// Whether a text contains another one, whatever the case of its letters. `word` is in lower case.
pub(super) fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// The address in `name[192.0.2.7]` or `name [192.0.2.7]`.
pub(super) fn bracketed_ip(text: &[u8]) -> Option<IpAddr> {
    let close = memrchr(b']', text)?;
    let inner = text.get(..close)?;
    ip(inner.get(memrchr(b'[', inner)? + 1..)?)
}

/// An address of the internet, as mail servers write it.
pub(super) fn ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix("IPv6:").unwrap_or(text);
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// A reply code and an enhanced one at the beginning of a reply, and the words behind them.
pub(super) fn codes(reply: &[u8]) -> (Option<u16>, Option<[u16; 3]>, &[u8]) {
    let code = reply.get(..3).and_then(number);
    // A line that is not the last one of a reply has a hyphen.
    let is_apart = matches!(reply.get(3), None | Some(b' ' | b'-'));
    let code = code.filter(|_| is_apart);
    let rest = if code.is_some() { reply.get(4..).unwrap_or(b"") } else { reply };
    let (word, words) = cut(rest, b' ').unwrap_or((rest, b""));
    match enhanced(word) {
        Some(enhanced) => (code, Some(enhanced), words),
        None => (code, None, rest),
    }
}

/// An enhanced status code (RFC 3463): `5.1.1`.
pub(super) fn enhanced(word: &[u8]) -> Option<[u16; 3]> {
    let mut parts = word.split(|octet| *octet == b'.').map(number);
    let code = [parts.next()??, parts.next()??, parts.next()??];
    let has_class = [2, 4, 5].contains(code.first()?);
    (has_class && parts.next().is_none()).then_some(code)
}

fn number(text: &[u8]) -> Option<u16> {
    if text.is_empty() || text.len() > 3 {
        return None;
    }
    text.iter().try_fold(0, |sum, octet| octet.is_ascii_digit().then(|| sum * 10 + u16::from(octet - b'0')))
}

/// The name of a queued message, as Postfix and Sendmail write it, if a text begins with one.
pub(super) fn queue_id(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = text.iter().take(25).take_while(|octet| octet.is_ascii_alphanumeric()).count();
    let (id, rest) = (text.get(..length)?, text.get(length..)?.strip_prefix(b": ")?);
    // Words in the same place have no digit.
    (length >= 5 && id.iter().any(u8::is_ascii_digit)).then_some((id, rest))
}

/// The domain of an address, as it is written.
pub(super) fn domain_of(address: &[u8]) -> &[u8] {
    address.iter().rposition(|octet| *octet == b'@').and_then(|at| address.get(at + 1..)).unwrap_or(b"")
}

/// A text as it is shown. What a terminal would obey is replaced.
pub(super) fn text_of(text: &[u8]) -> String {
    printable(&String::from_utf8_lossy(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found() {
        assert_eq!(between(b"a, from=<x@y>, z", b"from=<", b'>'), Some(&b"x@y"[..]));
        assert_eq!(between(b"from=<x", b"from=<", b'>'), Some(&b"x"[..]));
        assert_eq!(bracketed_ip(b"mx.example[2001:db8::1]:25"), "2001:db8::1".parse().ok());
        assert_eq!(bracketed_ip(b"unknown[IPv6:::ffff:192.0.2.7]"), "192.0.2.7".parse().ok());
        assert_eq!(bracketed_ip(b"mx"), None);
        assert_eq!(codes(b"550 5.1.1 <x>: no"), (Some(550), Some([5, 1, 1]), &b"<x>: no"[..]));
        assert_eq!(codes(b"550-5.7.26 no"), (Some(550), Some([5, 7, 26]), &b"no"[..]));
        assert_eq!(codes(b"550 no such user"), (Some(550), None, &b"no such user"[..]));
        assert_eq!(codes(b"5.7.1 Relaying"), (None, Some([5, 7, 1]), &b"Relaying"[..]));
        assert_eq!(codes(b"3.1.1 x"), (None, None, &b"3.1.1 x"[..]));
        assert_eq!(queue_id(b"4Vx1Bz0QpzzW: from=<>"), Some((&b"4Vx1Bz0QpzzW"[..], &b"from=<>"[..])));
        assert_eq!(address(b"a>b", b'>'), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(address(br#""a>\"b"@c> d"#, b'>'), Some((&br#""a>\"b"@c"#[..], &b" d"[..])));
        assert_eq!(address(br#""a>b"#, b'>'), Some((&br#""a"#[..], &b"b"[..])));
        assert_eq!(queue_id(b"warning: x"), None);
        assert_eq!(queue_id(b"connect from x"), None);
        assert!(has(b"User Unknown in table", b"user unknown") && !has(b"user", b"user unknown"));
    }
}
