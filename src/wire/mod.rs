//! Protocols as pure machines: bytes in, bytes and events out. No sockets, no clock.

pub mod proxy;
pub mod smtp;
