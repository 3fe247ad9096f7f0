//! Table lookups over a socket (socketmap_table(5)): netstrings with `map key` in, status and address out.

use thiserror::Error;

/// The longest request, in octets; Postfix has the same limit.
pub const MAX_REQUEST: usize = 100_000;

/// Why input is not a request. The stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NetstringError {
    /// It does not begin with a length.
    #[error("a netstring begins with its length in digits")]
    Length,
    /// Longer than [`MAX_REQUEST`].
    #[error("a request of more than 100000 octets")]
    TooLong,
    /// There is no comma after the announced length.
    #[error("a netstring ends with a comma")]
    End,
}

/// A lookup in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRequest<'a> {
    /// The name of the map, such as `verify`.
    pub map: &'a [u8],
    /// The key that is looked up.
    pub key: &'a [u8],
}

/// The first request in the input, and its length in octets; `None`: it is incomplete.
///
/// # Errors
/// The input is not a request, whatever follows.
pub fn next(input: &[u8]) -> Result<Option<(MapRequest<'_>, usize)>, NetstringError> {
    let digits = input.iter().take_while(|b| b.is_ascii_digit()).count();
    let written = input.get(..digits).unwrap_or_default();
    // Checked before more input is awaited, so that a client cannot make the server buffer more.
    if digits > 6 || (digits > 1 && written.starts_with(b"0")) {
        return Err(if digits > 6 { NetstringError::TooLong } else { NetstringError::Length });
    }
    let length = written.iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    if length > MAX_REQUEST {
        return Err(NetstringError::TooLong);
    }
    match input.get(digits) {
        None => return Ok(None),
        Some(b':') if digits > 0 => {}
        Some(_) => return Err(NetstringError::Length),
    }
    let end = digits + 1 + length;
    match input.get(end) {
        None => return Ok(None),
        Some(b',') => {}
        Some(_) => return Err(NetstringError::End),
    }
    let text = input.get(digits + 1..end).unwrap_or_default();
    let (map, key) = match memchr::memchr(b' ', text) {
        Some(space) => (text.get(..space).unwrap_or_default(), text.get(space + 1..).unwrap_or_default()),
        None => (text, [].as_slice()),
    };
    Ok(Some((MapRequest { map, key }, end + 1)))
}

/// The reply to a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapReply<'a> {
    /// The value for the key.
    Ok(&'a str),
    /// There is no value for the key.
    NotFound,
    /// A temporary failure: the MTA has to try again later.
    Temporary(&'a str),
    /// The request is wrong, for example because there is no such map.
    Permanent(&'a str),
}

impl MapReply<'_> {
    /// Appends the reply to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (status, text) = match self {
            Self::Ok(text) => ("OK", *text),
            Self::NotFound => ("NOTFOUND", ""),
            Self::Temporary(text) => ("TEMP", *text),
            Self::Permanent(text) => ("PERM", *text),
        };
        let length = status.len() + 1 + text.len();
        out.extend_from_slice(format!("{length}:{status} {text},").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests() {
        let good = b"20:sign ann@our.example,4:rest";
        let Some((request, length)) = next(good).unwrap() else { panic!() };
        assert_eq!((request.map, request.key, length), (&b"sign"[..], &b"ann@our.example"[..], 24));
        for end in 0..24 {
            assert_eq!(next(&good[..end]), Ok(None), "{end}");
        }
        // A key may contain any octets, and may be missing.
        for (text, map, key) in
            [(&b"5:a b,c,"[..], &b"a"[..], &b"b,c"[..]), (b"4:sign,", b"sign", b""), (b"0:,", b"", b"")]
        {
            assert_eq!(next(text).unwrap().map(|(r, _)| (r.map, r.key)), Some((map, key)));
        }
    }

    #[test]
    fn what_is_no_request() {
        for (text, error) in [
            (&b":x,"[..], NetstringError::Length),
            (b"x", NetstringError::Length),
            (b"-1:x,", NetstringError::Length),
            (b"01:x,", NetstringError::Length),
            (b"1x", NetstringError::Length),
            (b"1:xy", NetstringError::End),
            (b"100001", NetstringError::TooLong),
            (b"9999999999999999999999", NetstringError::TooLong),
            (b"GET / HTTP/1.1\r\n", NetstringError::Length),
        ] {
            assert_eq!(next(text), Err(error), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(next(b"100000:"), Ok(None));
    }

    #[test]
    fn replies() {
        let mut out = Vec::new();
        MapReply::Ok("ann@our.example").write(&mut out);
        MapReply::NotFound.write(&mut out);
        MapReply::Temporary("later").write(&mut out);
        MapReply::Permanent("no such map").write(&mut out);
        assert_eq!(out, b"18:OK ann@our.example,9:NOTFOUND ,10:TEMP later,16:PERM no such map,");
    }

    proptest! {
        #[test]
        fn anything_can_be_read(input in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some((request, length))) = next(&input) {
                prop_assert!(length <= input.len() && request.map.len() + request.key.len() < length);
            }
        }

        #[test]
        fn what_is_written_is_read(map in "[a-z]{1,9}", key in "[^,]{0,40}", rest in "[0-9:,a ]{0,9}") {
            let text = format!("{map} {key}");
            let input = format!("{}:{text},{rest}", text.len());
            let (request, length) = next(input.as_bytes()).unwrap().unwrap();
            prop_assert_eq!((request.map, request.key), (map.as_bytes(), key.as_bytes()));
            prop_assert_eq!(&input.as_bytes()[length..], rest.as_bytes());
        }
    }
}
