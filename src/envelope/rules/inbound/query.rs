//! What is known of a query about a recipient, beside the recipient.

use core::net::IpAddr;

use crate::envelope::abuse::Memory;
use crate::envelope::address::Address;
use crate::envelope::rules::Caller;

/// A query about one recipient, without the recipient itself.
pub(super) struct RcptQuery<'m> {
    pub memory: &'m mut Memory,
    pub client: Option<IpAddr>,
    /// Whether verdicts are observed only: mail is marked instead of refused.
    pub lenient: bool,
    pub caller: Caller,
}

/// Whether a local part asks for further relaying (`user%host@ours`, `host!user@ours`, `"user@host"@ours`). An MTA that
/// trusts this proxy would do that for anyone.
pub(super) fn routes_onward(recipient: &Address) -> bool {
    recipient.content().contains(['%', '!', '@'])
}
