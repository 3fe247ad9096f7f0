//! A session whose client and next hop may both send anything, cut anywhere: it does not panic, and the size of its
//! output is bounded by the size of its input.
#![no_main]

use countersign::machines::Direction;
use countersign_fuzz::{Driven, byte};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let size = input.len();
    let direction = if byte(&mut input) & 1 == 0 { Direction::Outbound } else { Direction::Inbound };
    let mut driven = Driven::new(direction, 64);
    let (mut connections, mut sent) = (0, 0);
    while !input.is_empty() {
        if driven.opened > connections {
            connections = driven.opened;
            driven.session.hop_connected(false);
        }
        let what = byte(&mut input);
        let length = usize::from(byte(&mut input)).min(input.len());
        let (piece, rest) = input.split_at(length);
        input = rest;
        match what % 16 {
            0..=6 => driven.session.client_data(piece),
            7..=12 => driven.session.hop_data(piece),
            13 => driven.session.hop_eof(),
            14 => driven.session.hop_timeout(),
            _ if driven.session.can_rest() => driven.session.rest(),
            _ => driven.session.client_timeout(),
        }
        driven.act();
        sent += driven.session.out.to_hop.len();
        driven.session.wrote_to_hop(driven.session.out.to_hop.len());
        driven.session.out.to_hop.clear();
        if driven.session.is_closed() {
            break;
        }
    }
    // Each octet may cause a reply or a command of bounded length.
    assert!(driven.told.len() + sent <= 4096 + size * 256);
});
