//! Signed return addresses for the tests of tags: a valid one, and what a forger makes of it.

use crate::envelope::address::Address;
use crate::envelope::keyring::Key;
use crate::envelope::tag::SignError;
use crate::envelope::tag::batv::{self, BatvParams, Prvs};
use crate::envelope::time::{BatvDay, Day};

/// Days that no tolerance for clocks covers.
const FAR: i64 = 30;
/// Half of the thousand days that a tag can tell apart.
const HALF_A_CYCLE: i64 = 500;

/// Return addresses of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    /// Signed today.
    pub valid: String,
    /// Signed so long ago that it has expired.
    pub expired: String,
    /// Signed for a day that is to come.
    pub future: String,
    /// Half a cycle of days away. Servers that compare day numbers without their cycle accept it.
    pub wrapped: String,
    /// The tag of the user, before another user's name.
    pub spliced: String,
    /// The local part of the valid address, for use with another domain.
    pub local: String,
    /// The day on which they were made.
    pub today: Day,
}

impl Tags {
    /// Signs with a key of the ring. `other`: another user of the same domain.
    ///
    /// # Errors
    /// The key or the address cannot be used for tags.
    pub(crate) fn signed(
        key: &Key,
        params: &BatvParams,
        today: Day,
        user: &Address,
        other: &str,
    ) -> Result<Self, SignError> {
        let at = |days: i64| batv::sign(key, params, today.plus(days), user).map(|it| it.address().as_str().to_owned());
        let lifetime = i64::from(params.lifetime);
        let (expired, future, wrapped) = (at(-lifetime - FAR)?, at(FAR)?, at(HALF_A_CYCLE)?);
        Ok(Self { expired, future, wrapped, ..Self::altered(&at(0)?, today, other) })
    }

    /// Alters a signed return address that was captured: the date, the user. `None`: it has no tag of the form `prvs=`.
    pub(crate) fn captured(address: &str, today: Day, other: &str) -> Option<Self> {
        let (local, _) = address.rsplit_once('@')?;
        Prvs::parse(local)?;
        Some(Self::altered(address, today, other))
    }

    fn altered(valid: &str, today: Day, other: &str) -> Self {
        let (local, domain) = valid.rsplit_once('@').unwrap_or((valid, ""));
        let dated = |days: i64| {
            let changed = replace_day(local, today.plus(days).batv());
            format!("{changed}@{domain}")
        };
        let tag = Prvs::parse(local).and_then(|prvs| local.strip_suffix(prvs.core)).unwrap_or(local);
        Self {
            valid: valid.to_owned(),
            expired: dated(-FAR),
            future: dated(FAR * 3),
            wrapped: dated(HALF_A_CYCLE),
            spliced: format!("{tag}{other}@{domain}"),
            local: local.to_owned(),
            today,
        }
    }

    /// The valid address with its letter case changed: lower case, or upper case if it has no capital letter.
    pub(crate) fn other_case(&self) -> String {
        let (local, domain) = self.valid.rsplit_once('@').unwrap_or((&self.valid, ""));
        let lower = local.to_ascii_lowercase();
        let local = if lower == local { local.to_ascii_uppercase() } else { lower };
        format!("{local}@{domain}")
    }
}

/// Writes another day into a tag: the three digits after the key number.
fn replace_day(local: &str, day: BatvDay) -> String {
    let start = local.find('=').map_or(0, |at| at + 2);
    match (local.get(..start), local.get(start + 3..)) {
        (Some(before), Some(after)) => format!("{before}{day}{after}"),
        _ => local.to_owned(),
    }
}

/// A tag that nobody has signed, before a user's name. `guess`: at least six hexadecimal digits.
pub(crate) fn forged(user: &str, today: Day, guess: &str) -> String {
    let hash = guess.get(..6).unwrap_or("c0ffee");
    format!("prvs=1{}{hash}={user}", today.plus(6).batv())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::tag::Verdict;
    use crate::envelope::time::Timestamp;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn ring() -> Keyring {
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        Keyring::create(key, NOW).unwrap()
    }

    fn verdict(ring: &Keyring, address: &str) -> Verdict {
        batv::verify(ring.keys(), &BatvParams::default(), NOW.day(), &Address::parse(address).unwrap())
    }

    #[test]
    fn tags_of_a_ring_are_what_they_are_called() {
        let ring = ring();
        let ann = Address::parse("ann@our.example").unwrap();
        let tags =
            Tags::signed(ring.batv_signer().unwrap(), &BatvParams::default(), NOW.day(), &ann, "postmaster").unwrap();
        assert!(matches!(verdict(&ring, &tags.valid), Verdict::Valid(_)), "{tags:?}");
        assert!(matches!(verdict(&ring, &tags.other_case()), Verdict::Valid(_)), "{tags:?}");
        assert!(matches!(verdict(&ring, &tags.expired), Verdict::Expired(_)), "{tags:?}");
        assert!(matches!(verdict(&ring, &tags.future), Verdict::Future(_)), "{tags:?}");
        assert!(!matches!(verdict(&ring, &tags.wrapped), Verdict::Valid(_)), "{tags:?}");
        assert!(matches!(verdict(&ring, &tags.spliced), Verdict::Forged(_)), "{tags:?}");
        assert!(tags.spliced.ends_with("=postmaster@our.example"), "{tags:?}");
    }

    #[test]
    fn a_captured_address_is_altered_in_date_and_user() {
        let tags = Tags::captured("prvs=1790ABCDEF=Ann@our.example", NOW.day(), "postmaster").unwrap();
        assert_eq!(tags.expired, "prvs=1749ABCDEF=Ann@our.example");
        assert_eq!(tags.future, "prvs=1869ABCDEF=Ann@our.example");
        assert_eq!(tags.wrapped, "prvs=1279ABCDEF=Ann@our.example");
        assert_eq!(tags.spliced, "prvs=1790ABCDEF=postmaster@our.example");
        assert_eq!(tags.other_case(), "prvs=1790abcdef=ann@our.example");
        assert_eq!(Tags::captured("ann@our.example", NOW.day(), "postmaster"), None);
        assert_eq!(Tags::captured("ann", NOW.day(), "postmaster"), None);
    }

    #[test]
    fn a_forged_tag_is_no_tag_of_the_ring() {
        let address = forged("ann@our.example", NOW.day(), "c0ffeec0ffee");
        let found = verdict(&ring(), &address);
        assert!(matches!(found, Verdict::Forged(_)), "{address}: {found:?}");
    }
}
