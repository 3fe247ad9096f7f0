//! The machine between a conforming client and a conforming next hop, with arbitrary bodies. The next hop gets the
//! messages that the client sent, or none.

use proptest::prelude::*;

use super::tests::Dialogue;
use crate::wire::message::{Direction, NextHopChoice};

/// A next hop as described by RFC 5321, which refuses the commands that `refusals` lists.
#[derive(Default)]
struct NextHop {
    unread: Vec<u8>,
    body: Option<Vec<u8>>,
    /// The number of octets still to come of a chunk, and whether it is the last one.
    chunk: Option<(usize, bool)>,
    chunks: Vec<u8>,
    dead: bool,
    messages: Vec<Vec<u8>>,
    /// For each command in order, whether it is refused.
    refusals: Vec<bool>,
    commands: usize,
}

impl NextHop {
    /// Parses octets and returns the replies.
    fn take(&mut self, octets: &[u8]) -> String {
        self.unread.extend_from_slice(octets);
        let mut replies = String::new();
        loop {
            if let Some((size, last)) = self.chunk {
                if self.unread.len() < size {
                    return replies;
                }
                let octets = self.unread.drain(..size).collect();
                self.chunk = None;
                replies.push_str(self.take_chunk(octets, last));
            } else if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                replies.push_str(self.take_line(&line));
            } else {
                return replies;
            }
        }
    }

    fn is_refused(&mut self) -> bool {
        self.commands += 1;
        self.refusals.get(self.commands).copied().unwrap_or(false)
    }

    /// RFC 3030 section 2: after a refused chunk, nothing is accepted until RSET.
    fn take_chunk(&mut self, octets: Vec<u8>, last: bool) -> &'static str {
        if self.dead || self.is_refused() {
            (self.dead, self.chunks) = (true, vec![]);
            return "451 no chunk now\r\n";
        }
        self.chunks.extend(octets);
        if last {
            self.messages.push(std::mem::take(&mut self.chunks));
        }
        "250 chunk\r\n"
    }

    fn take_line(&mut self, line: &[u8]) -> &'static str {
        if let Some(body) = &mut self.body {
            if line != b".\r\n" {
                body.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                return "";
            }
            self.messages.extend(self.body.take());
            return "250 queued\r\n";
        }
        let text = String::from_utf8_lossy(line).into_owned();
        match &text[..4] {
            "BDAT" => {
                let mut words = text.split_ascii_whitespace().skip(1);
                self.chunk = Some((words.next().unwrap().parse().unwrap(), words.next() == Some("LAST")));
                ""
            }
            "MAIL" | "RCPT" | "DATA" if self.is_refused() => "451 not now\r\n",
            "EHLO" => "250-hop.example\r\n250-CHUNKING\r\n250 PIPELINING\r\n",
            "DATA" => {
                self.body = Some(Vec::new());
                "354 go\r\n"
            }
            "RSET" => {
                (self.dead, self.chunks) = (false, vec![]);
                "250 reset\r\n"
            }
            _ => "250 ok\r\n",
        }
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
        dialogue.connect();
        let mut hop = NextHop { refusals, ..NextHop::default() };
        let hello = dialogue.client("EHLO c.example\r\n");
        dialogue.hop(&hop.take(hello.as_bytes()));
        Self { dialogue, hop, opened: 1 }
    }

    /// Passes octets between both sides until there is no more output.
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
                // A closed connection leaves no partial message.
                self.hop_forgets();
            }
        }
    }

    fn hop_forgets(&mut self) {
        (self.hop.unread, self.hop.body, self.hop.chunk, self.hop.chunks) = (vec![], None, None, vec![]);
    }

    /// Sends octets of the client in pieces, and returns the replies.
    fn say(&mut self, octets: &[u8], size: usize) -> String {
        for piece in octets.chunks(size) {
            let closed = self.dialogue.hop_closed;
            self.dialogue.session.client_data(piece);
            self.dialogue.run();
            if self.dialogue.hop_closed > closed {
                self.hop_forgets();
            }
            self.settle();
        }
        String::from_utf8(std::mem::take(&mut self.dialogue.session.out.to_client)).unwrap()
    }
}

/// The content of a body: LF is a line end, a lone CR is a space, and a leading dot is removed.
fn meaning(body: &str) -> Vec<u8> {
    let mended = body.replace("\r\n", "\n").replace('\r', " ").replace('\n', "\r\n");
    let unstuffed = mended.replace("\r\n.", "\r\n");
    unstuffed.strip_prefix('.').unwrap_or(&unstuffed).as_bytes().to_vec()
}

fn sender(null: bool, local: bool) -> &'static str {
    match (null, local) {
        (true, _) => "",
        (false, true) => "ann@our.example",
        (false, false) => "bob@else.example",
    }
}

/// A message without its evidence header, if it was to have one: one line before the end of the header block.
fn without_evidence(text: &str, marked: bool) -> String {
    let Some(at) = text.find("Countersign-Evidence: v=1;").filter(|_| marked) else {
        // Without a header block, or within a line, evidence cannot be added.
        let first = text.strip_prefix('.').unwrap_or(text);
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| (33..127).contains(&b));
        let has_block = first.split_once(':').is_some_and(|(name, _)| is_name(name.trim_end_matches([' ', '\t'])));
        assert!(!marked || !has_block || !text.ends_with('\n'), "no evidence in {text:?}");
        return text.to_owned();
    };
    let (before, rest) = text.split_at(at);
    let (line, after) = rest.split_once("\r\n").unwrap();
    assert_eq!(line.len(), "Countersign-Evidence: v=1; k=1; d=000; n=; a=".len() + 32);
    assert!(before.is_empty() || before.ends_with('\n'), "in the middle of a line: {text:?}");
    let is_field =
        |line: &str| line.starts_with([' ', '\t']) || line.split_once(':').is_some_and(|(name, _)| !name.is_empty());
    assert!(
        before.lines().all(|line| is_field(line.strip_prefix('.').unwrap_or(line)) || is_field(line)),
        "in the body: {text:?}"
    );
    format!("{before}{after}")
}

/// A message without Countersign's own headers that the client sent.
fn without_ours(text: &str) -> String {
    let mut in_header = true;
    let kept = text.split_inclusive("\r\n").filter(|line| {
        in_header &= *line != "\r\n";
        !(in_header && line.starts_with("Countersign-"))
    });
    kept.collect()
}

proptest! {
    #[test]
    fn the_next_hop_gets_what_the_client_sent_or_nothing(
        bodies in prop::collection::vec("([ab.:-]{0,6}(\r\n|\r\n|\r\n|\n|\r)){0,8}", 1..4),
        refusals in prop::collection::vec(prop::bool::weighted(0.1), 20),
        inbound: bool,
        null_sender: bool,
        evidence: bool,
        hold in 1usize..40,
        size in 1usize..30,
    ) {
        // A lone dot between two CR LFs ends a message; a client would have stuffed it as text.
        prop_assume!(bodies.iter().all(|body| !format!("\r\n{body}\r\n").contains("\r\n.\r\n")));
        let mut world = World::new(if inbound { Direction::Inbound } else { Direction::Outbound }, hold, refusals);
        world.dialogue.policy.outbound.evidence = evidence;
        let mut taken = Vec::new();
        for body in &bodies {
            let sender = sender(null_sender, evidence);
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
        let got: Vec<String> = world.hop.messages.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        let marked = evidence && !inbound && !null_sender;
        let messages: Vec<Vec<u8>> = got.iter().map(|text| without_evidence(text, marked).into_bytes()).collect();
        prop_assert_eq!(&messages, &taken);
        prop_assert!(world.dialogue.opened.iter().all(|route| *route == NextHopChoice::Main));
    }

    #[test]
    fn chunks_are_one_message_or_none(
        messages in prop::collection::vec(prop::collection::vec("(Countersign-A: x\r\n)?[ab.:-]{0,9}(\r\n){0,2}", 1..5), 1..4),
        refusals in prop::collection::vec(prop::bool::weighted(0.1), 30),
        inbound: bool,
        null_sender: bool,
        evidence: bool,
        hold in 1usize..40,
        size in 1usize..30,
    ) {
        let mut world = World::new(if inbound { Direction::Inbound } else { Direction::Outbound }, hold, refusals);
        world.dialogue.policy.outbound.evidence = evidence;
        let mut taken = Vec::new();
        for message in &messages {
            let sender = sender(null_sender, evidence);
            let head = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<ann@our.example>\r\n");
            prop_assert_eq!(world.say(head.as_bytes(), size).lines().count(), 2);
            let mut last_reply = String::new();
            for (n, chunk) in message.iter().enumerate() {
                let last = if n + 1 == message.len() { " LAST" } else { "" };
                last_reply = world.say(format!("BDAT {}{last}\r\n{chunk}", chunk.len()).as_bytes(), size);
                prop_assert_eq!(last_reply.lines().count(), 1, "one reply for each chunk: {}", last_reply);
            }
            if last_reply.starts_with("250") {
                let text = message.concat();
                taken.push(if inbound { without_ours(&text) } else { text });
            } else {
                world.say(b"RSET\r\n", size);
            }
            prop_assert!(!world.dialogue.client_closed);
        }
        let marked = evidence && !inbound && !null_sender;
        let got = world.hop.messages.into_iter().map(|text| without_evidence(&String::from_utf8(text).unwrap(), marked));
        prop_assert_eq!(got.collect::<Vec<_>>(), taken);
    }
}
