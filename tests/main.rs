//! All tests that run the program, or use the library from outside, in one binary, so that `tests/common` is compiled
//! once.
//!
//! `cargo test --test all socketmap::` runs the tests of one file.

mod common;

mod abuse_counters;
mod access;
mod addresses;
mod attacks;
mod book;
mod classifier;
mod cli;
mod compatibility;
mod content_filters;
mod control;
mod crash_safety;
mod daemon;
mod fairness;
mod faults;
mod fortnight;
mod front_ends;
mod init;
mod interop;
mod lifecycle;
mod log_lines;
mod long_srs;
mod matrix;
mod milter;
mod milter_dialogue;
mod mistakes;
mod monitoring;
mod mta_config;
mod notices;
mod own_bounces;
mod packages;
mod postfix;
mod probe;
mod ramp;
mod recipes;
mod recipients;
mod report;
mod reverse_ndr;
mod settings;
mod side_by_side;
mod smtp_features;
mod snapshots;
mod socketmap;
mod status_page;
mod unit;
mod vectors;
mod verdict_table;
