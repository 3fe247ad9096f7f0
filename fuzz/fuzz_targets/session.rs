//! A client that may send anything, cut anywhere, and a next hop that follows RFC 5321. The next hop has exactly the
//! messages that were confirmed to the client, unchanged, and there are at most three more replies than commands.
#![no_main]

use countersign::machines::Direction;
use countersign_fuzz::{Driven, NextHop, byte};
use libfuzzer_sys::fuzz_target;

/// Sends the client's octets in pieces. Returns the next hop with its messages, and the session with what the client
/// was sent.
fn run(direction: Direction, hold: usize, client: &[u8], mut cuts: &[u8]) -> (NextHop, Driven) {
    let (mut driven, mut hop) = (Driven::new(direction, hold), NextHop::default());
    let mut connections = 0;
    let mut settle = |driven: &mut Driven, hop: &mut NextHop| loop {
        let mut octets = std::mem::take(&mut driven.session.out.to_hop);
        driven.session.wrote_to_hop(octets.len());
        let mut replies = Vec::new();
        if driven.opened > connections {
            connections = driven.opened;
            // Octets on their way to the earlier connection are lost with it.
            octets.clear();
            hop.connected_again();
            driven.session.hop_connected(false);
            replies.extend_from_slice(b"220 hop.example\r\n");
        }
        replies.extend(hop.take(&octets));
        if replies.is_empty() {
            break;
        }
        driven.session.hop_data(&replies);
        driven.act();
    };
    settle(&mut driven, &mut hop);
    let mut rest = client;
    while !rest.is_empty() {
        let size = if cuts.is_empty() { rest.len() } else { usize::from(byte(&mut cuts)) + 1 };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        driven.session.client_data(piece);
        driven.act();
        settle(&mut driven, &mut hop);
        rest = after;
    }
    driven.session.client_eof();
    driven.act();
    settle(&mut driven, &mut hop);
    (hop, driven)
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let direction = if byte(&mut input) & 1 == 0 { Direction::Outbound } else { Direction::Inbound };
    let hold = usize::from(byte(&mut input)) + 1;
    let (cuts, client) = input.split_at(usize::from(byte(&mut input)).min(input.len()));
    let (hop, driven) = run(direction, hold, client, cuts);
    let accepted = driven.finished.iter().filter(|finished| finished.code < 300).count();
    assert_eq!(hop.messages.len(), accepted, "the client was told otherwise");
    let commands = client.iter().filter(|octet| **octet == b'\n').count();
    let replies = driven.told.split(|octet| *octet == b'\n').filter(|line| line.get(3) == Some(&b' ')).count();
    assert!(replies <= commands + 3, "{replies} replies to {commands} commands");
    // If no line end had to be repaired, a message sent with DATA arrives unchanged, dot-stuffing included.
    let has_stray = client.iter().zip(client.iter().skip(1)).any(|(a, b)| (*a == b'\r') != (*b == b'\n'));
    let is_clean =
        !has_stray && client.first() != Some(&b'\n') && client.last() != Some(&b'\r') && !client.contains(&0);
    if direction == Direction::Outbound && is_clean {
        for (message, _) in hop.messages.iter().filter(|(_, by_data)| *by_data) {
            let whole = [message.as_slice(), b".\r\n"].concat();
            assert!(client.windows(whole.len()).any(|part| part == whole), "a message was changed");
        }
    }
    // The messages do not depend on how the input is cut.
    let (whole, _) = run(direction, hold, client, &[]);
    assert_eq!(hop.messages, whole.messages, "cut otherwise, it is another message");
});
