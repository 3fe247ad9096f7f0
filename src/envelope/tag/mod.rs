//! Tags: signing an address, and verifying the tag of an address.
//!
//! Three types are kept apart: [`Address`] is any address, [`Signed`] an address that a key has just signed,
//! [`Verified`] the address behind a tag with a valid MAC and date. Only the two schemes in this module can make the
//! last two.

mod alias;
pub mod batv;
pub mod guess_odds;
pub(in crate::envelope) mod mac;
pub mod srs;
mod verdict;

pub use self::alias::Alias;
use self::verdict::strip_prefix_ci;
pub use self::verdict::{AliasTag, CaseFolding, Defect, Scheme, SignError, Signed, Tagged, Verdict, Verified};
use super::address::Address;

/// An address for logs: a tag is shown without its hash, so that a valid tag cannot be taken from a log.
///
/// ```
/// use countersign::envelope::address::Address;
/// use countersign::envelope::tag::masked;
///
/// let tagged = Address::parse("prvs=1786a1b2c3=ann@our.example")?;
/// assert_eq!(masked(&tagged), "prvs=1786~=ann@our.example");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn masked(address: &Address) -> String {
    let content = address.content();
    let shown = match (batv::Prvs::parse(&content), srs::Srs::parse(&content)) {
        (Some(tag), _) => format!("prvs={}{}~={}", tag.key, tag.day, tag.core),
        (None, Ok(Some(srs::Srs::Zero { stamp, host, user, .. }))) => format!("SRS0=~={stamp}={host}={user}"),
        // The rest is the tag of another forwarder, hash included.
        (None, Ok(Some(srs::Srs::One { host, .. }))) => format!("SRS1=~={host}=~"),
        (None, _) => return address.to_string(),
    };
    format!("{shown}@{}", address.domain())
}

/// Masks all tagged addresses in a text, such as another server's reply, like [`masked`].
///
/// ```
/// use countersign::envelope::tag::masked_text;
///
/// let reply = "550 5.1.1 <prvs=1786a1b2c3=ann@our.example>: unknown";
/// assert_eq!(masked_text(reply), "550 5.1.1 <prvs=1786~=ann@our.example>: unknown");
/// ```
#[must_use]
pub fn masked_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match hidden(rest) {
            Some((shown, after)) => {
                out.push_str(rest.get(..shown).unwrap_or_default());
                out.push('~');
                rest = after;
            }
            None => {
                out.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
    }
    out
}

/// If a text begins with a tag: the length of the part that may be shown, and the text after the hidden part.
fn hidden(text: &str) -> Option<(usize, &str)> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '@' | '<' | '>');
    let hash = |start: usize| {
        let rest = text.get(start..)?;
        let end = rest.find(|c| c == '=' || is_end(c))?;
        (end > 0 && rest.get(end..)?.starts_with('=')).then(|| rest.get(end..)).flatten()
    };
    if let Some(after) = strip_prefix_ci(text, "prvs=") {
        let digits = after.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        return digits.and_then(|_| Some((9, hash(9)?)));
    }
    let is_separated = |after: &&str| after.starts_with(['=', '+', '-']);
    if strip_prefix_ci(text, "SRS0").filter(is_separated).is_some() {
        return Some((5, hash(5)?));
    }
    // The rest of an SRS1 address is the tag of another forwarder, hash included.
    strip_prefix_ci(text, "SRS1").filter(is_separated)?;
    let after = hash(5)?;
    Some((5, after.get(after.find(is_end).unwrap_or(after.len())..)?))
}

#[cfg(test)]
mod tests;
