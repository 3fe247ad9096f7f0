//! Who may read the page, who sees whole addresses, and who may change something: those who know the token.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, VIA};
use data_encoding::{BASE32_NOPAD, BASE64};
use rustix::fs::OFlags;
use subtle::ConstantTimeEq as _;

use crate::config::{StatusToken, TokenFor};

/// The least characters of a token.
const MIN_LENGTH: usize = 16;
/// The most octets of its file that are read.
const MAX_FILE: u64 = 1024;
/// Random octets of a new token.
const RANDOM: usize = 16;

/// The file of the token. If the config names none, and systemd gives the daemon a folder (`StateDirectory=`), it is in
/// that.
pub(super) fn place(config: &StatusToken) -> PathBuf {
    let given = std::env::var_os("STATE_DIRECTORY").filter(|_| config.is_default);
    // Several folders are separated by colons; the first is ours.
    let given = given.as_ref().and_then(|folders| folders.to_str()?.split(':').next());
    let place = given.map_or_else(|| config.path.clone(), |folder| Path::new(folder).join("status-token"));
    std::path::absolute(&place).unwrap_or(place)
}

/// Makes the token if there is none.
///
/// # Errors
/// It cannot be made: the reason in words.
pub(super) fn make(path: &Path) -> Result<(), String> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let made = || -> io::Result<()> {
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Under its name there is all of it, or nothing. The mode of a temporary file is 0600.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(file, "{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase())?;
        file.persist_noclobber(path).map(drop).map_err(|error| error.error)
    };
    made().map_err(|error| format!("{}: {error}", path.display()))
}

/// The token.
///
/// # Errors
/// It cannot be read, other users can read it, or it is too short: in words.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let named = |what: String| format!("{}: {what}", path.display());
    // A pipe would keep the daemon waiting.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| named(error.to_string()))?;
    let found = file.metadata().map_err(|error| named(error.to_string()))?;
    if !found.is_file() {
        return Err(named("it is not a file".to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(named(format!("other users can read it (mode {:o}); run: chmod 600", found.mode() & 0o777)));
    }
    if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
        return Err(named(format!("it belongs to another user (uid {})", found.uid())));
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE), &mut text)
        .map_err(|error| named(error.to_string()))?;
    let token = text.trim();
    match token.len() < MIN_LENGTH || !token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Err(named(format!("a token has at least {MIN_LENGTH} letters, digits or signs, in one line"))),
        false => Ok(token.to_owned()),
    }
}

/// Whether somebody has named the token.
///
/// # Errors
/// There is no token to compare with: in words.
pub(super) fn is_token(config: &StatusToken, given: &str) -> Result<bool, String> {
    let path = place(config);
    // A config that was reloaded may name another file.
    make(&path)?;
    let token = read(&path)?;
    Ok(token.as_bytes().ct_eq(given.trim().as_bytes()).into())
}

/// What a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// All of it.
    WithToken,
    /// All but whole addresses.
    Anyone,
    /// Nothing without the token.
    Refused,
}

/// What the sender of a request may see. `listens`: the address of the listener.
///
/// # Errors
/// The request has a token, and there is none to compare with: in words.
pub(super) fn reader(config: &StatusToken, listens: Option<IpAddr>, headers: &HeaderMap) -> Result<Reader, String> {
    if let Some(given) = given(headers) {
        return Ok(if is_token(config, &given)? { Reader::WithToken } else { Reader::Refused });
    }
    let is_here = listens.is_some_and(|address| address.is_loopback());
    // A proxy may pass requests of anybody on.
    let is_passed_on = headers.keys().any(|name| {
        name == FORWARDED
            || name == VIA
            || name == "x-real-ip"
            || ["x-forwarded-", "cf-"].iter().any(|begin| name.as_str().starts_with(begin))
    });
    match config.needed_by {
        TokenFor::Elsewhere if is_here && !is_passed_on => Ok(Reader::Anyone),
        TokenFor::Elsewhere | TokenFor::All => Ok(Reader::Refused),
    }
}

/// The token of a request: as the password of any user (RFC 7617), or as a bearer token (RFC 6750).
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    // What cannot be read is no token.
    let text = BASE64.decode(rest.as_bytes()).ok().and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    Some(text.split_once(':').map_or_else(String::new, |(_, password)| password.to_owned()))
}

/// Whether a request to change something comes from a page of this listener. Browsers say so; a page of another host
/// could send one in the name of a reader.
pub(super) fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    match (text(ORIGIN), text(HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host)),
        (Some(_), None) => false,
        // No browser.
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn config(path: PathBuf, needed_by: TokenFor) -> StatusToken {
        StatusToken { path, is_default: false, needed_by }
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/status-token");
        make(&path).unwrap();
        let token = read(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(read(&path).unwrap(), token);
        assert!(token.len() == 26, "{token}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().ends_with("other users can read it (mode 640); run: chmod 600"));
        let short = folder.path().join("short");
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&short)
            .unwrap()
            .write_all(b"abc\n")
            .unwrap();
        assert!(read(&short).unwrap_err().contains("at least 16"));
        assert!(read(&folder.path().join("none")).is_err());
        assert!(read(folder.path()).unwrap_err().ends_with("it is not a file"));
    }

    #[test]
    fn who_reads_what() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        make(&path).unwrap();
        let token = read(&path).unwrap();
        let basic = format!("Basic {}", BASE64.encode(format!("me:{token}").as_bytes()));
        let bearer = format!("Bearer {token}");
        let wrong = format!("Basic {}", BASE64.encode(b"me:wrong"));
        let local = Some("127.0.0.1".parse().unwrap());
        let all = Some("0.0.0.0".parse().unwrap());
        let usual = config(path.clone(), TokenFor::Elsewhere);
        for (config, listens, given, expected) in [
            (&usual, local, &[][..], Reader::Anyone),
            (&usual, Some("::1".parse().unwrap()), &[], Reader::Anyone),
            (&usual, all, &[], Reader::Refused),
            (&usual, None, &[], Reader::Refused),
            (&usual, local, &[("x-forwarded-for", "192.0.2.1")], Reader::Refused),
            (&usual, local, &[("via", "1.1 proxy")], Reader::Refused),
            (&usual, local, &[("x-real-ip", "192.0.2.1")], Reader::Refused),
            (&usual, local, &[("x-forwarded-proto", "https")], Reader::Refused),
            (&usual, local, &[("cf-connecting-ip", "192.0.2.1")], Reader::Refused),
            (&config(path.clone(), TokenFor::All), local, &[], Reader::Refused),
            (&usual, all, &[("authorization", &*basic)], Reader::WithToken),
            (&usual, all, &[("authorization", &*bearer)], Reader::WithToken),
            (&usual, local, &[("authorization", &*wrong)], Reader::Refused),
            (&usual, local, &[("authorization", "Basic ?")], Reader::Refused),
            (&usual, local, &[("authorization", "Bearer ")], Reader::Refused),
        ] {
            let found = reader(config, listens, &headers(given));
            assert_eq!(found.unwrap(), expected, "{listens:?} {given:?}");
        }
    }

    #[test]
    fn changes_come_from_a_page_of_this_listener() {
        for (given, expected) in [
            (&[][..], true),
            (&[("host", "127.0.0.1:9025"), ("origin", "http://127.0.0.1:9025")], true),
            (&[("host", "127.0.0.1:9025"), ("origin", "http://evil.example")], false),
            (&[("host", "127.0.0.1:9025"), ("origin", "null")], false),
        ] {
            assert_eq!(is_from_here(&headers(given)), expected, "{given:?}");
        }
    }
}
