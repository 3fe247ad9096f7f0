//! The configurations of mail servers, read with the mail servers' own tools, so that defaults and includes count as they
//! do for the mail server.

pub(super) mod exim;
pub(super) mod lists;
pub(super) mod postfix;
pub(super) mod tools;

/// The shortest prefixes of networks that a site can have: a /8 of IPv4, a /16 of IPv6. Wider ones hold strangers.
pub(super) const WIDEST: (u8, u8) = (8, 16);
