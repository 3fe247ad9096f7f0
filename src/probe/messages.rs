//! The messages of a probe. Each is small, and says what it is and who has sent it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::site::Site;

/// The boundary of messages with several parts.
const BOUNDARY: &str = "countersign-probe";

/// What stands below the text of each message.
const WHY: &str = "This message is part of an audit of your own mail server by countersign probe. If you can read it, the\r\n\
                   server has accepted it. It can be deleted.\r\n";

/// The subject of the message that the user sends.
pub(crate) const OF_USER: &str = "Probe of the return address";

/// The messages of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages<'a> {
    site: &'a Site,
}

impl<'a> Messages<'a> {
    pub(crate) fn of(site: &'a Site) -> Self {
        Self { site }
    }

    /// The header fields that every message has. `extra`: more of them, each with its line end.
    fn head(self, from: &str, to: &str, subject: &str, extra: &str) -> String {
        let Site { run, by, date, .. } = self.site;
        // Each message of a run has an identifier of its own.
        let mut hasher = DefaultHasher::new();
        (to, subject).hash(&mut hasher);
        let number = hasher.finish();
        format!(
            "X-Countersign-Probe: {run} by {by}\r\nDate: {date}\r\nFrom: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\
             Message-ID: <{run}.{number:x}@countersign-probe.invalid>\r\nMIME-Version: 1.0\r\n{extra}"
        )
    }

    /// An ordinary message of the person who runs the probe. `text`: lines with their line ends.
    pub(crate) fn ordinary(self, from: &str, to: &str, subject: &str, text: &str) -> String {
        let head = self.head(from, to, subject, "Content-Type: text/plain; charset=utf-8\r\n");
        format!("{head}\r\n{text}\r\n{WHY}")
    }

    /// The code that proves that somebody reads the user's mail.
    pub(crate) fn code(self, code: &str) -> String {
        let Site { user, by, sender, .. } = self.site;
        let text = format!(
            "Somebody ({by}) wants to audit the mail server of this mailbox with countersign probe.\r\n\
             If that is you, type in this code: {code}\r\n\
             If it is not, tell nobody the code, and nothing happens.\r\n"
        );
        self.ordinary(sender, user, "Code for countersign probe", &text)
    }

    /// A message of the user, whose return address is looked at where it arrives.
    pub(crate) fn of_user(self) -> String {
        let Site { user, sender, .. } = self.site;
        self.ordinary(user, sender, OF_USER, "What is the return address of this message?\r\n")
    }

    /// A delivery status notification (RFC 3464) to an address, about mail that went to `failed`.
    pub(crate) fn dsn(self, to: &str, failed: &str) -> String {
        let daemon = self.daemon();
        let head = self.head(
            &daemon,
            to,
            "Undelivered Mail Returned to Sender",
            &format!(
                "Auto-Submitted: auto-replied\r\n\
                 Content-Type: multipart/report; report-type=delivery-status; boundary=\"{BOUNDARY}\"\r\n"
            ),
        );
        format!(
            "{head}\r\n--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\n\
             Your message could not be delivered to <{failed}>: no such user.\r\n\r\n{WHY}\r\n\
             --{BOUNDARY}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {host}\r\n\r\n\
             Final-Recipient: rfc822; {failed}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\r\n--{BOUNDARY}--\r\n",
            host = self.site.sender_parts().1,
        )
    }

    /// A bounce that only words tell from other mail, as older mail servers send it.
    pub(crate) fn text_bounce(self, failed: &str) -> String {
        let to = &self.site.user;
        let head = self.head(&self.daemon(), to, "failure notice", "Content-Type: text/plain\r\n");
        format!(
            "{head}\r\nHi. This is the mail system at {host}.\r\n\
             I was not able to deliver your message to the following addresses.\r\n\
             This is a permanent error; I have given up.\r\n\r\n\
             <{failed}>:\r\n550 5.1.1 user unknown\r\n\r\n\
             --- Below this line is a copy of the message.\r\n\r\n\
             Return-Path: <{to}>\r\nFrom: <{to}>\r\nTo: <{failed}>\r\nSubject: hello\r\n\
             Message-ID: <never-sent@{domain}>\r\n\r\n{WHY}",
            host = self.site.sender_parts().1,
            domain = self.site.domain(),
        )
    }

    /// An absence notice (RFC 3834).
    pub(crate) fn vacation(self) -> String {
        let head = self.head(
            &self.site.sender,
            &self.site.user,
            "Out of office: hello",
            "Auto-Submitted: auto-replied (vacation)\r\nPrecedence: bulk\r\nContent-Type: text/plain\r\n",
        );
        format!("{head}\r\nI am away until Monday.\r\n\r\n{WHY}")
    }

    /// A message disposition notification (RFC 8098).
    pub(crate) fn receipt(self) -> String {
        let Site { sender, user, run, .. } = self.site;
        let head = self.head(
            sender,
            user,
            "Read: hello",
            &format!(
                "Content-Type: multipart/report; report-type=disposition-notification; boundary=\"{BOUNDARY}\"\r\n"
            ),
        );
        format!(
            "{head}\r\n--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nYour message was displayed.\r\n\r\n{WHY}\r\n\
             --{BOUNDARY}\r\nContent-Type: message/disposition-notification\r\n\r\n\
             Final-Recipient: rfc822; {sender}\r\nOriginal-Message-ID: <{run}@countersign-probe.invalid>\r\n\
             Disposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--{BOUNDARY}--\r\n"
        )
    }

    /// An answer to an invitation (RFC 6047).
    pub(crate) fn calendar(self) -> String {
        let Site { sender, user, run, .. } = self.site;
        let head =
            self.head(sender, user, "Accepted: lunch", "Content-Type: text/calendar; method=REPLY; charset=utf-8\r\n");
        format!(
            "{head}\r\nBEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//countersign//probe//EN\r\nMETHOD:REPLY\r\n\
             BEGIN:VEVENT\r\nUID:{run}@countersign-probe.invalid\r\nDTSTAMP:20260101T120000Z\r\n\
             DTSTART:20260101T120000Z\r\nSUMMARY:lunch\r\nORGANIZER:mailto:{user}\r\n\
             ATTENDEE;PARTSTAT=ACCEPTED:mailto:{sender}\r\nDESCRIPTION:part of an audit by countersign probe\r\n\
             END:VEVENT\r\nEND:VCALENDAR\r\n"
        )
    }

    /// A DMARC aggregate report (RFC 7489 section 7.2).
    pub(crate) fn dmarc_report(self) -> String {
        let (domain, submitter) = (self.site.domain(), self.site.sender_parts().1);
        let run = &self.site.run;
        let head = self.head(
            &self.site.sender,
            &self.site.user,
            &format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{run}>"),
            &format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n"),
        );
        format!(
            "{head}\r\n--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nDMARC aggregate report.\r\n\r\n{WHY}\r\n\
             --{BOUNDARY}\r\nContent-Type: text/xml; name=\"{submitter}!{domain}!1767225600!1767312000.xml\"\r\n\
             Content-Disposition: attachment; filename=\"{submitter}!{domain}!1767225600!1767312000.xml\"\r\n\r\n\
             <?xml version=\"1.0\"?>\r\n<feedback><report_metadata><org_name>{submitter}</org_name>\
             <report_id>{run}</report_id></report_metadata></feedback>\r\n\r\n--{BOUNDARY}--\r\n"
        )
    }

    fn daemon(self) -> String {
        format!("MAILER-DAEMON@{}", self.site.sender_parts().1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dry_run::tests::site;
    use super::*;
    use crate::envelope::bounce::{MessageKind as Kind, Scanner};

    fn kind(text: &str) -> Kind {
        let mut scanner = Scanner::of_data();
        scanner.push(text.as_bytes());
        scanner.finish();
        scanner.found().kind
    }

    #[test]
    fn messages_are_what_they_are_called() {
        let site = site();
        let messages = Messages::of(&site);
        let all = [
            (messages.dsn(&site.user, "nobody@else.example"), Kind::DsnFailed),
            (messages.text_bounce("nobody@else.example"), Kind::TextBounce),
            (messages.vacation(), Kind::AutoReply),
            (messages.receipt(), Kind::Mdn),
            (messages.calendar(), Kind::Calendar),
            (messages.dmarc_report(), Kind::Report),
            (messages.code("4F-91-C2"), Kind::Ordinary),
        ];
        for (text, expected) in all {
            assert_eq!(kind(&text), expected, "{text}");
            assert!(
                text.contains("X-Countersign-Probe: ") && !text.replace("\r\n", "").contains(['\r', '\n']),
                "{text}"
            );
            assert!(text.len() < 2000 && text.lines().all(|line| line.len() < 200 && !line.starts_with('.')), "{text}");
        }
    }
}
