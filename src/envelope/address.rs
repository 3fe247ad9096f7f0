//! Envelope addresses: the reverse-path of MAIL and the forward-path of RCPT.
//!
//! An address is kept exactly as received, because an address that is not edited must be sent on unchanged. Comparisons
//! and MACs use a canonical form, which is made when it is needed.

use std::borrow::Cow;
use std::fmt;

/// The longest address that is accepted, in octets. RFC 5321 section 4.5.3.1.3 allows 256 for a path, but peers write
/// longer ones, such as an SRS address around a long local part.
pub const MAX_ADDRESS: usize = 1024;

/// The longest local part allowed by RFC 5321 section 4.5.3.1.1, in octets, quotes included.
pub const MAX_LOCAL_PART: usize = 64;

/// Why a text is not an address. The message says what is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is empty.
    #[error("the address is empty; expected local-part@domain")]
    Empty,
    /// There is no `@` outside quotes.
    #[error("the address has no domain; expected local-part@domain")]
    NoDomain,
    /// There is nothing before the `@`, or only quotes.
    #[error("the address has no local part; expected local-part@domain")]
    NoLocalPart,
    /// An octet that is not allowed at its place.
    #[error("{} is not allowed here in an address; quote the local part or leave it out", octet_name(*.0))]
    BadOctet(u8),
    /// A blank or tab before or after the address.
    #[error("the address begins or ends with a blank; remove it")]
    Blank,
    /// A control character or line separator outside ASCII, which some programs take for a line end.
    #[error("control characters are not allowed in an address")]
    Control,
    /// A quoted string without an end.
    #[error("a quote is opened in the local part and not closed")]
    OpenQuote,
    /// More than [`MAX_ADDRESS`] octets.
    #[error("the address is longer than {MAX_ADDRESS} octets")]
    TooLong,
    /// A domain that begins with a dot, or has two dots in a row.
    #[error("the domain has a dot with nothing before it")]
    EmptyLabel,
    /// An address literal `[…]` of the wrong form (RFC 5321 section 4.1.3).
    #[error("the address literal is not of the form [192.0.2.1] or [IPv6:2001:db8::1]")]
    BadLiteral,
    /// Octets above 127 that are not UTF-8 (RFC 6531 section 3.3).
    #[error("the address is not UTF-8")]
    NotUtf8,
}

/// An octet, for people: visible characters as they are, others by number.
fn octet_name(octet: u8) -> String {
    match octet {
        b' ' => "a blank".to_owned(),
        b'\t' => "a tab".to_owned(),
        0x21..0x7f => format!("`{}`", char::from(octet)),
        _ => format!("octet {octet:#04x}"),
    }
}

/// An envelope address: local part and domain, as received.
///
/// Accepts what MTAs accept in practice: dots anywhere in the local part, quoted strings as all of it or part of it
/// (peers write `prvs=0307abcdef="john doe"`), UTF-8 (RFC 6531), address literals (RFC 5321 section 4.1.3).
///
/// ```
/// use countersign::envelope::address::Address;
///
/// let address = Address::parse("Ann@Bücher.example")?;
/// assert_eq!((address.local(), address.domain()), ("Ann", "Bücher.example"));
/// assert_eq!(address.canonical_domain(), "xn--bcher-kva.example");
/// assert!(Address::parse("ann@our..example").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    text: String,
    /// Offset of the `@` in `text`.
    at: usize,
}

impl Address {
    /// Parses `local-part@domain`, without angle brackets.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
            return Err(AddressError::Blank);
        }
        if !text.is_ascii() && text.chars().any(|c| matches!(c, '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}')) {
            return Err(AddressError::Control);
        }
        let at = find_at(text)?;
        let (local, domain) = (text.get(..at).unwrap_or(""), text.get(at + 1..).unwrap_or(""));
        if unquote(local).is_empty() {
            return Err(AddressError::NoLocalPart);
        }
        check_domain(domain)?;
        Ok(Self { text: text.to_owned(), at })
    }

    /// Makes an address from the content of a local part and a domain.
    ///
    /// `content` is the local part *without* quotes. It is quoted as a whole if necessary (RFC 5321 section 4.1.2).
    ///
    /// ```
    /// use countersign::envelope::address::Address;
    ///
    /// let address = Address::from_content("john doe", "our.example")?;
    /// assert_eq!(address.as_str(), "\"john doe\"@our.example");
    /// assert_eq!(address.content(), "john doe");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Address::parse`]: an empty content, a control character, an invalid domain, or too long a result.
    pub fn from_content(content: &str, domain: &str) -> Result<Self, AddressError> {
        if needs_quotes(content) {
            let mut text = String::with_capacity(content.len() + domain.len() + 3);
            text.push('"');
            for c in content.chars() {
                if matches!(c, '"' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('"');
            text.push('@');
            text.push_str(domain);
            Self::parse(&text)
        } else {
            Self::parse(&format!("{content}@{domain}"))
        }
    }

    /// The whole address, without angle brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as received, quotes included.
    #[must_use]
    pub fn local(&self) -> &str {
        self.text.get(..self.at).unwrap_or("")
    }

    /// The local part without quotes and backslashes. `"ann"` and `ann` are the same mailbox (RFC 5321 section 4.1.2),
    /// so rules and MACs of own keys use this form.
    #[must_use]
    pub fn content(&self) -> Cow<'_, str> {
        unquote(self.local())
    }

    /// The domain as received.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or("")
    }

    /// The domain in canonical form; see [`canonical_domain`].
    #[must_use]
    pub fn canonical_domain(&self) -> Cow<'_, str> {
        canonical_domain(self.domain())
    }

    /// Whether two addresses name the same mailbox: equal content, ASCII case ignored, and equal canonical domains.
    ///
    /// ```
    /// use countersign::envelope::address::Address;
    ///
    /// let (one, other) = (Address::parse("ann@our.example")?, Address::parse("\"ANN\"@OUR.example")?);
    /// assert!(one.same_mailbox(&other));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn same_mailbox(&self, other: &Self) -> bool {
        self.content().eq_ignore_ascii_case(&other.content()) && self.canonical_domain() == other.canonical_domain()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

/// The argument of MAIL FROM: the null sender `<>` or an address (RFC 5321 section 4.5.5).
///
/// ```
/// use countersign::envelope::address::ReversePath;
///
/// assert_eq!(ReversePath::parse("")?, ReversePath::Null);
/// assert_eq!(ReversePath::parse("ann@our.example")?.to_string(), "ann@our.example");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: the sender of bounces, to which a bounce is never sent.
    Null,
    /// The mailbox to which bounces are sent.
    Mailbox(Address),
}

impl ReversePath {
    /// Parses the text between `<` and `>`; an empty one is the null sender. A source route (`@a,@b:user@c`) is
    /// removed, as RFC 5321 appendix C recommends.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { Ok(Self::Mailbox(Address::parse(strip_source_route(text))?)) }
    }

    /// The address; `None` for the null sender.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(address) => address.fmt(f),
        }
    }
}

/// Removes a source route (RFC 5321 appendix C) from a path. A path without one is returned unchanged.
///
/// ```
/// use countersign::envelope::address::strip_source_route;
///
/// assert_eq!(strip_source_route("@a.example,@b.example:ann@our.example"), "ann@our.example");
/// ```
#[must_use]
pub fn strip_source_route(path: &str) -> &str {
    match path.strip_prefix('@').and_then(|rest| rest.split_once(':')) {
        // A domain literal in a route has colons of its own (`@[IPv6:…]:user@host`), so such a path is not changed.
        Some((route, rest)) if !route.contains('[') => rest,
        _ => path,
    }
}

/// The canonical form of a domain, which all its equivalent spellings share: ASCII lower case, with U-labels converted
/// to A-labels (RFC 5890) after the UTS 46 mapping. Resolvers treat `BÜCHER.example`, full-width letters and
/// ideographic dots as spellings of one domain, so they are equal here. A name without an A-label is only lower-cased.
#[must_use]
pub fn canonical_domain(domain: &str) -> Cow<'_, str> {
    if domain.is_ascii() {
        return if domain.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(domain.to_ascii_lowercase())
        } else {
            Cow::Borrowed(domain)
        };
    }
    match idna::domain_to_ascii(domain) {
        // A name that maps to an octet not allowed in a domain (`＠`, `℀`) is not a host name.
        Ok(ascii) if check_domain(&ascii).is_ok() => Cow::Owned(ascii),
        _ => Cow::Owned(domain.to_lowercase()),
    }
}

/// Whether the content of a local part needs quotes, because it is not a dot-string (RFC 5321 section 4.1.2).
///
/// Dots at the ends or in a row need no quotes here: peers sign such addresses without, and MTAs accept them.
#[must_use]
pub fn needs_quotes(content: &str) -> bool {
    content.bytes().any(|b| !is_atom_octet(b))
}

/// Removes quotes and backslashes from a local part. The quoted string may be anywhere in it.
fn unquote(local: &str) -> Cow<'_, str> {
    if !local.contains('"') {
        return Cow::Borrowed(local);
    }
    let mut out = String::with_capacity(local.len());
    let mut quoted = false;
    let mut chars = local.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Octets that are allowed in a local part without quotes: atext, the dot, and UTF-8 beyond ASCII.
fn is_atom_octet(b: u8) -> bool {
    b >= 0x80 || b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b)
}

/// Finds the `@` between local part and domain, and refuses octets that are not allowed before it.
fn find_at(text: &str) -> Result<usize, AddressError> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, b) in text.bytes().enumerate() {
        if b < 0x20 || b == 0x7f {
            return Err(AddressError::BadOctet(b));
        }
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'@' => return Ok(at),
            // `[`, `]` and `:` should be quoted, but peers write SRS0=HHHH=TT=[192.0.2.1]=user.
            _ if is_atom_octet(b) || matches!(b, b'[' | b']' | b':') => {}
            _ => return Err(AddressError::BadOctet(b)),
        }
    }
    Err(if quoted { AddressError::OpenQuote } else { AddressError::NoDomain })
}

fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.is_empty() {
        return Err(AddressError::NoDomain);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        let inner = literal.strip_suffix(']').ok_or(AddressError::BadLiteral)?;
        let ok = match inner.split_once(':') {
            Some((tag, rest)) if tag.eq_ignore_ascii_case("IPv6") => rest.parse::<core::net::Ipv6Addr>().is_ok(),
            // RFC 5321 section 4.1.3: a general literal is tag ":" dcontent.
            Some((tag, rest)) => is_ldh(tag) && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()),
            None => inner.parse::<core::net::Ipv4Addr>().is_ok(),
        };
        return if ok && !inner.contains(['[', ']', '\\', '<', '>']) { Ok(()) } else { Err(AddressError::BadLiteral) };
    }
    // `_` and a trailing dot are not allowed in host names, but are in use. Octets that could end a path are refused.
    let mut before = b'.';
    for b in domain.bytes() {
        match b {
            b'.' if before == b'.' => return Err(AddressError::EmptyLabel),
            b'.' | b'-' | b'_' | 0x80.. => {}
            _ if b.is_ascii_alphanumeric() => {}
            _ => return Err(AddressError::BadOctet(b)),
        }
        before = b;
    }
    Ok(())
}

fn is_ldh(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_kept_as_sent() {
        for text in ["Bob@Example.Com", "\"john doe\"@example.com", "jörg@exämple.example", "a=b=c@[IPv6:2001:db8::1]"]
        {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.as_str(), text);
            assert_eq!(format!("{}@{}", address.local(), address.domain()), text);
        }
    }

    #[test]
    fn each_broken_address_is_refused_for_its_own_reason() {
        use AddressError::*;
        let cases = [
            ("a\u{85}b@c.example", Control),
            ("a@c\u{2028}.example", Control),
            ("", Empty),
            ("bob", NoDomain),
            ("bob@", NoDomain),
            ("@example.com", NoLocalPart),
            ("bob smith@example.com", BadOctet(b' ')),
            ("bob@exa mple.com", BadOctet(b' ')),
            ("bob>@example.com", BadOctet(b'>')),
            ("bob@example.com>", BadOctet(b'>')),
            ("\"bob@example.com", OpenQuote),
            ("bob\r@example.com", BadOctet(b'\r')),
            ("\"a\nb\"@example.com", BadOctet(b'\n')),
            ("bob@\0", BadOctet(0)),
            ("\"\"@our.example", NoLocalPart),
            ("bob@our..example", EmptyLabel),
            ("bob@.our.example", EmptyLabel),
            ("bob@.", EmptyLabel),
            ("bob@[300.1.1.1]", BadLiteral),
            ("bob@[IPv6:zz]", BadLiteral),
            ("bob@a@b", BadOctet(b'@')),
        ];
        for (text, want) in cases {
            assert_eq!(Address::parse(text).err(), Some(want), "{text:?}");
        }
        assert_eq!(Address::parse(&format!("{}@x.example", "a".repeat(MAX_ADDRESS))).err(), Some(TooLong));
    }

    #[test]
    fn quotes_are_removed_to_compare_and_added_where_needed() {
        assert_eq!(Address::parse("\"john doe\"@x.example").unwrap().content(), "john doe");
        assert_eq!(Address::parse("prvs=0307abcdef=\"a\\\"b\"@x.example").unwrap().content(), "prvs=0307abcdef=a\"b");
        assert_eq!(Address::from_content("john doe", "x.example").unwrap().as_str(), "\"john doe\"@x.example");
        assert_eq!(Address::from_content("a\"b", "x.example").unwrap().as_str(), "\"a\\\"b\"@x.example");
        assert_eq!(Address::from_content("plain=x", "x.example").unwrap().as_str(), "plain=x@x.example");
    }

    #[test]
    fn domains_compare_without_ascii_case_and_by_labels() {
        assert_eq!(canonical_domain("Our.EXAMPLE"), "our.example");
        assert_eq!(canonical_domain("bücher.example"), "xn--bcher-kva.example");
        assert_eq!(canonical_domain("xn--bcher-kva.example"), "xn--bcher-kva.example");
        // Equal after the UTS 46 mapping: capitals, full-width letters, the ideographic full stop, soft hyphens.
        for same in ["BÜCHER.example", "Bücher.Example", "bu\u{308}cher.example", "XN--BCHER-KVA.example"] {
            assert_eq!(canonical_domain(same), "xn--bcher-kva.example", "{same}");
        }
        for same in ["ｏur.example", "our。example", "o\u{ad}ur.example"] {
            assert_eq!(canonical_domain(same), "our.example", "{same}");
        }
        // A name that does not map to a domain is equal only to itself.
        for none in ["a＠our.example", "℀.example", "[ü]", "ü。。example"] {
            assert_eq!(canonical_domain(none), none);
        }
    }

    #[test]
    fn source_routes_are_stripped() {
        let path = ReversePath::parse("@relay.example,@two.example:ann@our.example").unwrap();
        assert_eq!(path.to_string(), "ann@our.example");
        assert_eq!(ReversePath::parse("").unwrap(), ReversePath::Null);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,80}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(address.as_str(), text.as_str());
            }
            let _ = ReversePath::parse(&text);
        }

        #[test]
        fn content_survives_quoting(content in "[ -~]{1,40}") {
            let address = Address::from_content(&content, "x.example").unwrap();
            prop_assert_eq!(address.content().into_owned(), content);
        }
    }
}
