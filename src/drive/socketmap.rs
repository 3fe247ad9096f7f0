//! Table lookups: parses a request, queries the rules, and writes the answer.

use std::net::IpAddr;
use std::str::from_utf8;

use super::evaluate::Evaluator;
use super::prepared::Preparation;
use super::request_step::RequestStep;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::{Caller, MapAnswer};
use crate::wire::socketmap::{self, MapReply, NetstringError};

/// Answers one lookup. `is_prepared`: what it needs is there, or cannot be had.
pub(super) fn look_up(
    evaluator: &mut Evaluator,
    is_prepared: bool,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<RequestStep, NetstringError> {
    let Some((request, length)) = socketmap::next(input)? else { return Ok(RequestStep::Incomplete) };
    let (key, client) = from_utf8(request.key).map_or((None, None), with_client);
    // MTAs also look up parts of addresses: `ann`, `@our.example`.
    let address = key.and_then(|key| Address::parse(key).ok());
    let Some(map) = Map::named(request.map) else {
        MapReply::Permanent("there is no such map; ask for sign (forward), verify (reverse) or strip").write(output);
        return Ok(RequestStep::Answered(length));
    };
    let mapped = match address {
        None => MapAnswer::Nothing,
        Some(address) => {
            let work = if is_prepared { None } else { map.prepare(evaluator, &address) };
            if let Some(work) = work {
                return Ok(RequestStep::Waits(work));
            }
            match map {
                Map::Sign => evaluator.map_sender(&address),
                Map::Forward => evaluator.map_any_sender(&address),
                Map::Verify => evaluator.map_recipient(client, &address),
                Map::Strip => evaluator.map_stripped(client, &address),
            }
        }
    };
    match &mapped {
        MapAnswer::To(address) => MapReply::Ok(address.as_str()).write(output),
        MapAnswer::Nothing => MapReply::NotFound.write(output),
        MapAnswer::Later(refusal) => MapReply::Temporary(refusal.text).write(output),
    }
    Ok(RequestStep::Answered(length))
}

/// The maps that there are.
#[derive(Clone, Copy)]
enum Map {
    Sign,
    Forward,
    Verify,
    Strip,
}

impl Map {
    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"sign" => Some(Self::Sign),
            b"forward" => Some(Self::Forward),
            b"verify" | b"reverse" => Some(Self::Verify),
            b"strip" => Some(Self::Strip),
            _ => None,
        }
    }

    /// Begins what the lookup needs.
    fn prepare(self, evaluator: &mut Evaluator, address: &Address) -> Option<Preparation> {
        match self {
            Self::Sign | Self::Forward => evaluator.prepare_sender(&ReversePath::Mailbox(address.clone())),
            Self::Verify | Self::Strip => evaluator.prepare_recipient(Caller::Map, address),
        }
    }
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
