//! Types for tagged addresses and the results of verifying them.

use super::alias::Alias;
use crate::envelope::address::{Address, AddressError};
use crate::envelope::keyring::KeyId;
use crate::envelope::time::Day;

/// An address that a key has signed, for use in MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    address: Address,
    key: KeyId,
}

impl Signed {
    pub(super) fn new(address: Address, key: KeyId) -> Self {
        Self { address, key }
    }

    /// The signed address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The id of the key that signed it.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        &self.key
    }
}

/// The form of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `prvs=KDDDSSSSSS=…`
    Batv,
    /// `SRS0=HHHH=TT=host=user`
    Srs0,
    /// `SRS1=HHHH=host=rest`
    Srs1,
}

impl Scheme {
    /// `batv`, `srs0` or `srs1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Batv => "batv",
            Self::Srs0 => "srs0",
            Self::Srs1 => "srs1",
        }
    }
}

/// The fields of a tagged address, proven or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The form of the tag.
    pub scheme: Scheme,
    /// The address behind the tag, if there is one. It is not proven: it may only be shown, or used where the rules
    /// deliver to it whatever the verdict.
    pub bare: Option<Address>,
    /// The key that the tag names, or whose MAC is valid.
    pub key: Option<KeyId>,
    /// The day of signing: stated in SRS0, and derived from the current lifetime for a prvs tag.
    pub signed_on: Option<Day>,
    /// The last day on which the tag is valid; `None` for SRS1.
    pub expires: Option<Day>,
}

/// A tagged address with a valid MAC and date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    address: Address,
    tagged: Tagged,
}

impl Verified {
    /// The address behind the tag, for delivery.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The fields of the tagged address.
    #[must_use]
    pub fn tagged(&self) -> &Tagged {
        &self.tagged
    }
}

/// An SRS address with a valid MAC and date that has an alias instead of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasTag {
    alias: Alias,
    tagged: Tagged,
}

impl AliasTag {
    pub(super) fn new(alias: Alias, tagged: Tagged) -> Self {
        Self { alias, tagged }
    }

    /// The alias.
    #[must_use]
    pub fn alias(&self) -> &Alias {
        &self.alias
    }

    /// The verdict once it is known which address the alias stands for.
    #[must_use]
    pub fn stands_for(self, address: Address) -> Verdict {
        let tagged = Tagged { bare: Some(address.clone()), ..self.tagged };
        Verdict::Valid(Verified { address, tagged })
    }
}

/// Why an address that begins like a tag is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Fields are missing, empty or of the wrong form.
    #[error("it starts like a tag, but fields are missing or have the wrong form")]
    Syntax,
    /// `SRS0@…`: there is nothing after the name of the tag.
    #[error("it is only the name of a tag, with nothing behind it")]
    BareTag,
    /// The MAC is valid, but the day stamp is malformed.
    #[error("its hash holds, but its day stamp has the wrong form")]
    BadStamp,
    /// The MAC is valid, but the text behind the tag is not an address.
    #[error("its hash holds, but what stands behind the tag is no address")]
    BadAddress,
    /// An address of PostSRSd 2 in database mode, which has the number of an entry instead of an address.
    #[error("it is an alias of PostSRSd's database, and only that database can say whose")]
    DatabaseAlias,
}

/// The result of verifying an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// MAC and date are valid.
    Valid(Verified),
    /// MAC and date are valid, and the address behind the tag is in a store, under this alias.
    Alias(AliasTag),
    /// The MAC is valid, but the date is past or the key is retired; or the key is not in the ring and the date cannot
    /// be valid.
    Expired(Tagged),
    /// The MAC is valid, but the date is too far in the future.
    Future(Tagged),
    /// The key is in the ring, but the MAC is wrong.
    Forged(Tagged),
    /// The tag names a key that is not in the ring, and a date that could be valid.
    UnknownKey(Tagged),
    /// The address begins like a tag, but is malformed.
    Malformed(Defect),
    /// The address has no tag.
    Untagged,
}

impl Verdict {
    /// The verdict for a valid MAC and date: `Valid`, if the text behind the tag is an address.
    pub(super) fn valid(tagged: Tagged) -> Self {
        match tagged.bare.clone() {
            Some(address) => Self::Valid(Verified { address, tagged }),
            None => Self::Malformed(Defect::BadAddress),
        }
    }

    /// The word in logs and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Valid(_) => "valid",
            Self::Alias(_) => "unknown-alias",
            Self::Expired(_) => "expired",
            Self::Future(_) => "future",
            Self::Forged(_) => "forged",
            Self::UnknownKey(_) => "unknown-key",
            Self::Malformed(_) => "malformed",
            Self::Untagged => "untagged",
        }
    }

    /// The fields of the tagged address; `None` if it is malformed or has no tag.
    #[must_use]
    pub fn tagged(&self) -> Option<&Tagged> {
        match self {
            Self::Valid(Verified { tagged, .. })
            | Self::Alias(AliasTag { tagged, .. })
            | Self::Expired(tagged)
            | Self::Future(tagged)
            | Self::Forged(tagged)
            | Self::UnknownKey(tagged) => Some(tagged),
            Self::Malformed(_) | Self::Untagged => None,
        }
    }
}

/// Whether tags of imported prvs keys may also have a MAC over the lower-cased address.
///
/// Tags of own keys and SRS addresses always ignore ASCII case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaseFolding {
    /// Only the address as received, as the program of the key does.
    Strict,
    /// The address as received or lower-cased, so that a relay may lower-case the local part.
    #[default]
    Fold,
}

/// Why an address could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The result is not an address.
    #[error("the signed address would be none: {0}")]
    Address(#[from] AddressError),
    /// The key does not serve this scheme.
    #[error("key {0} does not make tags of this kind")]
    WrongKey(KeyId),
}

/// Removes a prefix, ASCII case ignored.
pub(super) fn strip_prefix_ci<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    match text.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => text.get(prefix.len()..),
        _ => None,
    }
}
