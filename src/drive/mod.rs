//! Drivers between sockets and the machines of `wire`. They carry bytes and query `envelope::rules`, but decide
//! nothing.

pub(crate) mod aliases;
pub(crate) mod app_state;
mod bounce_reservation;
mod buffers;
pub(crate) mod client_dialogue;
pub(crate) mod connection_limit;
pub(crate) mod connection_slots;
pub(crate) mod decisions;
mod drain;
mod evaluate;
pub(crate) mod gauges;
mod harvest;
pub(crate) mod harvest_gate;
pub(crate) mod history;
pub(crate) mod hold_budget;
pub(crate) mod listener;
pub(crate) mod log_throttle;
mod message_tally;
pub(crate) mod metrics;
#[cfg(feature = "milter")]
pub(crate) mod milter;
pub(crate) mod next_hops;
pub(crate) mod nonce;
mod policy_service;
mod prepared;
pub(crate) mod proxy_listener;
pub(crate) mod recipients;
pub(crate) mod request_server;
mod request_step;
pub(crate) mod session_id;
pub(crate) mod smtp;
mod socketmap;
pub(crate) mod stream;
pub(crate) mod submission;
pub(crate) mod tls;
mod work_budget;

pub(crate) use self::log_throttle::{limited, limited_by, limited_warn};

/// The number of connections over its limit that a listener answers at a time. It closes others without a reply.
pub(crate) const REFUSED: usize = 50;

/// Logs the beginning or end of a surge of untagged null-sender mail.
pub(crate) fn log_flip(flip: &crate::envelope::abuse::SurgeChange) {
    if flip.at_rcpt {
        tracing::warn!(
            domain = flip.domain,
            "surge of bounces without tags: deferring all but one a minute of each client network (reject_at = \"auto\")"
        );
    } else {
        tracing::info!(domain = flip.domain, "surge is over: bounces without tags are refused by their content again");
    }
}
