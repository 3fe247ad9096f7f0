//! Decoding of octets to text: transfer encodings, charsets, encoded words and HTML; and one spelling for comparison.

use std::borrow::Cow;

use data_encoding::BASE64;
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Transfer encoding of a part (RFC 2045 section 6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Transfer {
    /// 7bit, 8bit or binary.
    #[default]
    Identity,
    QuotedPrintable,
    /// Base64, with the characters of an incomplete group of four.
    Base64(Vec<u8>),
}

impl Transfer {
    /// The encoding with this name in a header. Unknown encodings are treated as none.
    pub(super) fn named(value: &[u8]) -> Self {
        let name = value.trim_ascii().to_ascii_lowercase();
        if name.starts_with(b"quoted-printable") {
            Self::QuotedPrintable
        } else if name.starts_with(b"base64") {
            Self::Base64(Vec::new())
        } else {
            Self::Identity
        }
    }

    /// Appends a decoded piece of a line to `out`, with a line end if the line ends here.
    pub(super) fn decode(&mut self, piece: &[u8], ends_line: bool, out: &mut Vec<u8>) {
        match self {
            Self::Identity => {
                out.extend_from_slice(piece);
                out.extend(ends_line.then_some(b'\n'));
            }
            Self::QuotedPrintable => {
                let piece = if ends_line { piece.trim_ascii_end() } else { piece };
                let soft = ends_line.then(|| piece.strip_suffix(b"=")).flatten();
                unquote_printable(soft.unwrap_or(piece), false, out);
                out.extend((ends_line && soft.is_none()).then_some(b'\n'));
            }
            Self::Base64(group) => {
                let is_ours = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
                group.extend(piece.iter().filter(is_ours));
                let whole = group.len() / 4 * 4;
                let groups = group.get(..whole).unwrap_or_default();
                if !decode_base64(groups, out) {
                    // Several encoded texts in a row, or no base64 at all: each group is decoded by itself.
                    groups.chunks(4).for_each(|four| _ = decode_base64(four, out));
                }
                group.drain(..whole);
            }
        }
    }
}

/// Appends decoded groups of four characters. Returns `false` and appends nothing if they are not base64.
fn decode_base64(groups: &[u8], out: &mut Vec<u8>) -> bool {
    let before = out.len();
    out.resize(before + groups.len() / 4 * 3, 0);
    let decoded = out.get_mut(before..).and_then(|room| BASE64.decode_mut(groups, room).ok());
    out.truncate(before + decoded.unwrap_or(0));
    decoded.is_some()
}

/// Appends decoded quoted-printable text (RFC 2045 section 6.7); with `in_word`, the Q encoding of header words (RFC
/// 2047 section 4.2), in which `_` is a space. Invalid escapes are kept.
fn unquote_printable(text: &[u8], in_word: bool, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        match octet {
            b'_' if in_word => out.push(b' '),
            b'=' => match tail.split_at_checked(2).map(|(hex, after)| (hex_octet(hex), after)) {
                Some((Some(value), after)) => {
                    out.push(value);
                    rest = after;
                }
                _ => out.push(b'='),
            },
            octet => out.push(octet),
        }
    }
}

fn hex_octet(digits: &[u8]) -> Option<u8> {
    let text = core::str::from_utf8(digits).ok()?;
    text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// Decodes text in a charset; octets that are not valid become U+FFFD. Without a known charset, the text is UTF-8 if
/// possible, otherwise Windows-1252.
pub(super) fn text<'a>(octets: &'a [u8], charset: Option<&[u8]>) -> Cow<'a, str> {
    match charset.and_then(Encoding::for_label) {
        Some(encoding) if encoding != UTF_8 => encoding.decode_without_bom_handling(octets).0,
        // Valid UTF-8 that ends within a character is UTF-8, too.
        _ => match core::str::from_utf8(octets) {
            Ok(text) => Cow::Borrowed(text),
            Err(error) if error.error_len().is_none() || charset.is_some() => String::from_utf8_lossy(octets),
            Err(_) => WINDOWS_1252.decode_without_bom_handling(octets).0,
        },
    }
}

/// The value of a header, with its encoded words decoded (RFC 2047).
pub(super) fn words(value: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = value;
    let mut after_word = false;
    while let Some(at) = memchr::memmem::find(rest, b"=?") {
        let (before, word) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        let Some((decoded, tail)) = encoded_word(word) else {
            out.push_str(&text(before, None));
            out.push_str("=?");
            (rest, after_word) = (word.get(2..).unwrap_or_default(), false);
            continue;
        };
        // White space between two encoded words is not part of the text (RFC 2047 section 6.2).
        if !(after_word && before.trim_ascii().is_empty()) {
            out.push_str(&text(before, None));
        }
        out.push_str(&decoded);
        (rest, after_word) = (tail, true);
    }
    out.push_str(&text(rest, None));
    out
}

/// The text of the encoded word `=?charset?B?…?=`, and what follows it.
fn encoded_word(word: &[u8]) -> Option<(String, &[u8])> {
    let inner = word.strip_prefix(b"=?")?;
    let mut fields = inner.splitn(3, |&b| b == b'?');
    let (charset, encoding, rest) = (fields.next()?, fields.next()?, fields.next()?);
    let end = memchr::memmem::find(rest, b"?=")?;
    let (encoded, tail) = (rest.get(..end)?, rest.get(end + 2..)?);
    let mut octets = Vec::new();
    match encoding {
        b"q" | b"Q" => unquote_printable(encoded, true, &mut octets),
        b"b" | b"B" => {
            let mut base64 = Transfer::Base64(Vec::new());
            base64.decode(encoded, false, &mut octets);
            // Padding may be missing.
            base64.decode(b"===".get(..(4 - encoded.len() % 4) % 4).unwrap_or_default(), false, &mut octets);
        }
        _ => return None,
    }
    // RFC 2231 section 5: a language may follow the charset.
    let charset = charset.split(|&b| b == b'*').next();
    Some((text(&octets, charset).into_owned(), tail))
}

/// The text of HTML: tags become spaces or line ends, and common character references are replaced.
pub(super) fn without_tags(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (before, special) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let (shown, used) = if special.starts_with('<') { tag(special) } else { reference(special) };
        out.push_str(&shown);
        rest = special.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The text shown for a tag, and the length of the tag. An address in angle brackets is kept, because some programs do
/// not escape it.
fn tag(text: &str) -> (String, usize) {
    let end = text.find('>').map_or(text.len(), |end| end + 1);
    let inner = text.get(1..end.saturating_sub(1)).unwrap_or_default();
    if inner.contains('@') && !inner.contains(['=', ' ']) {
        return (format!("<{inner}>"), end);
    }
    (if is_break(text) { "\n" } else { " " }.into(), end)
}

/// One line of HTML as shown to a reader. `<br>` and similar tags become line ends, so that the header fields of an
/// original returned as HTML are on lines of their own.
pub(super) fn shown_lines(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = memchr::memchr2(b'<', b'&', rest.as_bytes()) {
        let (before, special) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let used = if special.starts_with('&') {
            let (shown, used) = reference(special);
            out.push_str(&shown);
            used
        } else {
            let Some(end) = special.find('>') else { return out + special };
            let inner = special.get(1..end).unwrap_or_default();
            if inner.contains('@') && !inner.contains(['=', ' ']) {
                out.push_str(special.get(..=end).unwrap_or_default());
            } else if is_break(special) {
                out.push('\n');
            }
            end + 1
        };
        rest = special.get(used..).unwrap_or_default();
    }
    out + rest
}

/// Whether a tag begins a new line.
fn is_break(tag: &str) -> bool {
    const BREAKS: &str = "<br; <p; </p; <div; </div; <tr; </tr; <li; <h; </h; <pre; </pre";
    BREAKS.split("; ").any(|name| tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

fn reference(text: &str) -> (String, usize) {
    // Names are limited in length, because a text may consist of ampersands only.
    let is_name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'#';
    let end = 1 + text.bytes().skip(1).take(7).take_while(is_name).count();
    let Some(name) =
        text.get(1..end).filter(|name| !name.is_empty() && text.get(end..).is_some_and(|rest| rest.starts_with(';')))
    else {
        return ("&".into(), 1);
    };
    let number = name.strip_prefix('#').and_then(|digits| match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    });
    let shown = match (name, number.and_then(char::from_u32)) {
        (_, Some(character)) => character.to_string(),
        ("lt", _) => "<".into(),
        ("gt", _) => ">".into(),
        ("amp", _) => "&".into(),
        ("quot", _) => "\"".into(),
        ("apos" | "lsquo" | "rsquo", _) => "'".into(),
        ("ndash" | "mdash", _) => "-".into(),
        ("nbsp", _) => " ".into(),
        ("shy" | "zwj" | "zwnj", _) => String::new(),
        // For `&uuml;` and the like, the letter without its mark, as `fold` would make it.
        (name, _) => name.chars().next().map(String::from).unwrap_or_default(),
    };
    (shown, end + 1)
}

/// Brings text into one spelling: lower case, Latin letters without marks, straight apostrophes, one space for any
/// white space.
pub(super) fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars().flat_map(char::to_lowercase) {
        match character {
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            '\u{2018}' | '\u{2019}' | '`' | '\u{b4}' => out.push('\''),
            '\u{2010}'..='\u{2015}' => out.push('-'),
            // Combining marks, and characters that are not visible.
            '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{ad}' | '\u{feff}' => {}
            c => match plain_letter(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out
}

fn plain_letter(letter: char) -> Option<&'static str> {
    Some(match letter {
        'à'..='å' | 'ā' | 'ă' | 'ą' | 'ạ'..='ặ' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' | 'ẹ'..='ệ' => "e",
        'ğ' => "g",
        'ì'..='ï' | 'ī' | 'ı' | 'ỉ' | 'ị' => "i",
        'ł' | 'ľ' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ő' | 'ọ'..='ợ' | 'ơ' => "o",
        'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ß' => "ss",
        'ť' | 'ţ' | 'ț' => "t",
        'ù'..='ü' | 'ů' | 'ű' | 'ū' | 'ụ'..='ự' | 'ư' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'æ' => "ae",
        'œ' => "oe",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(mut transfer: Transfer, lines: &[&str]) -> String {
        let mut out = Vec::new();
        lines.iter().for_each(|line| transfer.decode(line.as_bytes(), true, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn transfer_encodings() {
        assert_eq!(decoded(Transfer::QuotedPrintable, &["a=3Db =", "c  ", "=C3=A4", "=zz"]), "a=b c\nä\n=zz\n");
        assert_eq!(decoded(Transfer::Base64(vec![]), &["SGVs", "bG8s", "IHlvdQ", "=="]), "Hello, you");
        assert_eq!(decoded(Transfer::named(b" 8bit "), &["a=3D"]), "a=3D\n");
    }

    #[test]
    fn encoded_words() {
        assert_eq!(words(b"=?iso-8859-1?q?Zustellung_m=F6glich?= x"), "Zustellung möglich x");
        assert_eq!(words(b"=?UTF-8?B?w6Q=?=\t =?utf-8?B?w7Y?= =?x?y?"), "äö =?x?y?");
        assert_eq!(words("=?ISO-2022-JP?B?GyRCR1s/LiRHJC0kXiQ7JHMbKEI=?=".as_bytes()), "配信できません");
        assert_eq!(words("käse".as_bytes()), "käse");
        assert_eq!(words(b"k\xe4se"), "käse");
    }

    #[test]
    fn a_line_of_html_as_it_is_shown() {
        for (html, want) in [
            ("<p>Message-ID: &lt;1@our.example&gt;<br>", "\nMessage-ID: <1@our.example>\n"),
            ("From: Ann <ann@our.example></p>", "From: Ann <ann@our.example>\n"),
            ("<a href=\"mailto:x@y.example\">x</a> &amp; y", "x & y"),
            ("a < b & c", "a < b & c"),
            ("&lt;&#64;&#x40;&gt;", "<@@>"),
            ("can&rsquo;t be&zwnj; sent &ndash; 5.1.1", "can't be sent - 5.1.1"),
            // At most nine octets are read per reference, so that the cost of many ampersands is linear.
            ("&#x00e9;&#000233;&#0000233;", "éé&#0000233;"),
            ("&&&&&&&&&&lt;", "&&&&&&&&&<"),
        ] {
            assert_eq!(shown_lines(html), want, "{html}");
        }
    }

    #[test]
    fn html_and_spellings() {
        let html =
            "</style><P>Konnte&nbsp;nicht<br>zu&shy;gestellt &lt;a@b.example&gt; <c@d.example> &#252;ber&uuml;&x";
        assert_eq!(fold(&without_tags(html)), " konnte nicht zugestellt <a@b.example> <c@d.example> uberu&x");
        assert_eq!(fold("N’a  pas PU\r\nêtre Łódź Straße"), "n'a pas pu etre lodz strasse");
    }

    proptest! {
        #[test]
        fn a_reference_is_its_first_nine_octets(name in "[#x0-9a-z&]{0,9}", rest in "[a-z&;]{0,20}") {
            let text = format!("&{name}{rest}");
            prop_assert_eq!(reference(&text), reference(&text[..text.len().min(9)]));
        }

        #[test]
        fn a_line_of_html_does_not_grow(html in "(<(br|/?p|a@b|x=\"@\")?>?|&(lt|#60|#x3c|uuml)?;?|[ -~é]{0,5}){0,20}") {
            prop_assert!(shown_lines(&html).len() <= html.len());
        }

        #[test]
        fn anything_can_be_read(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = words(&octets);
            fold(&without_tags(&text));
            for mut transfer in [Transfer::Identity, Transfer::QuotedPrintable, Transfer::Base64(vec![])] {
                let mut out = Vec::new();
                transfer.decode(&octets, false, &mut out);
                prop_assert!(out.len() <= octets.len());
            }
        }

        #[test]
        fn base64_is_what_others_make(octets in prop::collection::vec(any::<u8>(), 0..100), width in 1usize..80) {
            let text = BASE64.encode(&octets);
            let (mut transfer, mut out) = (Transfer::Base64(vec![]), Vec::new());
            text.as_bytes().chunks(width).for_each(|line| transfer.decode(line, true, &mut out));
            prop_assert_eq!(out, octets);
        }
    }
}
