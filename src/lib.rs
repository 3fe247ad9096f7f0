//! Countersign signs the envelope sender of every message that leaves, and answers for every bounce that comes back.
//!
//! It runs beside a mail server (MTA): outbound it stands after routing and puts a tag on MAIL FROM (BATV for our own
//! senders, SRS for forwarded foreign ones); inbound it takes bounces only when they are addressed to such a tag.
//!
//! # The way of a message
//!
//! A client connects to a `drive::listener`, which gives the socket to one of the threads of [`service`]. There
//! `drive::smtp` finds out who it is (`wire::proxy_header`, `drive::connection_limit`) and carries bytes between it and
//! the next hop that `drive::next_hops` reaches, encrypted by `drive::tls` where the config says so, through the
//! machine of `wire::smtp::session`, in one task. The machine reads commands (`wire::smtp::command`) and replies
//! (`wire::smtp::reply`), tells the next hop whose mail it is (`wire::smtp::identity`), watches bodies go by
//! (`wire::smtp::data`, `wire::smtp::size_limits`) and edits their heads (`wire::smtp::incoming_header`). What it
//! cannot know it asks:
//!
//! - outbound, at MAIL and RCPT: what becomes of this sender? [`envelope::rules::Rules::outbound`] answers with an address
//!   that [`envelope::tag::batv`] or [`envelope::tag::srs`] has signed, or lets it pass;
//! - inbound, at RCPT: what becomes of this recipient? [`envelope::rules::Rules::inbound`] answers with the address behind
//!   a tag that holds, with a refusal, or with "the content decides";
//! - inbound, for those: the machine holds the head of the message, [`envelope::bounce`] says what it is, and
//!   [`envelope::rules::Rules::content`] what becomes of it.
//!
//! A mail server may also keep its mail and ask. `drive::request_server` takes its questions: `wire::milter` is told of
//! each message and says what to change, `wire::socketmap` and `wire::policy_service` are about one address. All of
//! them, and the machine above, ask through the same `drive::evaluate`, which puts the question to the rules, counts,
//! and writes the log.
//!
//! Keys come from [`envelope::keyring`], as [`state::ring_file`] reads them from a file; what the site has decided from
//! [`envelope::site_policy`], as [`config`] builds it. 250 after a message means that the next hop has said 250.
//!
//! # As a library
//!
//! ```
//! use countersign::envelope::address::Address;
//! use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
//! use countersign::envelope::tag::{Verdict, batv};
//! use countersign::envelope::time::Timestamp;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Timestamp(1_795_382_400);
//! let secret = Secret::new(vec![7; 32].into());
//! let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
//! let ring = Keyring::create(key, now)?;
//! let params = batv::BatvParams::default();
//! let signer = ring.batv_signer().ok_or("a new ring has a key that signs")?;
//!
//! let ann = Address::parse("ann@our.example")?;
//! let signed = batv::sign(signer, &params, now.day(), &ann)?;
//! assert!(signed.address().as_str().starts_with("prvs=1786"));
//!
//! match batv::verify(ring.keys(), &params, now.day().plus(7), signed.address()) {
//!     Verdict::Valid(found) => assert_eq!(found.address(), &ann),
//!     other => panic!("{other:?}"),
//! }
//! let too_late = batv::verify(ring.keys(), &params, now.day().plus(8), signed.address());
//! assert!(matches!(too_late, Verdict::Expired(_)));
//! # Ok(())
//! # }
//! ```
//!
//! # The layers
//!
//! Arrows point one way, and a test guards them: `cli → service → drive → wire → envelope`. [`envelope`] and `wire` are
//! pure: no I/O, no clock, no globals.
#![forbid(unsafe_code)]
// What is not part of the library is not `pub`, so that the compiler finds what nothing uses.
#![warn(unreachable_pub)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::dbg_macro,
    clippy::todo
)]

pub mod config;
pub mod envelope;
pub mod machines;
pub mod mail_log;
pub mod recipes;
pub mod service;
pub mod state;

mod cli;
mod drive;
mod html;
mod probe;
mod wire;

pub use cli::run;
