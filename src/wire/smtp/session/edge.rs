//! The client's half: lines, and what becomes of each command.

use super::content::Phase;
use super::hop::Hop;
use super::queue::{Item, Kind, Quiet};
use super::{Ask, AtHop, Class, Direction, Event, Session, Transaction};
use crate::envelope::address::{Address, ReversePath, strip_source_route};
use crate::envelope::rules::{Inbound, InboundAction, Judge, Outbound, OutboundAction, Refusal, Route};
use crate::wire::smtp::command::{Command, MAX_LINE, Path};

/// So many commands that are none, and the client is let go.
const MAX_BAD_COMMANDS: u32 = 50;

/// What is being asked about, while no answer is here.
#[derive(Debug)]
pub(super) enum Asking {
    Mail { line: Vec<u8>, sender: ReversePath, path: String, params: String },
    Rcpt { line: Vec<u8>, recipient: Address, params: String },
    Hold,
    Content,
}

impl Session {
    /// Reads one line from the beginning of the input and acts on it; says how many octets it was. Nothing: there is no
    /// whole line yet, or it has to wait.
    pub(super) fn take_line(&mut self, input: &[u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() < MAX_LINE {
                return 0;
            }
            self.skipping = true;
            return input.len();
        };
        let (line, used) = (input.get(..end).unwrap_or_default(), end + 1);
        // Counted as if it ended in CR LF: a line that was put back has one.
        if std::mem::take(&mut self.skipping) || line.strip_suffix(b"\r").unwrap_or(line).len() + 2 > MAX_LINE {
            self.bad_command("5.5.2", "line too long");
            return used;
        }
        let (text, clean) = match line.strip_suffix(b"\r") {
            Some(text) => (text, true),
            None => (line, false),
        };
        let lone_cr = text.contains(&b'\r');
        if text.iter().any(|&b| (b < 0x20 && !matches!(b, b'\t' | b'\r')) || b == 0x7f) {
            self.bad_command("5.5.2", "control characters are not allowed in a command");
            return used;
        }
        if self.settings.reject_stray && (!clean || lone_cr) {
            self.bad_command("5.5.2", "lines must end in CR LF, and CR must not stand alone");
            return used;
        }
        if lone_cr {
            let mended: Vec<u8> = text.iter().map(|&b| if b == b'\r' { b' ' } else { b }).collect();
            return if self.command(&mended) { used } else { 0 };
        }
        if self.command(text) { used } else { 0 }
    }

    /// Acts on a command. `false`: it has to wait for the next hop; the same line comes again.
    fn command(&mut self, line: &[u8]) -> bool {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                let (code, status) = match error {
                    crate::wire::smtp::command::CommandError::Unknown => (500, "5.5.2"),
                    _ => (501, "5.5.4"),
                };
                self.bad(code, status, &error.to_string());
                return true;
            }
        };
        if self.hop == Hop::Closed && !matches!(command, Command::Quit) {
            self.open(Route::NextHop);
            return false;
        }
        match command {
            Command::Hello { extended } => self.hello(line, extended),
            Command::Mail(path) => return self.mail(line, &path),
            Command::Rcpt(path) => self.rcpt(line, &path),
            Command::Data => return self.data(),
            Command::Rset => {
                self.transaction = None;
                self.forward(line, Kind::Other);
            }
            Command::Quit if self.hop == Hop::Closed => self.say_last("221", "2.0.0 bye"),
            Command::Quit => {
                self.forward(line, Kind::Quit);
                self.barrier = true;
            }
            Command::Harmless => self.forward(line, Kind::Other),
            Command::Vrfy => self.reply(252, "2.1.5", "cannot verify, but send some mail and see"),
            Command::NotOffered => self.bad(502, "5.5.1", "command not available here"),
            Command::Identity => self.bad(550, "5.7.1", "you are not trusted to say who you are"),
        }
        true
    }

    fn hello(&mut self, line: &[u8], extended: bool) {
        self.transaction = None;
        self.hello_asked = Some(line.to_vec());
        self.forward(line, Kind::Hello { extended });
        self.barrier = true;
    }

    fn mail(&mut self, line: &[u8], path: &Path<'_>) -> bool {
        if self.transaction.is_some() {
            self.bad(503, "5.5.1", "nested MAIL command");
            return true;
        }
        if self.route != Route::NextHop {
            // The last transaction was for another next hop.
            return self.change_route(Route::NextHop);
        }
        let sender = match ReversePath::parse(path.path) {
            Ok(sender) => sender,
            Err(error) => {
                self.bad(501, "5.1.7", &format!("bad sender address: {error}"));
                return true;
            }
        };
        if path.has_param("AUTH") || path.values("BODY").any(|v| v.eq_ignore_ascii_case("BINARYMIME")) {
            self.bad(555, "5.5.4", "AUTH= and BODY=BINARYMIME are not available here");
            return true;
        }
        let (line, params, path) = (line.to_vec(), path.params.to_owned(), path.path.to_owned());
        match self.settings.direction {
            Direction::Inbound => self.begin(&line, sender, path, params, None),
            Direction::Outbound => {
                self.events.push_back(Event::Ask(Ask::Mail { sender: sender.clone() }));
                self.asking = Some(Asking::Mail { line, sender, path, params });
            }
        }
        true
    }

    /// The answer to [`Ask::Mail`].
    pub fn answer_mail(&mut self, outbound: &Outbound) {
        let Some(Asking::Mail { line, sender, path, params }) = self.take_asking(|a| matches!(a, Asking::Mail { .. }))
        else {
            return;
        };
        match &outbound.action {
            OutboundAction::Reject(refusal) => self.refuse(refusal),
            OutboundAction::Pass => self.begin(&line, sender, path, params, None),
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => {
                let signed = signed.address().to_string();
                self.begin(&line, sender, path, params, Some(signed));
            }
        }
        self.resume();
        self.settle();
    }

    fn begin(&mut self, line: &[u8], sender: ReversePath, path: String, params: String, signed: Option<String>) {
        self.transactions += 1;
        let id = self.transactions;
        match &signed {
            None => self.forward(line, Kind::Mail { transaction: id }),
            Some(signed) => self.forward(mail_line(signed, &params).as_bytes(), Kind::Mail { transaction: id }),
        }
        let at_hop = AtHop { signed: signed.is_some(), path: signed.unwrap_or_else(|| path.clone()) };
        self.transaction = Some(Transaction {
            id,
            sender,
            path,
            params,
            at_hop: Some(at_hop),
            mail_pending: true,
            refused: None,
            outstanding: 0,
            accepted: 0,
            class: Class::default(),
        });
    }

    fn rcpt(&mut self, line: &[u8], path: &Path<'_>) {
        let Some(transaction) = &self.transaction else {
            self.bad(503, "5.5.1", "need MAIL command");
            return;
        };
        if path.path.eq_ignore_ascii_case("postmaster") {
            // RFC 5321 section 4.5.1: the one recipient without a domain; it is always there.
            self.recipient(line, None, Class::default(), None);
            return;
        }
        let recipient = match Address::parse(strip_source_route(path.path)) {
            Ok(recipient) => recipient,
            Err(error) => {
                self.bad(501, "5.1.3", &format!("bad recipient address: {error}"));
                return;
            }
        };
        let sender = transaction.sender.clone();
        self.events.push_back(Event::Ask(Ask::Rcpt { sender, recipient: recipient.clone() }));
        let params = path.params.to_owned();
        self.asking = Some(Asking::Rcpt { line: line.to_vec(), recipient, params });
    }

    /// The answer to [`Ask::Rcpt`] on the way out.
    pub fn answer_outbound_rcpt(&mut self, outbound: &Outbound) {
        let Some(Asking::Rcpt { line, recipient, params }) = self.take_asking(|a| matches!(a, Asking::Rcpt { .. }))
        else {
            return;
        };
        match &outbound.action {
            OutboundAction::Reject(refusal) => self.refuse(refusal),
            OutboundAction::Pass => self.outbound_recipient(&line, &recipient, &params, None),
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => {
                let signed = signed.address().to_string();
                self.outbound_recipient(&line, &recipient, &params, Some(signed));
            }
        }
        self.resume();
        self.settle();
    }

    /// The answer to [`Ask::Rcpt`] on the way out where the sender of MAIL is right for every recipient.
    pub fn answer_same_sender(&mut self) {
        let Some(Asking::Rcpt { line, recipient, params }) = self.take_asking(|a| matches!(a, Asking::Rcpt { .. }))
        else {
            return;
        };
        let edited = edited_rcpt(&line, &recipient, &params);
        self.recipient(&edited, Some(&line), Class::default(), None);
        self.resume();
        self.settle();
    }

    fn outbound_recipient(&mut self, line: &[u8], recipient: &Address, params: &str, signed: Option<String>) {
        let edited = edited_rcpt(line, recipient, params);
        self.recipient(&edited, Some(line), Class::default(), Some(signed));
    }

    /// The answer to [`Ask::Rcpt`] on the way in.
    pub fn answer_inbound_rcpt(&mut self, inbound: &Inbound) {
        let Some(Asking::Rcpt { line, recipient, params }) = self.take_asking(|a| matches!(a, Asking::Rcpt { .. }))
        else {
            return;
        };
        match &inbound.action {
            InboundAction::Refuse(refusal) => self.refuse(refusal),
            InboundAction::Deliver { to, route, mark, judge } => {
                let route = if self.settings.has_srs_next_hop { *route } else { Route::NextHop };
                let class = Class { judge: *judge, mark: *mark, route };
                let edited = if *to == recipient {
                    edited_rcpt(&line, &recipient, &params)
                } else {
                    rcpt_line(to.as_str(), &params)
                };
                self.recipient(&edited, Some(&line), class, None);
            }
        }
        self.resume();
        self.settle();
    }

    /// Sends a recipient on, after what it needs: its next hop, and a MAIL with its sender.
    ///
    /// `original` is the line as it came, to be looked at again if it has to wait. `signed` is the sender that this
    /// recipient wants, where senders differ by recipient.
    fn recipient(&mut self, edited: &[u8], original: Option<&[u8]>, class: Class, signed: Option<Option<String>>) {
        let Some(transaction) = &self.transaction else { return };
        let other_sender = match (&transaction.at_hop, &signed) {
            (Some(at_hop), Some(signed)) => at_hop.signed != signed.is_some(),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let other_class = transaction.class != class;
        if transaction.has_recipients() && (other_sender || other_class) {
            self.events.push_back(Event::OwnTransaction);
            self.reply(452, "4.5.3", "this recipient needs a transaction of its own, send it again");
            return;
        }
        let wait = other_sender || class.route != self.route;
        if wait && (transaction.mail_pending || !self.queue.is_empty()) {
            // What the next hop says to MAIL is the client's to hear before another one is sent.
            self.put_back(original.unwrap_or(edited));
            return;
        }
        if class.route != self.route {
            self.put_back(original.unwrap_or(edited));
            self.change_route(class.route);
            return;
        }
        if other_sender {
            self.second_mail(signed);
        }
        let Some(transaction) = &mut self.transaction else { return };
        transaction.class = class;
        transaction.outstanding += 1;
        let id = transaction.id;
        self.forward(edited, Kind::Rcpt { transaction: id });
    }

    /// Another MAIL for the same transaction: the same parameters, its replies swallowed.
    fn second_mail(&mut self, signed: Option<Option<String>>) {
        let Some(transaction) = &mut self.transaction else { return };
        let signed = signed.flatten();
        let at_hop = AtHop { signed: signed.is_some(), path: signed.unwrap_or_else(|| transaction.path.clone()) };
        let line = mail_line(&at_hop.path, &transaction.params);
        let id = transaction.id;
        let fresh = transaction.at_hop.is_none() && transaction.refused.is_none();
        transaction.refused = None;
        transaction.at_hop = Some(at_hop);
        if !fresh {
            self.send(b"RSET", Item::Swallowed(Quiet::Rset));
        }
        self.send(line.as_bytes(), Item::Swallowed(Quiet::Mail { transaction: id }));
    }

    fn data(&mut self) -> bool {
        let Some(transaction) = &self.transaction else {
            self.bad(503, "5.5.1", "need RCPT command");
            return true;
        };
        if transaction.class.judge == Judge::No {
            self.forward(b"DATA", Kind::Data);
            self.barrier = true;
            return true;
        }
        if !self.queue.is_empty() {
            self.barrier = true;
            return false;
        }
        if transaction.accepted == 0 {
            self.reply(554, "5.5.1", "no valid recipients");
            return true;
        }
        self.events.push_back(Event::Ask(Ask::Hold));
        self.asking = Some(Asking::Hold);
        true
    }

    /// The answer to [`Ask::Hold`].
    pub fn answer_hold(&mut self, room: bool) {
        if self.take_asking(|a| matches!(a, Asking::Hold)).is_none() {
            return;
        }
        match &self.transaction {
            Some(transaction) if room => {
                self.phase = Phase::hold(transaction.class.judge);
                self.reply(354, "", "end data with <CR><LF>.<CR><LF>");
            }
            _ => self.reply(451, "4.3.1", "too many messages are being looked at, try again later"),
        }
        self.resume();
        self.settle();
    }

    pub(super) fn take_asking(&mut self, expected: impl Fn(&Asking) -> bool) -> Option<Asking> {
        if self.asking.as_ref().is_some_and(expected) { self.asking.take() } else { None }
    }

    /// A line that has to wait for the next hop; it is looked at again when all is answered.
    fn put_back(&mut self, line: &[u8]) {
        let rest = std::mem::take(&mut self.pending);
        self.pending = [line, b"\r\n", &rest].concat();
        self.barrier = !self.queue.is_empty();
    }

    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.reply(refusal.code, refusal.status, refusal.text);
    }

    fn bad_command(&mut self, status: &str, text: &str) {
        self.bad(500, status, text);
    }

    /// A mistake of the client. Too many, and it is let go.
    fn bad(&mut self, code: u16, status: &str, text: &str) {
        self.bad_commands += 1;
        if self.bad_commands > MAX_BAD_COMMANDS {
            // In its turn: the answer to a message may still be owed.
            self.reply(421, "4.7.0", "too many bad commands");
            self.ending = true;
        } else {
            self.reply(code, status, text);
        }
    }

    /// A command of the client for the next hop.
    fn forward(&mut self, line: &[u8], kind: Kind) {
        self.send(line, Item::Forwarded(kind));
    }

    /// A command for the next hop, at once or, where that does not take several at a time, in its turn.
    pub(super) fn send(&mut self, line: &[u8], item: Item) {
        if self.pipelining || !self.queue.is_waiting() {
            self.to_hop.extend_from_slice(line);
            self.to_hop.extend_from_slice(b"\r\n");
            self.queue.push(item);
        } else {
            self.queue.push_unsent(item, [line, b"\r\n"].concat());
        }
    }
}

fn mail_line(path: &str, params: &str) -> String {
    format!("MAIL FROM:<{path}>{params}")
}

fn rcpt_line(path: &str, params: &str) -> Vec<u8> {
    format!("RCPT TO:<{path}>{params}").into_bytes()
}

/// The line as it came, unless a source route was stripped from it.
fn edited_rcpt(line: &[u8], recipient: &Address, params: &str) -> Vec<u8> {
    match Command::parse(line) {
        Ok(Command::Rcpt(path)) if path.path == recipient.as_str() => line.to_vec(),
        _ => rcpt_line(recipient.as_str(), params),
    }
}
