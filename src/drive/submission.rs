//! Sends a message of this program itself, as an SMTP client.

use std::time::Duration;

use super::client_dialogue::Dialogue;
use super::next_hops::{NextHops, ProxyAddresses};
use super::tls::Connector;

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
        if hello.offers(b"STARTTLS") {
            line.say("STARTTLS", 220).await?;
            line = line.secured(connector, &host).await?;
            hello = line.say(&format!("EHLO {name}"), 250).await?;
        } else if required {
            return Err("the next hop does not offer STARTTLS".to_owned());
        }
    }
    let body = if hello.offers(b"8BITMIME") { " BODY=8BITMIME" } else { "" };
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

/// The text with a dot before each dot that begins a line (RFC 5321 section 4.5.2), without its last line end.
fn stuffed(text: &str) -> String {
    let lines =
        text.trim_end().lines().map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() });
    lines.collect::<Vec<_>>().join("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_stuffed_and_line_ends_are_crlf() {
        assert_eq!(stuffed("a\r\n.\r\n..b\r\nc\n"), "a\r\n..\r\n...b\r\nc");
    }
}
