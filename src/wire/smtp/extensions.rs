//! EHLO replies: the next hop's, without extensions that this proxy does not support, and with its own ones.

use super::identity::{Attribute, XCLIENT, XFORWARD};
use super::reply::Reply;

/// Extensions that are passed on unchanged: they only add parameters that pass unchanged, or do not concern a proxy.
/// Extensions that need more are in [`filter`]; all others are removed.
const PASSED: [&str; 10] = [
    "8BITMIME",            // RFC 6152
    "SMTPUTF8",            // RFC 6531
    "DSN",                 // RFC 3461
    "ENHANCEDSTATUSCODES", // RFC 2034
    "PIPELINING",          // RFC 2920
    "HELP",                // RFC 5321
    "DELIVERBY",           // RFC 2852
    "FUTURERELEASE",       // RFC 4865
    "MT-PRIORITY",         // RFC 6710
    "RRVS",                // RFC 7293
];

/// The extensions of a next hop, as far as the machine has to know them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    /// PIPELINING: commands may be sent without waiting for each reply (RFC 2920).
    pub pipelining: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// CHUNKING: the BDAT command (RFC 3030).
    pub chunking: bool,
    /// `BODY=BINARYMIME` (RFC 3030).
    pub binarymime: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// AUTH (RFC 4954), with a mechanism that works through a proxy.
    pub auth: bool,
    /// The attributes of XCLIENT; empty: it is not offered.
    pub xclient: Vec<Attribute>,
    /// The attributes of XFORWARD; empty: it is not offered.
    pub xforward: Vec<Attribute>,
}

/// What this proxy adds to the reply, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ours {
    /// Whether STARTTLS is offered to the client.
    pub starttls: bool,
    /// Whether the client may log in.
    pub auth: bool,
    /// Whether both connections are encrypted and the next hop is verified, so that REQUIRETLS (RFC 8689) can be
    /// offered.
    pub requires_tls: bool,
    /// Whether the client may name another client (XCLIENT, XFORWARD).
    pub trusted: bool,
    /// Whether messages may come in chunks (CHUNKING, BINARYMIME).
    pub chunking: bool,
    /// The longest message in octets; 0: as long as the next hop accepts.
    pub message: u64,
    /// The most recipients of a message.
    pub recipients: u32,
}

/// The extensions in a positive EHLO reply.
#[must_use]
pub(crate) fn read(reply: &Reply) -> Extensions {
    let mut offer = Extensions::default();
    for line in reply.lines().skip(1) {
        let line = String::from_utf8_lossy(line);
        let (keyword, words) = split(&line);
        match keyword.as_str() {
            "PIPELINING" => offer.pipelining = true,
            "STARTTLS" => offer.starttls = true,
            "CHUNKING" => offer.chunking = true,
            "SIZE" => offer.size = true,
            "BINARYMIME" => offer.binarymime = true,
            "AUTH" => offer.auth = auth(words).is_some(),
            "XCLIENT" => offer.xclient = words.split_ascii_whitespace().filter_map(Attribute::named).collect(),
            "XFORWARD" => offer.xforward = words.split_ascii_whitespace().filter_map(Attribute::named).collect(),
            _ => {}
        }
    }
    offer.binarymime &= offer.chunking;
    offer
}

/// The EHLO reply for the client, given the next hop's positive reply.
#[must_use]
pub(crate) fn filter(reply: &Reply, ours: &Ours) -> Vec<u8> {
    let mut lines = reply.lines().map(String::from_utf8_lossy);
    let mut kept = vec![lines.next().unwrap_or_default().into_owned()];
    let offer = read(reply);
    for line in lines {
        let (keyword, words) = split(&line);
        match keyword.as_str() {
            keyword if PASSED.contains(&keyword) => kept.push(line.into_owned()),
            "SIZE" => kept.push(size(words, ours.message)),
            "LIMITS" => kept.push(limits(words, ours.recipients)),
            "CHUNKING" if ours.chunking => kept.push(line.into_owned()),
            "BINARYMIME" if offer.chunking && ours.chunking => kept.push(line.into_owned()),
            "REQUIRETLS" if ours.requires_tls => kept.push(line.into_owned()),
            "AUTH" if ours.auth => kept.extend(auth(words)),
            _ => {}
        }
    }
    if ours.starttls {
        kept.push("STARTTLS".into());
    }
    if ours.trusted {
        kept.extend([XCLIENT.into(), XFORWARD.into()]);
    }
    let mut out = Vec::with_capacity(reply.text.len() + 64);
    let last = kept.len().saturating_sub(1);
    for (i, line) in kept.iter().enumerate() {
        out.extend_from_slice(reply.code.to_string().as_bytes());
        out.push(if i == last { b' ' } else { b'-' });
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn split(line: &str) -> (String, &str) {
    let (keyword, words) = line.split_once(' ').unwrap_or((line, ""));
    // Before RFC 2554, some servers wrote `AUTH=LOGIN`. Those that still do offer AUTH in its current form, too.
    (keyword.to_ascii_uppercase(), words)
}

/// The AUTH line with the mechanisms that work through a proxy; `None`: there are none. Mechanisms that are bound to
/// the TLS connection do not work, because it ends here (RFC 5929, RFC 4422 appendix A).
fn auth(words: &str) -> Option<String> {
    let carried = |name: &&str| !name.to_ascii_uppercase().ends_with("-PLUS") && !name.eq_ignore_ascii_case("EXTERNAL");
    let names: Vec<&str> = words.split_ascii_whitespace().filter(carried).collect();
    (!names.is_empty()).then(|| format!("AUTH {}", names.join(" ")))
}

/// The SIZE line with the smaller of two limits (RFC 1870). A limit of 0, or none, means that there is no limit.
fn size(words: &str, ours: u64) -> String {
    let theirs = words.trim().parse::<u64>().unwrap_or(0);
    match (theirs, ours) {
        (0, 0) => {
            if words.is_empty() {
                "SIZE".to_owned()
            } else {
                "SIZE 0".to_owned()
            }
        }
        (0, limit) | (limit, 0) => format!("SIZE {limit}"),
        (theirs, ours) => format!("SIZE {}", theirs.min(ours)),
    }
}

/// The LIMITS line (RFC 9422): `RCPTMAX` is the smaller of two limits, and everything else is the next hop's.
fn limits(words: &str, ours: u32) -> String {
    let mut line = "LIMITS".to_owned();
    for word in words.split_ascii_whitespace() {
        line.push(' ');
        match word.split_once('=') {
            Some((name, n)) if name.eq_ignore_ascii_case("RCPTMAX") => {
                line.push_str(&format!("{name}={}", n.parse::<u32>().map_or(ours, |n| n.min(ours))));
            }
            _ => line.push_str(word),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n\
        250-AUTH PLAIN SCRAM-SHA-256-PLUS LOGIN EXTERNAL\r\n250-AUTH=PLAIN\r\n250-ENHANCEDSTATUSCODES\r\n250-8bitmime\r\n\
        250-DSN\r\n250-SMTPUTF8\r\n250-XCLIENT NAME ADDR NONSENSE\r\n250-XFORWARD ADDR\r\n250-REQUIRETLS\r\n\
        250-LIMITS MAILMAX=9 RCPTMAX=50\r\n250-DELIVERBY 240\r\n250-FUTURERELEASE 9 10\r\n250-BINARYMIME\r\n250 CHUNKING\r\n";

    fn reply(text: &str) -> Reply {
        Reply { code: 250, text: text.into() }
    }

    #[test]
    fn what_is_not_done_here_is_not_offered() {
        let text = String::from_utf8(filter(&reply(ALL), &Ours { recipients: 100, chunking: true, ..Ours::default() }))
            .unwrap();
        assert_eq!(
            text,
            "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ENHANCEDSTATUSCODES\r\n250-8bitmime\r\n\
             250-DSN\r\n250-SMTPUTF8\r\n250-LIMITS MAILMAX=9 RCPTMAX=50\r\n250-DELIVERBY 240\r\n\
             250-FUTURERELEASE 9 10\r\n250-BINARYMIME\r\n250 CHUNKING\r\n"
        );
        let unchunked = String::from_utf8(filter(&reply(ALL), &Ours::default())).unwrap();
        assert!(!unchunked.contains("CHUNKING") && !unchunked.contains("BINARYMIME"), "{unchunked}");
        let alone = filter(&reply("250 mx.example\r\n"), &Ours::default());
        assert_eq!(alone, b"250 mx.example\r\n");
        assert!(
            !String::from_utf8(filter(&reply("250-a\r\n250 BINARYMIME\r\n"), &Ours::default()))
                .unwrap()
                .contains("BIN")
        );
    }

    #[test]
    fn what_is_done_here_is_offered() {
        let ours = Ours {
            starttls: true,
            auth: true,
            requires_tls: true,
            trusted: true,
            chunking: true,
            message: 1000,
            recipients: 20,
        };
        let text = String::from_utf8(filter(&reply(ALL), &ours)).unwrap();
        for line in
            ["AUTH PLAIN LOGIN\r\n", "SIZE 1000\r\n", "RCPTMAX=20\r\n", "REQUIRETLS", "STARTTLS", "XCLIENT NAME "]
        {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("\r\n250 XFORWARD NAME ADDR"));
        assert!(filter(&reply("250-a\r\n250 AUTH EXTERNAL\r\n"), &ours).starts_with(b"250-a\r\n250-STARTTLS\r\n"));
        for (theirs, ours, want) in
            [("", 0, "SIZE"), ("0", 0, "SIZE 0"), ("", 5, "SIZE 5"), ("9", 0, "SIZE 9"), ("3", 5, "SIZE 3")]
        {
            assert_eq!(size(theirs, ours), want);
        }
    }

    #[test]
    fn the_machine_knows_what_the_next_hop_offers() {
        let offer = read(&reply(ALL));
        assert!(offer.pipelining && offer.starttls && offer.chunking && offer.binarymime && offer.auth);
        assert_eq!(
            (offer.xclient.as_slice(), offer.xforward.as_slice()),
            (&[Attribute::Name, Attribute::Addr][..], &[Attribute::Addr][..])
        );
        assert_eq!(read(&reply("250-a\r\n250-AUTH EXTERNAL\r\n250 BINARYMIME\r\n")), Extensions::default());
    }
}
