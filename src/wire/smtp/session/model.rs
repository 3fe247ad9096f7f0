//! The machine between a client and a next hop that both behave, with bodies that do not: what the client sent and what
//! the next hop got are the same messages, or none.

use proptest::prelude::*;

use super::tests::Dialogue;
use super::{Direction, Target};

/// A next hop as RFC 5321 describes it, which refuses what `refusals` says.
#[derive(Default)]
struct NextHop {
    unread: Vec<u8>,
    body: Option<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    /// For each command in turn, whether it is refused.
    refusals: Vec<bool>,
    commands: usize,
}

impl NextHop {
    /// Reads what was sent, and answers it.
    fn take(&mut self, octets: &[u8]) -> String {
        self.unread.extend_from_slice(octets);
        let mut replies = String::new();
        while let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = self.unread.drain(..end + 2).collect();
            if let Some(body) = &mut self.body {
                if line == b".\r\n" {
                    self.messages.extend(self.body.take());
                    replies.push_str("250 queued\r\n");
                } else {
                    body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                }
                continue;
            }
            self.commands += 1;
            let verb = String::from_utf8_lossy(&line[..4]).into_owned();
            let refused = matches!(verb.as_str(), "MAIL" | "RCPT" | "DATA")
                && self.refusals.get(self.commands).copied().unwrap_or(false);
            match verb.as_str() {
                _ if refused => replies.push_str("451 not now\r\n"),
                "EHLO" => replies.push_str("250-hop.example\r\n250 PIPELINING\r\n"),
                "DATA" => {
                    self.body = Some(Vec::new());
                    replies.push_str("354 go\r\n");
                }
                _ => replies.push_str("250 ok\r\n"),
            }
        }
        replies
    }
}

struct World {
    dialogue: Dialogue,
    hop: NextHop,
    opened: usize,
}

impl World {
    fn new(direction: Direction, hold: usize, refusals: Vec<bool>) -> Self {
        let mut dialogue = Dialogue::new(direction, hold);
        dialogue.greet();
        Self { dialogue, hop: NextHop { refusals, ..NextHop::default() }, opened: 1 }
    }

    /// Lets both sides talk until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let closed = self.dialogue.hop_closed;
            let octets = self.dialogue.heard_by_hop().into_bytes();
            let mut replies = self.hop.take(&octets);
            if self.dialogue.opened.len() > self.opened {
                self.opened = self.dialogue.opened.len();
                self.hop = NextHop {
                    messages: std::mem::take(&mut self.hop.messages),
                    refusals: std::mem::take(&mut self.hop.refusals),
                    commands: self.hop.commands,
                    ..NextHop::default()
                };
                self.dialogue.session.hop_connected(false);
                replies = "220 again\r\n".into();
            }
            if replies.is_empty() {
                return;
            }
            self.dialogue.session.hop_data(replies.as_bytes());
            self.dialogue.run();
            if self.dialogue.hop_closed > closed {
                // A connection that was closed leaves nothing behind.
                (self.hop.unread, self.hop.body) = (Vec::new(), None);
            }
        }
    }

    /// The client sends this in pieces; what it hears.
    fn say(&mut self, octets: &[u8], size: usize) -> String {
        for piece in octets.chunks(size) {
            let closed = self.dialogue.hop_closed;
            self.dialogue.session.client_data(piece);
            self.dialogue.run();
            if self.dialogue.hop_closed > closed {
                (self.hop.unread, self.hop.body) = (Vec::new(), None);
            }
            self.settle();
        }
        String::from_utf8(std::mem::take(&mut self.dialogue.session.to_client)).unwrap()
    }
}

/// What a body means: LF is a line end, a lone CR a space, the dot that begins a line is stuffing.
fn meaning(body: &str) -> Vec<u8> {
    let mended = body.replace("\r\n", "\n").replace('\r', " ").replace('\n', "\r\n");
    let unstuffed = mended.replace("\r\n.", "\r\n");
    unstuffed.strip_prefix('.').unwrap_or(&unstuffed).as_bytes().to_vec()
}

proptest! {
    #[test]
    fn the_next_hop_gets_what_the_client_sent_or_nothing(
        bodies in prop::collection::vec("([ab.:-]{0,6}(\r\n|\r\n|\r\n|\n|\r)){0,8}", 1..4),
        refusals in prop::collection::vec(prop::bool::weighted(0.1), 20),
        inbound: bool,
        null_sender: bool,
        hold in 1usize..40,
        size in 1usize..30,
    ) {
        // A lone dot between CR LFs is the end, and a client that means text has stuffed it.
        prop_assume!(bodies.iter().all(|body| !format!("\r\n{body}\r\n").contains("\r\n.\r\n")));
        let mut world = World::new(if inbound { Direction::Inbound } else { Direction::Outbound }, hold, refusals);
        let mut taken = Vec::new();
        for body in &bodies {
            let sender = if null_sender { "" } else { "bob@else.example" };
            let head = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<ann@our.example>\r\n");
            let replies = world.say(head.as_bytes(), size);
            prop_assert_eq!(replies.lines().count(), 2, "one answer for each command: {}", replies);
            let reply = world.say(b"DATA\r\n", size);
            prop_assert_eq!(reply.lines().count(), 1);
            if !reply.starts_with("354") {
                world.say(b"RSET\r\n", size);
                continue;
            }
            let reply = world.say(format!("{body}\r\n.\r\n").as_bytes(), size);
            if world.dialogue.client_closed {
                prop_assert!(reply.starts_with("550 5.5.2"), "{}", reply);
                break;
            }
            prop_assert_eq!(reply.lines().count(), 1, "{}", reply);
            if reply.starts_with("250") {
                taken.push(meaning(&format!("{body}\r\n")));
            } else {
                world.say(b"RSET\r\n", size);
            }
        }
        prop_assert_eq!(&world.hop.messages, &taken);
        prop_assert!(world.dialogue.opened.iter().all(|route| *route == Target::Main));
    }
}
