//! The protocol machines, for programs that have sockets of their own: octets in, octets and events out. They read no
//! clock, and none of them waits.
//!
//! [`Session`] is an SMTP session between a client and a next hop; its page says what a driver has to do. The others
//! read what a mail server asks or says before a session.

pub use crate::wire::message::{Direction, Finished, NextHopChoice};
pub use crate::wire::smtp::data::{DataScanner, Progress};
pub use crate::wire::smtp::identity::Identity;
pub use crate::wire::smtp::replies::OwnReply;
pub use crate::wire::smtp::reply::Reply;
pub use crate::wire::smtp::session::{Answer, Event, Output, Question, Session, SessionLimits, Settings, Tls};
pub use crate::wire::{policy_service, proxy_header, socketmap};
