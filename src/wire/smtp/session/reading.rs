//! Client input: when it is read, and whether as commands or as a message.

use super::Session;
use super::body::Message;
use super::client::Input;

impl Session {
    /// Processes octets from the client.
    pub fn client_data(&mut self, octets: &[u8]) {
        if self.is_closed() {
            return;
        }
        if self.expects_silence() {
            if !octets.is_empty() {
                self.out_of_sync();
            }
            return;
        }
        if self.client.pending.is_empty() {
            let used = self.consume(octets);
            self.client.pending.extend_from_slice(octets.get(used..).unwrap_or_default());
        } else {
            self.client.pending.extend_from_slice(octets);
            self.resume();
        }
        self.settle();
    }

    /// The client has closed its side of the connection. It may still be reading, so outstanding replies are awaited.
    pub fn client_eof(&mut self) {
        let waits = self.takes_commands() || self.waits_to_send();
        if waits && self.pipeline.queue.is_waiting() && !self.is_closed() {
            self.end_when_answered();
        } else {
            self.client_lost();
        }
    }

    /// The connection to the client is lost.
    pub fn client_lost(&mut self) {
        if !self.is_closed() {
            self.leave_hop();
            self.end();
        }
    }

    /// The TLS handshake with the client is done. Everything that the client sent before is forgotten (RFC 3207 section
    /// 4.2).
    pub fn client_secured(&mut self) {
        self.client.securing = false;
        self.client.encrypted = true;
        self.client.hello = None;
        self.out.progress += 1;
        self.settle();
    }

    /// Whether the client is to be read now.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        !self.is_closed()
            && !self.client.securing
            && !self.mail.is_asking()
            && !self.waits_to_send()
            && (self.in_body() || self.may_parse() || self.expects_silence())
    }

    /// Whether a buffered message waits for the next hop to answer DATA with 354.
    pub(super) fn waits_to_send(&self) -> bool {
        matches!(self.mail.message(), Some(Message::Data(body)) if body.is_released())
    }

    /// Whether the client's octets are commands.
    pub(super) fn takes_commands(&self) -> bool {
        matches!(self.client.input, Input::Commands) && !self.mail.is_in_message()
    }

    /// Whether a message body is being read, so that large reads pay.
    #[must_use]
    pub fn in_body(&self) -> bool {
        self.mail.is_in_message() || matches!(self.client.input, Input::Swallow(_))
    }

    /// Whether a message is being sent, or its next chunk is awaited.
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.in_body() || matches!(self.mail.message(), Some(Message::Data(_) | Message::Chunks(_)))
    }

    /// Processes pending client input after a change of state.
    pub(super) fn resume(&mut self) {
        self.end_refused_transaction();
        self.resume_recipient();
        let mut pending = std::mem::take(&mut self.client.pending);
        let used = self.consume(&pending);
        pending.drain(..used.min(pending.len()));
        self.client.pending = pending;
        if self.client.pending.is_empty() && self.client.pending.capacity() > 4096 {
            self.client.pending = Vec::new();
        }
    }

    /// Processes as much of the input as possible, and returns the number of octets used.
    pub(super) fn consume(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.client.securing {
                // Sent before the handshake, possibly by an attacker: discarded (RFC 3207 section 4.2).
                return input.len();
            }
            if !self.wants_client() {
                break;
            }
            let used = match self.in_body() {
                true => self.take_body(rest),
                false if self.may_parse() => self.take_line(rest),
                false => 0,
            };
            if used == 0 {
                break;
            }
            // The excess of an overlong line is not progress.
            self.out.progress += u64::from(!self.client.skipping);
            at += used;
        }
        at
    }

    /// Whether a line of the client may be parsed now.
    pub(super) fn may_parse(&self) -> bool {
        !self.is_blocked()
            && self.mail.transaction().is_none_or(|transaction| transaction.waiting.is_none())
            && !self.pipeline.queue.is_full()
            && (self.hop.facts.offer.pipelining || !self.pipeline.queue.is_waiting())
    }

    /// Whether no command can be carried out until another event has occurred.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_ending() || self.pipeline.barrier || self.hop.dropping || !self.hop.connection.is_usable()
    }
}
