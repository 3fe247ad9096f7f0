//! The protocol machines, for programs with sockets of their own: octets in, octets and events out. None of them reads
//! a clock or blocks.
//!
//! [`Session`] is an SMTP session between a client and a next hop; its documentation describes what a driver has to do.
//! The others parse PROXY headers, bodies and queries of mail servers.

pub use crate::wire::message::{Direction, Finished, NextHopChoice};
pub use crate::wire::smtp::data::{DataScanner, Progress};
pub use crate::wire::smtp::identity::Identity;
pub use crate::wire::smtp::replies::OwnReply;
pub use crate::wire::smtp::reply::Reply;
pub use crate::wire::smtp::session::{Answer, Event, Output, Question, Session, SessionLimits, Settings, Tls};
pub use crate::wire::{policy_service, proxy_header, socketmap};
