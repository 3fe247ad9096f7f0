//! A chunk of BDAT that was refused. Its octets come all the same (RFC 3030 section 2).

use super::step::BodyStep;
use crate::wire::smtp::reply::Reply;

/// A chunk that goes nowhere.
#[derive(Debug)]
pub(crate) struct Swallow {
    left: u64,
    reply: Reply,
    times: u32,
}

impl Swallow {
    /// So many octets are to come; behind them this reply is due, so many times.
    pub(crate) fn new(size: u64, reply: Reply, times: u32) -> Self {
        Self { left: size, reply, times }
    }

    /// Takes octets of it, and says how many.
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
