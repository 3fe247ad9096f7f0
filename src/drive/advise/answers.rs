//! From requests to the rules and back.

use std::net::IpAddr;
use std::str::from_utf8;
use std::sync::Arc;

use crate::config;
use crate::drive::desk::Desk;
use crate::drive::shared::Shared;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::{BAD_RECIPIENT, BAD_SENDER, Caller, MapAnswer, PolicyAdvice};
use crate::wire::socketmap::MapReply;
use crate::wire::{policy_service, socketmap};

/// Who answers on one connection.
pub(super) struct Answers {
    desk: Desk,
    kind: Kind,
}

enum Kind {
    Socketmap,
    /// The message that was marked last: it has many recipients, and gets one mark.
    Policy(Vec<u8>),
}

/// So many are answered at once, before others of the same worker may have their turn.
const BATCH: usize = 8;

impl Answers {
    /// In the language of this listener. `None`: milters do not ask line by line.
    pub fn new(advice: config::Advice, shared: Arc<Shared>) -> Option<Self> {
        let kind = match advice {
            config::Advice::Policy => Kind::Policy(Vec::new()),
            config::Advice::Socketmap => Kind::Socketmap,
            config::Advice::Milter => return None,
        };
        Some(Self { desk: Desk::new(shared, None), kind })
    }

    /// The session's number, for the log.
    pub fn id(&self) -> u64 {
        self.desk.id
    }

    /// Answers some of the requests that are complete, and takes them out of `input`. Says whether there may be more. What went
    /// before something broken is answered.
    pub fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<bool, String> {
        let mut at = 0;
        let mut answered = 0;
        let ended = loop {
            if answered == BATCH {
                break Ok(true);
            }
            answered += 1;
            let rest = input.get(at..).unwrap_or_default();
            let taken = match &mut self.kind {
                Kind::Socketmap => look_up(&mut self.desk, rest, output).map_err(|broken| broken.to_string()),
                Kind::Policy(marked) => {
                    advise(&mut self.desk, marked, rest, output).map_err(|broken| broken.to_string())
                }
            };
            match taken {
                Ok(0) => break Ok(false),
                Ok(length) => at += length,
                Err(broken) => break Err(broken),
            }
        };
        input.drain(..at);
        ended
    }
}

/// Answers one lookup. Says how long it was; 0: it is not complete.
fn look_up(desk: &mut Desk, input: &[u8], output: &mut Vec<u8>) -> Result<usize, socketmap::NetstringError> {
    let Some((request, length)) = socketmap::next(input)? else { return Ok(0) };
    // MTAs look up parts of addresses, too: `ann`, `@our.example`.
    let address = from_utf8(request.key).ok().and_then(|key| Address::parse(key).ok());
    let mapped = match (request.map, address) {
        (b"sign", Some(address)) => desk.map_sender(&address),
        (b"forward", Some(address)) => desk.map_any_sender(&address),
        (b"verify" | b"reverse", Some(address)) => desk.map_recipient(&address),
        (b"strip", Some(address)) => desk.map_stripped(&address),
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

/// Answers one policy request. Says how long it was; 0: it is not complete.
fn advise(
    desk: &mut Desk,
    marked: &mut Vec<u8>,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<usize, policy_service::PolicyError> {
    let Some((request, length)) = policy_service::next(input)? else { return Ok(0) };
    let advice = about_recipient(desk, &request).unwrap_or(PolicyAdvice::GoOn);
    match advice {
        PolicyAdvice::GoOn => policy_service::AccessAction::Dunno,
        PolicyAdvice::Refuse(refusal) if refusal.is_temporary() => {
            policy_service::AccessAction::Defer(refusal.status, refusal.text)
        }
        PolicyAdvice::Refuse(refusal) => policy_service::AccessAction::Reject(refusal.status, refusal.text),
        PolicyAdvice::Mark(_) if *marked == request.instance && !marked.is_empty() => {
            policy_service::AccessAction::Dunno
        }
        PolicyAdvice::Mark(mark) => {
            *marked = request.instance.to_vec();
            policy_service::AccessAction::Prepend(mark.header())
        }
    }
    .write(output);
    Ok(length)
}

/// `None`: it is not for us to say. Who has logged in is no stranger, and what is no address is the MTA's to refuse.
fn about_recipient(desk: &mut Desk, request: &policy_service::PolicyRequest<'_>) -> Option<PolicyAdvice> {
    if request.state != b"RCPT" || !request.user.is_empty() {
        return None;
    }
    let client: Option<IpAddr> = from_utf8(request.client).ok().and_then(|client| client.parse().ok());
    desk.client = client;
    let sender = from_utf8(request.sender).ok().and_then(|sender| ReversePath::parse(sender).ok());
    let recipient = from_utf8(request.recipient).ok().and_then(|recipient| Address::parse(recipient).ok());
    // What only the MTA can read might be anybody here. Programs on its own machine write as they always have.
    let known =
        client.is_some_and(|client| client.is_loopback()) || request.recipient.eq_ignore_ascii_case(b"postmaster");
    let (sender, recipient) = match (sender, recipient) {
        (Some(sender), Some(recipient)) => (sender, recipient),
        _ if known => return None,
        (None, _) => return Some(PolicyAdvice::Refuse(BAD_SENDER)),
        (Some(_), None) => return Some(PolicyAdvice::Refuse(BAD_RECIPIENT)),
    };
    let inbound = desk.recipient(Caller::Policy, &sender, &recipient);
    let advice = inbound.advice();
    if let PolicyAdvice::Mark(mark) = &advice
        && mark.observed
    {
        desk.would_refuse(mark.reason, &recipient, false, None);
    }
    Some(advice)
}
