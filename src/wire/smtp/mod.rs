//! SMTP in the middle: what a client says, what the next hop answers, and the machine between them.
//!
//! A byte's way: [`session`] takes bytes of both sides; [`command`] and [`reply`] read lines; [`data`] watches a
//! message body go by; [`incoming_header`] edits its head; [`identity`] says who the client is. Decisions come from
//! `envelope::rules`, asked for by events.

pub(crate) mod command;
pub(crate) mod data;
pub(crate) mod extensions;
pub(crate) mod identity;
pub(crate) mod incoming_header;
pub(crate) mod outgoing_header;
pub(crate) mod replies;
pub(crate) mod reply;
pub(crate) mod session;
pub(crate) mod size_limits;
