//! Dialogues: the input from one side, and the output to the other.

mod chunks;
mod clients;
mod hops;
mod verdicts;

use std::collections::BTreeMap;

use super::*;
use crate::envelope::abuse::Memory;
use crate::envelope::address::Address;
use crate::envelope::keyring::{Algorithm, Key, Keyring};
use crate::envelope::match_lists::{AddressSet, AliasDomains, DomainSet};
use crate::envelope::rules::{Candidate, RecipientFacts, Rules};
use crate::envelope::site_policy::{InboundMode, Policy};
use crate::envelope::tag::batv;
use crate::envelope::time::Timestamp;
use crate::wire::message::{Direction, Finished, NextHopChoice};

const NOW: Timestamp = Timestamp(1_795_382_400);
const EHLO: &str = "250-mx.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 DSN\r\n";

/// A session with its rules, and a next hop played by the test.
pub(super) struct Dialogue {
    pub session: Session,
    pub policy: Policy,
    ring: Keyring,
    pub opened: Vec<NextHopChoice>,
    pub hop_closed: usize,
    pub client_closed: bool,
    pub finished: Vec<Finished>,
    pub limits: Vec<&'static str>,
    /// The client addresses that trusted proxies have named.
    pub named: Vec<Option<core::net::SocketAddr>>,
    /// The recipients that the rules were queried about.
    pub asked: Vec<String>,
    /// Recipients that were sent to the next hop and not answered, and for each answer whether it says that there is no
    /// such user.
    pub recipients: (usize, Vec<bool>),
    /// The number of times that the client has asked for a user by VRFY or EXPN.
    pub verified: usize,
    /// What was found out about all recipients.
    pub facts: RecipientFacts,
    room: bool,
    /// The number of TLS handshakes requested, with the client and with the next hop.
    pub secure: (usize, usize),
}

impl Dialogue {
    pub(super) fn new(direction: Direction, hold: usize) -> Self {
        Self::with(direction, hold, |_| {}, None)
    }

    /// A dialogue with other settings and a known client.
    pub(super) fn with(
        direction: Direction,
        hold: usize,
        change: impl FnOnce(&mut Settings),
        client: Option<&str>,
    ) -> Self {
        let (policy, ring) = site();
        let mut settings = Settings {
            direction,
            lmtp: false,
            sync: false,
            reject_stray: false,
            hold,
            has_srs_next_hop: true,
            client_tls: Tls::Off,
            encrypted: false,
            sends_proxy: false,
            hop_tls: Tls::Off,
            hop_verified: true,
            srs_tls: Tls::Off,
            trusted: false,
            strips_content: false,
            limits: SessionLimits { bad_commands: 50, ..SessionLimits::default() },
        };
        change(&mut settings);
        let identity = client.map(|ip| Identity::of(ip.parse().unwrap(), 1234));
        let session = Session::new(settings, identity);
        Self {
            session,
            policy,
            ring,
            opened: vec![],
            hop_closed: 0,
            client_closed: false,
            finished: vec![],
            limits: vec![],
            named: vec![],
            asked: vec![],
            recipients: (0, vec![]),
            verified: 0,
            facts: RecipientFacts::default(),
            room: true,
            secure: (0, 0),
        }
    }

    /// A dialogue after greeting and EHLO.
    pub(super) fn ready(direction: Direction) -> Self {
        let mut dialogue = Self::new(direction, 10_000);
        dialogue.greet();
        dialogue
    }

    /// Connects to the next hop, which sends its greeting.
    pub(super) fn connect(&mut self) {
        self.run();
        self.session.hop_connected(false);
        assert_eq!(self.hop("220 mx.example ESMTP\r\n"), "220 mx.example ESMTP\r\n");
    }

    pub(super) fn greet(&mut self) {
        self.connect();
        assert_eq!(self.client("EHLO c.example\r\n"), "EHLO c.example\r\n");
        assert_eq!(self.hop(EHLO), "250-mx.example\r\n250-PIPELINING\r\n250 DSN\r\n");
    }

    /// Connects and greets, with other extensions of the next hop.
    pub(super) fn greet_with(&mut self, offer: &str) {
        self.connect();
        self.client("EHLO c.example\r\n");
        self.hop(offer);
    }

    /// Connects and greets, with STARTTLS offered to the client.
    pub(super) fn greet_with_tls(&mut self) {
        self.connect();
        self.client("EHLO c.example\r\n");
        assert!(self.hop(EHLO).contains("STARTTLS"));
    }

    pub(super) fn run(&mut self) {
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Ask => self.answer(),
                Event::Open(target) => self.opened.push(target),
                Event::SecureClient => self.secure.0 += 1,
                Event::SecureHop => self.secure.1 += 1,
                Event::Limit(limit) => self.limits.push(limit),
                Event::Client { address, .. } => self.named.push(address),
                Event::Unfit(_) | Event::LoggedIn | Event::NotSmtp(_) => {}
                Event::CloseHop => {
                    self.hop_closed += 1;
                    self.session.out.to_hop.clear();
                }
                Event::RecipientSent => self.recipients.0 += 1,
                Event::RecipientAnswered { unknown } => {
                    self.recipients.0 -= 1;
                    self.recipients.1.push(unknown);
                }
                Event::RecipientNotSent => {}
                Event::Verify => self.verified += 1,
                Event::CloseClient => self.client_closed = true,
                Event::Refused { .. } | Event::OwnTransaction => {}
                Event::Finished(finished) => self.finished.push(finished),
            }
        }
    }

    /// Queries the rules for the session.
    fn answer(&mut self) {
        let rules = Rules::new(&self.policy, &self.ring, NOW).with_recipient(self.facts);
        match self.session.question().unwrap() {
            Question::Mail { sender } => {
                let outbound = rules.outbound(None, sender, None);
                self.session.answer(Answer::Sender(&outbound));
            }
            Question::Rcpt { sender, recipient } => {
                self.asked.push(recipient.to_string());
                let hop = domain(recipient);
                match self.session.settings.direction {
                    Direction::Outbound => {
                        let outbound = rules.outbound(None, sender, Some(recipient));
                        self.session.answer(Answer::SenderFor(
                            Some(&outbound),
                            hop,
                            rules.outbound_check(sender, recipient),
                        ));
                    }
                    Direction::Inbound => {
                        let inbound = rules.inbound(&mut Memory::default(), None, sender, recipient);
                        self.session.answer(Answer::Recipient(&inbound, hop));
                    }
                }
            }
            Question::Hold => self.session.answer(Answer::Hold(self.room)),
            Question::Content { check, recipient, found, complete, .. } => {
                let case = Candidate { client: None, check, recipient, complete };
                let content = rules.content(&mut Memory::default(), case, &found);
                self.session.answer(Answer::Content(&content));
            }
            Question::Evidence { sender, message_id, from } => {
                let header = rules.evidence([7; 10], message_id, from, sender);
                self.session.answer(Answer::Evidence(header.map(|header| header.line)));
            }
        }
    }

    /// Sends octets of the client, and returns the output to the next hop.
    pub(super) fn client(&mut self, text: &str) -> String {
        self.session.client_data(text.as_bytes());
        self.run();
        self.heard_by_hop()
    }

    /// Sends octets of the next hop, and returns the output to the client.
    pub(super) fn hop(&mut self, text: &str) -> String {
        self.session.hop_data(text.as_bytes());
        self.run();
        self.heard_by_client()
    }

    pub(super) fn heard_by_hop(&mut self) -> String {
        self.session.wrote_to_hop(self.session.out.to_hop.len());
        String::from_utf8(std::mem::take(&mut self.session.out.to_hop)).unwrap()
    }

    pub(super) fn heard_by_client(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.session.out.to_client)).unwrap()
    }

    pub(super) fn signed(&self, address: &str) -> String {
        let address = Address::parse(address).unwrap();
        let signed = batv::sign(&self.ring.keys()[0], &self.policy.batv, NOW.day(), &address).unwrap();
        signed.address().to_string()
    }
}

/// The index of the next hop for a recipient's domain; one domain has its own.
fn domain(recipient: &Address) -> Option<u16> {
    (recipient.domain() == "branch.our.example").then_some(0)
}

fn site() -> (Policy, Keyring) {
    let mut policy = Policy::default();
    policy.domains.local = DomainSet::from_iter(["our.example", "branch.our.example"]);
    policy.domains.srs = AliasDomains::one("srs.our.example");
    policy.outbound.exempt_recipients = AddressSet::from_iter(["@list.example"]);
    policy.inbound.mode = InboundMode::Enforce;
    policy.inbound.daemon_senders = AddressSet::from_iter(["mailer-daemon@"]);
    let ring = Keyring::new(vec![Key::for_test("1", Algorithm::HmacSha256, b"secret")], BTreeMap::new()).unwrap();
    (policy, ring)
}

fn dsn(action: &str) -> String {
    format!(
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nAction: {action}\r\n\r\n--b--\r\n"
    )
}

#[test]
fn what_arrives_together_leaves_together_and_signed() {
    let mut d = Dialogue::ready(Direction::Outbound);
    let signed = d.signed("ann@our.example");
    let heard = d.client("MAIL FROM:<ann@our.example> RET=HDRS\r\nRCPT TO:<x@else.example> NOTIFY=NEVER\r\nDATA\r\n");
    assert_eq!(heard, format!("MAIL FROM:<{signed}> RET=HDRS\r\nRCPT TO:<x@else.example> NOTIFY=NEVER\r\nDATA\r\n"));
    assert_eq!(d.hop("250 a\r\n250 b\r\n354 c\r\n"), "250 a\r\n250 b\r\n354 c\r\n");
    // Exim sends QUIT together with the final dot.
    assert_eq!(d.client("Subject: x\r\n\r\n..hi\r\n.\r\nQUIT\r\n"), "Subject: x\r\n\r\n..hi\r\n.\r\nQUIT\r\n");
    assert_eq!(d.hop("250 queued\r\n221 bye\r\n"), "250 queued\r\n221 bye\r\n");
    assert!(d.client_closed);
    assert_eq!((d.finished[0].code, d.finished[0].recipients), (250, 1));
}

#[test]
fn foreign_senders_are_rewritten_and_the_null_sender_passes() {
    let mut d = Dialogue::ready(Direction::Outbound);
    assert!(d.client("MAIL FROM:<bob@else.example>\r\n").starts_with("MAIL FROM:<SRS0="));
    d.hop("250 ok\r\n");
    assert_eq!(d.client("RSET\r\nMAIL FROM:<>\r\n"), "RSET\r\nMAIL FROM:<>\r\n");
}

#[test]
fn a_first_recipient_of_the_other_class_gets_its_own_sender() {
    let mut d = Dialogue::ready(Direction::Outbound);
    let signed = d.signed("ann@our.example");
    assert_eq!(d.client("MAIL FROM:<ann@our.example> SIZE=9\r\n"), format!("MAIL FROM:<{signed}> SIZE=9\r\n"));
    assert_eq!(d.hop("250 ok\r\n"), "250 ok\r\n");
    assert_eq!(
        d.client("RCPT TO:<l@list.example>\r\n"),
        "RSET\r\nMAIL FROM:<ann@our.example> SIZE=9\r\nRCPT TO:<l@list.example>\r\n"
    );
    assert_eq!(d.hop("250 reset\r\n250 mail\r\n450 later\r\n"), "450 later\r\n");
    // A temporary refusal of this recipient must not affect the next one.
    assert_eq!(
        d.client("RCPT TO:<x@else.example>\r\n"),
        format!("RSET\r\nMAIL FROM:<{signed}> SIZE=9\r\nRCPT TO:<x@else.example>\r\n")
    );
    assert_eq!(d.hop("250 reset\r\n250 mail\r\n250 rcpt\r\n"), "250 rcpt\r\n");
    assert_eq!(d.client("RCPT TO:<l@list.example>\r\n"), "");
    assert!(d.heard_by_client().starts_with("452 4.5.3 "));
}

#[test]
fn a_pipelined_other_class_waits_for_the_answer_to_mail() {
    let mut d = Dialogue::ready(Direction::Outbound);
    let signed = d.signed("ann@our.example");
    let heard = d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<l@list.example>\r\nDATA\r\n");
    assert_eq!(heard, format!("MAIL FROM:<{signed}>\r\n"));
    assert_eq!(d.hop("550 no\r\n"), "550 no\r\n503 5.5.1 need MAIL command\r\n503 5.5.1 need RCPT command\r\n");
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<l@list.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    assert_eq!(d.hop("250 mail\r\n"), "250 mail\r\n");
    assert_eq!(d.heard_by_hop(), "RSET\r\nMAIL FROM:<ann@our.example>\r\nRCPT TO:<l@list.example>\r\nDATA\r\n");
    // The refusal of the second MAIL is the reply to the recipient, regardless of the reply to RCPT.
    let heard = d.hop("250 reset\r\n553 no such sender\r\n503 no mail\r\n503 no rcpt\r\n");
    assert!(heard.starts_with("553 no such sender\r\n452 4.5.3 ") && heard.ends_with("503 no rcpt\r\n"), "{heard}");
}

#[test]
fn a_valid_tag_is_stripped_and_a_forged_one_refused() {
    let mut d = Dialogue::ready(Direction::Inbound);
    let signed = d.signed("ann@our.example");
    d.client("MAIL FROM:<>\r\n");
    d.hop("250 ok\r\n");
    assert_eq!(d.client("RCPT TO:<prvs=1111aaaaaa=ann@our.example>\r\n"), "");
    assert!(d.heard_by_client().starts_with("550 5.7.1 "));
    assert_eq!(d.client("RCPT TO:<nobody@else.example>\r\n"), "");
    assert_eq!(d.heard_by_client(), "550 5.7.1 relaying denied\r\n");
    assert_eq!(
        d.client(&format!("RCPT TO:<{signed}> ORCPT=rfc822;{signed}\r\n")),
        format!("RCPT TO:<ann@our.example> ORCPT=rfc822;{signed}\r\n")
    );
    d.hop("250 ok\r\n");
    // A signed recipient and an untagged one cannot share a transaction.
    assert_eq!(d.client("RCPT TO:<ann@our.example>\r\n"), "");
    assert!(d.heard_by_client().starts_with("452 4.5.3 "));
    assert_eq!(d.client("DATA\r\n"), "DATA\r\n");
    d.hop("354 go\r\n");
    assert_eq!(d.client("Countersign-Result: forged\r\nA: b\r\n\r\nx\r\n.\r\n"), "A: b\r\n\r\nx\r\n.\r\n");
}

fn candidate(d: &mut Dialogue) {
    assert_eq!(
        d.client("MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\n"),
        "MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\n"
    );
    assert_eq!(d.hop("250 a\r\n250 b\r\n"), "250 a\r\n250 b\r\n");
    assert_eq!(d.client("DATA\r\n"), "", "the next hop hears of a candidate when its head is known");
    assert!(d.heard_by_client().starts_with("354 "));
}

#[test]
fn an_untagged_bounce_costs_one_rset() {
    let mut d = Dialogue::ready(Direction::Inbound);
    candidate(&mut d);
    assert_eq!(d.client(&format!("{}.\r\n", dsn("failed"))), "RSET\r\n");
    assert!(d.heard_by_client().starts_with("550 5.7.1 "));
    assert_eq!(d.hop("250 reset\r\n"), "");
    candidate(&mut d);
    assert_eq!(d.hop_closed, 0);
}

#[test]
fn what_is_no_bounce_is_delivered() {
    let mut d = Dialogue::ready(Direction::Inbound);
    candidate(&mut d);
    assert_eq!(d.client("Auto-Submitted: auto-replied\r\n\r\nAway.\r\n.\r\nQUIT\r\n"), "DATA\r\n");
    assert_eq!(d.hop("354 go\r\n"), "");
    assert_eq!(d.heard_by_hop(), "Auto-Submitted: auto-replied\r\n\r\nAway.\r\n.\r\nQUIT\r\n");
    assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
}

#[test]
fn a_refusal_of_late_data_is_the_answer_to_the_message() {
    let mut d = Dialogue::ready(Direction::Inbound);
    candidate(&mut d);
    d.client("A: b\r\n\r\nx\r\n.\r\n");
    assert_eq!(d.hop("452 disk full\r\n"), "452 disk full\r\n");
    assert_eq!(d.heard_by_hop(), "RSET\r\n");
    assert_eq!(d.hop("250 ok\r\n"), "");
}

#[test]
fn observing_marks_and_refuses_nothing() {
    let mut d = Dialogue::ready(Direction::Inbound);
    d.policy.inbound.mode = InboundMode::Observe;
    candidate(&mut d);
    d.client(&format!("Countersign-Result: mine\r\n{}.\r\n", dsn("failed")));
    d.hop("354 go\r\n");
    let want = format!(
        "Countersign-Result: v=1; verdict=untagged; would=reject; reason=untagged-ndr\r\n{}.\r\n",
        dsn("failed")
    );
    assert_eq!(d.heard_by_hop(), want);
    d.hop("250 ok\r\n");
    d.client("MAIL FROM:<>\r\nRCPT TO:<prvs=1111aaaaaa=ann@our.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    assert_eq!(
        d.heard_by_hop(),
        "Countersign-Result: v=1; verdict=expired; would=reject; reason=expired\r\n".replace("expired", "forged")
    );
}

#[test]
fn a_bounce_longer_than_the_hold_is_refused_without_its_end() {
    let mut d = Dialogue::new(Direction::Inbound, 64);
    d.greet();
    candidate(&mut d);
    let text = dsn("failed");
    let (head, tail) = text.split_at(70);
    assert_eq!(d.client(head), "DATA\r\n");
    assert_eq!(d.hop("354 go\r\n"), "");
    assert_eq!(d.client(tail), text);
    assert_eq!(d.client(".\r\n"), "");
    assert!(d.heard_by_client().starts_with("550 5.7.1 "));
    assert_eq!(d.hop_closed, 1);
    // The next transaction uses a new connection, to which the client's EHLO is sent.
    assert_eq!(d.client("MAIL FROM:<a@b.example>\r\n"), "");
    assert_eq!(d.opened, [NextHopChoice::Main, NextHopChoice::Main]);
    d.session.hop_connected(false);
    d.hop("220 again\r\n");
    assert_eq!(d.heard_by_hop(), "EHLO c.example\r\n");
    assert_eq!(d.hop(EHLO), "");
    assert_eq!(d.heard_by_hop(), "MAIL FROM:<a@b.example>\r\n");
}

#[test]
fn no_room_to_hold_is_a_later() {
    let mut d = Dialogue::ready(Direction::Inbound);
    d.room = false;
    d.client("MAIL FROM:<>\r\nRCPT TO:<ann@our.example>\r\n");
    d.hop("250 a\r\n250 b\r\n");
    assert_eq!(d.client("DATA\r\n"), "");
    assert!(d.heard_by_client().starts_with("451 4.3.1 "));
}

#[test]
fn reversed_recipients_go_to_their_own_next_hop() {
    let mut d = Dialogue::ready(Direction::Outbound);
    let srs = d.client("MAIL FROM:<bob@else.example>\r\n");
    let srs = srs.trim_start_matches("MAIL FROM:<").trim_end_matches(">\r\n").to_owned();
    let mut d = Dialogue::ready(Direction::Inbound);
    d.client("MAIL FROM:<> SIZE=3\r\n");
    d.hop("250 ok\r\n");
    assert_eq!(d.client(&format!("RCPT TO:<{srs}>\r\nRCPT TO:<ann@our.example>\r\n")), "");
    assert_eq!(d.opened, [NextHopChoice::Main, NextHopChoice::Srs]);
    d.session.hop_connected(false);
    d.hop("220 relay\r\n");
    assert_eq!(d.heard_by_hop(), "EHLO c.example\r\n");
    d.hop(EHLO);
    // The next hop does not offer SIZE, so the parameter is not sent.
    assert_eq!(d.heard_by_hop(), "MAIL FROM:<>\r\nRCPT TO:<bob@else.example>\r\n");
    assert!(d.hop("250 mail\r\n250 rcpt\r\n").starts_with("250 rcpt\r\n452 4.5.3 "));
    d.client("DATA\r\n");
    d.hop("354 go\r\n");
    d.client("x\r\n.\r\n");
    d.hop("250 ok\r\n");
    // The next transaction uses the next hop for all mail.
    assert_eq!(d.client("MAIL FROM:<>\r\n"), "");
    assert_eq!(d.opened.last(), Some(&NextHopChoice::Main));
}

#[test]
fn a_lost_next_hop_loses_nothing() {
    // Within a message: the client is sent the reply at its end.
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    d.client("Subject: x\r\n");
    d.session.hop_eof();
    d.run();
    assert_eq!(d.client("more\r\n.\r\n"), "");
    assert!(d.heard_by_client().starts_with("451 4.4.2 "));
    assert_eq!(d.finished.last().unwrap().code, 451);

    // After the final dot, it is unknown whether the message was accepted, so it is deferred.
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    d.client("x\r\n.\r\n");
    d.session.hop_eof();
    d.run();
    assert!(d.heard_by_client().starts_with("451 4.4.2 "));

    // Before the reply to a command, and between commands: sender and recipients are lost, so the session ends.
    for answers in ["", "250 a\r\n", "250 a\r\n250 b\r\n"] {
        let mut d = Dialogue::ready(Direction::Outbound);
        d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\n");
        assert_eq!(d.hop(answers), answers);
        d.session.hop_eof();
        d.run();
        assert_eq!(d.heard_by_client(), "421 4.4.2 next hop was lost, try again later\r\n", "{answers}");
        assert!(d.client_closed);
    }
    let mut d = Dialogue::ready(Direction::Inbound);
    d.client("MAIL FROM:<bob@third.example>\r\nRCPT TO:<ann@our.example>\r\n");
    d.hop("250 a\r\n250 b\r\n");
    d.session.hop_eof();
    d.run();
    assert!(d.heard_by_client().ends_with("421 4.4.2 next hop was lost, try again later\r\n") && d.client_closed);

    // An idle client does not notice.
    let mut d = Dialogue::ready(Direction::Outbound);
    d.session.hop_eof();
    d.run();
    assert!(d.heard_by_client().is_empty() && !d.client_closed);
    d.client("MAIL FROM:<ann@our.example>\r\n");
    assert_eq!(d.opened.len(), 2);
    d.session.hop_failed();
    d.run();
    assert!(d.heard_by_client().starts_with("421 4.4.1 ") && d.client_closed);
}

#[test]
fn a_refused_second_mail_is_no_business_of_the_next_transaction() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client(
        "MAIL FROM:<ann@our.example>\r\nRCPT TO:<l@list.example>\r\nRSET\r\n\
         MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\n",
    );
    assert_eq!(d.hop("250 first\r\n"), "250 first\r\n");
    let heard = d.hop("250 reset\r\n553 no\r\n503 need mail\r\n250 reset\r\n250 mail\r\n250 rcpt\r\n");
    assert_eq!(heard, "503 need mail\r\n250 reset\r\n250 mail\r\n250 rcpt\r\n");
}

#[test]
fn a_yes_to_a_message_that_was_not_sent_yet_is_not_believed() {
    let mut d = Dialogue::ready(Direction::Inbound);
    candidate(&mut d);
    d.client("A: b\r\n\r\nx\r\n.\r\nQUIT\r\n");
    let heard = d.hop("354 go\r\n250 thanks already\r\n");
    assert_eq!(heard.split_terminator("\r\n").map(|l| &l[..3]).collect::<Vec<_>>(), ["451", "221"]);
    assert_eq!((d.finished.last().unwrap().code, d.hop_closed > 0), (451, true));
}

#[test]
fn a_refusal_in_the_middle_of_a_message_is_its_answer() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    d.client("Subject: x\r\n");
    assert_eq!((d.hop("552 5.3.4 too big\r\n").as_str(), d.hop_closed), ("", 1));
    assert_eq!(d.client("more\r\n.\r\n"), "");
    assert_eq!(d.heard_by_client(), "552 5.3.4 too big\r\n");
}

#[test]
fn answers_that_make_no_sense_are_a_later() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\n");
    assert!(d.hop("250 a\r\n354 what\r\n").contains("\r\n451 4.5.0 "));
    d.client("DATA\r\n");
    assert!(d.hop("250 what\r\n").starts_with("451 4.5.0 "));
    assert_eq!(d.hop_closed, 1);
}

#[test]
fn a_client_that_only_stops_talking_still_gets_its_answer() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    d.client("x\r\n.\r\n");
    d.session.client_eof();
    d.run();
    assert!(!d.client_closed);
    assert_eq!(d.hop("250 queued\r\n"), "250 queued\r\n");
    assert!(d.client_closed);
}

#[test]
fn too_many_bad_commands_do_not_jump_the_queue() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    d.client(&format!("x\r\n.\r\n{}", "X\r\n".repeat(60)));
    assert_eq!((d.heard_by_client().as_str(), d.client_closed), ("", false));
    let heard = d.hop("250 queued\r\n");
    assert!(
        heard.starts_with("250 queued\r\n500 ") && heard.ends_with("421 4.7.0 too many bad commands\r\n"),
        "{heard}"
    );
    assert!(d.client_closed);
}

#[test]
fn an_ehlo_that_is_refused_leaves_the_last_one_in_force() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("EHLO again.example\r\n");
    assert_eq!(d.hop("501 no\r\n"), "501 no\r\n");
    assert_eq!(d.heard_by_hop(), "RSET\r\n");
    d.hop("250 reset\r\n");
    d.session.hop_eof();
    d.run();
    d.client("MAIL FROM:<ann@our.example>\r\n");
    d.session.hop_connected(false);
    d.hop("220 again\r\n");
    assert_eq!(d.heard_by_hop(), "EHLO c.example\r\n");
}

#[test]
fn smuggling_and_nul_deliver_nothing() {
    for (direction, body, code) in [
        (Direction::Outbound, "x\n.\r\nMAIL FROM:<evil@x.example>\r\n", "550 5.5.2"),
        (Direction::Inbound, "x\r\n.\nMAIL FROM:<evil@x.example>\r\n", "550 5.5.2"),
        (Direction::Outbound, "x\0\r\n.\r\n", "550 5.6.0"),
    ] {
        let mut d = Dialogue::ready(direction);
        d.client("MAIL FROM:<bea@our.example>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\n");
        d.hop("250 a\r\n250 b\r\n354 c\r\n");
        assert!(!d.client(body).contains("\r\n.\r\n"));
        assert!(d.heard_by_client().starts_with(code), "{body:?}");
        assert_eq!((d.hop_closed > 0, d.finished.last().unwrap().code), (true, 550));
    }
}

#[test]
fn commands_that_are_none_are_told_so_and_never_reach_the_next_hop() {
    let mut d = Dialogue::ready(Direction::Outbound);
    for (line, want) in [
        ("XCLIENT ADDR=127.0.0.1\r\n", "550 5.7.1"),
        ("STARTTLS\r\n", "502 5.5.1"),
        ("NONSENSE\r\n", "500 5.5.2"),
        ("MAIL FROM:<a b@c>\r\n", "501 5.1.7"),
        ("MAIL FROM:<a@b.example> AUTH=x@y\r\n", "555 5.5.4"),
        ("RCPT TO:<a@b.example>\r\n", "503 5.5.1"),
        ("DATA\r\n", "503 5.5.1"),
        ("VRFY\r\n", "501 5.5.4"),
        ("VRFY ann\r\n", "252 2.1.5"),
        ("EXPN\r\n", "502 5.5.1"),
        ("HELO\r\n", "501 5.5.4"),
        ("EHLO  \r\n", "501 5.5.4"),
        ("AUTH\r\n", "501 5.5.4"),
        ("NOOP \0\r\n", "500 5.5.2"),
    ] {
        assert_eq!(d.client(line), "", "{line:?}");
        let heard = d.heard_by_client();
        assert!(heard.starts_with(want), "{line:?}: {heard}");
    }
    assert_eq!(d.client(&"x".repeat(5000)), "");
    d.client("yyy\r\n");
    assert_eq!(d.heard_by_client(), "500 5.5.2 line too long\r\n");
    assert_eq!(d.client("NOOP a\rb\n"), "NOOP a b\r\n");
    d.hop("250 ok\r\n");
    for _ in 0..60 {
        d.client("X\r\n");
    }
    assert!(d.client_closed && d.heard_by_client().ends_with("421 4.7.0 too many bad commands\r\n"));
}

#[test]
fn a_next_hop_without_pipelining_hears_one_command_at_a_time() {
    let mut d = Dialogue::new(Direction::Outbound, 100);
    d.run();
    d.session.hop_connected(false);
    d.hop("220 mx\r\n");
    d.client("EHLO c.example\r\n");
    assert_eq!(d.hop("250 mx.example\r\n"), "250 mx.example\r\n");
    d.client("MAIL FROM:<ann@our.example>\r\n");
    d.hop("250 ok\r\n");
    assert_eq!(d.client("RCPT TO:<l@list.example>\r\n"), "RSET\r\n");
    assert_eq!((d.hop("250 reset\r\n"), d.heard_by_hop()), (String::new(), "MAIL FROM:<ann@our.example>\r\n".into()));
    assert_eq!((d.hop("250 mail\r\n"), d.heard_by_hop()), (String::new(), "RCPT TO:<l@list.example>\r\n".into()));
    assert_eq!(d.hop("250 rcpt\r\n"), "250 rcpt\r\n");
}

#[test]
fn draining_ends_idle_sessions_and_lets_transactions_finish() {
    let mut d = Dialogue::ready(Direction::Outbound);
    d.session.drain();
    d.run();
    assert!(d.client_closed && d.heard_by_client().starts_with("421 4.3.2 "));
    let mut d = Dialogue::ready(Direction::Outbound);
    d.client("MAIL FROM:<ann@our.example>\r\nRCPT TO:<x@else.example>\r\nDATA\r\n");
    d.hop("250 a\r\n250 b\r\n354 c\r\n");
    d.session.drain();
    d.client("x\r\n.\r\n");
    assert!(!d.client_closed);
    assert!(d.hop("250 queued\r\n").starts_with("250 queued\r\n421 4.3.2 ") && d.client_closed);
}

proptest::proptest! {
    #[test]
    fn any_dialogue_in_any_pieces_ends_in_order(
        client in proptest::collection::vec(proptest::sample::select(vec![
            "MAIL FROM:<>\r\n", "MAIL FROM:<ann@our.example>\r\n", "RCPT TO:<l@list.example>\r\n",
            "RCPT TO:<x@else.example>\r\n", "RCPT TO:<ann@our.example>\r\n", "DATA\r\n", "x\r\n", ".\r\n", "RSET\r\n",
            "EHLO a\r\n", "NOOP\r\n", "bad\r\n", "\n", "\r", ".",
        ]), 0..30),
        hop in proptest::collection::vec(proptest::sample::select(vec!["250 ok\r\n", "354 go\r\n", "550 no\r\n", "421 bye\r\n", "junk\r\n"]), 0..30),
        inbound: bool,
        size in 1usize..20,
    ) {
        let mut d = Dialogue::ready(if inbound { Direction::Inbound } else { Direction::Outbound });
        let text = client.concat();
        let mut pieces = text.as_bytes().chunks(size);
        let mut answers = hop.into_iter();
        let (mut to_hop, mut moved) = (Vec::new(), true);
        while moved && !d.client_closed {
            moved = false;
            if let Some(piece) = pieces.next().filter(|_| d.session.client.pending.len() < 10_000) {
                d.session.client_data(piece);
                moved = true;
            }
            d.run();
            if d.session.hop.connection.is_opening() {
                d.session.hop_connected(false);
                d.session.hop_data(if d.session.client.hello.is_some() { b"220 x\r\n" } else { b"220 y\r\n" });
                d.session.hop_data(EHLO.as_bytes());
                moved = true;
            } else if d.session.pipeline.queue.is_waiting() && let Some(answer) = answers.next() {
                d.session.hop_data(answer.as_bytes());
                moved = true;
            }
            d.run();
            to_hop.extend(d.heard_by_hop().into_bytes());
        }
        // The next hop was sent no bare CR or LF.
        let heard = String::from_utf8(to_hop).unwrap();
        proptest::prop_assert!(!heard.replace("\r\n", "").contains(['\r', '\n']));
        let said = d.heard_by_client();
        proptest::prop_assert!(said.split_terminator("\r\n").all(|line| line.len() >= 4 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit)), "{said}");
    }
}
