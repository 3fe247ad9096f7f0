//! Sockets on one side, `wire` on the other: carries bytes, asks `envelope::rules`, decides nothing.

pub mod clients;
pub mod hops;
pub mod listener;
mod pool;
pub mod shared;
pub mod smtp;
pub mod stream;
pub mod tls;
