//! SRS addresses that have an alias instead of a sender.

use super::form::{Srs, SrsParams};
use super::own;
use crate::envelope::address::Address;
use crate::envelope::keyring::{Algorithm, Key};
use crate::envelope::tag::alias::{ALIAS_HOST, Alias, is_alias_host};
use crate::envelope::tag::verdict::{SignError, Signed};

/// The SRS address that has an alias instead of a sender. `domain` is the SRS domain.
///
/// The address leads nowhere until a store has the alias and its sender.
///
/// # Errors
/// The result is not an address, because the domain is too long, or the key is not an own one.
pub fn forward_alias(key: &Key, params: &SrsParams, alias: &Alias, domain: &str) -> Result<Signed, SignError> {
    if key.algorithm != Algorithm::HmacSha256 {
        return Err(SignError::WrongKey(key.id.clone()));
    }
    let local = own::srs0_local(key, params, alias.day(), ALIAS_HOST, &alias.to_string(), domain);
    Ok(Signed::new(Address::from_content(&local, domain)?, key.id.clone()))
}

/// Whether a local part has the form of an alias. Nothing is proven.
#[must_use]
pub fn looks_like_alias(local: &str) -> bool {
    matches!(Srs::parse(local), Ok(Some(Srs::Zero { host, .. })) if is_alias_host(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::tag::Verdict;
    use crate::envelope::tag::srs::{SrsError, forward, verify};
    use crate::envelope::time::Day;

    const TODAY: Day = Day(20_779);
    const DOMAIN: &str = "srs.our.example";

    fn key() -> Key {
        Key::for_test("1", Algorithm::HmacSha256, &[7; 32])
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn an_alias_goes_out_and_comes_back_in_any_case() {
        let (keys, params) = ([key()], SrsParams::default());
        let sender = address("0102019a-7f0e1c2d-4b5a-4c3e-9f1a-2b3c4d5e6f70-000000@eu-west-1.amazonses.com");
        let alias = Alias::of(&keys[0], TODAY, &sender);
        let signed = forward_alias(&keys[0], &params, &alias, DOMAIN).unwrap();
        let text = signed.address().to_string();
        assert!(text.len() <= 64 + 1 + DOMAIN.len() && text.contains("=alias="), "{text}");
        for spelled in [text.clone(), text.to_lowercase(), text.to_uppercase()] {
            let verdict = verify(&keys, &params, TODAY.plus(21), &address(&spelled));
            let Verdict::Alias(tag) = verdict else { panic!("{spelled}: {verdict:?}") };
            assert_eq!(tag.alias(), &alias);
            let Verdict::Valid(found) = tag.stands_for(sender.clone()) else { panic!("it has an address") };
            assert_eq!(found.address(), &sender);
        }
        let late = verify(&keys, &params, TODAY.plus(22), signed.address());
        assert!(matches!(&late, Verdict::Expired(tagged) if tagged.bare.is_none()), "{late:?}");
    }

    #[test]
    fn a_changed_alias_is_forged() {
        let (keys, params) = ([key()], SrsParams::default());
        let alias = Alias::of(&keys[0], TODAY, &address("bob@third.example"));
        let text = forward_alias(&keys[0], &params, &alias, DOMAIN).unwrap().address().to_string();
        let other = Alias::of(&keys[0], TODAY, &address("eve@third.example"));
        let spliced = text.replace(&alias.to_string(), &other.to_string());
        assert!(matches!(verify(&keys, &params, TODAY, &address(&spliced)), Verdict::Forged(_)));
        // A name of another length is none that this site makes, whatever its hash.
        let short = own::srs0_local(&keys[0], &params, TODAY, ALIAS_HOST, "ABCD", DOMAIN);
        let verdict = verify(&keys, &params, TODAY, &address(&format!("{short}@{DOMAIN}")));
        assert!(matches!(verdict, Verdict::Forged(_)), "{verdict:?}");
    }

    #[test]
    fn one_name_for_one_sender_on_one_day() {
        let key = key();
        let bob = address("bob@third.example");
        assert_eq!(Alias::of(&key, TODAY, &bob), Alias::of(&key, TODAY, &bob));
        let others = [
            Alias::of(&key, TODAY.plus(1), &bob),
            Alias::of(&key, TODAY, &address("Bob@third.example")),
            Alias::of(&Key::for_test("2", Algorithm::HmacSha256, &[8; 32]), TODAY, &bob),
        ];
        assert!(others.iter().all(|other| *other != Alias::of(&key, TODAY, &bob)));
        let alias = Alias::of(&key, TODAY, &bob);
        assert!(alias.key().starts_with(&Alias::first_key_of(TODAY)));
        assert!(alias.key() < others[0].key());
    }

    #[test]
    fn a_sender_whose_domain_is_alias_is_not_written_like_one() {
        let error = forward(&key(), &SrsParams::default(), TODAY, &address("abcdefghijklmnop@alias"), DOMAIN);
        assert_eq!(error, Err(SrsError::AliasHost));
    }
}
