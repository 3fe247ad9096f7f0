//! The pure core: addresses, tags, keys, and every rule. No I/O, no clock, no globals; time and randomness are arguments.

pub mod address;
pub mod bounce;
pub mod evidence;
pub mod keyring;
pub mod memory;
pub mod policy;
pub mod rules;
pub mod tag;
pub mod time;
