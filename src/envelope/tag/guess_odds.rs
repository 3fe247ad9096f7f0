//! The probability that a random guess is a valid tag, for the forgery budget.

use super::{batv, srs};
use crate::envelope::address::Address;
use crate::envelope::keyring::{Algorithm, Key, KeyState, Purpose};

/// The probability, 0 to 1, that this prvs tag would be valid if it were random: 24 bits, or 64 for the long form. Tags
/// of imported keys are compared in two ways, which doubles it.
///
/// ```
/// # use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
/// # use countersign::envelope::time::Timestamp;
/// # let now = Timestamp(1_795_382_400);
/// # let secret = Secret::new(vec![7; 32].into());
/// # let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
/// # let ring = Keyring::create(key, now)?;
/// use countersign::envelope::address::Address;
/// use countersign::envelope::tag::guess_odds;
///
/// // 24 bits of hash.
/// let guessed = Address::parse("prvs=1786a1b2c3=ann@our.example")?;
/// assert!(guess_odds::of_batv(ring.keys(), &guessed) <= 1.0 / f64::from(1 << 24));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn of_batv(keys: &[Key], tagged: &Address) -> f64 {
    let content = tagged.content();
    let Some(tag) = batv::Prvs::parse(&content) else { return 0.0 };
    let key = keys.iter().find(|key| key.id.digit() == Some(tag.key));
    let readings = if key.is_some_and(|key| key.algorithm.purpose() == Purpose::Batv) { 2.0 } else { 1.0 };
    readings * bits(tag.hex.len().saturating_mul(4))
}

/// The probability, 0 to 1, that a random SRS address is valid for any key of the ring. Base64 that is compared without
/// case counts as five bits per character, because a guesser can prefer letters; Exim's hex counts as four.
#[must_use]
pub fn of_srs(keys: &[Key], params: &srs::SrsParams) -> f64 {
    let living = keys.iter().filter(|key| key.state != KeyState::Retired);
    living
        .map(|key| match key.algorithm.purpose() {
            Purpose::All => bits(5 * usize::from(params.hash_min)),
            Purpose::Batv => 0.0,
            Purpose::Srs => {
                let each = if key.algorithm == Algorithm::EximSrs { 4 } else { 5 };
                bits(each * usize::from(params.peer_hash_min.unwrap_or(key.srs.hash_min)))
            }
        })
        .sum()
}

fn bits(bits: usize) -> f64 {
    (-f64::from(u16::try_from(bits).unwrap_or(u16::MAX))).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_bits() {
        let own = Key::for_test("1", Algorithm::HmacSha256, b"x");
        let exim = Key::for_test("0", Algorithm::Exim, b"x");
        let exim_srs = Key::for_test("exim-srs-1", Algorithm::EximSrs, b"x");
        let tagged = |text: &str| Address::parse(text).unwrap();
        let keys = [own, exim, exim_srs];
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
        near(of_batv(&keys, &tagged("prvs=1000abcdef=a@b.example")), 2f64.powi(-24));
        near(of_batv(&keys, &tagged("prvs=0000abcdef=a@b.example")), 2f64.powi(-23));
        near(of_batv(&keys, &tagged("prvs=1000abcdef0123456789=a@b.example")), 2f64.powi(-64));
        near(of_srs(&keys, &srs::SrsParams::default()), 2f64.powi(-30) + 2f64.powi(-16));
    }
}
