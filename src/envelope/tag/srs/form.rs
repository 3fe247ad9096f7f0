//! The form of SRS addresses, and code common to all kinds of keys.

use crate::envelope::address::Address;
use crate::envelope::keyring::{Key, KeyState, SrsLimits};
use crate::envelope::tag::alias::is_alias_host;
use crate::envelope::tag::verdict::{Defect, Scheme, SignError, Tagged, Verdict, strip_prefix_ci};
use crate::envelope::time::Day;

/// Parameters of a site's SRS addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrsParams {
    /// Validity of an address of an own key, in days.
    pub lifetime: u16,
    /// The separator after `SRS0` and `SRS1`: `=`, `+` or `-`. All three are accepted.
    pub separator: char,
    /// Length of the hashes that own keys write, in base32 characters.
    pub hash_length: u8,
    /// Minimum length that own keys accept; less than `hash_length` only while a site changes to longer hashes.
    pub hash_min: u8,
    /// Days that the clock of another host may be ahead; own keys only.
    pub clock_tolerance: u16,
    /// Whether to rewrite senders that are in the SRS domain already.
    pub always_rewrite: bool,
    /// Replaces `hash_length` of imported keys for one call.
    pub peer_hash_length: Option<u8>,
    /// Replaces `hash_min` of imported keys for one call.
    pub peer_hash_min: Option<u8>,
    /// Replaces `max_age` of imported keys for one call.
    pub peer_max_age: Option<u16>,
}

impl Default for SrsParams {
    fn default() -> Self {
        Self {
            lifetime: 21,
            separator: '=',
            hash_length: 6,
            hash_min: 6,
            clock_tolerance: 1,
            always_rewrite: false,
            peer_hash_length: None,
            peer_hash_min: None,
            peer_max_age: None,
        }
    }
}

impl SrsParams {
    /// The limits of an imported key, with the overrides of this call.
    pub(super) fn peer(&self, key: &Key) -> SrsLimits {
        let length = self.peer_hash_length.unwrap_or(key.srs.hash_length);
        // An overridden length is the minimum, too, as in the other programs (hashmin defaults to hashlength).
        let min = self.peer_hash_min.unwrap_or(if self.peer_hash_length.is_some() { length } else { key.srs.hash_min });
        SrsLimits { hash_length: length, hash_min: min, max_age: self.peer_max_age.unwrap_or(key.srs.max_age) }
    }
}

/// The fields of an SRS local part. They are not proven.
///
/// ```
/// use countersign::envelope::tag::srs::Srs;
///
/// let form = Srs::parse("SRS0=ABCDEF=XY=third.example=bob");
/// assert!(matches!(form, Ok(Some(Srs::Zero { host: "third.example", user: "bob", .. }))));
/// assert_eq!(Srs::parse("bob"), Ok(None));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Srs<'a> {
    /// `SRS0<sep>hash=stamp=host=user`. Fields may be empty.
    Zero {
        /// The hash as received.
        hash: &'a str,
        /// The day stamp as received.
        stamp: &'a str,
        /// The domain of the original sender.
        host: &'a str,
        /// The local part of the original sender, which may contain `=`.
        user: &'a str,
    },
    /// `SRS1<sep>hash=host=rest`.
    One {
        /// The hash as received.
        hash: &'a str,
        /// The first forwarder, whose SRS0 address this is.
        host: &'a str,
        /// The rest of that SRS0 address, from its first separator on.
        rest: &'a str,
    },
}

impl<'a> Srs<'a> {
    /// Parses a local part. `Ok(None)` if it does not have the form of an SRS address.
    ///
    /// # Errors
    /// The local part begins like an SRS address, but fields are missing.
    pub fn parse(local: &'a str) -> Result<Option<Self>, Defect> {
        let (one, after) = match (strip_prefix_ci(local, "SRS0"), strip_prefix_ci(local, "SRS1")) {
            (Some(after), _) => (false, after),
            (None, Some(after)) => (true, after),
            (None, None) => return Ok(None),
        };
        if after.is_empty() {
            return Err(Defect::BareTag);
        }
        let Some(fields) = after.strip_prefix(['=', '+', '-']) else { return Ok(None) };
        let (hash, fields) = fields.split_once('=').ok_or(Defect::Syntax)?;
        let (second, fields) = fields.split_once('=').ok_or(Defect::Syntax)?;
        if one {
            return Ok(Some(Self::One { hash, host: second, rest: fields }));
        }
        let (host, user) = fields.split_once('=').ok_or(Defect::Syntax)?;
        Ok(Some(Self::Zero { hash, stamp: second, host, user }))
    }

    /// Whether all fields that name an address or host are present. Checked before any hash.
    pub(super) fn complete(&self) -> bool {
        match self {
            Self::Zero { host, user, .. } => !host.is_empty() && !user.is_empty(),
            Self::One { host, rest, .. } => !host.is_empty() && !rest.is_empty(),
        }
    }

    fn scheme(&self) -> Scheme {
        match self {
            Self::Zero { .. } => Scheme::Srs0,
            Self::One { .. } => Scheme::Srs1,
        }
    }
}

/// Whether a local part begins like an SRS address, well-formed or not.
#[must_use]
pub fn looks_tagged(local: &str) -> bool {
    !matches!(Srs::parse(local), Ok(None))
}

/// Why a sender could not be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SrsError {
    /// The result is not an address, or the key is of another kind.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The sender's domain contains an equals sign, which ends a field of an SRS address. Only an address literal can
    /// contain one.
    #[error("the sender's domain has an equals sign in it, which ends a field of an SRS address")]
    EqualsInDomain,
    /// The sender's domain is `alias`, which an SRS0 address of an own key has for senders that are kept in a store.
    #[error("the sender's domain is `alias`, which is reserved for stored senders")]
    AliasHost,
    /// An SRS1 sender without host or rest cannot be forwarded.
    #[error("the sender starts like SRS1 and has no host or nothing behind it")]
    BrokenSrs1,
}

/// Host and rest of the SRS1 address for a sender that is an SRS address already; `None` if it is to be wrapped as
/// SRS0.
pub(super) fn onward<'a>(local: &'a str, domain: &'a str) -> Result<Option<(&'a str, &'a str)>, SrsError> {
    if let Some(rest) = strip_prefix_ci(local, "SRS0").filter(|rest| rest.starts_with(['=', '+', '-'])) {
        return Ok(Some((domain, rest)));
    }
    if strip_prefix_ci(local, "SRS1").is_none_or(|rest| !rest.starts_with(['=', '+', '-'])) {
        return Ok(None);
    }
    match Srs::parse(local) {
        Ok(Some(Srs::One { host, rest, .. })) if !host.is_empty() && !rest.is_empty() => Ok(Some((host, rest))),
        _ => Err(SrsError::BrokenSrs1),
    }
}

/// The result of verifying an address with one key.
pub(super) enum KeyAnswer {
    /// The hash is valid.
    Decided(Verdict),
    /// The address can be parsed, but the hash is wrong.
    OtherHash,
    /// The program of this key would not accept the fields.
    NotOfThisKind,
}

pub(super) fn dated(key: &Key, read: Tagged, signed_on: Day, lifetime: i64) -> Tagged {
    let (key, expires) = (Some(key.id.clone()), Some(signed_on.plus(lifetime)));
    Tagged { key, signed_on: Some(signed_on), expires, ..read }
}

pub(super) fn undated(key: &Key, read: Tagged) -> Verdict {
    let tagged = Tagged { key: Some(key.id.clone()), ..read };
    if key.state == KeyState::Retired { Verdict::Expired(tagged) } else { Verdict::valid(tagged) }
}

/// The fields of an address, not proven.
pub(super) fn unproven(form: &Srs<'_>) -> Tagged {
    read(form, |local, domain| Address::from_content(local, domain).ok())
}

pub(super) fn read(form: &Srs<'_>, join: impl Fn(&str, &str) -> Option<Address>) -> Tagged {
    let bare = match *form {
        Srs::Zero { host, .. } if is_alias_host(host) => None,
        Srs::Zero { host, user, .. } => join(user, host),
        Srs::One { host, rest, .. } => join(&format!("SRS0{rest}"), host),
    };
    Tagged { scheme: form.scheme(), bare, key: None, signed_on: None, expires: None }
}
