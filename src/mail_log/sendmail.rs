//! Lines of Sendmail: the text behind `sm-mta[PID]: `. Sendmail has no line that says why it bounces, only that it does.

use super::event::{Client, Delivery, Event, NoticeKind, Outcome, Received, Refusal, Refused};
use super::fields::{after, between, bracketed_ip, codes, cut_at, path, queue_id, until};
use super::postfix::{says_unknown, why};

/// The event of a line.
pub(super) fn parse(text: &[u8]) -> Option<Event<'_>> {
    let (id, rest) = queue_id(text)?;
    if let Some(sender) = rest.strip_prefix(b"from=") {
        return received(id, sender);
    }
    if let Some(to) = rest.strip_prefix(b"to=") {
        return delivery(id, to);
    }
    if let Some((to, words)) = rest.strip_prefix(b"<").and_then(|rest| cut_at(rest, b">... ")) {
        // The client is in another line.
        let why = if says_unknown(words) { Refusal::UnknownUser } else { why(None, None, words, false) };
        return Some(Event::Refused(Refused { client: None, session: None, name: None, sender: None, to, why }));
    }
    if let Some((head, reply)) = cut_at(rest, b", reject=") {
        let (code, enhanced, words) = codes(reply);
        let to = after(head, b"arg1=").or_else(|| after(head, b"to=")).and_then(path).unwrap_or(b"");
        let is_filter = rest.starts_with(b"Milter");
        let relay = between(head, b"relay=", b',');
        return Some(Event::Refused(Refused {
            client: relay.and_then(bracketed_ip),
            session: None,
            name: relay.map(|relay| until(relay, b' ')).filter(|name| !name.starts_with(b"[")),
            sender: None,
            to,
            why: why(code, enhanced, words, is_filter),
        }));
    }
    // `OLDID: NEWID: DSN: User unknown`, or `return to sender`, `sender notify`, `postmaster notify`.
    let (notice, what) = queue_id(rest)?;
    let kind = match what {
        _ if what.starts_with(b"DSN: ") || what.starts_with(b"return to sender") => NoticeKind::Failure,
        _ if what.starts_with(b"sender notify") => NoticeKind::Delay,
        _ => return None,
    };
    Some(Event::Bounced { id, notice, kind })
}

fn received<'a>(id: &'a [u8], rest: &'a [u8]) -> Option<Event<'a>> {
    let sender = path(rest).unwrap_or_else(|| until(rest, b','));
    let relay = after(rest, b", relay=")?;
    let by = match bracketed_ip(relay) {
        Some(ip) => Client::Host(ip),
        // `ann@localhost`: a program on this machine.
        None => Client::User,
    };
    Some(Event::Received(Received { id, by, sender: Some(sender), bounce_of: None }))
}

fn delivery<'a>(id: &'a [u8], rest: &'a [u8]) -> Option<Event<'a>> {
    let to = path(rest).unwrap_or_else(|| until(rest, b','));
    let (_, status) = cut_at(rest, b", stat=")?;
    let mailer = between(rest, b"mailer=", b',').unwrap_or(b"");
    let is_local = mailer == b"local" || mailer == b"prog";
    let result = if status.starts_with(b"Sent") {
        Outcome::Delivered
    } else if status.starts_with(b"Deferred") || status.starts_with(b"queued") {
        Outcome::Deferred
    } else {
        Outcome::Failed
    };
    let by = between(rest, b"relay=", b',').map(|relay| until(relay, b' '));
    let enhanced = between(rest, b"dsn=", b',').and_then(super::fields::enhanced);
    Some(Event::Delivery(Delivery {
        id,
        to,
        asked: None,
        by: by.unwrap_or(mailer),
        is_local,
        result,
        enhanced,
        words: status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_sendmail() {
        let from = b"4ARG2oK0026190: from=<bob@third.example>, size=300, class=0, nrcpts=1, msgid=<a@b>, proto=ESMTP, daemon=MTA, \
            relay=mx.third.example [192.0.2.9]";
        let by = Client::Host("192.0.2.9".parse().unwrap());
        let id = &b"4ARG2oK0026190"[..];
        assert_eq!(
            parse(from),
            Some(Event::Received(Received { id, by, sender: Some(b"bob@third.example"), bounce_of: None }))
        );
        let to = b"4ARG2oK0026190: to=<ann@our.example>, delay=00:00:01, xdelay=00:00:00, mailer=local, pri=1, dsn=5.1.1, stat=User unknown";
        let Some(Event::Delivery(found)) = parse(to) else { panic!() };
        assert_eq!((found.result, found.enhanced, found.is_local), (Outcome::Failed, Some([5, 1, 1]), true));
        let notice = &b"4ARG2oK1026190"[..];
        assert_eq!(
            parse(b"4ARG2oK0026190: 4ARG2oK1026190: DSN: User unknown"),
            Some(Event::Bounced { id, notice, kind: NoticeKind::Failure })
        );
        let Some(Event::Refused(found)) = parse(b"4ARG2oK0026190: <x@our.example>... User unknown") else { panic!() };
        assert_eq!((found.to, found.why), (&b"x@our.example"[..], Refusal::UnknownUser));
        let relay =
            b"4ARG2oK0026190: ruleset=check_rcpt, arg1=<x@else.example>, relay=[203.0.113.5], reject=550 5.7.1 \
            <x@else.example>... Relaying denied";
        let Some(Event::Refused(found)) = parse(relay) else { panic!() };
        assert_eq!((found.client, found.why), ("203.0.113.5".parse().ok(), Refusal::RelayingDenied));
    }
}
