//! Connections to next hops: opening, leaving, dropping and losing them, and the replies to commands that this affects.

use super::body::Message;
use super::client::Input;
use super::next_hop::{Connection, Facts, Opening, Purpose};
use super::queue::{ClientCommand, Item};
use super::{Event, Session};
use crate::wire::message::NextHopChoice;
use crate::wire::smtp::replies::{
    ANOTHER_CONNECTION, BYE, HOP_LOST, HOP_LOST_IN_TRANSACTION, HOP_LOST_UNCONFIRMED, HOP_UNREACHABLE, OwnReply,
};
use crate::wire::smtp::reply::ReplyReader;

impl Session {
    /// The connection to the next hop could not be opened.
    pub fn hop_failed(&mut self) {
        self.no_hop(HOP_UNREACHABLE);
    }

    /// No next hop is available. If one recipient needed it, only that recipient fails.
    pub(super) fn no_hop(&mut self, reply: OwnReply) {
        let waiting = self.mail.transaction_mut().and_then(|transaction| transaction.waiting.take());
        if waiting.is_none() || self.hop.target == NextHopChoice::Main {
            return self.say_last(reply);
        }
        while self.pipeline.queue.answered().is_some() {}
        self.out.to_hop.clear();
        self.out.events.push_back(Event::CloseHop);
        self.out.events.push_back(Event::RecipientNotSent);
        let later = OwnReply { code: 451, ..reply };
        self.out.to_client.extend_from_slice(&later.reply().text);
        self.pipeline.barrier = false;
        self.open(NextHopChoice::Main, Purpose::Silent);
    }

    /// The connection to the next hop is lost. Each outstanding command gets a reply that does not claim more than is
    /// known.
    pub(super) fn hop_lost(&mut self) {
        if self.is_closed() || (self.hop.connection.is_closed() && !self.pipeline.queue.is_waiting()) {
            return;
        }
        if self.hop.connection.is_opening() {
            self.hop_failed();
            return;
        }
        self.drop_hop();
        self.refuse_body(HOP_LOST.reply());
        while let Some(item) = self.pipeline.queue.answered() {
            match item {
                Item::Local(text) => self.out.to_client.extend_from_slice(&text),
                Item::Swallowed(_) => {}
                Item::Forwarded(ClientCommand::EndOfData) => {
                    let reply = HOP_LOST_UNCONFIRMED.reply();
                    self.out.to_client.extend_from_slice(&reply.text);
                    self.count_reply(&reply);
                }
                Item::Forwarded(ClientCommand::Quit) => return self.say_last(BYE),
                Item::Forwarded(_) => return self.say_last(HOP_LOST_IN_TRANSACTION),
            }
        }
        self.pipeline.barrier = false;
        let in_transaction = self.mail.transaction().is_some() && !self.mail.is_in_message();
        if in_transaction || self.mail.asked_sender().is_some() || matches!(self.client.input, Input::AuthAnswer) {
            // The next hop has forgotten sender and recipients.
            self.say_last(HOP_LOST_IN_TRANSACTION);
        }
    }

    /// Opens a connection to a next hop. Nothing may be in flight.
    pub(super) fn open(&mut self, target: NextHopChoice, purpose: Purpose) {
        if target != self.hop.target {
            self.hop.plain_only = false;
        }
        self.hop.target = target;
        self.hop.connection = Connection::Opening(Opening::new(purpose));
        // The timeout of the new connection begins now.
        self.out.progress += 1;
        self.hop.facts = Facts::default();
        self.hop.dropping = false;
        self.hop.replies = ReplyReader::default();
        self.out.hop_sent = 0;
        self.out.events.push_back(Event::Open(target));
    }

    /// Connects to another next hop for this transaction. Returns `false`, because the command is then parsed again.
    pub(super) fn change_target(&mut self, target: NextHopChoice) -> bool {
        if !self.pipeline.queue.is_empty() {
            self.pipeline.barrier = true;
        } else if self.client.authenticated {
            // Authentication cannot be repeated on a new connection.
            self.say_last(ANOTHER_CONNECTION);
        } else {
            self.leave_hop();
            self.out.events.push_back(Event::CloseHop);
            if let Some(transaction) = self.mail.transaction_mut() {
                (transaction.in_effect, transaction.refused) = (false, None);
            }
            self.open(target, Purpose::Silent);
        }
        false
    }

    /// Whether the connection to the next hop can be closed: the client needs nothing of it, and a new connection can
    /// replace it.
    #[must_use]
    pub fn can_rest(&self) -> bool {
        // Authentication cannot be repeated on a new connection.
        self.is_idle()
            && self.hop.connection.is_ready()
            && !self.hop.dropping
            && !self.client.authenticated
            && !self.is_closed()
    }

    /// Closes the connection to the next hop because the client is idle. The client's next command opens a new one.
    pub fn rest(&mut self) {
        if self.can_rest() {
            self.leave_hop();
            self.hop.connection = Connection::Closed;
            self.hop.replies = ReplyReader::default();
            self.out.events.push_back(Event::CloseHop);
        }
    }

    /// Sends QUIT to a next hop that is not reading a message, and leaves it.
    pub(super) fn leave_hop(&mut self) {
        if !self.hop.connection.is_ready()
            || self.hop.dropping
            || !(self.takes_commands() || self.mail.message().is_some_and(Message::is_held))
        {
            self.out.to_hop.clear();
        } else {
            self.out.to_hop.extend_from_slice(b"QUIT\r\n");
        }
    }

    /// Closes the connection without QUIT, so that the next hop does not deliver an incomplete message.
    pub(super) fn drop_hop(&mut self) {
        self.hop.dropping = false;
        self.out.to_hop.clear();
        self.hop.connection = Connection::Closed;
        self.hop.replies = ReplyReader::default();
        self.out.events.push_back(Event::CloseHop);
    }

    /// As `drop_hop`, but after the outstanding replies, one of which may be to another message.
    pub(super) fn drop_hop_when_answered(&mut self) {
        if self.hop.connection.is_ready() && self.pipeline.queue.is_waiting() {
            self.hop.dropping = true;
        } else {
            self.drop_hop();
        }
    }
}
