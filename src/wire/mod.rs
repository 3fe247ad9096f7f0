//! Protocols as pure machines: bytes in, bytes and events out. No sockets, no clock.

pub mod milter;
pub mod policy;
pub mod proxy;
pub mod smtp;
pub mod socketmap;
