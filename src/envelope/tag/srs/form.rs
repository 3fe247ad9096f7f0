//! The form of SRS addresses, and what all kinds of keys have in common.

use crate::envelope::address::Address;
use crate::envelope::keyring::{Key, KeyState, SrsLimits};
use crate::envelope::tag::verdict::{Defect, Scheme, SignError, Tagged, Verdict, strip_prefix_ci};
use crate::envelope::time::Day;

/// What a site has decided about its SRS addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrsParams {
    /// Days that an address of an own key stays valid.
    pub lifetime: u16,
    /// What stands behind `SRS0` and `SRS1`: `=`, `+` or `-`. All three are read.
    pub separator: char,
    /// Base32 characters of hash that own keys write.
    pub hash_length: u8,
    /// The fewest characters accepted from own keys; below `hash_length` only while a site moves to longer ones.
    pub hash_min: u8,
    /// Days that another host's clock may be ahead of ours; own keys only.
    pub clock_tolerance: u16,
    /// Rewrite senders that are in the alias domain already, too.
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
    /// How an imported key writes and reads, with the overrides of this call.
    pub(super) fn peer(&self, key: &Key) -> SrsLimits {
        let length = self.peer_hash_length.unwrap_or(key.srs.hash_length);
        // A length given for one call moves the minimum along, as in the peers (hashmin defaults to hashlength).
        let min = self.peer_hash_min.unwrap_or(if self.peer_hash_length.is_some() { length } else { key.srs.hash_min });
        SrsLimits { hash_length: length, hash_min: min, max_age: self.peer_max_age.unwrap_or(key.srs.max_age) }
    }
}

/// A local part of SRS form taken apart. Nothing is proven by it.
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
    /// `SRS0<sep>hash=stamp=host=user`; fields may be empty, who checks a hash decides.
    Zero {
        /// The hash as received.
        hash: &'a str,
        /// The day stamp as received.
        stamp: &'a str,
        /// The domain that the sender came from.
        host: &'a str,
        /// Its local part, with any `=` in it.
        user: &'a str,
    },
    /// `SRS1<sep>hash=host=rest`.
    One {
        /// The hash as received.
        hash: &'a str,
        /// The first forwarder.
        host: &'a str,
        /// What followed `SRS0` in its address, first separator included.
        rest: &'a str,
    },
}

impl<'a> Srs<'a> {
    /// Takes a local part apart. `Ok(None)`: not of this form at all.
    ///
    /// # Errors
    /// It begins as SRS and fields are missing.
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

    /// Whether no field that names somebody is empty. Checked before any hash.
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

/// Whether a local part starts like an SRS address, well-formed or not.
#[must_use]
pub fn looks_tagged(local: &str) -> bool {
    !matches!(Srs::parse(local), Ok(None))
}

/// Why a sender could not be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SrsError {
    /// The result would be none, or the key is of another kind.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The fields of an SRS address end at equals signs, so that none can stand in a domain. Only an address literal
    /// has any.
    #[error("the sender's domain has an equals sign in it, which ends a field of an SRS address")]
    EqualsInDomain,
    /// An SRS1 sender without host or rest cannot be pointed anywhere.
    #[error("the sender starts like SRS1 and has no host or nothing behind it")]
    BrokenSrs1,
}

/// Host and rest of the SRS1 that a sender which is SRS already becomes; `None`: wrap it as SRS0.
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

/// What one key says of an address.
pub(super) enum KeyAnswer {
    /// Its hash holds.
    Decided(Verdict),
    /// Readable, and not its hash.
    OtherHash,
    /// Fields that this peer would not take.
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

/// What stands in the address, proven or not.
pub(super) fn unproven(form: &Srs<'_>) -> Tagged {
    read(form, |local, domain| Address::from_content(local, domain).ok())
}

pub(super) fn read(form: &Srs<'_>, join: impl Fn(&str, &str) -> Option<Address>) -> Tagged {
    let bare = match *form {
        Srs::Zero { host, user, .. } => join(user, host),
        Srs::One { host, rest, .. } => join(&format!("SRS0{rest}"), host),
    };
    Tagged { scheme: form.scheme(), bare, key: None, signed_on: None, expires: None }
}
