//! What the fuzz targets share: a site with its keys, and an SMTP session between a client and a next hop.

use countersign::envelope::abuse::Memory;
use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
use countersign::envelope::rules::{Candidate, Rules};
use countersign::envelope::site_policy::{InboundMode, Policy};
use countersign::envelope::time::Timestamp;
use countersign::machines::{Answer, Direction, Event, Finished, Question, Session, SessionLimits, Settings, Tls};

/// A moment at which tags of the ring below are fresh.
pub const NOW: Timestamp = Timestamp(1_795_382_400);

/// `our.example` with a key that signs, as it was on the day of [`NOW`]. Bounces are enforced, nothing is added to messages.
pub fn site() -> (Policy, Keyring) {
    let secret = Secret::new(vec![7; 32].into());
    let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
    let ring = Keyring::create(key, NOW).expect("a first key");
    let mut policy = Policy::default();
    policy.domains.local.insert("our.example");
    policy.inbound.mode = InboundMode::Enforce;
    policy.outbound.evidence = false;
    (policy, ring)
}

/// Takes a number from the front of the input, 0 where there is none.
pub fn byte(input: &mut &[u8]) -> u8 {
    let Some((first, rest)) = input.split_first() else { return 0 };
    *input = rest;
    *first
}

/// A session with a site behind it that answers its questions.
pub struct Driven {
    /// The machine.
    pub session: Session,
    direction: Direction,
    policy: Policy,
    ring: Keyring,
    /// Connections to next hops that it has asked for.
    pub opened: usize,
    /// What became of each message.
    pub finished: Vec<Finished>,
    /// All that the client was told.
    pub told: Vec<u8>,
}

impl Driven {
    /// In this direction. Clients need not wait for answers, so that streams may be cut anywhere.
    pub fn new(direction: Direction, hold: usize) -> Self {
        let (policy, ring) = site();
        let settings = Settings {
            direction,
            lmtp: false,
            sync: false,
            reject_stray: false,
            hold,
            has_srs_next_hop: false,
            client_tls: Tls::Off,
            encrypted: false,
            sends_proxy: false,
            hop_tls: Tls::Off,
            hop_verified: false,
            srs_tls: Tls::Off,
            trusted: false,
            strips_content: hold % 2 == 1,
            limits: SessionLimits::default(),
        };
        let session = Session::new(settings, None);
        let mut driven = Self { session, direction, policy, ring, opened: 0, finished: vec![], told: vec![] };
        driven.act();
        driven
    }

    /// Does what the machine wants done, and takes what it says to the client.
    pub fn act(&mut self) {
        let mut memory = Memory::default();
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Ask => self.answer(&mut memory),
                Event::Open(_) => self.opened += 1,
                Event::Finished(finished) => self.finished.push(finished),
                _ => {}
            }
        }
        self.told.append(&mut self.session.out.to_client);
    }

    /// Asks the rules what the machine wants to know.
    fn answer(&mut self, memory: &mut Memory) {
        let rules = Rules::new(&self.policy, &self.ring, NOW);
        // It may be moot by now.
        let Some(question) = self.session.question() else { return };
        match question {
            Question::Mail { sender } => {
                let outbound = rules.outbound(None, sender, None);
                self.session.answer(Answer::Sender(&outbound));
            }
            Question::Rcpt { .. } if self.direction == Direction::Outbound => {
                self.session.answer(Answer::SenderFor(None, None, None));
            }
            Question::Rcpt { sender, recipient } => {
                let inbound = rules.inbound(memory, None, sender, recipient);
                self.session.answer(Answer::Recipient(&inbound, None));
            }
            Question::Hold => self.session.answer(Answer::Hold(true)),
            Question::Content { check, recipient, found, complete, .. } => {
                let candidate = Candidate { client: None, check, recipient, complete };
                let content = rules.content(memory, candidate, &found);
                self.session.answer(Answer::Content(&content));
            }
            Question::Evidence { .. } => self.session.answer(Answer::Evidence(None)),
        }
    }
}

/// A next hop as RFC 5321 and RFC 3030 describe it, which takes everything.
#[derive(Default)]
pub struct NextHop {
    unread: Vec<u8>,
    body: Option<Vec<u8>>,
    /// Octets of a chunk still to come, and whether it is the last.
    chunk: Option<(usize, bool)>,
    chunks: Vec<u8>,
    /// Messages that it has said 250 to, and whether each came by DATA.
    pub messages: Vec<(Vec<u8>, bool)>,
}

impl NextHop {
    /// A fresh connection to the same server: it has its messages, and no half of another.
    pub fn connected_again(&mut self) {
        *self = Self { messages: std::mem::take(&mut self.messages), ..Self::default() };
    }

    /// Reads what was sent, and answers it.
    pub fn take(&mut self, octets: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(octets);
        let mut replies = String::new();
        loop {
            if let Some((size, last)) = self.chunk {
                if self.unread.len() < size {
                    return replies.into_bytes();
                }
                self.chunks.extend(self.unread.drain(..size));
                self.chunk = None;
                if last {
                    self.messages.push((std::mem::take(&mut self.chunks), false));
                }
                replies.push_str("250 chunk\r\n");
            } else if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                replies.push_str(self.take_line(&line));
            } else {
                return replies.into_bytes();
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) -> &'static str {
        if let Some(body) = &mut self.body {
            if line != b".\r\n" {
                body.extend_from_slice(line);
                return "";
            }
            self.messages.extend(self.body.take().map(|body| (body, true)));
            return "250 queued\r\n";
        }
        assert!(!line.contains(&b'\n') || line.iter().filter(|octet| **octet == b'\n').count() == 1);
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mut words = text.split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "BDAT" => {
                let size = words.next().and_then(|size| size.parse().ok()).expect("the proxy writes sizes");
                self.chunk = Some((size, words.next() == Some("LAST")));
                ""
            }
            "EHLO" => "250-hop.example\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n",
            "DATA" => {
                self.body = Some(Vec::new());
                "354 go\r\n"
            }
            "RSET" => {
                self.chunks.clear();
                "250 reset\r\n"
            }
            "QUIT" => "221 bye\r\n",
            "AUTH" | "STARTTLS" | "XCLIENT" | "XFORWARD" => "502 no\r\n",
            _ => "250 ok\r\n",
        }
    }
}
