//! Table lookups: from a request to the rules and back.

use std::str::from_utf8;

use super::evaluate::Evaluator;
use crate::envelope::address::Address;
use crate::envelope::rules::MapAnswer;
use crate::wire::socketmap::{self, MapReply, NetstringError};

/// Answers one lookup. Says how long it was; 0: it is not complete.
pub(super) fn look_up(evaluator: &mut Evaluator, input: &[u8], output: &mut Vec<u8>) -> Result<usize, NetstringError> {
    let Some((request, length)) = socketmap::next(input)? else { return Ok(0) };
    // MTAs look up parts of addresses, too: `ann`, `@our.example`.
    let address = from_utf8(request.key).ok().and_then(|key| Address::parse(key).ok());
    let mapped = match (request.map, address) {
        (b"sign", Some(address)) => evaluator.map_sender(&address),
        (b"forward", Some(address)) => evaluator.map_any_sender(&address),
        (b"verify" | b"reverse", Some(address)) => evaluator.map_recipient(&address),
        (b"strip", Some(address)) => evaluator.map_stripped(&address),
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
