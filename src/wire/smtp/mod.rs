//! SMTP between a client and a next hop: commands, replies, and the machine that connects them.
//!
//! [`session`] gets the bytes of both sides. [`command`] and [`reply`] parse lines, [`data`] scans message bodies,
//! [`incoming_header`] edits their header blocks, and [`identity`] names the client. The rules in `envelope::rules` are
//! queried by events.

pub(crate) mod command;
pub(crate) mod data;
pub(crate) mod extensions;
pub(crate) mod identity;
pub(crate) mod incoming_header;
mod message_id;
pub(crate) mod outgoing_header;
pub(crate) mod replies;
pub(crate) mod reply;
mod returned_content;
pub(crate) mod session;
pub(crate) mod size_limits;
