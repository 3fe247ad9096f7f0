//! The client's side: lines and commands.

use std::borrow::Cow;

use super::client::{Hello, Input};
use super::next_hop::Purpose;
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::{Event, Session, Tls};
use crate::wire::message::NextHopChoice;
use crate::wire::smtp::command::{Command, CommandError, MAX_AUTH_LINE, Verb};
use crate::wire::smtp::identity::{Identity, XCLIENT, XFORWARD};
use crate::wire::smtp::replies::{
    AUTH_NEEDS_TLS, AUTH_NOT_NOW, BARE_LINE_END, BYE, CANNOT_VERIFY, CONTROL_CHARACTERS, HOP_LOST_LOGIN,
    IN_TRANSACTION, LINE_TOO_LONG, NEED_HELO, NEED_LHLO, NEED_STARTTLS, NO_AUTH, NO_TLS, NOT_AVAILABLE, NOT_TRUSTED,
    OK, OwnReply, SAY_EHLO, SAY_LHLO, TLS_TWICE, TOO_MANY_COMMANDS, TOO_MANY_MISTAKES,
};

impl Session {
    /// Processes one line at the beginning of the input, and returns its length in octets. Returns 0 if the line is
    /// incomplete or has to wait.
    pub(super) fn take_line(&mut self, input: &[u8]) -> usize {
        let is_auth = matches!(self.client.input, Input::AuthAnswer)
            || input.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
        let max = if is_auth { MAX_AUTH_LINE } else { self.settings.limits.line };
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() < max {
                return 0;
            }
            if !std::mem::replace(&mut self.client.skipping, true) {
                self.client.skipping_bdat = is_bdat(input);
            }
            return input.len();
        };
        let (line, used) = (input.get(..end).unwrap_or_default(), end + 1);
        // The beginning of an overlong line may have been discarded.
        let bdat = if self.client.skipping { self.client.skipping_bdat } else { is_bdat(line) };
        if let Err((limit, reply)) = self.check_line(line, max) {
            self.out.events.extend(limit.map(Event::Limit));
            self.bad_line(bdat, reply);
            return used;
        }
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        // A bare CR may be a line end to the next hop.
        let mended: Cow<'_, [u8]> = match text.contains(&b'\r') {
            true => text.iter().map(|&b| if b == b'\r' { b' ' } else { b }).collect(),
            false => text.into(),
        };
        if matches!(self.client.input, Input::AuthAnswer) {
            self.client.input = Input::Commands;
            self.forward(&mended, ClientCommand::Auth);
            (self.pipeline.barrier, self.pipeline.answer_is_awaited) = (true, true);
            return used;
        }
        if self.command(&mended, input.len() > used) { used } else { 0 }
    }

    /// The error of a line, independent of its command, and the limit that it exceeds, if any.
    fn check_line(&mut self, line: &[u8], max: usize) -> Result<(), (Option<&'static str>, OwnReply)> {
        // The length is counted as if the line ended in CR LF.
        if std::mem::take(&mut self.client.skipping) || line.strip_suffix(b"\r").unwrap_or(line).len() + 2 > max {
            return Err((Some("line"), LINE_TOO_LONG));
        }
        let (text, clean) = line.strip_suffix(b"\r").map_or((line, false), |text| (text, true));
        if text.iter().any(|&b| (b < 0x20 && !matches!(b, b'\t' | b'\r')) || b == 0x7f) {
            return Err((None, CONTROL_CHARACTERS));
        }
        if self.settings.reject_stray && (!clean || text.contains(&b'\r')) {
            return Err((None, BARE_LINE_END));
        }
        Ok(())
    }

    /// Refuses a line that is not parsed.
    fn bad_line(&mut self, bdat: bool, reply: OwnReply) {
        if matches!(self.client.input, Input::AuthAnswer) {
            self.client.input = Input::Commands;
            // The next hop waits for an answer to its challenge; `*` cancels it (RFC 4954 section 4).
            self.send(b"*", Item::Swallowed(ProxyCommand::AuthCancelled));
        }
        if bdat {
            return self.lost_track(reply.code, reply.status, reply.text);
        }
        self.mistake(reply);
    }

    /// Refuses a BDAT line whose chunk size is unknown. It is then unknown where the next command begins, so the
    /// session ends.
    fn lost_track(&mut self, code: u16, status: &str, text: &str) {
        self.reply(code, status, text);
        self.end_when_answered();
    }

    /// Carries out a command. `has_more`: more octets came with it. Returns `false` if the command has to wait for the
    /// next hop; it is then parsed again.
    fn command(&mut self, line: &[u8], has_more: bool) -> bool {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                self.not_a_command(line, error);
                return true;
            }
        };
        if self.is_out_of_sync(&command, has_more) {
            self.out_of_sync_in_turn();
            return true;
        }
        if self.hop.connection.is_closed() && !matches!(command, Command::Quit) {
            if self.client.authenticated {
                // Authentication cannot be repeated on a new connection.
                self.say_last(HOP_LOST_LOGIN);
                return true;
            }
            self.open(NextHopChoice::Main, Purpose::Silent);
            return false;
        }
        if self.client.commands >= self.settings.limits.commands {
            self.out.events.push_back(Event::Limit("commands"));
            self.say(TOO_MANY_COMMANDS);
            self.end_when_answered();
            return true;
        }
        let taken = self.allowed_command(line, command);
        if taken {
            self.await_answer(&command);
        }
        self.client.commands += u32::from(taken);
        taken
    }

    fn allowed_command(&mut self, line: &[u8], command: Command<'_>) -> bool {
        if let Command::Bdat { size, last } = command {
            return self.bdat(size, last);
        }
        if let Some(reply) = self.too_early(&command) {
            self.mistake(reply);
            return true;
        }
        let password = matches!(command, Command::Auth) && self.mail.transaction().is_none();
        if self.hop.target != NextHopChoice::Main && (password || matches!(command, Command::Hello(_))) {
            // The last transaction used another next hop, which must not be sent a password.
            self.mail.end();
            return self.change_target(NextHopChoice::Main);
        }
        match command {
            Command::Hello(verb) => return self.hello(line, verb),
            Command::Mail(path) => return self.mail(line, &path),
            Command::Rcpt(path) => self.rcpt(line, &path),
            Command::Data => return self.data(),
            Command::Rset => {
                self.mail.end();
                self.client.forwarded_is_used = self.client.forwarded.is_some();
                self.forward(line, ClientCommand::Other);
            }
            Command::Quit if self.hop.connection.is_closed() => self.say_last(BYE),
            Command::Quit => {
                self.forward(line, ClientCommand::Quit);
                self.pipeline.barrier = true;
            }
            Command::Harmless => self.forward(line, ClientCommand::Other),
            Command::Vrfy => {
                self.out.events.push_back(Event::Verify);
                self.say(CANNOT_VERIFY);
            }
            Command::StartTls => return self.starttls(),
            Command::Auth => self.auth(line),
            Command::Expn => {
                self.out.events.push_back(Event::Verify);
                self.mistake(NOT_AVAILABLE);
            }
            Command::NotOffered | Command::Bdat { .. } => self.mistake(NOT_AVAILABLE),
            Command::XClient(argument) => return self.xclient(argument),
            Command::XForward(argument) => self.xforward(argument),
        }
        true
    }

    /// Why a command is not allowed yet.
    pub(super) fn too_early(&self, command: &Command<'_>) -> Option<OwnReply> {
        let mail = matches!(
            command,
            Command::Mail(_) | Command::Rcpt(_) | Command::Data | Command::Bdat { .. } | Command::Auth | Command::Vrfy
        );
        if mail && self.settings.client_tls == Tls::Require && !self.client.encrypted {
            return Some(NEED_STARTTLS);
        }
        let hello = if self.settings.lmtp { NEED_LHLO } else { NEED_HELO };
        (mail && self.client.hello.is_none() && !matches!(command, Command::Vrfy)).then_some(hello)
    }

    fn not_a_command(&mut self, line: &[u8], error: CommandError) {
        let (code, status) = match error {
            CommandError::Unknown => (500, "5.5.2"),
            CommandError::Syntax(_) | CommandError::NotUtf8 => (501, "5.5.4"),
        };
        if is_bdat(line) {
            return self.lost_track(code, status, &error.to_string());
        }
        if error == CommandError::Unknown && self.leaves_for_another_protocol(line) {
            return;
        }
        self.bad(code, status, &error.to_string());
    }

    fn hello(&mut self, line: &[u8], verb: Verb) -> bool {
        if self.settings.lmtp != (verb == Verb::Lhlo) {
            self.mistake(if self.settings.lmtp { SAY_LHLO } else { SAY_EHLO });
            return true;
        }
        let hello = Hello { line: line.to_vec(), verb };
        if !self.hop.facts.set_up {
            if !self.pipeline.queue.is_empty() {
                self.pipeline.barrier = true;
                return false;
            }
            self.mail.end();
            self.begin_handshake(Some(hello));
            return true;
        }
        self.mail.end();
        self.client.forwarded_is_used = self.client.forwarded.is_some();
        self.client.hello_asked = Some(hello);
        self.forward(line, ClientCommand::Hello { extended: verb != Verb::Helo });
        self.pipeline.barrier = true;
        true
    }

    /// Begins TLS with the client. Both this program and the next hop forget what it has sent before.
    fn starttls(&mut self) -> bool {
        if self.settings.client_tls == Tls::Off || self.client.encrypted {
            self.mistake(if self.client.encrypted { TLS_TWICE } else { NO_TLS });
            return true;
        }
        if !self.pipeline.queue.is_empty() {
            self.pipeline.barrier = true;
            return false;
        }
        if self.mail.end().is_some() {
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
        }
        self.out.to_client.extend_from_slice(b"220 2.0.0 ready to start TLS\r\n");
        self.client.securing = true;
        self.out.events.push_back(Event::SecureClient);
        true
    }

    /// Passes AUTH on. Authentication is between client and next hop; this program does not interpret passwords.
    fn auth(&mut self, line: &[u8]) {
        if !self.hop.facts.offer.auth {
            self.mistake(NO_AUTH);
        } else if self.mail.transaction().is_some() || self.client.authenticated {
            self.mistake(AUTH_NOT_NOW);
        } else if self.auth_needs_tls() {
            self.mistake(AUTH_NEEDS_TLS);
        } else {
            self.forward(line, ClientCommand::Auth);
            self.pipeline.barrier = true;
        }
    }

    /// Whether AUTH needs TLS first: on a listener that offers TLS, until the client's connection is encrypted.
    pub(super) fn auth_needs_tls(&self) -> bool {
        self.settings.client_tls != Tls::Off && !self.client.encrypted
    }

    /// Handles XCLIENT, by which a trusted proxy names another client. A new connection to the next hop is opened for
    /// that client, and the greeting of the next hop is the reply.
    fn xclient(&mut self, argument: &str) -> bool {
        if !self.settings.trusted {
            self.mistake(NOT_TRUSTED);
            return true;
        }
        if self.mail.transaction().is_some() || self.client.authenticated {
            self.mistake(IN_TRANSACTION);
            return true;
        }
        if !self.pipeline.queue.is_empty() {
            self.pipeline.barrier = true;
            return false;
        }
        // Only the address may be kept from earlier XCLIENT commands.
        let mut identity = self.client.identity.as_ref().map(Identity::by_address).unwrap_or_default();
        if let Err(wrong) = identity.update(argument, XCLIENT) {
            self.bad(501, "5.5.4", wrong);
            return true;
        }
        self.out.events.push_back(Event::Client { address: identity.socket_address(), forwarded: false });
        (self.client.identity, self.client.forwarded) = (Some(identity), None);
        self.client.identity_version += 1;
        // The named client is not trusted unless the driver says so.
        self.settings.trusted = false;
        self.client.hello = None;
        self.leave_hop();
        self.out.events.push_back(Event::CloseHop);
        self.open(NextHopChoice::Main, Purpose::Greeting);
        true
    }

    fn xforward(&mut self, argument: &str) {
        if !self.settings.trusted {
            self.mistake(NOT_TRUSTED);
            return;
        }
        if self.mail.transaction().is_some() {
            self.mistake(IN_TRANSACTION);
            return;
        }
        let begun = self.client.forwarded.as_ref().filter(|_| !self.client.forwarded_is_used).cloned();
        let mut identity =
            begun.unwrap_or_else(|| self.client.identity.as_ref().map(Identity::by_address).unwrap_or_default());
        if let Err(wrong) = identity.update(argument, XFORWARD) {
            self.bad(501, "5.5.4", wrong);
            return;
        }
        self.client.forwarded_is_used = false;
        self.out.events.push_back(Event::Client { address: identity.socket_address(), forwarded: true });
        self.client.forwarded = Some(identity);
        self.client.identity_version += 1;
        self.say(OK);
    }

    /// Forgets the attributes of XFORWARD, which apply to one message only.
    pub(super) fn forget_forwarded(&mut self) {
        if self.client.forwarded.take().is_some() {
            self.client.identity_version += 1;
            let address = self.client.identity.as_ref().and_then(Identity::socket_address);
            self.out.events.push_back(Event::Client { address, forwarded: true });
        }
    }

    /// Counts a mistake of the client, and replies to it. After too many mistakes, the client is disconnected.
    pub(super) fn mistake(&mut self, reply: OwnReply) {
        self.bad(reply.code, reply.status, reply.text);
    }

    /// As `mistake`, with a reply that depends on the command.
    pub(super) fn bad(&mut self, code: u16, status: &str, text: &str) {
        if self.one_more_mistake() {
            self.reply(code, status, text);
        }
    }

    /// Counts a mistake of the client. Returns `false` if the limit is exceeded and the client was sent 421.
    pub(super) fn one_more_mistake(&mut self) -> bool {
        self.client.bad_commands += 1;
        let bearable = self.client.bad_commands <= self.settings.limits.bad_commands;
        if !bearable {
            self.out.events.push_back(Event::Limit("bad_commands"));
            // Queued in order, because the reply to a message may still be due.
            self.say(TOO_MANY_MISTAKES);
            self.end_when_answered();
        }
        bearable
    }

    /// Sends a command of the client to the next hop.
    pub(super) fn forward(&mut self, line: &[u8], kind: ClientCommand) {
        self.send(line, Item::Forwarded(kind));
    }

    /// Sends a command to the next hop: at once, or, without PIPELINING, after the reply to the previous one.
    pub(super) fn send(&mut self, line: &[u8], item: Item) {
        if self.hop.facts.offer.pipelining || !self.pipeline.queue.is_waiting() {
            self.out.to_hop.extend_from_slice(line);
            self.out.to_hop.extend_from_slice(b"\r\n");
            self.pipeline.queue.push(item);
        } else {
            self.pipeline.queue.push_unsent(item, [line, b"\r\n"].concat());
        }
    }
}

fn is_bdat(line: &[u8]) -> bool {
    let verb = line.trim_ascii_start().get(..4);
    verb.is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
}
