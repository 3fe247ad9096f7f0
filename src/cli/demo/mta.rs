//! The other mail servers of the demo: one that keeps what it receives, and a client that sends. They use plain threads
//! and blocking sockets; the daemon does not use this code.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(5);

/// A message as a mail server received it.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

/// A mail server that accepts every message.
pub(super) struct DemoSink {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl DemoSink {
    pub(super) fn start(name: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port on loopback")?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    // A client that disconnects is not an error of the demo.
                    let _ = converse(&stream, name, &store);
                });
            }
        });
        Ok(Self { address, received })
    }

    /// The newest message; an error if there is none.
    pub(super) fn last(&self) -> Result<Received> {
        let received = self.received.lock().map_err(|_| anyhow::anyhow!("a server of the demo has failed"))?;
        received.last().cloned().context("no message arrived")
    }

    /// The number of messages received.
    pub(super) fn count(&self) -> usize {
        self.received.lock().map_or(0, |received| received.len())
    }
}

fn converse(stream: &TcpStream, name: &str, store: &Mutex<Vec<Received>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream;
    let mut lines = BufReader::new(stream);
    let mut message = Received { from: String::new(), to: Vec::new(), text: String::new() };
    write!(out, "220 {name} ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let path = || line.split_once('<').and_then(|(_, p)| p.split_once('>')).map_or("", |(p, _)| p).to_owned();
        match line.get(..4).unwrap_or(line).to_ascii_uppercase().as_str() {
            "EHLO" => write!(out, "250-{name}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n")?,
            "MAIL" => {
                message.from = path();
                write!(out, "250 2.1.0 ok\r\n")?;
            }
            "RCPT" => {
                message.to.push(path());
                write!(out, "250 2.1.5 ok\r\n")?;
            }
            "DATA" => {
                write!(out, "354 go on\r\n")?;
                read_body(&mut lines, &mut message.text)?;
                if let Ok(mut store) = store.lock() {
                    store.push(message.clone());
                }
                (message.to, message.text) = (Vec::new(), String::new());
                write!(out, "250 2.0.0 delivered\r\n")?;
            }
            "QUIT" => return write!(out, "221 2.0.0 bye\r\n"),
            "RSET" => {
                (message.to, message.text) = (Vec::new(), String::new());
                write!(out, "250 2.0.0 ok\r\n")?;
            }
            _ => write!(out, "250 2.0.0 ok\r\n")?,
        }
    }
}

fn read_body(lines: &mut impl BufRead, text: &mut String) -> io::Result<()> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 || line == ".\r\n" {
            return Ok(());
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

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
