//! What outlives the process: the key ring file.

pub mod ring;
