//! The EHLO answer: the next hop's, less what this proxy does not do.

use super::reply::Reply;

/// Extensions that pass: they add parameters that go on as they came, or change nothing that a proxy has to know. All
/// others are taken out, those that this program will do itself one day (STARTTLS, CHUNKING, AUTH) among them.
const PASSED: [&[u8]; 11] = [
    b"SIZE",                // RFC 1870
    b"8BITMIME",            // RFC 6152
    b"SMTPUTF8",            // RFC 6531
    b"DSN",                 // RFC 3461
    b"ENHANCEDSTATUSCODES", // RFC 2034
    b"PIPELINING",          // RFC 2920
    b"HELP",                // RFC 5321
    b"DELIVERBY",           // RFC 2852
    b"FUTURERELEASE",       // RFC 4865
    b"MT-PRIORITY",         // RFC 6710
    b"RRVS",                // RFC 7293
];

/// An EHLO answer for the client, and what the machine has to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The lines for the client.
    pub reply: Vec<u8>,
    /// Whether commands may be sent without waiting for each reply.
    pub pipelining: bool,
}

/// Filters a positive EHLO reply.
#[must_use]
pub fn filter(reply: &Reply) -> Offer {
    let keyword = |line: &[u8]| line.split(|&b| b == b' ').next().unwrap_or_default().to_ascii_uppercase();
    let mut lines = reply.lines();
    let mut kept = vec![lines.next().unwrap_or_default()];
    kept.extend(lines.filter(|line| PASSED.contains(&keyword(line).as_slice())));
    let pipelining = kept.iter().skip(1).any(|line| keyword(line) == b"PIPELINING");
    let mut out = Vec::with_capacity(reply.text.len());
    let last = kept.len().saturating_sub(1);
    for (i, line) in kept.iter().enumerate() {
        out.extend_from_slice(reply.code.to_string().as_bytes());
        out.push(if i == last { b' ' } else { b'-' });
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    Offer { reply: out, pipelining }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_here_is_not_offered() {
        let text = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n\
                    250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN\r\n250-ENHANCEDSTATUSCODES\r\n250-8bitmime\r\n250-DSN\r\n\
                    250-SMTPUTF8\r\n250-XCLIENT NAME\r\n250-BINARYMIME\r\n250 CHUNKING\r\n";
        let offer = filter(&Reply { code: 250, text: text.into() });
        assert_eq!(
            String::from_utf8(offer.reply).unwrap(),
            "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ENHANCEDSTATUSCODES\r\n250-8bitmime\r\n\
             250-DSN\r\n250 SMTPUTF8\r\n"
        );
        assert!(offer.pipelining);
        let alone = filter(&Reply { code: 250, text: b"250 mx.example\r\n".to_vec() });
        assert_eq!((alone.reply.as_slice(), alone.pipelining), (b"250 mx.example\r\n".as_slice(), false));
    }
}
