//! Protocol machines without I/O: bytes in, bytes and events out. No clock, no sockets, no runtime.

pub mod smtp;
