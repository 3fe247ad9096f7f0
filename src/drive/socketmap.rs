//! Table lookups: parses a request, queries the rules, and writes the answer.

use std::net::IpAddr;
use std::str::from_utf8;

use super::evaluate::Evaluator;
use crate::envelope::address::Address;
use crate::envelope::rules::MapAnswer;
use crate::wire::socketmap::{self, MapReply, NetstringError};

/// Answers one lookup. Returns its length in octets, 0 if it is incomplete.
pub(super) fn look_up(evaluator: &mut Evaluator, input: &[u8], output: &mut Vec<u8>) -> Result<usize, NetstringError> {
    let Some((request, length)) = socketmap::next(input)? else { return Ok(0) };
    let (key, client) = from_utf8(request.key).map_or((None, None), with_client);
    // MTAs also look up parts of addresses: `ann`, `@our.example`.
    let address = key.and_then(|key| Address::parse(key).ok());
    let mapped = match (request.map, address) {
        (b"sign", Some(address)) => evaluator.map_sender(&address),
        (b"forward", Some(address)) => evaluator.map_any_sender(&address),
        (b"verify" | b"reverse", Some(address)) => evaluator.map_recipient(client, &address),
        (b"strip", Some(address)) => evaluator.map_stripped(client, &address),
        (b"sign" | b"forward" | b"verify" | b"reverse" | b"strip", None) => MapAnswer::Nothing,
        _ => {
            MapReply::Permanent("there is no such map; ask for sign (forward), verify (reverse) or strip")
                .write(output);
            return Ok(length);
        }
    };
    match &mapped {
        MapAnswer::To(address) => MapReply::Ok(address.as_str()).write(output),
        MapAnswer::Nothing => MapReply::NotFound.write(output),
        MapAnswer::Later(refusal) => MapReply::Temporary(refusal.text).write(output),
    }
    Ok(length)
}

/// Splits a key into address and client. An MTA may name the client that it queries for:
/// `verify prvs=…=ann@our.example 192.0.2.7`. For mail of the MTA itself, nothing follows the space.
fn with_client(key: &str) -> (Option<&str>, Option<IpAddr>) {
    match key.rsplit_once(' ') {
        Some((address, "")) => (Some(address), None),
        Some((address, client)) => match client.parse() {
            Ok(client) => (Some(address), Some(client)),
            Err(_) => (Some(key), None),
        },
        None => (Some(key), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_follow_the_address() {
        let client = Some("192.0.2.7".parse().unwrap());
        assert_eq!(with_client("ann@our.example 192.0.2.7"), (Some("ann@our.example"), client));
        let six = Some("2001:db8::7".parse().unwrap());
        assert_eq!(with_client("\"ann b\"@our.example 2001:db8::7"), (Some("\"ann b\"@our.example"), six));
        for key in ["ann@our.example", "\"ann b\"@our.example", "ann@our.example x", ""] {
            assert_eq!(with_client(key), (Some(key), None), "{key}");
        }
        assert_eq!(with_client("ann@our.example "), (Some("ann@our.example"), None));
    }
}
