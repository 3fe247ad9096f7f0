//! Sends a message of this program itself, as an SMTP client.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use super::next_hops::{NextHops, ProxyAddresses, Reached};
use super::stream::Stream;
use super::tls::Connector;
use crate::envelope::tag::masked_text;
use crate::wire::smtp::reply::{Reply, ReplyReader};

/// Timeout for the whole dialogue.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnMessage {
    /// The envelope sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// Header and body, in lines that end in CR LF.
    pub text: String,
}

/// Sends a message to one of these next hops. `starttls`: the client side of TLS, where the config asks for it;
/// `required`: without TLS nothing is sent.
///
/// Returns the refusals of recipients, if others have got it.
///
/// # Errors
/// In words: none is reached, or it has refused the message or all recipients.
pub(crate) async fn send(
    hops: &NextHops,
    starttls: Option<(&Connector, bool)>,
    name: &str,
    message: &OwnMessage,
) -> Result<Vec<String>, String> {
    match tokio::time::timeout(PATIENCE, dialogue(hops, starttls, name, message)).await {
        Ok(sent) => sent,
        Err(_) => Err("the next hop took too long".to_owned()),
    }
}

async fn dialogue(
    hops: &NextHops,
    starttls: Option<(&Connector, bool)>,
    name: &str,
    message: &OwnMessage,
) -> Result<Vec<String>, String> {
    let reached = hops.reach(ProxyAddresses::default()).await?;
    let (mut line, host, encrypted) = Dialogue::of(reached);
    line.expect(220, "the greeting").await?;
    let mut hello = line.say(&format!("EHLO {name}"), 250).await?;
    if let Some((connector, required)) = starttls.filter(|_| !encrypted) {
        if offers(&hello, b"STARTTLS") {
            line.say("STARTTLS", 220).await?;
            line = line.secured(connector, &host).await?;
            hello = line.say(&format!("EHLO {name}"), 250).await?;
        } else if required {
            return Err("the next hop does not offer STARTTLS".to_owned());
        }
    }
    let body = if offers(&hello, b"8BITMIME") { " BODY=8BITMIME" } else { "" };
    line.say(&format!("MAIL FROM:<{}>{body}", message.from), 250).await?;
    let mut refused = Vec::new();
    for to in &message.to {
        if let Err(refusal) = line.say(&format!("RCPT TO:<{to}>"), 250).await {
            refused.push(format!("{to}: {refusal}"));
        }
    }
    if refused.len() >= message.to.len() {
        return Err(refused.join("; "));
    }
    line.say("DATA", 354).await?;
    line.say(&format!("{}\r\n.", stuffed(&message.text)), 250).await?;
    // The message has arrived; how the connection ends is of no interest.
    let _ = line.say("QUIT", 221).await;
    Ok(refused)
}

fn offers(hello: &Reply, extension: &[u8]) -> bool {
    hello
        .lines()
        .any(|line| line.split(|octet| *octet == b' ').next().is_some_and(|word| word.eq_ignore_ascii_case(extension)))
}

/// The text with a dot before each dot that begins a line (RFC 5321 section 4.5.2), without its last line end.
fn stuffed(text: &str) -> String {
    let lines =
        text.trim_end().lines().map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() });
    lines.collect::<Vec<_>>().join("\r\n")
}

struct Dialogue {
    stream: Stream,
    unread: Vec<u8>,
}

impl Dialogue {
    fn of(reached: Reached) -> (Self, String, bool) {
        let Reached { stream, first, host, encrypted, .. } = reached;
        (Self { stream, unread: first }, host, encrypted)
    }

    async fn say(&mut self, line: &str, code: u16) -> Result<Reply, String> {
        let octets = format!("{line}\r\n");
        let mut rest = octets.as_bytes();
        while !rest.is_empty() {
            let written = poll_fn(|cx| self.stream.poll_write(cx, rest)).await.map_err(|error| error.to_string())?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).to_string());
            }
            rest = rest.get(written..).unwrap_or_default();
        }
        poll_fn(|cx| self.stream.poll_flush(cx)).await.map_err(|error| error.to_string())?;
        self.expect(code, line.split([' ', ':', '\r']).next().unwrap_or_default()).await
    }

    /// Reads a reply, whose code has to begin like this one. `what`: what it is about.
    async fn expect(&mut self, code: u16, what: &str) -> Result<Reply, String> {
        let mut reader = ReplyReader::default();
        loop {
            let (used, reply) = reader.push(&self.unread).map_err(|error| error.to_string())?;
            self.unread.drain(..used);
            if let Some(reply) = reply {
                return if reply.code / 100 == code / 100 {
                    Ok(reply)
                } else {
                    Err(format!("{what}: {}", masked_text(&reply.first_line())))
                };
            }
            let mut buffer = [0; 1024];
            let n = poll_fn(|cx| self.stream.poll_read(cx, &mut buffer)).await.map_err(|error| error.to_string())?;
            if n == 0 {
                return Err(format!("{what}: the next hop has closed the connection"));
            }
            self.unread.extend_from_slice(buffer.get(..n).unwrap_or_default());
        }
    }

    /// What was read before the handshake is not part of it, and is dropped.
    async fn secured(self, connector: &Connector, host: &str) -> Result<Self, String> {
        let Stream::Plain(plain) = self.stream else { return Err("the connection is encrypted already".to_owned()) };
        let stream = connector.connect(host, plain).await.map_err(|error| super::tls::in_words(&error))?;
        Ok(Self { stream, unread: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_stuffed_and_line_ends_are_crlf() {
        assert_eq!(stuffed("a\r\n.\r\n..b\r\nc\n"), "a\r\n..\r\n...b\r\nc");
    }

    #[test]
    fn extensions_are_whole_words() {
        let hello = Reply { code: 250, text: b"250-x\r\n250-SIZE 100\r\n250 starttls\r\n".to_vec() };
        assert!(offers(&hello, b"STARTTLS") && offers(&hello, b"SIZE") && !offers(&hello, b"8BITMIME"));
    }
}
