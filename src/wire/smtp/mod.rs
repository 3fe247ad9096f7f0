//! SMTP in the middle.
pub mod data;
pub mod header;
