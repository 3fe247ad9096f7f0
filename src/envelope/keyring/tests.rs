use zeroize::Zeroizing;

use super::*;

const DAY: i64 = 86_400;

fn own() -> NewKey {
    let secret = Secret::new(Zeroizing::new(b"0123456789abcdef0123456789abcdef".to_vec()));
    NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true }
}

fn ring() -> Keyring {
    Keyring::create(own(), Timestamp(0)).unwrap()
}

fn digit(d: u8) -> KeyId {
    KeyId::Digit(d)
}

#[test]
fn rotation_takes_the_next_digit_and_leaves_the_old_key_verifying() {
    let mut ring = ring();
    assert_eq!(ring.rotate(own(), Timestamp(DAY)).unwrap(), digit(2));
    assert_eq!(ring.own_signer().unwrap().id, digit(2));
    assert_eq!(ring.key(&digit(1)).unwrap().state, KeyState::Verifying);
    for want in [3, 4, 5, 6, 7, 8, 9, 0] {
        assert_eq!(ring.rotate(own(), Timestamp(DAY * 2)).unwrap(), digit(want));
    }
    assert_eq!(ring.rotate(own(), Timestamp(DAY * 3)), Err(ChangeError::NoFreeDigit));
}

#[test]
fn a_key_cannot_go_while_its_tags_live() {
    let mut ring = ring();
    ring.rotate(own(), Timestamp(DAY * 10)).unwrap();
    // Signed until day 10; SRS addresses live 21 days, so they are valid through day 31.
    let error = ring.retire(&digit(1), Timestamp(DAY * 32 - 1), false).unwrap_err();
    assert!(error.to_string().contains("needed until 1970-02-02"), "{error}");
    ring.retire(&digit(1), Timestamp(DAY * 32), false).unwrap();
    assert_eq!(ring.prune(None, Timestamp(DAY * 32)).unwrap(), [digit(1)]);
    assert_eq!(ring.retire(&digit(2), Timestamp(DAY * 99), true), Err(ChangeError::StillSigns(digit(2))));
}

#[test]
fn a_leaked_key_dies_at_once_and_is_not_forgotten_early() {
    let mut ring = ring();
    ring.rotate(own(), Timestamp(0)).unwrap();
    ring.retire(&digit(1), Timestamp(0), true).unwrap();
    assert!(matches!(ring.prune(Some(&digit(1)), Timestamp(DAY)), Err(ChangeError::StillNeeded { .. })));
    assert!(ring.prune(None, Timestamp(DAY)).unwrap().is_empty());
}

#[test]
fn an_imported_key_signs_only_its_scheme_until_an_own_key_takes_over() {
    let mut ring = ring();
    let import = |algorithm| NewKey { algorithm, ..own() };
    let srs = ring.free_name(Algorithm::Postsrsd);
    ring.import(import(Algorithm::Postsrsd), &srs, Algorithm::Postsrsd.srs_limits(), true, Timestamp(0)).unwrap();
    ring.import(import(Algorithm::Exim), &digit(0), Algorithm::Exim.srs_limits(), true, Timestamp(0)).unwrap();
    assert_eq!(ring.srs_signer().unwrap().id, srs);
    assert_eq!(ring.batv_signer().unwrap().id, digit(0));
    assert_eq!(ring.own_signer().unwrap().id, digit(1));
    let own_again = ring.rotate(own(), Timestamp(DAY)).unwrap();
    for signer in [ring.srs_signer(), ring.batv_signer(), ring.own_signer()] {
        assert_eq!(signer.unwrap().id, own_again);
    }
    let again = ring.import(import(Algorithm::Exim), &digit(7), Algorithm::Exim.srs_limits(), false, Timestamp(0));
    assert_eq!(again, Err(ChangeError::SecretKnown(digit(0))));
    let other = Secret::new(Zeroizing::new(b"another".to_vec()));
    let wrong = ring.import(
        NewKey { secret: other, ..import(Algorithm::Exim) },
        &KeyId::Name("x-1".into()),
        Algorithm::Exim.srs_limits(),
        false,
        Timestamp(0),
    );
    assert!(matches!(wrong, Err(ChangeError::Ring(RingError::IdIsNoDigit(_)))));
}

#[test]
fn broken_rings_are_refused() {
    let key = |id: &str| Key::for_test(id, Algorithm::HmacSha256, b"secret");
    let new = |keys| Keyring::new(keys, BTreeMap::new()).unwrap_err();
    assert_eq!(new(vec![]), RingError::NoSigner);
    assert_eq!(new(vec![key("1"), key("1")]), RingError::DuplicateId(digit(1)));
    assert_eq!(new(vec![key("1"), key("2")]), RingError::TwoSigners(digit(1), digit(2)));
    assert_eq!(new(vec![Key::for_test("1", Algorithm::HmacSha256, b"")]), RingError::EmptySecret(digit(1)));
    assert!(matches!(new(vec![key("1"), Key::for_test("3", Algorithm::Postsrsd, b"x")]), RingError::IdIsDigit(_)));
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", ring());
    assert!(!text.contains("0123456789abcdef") && !text.contains("48, 49, 50"), "{text}");
}

#[test]
fn the_earliest_start_and_the_longest_lifetime_win() {
    let mut ring = ring();
    assert!(ring.ramp_start("our.example", Timestamp(50)));
    assert!(!ring.ramp_start("our.example", Timestamp(60)));
    assert!(ring.ramp_start("our.example", Timestamp(40)));
    assert_eq!(ring.signing_since()["our.example"], Timestamp(40));
    assert!(ring.record_lifetimes(10, 21, true));
    assert!(!ring.record_lifetimes(7, 7, false));
    assert_eq!(ring.own_signer().unwrap().longest_lifetime, 10);
}
