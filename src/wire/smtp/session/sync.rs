//! Clients that do not wait for replies, and clients of other protocols.
//!
//! RFC 2920 section 3.1 lists the commands that may be sent without waiting for earlier replies: EHLO, DATA and AUTH
//! must be the last of a group. By RFC 5321 section 4.3.1, the server speaks first. A client that sends a whole
//! dialogue without waiting is a spam program, or a program that was tricked into sending another protocol (an HTTP
//! POST from a browser).

use super::{Event, Session};
use crate::wire::smtp::command::Command;
use crate::wire::smtp::replies::{ANOTHER_PROTOCOL, OUT_OF_SYNC};

/// HTTP methods (RFC 9110 section 9, RFC 5789) that are not SMTP commands.
const HTTP: [&[u8]; 9] = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// Whether a line that is not an SMTP command belongs to another protocol: an HTTP request line, or a header.
fn is_another_protocol(line: &[u8]) -> bool {
    let word_ends = line.iter().position(|b| matches!(b, b' ' | b'\t' | b':')).unwrap_or(line.len());
    let Some((word, rest)) = line.split_at_checked(word_ends) else { return false };
    let is_header = rest.first() == Some(&b':') && !word.is_empty() && word.iter().all(|b| (33..127).contains(b));
    is_header || HTTP.iter().any(|method| word.eq_ignore_ascii_case(method))
}

/// Whether a client has to wait for the reply to this command (RFC 2920 section 3.1; RFC 3207; RFC 4954).
fn must_be_waited_for(command: &Command<'_>) -> bool {
    matches!(command, Command::Hello(_) | Command::StartTls | Command::Auth | Command::Data)
}

impl Session {
    /// Whether the client must not send anything now: it has to wait for the greeting, or for a reply that it needs
    /// before it can go on. If it sends something, it is disconnected.
    #[must_use]
    pub fn expects_silence(&self) -> bool {
        let waits = self.hop.connection.owes_client() || self.pipeline.answer_is_awaited;
        // The reply to an earlier message is sent first, so that the client does not take the error for that reply.
        self.settings.sync && waits && self.mail.ended.is_empty() && !self.is_ending()
    }

    /// Whether more octets follow a command whose reply the client has to wait for. The command is then not carried
    /// out.
    pub(super) fn is_out_of_sync(&self, command: &Command<'_>, has_more: bool) -> bool {
        self.settings.sync && has_more && must_be_waited_for(command)
    }

    /// Records that the client has to wait for the reply to this command, if so.
    pub(super) fn await_answer(&mut self, command: &Command<'_>) {
        self.pipeline.answer_is_awaited |= must_be_waited_for(command) && self.pipeline.barrier;
    }

    /// Refuses a client that has sent too early, and ends the session.
    pub(super) fn out_of_sync(&mut self) {
        self.out.events.push_back(Event::NotSmtp("sync"));
        self.say_last(OUT_OF_SYNC);
    }

    /// As `out_of_sync`, but after the replies to earlier commands.
    pub(super) fn out_of_sync_in_turn(&mut self) {
        self.out.events.push_back(Event::NotSmtp("sync"));
        self.mail.end();
        self.say(OUT_OF_SYNC);
        self.end_when_answered();
    }

    /// Ends the session if the line belongs to another protocol. Returns whether it does.
    pub(super) fn leaves_for_another_protocol(&mut self, line: &[u8]) -> bool {
        let is_other = is_another_protocol(line);
        if is_other {
            self.out.events.push_back(Event::NotSmtp("another-protocol"));
            self.mail.end();
            self.say(ANOTHER_PROTOCOL);
            self.end_when_answered();
        }
        is_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_told_from_mistakes() {
        for line in [
            "POST / HTTP/1.1",
            "get /",
            "CONNECT mail.example:25 HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "Host: mail.our.example",
            "Content-Length:5",
            "X-A_b:",
        ] {
            assert!(is_another_protocol(line.as_bytes()), "{line}");
        }
        for line in ["", " ", "FOO", "FOO bar:baz", ": x", "MAIL FROM <x>", "\u{e9}: x", "posting", "XCLIENT A=b:c"] {
            assert!(!is_another_protocol(line.as_bytes()), "{line}");
        }
    }
}
