//! Refused BDAT chunks, whose octets are sent by the client all the same (RFC 3030 section 2).

use super::step::BodyStep;
use crate::wire::smtp::reply::Reply;

/// A chunk that is discarded.
#[derive(Debug)]
pub(crate) struct Swallow {
    left: u64,
    reply: Reply,
    times: u32,
}

impl Swallow {
    /// A chunk of `size` octets. After it, the reply is sent `times` times.
    pub(crate) fn new(size: u64, reply: Reply, times: u32) -> Self {
        Self { left: size, reply, times }
    }

    /// Discards octets of the chunk, and returns how many were used.
    pub(crate) fn push(&mut self, input: &[u8]) -> (usize, BodyStep) {
        let used = input.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= used as u64;
        let step = match self.left {
            0 => BodyStep::Swallowed(self.reply.clone(), self.times),
            _ => BodyStep::More,
        };
        (used, step)
    }
}
