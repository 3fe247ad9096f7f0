//! Lines of OpenSMTPD: the text behind `smtpd[PID]: `. It does not say which bounce is about which message.

use super::event::{Client, Delivery, Event, Outcome, Received, Refused};
use super::fields::{after, between, codes, cut, ip, path};
use super::postfix::why;

/// The event of a line. The client is named in a line of its own, when its session begins.
pub(super) fn parse(text: &[u8]) -> Option<Event<'_>> {
    let (session, rest) = cut(text, b' ')?;
    let name: [u8; 16] = session.try_into().ok().filter(|it: &[u8; 16]| it.iter().all(u8::is_ascii_hexdigit))?;
    if let Some(rest) = rest.strip_prefix(b"smtp ") {
        let (what, fields) = cut(rest, b' ').unwrap_or((rest, b""));
        return match what {
            b"connected" => {
                // A program on this machine has no address: `address=local`.
                let by = between(fields, b"address=", b' ').and_then(ip).map_or(Client::User, Client::Host);
                Some(Event::Session { name, by })
            }
            b"envelope" => {
                let (id, by) = (message_of(fields)?, Client::OfSession(name));
                Some(Event::Received(Received {
                    id,
                    by,
                    sender: after(fields, b"from=").and_then(path),
                    bounce_of: None,
                }))
            }
            b"failed-command" => refused(name, fields),
            _ => None,
        };
    }
    let (kind, fields) = cut(rest, b' ')?;
    let is_local = match kind {
        b"mda" => true,
        b"mta" => false,
        _ => return None,
    };
    delivery(is_local, fields.strip_prefix(b"delivery ")?)
}

/// The first half of an envelope's name is that of its message.
fn message_of(fields: &[u8]) -> Option<&[u8]> {
    between(fields, b"evpid=", b' ')?.get(..8)
}

fn delivery(is_local: bool, fields: &[u8]) -> Option<Event<'_>> {
    let result = between(fields, b"result=", b' ')?;
    let result = match result.strip_prefix(b"\"").unwrap_or(result) {
        [b'O', b'k', ..] => Outcome::Delivered,
        [b'T', ..] => Outcome::Deferred,
        [b'P', ..] => Outcome::Failed,
        _ => return None,
    };
    let to = after(fields, b"to=").and_then(path)?;
    let asked =
        after(fields, b"rcpt=").and_then(path).filter(|asked| *asked != b"-" && !asked.eq_ignore_ascii_case(to));
    let words = after(fields, b"stat=").unwrap_or(b"");
    let words = words.strip_prefix(b"\"").unwrap_or(words);
    let by = if is_local { &b"a mailbox"[..] } else { between(fields, b"relay=\"", b' ').unwrap_or(b"") };
    let enhanced = codes(words).1;
    Some(Event::Delivery(Delivery { id: message_of(fields)?, to, asked, by, is_local, result, enhanced, words }))
}

fn refused(session: [u8; 16], fields: &[u8]) -> Option<Event<'_>> {
    let command = after(fields, b"command=\"")?;
    let to = command.strip_prefix(b"RCPT TO:").and_then(path)?;
    let (code, enhanced, words) = codes(after(fields, b"result=\"")?);
    let why = why(code, enhanced, words, false);
    Some(Event::Refused(Refused { client: None, session: Some(session), name: None, sender: None, to, why }))
}

#[cfg(test)]
mod tests {
    use super::super::event::Refusal;
    use super::*;

    #[test]
    fn lines_of_opensmtpd() {
        let read = |text: &'static [u8]| parse(text);
        let (name, by) = (*b"46a27dffb0f07c48", Client::Host("192.0.2.9".parse().unwrap()));
        let connected = b"46a27dffb0f07c48 smtp connected address=192.0.2.9 host=mx.third.example";
        assert_eq!(read(connected), Some(Event::Session { name, by }));
        let by = Client::OfSession(name);
        assert_eq!(
            read(b"46a27dffb0f07c48 smtp envelope evpid=9a47c280057d7100 from=<> to=<ann@our.example>"),
            Some(Event::Received(Received { id: b"9a47c280", by, sender: Some(b""), bounce_of: None }))
        );
        let failed = b"46a27e07f8c8b2a0 mta delivery evpid=d1b871e7e08e3888 from=<bob@third.example> to=<carol@third.example> \
            rcpt=<fwd@our.example> source=\"192.0.2.1\" relay=\"192.0.2.8 (mx.third.example)\" delay=2s result=\"PermFail\" \
            stat=\"550 5.1.1 no such user\"";
        let Some(Event::Delivery(found)) = read(failed) else { panic!() };
        assert_eq!((found.result, found.enhanced, found.by), (Outcome::Failed, Some([5, 1, 1]), &b"192.0.2.8"[..]));
        assert_eq!(found.asked, Some(&b"fwd@our.example"[..]));
        let local = b"46a27e07f8c8b2a0 mda delivery evpid=d1b871e7e08e3888 from=<> to=<ann@our.example> rcpt=<ann@our.example> \
            user=vmail delay=0s result=Ok stat=Delivered";
        assert!(matches!(read(local), Some(Event::Delivery(found)) if found.is_local && found.asked.is_none()));
        let refused = b"46a27dffb0f07c48 smtp failed-command command=\"RCPT TO:<x@our.example>\" result=\"550 Invalid recipient: \
            <x@our.example>\"";
        let Some(Event::Refused(found)) = read(refused) else { panic!() };
        assert_eq!((found.to, found.why, found.session), (&b"x@our.example"[..], Refusal::UnknownUser, Some(name)));
    }
}
