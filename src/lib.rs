//! placeholder
#![forbid(unsafe_code)]
pub mod cli;
pub mod config;
pub mod drive;
pub mod envelope;
pub mod service;
pub mod state;
pub mod wire;
