//! Protocols as pure machines: bytes in, bytes and events out. No sockets, no clock.

pub(crate) mod message;
#[cfg(feature = "milter")]
pub(crate) mod milter;
pub mod policy_service;
pub mod proxy_header;
pub(crate) mod smtp;
pub mod socketmap;
