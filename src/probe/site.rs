//! What a probe is told about the site whose server it tests.

use core::net::IpAddr;

use super::finding::Test;
use super::tags::Tags;

/// The site, and what the person who runs the probe has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Domains of the site whose mail the server accepts, the user's first.
    pub domains: Vec<String>,
    /// A mailbox of the site.
    pub user: String,
    /// An address of the same person elsewhere: the sender of mail from outside.
    pub sender: String,
    /// The address of the server, as in an address literal: `192.0.2.25` or `IPv6:2001:db8::25`.
    pub literal: String,
    /// Signed return addresses of the user; or why there are none.
    pub tags: Result<Tags, String>,
    /// The return address of a message that the user has sent, if it was not signed.
    pub unsigned: Option<String>,
    /// Identifies this run: letters and digits that nobody can guess.
    pub run: String,
    /// Who runs the probe, for the header of each message.
    pub by: String,
    /// The date of messages (RFC 5322 section 3.3).
    pub date: String,
    /// Whether the server may trust the client, because it is the same machine.
    pub is_inside: bool,
    /// Whether the server greets nobody without a PROXY header.
    pub needs_header: bool,
    /// Whether bounces to `sender` can be seen.
    pub sees_bounces: bool,
    /// The domain of the site's SRS addresses; `None`: the user's domain.
    pub srs_domain: Option<String>,
    /// The other MX hosts of the domain; or why they are not known.
    pub other_hosts: Result<Vec<OtherHost>, String>,
    /// The tests to make.
    pub wanted: Vec<Test>,
}

/// Another MX host of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherHost {
    pub name: String,
    /// The first of its addresses.
    pub address: IpAddr,
}

impl Site {
    /// The domain of the user.
    pub(crate) fn domain(&self) -> &str {
        self.domains.first().map_or("", String::as_str)
    }

    /// The domain in which forged SRS addresses are tried.
    pub(crate) fn srs_domain(&self) -> &str {
        self.srs_domain.as_deref().unwrap_or_else(|| self.domain())
    }

    /// A name that nobody has. `n` tells the names of a run apart.
    pub(crate) fn nobody(&self, n: usize) -> String {
        // Letters and digits as in names of people and machines, and not a word that a filter knows.
        let tail = self.run.get(..6).unwrap_or(&self.run);
        format!("x{tail}{n}")
    }

    /// Local part and domain of the sender.
    pub(crate) fn sender_parts(&self) -> (&str, &str) {
        self.sender.rsplit_once('@').unwrap_or((&self.sender, ""))
    }
}
