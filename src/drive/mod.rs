//! Sockets on one side, `wire` on the other: carries bytes, asks `envelope::rules`, decides nothing.

pub mod advise;
pub mod clients;
mod desk;
mod drain;
pub mod hops;
pub mod listener;
mod pool;
mod random;
pub mod room;
pub mod seats;
pub mod shared;
pub mod smtp;
pub mod stats;
pub mod stream;
pub mod throttle;
pub mod tls;
mod turn;

pub(crate) use self::throttle::{limited, limited_by, limited_warn};

/// How many connections over its limit a listener answers at a time. Others it closes without a word.
pub const REFUSED: usize = 50;

/// For the log: a surge of untagged null-sender mail has begun, or is over.
pub(crate) fn log_flip(flip: &crate::envelope::abuse::Flip) {
    if flip.at_rcpt {
        tracing::warn!(
            domain = flip.domain,
            "a surge of null-sender mail without tags: all but one a minute of each client network is deferred (reject_at = \"auto\")"
        );
    } else {
        tracing::info!(
            domain = flip.domain,
            "the surge is over: null-sender mail without tags is judged by its content"
        );
    }
}
