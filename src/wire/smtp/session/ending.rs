//! The end of a session: at once, when all commands are answered, or when the session is idle.

use super::client::Input;
use super::{Ending, Event, Session};
use crate::wire::smtp::replies::{NO_ROOM_CLOSING, OwnReply, RESTART, SILENT_TOO_LONG, TOO_SLOW, TRANSACTION_TOO_LONG};

impl Session {
    /// The client was silent for too long.
    pub fn client_timeout(&mut self) {
        self.say_last(SILENT_TOO_LONG);
    }

    /// The client sends its message too slowly.
    pub fn client_too_slow(&mut self) {
        self.out.events.push_back(Event::Limit("octets_per_second"));
        self.say_last(TOO_SLOW);
    }

    /// No memory is left for the buffered message.
    pub fn no_room(&mut self) {
        self.say_last(NO_ROOM_CLOSING);
    }

    /// The client's transaction is open for too long.
    pub fn transaction_timeout(&mut self) {
        self.out.events.push_back(Event::Limit("transaction"));
        self.say_last(TRANSACTION_TOO_LONG);
    }

    /// Refuses the client: it has too many connections, or access is denied to it.
    pub fn turn_away(&mut self, reply: OwnReply) {
        self.say_last(reply);
    }

    /// The daemon is stopping: the session ends when no transaction is open.
    pub fn drain(&mut self) {
        self.end_at_least(Ending::WhenIdle);
        self.settle();
    }

    /// Whether the session is over, except for pending output.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.end == Ending::Closed
    }

    /// Whether no further client input is processed.
    pub(super) fn is_ending(&self) -> bool {
        self.end >= Ending::WhenAnswered
    }

    pub(super) fn end_at_least(&mut self, end: Ending) {
        self.end = self.end.max(end);
    }

    /// Ends the session when all commands so far are answered. No further client input is processed.
    pub(super) fn end_when_answered(&mut self) {
        self.end_at_least(Ending::WhenAnswered);
    }

    /// Sends replies that are due, and ends the session if it can end. Called after every input.
    pub(super) fn settle(&mut self) {
        match self.end {
            Ending::WhenAnswered if self.pipeline.queue.is_empty() && self.takes_commands() => self.client_lost(),
            Ending::WhenIdle if self.is_idle() => {
                self.say_last(RESTART);
            }
            Ending::Open | Ending::WhenIdle | Ending::WhenAnswered | Ending::Closed => {}
        }
    }

    /// Whether no transaction is open and all commands are answered.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.client.input, Input::Commands)
            && self.mail.transaction().is_none()
            && self.pipeline.queue.is_empty()
            && !self.mail.is_asking()
            && !self.client.securing
            && self.hop.connection.is_usable()
    }

    /// Sends a reply at once, before those of outstanding commands, and ends the session.
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
