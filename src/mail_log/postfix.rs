//! Lines of Postfix: the text behind `postfix/NAME[PID]: `.

use memchr::{memchr, memmem};

use super::event::{Client, Delivery, Event, NoticeKind, Outcome, Received, Refusal, Refused};
use super::fields::{address, after, between, bracketed_ip, codes, cut, cut_at, has, queue_id, until};

/// The event of a line of one of Postfix's programs (`smtpd`, `qmgr`, …).
pub(super) fn parse<'a>(program: &[u8], text: &'a [u8]) -> Option<Event<'a>> {
    match program {
        b"qmgr" => queue_manager(text),
        b"bounce" => bounce(text),
        b"postsuper" => {
            let (id, rest) = queue_id(text)?;
            (rest == b"removed").then_some(Event::Gone { id })
        }
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
    let (sender, rest) = address(rest.strip_prefix(b"from=<")?, b'>')?;
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
    // A filter in the session has refused a message: this line names no client.
    if let Some(rest) = text.strip_prefix(b"proxy-reject: END-OF-MESSAGE: ") {
        return refused(rest, b"", true);
    }
    let (id, rest) = match text.strip_prefix(b"NOQUEUE: ") {
        Some(rest) => (None, rest),
        None => queue_id(text).map(|(id, rest)| (Some(id), rest))?,
    };
    if let Some(client) = rest.strip_prefix(b"client=") {
        return Some(Event::Received(Received { id: id?, by: client_of(client), ..Received::default() }));
    }
    let (verb, rest) = cut(rest, b':')?;
    let rest = rest.strip_prefix(b" ")?;
    let is_filter = match verb {
        b"reject" => false,
        b"milter-reject" | b"proxy-reject" => true,
        _ => return None,
    };
    let (stage, rest) = cut_at(rest, b" from ")?;
    match stage {
        b"RCPT" | b"DATA" | b"BDAT" | b"END-OF-MESSAGE" => {
            // postscreen writes the port behind the address.
            let (client, reply) = cut_at(rest, b"]: ").or_else(|| cut_at(rest, b": "))?;
            refused(reply, client, is_filter)
        }
        b"VRFY" => {
            let (client, _) = cut_at(rest, b"]: ")?;
            let to = between(rest, b" to=<", b'>').unwrap_or(b"");
            let is_unknown = says_unknown(rest);
            let client = bracketed(client)?;
            is_unknown.then_some(Event::Asked { client, to })
        }
        // header_checks and the like, which show what they have matched.
        _ if is_content(stage) => content_refused(rest),
        // CONNECT, HELO, MAIL and so on are not about a recipient.
        _ => None,
    }
}

fn is_content(stage: &[u8]) -> bool {
    [&b"header "[..], b"body ", b"mime-header ", b"nested-header ", b"milter-header "]
        .iter()
        .any(|kind| stage.starts_with(kind))
}

/// `name[192.0.2.7], orig_client=…, sasl_username=…`: who has handed a message in.
fn client_of(client: &[u8]) -> Client {
    let (client, more) = cut(client, b',').unwrap_or((client, b""));
    if !more.is_empty() {
        if after(more, b" sasl_username=").is_some() {
            return Client::User;
        }
        // A filter in the session hands on its client; one behind the queue names the message, too.
        if let Some(original) =
            between(more, b" orig_client=", b',').filter(|_| after(more, b" orig_queue_id=").is_none())
        {
            return bracketed_ip(original).map_or(Client::Unknown, Client::Host);
        }
    }
    bracketed_ip(client).map_or(Client::Unknown, Client::Host)
}

/// The address behind the last `[`.
fn bracketed(client: &[u8]) -> Option<core::net::IpAddr> {
    let open = client.iter().rposition(|octet| *octet == b'[')?;
    super::fields::ip(until(client.get(open + 1..)?, b']'))
}

/// The envelope at the end of a line: sender, recipient, and whether a user has logged in.
type Envelope<'a> = (Option<&'a [u8]>, &'a [u8], bool);

/// `<sender> to=<recipient> proto=ESMTP helo=<name>`, to the end of the line. Parts may be missing.
fn envelope(text: &[u8], allows_more: bool) -> Option<Envelope<'_>> {
    let (sender, rest) = address(text, b'>')?;
    let rest = rest.strip_prefix(b",").unwrap_or(rest);
    let (to, rest) = match rest.strip_prefix(b" to=<") {
        Some(rest) => address(rest, b'>')?,
        None => (&b""[..], rest),
    };
    let rest = rest.strip_prefix(b",").unwrap_or(rest);
    let rest = match rest.strip_prefix(b" proto=") {
        Some(rest) => rest.get(rest.iter().take_while(|octet| octet.is_ascii_alphanumeric()).count()..)?,
        None => rest,
    };
    let rest = rest.strip_prefix(b",").unwrap_or(rest);
    let rest = match rest.strip_prefix(b" helo=<") {
        Some(rest) => cut(rest, b'>')?.1,
        None => rest,
    };
    let has_login = rest.starts_with(b" sasl_");
    (rest.is_empty() || has_login || (allows_more && rest.starts_with(b": "))).then_some((Some(sender), to, has_login))
}

/// What stands before the envelope, and the envelope. A recipient may contain the words that begin one, so only one that
/// ends with the line counts.
fn with_envelope(text: &[u8], allows_more: bool) -> (&[u8], Envelope<'_>) {
    let mut found = memmem::find_iter(text, b"; from=<");
    let fits = found.find_map(|at| Some((text.get(..at)?, envelope(text.get(at + 8..)?, allows_more)?)));
    fits.unwrap_or((text, (None, b"", false)))
}

/// `550 5.1.1 <to>: words; from=<sender> to=<recipient> proto=ESMTP helo=<name>`
fn refused<'a>(text: &'a [u8], client: &'a [u8], is_filter: bool) -> Option<Event<'a>> {
    let (reply, (sender, to, has_login)) = with_envelope(text, false);
    if has_login {
        return None;
    }
    let (code, enhanced, words) = codes(reply);
    let open = client.iter().rposition(|octet| *octet == b'[');
    let name = open.and_then(|open| client.get(..open)).filter(|name| *name != b"unknown" && !name.is_empty());
    let why = why(code, enhanced, words, is_filter);
    Some(Event::Refused(Refused { client: bracketed(client), session: None, name, sender, to, why }))
}

/// `name[192.0.2.7]; from=<sender> to=<recipient> proto=ESMTP helo=<name>: 5.7.1 words`, behind what was matched.
fn content_refused(text: &[u8]) -> Option<Event<'_>> {
    let (head, (sender, to, has_login)) = with_envelope(text, true);
    let client = bracketed(head.strip_suffix(b"]")?);
    let name = None;
    (!has_login).then_some(Event::Refused(Refused { client, session: None, name, sender, to, why: Refusal::Filter }))
}

/// The reason of a refusal, from its reply.
pub(super) fn why(code: Option<u16>, enhanced: Option<[u16; 3]>, words: &[u8], is_filter: bool) -> Refusal {
    // The reply begins with the recipient, in which anything may stand.
    let words = match memmem::rfind(words, b">: ") {
        Some(at) if words.starts_with(b"<") => words.get(at..).unwrap_or(b""),
        _ => words,
    };
    let is_relaying = has(words, b"relay access denied") || has(words, b"relaying denied");
    let is_user = matches!(enhanced, Some([_, 1, 1 | 6 | 10])) && !is_relaying;
    let is_sender = has(words, b"sender address rejected");
    match code {
        _ if (is_user || says_unknown(words)) && !is_sender => Refusal::UnknownUser,
        _ if is_relaying => Refusal::RelayingDenied,
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
    let (to, mut rest) = address(rest.strip_prefix(b"to=<")?, b'>')?;
    let (mut asked, mut relay, mut enhanced) = (None, &b""[..], None);
    let status = loop {
        let field = rest.strip_prefix(b", ")?;
        if let Some(status) = field.strip_prefix(b"status=") {
            break status;
        }
        if let Some(path) = field.strip_prefix(b"orig_to=<") {
            let (found, behind) = address(path, b'>')?;
            (asked, rest) = (Some(found), behind);
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
        is_local: is_mailbox(program, relay, words),
        result,
        enhanced,
        words,
    }))
}

/// Programs by which `pipe` delivers to mailboxes; others are filters.
const AGENTS: [&[u8]; 5] = [b"dovecot", b"maildrop", b"procmail", b"cyrus", b"mailman"];

/// Whether a delivery is one to a mailbox here. What a filter accepts goes elsewhere.
fn is_mailbox(program: &[u8], relay: &[u8], words: &[u8]) -> bool {
    match program {
        b"local" | b"virtual" => true,
        b"lmtp" => after(words, b"queued as").is_none(),
        b"pipe" => AGENTS.iter().any(|agent| relay.starts_with(agent)),
        _ => false,
    }
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
