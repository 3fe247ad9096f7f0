//! The replies of the SMTP session whose text is fixed. `docs/replies.md` explains each of them, and a test compares the
//! two. Refusals by the rules are in `envelope::rules`; replies of the next hop pass unchanged.

use super::reply::Reply;

/// A reply of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnReply {
    /// The code, 200 to 599 (RFC 5321 section 4.2).
    pub code: u16,
    /// The enhanced status code (RFC 3463); empty after codes that have none, such as 354.
    pub status: &'static str,
    /// The text.
    pub text: &'static str,
}

impl OwnReply {
    /// The reply as it is sent to a client.
    #[must_use]
    pub fn reply(self) -> Reply {
        Reply::new(self.code, self.status, self.text)
    }

    /// The line without its line end, for a log.
    #[must_use]
    pub fn line(self) -> String {
        self.reply().first_line()
    }
}

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $status:literal $text:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: OwnReply = OwnReply { code: $code, status: $status, text: $text };)*

        /// All replies in this file.
        #[cfg(test)]
        pub(crate) const ALL: &[OwnReply] = &[$($name),*];
    };
}

replies! {
    /// `limits.message` is reached.
    MESSAGE_TOO_LONG = 552 "5.3.4" "message size exceeds fixed limit";
    /// `limits.header` is reached.
    HEADER_TOO_LONG = 552 "5.3.4" "the header of the message is too long";
    /// CHUNKING was not offered.
    NO_BDAT = 502 "5.5.1" "BDAT is not available here";
    /// DATA or BDAT without a recipient.
    NEED_RCPT = 503 "5.5.1" "need RCPT command";
    /// BDAT if no recipient was accepted, and the next hop has no transaction.
    NO_RECIPIENTS_YET = 503 "5.5.1" "no valid recipients";
    /// None of the recipients was accepted.
    NO_RECIPIENTS = 554 "5.5.1" "no valid recipients";
    /// A chunk that was buffered, and not yet passed on.
    CHUNK_RECEIVED = 250 "2.0.0" "octets received";
    /// A chunk without octets.
    EMPTY_CHUNK_RECEIVED = 250 "2.0.0" "0 octets received";
    /// The next hop refuses mail for `inbound.quarantine_to`.
    NO_QUARANTINE = 451 "4.3.0" "quarantine mailbox unavailable, try again later";
    /// The next hop closed before its reply to the message.
    HOP_LOST_UNCONFIRMED = 451 "4.4.2" "next hop was lost before it had confirmed the message, try again later";
    /// The next hop closed while the client was sending a message: the reply to the message.
    HOP_LOST = 451 "4.4.2" "next hop was lost, try again later";
    /// The next hop closed in a transaction, between or before the replies to commands: the session ends.
    HOP_LOST_IN_TRANSACTION = 421 "4.4.2" "next hop was lost, try again later";
    /// The next hop closed after AUTH, which cannot be repeated on a client's behalf.
    HOP_LOST_LOGIN = 421 "4.4.2" "next hop was lost, connect and log in again";
    /// A message after AUTH that needs a new connection to the next hop.
    ANOTHER_CONNECTION = 421 "4.3.2" "this needs another connection to the next hop, connect and log in again";
    /// QUIT without a next hop that could reply.
    BYE = 221 "2.0.0" "bye";
    /// A NUL octet in a text message (RFC 5321 section 4.5.2).
    NUL = 550 "5.6.0" "the message contains NUL octets";
    /// A bare CR or bare LF in a message, if `stray_newline` is `reject`.
    STRAY_LINE_END = 550 "5.5.2" "lines must end in CR LF, and CR must not stand alone";
    /// A lone dot that another server might accept as the end of the message (SMTP smuggling).
    SMUGGLING = 550 "5.5.2" "a lone dot between line ends other than CR LF is refused";
    /// The next hop's reply to DATA of an inspected message is neither 354 nor a refusal.
    HOP_UNEXPECTED_DATA_REPLY = 451 "4.5.0" "the next hop did not take the message";
    /// `limits.commands` is reached.
    TOO_MANY_COMMANDS = 421 "4.7.0" "too many commands without a message";
    /// `limits.bad_commands` is reached.
    TOO_MANY_MISTAKES = 421 "4.7.0" "too many bad commands";
    /// `limits.refused_recipients` is reached.
    TOO_MANY_REFUSED = 421 "4.7.0" "too many recipients that do not exist here";
    /// `limits.unknown_recipients_per_hour` was reached, and the client goes on all the same.
    TOO_MANY_UNKNOWN = 421 "4.7.1" "too many unknown recipients from your network, try again later";
    /// VRFY (RFC 5321 section 3.5.3).
    CANNOT_VERIFY = 252 "2.1.5" "cannot verify, but send some mail and see";
    /// A command that was not offered.
    NOT_AVAILABLE = 502 "5.5.1" "command not available here";
    /// AUTH was not offered.
    NO_AUTH = 502 "5.5.1" "AUTH is not available here";
    /// AUTH within a transaction, or twice.
    AUTH_NOT_NOW = 503 "5.5.1" "AUTH is not possible now";
    /// AUTH before STARTTLS (RFC 4954 section 6).
    AUTH_NEEDS_TLS = 538 "5.7.11" "encryption is required to log in";
    /// XCLIENT or XFORWARD from a client that `trusted_proxies` does not name.
    NOT_TRUSTED = 550 "5.7.1" "you are not trusted to say who you are";
    /// A command that is only valid between two transactions.
    IN_TRANSACTION = 503 "5.5.1" "a transaction is in progress";
    /// XFORWARD.
    OK = 250 "2.0.0" "Ok";
    /// A recipient of a message that is discarded.
    RECIPIENT_OK = 250 "2.1.5" "Ok";
    /// A message that is discarded.
    MESSAGE_OK = 250 "2.0.0" "Ok";
    /// The next hop's reply does not fit the command.
    NO_SENSE = 451 "4.5.0" "the next hop's answer makes no sense here, try again later";
    /// `timeouts.command` is exceeded.
    SILENT_TOO_LONG = 421 "4.4.2" "timeout, nothing was heard from you for too long";
    /// The client sends less than `limits.octets_per_second`.
    TOO_SLOW = 421 "4.4.2" "too slow, try again over a better line";
    /// `limits.held` has no room for another message.
    NO_ROOM = 451 "4.3.1" "too many messages are being looked at, try again later";
    /// `limits.held` is used up while a message is being buffered.
    NO_ROOM_CLOSING = 421 "4.3.1" "too many messages are being looked at, try again later";
    /// `timeouts.transaction` is exceeded.
    TRANSACTION_TOO_LONG = 421 "4.4.2" "the transaction has taken too long";
    /// The daemon stops.
    RESTART = 421 "4.3.2" "closing for a restart, try again later";
    /// The client did not wait for a reply, and `sync` is `enforce` (RFC 2920 section 3.1).
    OUT_OF_SYNC = 554 "5.5.0" "you must wait for the server's answer before you send more";
    /// A request of HTTP, or a header field, in place of a command.
    ANOTHER_PROTOCOL = 421 "4.7.0" "this is SMTP and nothing else";
    /// MAIL within a transaction.
    NESTED_MAIL = 503 "5.5.1" "nested MAIL command";
    /// RCPT without MAIL.
    NEED_MAIL = 503 "5.5.1" "need MAIL command";
    /// BINARYMIME was not offered (RFC 3030).
    NO_BINARYMIME = 555 "5.5.4" "BODY=BINARYMIME is not available here";
    /// REQUIRETLS was not offered (RFC 8689).
    NO_REQUIRETLS = 555 "5.5.4" "REQUIRETLS is not available here";
    /// The AUTH parameter of MAIL from a client that is not trusted (RFC 4954 section 5).
    NO_AUTH_PARAMETER = 555 "5.5.4" "AUTH= is not available here";
    /// `limits.recipients` is reached.
    TOO_MANY_RECIPIENTS = 452 "4.5.3" "too many recipients, send the message to the rest in another transaction";
    /// A recipient that is handled differently from the earlier ones.
    OWN_TRANSACTION = 452 "4.5.3" "this recipient needs a transaction of its own, send it again";
    /// DATA in a transaction of BDAT or BINARYMIME.
    NEED_BDAT = 503 "5.5.1" "BDAT is needed here";
    /// DATA of a message that is inspected before it is sent to the next hop.
    GO_ON = 354 "" "end data with <CR><LF>.<CR><LF>";
    /// A command before STARTTLS, if `tls` is `require` (RFC 3207 section 4).
    NEED_STARTTLS = 530 "5.7.0" "must issue a STARTTLS command first";
    /// A command before LHLO.
    NEED_LHLO = 503 "5.5.1" "send LHLO first";
    /// A command before HELO or EHLO.
    NEED_HELO = 503 "5.5.1" "send HELO or EHLO first";
    /// HELO or EHLO to a listener of LMTP (RFC 2033).
    SAY_LHLO = 500 "5.5.1" "this is LMTP, say LHLO";
    /// LHLO to a listener of SMTP.
    SAY_EHLO = 500 "5.5.1" "this is SMTP, say EHLO";
    /// A next hop of `by_domain` lacks an extension that the first next hop offers.
    HOP_LACKS_EXTENSION = 451 "4.3.5" "the next hop of this recipient lacks an extension, try again later";
    /// No mail server answers at `next_hop`.
    HOP_UNREACHABLE = 421 "4.4.1" "next hop cannot be reached, try again later";
    /// The next hop lacks what the config asks for, such as TLS.
    HOP_UNFIT = 421 "4.4.1" "next hop cannot be used, try again later";
    /// A next hop of `by_domain` lacks CHUNKING, which the first next hop offers.
    HOP_TAKES_NO_BDAT = 451 "4.3.5" "the next hop of this recipient takes no BDAT, try again later";
    /// STARTTLS was not offered.
    NO_TLS = 502 "5.5.1" "TLS is not available here";
    /// STARTTLS on an encrypted connection.
    TLS_TWICE = 503 "5.5.1" "TLS is not available here";
    /// A command line longer than `limits.line`.
    LINE_TOO_LONG = 500 "5.5.2" "line too long";
    /// A command with control characters.
    CONTROL_CHARACTERS = 500 "5.5.2" "control characters are not allowed in a command";
    /// A command with a bare CR or bare LF, if `stray_newline` is `reject`.
    BARE_LINE_END = 500 "5.5.2" "lines must end in CR LF, and CR must not stand alone";
    /// The client is not in the listener's `clients`.
    NOT_YOUR_SERVER = 554 "5.7.1" "you may not use this server";
    /// `limits.connections_per_client` is reached.
    TOO_MANY_FROM_NETWORK = 421 "4.7.0" "too many connections from your network, try again later";
    /// All connections of the listener are in use.
    TOO_MANY_CONNECTIONS = 421 "4.3.2" "too many connections, try again later";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a line of the table in the docs describes this reply: by its text, which may be shortened with `…`, or
    /// by the codes that similar replies share.
    fn explains(quoted: &str, reply: &OwnReply) -> bool {
        let line = reply.line();
        match quoted.split_once('…') {
            Some((begin, end)) => line.starts_with(begin.trim_end()) && line.ends_with(end.trim_start()),
            // The end of the text may be left out.
            None => line.starts_with(quoted),
        }
    }

    #[test]
    fn each_reply_is_explained() {
        let docs = include_str!("../../../docs/replies.md");
        let quoted: Vec<&str> = docs.split('`').skip(1).step_by(2).filter(|text| text.len() >= 9).collect();
        for reply in ALL.iter().filter(|reply| reply.code >= 400) {
            assert!(
                quoted.iter().any(|text| explains(text, reply)),
                "docs/replies.md says nothing of {}",
                reply.line()
            );
        }
    }
}
