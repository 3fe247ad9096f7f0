//! One key: what it is for, in which state of its life it is, and its secret.

use std::fmt;

use zeroize::Zeroizing;

use crate::envelope::time::{Day, Timestamp};

/// Whose tags a key makes and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Our own: HMAC-SHA-256 over separated, case-folded fields and the full day number. BATV and SRS.
    HmacSha256,
    /// Exim's `${prvs{…}{…}}`: HMAC-SHA-1, the BATV draft to the letter.
    Exim,
    /// batv-milter and batv-sign: the same MAC as Exim's.
    BatvTools,
    /// `PostSRSd` 1.x, as libsrs2 writes it.
    Postsrsd1,
    /// `PostSRSd` 2.x: writes `-` and `_` for `+` and `/`, reads both.
    Postsrsd,
    /// libsrs2.
    Libsrs2,
    /// Perl's Mail::SRS, the reference of SRS.
    MailSrs,
    /// Python's pysrs: may leave the host field of its own senders empty.
    Pysrs,
    /// Exim's `${srs_encode}`: HMAC-MD5 over the address, four hex digits, the stamp not covered.
    EximSrs,
}

/// Which scheme a key serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// BATV and SRS: an own key.
    All,
    /// Imported prvs secrets.
    Batv,
    /// Imported SRS secrets.
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
    /// All of them, own first.
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

    /// The algorithm of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Which scheme it serves.
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

    /// What the peer itself uses unless told otherwise; an imported entry starts with it.
    #[must_use]
    pub fn srs_limits(self) -> SrsLimits {
        let max_age = if self == Self::EximSrs { 10 } else { 21 };
        SrsLimits { hash_length: 4, hash_min: 4, max_age }
    }
}

/// How an imported SRS secret writes and reads its hash. Own keys go by the config instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrsLimits {
    /// Characters of hash written.
    pub hash_length: u8,
    /// The fewest characters of hash accepted.
    pub hash_min: u8,
    /// Days that an address stays valid.
    pub max_age: u16,
}

/// The name of a key: one digit for keys that stand in prvs tags, a word for imported SRS secrets.
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
    /// For example `postsrsd-1`.
    Name(String),
}

impl KeyId {
    /// Reads an id: one digit, or a word of letters, digits, `-` and `_` that is more than that.
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

    /// The digit, where the id is one.
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

/// The life of a key, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Verifies already and does not sign yet: time for the ring to reach every host.
    Next,
    /// Signs, and verifies.
    Signing,
    /// Verifies what it signed before.
    Verifying,
    /// Answers `expired` to everything; may be pruned.
    Retired,
}

impl KeyState {
    /// All of them.
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

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// A secret: wiped when dropped, never printed, never cloned.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the octets over.
    #[must_use]
    pub fn new(octets: Zeroizing<Vec<u8>>) -> Self {
        Self(octets)
    }

    /// The octets. For the MAC, the ring file, and an export that was asked for by name.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
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

/// One entry of a ring.
#[derive(Debug)]
pub struct Key {
    /// The name by which commands and logs call the key.
    pub id: KeyId,
    /// Whose tags it makes.
    pub algorithm: Algorithm,
    /// Where in its life it is.
    pub state: KeyState,
    /// The secret that the MAC is keyed with.
    pub secret: Secret,
    /// When it came into the ring.
    pub created: Timestamp,
    /// When it began to sign; absent while it never has.
    pub signed_from: Option<Timestamp>,
    /// When it stopped signing; absent while it signs or never has.
    pub signed_until: Option<Timestamp>,
    /// The longest BATV lifetime, in days, that it ever signed with.
    pub longest_lifetime: u16,
    /// The longest SRS lifetime, in days, that it ever signed with.
    pub longest_srs_lifetime: u16,
    /// Whether it ever made tags of six hex digits; only then are such tags looked at under `mac = "long"`.
    pub short_tags: bool,
    /// For imported SRS secrets, how the peer writes and reads.
    pub srs: SrsLimits,
}

impl Key {
    /// The first moment at which no tag of this key can be alive any more; `None` while it may still sign.
    #[must_use]
    pub fn needed_until(&self) -> Option<Timestamp> {
        let last_day: Day = match self.state {
            KeyState::Next | KeyState::Signing => return None,
            // An imported key was used elsewhere until it came here, whatever it did here.
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
    /// A key for tests: signing, created on day 0.
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
