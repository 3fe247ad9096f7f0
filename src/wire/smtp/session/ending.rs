//! How a session ends: at once, when all is answered, or when nothing is under way.

use super::client::Input;
use super::{Ending, Event, Session};
use crate::wire::smtp::replies::{NO_ROOM_CLOSING, OwnReply, RESTART, SILENT_TOO_LONG, TOO_SLOW, TRANSACTION_TOO_LONG};

impl Session {
    /// The client was silent for too long.
    pub fn client_timeout(&mut self) {
        self.say_last(SILENT_TOO_LONG);
    }

    /// The client sends its message slower than it may.
    pub fn client_too_slow(&mut self) {
        self.out.events.push_back(Event::Limit("octets_per_second"));
        self.say_last(TOO_SLOW);
    }

    /// There is no room any more for what is held of the message.
    pub fn no_room(&mut self) {
        self.say_last(NO_ROOM_CLOSING);
    }

    /// The client has had a transaction open for longer than it may.
    pub fn transaction_timeout(&mut self) {
        self.out.events.push_back(Event::Limit("transaction"));
        self.say_last(TRANSACTION_TOO_LONG);
    }

    /// A connection of this client is one too many, or it may not use this server after all.
    pub fn turn_away(&mut self, reply: OwnReply) {
        self.say_last(reply);
    }

    /// The daemon is about to stop: the session ends when no transaction is open.
    pub fn drain(&mut self) {
        self.end_at_least(Ending::WhenIdle);
        self.settle();
    }

    /// Whether the session is over, but for what is still to be written.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.end == Ending::Closed
    }

    /// Whether nothing more of the client is looked at.
    pub(super) fn is_ending(&self) -> bool {
        self.end >= Ending::WhenAnswered
    }

    pub(super) fn end_at_least(&mut self, end: Ending) {
        self.end = self.end.max(end);
    }

    /// Nothing more of the client is looked at.
    pub(super) fn end_when_answered(&mut self) {
        self.end_at_least(Ending::WhenAnswered);
    }

    /// After every input: what can go, goes.
    pub(super) fn settle(&mut self) {
        match self.end {
            Ending::WhenAnswered if self.pipeline.queue.is_empty() && self.takes_commands() => self.client_lost(),
            Ending::WhenIdle if self.is_idle() => {
                self.say_last(RESTART);
            }
            Ending::Open | Ending::WhenIdle | Ending::WhenAnswered | Ending::Closed => {}
        }
    }

    /// Nothing is under way: no transaction, no command without an answer.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.client.input, Input::Commands)
            && self.mail.transaction().is_none()
            && self.pipeline.queue.is_empty()
            && !self.mail.is_asking()
            && !self.client.securing
            && self.hop.connection.is_usable()
    }

    /// A last word, out of turn, and the end.
    pub(super) fn say_last(&mut self, reply: OwnReply) {
        if !self.is_closed() {
            self.out.to_client.extend_from_slice(&reply.reply().text);
            self.leave_hop();
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        self.end_at_least(Ending::Closed);
        self.mail.end();
        self.client.input = Input::Commands;
        self.client.pending = Vec::new();
        self.out.events.push_back(Event::CloseHop);
        self.out.events.push_back(Event::CloseClient);
    }
}
