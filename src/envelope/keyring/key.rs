//! A single key: its algorithm, state and secret.

use std::fmt;

use zeroize::Zeroizing;

use crate::envelope::time::{Day, Timestamp};

/// The program whose tags a key makes and verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Own keys: HMAC-SHA-256 over separated, case-folded fields and the full day number, for BATV and SRS.
    HmacSha256,
    /// Exim's `${prvs{…}{…}}`: HMAC-SHA-1, exactly as in the BATV draft.
    Exim,
    /// batv-milter and batv-sign, with the same MAC as Exim.
    BatvTools,
    /// `PostSRSd` 1.x, in the format of libsrs2.
    Postsrsd1,
    /// `PostSRSd` 2.x, which writes `-` and `_` for `+` and `/`, and reads both.
    Postsrsd,
    /// libsrs2.
    Libsrs2,
    /// Perl's Mail::SRS, the reference implementation of SRS.
    MailSrs,
    /// Python's pysrs, which may leave the host field of its own senders empty.
    Pysrs,
    /// Exim's `${srs_encode}`: HMAC-MD5 over the address, without the stamp; four hex digits.
    EximSrs,
}

/// The scheme that a key serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// BATV and SRS: own keys.
    All,
    /// BATV: imported prvs secrets.
    Batv,
    /// SRS: imported SRS secrets.
    Srs,
}

impl Purpose {
    /// `all`, `batv` or `srs`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Batv => "batv",
            Self::Srs => "srs",
        }
    }
}

impl Algorithm {
    /// All algorithms, the own one first.
    pub const ALL: [Self; 9] = [
        Self::HmacSha256,
        Self::Exim,
        Self::BatvTools,
        Self::Postsrsd1,
        Self::Postsrsd,
        Self::Libsrs2,
        Self::MailSrs,
        Self::Pysrs,
        Self::EximSrs,
    ];

    /// The name in the ring file and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::Exim => "exim",
            Self::BatvTools => "batv-tools",
            Self::Postsrsd1 => "postsrsd1",
            Self::Postsrsd => "postsrsd",
            Self::Libsrs2 => "libsrs2",
            Self::MailSrs => "mail-srs",
            Self::Pysrs => "pysrs",
            Self::EximSrs => "exim-srs",
        }
    }

    /// The algorithm with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// The scheme that keys of this algorithm serve.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Self::HmacSha256 => Purpose::All,
            Self::Exim | Self::BatvTools => Purpose::Batv,
            Self::Postsrsd1 | Self::Postsrsd | Self::Libsrs2 | Self::MailSrs | Self::Pysrs | Self::EximSrs => {
                Purpose::Srs
            }
        }
    }

    /// The defaults of the program that the secret is imported from.
    #[must_use]
    pub fn srs_limits(self) -> SrsLimits {
        let max_age = if self == Self::EximSrs { 10 } else { 21 };
        SrsLimits { hash_length: 4, hash_min: 4, max_age }
    }
}

/// How an imported SRS secret writes and reads addresses. Own keys use the config instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrsLimits {
    /// Length of the hashes that are written, in characters.
    pub hash_length: u8,
    /// Minimum length of the hashes that are accepted, in characters.
    pub hash_min: u8,
    /// Validity of an address, in days.
    pub max_age: u16,
}

/// The id of a key: a digit for keys that make prvs tags, a name for imported SRS secrets.
///
/// ```
/// use countersign::envelope::keyring::KeyId;
///
/// assert_eq!(KeyId::parse("3"), Some(KeyId::Digit(3)));
/// assert_eq!(KeyId::parse("postsrsd-1").map(|id| id.to_string()), Some("postsrsd-1".into()));
/// assert_eq!(KeyId::parse("a key"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyId {
    /// 0 to 9, the K of `prvs=KDDD…`.
    Digit(u8),
    /// A name such as `postsrsd-1`.
    Name(String),
}

impl KeyId {
    /// Parses an id: one digit, or a name of up to 64 letters, digits, `-` and `_`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match *text.as_bytes() {
            [digit @ b'0'..=b'9'] => Some(Self::Digit(digit - b'0')),
            [] => None,
            ref name
                if name.len() <= 64 && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) =>
            {
                Some(Self::Name(text.to_owned()))
            }
            _ => None,
        }
    }

    /// The digit; `None` for a name.
    #[must_use]
    pub fn digit(&self) -> Option<u8> {
        match self {
            Self::Digit(digit) => Some(*digit),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digit(digit) => digit.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// The states of a key, in the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Verifies, but does not sign yet, so that the ring can reach every host first.
    Next,
    /// Signs and verifies.
    Signing,
    /// Verifies tags that it signed before.
    Verifying,
    /// Its tags are `expired`; the key may be pruned.
    Retired,
}

impl KeyState {
    /// All states, in the order of a key's life.
    pub const ALL: [Self; 4] = [Self::Next, Self::Signing, Self::Verifying, Self::Retired];

    /// The name in the ring file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Verifying => "verifying",
            Self::Retired => "retired",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// A secret: wiped from memory when dropped, never printed, never cloned.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Makes a secret from its octets.
    #[must_use]
    pub fn new(octets: Zeroizing<Vec<u8>>) -> Self {
        Self(octets)
    }

    /// The octets, for a MAC, the ring file, or an explicit export.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether the secret is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One key of a ring.
#[derive(Debug)]
pub struct Key {
    /// The id, as used by commands and logs.
    pub id: KeyId,
    /// The algorithm of its tags.
    pub algorithm: Algorithm,
    /// The state in its life.
    pub state: KeyState,
    /// The secret for the MAC.
    pub secret: Secret,
    /// When the key was added to the ring.
    pub created: Timestamp,
    /// When the key first signed here; `None` if it never has.
    pub signed_from: Option<Timestamp>,
    /// When the key last stopped signing, or was imported; `None` while it signs or has never signed.
    pub signed_until: Option<Timestamp>,
    /// The longest BATV lifetime that the key ever signed with, in days.
    pub longest_lifetime: u16,
    /// The longest SRS lifetime that the key ever signed with, in days.
    pub longest_srs_lifetime: u16,
    /// Whether the key ever made tags of six hex digits; otherwise such tags are refused under `mac = "long"`.
    pub short_tags: bool,
    /// For imported SRS secrets, how the other program writes and reads addresses.
    pub srs: SrsLimits,
}

impl Key {
    /// The first moment at which all tags of this key have expired; `None` while it may still sign.
    #[must_use]
    pub fn needed_until(&self) -> Option<Timestamp> {
        let last_day: Day = match self.state {
            KeyState::Next | KeyState::Signing => return None,
            // The other program may have signed with an imported key until it was imported.
            KeyState::Verifying | KeyState::Retired => self.signed_until.unwrap_or(self.created).day(),
        };
        let days = match self.algorithm.purpose() {
            Purpose::All => self.longest_lifetime.max(self.longest_srs_lifetime),
            Purpose::Batv => self.longest_lifetime,
            Purpose::Srs => self.longest_srs_lifetime.max(self.srs.max_age),
        };
        Some(last_day.plus(i64::from(days) + 1).start())
    }
}

#[cfg(test)]
impl Key {
    /// A key for tests that signs since its creation on day 0.
    pub(crate) fn for_test(id: &str, algorithm: Algorithm, secret: &[u8]) -> Self {
        Self {
            id: KeyId::parse(id).unwrap(),
            algorithm,
            state: KeyState::Signing,
            secret: Secret::new(Zeroizing::new(secret.to_vec())),
            created: Timestamp(0),
            signed_from: Some(Timestamp(0)),
            signed_until: None,
            longest_lifetime: 7,
            longest_srs_lifetime: 21,
            short_tags: true,
            srs: algorithm.srs_limits(),
        }
    }
}
