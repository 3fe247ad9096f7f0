//! Policy requests of Postfix: parses a request, queries the rules, and writes the answer.

use std::net::IpAddr;
use std::str::from_utf8;

use super::evaluate::Evaluator;
use super::prepared::Preparation;
use super::request_step::RequestStep;
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::rules::{BAD_RECIPIENT, BAD_SENDER, Caller, PolicyAdvice, RefusalReason};
use crate::wire::policy_service::{self, AccessAction, PolicyError, PolicyRequest};

/// Answers one policy request. `is_prepared`: what it needs is there, or cannot be had. `marked` is the
/// instance of the message that was marked last.
pub(super) fn answer(
    evaluator: &mut Evaluator,
    is_prepared: bool,
    marked: &mut Vec<u8>,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<RequestStep, PolicyError> {
    let Some((request, length)) = policy_service::next(input)? else { return Ok(RequestStep::Incomplete) };
    if !is_prepared && let Some(work) = prepare(evaluator, &request) {
        return Ok(RequestStep::Waits(work));
    }
    let advice = about_recipient(evaluator, &request).unwrap_or(PolicyAdvice::GoOn);
    // Whatever was answered: the query is over.
    drop(evaluator.take_pending());
    match advice {
        PolicyAdvice::GoOn => AccessAction::Dunno,
        PolicyAdvice::Refuse(refusal) if refusal.reason == RefusalReason::Harvest => {
            AccessAction::DeferNow(refusal.status, refusal.text)
        }
        PolicyAdvice::Refuse(refusal) if refusal.is_temporary() => AccessAction::Defer(refusal.status, refusal.text),
        PolicyAdvice::Refuse(refusal) => AccessAction::Reject(refusal.status, refusal.text),
        PolicyAdvice::Mark(_) if *marked == request.instance && !marked.is_empty() => AccessAction::Dunno,
        PolicyAdvice::Mark(mark) => {
            *marked = request.instance.to_vec();
            AccessAction::Prepend(mark.header())
        }
    }
    .write(output);
    Ok(RequestStep::Answered(length))
}

/// Begins what a request needs.
fn prepare(evaluator: &mut Evaluator, request: &PolicyRequest<'_>) -> Option<Preparation> {
    if request.state != b"RCPT" || !request.user.is_empty() {
        return None;
    }
    let recipient = Address::parse(from_utf8(request.recipient).ok()?).ok()?;
    evaluator.client = client_of(request);
    evaluator.is_spared = evaluator.client.is_none_or(|client| client.is_loopback());
    evaluator.prepare_recipient(Caller::Policy, &recipient)
}

fn client_of(request: &PolicyRequest<'_>) -> Option<IpAddr> {
    from_utf8(request.client).ok().and_then(|client| client.parse().ok())
}

/// Advice about a recipient. `None`: Postfix decides, because the client has logged in, or because an address that only
/// Postfix can parse is allowed here.
fn about_recipient(evaluator: &mut Evaluator, request: &PolicyRequest<'_>) -> Option<PolicyAdvice> {
    if request.state != b"RCPT" || !request.user.is_empty() {
        return None;
    }
    let client = client_of(request);
    evaluator.client = client;
    let sender = from_utf8(request.sender).ok().and_then(|sender| ReversePath::parse(sender).ok());
    let recipient = from_utf8(request.recipient).ok().and_then(|recipient| Address::parse(recipient).ok());
    // An address that cannot be parsed might be a local user to the MTA. Programs on its own machine may use such
    // addresses.
    let known =
        client.is_some_and(|client| client.is_loopback()) || request.recipient.eq_ignore_ascii_case(b"postmaster");
    let (sender, recipient) = match (sender, recipient) {
        (Some(sender), Some(recipient)) => (sender, recipient),
        _ if known => return None,
        (None, _) => return Some(PolicyAdvice::Refuse(BAD_SENDER)),
        (Some(_), None) => return Some(PolicyAdvice::Refuse(BAD_RECIPIENT)),
    };
    let (inbound, _) = evaluator.recipient(Caller::Policy, &sender, &recipient);
    let advice = inbound.advice();
    if let PolicyAdvice::Mark(mark) = &advice
        && mark.observed
    {
        evaluator.would_refuse(mark.reason, &recipient, false, None);
    }
    Some(advice)
}
