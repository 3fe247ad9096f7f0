//! Lines of Postfix: the text behind `postfix/NAME[PID]: `.

use memchr::memchr;

use super::event::{Client, Delivery, Event, NoticeKind, Outcome, Received, Refusal, Refused};
use super::fields::{after, between, bracketed_ip, codes, cut, cut_at, has, queue_id, until};

/// The event of a line of one of Postfix's programs (`smtpd`, `qmgr`, …).
pub(super) fn parse<'a>(program: &[u8], text: &'a [u8]) -> Option<Event<'a>> {
    match program {
        b"qmgr" => queue_manager(text),
        b"bounce" => bounce(text),
        b"smtpd" | b"postscreen" | b"cleanup" => dialogue(text),
        b"pickup" => {
            let (id, rest) = queue_id(text)?;
            let is_new = rest.starts_with(b"uid=");
            is_new.then_some(Event::Received(Received { id, by: Client::User, ..Received::default() }))
        }
        _ => delivery(program, text),
    }
}

fn queue_manager(text: &[u8]) -> Option<Event<'_>> {
    let (id, rest) = queue_id(text)?;
    if rest == b"removed" {
        return Some(Event::Gone { id });
    }
    let (sender, rest) = cut(rest.strip_prefix(b"from=<")?, b'>')?;
    // The other line about a sender says that its message has expired.
    rest.starts_with(b", size=").then_some(Event::Sender { id, sender })
}

fn bounce(text: &[u8]) -> Option<Event<'_>> {
    let (id, rest) = queue_id(text)?;
    let (what, notice) = cut_at(rest, b" notification: ")?;
    let kind = match what {
        b"sender non-delivery" => NoticeKind::Failure,
        b"sender delay" => NoticeKind::Delay,
        b"sender delivery status" => NoticeKind::Success,
        // Those to the postmaster stay here.
        _ => return None,
    };
    Some(Event::Bounced { id, notice, kind })
}

fn dialogue(text: &[u8]) -> Option<Event<'_>> {
    // Most lines are of these kinds.
    if text.starts_with(b"connect from ") || text.starts_with(b"disconnect from ") {
        return None;
    }
    let (id, rest) = match text.strip_prefix(b"NOQUEUE: ") {
        Some(rest) => (None, rest),
        None => queue_id(text).map(|(id, rest)| (Some(id), rest))?,
    };
    if let Some(client) = rest.strip_prefix(b"client=") {
        let (client, more) = cut(client, b',').unwrap_or((client, b""));
        let has_login = !more.is_empty() && after(more, b" sasl_username=").is_some();
        let ip = bracketed_ip(client);
        let by = if has_login { Client::User } else { ip.map_or(Client::Unknown, Client::Host) };
        return Some(Event::Received(Received { id: id?, by, ..Received::default() }));
    }
    let (verb, rest) = cut(rest, b':')?;
    let rest = rest.strip_prefix(b" ")?;
    let is_filter = match verb {
        b"reject" => false,
        b"milter-reject" | b"proxy-reject" => true,
        _ => return None,
    };
    let (_, rest) = cut_at(rest, b" from ")?;
    refused(rest, is_filter)
}

/// `name[192.0.2.7]: 550 5.1.1 <to>: words; from=<sender> to=<recipient> proto=ESMTP helo=<name>`
fn refused(text: &[u8], is_filter: bool) -> Option<Event<'_>> {
    // postscreen writes the port behind the address.
    let (client, rest) = cut_at(text, b"]: ").or_else(|| cut_at(text, b": "))?;
    let (reply, envelope) = cut_at(rest, b"; from=<").unwrap_or((rest, b""));
    let close = client.iter().rposition(|octet| *octet == b'[')?;
    let ip = super::fields::ip(until(client.get(close + 1..)?, b']'));
    let (code, enhanced, words) = codes(reply);
    Some(Event::Refused(Refused {
        client: ip,
        session: None,
        name: client.get(..close).filter(|name| *name != b"unknown"),
        sender: (!envelope.is_empty()).then(|| until(envelope, b'>')),
        to: between(envelope, b" to=<", b'>').unwrap_or(b""),
        why: why(code, enhanced, words, is_filter),
    }))
}

/// The reason of a refusal, from its reply.
pub(super) fn why(code: Option<u16>, enhanced: Option<[u16; 3]>, words: &[u8], is_filter: bool) -> Refusal {
    let is_user = matches!(enhanced, Some([_, 1, 1 | 6 | 10])) && !has(words, b"relay");
    match code {
        _ if is_user || says_unknown(words) => Refusal::UnknownUser,
        _ if has(words, b"relay access denied") || has(words, b"relaying denied") => Refusal::RelayingDenied,
        Some(400..=499) => Refusal::Later,
        _ if matches!(enhanced, Some([4, ..])) => Refusal::Later,
        _ if is_filter => Refusal::Filter,
        _ => Refusal::Other,
    }
}

/// Whether words mean that there is no such user, as mail servers say it.
pub(super) fn says_unknown(words: &[u8]) -> bool {
    const PHRASES: [&[u8]; 8] = [
        b"user unknown",
        b"unknown user",
        b"no such user",
        b"unknown recipient",
        b"recipient unknown",
        b"no such recipient",
        b"invalid recipient",
        b"unrouteable address",
    ];
    PHRASES.iter().any(|phrase| has(words, phrase))
}

/// `to=<a@b>, orig_to=<c>, relay=mx[192.0.2.7]:25, delay=…, dsn=5.1.1, status=bounced (words)`
fn delivery<'a>(program: &[u8], text: &'a [u8]) -> Option<Event<'a>> {
    let (id, rest) = queue_id(text)?;
    let (to, mut rest) = cut(rest.strip_prefix(b"to=<")?, b'>')?;
    let (mut asked, mut relay, mut enhanced) = (None, &b""[..], None);
    let status = loop {
        let field = rest.strip_prefix(b", ")?;
        if let Some(status) = field.strip_prefix(b"status=") {
            break status;
        }
        if let Some(address) = field.strip_prefix(b"orig_to=<") {
            let (address, behind) = cut(address, b'>')?;
            (asked, rest) = (Some(address), behind);
            continue;
        }
        let end = memchr(b',', field)?;
        let (value, behind) = (field.get(..end)?, field.get(end..)?);
        rest = behind;
        if let Some(value) = value.strip_prefix(b"relay=") {
            relay = value;
        } else if let Some(value) = value.strip_prefix(b"dsn=") {
            enhanced = super::fields::enhanced(value);
        }
    };
    let (result, words) = cut(status, b' ').unwrap_or((status, b""));
    let result = match result {
        // Of an address that is only probed, `deliverable` and `undeliverable` are not about mail.
        b"sent" => Outcome::Delivered,
        b"deferred" => Outcome::Deferred,
        b"bounced" | b"expired" => Outcome::Failed,
        _ => return None,
    };
    Some(Event::Delivery(Delivery {
        id,
        to,
        asked,
        by: relay,
        is_local: !matches!(program, b"smtp" | b"relay" | b"error" | b"retry" | b"discard"),
        result,
        enhanced,
        words,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (Option<String>, Refusal, String) {
        match parse(b"smtpd", text.as_bytes()) {
            Some(Event::Refused(refused)) => (
                refused.sender.map(|sender| String::from_utf8(sender.to_vec()).unwrap()),
                refused.why,
                format!("{} {}", refused.client.unwrap(), String::from_utf8_lossy(refused.to)),
            ),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn refusals() {
        let of = |reply: &str| {
            refusal(&format!(
                "NOQUEUE: reject: RCPT from mx.isp.example[203.0.113.5]: {reply}; from=<> to=<x@our.example> proto=ESMTP helo=<a>"
            ))
        };
        for (reply, why) in [
            (
                "550 5.1.1 <x@our.example>: Recipient address rejected: User unknown in local recipient table",
                Refusal::UnknownUser,
            ),
            ("450 4.1.1 <x@our.example>: Recipient address rejected: unverified address", Refusal::UnknownUser),
            ("550 <x@our.example>: User unknown", Refusal::UnknownUser),
            ("554 5.7.1 <x@else.example>: Relay access denied", Refusal::RelayingDenied),
            ("450 4.2.0 <x@our.example>: Recipient address rejected: Greylisted", Refusal::Later),
            ("554 5.7.1 Service unavailable; Client host [203.0.113.5] blocked using zen.example", Refusal::Other),
        ] {
            assert_eq!(of(reply), (Some(String::new()), why, "203.0.113.5 x@our.example".to_owned()), "{reply}");
        }
        let filtered = "4Vx1Bz0QpzzW: milter-reject: END-OF-MESSAGE from unknown[203.0.113.5]: 5.7.1 not sent from here; \
            from=<> to=<ann@our.example> proto=ESMTP helo=<a>";
        assert_eq!(refusal(filtered).1, Refusal::Filter);
        let screened = "NOQUEUE: reject: RCPT from [203.0.113.5]:61234: 550 5.7.1 Service unavailable; from=<a@b>, \
            to=<x@our.example>, proto=ESMTP, helo=<a>";
        assert_eq!(refusal(screened), (Some("a@b".into()), Refusal::Other, "203.0.113.5 x@our.example".into()));
    }

    #[test]
    fn deliveries_and_bounces() {
        let line = "4Vx1Bz0QpzzW: to=<carol@third.example>, orig_to=<fwd@our.example>, relay=mx.third.example[192.0.2.9]:25, \
            delay=0.2, delays=0.1/0/0/0.1, dsn=5.1.1, status=bounced (host mx.third.example[192.0.2.9] said: 550 5.1.1 no)";
        let Some(Event::Delivery(found)) = parse(b"smtp", line.as_bytes()) else { panic!() };
        assert_eq!((found.to, found.asked), (&b"carol@third.example"[..], Some(&b"fwd@our.example"[..])));
        assert_eq!((found.result, found.enhanced, found.is_local), (Outcome::Failed, Some([5, 1, 1]), false));
        let local = "4Vx1Bz0QpzzW: to=<ann@our.example>, relay=virtual, delay=0.2, delays=0.1/0/0/0.1, dsn=2.0.0, \
            status=sent (delivered to maildir)";
        assert!(matches!(parse(b"virtual", local.as_bytes()), Some(Event::Delivery(found)) if found.is_local));
        assert_eq!(
            parse(b"bounce", b"4Vx1Bz0QpzzW: sender non-delivery notification: 4Vx1C01234zzX"),
            Some(Event::Bounced { id: b"4Vx1Bz0QpzzW", notice: b"4Vx1C01234zzX", kind: NoticeKind::Failure })
        );
        assert_eq!(
            parse(b"qmgr", b"A1B2C3: from=<>, size=1, nrcpt=1 (queue active)"),
            Some(Event::Sender { id: b"A1B2C3", sender: b"" })
        );
        assert_eq!(parse(b"qmgr", b"A1B2C3: from=<a@b>, status=expired, returned to sender"), None);
        assert_eq!(parse(b"qmgr", b"A1B2C3: removed"), Some(Event::Gone { id: b"A1B2C3" }));
        let login = b"A1B2C3: client=a.example[192.0.2.1], sasl_method=PLAIN, sasl_username=ann";
        assert!(matches!(parse(b"smtpd", login), Some(Event::Received(Received { by: Client::User, .. }))));
        assert_eq!(parse(b"smtpd", b"connect from a.example[192.0.2.1]"), None);
    }
}
