//! SMTP in the middle: what a client says, what the next hop answers, and the machine between them.
//!
//! A byte's way: [`session`] takes bytes of both sides; [`command`] and [`reply`] read lines; [`data`] watches a message
//! body go by; [`incoming_header`] edits its head; [`identity`] says who the client is. Decisions come from `envelope::rules`, asked for by events.

pub mod command;
pub mod data;
pub mod extensions;
pub mod identity;
pub mod incoming_header;
pub mod outgoing_header;
pub mod replies;
pub mod reply;
pub mod session;
pub mod size_limits;
