//! Countersign signs the envelope sender of every message that leaves, and answers for every bounce that comes back.
//!
//! It runs beside a mail server (MTA): outbound it stands after routing and puts a tag on MAIL FROM (BATV for our own
//! senders, SRS for forwarded foreign ones); inbound it takes bounces only when they are addressed to such a tag.
//!
//! # The way of a message
//!
//! A client connects to a [`drive::listener`], which gives the socket to one of the threads of [`service`]. There
//! [`drive::smtp`] carries bytes between client and next hop, through the machine of [`wire::smtp::session`], in one task.
//! The machine reads commands ([`wire::smtp::command`]) and replies ([`wire::smtp::reply`]), watches bodies go by
//! ([`wire::smtp::data`]) and edits their heads ([`wire::smtp::header`]). What it cannot know it asks:
//!
//! - outbound, at MAIL and RCPT: what becomes of this sender? [`envelope::rules::Rules::outbound`] answers with an address
//!   that [`envelope::tag::batv`] or [`envelope::tag::srs`] has signed, or lets it pass;
//! - inbound, at RCPT: what becomes of this recipient? [`envelope::rules::Rules::inbound`] answers with the address behind
//!   a tag that holds, with a refusal, or with "the content decides";
//! - inbound, for those: the machine holds the head of the message, [`envelope::bounce`] says what it is, and
//!   [`envelope::rules::Rules::content`] what becomes of it.
//!
//! Keys come from [`envelope::keyring`], as [`state::ring`] reads them from a file; what the site has decided from
//! [`envelope::policy`], as [`config`] builds it. 250 after a message means that the next hop has said 250.
//!
//! # The layers
//!
//! Arrows point one way, and a test guards them: `cli → service → drive → wire → envelope`. [`envelope`] and [`wire`] are
//! pure: no I/O, no clock, no globals.
#![forbid(unsafe_code)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::dbg_macro,
    clippy::todo
)]

pub mod envelope;

pub mod wire;

pub mod drive;

pub mod config;
pub mod state;

pub mod service;

pub mod cli;
