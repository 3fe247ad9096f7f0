//! The configurations of mail servers, read with the mail servers' own tools, so that defaults and includes count as they
//! do for the mail server.

pub(super) mod exim;
pub(super) mod postfix;
pub(super) mod tools;
