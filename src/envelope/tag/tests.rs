//! Properties of own keys. Each weakness found in another program has a test here.

use proptest::prelude::*;

use super::*;
use crate::envelope::keyring::{Algorithm, Key, KeyState};
use crate::envelope::time::Day;

const TODAY: Day = Day(20_779);
const ALIAS: &str = "srs.our.example";

fn own() -> Key {
    Key::for_test("1", Algorithm::HmacSha256, b"0123456789abcdef0123456789abcdef")
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn batv(text: &str) -> Address {
    batv::sign(&own(), &batv::BatvParams::default(), TODAY, &address(text)).unwrap().address().clone()
}

fn srs(text: &str) -> Address {
    match srs::forward(&own(), &srs::SrsParams::default(), TODAY, &address(text), ALIAS).unwrap() {
        srs::Forwarded::Rewritten(signed) => signed.address().clone(),
        srs::Forwarded::Unchanged => panic!("{text} was not rewritten"),
    }
}

/// The verdict of the scheme that recognises the address; at most one does.
fn verify(address: &Address, today: Day) -> Verdict {
    let keys = [own()];
    match batv::verify(&keys, &batv::BatvParams::default(), today, address) {
        Verdict::Untagged => srs::verify(&keys, &srs::SrsParams::default(), today, address),
        verdict => verdict,
    }
}

fn valid(address: &Address, today: Day) -> bool {
    matches!(verify(address, today), Verdict::Valid(_))
}

#[test]
fn tags_have_the_shape_the_world_knows() {
    let signed = batv("ann@our.example");
    let prvs = batv::Prvs::parse(signed.local()).unwrap();
    assert_eq!((prvs.key, prvs.day.value(), prvs.hex.len(), prvs.core), (1, 786, 6, "ann"));
    assert_eq!(prvs.hex, prvs.hex.to_ascii_lowercase());
    assert!(srs("bob@else.example").as_str().starts_with("SRS0="));
    assert!(
        srs("SRS0=abcd=AA=first.example=bob@else.example")
            .as_str()
            .contains("=else.example==abcd=AA=first.example=bob@")
    );
}

#[test]
fn no_tag_revives_when_its_three_digit_day_wraps() {
    let signed = batv("ann@our.example");
    assert!(valid(&signed, TODAY) && valid(&signed, TODAY.plus(7)));
    for days in 8..5000 {
        assert!(!valid(&signed, TODAY.plus(days)), "valid again after {days} days");
    }
    for days in 2..3000 {
        assert!(!valid(&signed, TODAY.plus(-days)), "valid {days} days early");
    }
}

#[test]
fn no_srs_stamp_revives_after_1024_days() {
    let signed = srs("bob@else.example");
    assert!(valid(&signed, TODAY) && valid(&signed, TODAY.plus(21)));
    for days in 22..5000 {
        assert!(!valid(&signed, TODAY.plus(days)), "valid again after {days} days");
    }
}

#[test]
fn a_host_one_second_ahead_at_midnight_is_believed_and_two_days_are_not() {
    for signed in [batv("ann@our.example"), srs("bob@else.example")] {
        assert!(valid(&signed, TODAY.plus(-1)));
        assert!(matches!(verify(&signed, TODAY.plus(-2)), Verdict::Future(_)));
    }
}

#[test]
fn no_field_lends_a_character_to_its_neighbour() {
    let signed = srs("bob@example.com");
    let spliced = signed.as_str().replace("example.com=bob", "example.co=mbob");
    assert!(matches!(verify(&address(&spliced), TODAY), Verdict::Forged(_)));
    let spliced = signed.as_str().replace("example.com=bob", "example.comb=ob");
    assert!(matches!(verify(&address(&spliced), TODAY), Verdict::Forged(_)));
}

#[test]
fn nobody_renews_a_date() {
    let signed = srs("bob@else.example");
    let Ok(Some(srs::Srs::Zero { stamp, .. })) = srs::Srs::parse(signed.local()) else { panic!() };
    let later = TODAY.plus(20);
    let redated = signed.as_str().replacen(&format!("={stamp}="), &format!("={}=", later.srs()), 1);
    assert!(matches!(verify(&address(&redated), later), Verdict::Forged(_)));
    let signed = batv("ann@our.example");
    let redated = signed.as_str().replacen("1786", "1796", 1);
    assert!(matches!(verify(&address(&redated), TODAY), Verdict::Forged(_)));
}

#[test]
fn a_tag_survives_a_relay_that_folds_case() {
    for text in ["Ann.Smith@Our.Example", "\"John Doe\"@our.example"] {
        let signed = batv(text);
        for folded in [signed.as_str().to_ascii_lowercase(), signed.as_str().to_ascii_uppercase()] {
            let Verdict::Valid(found) = verify(&address(&folded), TODAY) else { panic!("{folded}") };
            assert!(found.address().same_mailbox(&address(text)));
        }
    }
    let signed = srs("Bob.Smith@Else.Example");
    for folded in [signed.as_str().to_ascii_lowercase(), signed.as_str().to_ascii_uppercase()] {
        assert!(valid(&address(&folded), TODAY), "{folded}");
    }
}

#[test]
fn the_schemes_do_not_share_a_mac() {
    let key = own();
    let day = TODAY.0.to_string();
    let batv = mac::own(&key.secret, &["countersign batv 1", "1", &day, "bob", "else.example"]);
    let srs0 = mac::own(&key.secret, &["countersign srs0 1", &day, "else.example", "bob", ALIAS]);
    let srs1 = mac::own(&key.secret, &["countersign srs1 1", "else.example", "bob", ALIAS]);
    assert!(batv != srs0 && srs0 != srs1 && batv != srs1);
    // The hash of an SRS0 is not valid for an SRS1 with the same texts, nor the other way round.
    let zero = srs("bob@else.example");
    let as_one = zero.as_str().replacen("SRS0", "SRS1", 1);
    assert!(!valid(&address(&as_one), TODAY));
    let one = srs("SRS0=abcd=AA=first.example=bob@else.example");
    let as_zero = one.as_str().replacen("SRS1", "SRS0", 1);
    assert!(!valid(&address(&as_zero), TODAY));
}

#[test]
fn an_srs_address_of_one_alias_domain_is_none_of_another() {
    let other = srs("bob@else.example").as_str().replace(ALIAS, "other.example");
    assert!(matches!(verify(&address(&other), TODAY), Verdict::Forged(_)));
}

#[test]
fn no_single_character_change_verifies() {
    let alphabet: Vec<char> = (' '..='~').chain("éßｏ。\u{17f}\u{212a}\u{130}".chars()).collect();
    for signed in
        [batv("ann.smith@our.example"), srs("bob@else.example"), srs("SRS0=abcd=AA=first.example=bob@else.example")]
    {
        let text: Vec<char> = signed.as_str().chars().collect();
        let mut tried = 0;
        let mut check = |changed: Vec<char>, at: usize| {
            let changed: String = changed.into_iter().collect();
            // Exceptions: ASCII case anywhere, the first separator of an SRS address, and in a domain any character
            // that UTS 46 maps to the original letter.
            let other_separator =
                at == 4 && matches!(changed.as_bytes()[4], b'=' | b'+' | b'-') && changed.len() == text.len();
            if changed.eq_ignore_ascii_case(signed.as_str()) || other_separator && changed.starts_with("SRS") {
                return;
            }
            let mapped = match changed.chars().nth(at) {
                Some('ｏ') => 'o',
                Some('。') => '.',
                Some('\u{17f}') => 's',
                _ => '\0',
            };
            let in_domain =
                |host: &str| signed.as_str().find(host).is_some_and(|start| (start..start + host.len()).contains(&at));
            let hosts = [signed.domain(), "else.example", "first.example"];
            if changed.chars().count() == text.len() && text[at] == mapped && hosts.into_iter().any(in_domain) {
                return;
            }
            tried += 1;
            if let Ok(address) = Address::parse(&changed) {
                assert!(!valid(&address, TODAY), "{changed}");
            }
        };
        for at in 0..text.len() {
            let mut shorter = text.clone();
            shorter.remove(at);
            check(shorter, at);
            for &c in &alphabet {
                let mut changed = text.clone();
                changed[at] = c;
                check(changed, at);
                let mut longer = text.clone();
                longer.insert(at, c);
                check(longer, at);
            }
        }
        assert!(tried > 3000);
    }
}

#[test]
fn a_retired_key_answers_expired_and_an_unknown_one_is_told_apart() {
    let signed = batv("ann@our.example");
    let params = batv::BatvParams::default();
    let retired = [Key { state: KeyState::Retired, ..own() }];
    assert!(matches!(batv::verify(&retired, &params, TODAY, &signed), Verdict::Expired(_)));
    assert!(matches!(batv::verify(&[], &params, TODAY, &signed), Verdict::UnknownKey(_)));
    assert!(matches!(batv::verify(&[], &params, TODAY.plus(8), &signed), Verdict::Expired(_)));
    assert!(matches!(
        srs::verify(&retired, &srs::SrsParams::default(), TODAY, &srs("b@e.example")),
        Verdict::Expired(_)
    ));
}

#[test]
fn no_hash_is_left_in_what_is_shown() {
    for (text, want) in [
        ("553 5.7.1 <prvs=1786a1b2c3=ann@our.example>: rejected", "553 5.7.1 <prvs=1786~=ann@our.example>: rejected"),
        ("no SRS0=OJWK5A=JL=else.example=bob@x, SRS1+abcd=h==e=f@x", "no SRS0=~=JL=else.example=bob@x, SRS1+~@x"),
        ("prvs= and SRS0 as words, prvs=é, SRS0= = x", "prvs= and SRS0 as words, prvs=é, SRS0= = x"),
        ("", ""),
    ] {
        assert_eq!(masked_text(text), want);
    }
    assert_eq!(masked(&address("PRVS=1786a1b2c3=ann@our.example")), "prvs=1786~=ann@our.example");
}

#[test]
fn long_tags_and_the_end_of_short_ones() {
    let long = batv::BatvParams { mac: batv::MacLength::Long, ..batv::BatvParams::default() };
    let signed = batv::sign(&own(), &long, TODAY, &address("ann@our.example")).unwrap();
    assert_eq!(batv::Prvs::parse(signed.address().local()).unwrap().hex.len(), 16);
    let keys = [own()];
    assert!(matches!(batv::verify(&keys, &long, TODAY, signed.address()), Verdict::Valid(_)));
    // Short tags are valid only for keys that have signed short tags.
    let short = batv("ann@our.example");
    assert!(matches!(batv::verify(&keys, &long, TODAY, &short), Verdict::Valid(_)));
    let never_short = [Key { short_tags: false, ..own() }];
    assert!(matches!(batv::verify(&never_short, &long, TODAY, &short), Verdict::Forged(_)));
}

#[test]
fn an_srs1_that_leads_to_no_address_is_wrapped() {
    let params = srs::SrsParams::default();
    for sender in
        ["SRS1=AAAA=else%example==BBBB=JQ=third.example=bob@forwarder.example", "SRS1=AAAA==rest@forwarder.example"]
    {
        let Ok(srs::Forwarded::Rewritten(signed)) = srs::forward(&own(), &params, TODAY, &address(sender), ALIAS)
        else {
            panic!("{sender}")
        };
        assert!(signed.address().as_str().starts_with("SRS0="), "{}", signed.address());
        match srs::verify(&[own()], &params, TODAY, signed.address()) {
            Verdict::Valid(found) => assert_eq!(found.address().as_str(), sender),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_domain_with_an_equals_sign_has_no_srs_address() {
    let sender = address("bob@[x:a=b]");
    let forwarded = srs::forward(&own(), &srs::SrsParams::default(), TODAY, &sender, ALIAS);
    assert_eq!(forwarded, Err(srs::SrsError::EqualsInDomain));
    assert_eq!(batv::strip(&batv("ann@[x:a=b]")).unwrap(), address("ann@[x:a=b]"), "a prvs tag has no such trouble");
}

#[test]
fn lengths_of_srs_hashes_are_exact() {
    let signed = srs("bob@else.example");
    let longer = srs::SrsParams { hash_length: 8, hash_min: 8, ..srs::SrsParams::default() };
    assert!(matches!(srs::verify(&[own()], &longer, TODAY, &signed), Verdict::Forged(_)));
    let moving = srs::SrsParams { hash_length: 8, hash_min: 6, ..srs::SrsParams::default() };
    assert!(matches!(srs::verify(&[own()], &moving, TODAY, &signed), Verdict::Valid(_)));
}

#[test]
fn a_longer_lifetime_of_the_past_is_honoured() {
    let ten = batv::BatvParams { lifetime: 10, ..batv::BatvParams::default() };
    let signed = batv::sign(&own(), &ten, TODAY, &address("ann@our.example")).unwrap();
    let seven = batv::BatvParams::default();
    let now = [own()];
    assert!(matches!(batv::verify(&now, &seven, TODAY, signed.address()), Verdict::Future(_)));
    let was_ten = [Key { longest_lifetime: 10, ..own() }];
    assert!(matches!(batv::verify(&was_ten, &seven, TODAY, signed.address()), Verdict::Valid(_)));
}

prop_compose! {
    /// Any content of a local part: atoms, dots, equals signs, quotes, spaces, UTF-8.
    fn any_address()(content in "[ -~äß用]{1,40}", domain in "[a-zA-Z0-9-]{1,20}(\\.[a-zA-Z0-9]{1,10}){1,3}") -> Address {
        Address::from_content(&content, &domain).unwrap()
    }
}

proptest! {
    #[test]
    fn signing_and_verifying_is_the_identity(address in any_address(), age in 0i64..=7) {
        let signed = batv::sign(&own(), &batv::BatvParams::default(), TODAY, &address).unwrap();
        match batv::verify(&[own()], &batv::BatvParams::default(), TODAY.plus(age), signed.address()) {
            Verdict::Valid(found) => prop_assert_eq!(found.address(), &address),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn forwarding_and_reversing_is_the_identity(address in any_address(), age in 0i64..=21) {
        let params = srs::SrsParams { always_rewrite: true, ..srs::SrsParams::default() };
        // A content that is a malformed SRS1 cannot be forwarded; the rules wrap it in another way.
        if let Ok(srs::Forwarded::Rewritten(signed)) = srs::forward(&own(), &params, TODAY, &address, ALIAS) {
            match srs::verify(&[own()], &params, TODAY.plus(age), signed.address()) {
                Verdict::Valid(found) => prop_assert!(found.address().same_mailbox(&address)),
                other => prop_assert!(false, "{:?} {:?}", signed, other),
            }
        }
    }

    #[test]
    fn reading_never_panics(text in "(prvs=|SRS0|SRS1|srs0=|PRVS=1)?[-+=0-9a-fA-Z\"\\\\.@ ]{0,60}", day in 0i64..90_000) {
        if let Ok(address) = Address::parse(&format!("{text}@our.example")) {
            verify(&address, Day(day));
        }
        let _ = (batv::Prvs::parse(&text), srs::Srs::parse(&text));
    }
}
