//! placeholder
#![forbid(unsafe_code)]
pub mod cli;
pub mod config;
pub mod envelope;
pub mod state;
pub mod wire;
