//! What an address with a tag is, and what it proves.

use crate::envelope::address::{Address, AddressError};
use crate::envelope::keyring::KeyId;
use crate::envelope::time::Day;

/// An address that a key has signed; it goes out as MAIL FROM.
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

    /// The key that signed it.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        &self.key
    }
}

/// The shape of a tag.
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

/// What can be read in a tagged address, proven or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The scheme that the tag has the form of.
    pub scheme: Scheme,
    /// What stands behind the tag, where that is an address. Unproven: only for showing, and for the cases in which the
    /// rules deliver to it whatever the MAC says.
    pub bare: Option<Address>,
    /// The key named in the tag, or the one whose MAC holds.
    pub key: Option<KeyId>,
    /// The day on which it was made. SRS0 says so; for a prvs tag it is worked out from the lifetime in force now.
    pub signed_on: Option<Day>,
    /// The last day on which it is good; an SRS1 address has none.
    pub expires: Option<Day>,
}

/// A tagged address whose MAC and date hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    address: Address,
    tagged: Tagged,
}

impl Verified {
    /// The address behind the tag: deliver to this.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What was read.
    #[must_use]
    pub fn tagged(&self) -> &Tagged {
        &self.tagged
    }
}

/// What is wrong with an address that starts like a tag and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Fields are missing or empty.
    #[error("it starts like a tag, but fields are missing or have the wrong form")]
    Syntax,
    /// `SRS0@…`: the four letters and nothing else.
    #[error("it is only the name of a tag, with nothing behind it")]
    BareTag,
    /// The MAC holds and the stamp is no day.
    #[error("its hash holds, but its day stamp has the wrong form")]
    BadStamp,
    /// What stands behind the tag is no address.
    #[error("its hash holds, but what stands behind the tag is no address")]
    BadAddress,
    /// PostSRSd 2 in its database mode writes the number of an entry in the place of the address.
    #[error("it is an alias of PostSRSd's database, and only that database can say whose")]
    DatabaseAlias,
}

/// What a tagged address proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The MAC is of a key of ours, and the date is good.
    Valid(Verified),
    /// The MAC holds, the date is over, or the key is retired.
    Expired(Tagged),
    /// The MAC holds, and the date is further ahead than this site ever signs.
    Future(Tagged),
    /// The key is known and the MAC is not its MAC.
    Forged(Tagged),
    /// The tag names a key that is not in the ring, and a date that could be good.
    UnknownKey(Tagged),
    /// It starts like a tag and is none.
    Malformed(Defect),
    /// An ordinary address.
    Untagged,
}

impl Verdict {
    /// The MAC and the date hold: valid, if what stands behind the tag is an address.
    pub(super) fn valid(tagged: Tagged) -> Self {
        match tagged.bare.clone() {
            Some(address) => Self::Valid(Verified { address, tagged }),
            None => Self::Malformed(Defect::BadAddress),
        }
    }

    /// The word for it in logs and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Valid(_) => "valid",
            Self::Expired(_) => "expired",
            Self::Future(_) => "future",
            Self::Forged(_) => "forged",
            Self::UnknownKey(_) => "unknown-key",
            Self::Malformed(_) => "malformed",
            Self::Untagged => "untagged",
        }
    }

    /// What could be read, where the address parsed as a tag.
    #[must_use]
    pub fn tagged(&self) -> Option<&Tagged> {
        match self {
            Self::Valid(Verified { tagged, .. })
            | Self::Expired(tagged)
            | Self::Future(tagged)
            | Self::Forged(tagged)
            | Self::UnknownKey(tagged) => Some(tagged),
            Self::Malformed(_) | Self::Untagged => None,
        }
    }
}

/// Whether a MAC over the lower-cased address counts too, for tags of imported prvs keys.
///
/// Own keys fold always; SRS folds always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaseFolding {
    /// As received only: exactly what the peer itself does.
    Strict,
    /// As received first, then lower-cased: survives a relay that lower-cases the local part.
    #[default]
    Fold,
}

/// Why an address could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The result would be no address.
    #[error("the signed address would be none: {0}")]
    Address(#[from] AddressError),
    /// The wrong kind of key.
    #[error("key {0} does not make tags of this kind")]
    WrongKey(KeyId),
}

/// Strips a prefix without regard to ASCII case.
pub(super) fn strip_prefix_ci<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    match text.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => text.get(prefix.len()..),
        _ => None,
    }
}
