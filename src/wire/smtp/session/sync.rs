//! Clients that do not wait for answers, and those that do not speak SMTP at all.
//!
//! RFC 2920 section 3.1 says which commands may be sent without waiting for the answer to the one before: EHLO, DATA
//! and AUTH come last in a group, and RFC 5321 section 4.3.1 has the server speak first. Whoever writes a whole
//! dialogue blindly is a program that sends spam, or another protocol that somebody else's program was made to speak
//! (an HTTP POST from a browser).

use super::{Event, Session};
use crate::wire::smtp::command::Command;
use crate::wire::smtp::replies::{ANOTHER_PROTOCOL, OUT_OF_SYNC};

/// Methods of HTTP (RFC 9110 section 9, RFC 5789) that are no commands of SMTP.
const HTTP: [&[u8]; 9] = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// Whether a line that is no command is one of another protocol: a request of HTTP, or a header.
fn is_another_protocol(line: &[u8]) -> bool {
    let word_ends = line.iter().position(|b| matches!(b, b' ' | b'\t' | b':')).unwrap_or(line.len());
    let Some((word, rest)) = line.split_at_checked(word_ends) else { return false };
    let is_header = rest.first() == Some(&b':') && !word.is_empty() && word.iter().all(|b| (33..127).contains(b));
    is_header || HTTP.iter().any(|method| word.eq_ignore_ascii_case(method))
}

/// Whether a client has to wait for the answer to this command (RFC 2920 section 3.1; RFC 3207; RFC 4954).
fn must_be_waited_for(command: &Command<'_>) -> bool {
    matches!(command, Command::Hello(_) | Command::StartTls | Command::Auth | Command::Data)
}

impl Session {
    /// Whether the client has to be silent now: it waits for the greeting, or for an answer that it must know before it
    /// goes on. What it says now is read only to let it go.
    #[must_use]
    pub fn expects_silence(&self) -> bool {
        let waits = self.hop.connection.owes_client() || self.pipeline.answer_is_awaited;
        // The answer to an earlier message goes first: the client must not take our last word for it.
        self.settings.sync && waits && self.mail.ended.is_empty() && !self.is_ending()
    }

    /// Whether a command has more octets behind it than a client that waits could have sent. It is then not carried
    /// out.
    pub(super) fn is_out_of_sync(&self, command: &Command<'_>, has_more: bool) -> bool {
        self.settings.sync && has_more && must_be_waited_for(command)
    }

    /// Notes that the answer to a command is on its way, where the client has to wait for it.
    pub(super) fn await_answer(&mut self, command: &Command<'_>) {
        self.pipeline.answer_is_awaited |= must_be_waited_for(command) && self.pipeline.barrier;
    }

    /// The client has spoken out of turn: it is told so, and nothing more of it is looked at.
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

    /// Whether the line ends the session because it is of another protocol.
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
