//! A site whose mail server uses Countersign, and what is expected of it with every method.

use super::delivery::Agent;
use super::{Client, Message, Sink, dsn, poll_for};

/// The ports and mailboxes of a site. The mailbox is Ann's; `fwd@our.example` forwards to Carol, and `fwd2@our.example` to
/// a mailbox that does not exist. Others are those of [`super::delivery::Agent`].
pub struct Site<'a> {
    /// The port for submission.
    pub submit: u16,
    /// The port for mail from the internet.
    pub mx: u16,
    pub strangers: Strangers,
    pub world: &'a Sink,
    /// The messages in Ann's mailbox.
    pub mailbox: &'a dyn Fn() -> Vec<String>,
    /// The server's log, for failures.
    pub log: &'a dyn Fn() -> String,
    pub agent: Agent,
    pub can: Can,
}

/// How a client of the MX port is recognised as a stranger.
#[derive(Clone, Copy)]
pub enum Strangers {
    /// Every client of the port is a stranger.
    All,
    /// The client's address is set by XCLIENT.
    Xclient,
    /// The client connects from 127.0.0.2, which is not an address of the site's.
    OtherAddress,
}

/// What is done with mail from senders of other domains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Srs {
    No,
    /// An SRS address is used for mail that users submit.
    Sent,
    /// An SRS address is also used for mail that an alias forwards.
    Forwarded,
}

/// What the method supports.
#[derive(Clone, Copy)]
pub struct Can {
    /// Outbound mail has evidence, and bounces that return it are delivered.
    pub evidence: bool,
    /// Bounces to an address without a tag are refused.
    pub untagged: bool,
    pub srs: Srs,
    /// How many of the server's two bounces to a victim Countersign does not see, so that they are sent in spite of
    /// `outbound.ndr.policy = "drop"`.
    pub bounces_sent: usize,
}

const DESK: &str = "From: MAILER-DAEMON@third.example\r\nContent-Type: multipart/report; \
    report-type=delivery-status; boundary=\"b=1\"\r\n\r\n--b=1\r\n\r\nSorry.\r\n--b=1\r\n\
    Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; third.example\r\n\r\n\
    Final-Recipient: rfc822; bob@third.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b=1\r\n\
    Content-Type: message/rfc822\r\n\r\n";

impl Site<'_> {
    /// Checks everything that is expected of the site.
    pub fn holds(&self) {
        self.all_holds();
        let routed = (self.mailbox)().iter().filter(|text| text.contains("X-Id: routed")).count();
        assert_eq!(routed, usize::from(self.can.evidence), "{}", (self.log)());
    }

    fn all_holds(&self) {
        let signed = self.mail_leaves_signed();
        self.own_bounces_come_home();
        self.bounces_come_home(&signed);
        self.false_bounces_do_not(&signed);
        self.all_else_is_as_ever();
        self.nothing_is_reflected(&signed);
        self.only_replies_reach_the_victim();
        if self.can.srs != Srs::No {
            self.submit("bob@else.example", "carol@third.example", "Subject: for-bob\r\n\r\nx");
            self.has_a_way_back("Subject: for-bob");
        }
        if self.can.srs == Srs::Forwarded {
            self.taken("bob@else.example", "fwd@our.example", "Subject: forwarded\r\n\r\nx");
            self.has_a_way_back("Subject: forwarded");
        }
    }

    fn stranger(&self) -> Client {
        let mut client = match self.strangers {
            Strangers::OtherAddress => Client::connect_from([127, 0, 0, 2], self.mx),
            Strangers::All | Strangers::Xclient => Client::connect(self.mx),
        };
        assert!(client.say("EHLO mail.third.example").starts_with("250"), "{:?}", client.reply);
        if matches!(self.strangers, Strangers::Xclient) {
            assert!(
                client.say("XCLIENT ADDR=192.0.2.7 NAME=mail.third.example").starts_with("220"),
                "{:?}",
                client.reply
            );
            client.say("EHLO mail.third.example");
        }
        client
    }

    /// The reply to a stranger: to the first command that is refused, or to the message.
    fn knock(&self, from: &str, to: &str, text: &str) -> String {
        let mut client = self.stranger();
        let reply = client.send(from, to, text).unwrap();
        client.say("QUIT");
        reply
    }

    fn submit(&self, from: &str, to: &str, text: &str) {
        let mut client = Client::connect(self.submit);
        client.say("EHLO desk.our.example");
        let reply = client.send(from, to, text).unwrap();
        assert!(reply.starts_with("250"), "{from} to {to}: {reply}\n{}", (self.log)());
        client.say("QUIT");
    }

    fn arrived(&self, what: &str) -> Message {
        self.world
            .wait_message(|| format!("{what} in the world: {}", (self.log)()), |message| message.text.contains(what))
    }

    fn delivered(&self, what: &str) -> String {
        let mailbox = || (self.mailbox)().into_iter().find(|text| text.contains(what));
        let found = poll_for(&format!("{what} in the mailbox: {}", (self.log)()), mailbox);
        let head = found.split("\n\n").next().unwrap_or_default();
        let to = head.lines().find(|line| line.starts_with("Delivered-To:") || line.starts_with("Envelope-To:"));
        assert!(to.is_none_or(|to| !to.contains("prvs=")), "{what} was delivered to a tag: {head}");
        found
    }

    fn taken(&self, from: &str, to: &str, text: &str) {
        let reply = self.knock(from, to, text);
        assert!(reply.starts_with("250"), "{from} to {to}: {reply}\n{}", (self.log)());
    }

    fn refused(&self, from: &str, to: &str, text: &str, with: &str) {
        let reply = self.knock(from, to, text);
        assert!(reply.starts_with(with), "{from} to {to}: {reply}, not {with}\n{}", (self.log)());
    }

    /// Ann's message, as received by its recipient.
    fn mail_leaves_signed(&self) -> Message {
        let text = "From: Ann <ann@our.example>\r\nMessage-ID: <signed@our.example>\r\nSubject: signed\r\n\r\nx";
        self.submit("ann@our.example", "bob@third.example", text);
        let message = self.arrived("Subject: signed");
        let from = &message.from;
        assert!(from.starts_with("prvs=1") && from.ends_with("=ann@our.example"), "{from}\n{}", (self.log)());
        assert_eq!(message.text.contains("Countersign-Evidence: v=1; k=1;"), self.can.evidence, "{}", message.text);
        assert!(!message.text.contains("From: Ann <prvs"), "{}", message.text);
        message
    }

    /// The next hop refuses the recipient, so the MTA sends Ann a bounce.
    fn own_bounces_come_home(&self) {
        let text = "From: Ann <ann@our.example>\r\nSubject: returned\r\n\r\nx";
        self.submit("ann@our.example", "refused@third.example", text);
        let bounce = self.delivered("refused@third.example");
        assert!(bounce.contains("multipart/report") || bounce.contains("MAILER-DAEMON"), "{bounce}");
    }

    fn bounces_come_home(&self, signed: &Message) {
        let bounce = |id: &str| format!("X-Id: {id}\r\n{}", dsn("failed").trim_end());
        self.taken("", &signed.from, &bounce("home"));
        self.delivered("X-Id: home");
        if self.can.evidence {
            // With a source route, which mail servers remove: delivered once, and without the tag.
            self.taken("", &format!("@third.example:{}", signed.from), &bounce("routed"));
            self.delivered("X-Id: routed");
        }
        // With an extension behind the delimiter, too.
        self.submit("ann+lists@our.example", "bob@third.example", "Subject: delimited\r\n\r\nx");
        let delimited = self.arrived("Subject: delimited").from;
        assert!(delimited.ends_with("=ann+lists@our.example"), "{delimited}");
        self.taken("", &delimited, &bounce("delimited"));
        self.delivered("X-Id: delimited");
        if self.can.evidence {
            // To Ann's plain address, from a server that uses the header only; the returned original is the evidence.
            let original: String = signed.text.lines().map(|line| format!("{line}\r\n")).collect();
            self.taken("", "ann@our.example", &format!("X-Id: rescued\r\n{DESK}{original}\r\n--b=1--"));
            self.delivered("X-Id: rescued");
        }
    }

    fn false_bounces_do_not(&self, signed: &Message) {
        let at = "prvs=1000".len();
        let digit = if &signed.from[at..=at] == "0" { "1" } else { "0" };
        let forged = format!("{}{digit}{}", &signed.from[..at], &signed.from[at + 1..]);
        self.refused("", &forged, &dsn("failed"), "550 5.7.1");
        let text = format!("X-Id: untagged\r\n{}", dsn("failed").trim_end());
        if self.can.untagged {
            self.refused("", "ann@our.example", &text, "550 5.7.1");
            // Other spellings of the address that a mail server may accept are refused, too.
            let others =
                ["ann", "ann%our.example", "our.example!ann", "ann%our.example@our.example", "ann @our.example"];
            for other in others.iter().filter(|_| self.can.evidence) {
                self.refused("", other, &text, "5");
            }
            self.refused("", "@third.example:ann@our.example", &text, "5");
            assert!((self.mailbox)().iter().all(|text| !text.contains("X-Id: untagged")));
        } else {
            self.taken("", "ann@our.example", &text);
            self.delivered("X-Id: untagged");
        }
    }

    fn all_else_is_as_ever(&self) {
        self.taken("bob@third.example", "ann@our.example", "Subject: ordinary\r\n\r\nx");
        self.delivered("Subject: ordinary");
        self.taken("", "ann@our.example", "Subject: away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away");
        self.delivered("Subject: away");
        for from in ["bob@third.example", ""] {
            self.refused(from, "nosuch@our.example", "x", "550");
            // If accepted, the message would be bounced to Bob, who may not have sent it.
            self.refused(from, "prvs=1000abcdef=nosuch@our.example", "x", "550");
        }
        for from in ["bob@third.example", "ann@our.example", ""] {
            self.refused(from, "carol@third.example", "x", "55");
        }
    }

    /// A stranger writes in the name of a victim: whatever is not delivered is refused, and nothing leaves for the victim.
    fn nothing_is_reflected(&self, signed: &Message) {
        let victim = "victim@victim.example";
        let expired = signed.from.replace("prvs=1", "prvs=9");
        for to in ["nosuch@our.example", "nosuch+ann@our.example", "prvs=1000abcdef=nosuch@our.example"] {
            self.refused(victim, to, "Subject: buy this\r\n\r\nspam", "550");
        }
        // A tag of an unknown key is refused or deferred, or delivered to Ann.
        let reply = self.knock(victim, &expired, "Subject: buy this\r\n\r\nspam");
        assert!(reply.starts_with(['2', '4', '5']), "{reply}");
        self.taken(victim, "ann@our.example", "Subject: last\r\n\r\nx");
        self.delivered("Subject: last");
        let reflected: Vec<_> = self.world.all().into_iter().filter(|it| it.to.iter().any(|to| to == victim)).collect();
        assert!(
            reflected.is_empty(),
            "{:?}\n{}",
            reflected.iter().map(|it| &it.text).collect::<Vec<_>>(),
            (self.log)()
        );
    }

    /// What the server takes and cannot deliver is bounced to a victim, unless Countersign sees the bounce. Absence notices
    /// are sent, each once.
    fn only_replies_reach_the_victim(&self) {
        let victim = "victim@victim.example";
        let to_victim = || {
            let sent = self.world.all().into_iter().filter(|it| it.to.iter().any(|to| to == victim));
            sent.collect::<Vec<Message>>()
        };
        for (n, user) in ["full", "fwd2", "full2"].into_iter().enumerate() {
            self.taken(victim, &format!("{user}@our.example"), "Subject: buy this\r\n\r\nspam");
            poll_for(&format!("the end of the bounce of {user}: {}", (self.log)()), || {
                let held = (self.log)().matches("\"reason\":\"own-bounce\"").count();
                (held + to_victim().len() > n).then_some(())
            });
        }
        assert_eq!(self.agent.log().matches("rejected: Quota exceeded").count(), 2, "{}", self.agent.log());
        let bounces = to_victim();
        // The agent submits its own, like mail.
        let expected = self.can.bounces_sent + usize::from(!self.can.evidence);
        assert_eq!(bounces.len(), expected, "{bounces:?}\n{}", (self.log)());
        assert!(bounces.iter().all(|bounce| bounce.from.is_empty()), "{bounces:?}");
        self.absence_notices_end(victim);
        assert_eq!(to_victim().len(), expected + 1, "{}", (self.log)());
    }

    /// Two users who are away write to each other, and to somebody whose program answers whatever it gets.
    fn absence_notices_end(&self, outside: &str) {
        self.taken(outside, "away@our.example", "To: away@our.example\r\nSubject: are you there\r\n\r\nx");
        let notice = self.arrived("Subject: until Monday");
        assert_eq!((notice.from.as_str(), notice.to.concat().as_str()), ("", outside));
        let heads = ["Auto-Submitted: auto-replied\r\nSubject: away, too", "Subject: and without a mark"];
        for (from, head) in [("", heads[0]), (outside, heads[0]), (outside, heads[1])] {
            self.taken(from, "away@our.example", &format!("To: away@our.example\r\n{head}\r\n\r\nx"));
        }
        self.submit("away@our.example", "away2@our.example", "To: away2@our.example\r\nSubject: within\r\n\r\nx");
        // Away has got four messages from outside, and the other one's notice.
        poll_for(&format!("the end of the notices: {}\n{}", (self.log)(), self.agent.log()), || {
            (self.agent.stored("away") == 5).then_some(())
        });
        self.submit("ann@our.example", "bob@third.example", "Subject: the end\r\n\r\nx");
        self.arrived("Subject: the end");
        assert_eq!((self.agent.stored("away"), self.agent.stored("away2")), (5, 1), "{}", self.agent.log());
    }

    fn has_a_way_back(&self, what: &str) {
        let sent = self.arrived(what);
        assert!(sent.from.starts_with("SRS0="), "{}", sent.from);
        assert!(sent.from.ends_with("=else.example=bob@srs.our.example"), "{}", sent.from);
        assert_eq!(sent.to, ["carol@third.example"]);
        let id = format!("X-Id: back-{}", what.rsplit(' ').next().unwrap());
        self.taken("", &sent.from, &format!("{id}\r\n{}", dsn("failed").trim_end()));
        let bounce = self.arrived(&id);
        assert_eq!((bounce.from.as_str(), bounce.to.concat().as_str()), ("", "bob@else.example"));
        // No other mail is relayed by this server.
        for to in ["SRS0=AAAAAA=AA=else.example=bob@srs.our.example", "bob@srs.our.example"] {
            self.refused("", to, "x", "5");
        }
    }
}
