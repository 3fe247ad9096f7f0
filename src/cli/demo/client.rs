//! The client of the demo: sends one message as a mail server does.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

const PATIENCE: Duration = Duration::from_secs(5);

/// The reply to a message, and the command that it answers.
pub(super) struct DemoReply {
    /// The decisive reply: to RCPT if that was refused, else to the end of the message.
    pub reply: String,
    /// Whether the message was accepted.
    pub accepted: bool,
    /// The part of the transaction that got the reply.
    pub at: &'static str,
}

/// Sends one message as a mail server does.
pub(super) fn send(to: SocketAddr, from: &str, recipient: &str, text: &str) -> Result<DemoReply> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut out = &stream;
    let mut lines = BufReader::new(&stream);
    expect(&mut lines, '2')?;
    for line in ["EHLO sender.example".to_owned(), format!("MAIL FROM:<{from}>")] {
        write!(out, "{line}\r\n")?;
        expect(&mut lines, '2')?;
    }
    write!(out, "RCPT TO:<{recipient}>\r\n")?;
    let reply = read_reply(&mut lines)?;
    if !reply.starts_with('2') {
        return Ok(DemoReply { reply, accepted: false, at: "the recipient" });
    }
    write!(out, "DATA\r\n")?;
    expect(&mut lines, '3')?;
    write!(out, "{text}.\r\n")?;
    let reply = read_reply(&mut lines)?;
    let accepted = reply.starts_with('2');
    write!(out, "QUIT\r\n")?;
    read_reply(&mut lines)?;
    Ok(DemoReply { reply, accepted, at: "the end of the message" })
}

fn expect(lines: &mut impl BufRead, first: char) -> Result<()> {
    let reply = read_reply(lines)?;
    if !reply.starts_with(first) {
        bail!("unexpected reply: {reply}");
    }
    Ok(())
}

fn read_reply(lines: &mut impl BufRead) -> Result<String> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim_end().to_owned());
        }
    }
}
