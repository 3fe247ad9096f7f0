//! One session of a next hop.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::{Duplex, pace};
use super::{At, Does, Message, Shared};

/// Why a session is over.
enum Over {
    /// The client has disconnected, or the instruction was carried out and recorded.
    Gone,
    /// The instruction for this place ends the connection.
    Ends(At),
}

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

type Step<T> = Result<T, Over>;

/// A connection that records its input if the script requires it.
struct Watched {
    stream: Box<dyn Duplex>,
    hop: Arc<Shared>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.stream.read(buffer)?;
        if n > 0 && self.hop.script.keeps_pieces {
            let piece = String::from_utf8_lossy(&buffer[..n]).into_owned();
            self.hop.change(|state| state.pieces.push(piece));
        }
        Ok(n)
    }
}

pub(super) struct Session {
    hop: Arc<Shared>,
    /// The instruction for this session only.
    once: Option<(At, Does)>,
    socket: TcpStream,
    input: BufReader<Watched>,
    /// Replies are sent when there is nothing more to read, so that replies to pipelined commands are sent together.
    replies: Vec<u8>,
    encrypted: bool,
    /// Whether the last line ended in CR. A following LF then belongs to it.
    after_cr: bool,
    message: Message,
    chunks: Vec<u8>,
}

impl Session {
    pub(super) fn new(hop: Arc<Shared>, socket: TcpStream, once: Option<(At, Does)>) -> Option<Self> {
        socket.set_nodelay(true).ok()?;
        let watched = Watched { stream: Box::new(socket.try_clone().ok()?), hop: Arc::clone(&hop) };
        Some(Self {
            hop,
            once,
            socket,
            input: BufReader::with_capacity(1 << 16, watched),
            replies: Vec::new(),
            encrypted: false,
            after_cr: false,
            message: Message::default(),
            chunks: Vec::new(),
        })
    }

    /// Runs until the connection is closed, and returns the place at which the script has closed it.
    pub(super) fn run(mut self) -> Option<At> {
        match self.converse() {
            Err(Over::Ends(at)) => Some(at),
            Err(Over::Gone) => None,
        }
    }

    fn converse(&mut self) -> Step<Infallible> {
        self.react(At::Connect, "", "")?;
        if let Some((config, true)) = self.hop.script.tls.clone() {
            self.encrypt(config)?;
        }
        self.react(At::Greeting, "", "220 sink.example ESMTP")?;
        loop {
            let line = self.line()?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.hop.change(|state| state.heard.push(line.clone()));
            self.command(&line)?;
        }
    }

    fn command(&mut self, line: &str) -> Step<()> {
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        let path = line.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>')).map_or("", |(path, _)| path);
        let to_encrypt = self.hop.script.tls.clone().filter(|_| !self.encrypted);
        match (verb.as_str(), to_encrypt) {
            ("EHLO" | "LHLO", _) => self.react(At::Ehlo, line, &self.offer())?,
            ("QUIT", _) => {
                self.react(At::Quit, line, "221 2.0.0 bye")?;
                self.flush()?;
                return Err(Over::Gone);
            }
            ("STAR", Some((config, _))) => {
                self.say("220 2.0.0 go");
                self.flush()?;
                self.encrypt(config)?;
            }
            (_, Some(_)) => self.say("530 5.7.0 say STARTTLS first"),
            ("MAIL", _) => {
                self.message = Message { from: path.to_owned(), ..Message::default() };
                self.chunks.clear();
                self.react(At::Mail, line, "250 2.1.0 ok")?;
            }
            ("RCPT", _) => self.recipient(line, path)?,
            ("DATA", _) => self.data(line)?,
            ("BDAT", _) => self.chunk(line)?,
            ("XCLI", _) => self.react(At::Other, line, "220 sink.example ESMTP")?,
            _ => self.react(At::Other, line, "250 2.0.0 ok")?,
        }
        Ok(())
    }

    fn offer(&self) -> String {
        let starttls = self.hop.script.tls.is_some() && !self.encrypted;
        let offers = self.hop.script.offers.iter().copied().chain(starttls.then_some("STARTTLS"));
        let lines: Vec<&str> = std::iter::once("sink.example").chain(offers).collect();
        let last = lines.len() - 1;
        format!("{}250 {}", lines[..last].iter().map(|line| format!("250-{line}\r\n")).collect::<String>(), lines[last])
    }

    fn recipient(&mut self, line: &str, path: &str) -> Step<()> {
        let usual = if path.starts_with("refused@") { "550 5.1.1 no such user" } else { "250 2.1.5 ok" };
        let reply = self.decide(At::Rcpt, line, usual)?;
        if reply.starts_with('2') {
            self.message.to.push(path.to_owned());
        }
        self.answer(At::Rcpt, &reply)
    }

    fn data(&mut self, command: &str) -> Step<()> {
        let reply = self.decide(At::Data, command, "354 go on")?;
        self.answer(At::Data, &reply)?;
        if !reply.starts_with('3') {
            return Ok(());
        }
        let mut text = Vec::new();
        for n in 0.. {
            let line = self.line()?;
            if n == 0 {
                self.react(At::Body, "", "")?;
            }
            let any = self.hop.script.takes_any_line_end;
            if line == b".\r\n" || any && matches!(line.as_slice(), b".\r" | b".\n") {
                break;
            }
            if self.hop.script.keeps_messages {
                text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
        }
        self.whole_message(&text)
    }

    fn chunk(&mut self, command: &str) -> Step<()> {
        let size = command.split_ascii_whitespace().nth(1).and_then(|size| size.parse().ok()).ok_or(Over::Gone)?;
        let mut chunk = vec![0; size];
        let (head, tail) = chunk.split_at_mut(size / 2);
        self.flush()?;
        self.pass_lf()?;
        self.input.read_exact(head)?;
        self.react(At::Body, "", "")?;
        self.input.read_exact(tail)?;
        self.chunks.extend(chunk);
        if command.to_ascii_uppercase().ends_with(" LAST") {
            let text = std::mem::take(&mut self.chunks);
            return self.whole_message(&text);
        }
        self.react(At::Chunk, command, "250 2.0.0 chunk")
    }

    /// Records the message before the reply is sent, because a test may look for it when it gets the reply.
    fn whole_message(&mut self, text: &[u8]) -> Step<()> {
        let text = String::from_utf8_lossy(text).into_owned();
        let reply = self.decide(At::End, &text, "250 2.0.0 queued")?;
        if reply.starts_with('2') && self.hop.script.keeps_messages {
            let message = Message { text, ..self.message.clone() };
            self.hop.change(|state| state.messages.push(message));
        }
        self.answer(At::End, &reply)
    }

    /// Carries out the instruction for this place, and sends the reply.
    fn react(&mut self, at: At, seen: &str, usual: &str) -> Step<()> {
        let reply = self.decide(at, seen, usual)?;
        self.answer(at, &reply)
    }

    fn answer(&mut self, at: At, reply: &str) -> Step<()> {
        self.say(reply);
        if at == At::Body {
            // The client does not wait for a reply there, so more input may follow.
            self.flush()?;
        }
        self.hop.reached(at);
        Ok(())
    }

    /// The reply to be sent; `usual` if the script says nothing about this place.
    fn decide<'a>(&mut self, at: At, seen: &str, usual: &'a str) -> Step<Cow<'a, str>> {
        let does = match self.scripted(at, seen) {
            None | Some(Does::Refuses) => return Ok(usual.into()),
            Some(Does::Says(text)) => return Ok(text.into()),
            Some(Does::SaysAfter(time, text)) => {
                self.flush()?;
                pace(time);
                return Ok(text.into());
            }
            Some(does) => does,
        };
        self.flush()?;
        match does {
            Does::SaysAndCloses(text) => {
                self.say(text);
                self.flush()?;
                return Err(Over::Ends(at));
            }
            Does::Closes => return Err(Over::Ends(at)),
            Does::Resets => {
                socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
                return Err(Over::Ends(at));
            }
            _ => self.hop.reached(at),
        }
        match does {
            Does::Holds(text) => {
                self.hop.wait_for_release();
                return Ok(text.into());
            }
            Does::Stuck => self.hop.wait(|_| false),
            Does::Endless => while self.input.get_mut().stream.write_all(b"250-and so on\r\n").is_ok() {},
            _ => drop(std::io::copy(&mut self.input, &mut std::io::sink())),
        }
        Err(Over::Gone)
    }

    fn scripted(&self, at: At, seen: &str) -> Option<Does> {
        let once = self.once.filter(|(there, _)| *there == at).map(|(_, does)| does);
        let mut rules = self.hop.script.rules.iter().rev();
        once.or_else(|| rules.find(|rule| rule.at == at && seen.contains(rule.with)).map(|rule| rule.does))
    }

    fn say(&mut self, reply: &str) {
        if !reply.is_empty() {
            self.replies.extend_from_slice(format!("{reply}\r\n").as_bytes());
        }
    }

    fn flush(&mut self) -> Step<()> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let stream = &mut self.input.get_mut().stream;
        stream.write_all(&std::mem::take(&mut self.replies))?;
        Ok(stream.flush()?)
    }

    /// The next line, and its line end.
    fn line(&mut self) -> Step<Vec<u8>> {
        self.pass_lf()?;
        let other_end = if self.hop.script.takes_any_line_end { b'\r' } else { b'\n' };
        let mut line = Vec::new();
        loop {
            let come = self.input.buffer();
            let end = memchr::memchr2(b'\n', other_end, come);
            let n = end.map_or(come.len(), |end| end + 1);
            line.extend_from_slice(&come[..n]);
            self.input.consume(n);
            if end.is_some() {
                self.after_cr = line.ends_with(b"\r");
                return Ok(line);
            }
            self.flush()?;
            if self.input.fill_buf()?.is_empty() {
                return Err(Over::Gone);
            }
        }
    }

    /// Skips the LF of a CR LF whose CR has ended a line.
    fn pass_lf(&mut self) -> Step<()> {
        if self.after_cr {
            if self.input.buffer().is_empty() {
                self.flush()?;
            }
            let lf = self.input.fill_buf()?.first() == Some(&b'\n');
            self.input.consume(usize::from(lf));
            self.after_cr = false;
        }
        Ok(())
    }

    fn encrypt(&mut self, config: Arc<ServerConfig>) -> Step<()> {
        let connection = ServerConnection::new(config).map_err(|_| Over::Gone)?;
        let stream = StreamOwned::new(connection, self.socket.try_clone()?);
        let watched = Watched { stream: Box::new(stream), hop: Arc::clone(&self.hop) };
        self.input = BufReader::with_capacity(1 << 16, watched);
        self.encrypted = true;
        Ok(())
    }
}
