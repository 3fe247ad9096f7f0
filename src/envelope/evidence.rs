//! Evidence: a short header in outbound mail that identifies a genuine bounce to an *untagged* address.
//!
//! Some servers send bounces to the From header instead of the envelope sender. The original that they return contains
//! this header, which cannot be made without a key. Evidence can only save a bounce from refusal, never cause its
//! refusal.
//!
//! ```text
//! Countersign-Evidence: v=1; k=1; d=786; n=QKTQVRVKC5HXGZLP; a=5ZKQOMKQ7YQF3M2B
//! ```
//!
//! `k` is the digit of the key, `d` the last three digits of the day on which the evidence expires, `n` 80 random bits,
//! `a` 80 bits of a MAC over these fields, the Message-ID, and the address that a bounce would be sent to. `n` and `a`
//! are in base32, so that a relay may change their case.

use super::address::{Address, ReversePath};
use super::keyring::{Key, KeyId, KeyState, Purpose};
use super::tag::{batv, mac};
use super::time::{BatvDay, Day};

/// The name of the header.
pub const NAME: &str = "Countersign-Evidence";
/// Length of 80 bits in base32, in characters.
const CHARACTERS: usize = 16;

/// A new evidence header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceHeader {
    /// The header line, without its line end.
    pub line: String,
    /// The random part, which identifies the message.
    pub nonce: String,
}

/// Makes the header. `None` unless `key` is an own key.
///
/// `nonce` is 80 random bits. `message_id` is the value of the Message-ID header, empty if there is none; the MAC
/// covers it as [`message_id`] normalises it.
#[must_use]
pub fn header(
    key: &Key,
    params: &batv::BatvParams,
    today: Day,
    nonce: [u8; 10],
    message_id: &str,
    address: &Address,
) -> Option<EvidenceHeader> {
    let digit = key.id.digit().filter(|_| key.algorithm.purpose() == Purpose::All)?;
    let expires = today.plus(i64::from(params.lifetime));
    let nonce = base32(&nonce);
    let mac = own_mac(key, digit, expires, &nonce, message_id, address);
    let line = format!("{NAME}: v=1; k={digit}; d={}; n={nonce}; a={mac}", expires.batv());
    Some(EvidenceHeader { line, nonce })
}

/// The fields of an evidence header. They are not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    digit: u8,
    day: BatvDay,
    nonce: String,
    mac: String,
}

impl Claim {
    /// Parses the value of an evidence header. `None` if it is malformed or of another version.
    ///
    /// Fields may be in any order and case, with white space anywhere, because bounces may fold and quote them.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (mut version, mut digit, mut day, mut nonce, mut mac) = (None, None, None, None, None);
        for field in value.split(';') {
            let (name, value) = field.split_once('=')?;
            // A line may have been broken within a value.
            let value: String = value.split_whitespace().collect();
            match name.trim() {
                "v" | "V" => version = Some(value),
                "k" | "K" => digit = one_digit(&value),
                "d" | "D" => day = three_digits(&value),
                "n" | "N" => nonce = characters(&value),
                "a" | "A" => mac = characters(&value),
                _ => {}
            }
        }
        let claim = Self { digit: digit?, day: day?, nonce: nonce?, mac: mac? };
        (version? == "1").then_some(claim)
    }

    /// The random part, which identifies the message.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }
}

fn one_digit(value: &str) -> Option<u8> {
    match value.as_bytes() {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        _ => None,
    }
}

fn three_digits(value: &str) -> Option<BatvDay> {
    let digits = value.len() == 3 && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten().and_then(BatvDay::new)
}

fn characters(value: &str) -> Option<String> {
    let good =
        value.len() == CHARACTERS && value.bytes().all(|b| b.is_ascii_alphabetic() || (b'2'..=b'7').contains(&b));
    good.then(|| value.to_ascii_uppercase())
}

/// The result of verifying a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// This site sent the message, with this address for bounces, and the evidence has not expired.
    Valid,
    /// The MAC is valid, but the evidence has expired or its key is retired.
    Expired,
    /// The MAC is wrong.
    Forged,
    /// The ring has no own key with this digit.
    UnknownKey,
}

/// Verifies a claim in a bounce to `address` that returns a message with this Message-ID.
#[must_use]
pub fn verify(
    keys: &[Key],
    params: &batv::BatvParams,
    today: Day,
    claim: &Claim,
    message_id: &str,
    address: &Address,
) -> Proof {
    let known = |key: &&Key| key.id == KeyId::Digit(claim.digit) && key.algorithm.purpose() == Purpose::All;
    let Some(key) = keys.iter().find(known) else { return Proof::UnknownKey };
    let expires = claim.day.nearest(today);
    let expected = own_mac(key, claim.digit, expires, &claim.nonce, message_id, address);
    if !mac::equal(expected.as_bytes(), claim.mac.as_bytes()) {
        return Proof::Forged;
    }
    let lifetime = i64::from(key.longest_lifetime.max(params.lifetime)) + i64::from(params.clock_tolerance);
    if key.state == KeyState::Retired || expires < today || expires > today.plus(lifetime) {
        Proof::Expired
    } else {
        Proof::Valid
    }
}

fn own_mac(key: &Key, digit: u8, expires: Day, nonce: &str, message_id: &str, address: &Address) -> String {
    let (digit, day) = (digit.to_string(), expires.0.to_string());
    let local = address.content().to_ascii_lowercase();
    let id = self::message_id(message_id).unwrap_or_default();
    let fields = ["countersign evidence 1", &digit, &day, nonce, &id, &local, &address.canonical_domain()];
    let mac = mac::own(&key.secret, &fields);
    // The first 80 bits are the first sixteen characters.
    base32(mac.get(..CHARACTERS * 5 / 8).unwrap_or(&mac))
}

fn base32(octets: &[u8]) -> String {
    base32::encode(base32::Alphabet::Rfc4648 { padding: false }, octets)
}

/// The address to which a server would send a bounce that does not use the envelope sender: that of the From header if
/// it belongs to this site, otherwise the envelope sender without its tag.
pub(super) fn bounce_address(
    from: Option<&str>,
    sender: &ReversePath,
    is_ours: impl Fn(&Address) -> bool,
) -> Option<Address> {
    let sender = sender.address().map(|sender| batv::strip(sender).unwrap_or_else(|| sender.clone()));
    from.and_then(author).filter(is_ours).or(sender)
}

/// A Message-ID as covered by the MAC: in angle brackets, without any text around them. `None` if there is none.
///
/// A server that returns a message may have added or removed text, and both values have to be equal.
///
/// ```
/// use countersign::envelope::evidence::message_id;
///
/// assert_eq!(message_id(" <1@our.example> ").as_deref(), Some("<1@our.example>"));
/// ```
#[must_use]
pub fn message_id(value: &str) -> Option<String> {
    let id = match (value.find('<'), value.find('>')) {
        (Some(start), Some(end)) => value.get(start..=end)?.to_owned(),
        _ => format!("<{}>", value.split_ascii_whitespace().next()?.trim_matches(['<', '>', ','])),
    };
    (id.len() > 2).then_some(id)
}

/// The first address in the value of a From or To header (RFC 5322 sections 3.4 and 3.6.2); for a group, its first
/// member.
///
/// ```
/// use countersign::envelope::evidence::author;
///
/// let ann = author("Ann <ann@our.example>").map(|address| address.to_string());
/// assert_eq!(ann.as_deref(), Some("ann@our.example"));
/// ```
#[must_use]
pub fn author(value: &str) -> Option<Address> {
    // The usual case: one address, perhaps with a plain name.
    if !value.contains(['"', '(', ',', '\\', ':', ';']) {
        let inner = value.split_once('<').map_or(Some(value), |(_, rest)| rest.split_once('>').map(|(inner, _)| inner));
        return Address::parse(inner?.trim()).ok();
    }
    let (mut plain, mut angle) = (String::new(), None::<String>);
    let (mut quoted, mut comment, mut escaped, mut literal) = (false, 0u32, false, false);
    for character in value.chars() {
        let in_angle = angle.is_some();
        let into = angle.as_mut().unwrap_or(&mut plain);
        match character {
            _ if escaped => {
                escaped = false;
                if comment == 0 {
                    into.push(character);
                }
            }
            '\\' if quoted || comment > 0 => {
                escaped = true;
                if comment == 0 {
                    into.push(character);
                }
            }
            '"' if comment == 0 => {
                quoted = !quoted;
                into.push(character);
            }
            '(' if !quoted => comment += 1,
            ')' if comment > 0 => comment -= 1,
            _ if comment > 0 => {}
            '<' if !quoted => angle = Some(String::new()),
            '>' if !quoted && in_angle => break,
            // `team: ann@our.example, bea@our.example;` is a group; its empty members are obsolete syntax (RFC 5322
            // section 4.4).
            ':' if !quoted && !in_angle && !literal => into.clear(),
            ',' | ';' if !quoted && !in_angle => {
                if !into.trim().is_empty() {
                    break;
                }
            }
            _ => {
                literal = !quoted && (character == '[' || literal && character != ']');
                into.push(character);
            }
        }
    }
    Address::parse(angle.as_deref().unwrap_or(&plain).trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::Algorithm;
    use proptest::prelude::*;

    fn key() -> Key {
        Key::for_test("1", Algorithm::HmacSha256, b"secret")
    }
    fn ann() -> Address {
        Address::parse("ann@our.example").unwrap()
    }
    const TODAY: Day = Day(20_780);
    const ID: &str = "<1@our.example>";

    fn line() -> String {
        header(&key(), &batv::BatvParams::default(), TODAY, *b"0123456789", ID, &ann()).unwrap().line
    }
    fn claim(line: &str) -> Claim {
        Claim::parse(line.split_once(':').unwrap().1).unwrap()
    }
    fn proof(line: &str, today: Day, id: &str, address: &str) -> Proof {
        let address = Address::parse(address).unwrap();
        verify(&[key()], &batv::BatvParams::default(), today, &claim(line), id, &address)
    }

    #[test]
    fn it_proves_one_message_to_one_address_for_some_days() {
        let line = line();
        assert_eq!(line.len(), "Countersign-Evidence: v=1; k=1; d=787; n=; a=".len() + 32);
        assert_eq!(proof(&line, TODAY, ID, "ann@our.example"), Proof::Valid);
        assert_eq!(proof(&line, TODAY.plus(7), ID, "Ann@OUR.example"), Proof::Valid);
        assert_eq!(proof(&line, TODAY.plus(8), ID, "ann@our.example"), Proof::Expired);
        // After a thousand days, the digits in the header are the same, but the day under the MAC is not.
        assert_eq!(proof(&line, TODAY.plus(1000), ID, "ann@our.example"), Proof::Forged);
        assert_eq!(proof(&line, TODAY, "<2@our.example>", "ann@our.example"), Proof::Forged);
        assert_eq!(proof(&line, TODAY, ID, "bea@our.example"), Proof::Forged);
        let retired = Key { state: KeyState::Retired, ..key() };
        assert_eq!(verify(&[retired], &batv::BatvParams::default(), TODAY, &claim(&line), ID, &ann()), Proof::Expired);
        assert_eq!(verify(&[], &batv::BatvParams::default(), TODAY, &claim(&line), ID, &ann()), Proof::UnknownKey);
    }

    #[test]
    fn a_relay_may_fold_case_and_lines() {
        let line = line();
        for changed in
            [line.to_uppercase(), line.to_lowercase(), line.replace("; ", ";\r\n\t "), line.replace("; ", ";")]
        {
            assert_eq!(proof(&changed, TODAY, ID, "ann@our.example"), Proof::Valid, "{changed}");
        }
    }

    #[test]
    fn a_message_id_counts_as_it_is_returned() {
        for (sent, returned) in [
            ("<1@our.example>", "1@our.example"),
            ("1@our.example", "<1@our.example>"),
            ("<1@our.example", "<1@our.example>"),
            ("1@our.example>", "1@our.example"),
            (" <1@our.example> (comment)", "<1@our.example>"),
            ("<>", ""),
            ("", "<>"),
            ("><", ""),
        ] {
            let line = header(&key(), &batv::BatvParams::default(), TODAY, [7; 10], sent, &ann()).unwrap().line;
            assert_eq!(proof(&line, TODAY, returned, "ann@our.example"), Proof::Valid, "{sent:?} {returned:?}");
            assert_eq!(proof(&line, TODAY, "<2@our.example>", "ann@our.example"), Proof::Forged, "{sent:?}");
        }
    }

    #[test]
    fn only_own_keys_make_it() {
        for (id, algorithm) in [("0", Algorithm::Exim), ("postsrsd-1", Algorithm::Postsrsd)] {
            let key = Key::for_test(id, algorithm, b"secret");
            assert_eq!(header(&key, &batv::BatvParams::default(), TODAY, [0; 10], ID, &ann()), None);
        }
    }

    #[test]
    fn who_a_message_is_from() {
        for (value, want) in [
            ("ann@our.example", Some("ann@our.example")),
            ("Ann (at home <x@y.example>) <ann@our.example>", Some("ann@our.example")),
            ("\"Smith, <Ann>\" <ann@our.example>, bea@our.example", Some("ann@our.example")),
            ("ann@our.example (Ann), bea@our.example", Some("ann@our.example")),
            ("\"ann smith\"@our.example", Some("\"ann smith\"@our.example")),
            ("team: ann@our.example;", Some("ann@our.example")),
            ("The team: Ann <ann@our.example>, bea@our.example;", Some("ann@our.example")),
            ("none:;, ann@our.example", Some("ann@our.example")),
            ("ann@[IPv6:2001:db8::1]", Some("ann@[IPv6:2001:db8::1]")),
            ("\"a: b\" <ann@our.example>", Some("ann@our.example")),
            ("undisclosed-recipients:;", None),
            ("undisclosed", None),
            ("<>", None),
            ("", None),
        ] {
            assert_eq!(author(value).as_ref().map(Address::as_str), want, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_changed_character_holds(at in 22usize..77, to in "[A-Z2-7]") {
            let mut changed = line();
            prop_assume!(!changed[at..=at].eq_ignore_ascii_case(&to));
            changed.replace_range(at..=at, &to);
            let value = changed.split_once(':').map_or("", |(_, value)| value);
            let holds = Claim::parse(value).is_some_and(|claim| {
                verify(&[key()], &batv::BatvParams::default(), TODAY, &claim, ID, &ann()) == Proof::Valid
            });
            // Only white space between fields may change.
            prop_assert!(!holds || line()[at..=at].trim().is_empty(), "{}", changed);
        }

        #[test]
        fn any_text_can_be_read(value in "\\PC{0,80}") {
            let _ = Claim::parse(&value);
            let _ = author(&value);
        }
    }
}
