//! Limits on the use of resources by clients.

use std::time::Duration;

use super::raw::RawLimits;
use super::words::Size;

/// Limits on the use of resources by clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions at a time of each listener without a number of its own.
    pub connections: usize,
    /// Sessions at a time of one client network (/24 of IPv4, /56 of IPv6); a /48 of IPv6 may have four times as many.
    /// 0: no limit.
    pub connections_per_client: usize,
    /// Commands between two accepted messages.
    pub commands: u32,
    /// Mistakes in a session.
    pub bad_commands: u32,
    /// Recipients refused with 5xx since the last accepted one; 0: no limit.
    pub refused_recipients: u32,
    /// Recipients of a message.
    pub recipients: u32,
    /// Length of a command line, in octets.
    pub line: usize,
    /// Size of a header block, in octets.
    pub header: usize,
    /// Size of a message, in octets; 0: as much as the next hop accepts.
    pub message: usize,
    /// Slowest rate of a message, in octets per second, on average over `timeouts.command`; 0: no limit.
    pub octets_per_second: u32,
    /// Unknown recipients in an hour about which the clients of a network may find out; 0: no limit.
    pub unknown_recipients_per_hour: u32,
    /// Delay of the reply to a client whose network has reached that limit.
    pub tarpit: Duration,
    /// Octets of messages that may be buffered at a time, for all sessions together.
    pub held: usize,
}

impl Limits {
    /// The limits as typed, with their defaults.
    pub(super) fn of(raw: RawLimits) -> Self {
        fn or<T>(value: Option<toml::Spanned<T>>, default: T) -> T {
            value.map_or(default, toml::Spanned::into_inner)
        }
        let size = |value: Option<Size>, default: usize| value.map_or(default, |size| size.0);
        Self {
            connections: or(raw.connections, 1000),
            connections_per_client: raw.connections_per_client.unwrap_or(20),
            commands: or(raw.commands, 5000),
            bad_commands: raw.bad_commands.unwrap_or(20),
            refused_recipients: raw.refused_recipients.unwrap_or(50),
            recipients: or(raw.recipients, 1000),
            line: or(raw.line, 2048),
            header: size(raw.header, 256 << 10),
            message: size(raw.message, 256 << 20),
            octets_per_second: raw.octets_per_second.unwrap_or(100),
            unknown_recipients_per_hour: raw.unknown_recipients_per_hour.unwrap_or(25),
            tarpit: raw.tarpit.map_or(Duration::from_secs(5), |tarpit| tarpit.0),
            held: size(raw.held, 64 << 20),
        }
    }
}
