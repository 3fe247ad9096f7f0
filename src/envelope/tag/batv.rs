//! BATV: `prvs=KDDDSSSSSS=local-part@domain` (draft-levine-smtp-batv-01 section 4).
//!
//! K is the digit of the key, DDD the last three digits of the day on which the tag *expires*, SSSSSS the first octets
//! of a MAC in hex. For own keys, the MAC covers the full day number and ASCII case is folded, so a tag neither becomes
//! valid again after 1,000 days nor becomes invalid in a relay that changes case. Imported keys do exactly what their
//! program does.

use data_encoding::HEXLOWER;

use super::mac;
pub use super::verdict::SignError;
use super::verdict::{CaseFolding, Defect, Scheme, Signed, Tagged, Verdict, strip_prefix_ci};
use crate::envelope::address::Address;
use crate::envelope::keyring::{Algorithm, Key, KeyId, KeyState, Purpose};
use crate::envelope::time::{BatvDay, Day};

/// Length of the MAC in tags of own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MacLength {
    /// Six hex digits, 24 bits: the form that other software recognises and strips.
    #[default]
    Short,
    /// Sixteen hex digits, 64 bits: for sites that see millions of guesses.
    Long,
}

impl MacLength {
    fn octets(self) -> usize {
        match self {
            Self::Short => 3,
            Self::Long => 8,
        }
    }

    fn from_digits(digits: usize) -> Option<Self> {
        match digits {
            6 => Some(Self::Short),
            16 => Some(Self::Long),
            _ => None,
        }
    }
}

/// Parameters of a site's BATV tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatvParams {
    /// Validity of a tag, in days from signing; the draft recommends 7.
    pub lifetime: u16,
    /// Length of the MAC in new tags of own keys.
    pub mac: MacLength,
    /// Days that the clock of another host may be ahead; own keys only.
    pub clock_tolerance: u16,
    /// Case folding for tags of imported keys.
    pub case: CaseFolding,
}

impl Default for BatvParams {
    fn default() -> Self {
        Self { lifetime: 7, mac: MacLength::Short, clock_tolerance: 1, case: CaseFolding::Fold }
    }
}

/// The parts of a tagged local part. They are not proven.
///
/// ```
/// use countersign::envelope::tag::batv::Prvs;
///
/// let tag = Prvs::parse("prvs=1786a1b2c3=ann").ok_or("a tag")?;
/// assert_eq!((tag.key, tag.day.value(), tag.core), (1, 786, "ann"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prvs<'a> {
    /// The digit K of the key, 0 to 9.
    pub key: u8,
    /// The day of expiry, DDD.
    pub day: BatvDay,
    /// The 6 or 16 hex digits, as received.
    pub hex: &'a str,
    /// The local part after the tag, not empty.
    pub core: &'a str,
}

impl<'a> Prvs<'a> {
    /// Parses `prvs=`, four digits, 6 or 16 hex digits, `=` and a local part, in any ASCII case. `None` if the form is
    /// different.
    #[must_use]
    pub fn parse(local: &'a str) -> Option<Self> {
        let (value, core) = strip_prefix_ci(local, "prvs=")?.split_once('=')?;
        let (key, day, hex) = read_value(value)?;
        (!core.is_empty()).then_some(Self { key, day, hex, core })
    }
}

/// Whether a local part begins like a prvs tag, well-formed or not.
#[must_use]
pub fn looks_tagged(local: &str) -> bool {
    strip_prefix_ci(local, "prvs=").is_some()
}

fn read_value(value: &str) -> Option<(u8, BatvDay, &str)> {
    let (digits, hex) = value.split_at_checked(4)?;
    MacLength::from_digits(hex.len())?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let number: u16 = digits.parse().ok()?;
    Some((u8::try_from(number / 1000).ok()?, BatvDay::new(number % 1000)?, hex))
}

/// Signs an address by putting a tag before its local part.
///
/// ```
/// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
/// # use countersign::envelope::time::Timestamp;
/// # let now = Timestamp(1_795_382_400);
/// # let secret = Secret::new(vec![7; 32].into());
/// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
/// # let ring = Keyring::create(key, now)?;
/// use countersign::envelope::address::Address;
/// use countersign::envelope::tag::batv::{BatvParams, sign};
///
/// let signer = ring.batv_signer().ok_or("a key that signs")?;
/// let signed = sign(signer, &BatvParams::default(), now.day(), &Address::parse("ann@our.example")?)?;
/// assert!(signed.address().as_str().starts_with("prvs=1") && signed.address().domain() == "our.example");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The result is not an address (for example, it is longer than [`crate::envelope::address::MAX_ADDRESS`]), or the key
/// has no digit or is for SRS only.
pub fn sign(key: &Key, params: &BatvParams, today: Day, address: &Address) -> Result<Signed, SignError> {
    let digit = digit_for_batv(key)?;
    let expires = today.plus(i64::from(params.lifetime));
    let day = expires.batv();
    let result = if key.algorithm == Algorithm::HmacSha256 {
        let content = address.content();
        let tag = own_mac(key, digit, expires, &content, address.domain());
        let hex = HEXLOWER.encode(tag.get(..params.mac.octets()).unwrap_or(&tag));
        Address::from_content(&format!("prvs={digit}{day}{hex}={content}"), address.domain())?
    } else {
        let hex = peer_hex(key, digit, day, address.local(), address.domain());
        Address::parse(&format!("prvs={digit}{day}{hex}={address}"))?
    };
    Ok(Signed::new(result, key.id.clone()))
}

/// Signs in the sub-address form of batv-tools, `user+prvs=KDDDSSSSSS@domain`, with the MAC of the usual form. Only for
/// imported keys.
///
/// # Errors
/// As for [`sign`].
pub fn sign_subaddress(
    key: &Key,
    params: &BatvParams,
    today: Day,
    address: &Address,
    delimiter: char,
) -> Result<Signed, SignError> {
    let digit = digit_for_batv(key)?;
    let day = today.plus(i64::from(params.lifetime)).batv();
    let (local, domain) = (address.local(), address.domain());
    let hex = peer_hex(key, digit, day, local, domain);
    let result = Address::parse(&format!("{local}{delimiter}prvs={digit}{day}{hex}@{domain}"))?;
    Ok(Signed::new(result, key.id.clone()))
}

/// Verifies the tag of an address with the keys of a ring.
///
/// ```
/// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
/// # use countersign::envelope::time::Timestamp;
/// # let now = Timestamp(1_795_382_400);
/// # let secret = Secret::new(vec![7; 32].into());
/// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
/// # let ring = Keyring::create(key, now)?;
/// use countersign::envelope::address::Address;
/// use countersign::envelope::tag::Verdict;
/// use countersign::envelope::tag::batv::{BatvParams, verify};
///
/// let forged = Address::parse("prvs=1786a1b2c3=ann@our.example")?;
/// let verdict = verify(ring.keys(), &BatvParams::default(), now.day(), &forged);
/// assert!(matches!(verdict, Verdict::Forged(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn verify(keys: &[Key], params: &BatvParams, today: Day, address: &Address) -> Verdict {
    let content = address.content();
    let Some(prvs) = Prvs::parse(&content) else {
        return if looks_tagged(&content) { Verdict::Malformed(Defect::Syntax) } else { Verdict::Untagged };
    };
    let expires = prvs.day.nearest(today);
    // Programs of imported keys hash quotes as they find them. If the whole local part is quoted, its content is
    // hashed.
    let received = Prvs::parse(address.local()).map_or(prvs.core, |raw| raw.core);
    let Some(key) = key_of(keys, prvs.key) else {
        return unknown_key(keys, params, today, expires, tagged(&prvs, prvs.core, address, expires, params.lifetime));
    };
    if key.algorithm == Algorithm::HmacSha256 {
        verify_own(key, params, today, &prvs, address, expires)
    } else {
        let prvs = Prvs { core: received, ..prvs };
        // A local part that still has its quotes is used unchanged.
        let mut tagged = tagged(&prvs, received, address, expires, params.lifetime);
        tagged.bare = Address::parse(&format!("{received}@{}", address.domain())).ok().or(tagged.bare);
        match verify_peer(key, params, today, &prvs, address.domain()) {
            TagState::Valid => Verdict::valid(tagged),
            TagState::Expired => Verdict::Expired(tagged),
            TagState::Future => Verdict::Future(tagged),
            TagState::Forged => Verdict::Forged(tagged),
        }
    }
}

/// The result of verifying an address in the sub-address form of batv-tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subaddress<'a> {
    /// The text before the delimiter. It may be empty, as in batv-tools.
    pub user: &'a str,
    /// The state of the tag.
    pub outcome: TagState,
}

/// The state of a tag by its MAC and date, as in the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagState {
    /// MAC and date are valid.
    Valid,
    /// The MAC is valid, but the date is past or the key is retired.
    Expired,
    /// The MAC is valid, but the date is too far in the future.
    Future,
    /// The MAC is wrong.
    Forged,
}

/// Verifies `user+prvs=KDDDSSSSSS@domain` with the imported keys of a ring. `None` if the form is different or the key
/// is not in the ring.
#[must_use]
pub fn verify_subaddress<'a>(
    keys: &[Key],
    params: &BatvParams,
    today: Day,
    address: &'a Address,
    delimiter: char,
) -> Option<Subaddress<'a>> {
    let (user, tag) = address.local().rsplit_once(delimiter)?;
    let (key, day, hex) = read_value(strip_prefix_ci(tag, "prvs=")?)?;
    let prvs = Prvs { key, day, hex, core: user };
    let key = key_of(keys, prvs.key).filter(|k| k.algorithm.purpose() == Purpose::Batv)?;
    Some(Subaddress { user, outcome: verify_peer(key, params, today, &prvs, address.domain()) })
}

fn key_of(keys: &[Key], digit: u8) -> Option<&Key> {
    keys.iter().find(|k| k.id == KeyId::Digit(digit) && k.algorithm.purpose() != Purpose::Srs)
}

fn digit_for_batv(key: &Key) -> Result<u8, SignError> {
    match (key.id.digit(), key.algorithm.purpose()) {
        (Some(digit), Purpose::All | Purpose::Batv) => Ok(digit),
        _ => Err(SignError::WrongKey(key.id.clone())),
    }
}

/// The fields of a tagged address, with the address behind the tag.
fn tagged(prvs: &Prvs<'_>, core: &str, address: &Address, expires: Day, lifetime: u16) -> Tagged {
    let domain = address.domain();
    let bare = Address::from_content(core, domain).ok();
    let key = Some(KeyId::Digit(prvs.key));
    let signed_on = Some(expires.plus(-i64::from(lifetime)));
    Tagged { scheme: Scheme::Batv, bare, key, signed_on, expires: Some(expires) }
}

fn unknown_key(keys: &[Key], params: &BatvParams, today: Day, expires: Day, tagged: Tagged) -> Verdict {
    let lifetime = keys.iter().map(|k| k.longest_lifetime).fold(params.lifetime, u16::max);
    let last = today.plus(i64::from(lifetime) + i64::from(params.clock_tolerance));
    if today <= expires && expires <= last { Verdict::UnknownKey(tagged) } else { Verdict::Expired(tagged) }
}

fn verify_own(key: &Key, params: &BatvParams, today: Day, prvs: &Prvs<'_>, address: &Address, expires: Day) -> Verdict {
    let tagged = tagged(prvs, prvs.core, address, expires, params.lifetime);
    let mac = own_mac(key, prvs.key, expires, prvs.core, address.domain());
    let Some(length) = MacLength::from_digits(prvs.hex.len()) else { return Verdict::Forged(tagged) };
    let short_refused = length == MacLength::Short && params.mac == MacLength::Long && !key.short_tags;
    let expected = HEXLOWER.encode(mac.get(..length.octets()).unwrap_or(&mac));
    if !mac::equal(expected.as_bytes(), prvs.hex.to_ascii_lowercase().as_bytes()) || short_refused {
        return Verdict::Forged(tagged);
    }
    let lifetime = i64::from(key.longest_lifetime.max(params.lifetime)) + i64::from(params.clock_tolerance);
    if key.state == KeyState::Retired || expires < today {
        Verdict::Expired(tagged)
    } else if expires > today.plus(lifetime) {
        Verdict::Future(tagged)
    } else {
        Verdict::valid(tagged)
    }
}

fn verify_peer(key: &Key, params: &BatvParams, today: Day, prvs: &Prvs<'_>, domain: &str) -> TagState {
    let received = prvs.hex.to_ascii_lowercase();
    let holds = |core: &str, domain: &str| {
        mac::equal(peer_hex(key, prvs.key, prvs.day, core, domain).as_bytes(), received.as_bytes())
    };
    let folded =
        params.case == CaseFolding::Fold && holds(&prvs.core.to_ascii_lowercase(), &domain.to_ascii_lowercase());
    if !holds(prvs.core, domain) && !folded {
        return TagState::Forged;
    }
    // The draft's arithmetic, mod 1000 (section 4.2.2), which has no clock tolerance.
    let ahead = prvs.day.ahead_of(today);
    if key.state != KeyState::Retired && ahead <= i64::from(key.longest_lifetime.max(params.lifetime)) {
        TagState::Valid
    } else if key.state == KeyState::Retired || ahead >= 500 {
        TagState::Expired
    } else {
        TagState::Future
    }
}

fn own_mac(key: &Key, digit: u8, expires: Day, content: &str, domain: &str) -> [u8; 32] {
    let (digit, day) = (digit.to_string(), expires.0.to_string());
    let domain = crate::envelope::address::canonical_domain(domain);
    mac::own(&key.secret, &["countersign batv 1", &digit, &day, &content.to_ascii_lowercase(), &domain])
}

/// The six hex digits of Exim and batv-tools: HMAC-SHA-1 over K, DDD and the address, without separators.
fn peer_hex(key: &Key, digit: u8, day: BatvDay, local: &str, domain: &str) -> String {
    let head = format!("{digit}{day}");
    let mac = mac::sha1(&key.secret, &[&head, local, "@", domain]);
    HEXLOWER.encode(mac.get(..3).unwrap_or(&mac))
}

/// Removes a well-formed prvs tag from an address, without verifying it. `None` if there is none.
///
/// ```
/// use countersign::envelope::address::Address;
/// use countersign::envelope::tag::batv::strip;
///
/// let tagged = Address::parse("prvs=1786a1b2c3=ann@our.example")?;
/// assert_eq!(strip(&tagged), Some(Address::parse("ann@our.example")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn strip(address: &Address) -> Option<Address> {
    let content = address.content();
    Address::from_content(Prvs::parse(&content)?.core, address.domain()).ok()
}
