//! Lines of Exim's main log, behind the time. <https://www.exim.org/exim-html-current/doc/html/spec_html/ch-log_files.html>

use core::net::IpAddr;

use super::event::{Client, Delivery, Event, Outcome, Received, Refused};
use super::fields::{address, after, between, codes, cut, cut_at, ip, path, until};
use super::postfix::why;

/// The event of a line.
pub(super) fn parse(text: &[u8]) -> Option<Event<'_>> {
    // With the log selector `pid`.
    let text = match text.strip_prefix(b"[").and_then(|rest| cut_at(rest, b"] ")) {
        Some((pid, rest)) if pid.iter().all(u8::is_ascii_digit) => rest,
        _ => text,
    };
    let Some((id, rest)) = cut(text, b' ').filter(|(id, _)| is_message_id(id)) else {
        return refused(text);
    };
    let (flag, rest) = cut(rest, b' ').unwrap_or((rest, b""));
    match flag {
        b"<=" => Some(received(id, rest)),
        b"=>" | b"->" | b">>" | b"*>" => delivery(id, rest, Outcome::Delivered),
        b"**" => delivery(id, rest, Outcome::Failed),
        b"==" => delivery(id, rest, Outcome::Deferred),
        b"Completed" => Some(Event::Gone { id }),
        _ => refused(text),
    }
}

/// `1xWyMB-0006pn-1V`, or since Exim 4.97 `1xWyMB-000000006pn-1V2n`.
pub(super) fn is_message_id(id: &[u8]) -> bool {
    let second = match id.len() {
        16 => 6,
        23 => 11,
        _ => return false,
    };
    let is_hyphen = |at: usize| id.get(at) == Some(&b'-');
    let is_right = |(at, octet): (usize, &u8)| octet.is_ascii_alphanumeric() || at == 6 || at == 7 + second;
    is_hyphen(6) && is_hyphen(7 + second) && id.iter().enumerate().all(is_right)
}

/// `sender H=name (helo) [192.0.2.7]:port P=esmtp S=100 id=…`, or of a bounce `<> R=ID U=user P=local S=…`.
fn received<'a>(id: &'a [u8], rest: &'a [u8]) -> Event<'a> {
    let (sender, fields) = address(rest, b' ').unwrap_or((rest, b""));
    let sender = path(sender).unwrap_or(sender);
    // Behind the size stand the Message-ID and the subject, in which anything may stand.
    let fields = cut_at(fields, b" S=").map_or(fields, |(fields, _)| fields);
    let bounce_of = field(fields, b" R=").filter(|id| is_message_id(id));
    let by = match host(fields) {
        _ if field(fields, b" A=").is_some() => Client::User,
        Some(ip) => Client::Host(ip),
        None if field(fields, b" U=").is_some() => Client::User,
        None => Client::Unknown,
    };
    Event::Received(Received { id, by, sender: Some(sender), bounce_of })
}

/// `recipient <parent> F=<sender> R=router T=transport H=host [192.0.2.7] …: words`
fn delivery<'a>(id: &'a [u8], rest: &'a [u8], result: Outcome) -> Option<Event<'a>> {
    // What no router takes has no fields: `** recipient: Unrouteable address`.
    let (head, fields) = cut_at(rest, b" R=").or_else(|| cut_at(rest, b": ")).unwrap_or((rest, b""));
    let (to, parent) = match cut_at(head, b" <") {
        Some((to, parent)) => (to, Some(until(parent, b'>'))),
        None => (until(head, b' '), None),
    };
    let transport = between(fields, b" T=", b' ').map(|name| until(name, b':'));
    let host = between(fields, b" H=", b' ');
    // A delivery to a mailbox has the whole address behind its local part.
    let (to, asked) = match parent {
        Some(parent) if !to.contains(&b'@') => (parent, None),
        other => (to, other.filter(|parent| !parent.eq_ignore_ascii_case(to))),
    };
    let words = match result {
        Outcome::Delivered => b"",
        Outcome::Deferred | Outcome::Failed => after(fields, b": ").unwrap_or(fields),
    };
    let said = after(words, b">: ").unwrap_or(words);
    Some(Event::Delivery(Delivery {
        id,
        to,
        asked,
        by: host.or(transport).unwrap_or(b"its routers"),
        // A reply that an autoreply has made is shown with `>`.
        is_local: host.is_none() && result == Outcome::Delivered && !to.starts_with(b">"),
        result,
        enhanced: codes(said).1,
        words,
    }))
}

/// `H=name (helo) [192.0.2.7]:port F=<sender> rejected RCPT <recipient>: words`, or `rejected after DATA: words`.
fn refused(text: &[u8]) -> Option<Event<'_>> {
    // A sender may contain the words that come behind it.
    let (head, sender, tail) = match cut_at(text, b" F=<") {
        Some((head, rest)) => {
            let (sender, tail) = address(rest, b'>')?;
            (head, Some(sender), tail)
        }
        None => {
            let at = memchr::memmem::find(text, b" rejected ")?;
            (text.get(..at)?, None, text.get(at..)?)
        }
    };
    if field(head, b" A=").is_some() {
        return None;
    }
    let (is_later, tail) = match tail.strip_prefix(b" temporarily") {
        Some(tail) => (true, tail),
        None => (false, tail),
    };
    let tail = tail.strip_prefix(b" rejected ")?;
    let (to, words, is_filter) = if let Some(rest) = tail.strip_prefix(b"RCPT <") {
        let (to, rest) = address(rest, b'>')?;
        (to, rest.strip_prefix(b": ").unwrap_or(b""), false)
    } else {
        (&b""[..], after(tail, b"after DATA: ").or_else(|| after(tail, b"by DATA ACL: "))?, true)
    };
    let (code, enhanced, said) = codes(words);
    let name = between(head, b"H=", b' ').filter(|name| !name.starts_with(b"(") && !name.starts_with(b"["));
    let why = why(if is_later { Some(450) } else { code }, enhanced, said, is_filter);
    Some(Event::Refused(Refused { client: host(head), session: None, name, sender, to, why }))
}

/// A field of a line. Not the first one.
fn field<'a>(fields: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    // The first field has no space in front.
    let first = key.get(1..).and_then(|key| fields.strip_prefix(key));
    first.map(|rest| until(rest, b' ')).or_else(|| between(fields, key, b' '))
}

/// The client's address: `H=name (helo) [192.0.2.7]:port`. The name in HELO may be an address, too, and in brackets.
fn host(fields: &[u8]) -> Option<IpAddr> {
    let mut rest = if let Some(rest) = fields.strip_prefix(b"H=") { rest } else { after(fields, b" H=")? };
    if !rest.starts_with(b"(") && !rest.starts_with(b"[") {
        rest = cut(rest, b' ')?.1;
    }
    if let Some(helo) = rest.strip_prefix(b"(") {
        rest = cut_at(helo, b") ")?.1;
    }
    ip(until(rest.strip_prefix(b"[")?, b']'))
}

#[cfg(test)]
mod tests {
    use super::super::event::Refusal;
    use super::*;

    #[test]
    fn messages() {
        let line =
            b"1xWyMB-0006pn-1V <= bob@third.example H=mx.third.example (helo) [192.0.2.9]:4321 P=esmtp S=300 id=a@b";
        let by = Client::Host("192.0.2.9".parse().unwrap());
        let (id, sender) = (&b"1xWyMB-0006pn-1V"[..], Some(&b"bob@third.example"[..]));
        assert_eq!(parse(line), Some(Event::Received(Received { id, by, sender, bounce_of: None })));
        let bounce = b"[123] 1xWyMH-0006rr-0s <= <> R=1xWyMB-0006pn-1V U=Debian-exim P=local S=1800";
        let Some(Event::Received(found)) = parse(bounce) else { panic!() };
        assert_eq!((found.sender, found.bounce_of), (Some(&b""[..]), Some(id)));
        let login = b"1xWyMB-000000006pn-1V2n <= ann@our.example H=(desk) [192.0.2.9] P=esmtpsa A=plain:ann S=300";
        assert!(matches!(parse(login), Some(Event::Received(Received { by: Client::User, .. }))));
        assert_eq!(parse(b"1xWyMB-0006pn-1V Completed"), Some(Event::Gone { id }));
        assert_eq!(parse(b"Start queue run: pid=26284"), None);
    }

    #[test]
    fn deliveries() {
        let of = |text: &'static [u8]| match parse(text) {
            Some(Event::Delivery(found)) => found,
            other => panic!("{other:?}"),
        };
        let failed = of(b"1xWyNL-0006vf-27 ** refused@third.example <fwd2@our.example> R=world T=remote_smtp H=mx.third.example \
            [192.0.2.9]: SMTP error from remote mail server after RCPT TO:<refused@third.example>: 550 5.1.1 no such user");
        assert_eq!((failed.to, failed.asked), (&b"refused@third.example"[..], Some(&b"fwd2@our.example"[..])));
        assert_eq!((failed.enhanced, failed.by, failed.is_local), (Some([5, 1, 1]), &b"mx.third.example"[..], false));
        let local = of(b"1xWyNL-0006vf-27 => ann <ann@our.example> R=mailbox T=maildir");
        assert_eq!((local.to, local.asked, local.is_local), (&b"ann@our.example"[..], None, true));
        let full = of(b"1xWyNL-0006vf-27 ** full@our.example R=mailbox T=maildir: mailbox is full (MTA-imposed quota exceeded while writing)");
        assert_eq!(
            (full.by, full.words),
            (&b"maildir"[..], &b"mailbox is full (MTA-imposed quota exceeded while writing)"[..])
        );
        let lost = of(b"1xWyNL-0006vf-27 ** nobody@our.example: Unrouteable address");
        assert_eq!(
            (lost.to, lost.words, lost.result),
            (&b"nobody@our.example"[..], &b"Unrouteable address"[..], Outcome::Failed)
        );
        let later = of(b"1xWyNL-0006vf-27 == bob@third.example R=world T=remote_smtp defer (111): Connection refused");
        assert_eq!(later.result, Outcome::Deferred);
    }

    #[test]
    fn refusals() {
        let of = |text: &'static [u8]| match parse(text) {
            Some(Event::Refused(found)) => (found.client.map(|ip| ip.to_string()), found.sender, found.to, found.why),
            other => panic!("{other:?}"),
        };
        let ip = || Some("203.0.113.5".to_owned());
        assert_eq!(
            of(b"H=mx.isp.example (helo) [203.0.113.5]:25 F=<> rejected RCPT <x@our.example>: Unknown user"),
            (ip(), Some(&b""[..]), &b"x@our.example"[..], Refusal::UnknownUser)
        );
        assert_eq!(
            of(b"H=(helo) [203.0.113.5] F=<a@b> temporarily rejected RCPT <x@our.example>: greylisted"),
            (ip(), Some(&b"a@b"[..]), &b"x@our.example"[..], Refusal::Later)
        );
        assert_eq!(
            of(b"1xWyNL-0006vf-27 H=mx [203.0.113.5] F=<> rejected after DATA: not sent from here"),
            (ip(), Some(&b""[..]), &b""[..], Refusal::Filter)
        );
    }
}
