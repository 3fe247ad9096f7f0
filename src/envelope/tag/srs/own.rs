//! SRS with own keys: a hash over separated fields, the full day and the SRS domain, in base32.

use super::form::{KeyAnswer, Srs, SrsError, SrsParams, dated, onward, undated, unproven};
use crate::envelope::address::{Address, canonical_domain};
use crate::envelope::keyring::{Key, KeyState};
use crate::envelope::tag::alias::{Alias, is_alias_host};
use crate::envelope::tag::verdict::{AliasTag, SignError};
use crate::envelope::tag::{Verdict, mac};
use crate::envelope::time::{Day, SrsStamp};

pub(super) fn forward(
    key: &Key,
    params: &SrsParams,
    today: Day,
    sender: &Address,
    alias: &str,
) -> Result<Address, SrsError> {
    let content = sender.content();
    let hash_of = |mac: [u8; 32]| base32_prefix(&mac, params.hash_length);
    let sep = params.separator;
    // An SRS1 that is malformed, or does not lead to an address, cannot be forwarded. It is wrapped like any other
    // local part.
    let leads_back = |(host, rest): &(&str, &str)| Address::from_content(&format!("SRS0{rest}"), host).is_ok();
    let local = match onward(&content, sender.domain()).unwrap_or(None).filter(leads_back) {
        Some((host, rest)) => {
            let hash = hash_of(own_srs1(key, host, rest, alias));
            format!("SRS1{sep}{hash}={host}={rest}")
        }
        None => {
            if is_alias_host(sender.domain()) {
                return Err(SrsError::AliasHost);
            }
            srs0_local(key, params, today, sender.domain(), &content, alias)
        }
    };
    Ok(Address::from_content(&local, alias).map_err(SignError::from)?)
}

/// The local part of an SRS0 address.
pub(super) fn srs0_local(key: &Key, params: &SrsParams, today: Day, host: &str, user: &str, alias: &str) -> String {
    let hash = base32_prefix(&own_srs0(key, today, host, user, alias), params.hash_length);
    format!("SRS0{}{hash}={}={host}={user}", params.separator, today.srs())
}

pub(super) fn verify(key: &Key, params: &SrsParams, today: Day, form: &Srs<'_>, alias: &str) -> KeyAnswer {
    if !form.complete() {
        return KeyAnswer::NotOfThisKind;
    }
    let accepted = |hash: &str| (params.hash_min..=params.hash_length).any(|n| hash.len() == usize::from(n));
    let holds = |hash: &str, mac: [u8; 32]| {
        let expected = base32_prefix(&mac, u8::try_from(hash.len()).unwrap_or(u8::MAX));
        accepted(hash) && mac::equal(expected.as_bytes(), hash.to_ascii_uppercase().as_bytes())
    };
    match *form {
        Srs::Zero { hash, stamp, host, user } => {
            let Some(signed_on) = SrsStamp::parse(stamp).map(|s| s.nearest(today)) else { return KeyAnswer::OtherHash };
            if !holds(hash, own_srs0(key, signed_on, host, user, alias)) {
                return KeyAnswer::OtherHash;
            }
            let alias = Alias::parse(host, user, signed_on);
            if is_alias_host(host) && alias.is_none() {
                return KeyAnswer::OtherHash;
            }
            let lifetime = i64::from(key.longest_srs_lifetime.max(params.lifetime));
            let tagged = dated(key, unproven(form), signed_on, lifetime);
            KeyAnswer::Decided(if key.state == KeyState::Retired || signed_on.plus(lifetime) < today {
                Verdict::Expired(tagged)
            } else if signed_on > today.plus(i64::from(params.clock_tolerance)) {
                Verdict::Future(tagged)
            } else {
                match alias {
                    Some(alias) => Verdict::Alias(AliasTag::new(alias, tagged)),
                    None => Verdict::valid(tagged),
                }
            })
        }
        Srs::One { hash, host, rest } => {
            if !holds(hash, own_srs1(key, host, rest, alias)) {
                return KeyAnswer::OtherHash;
            }
            KeyAnswer::Decided(undated(key, unproven(form)))
        }
    }
}

fn own_srs0(key: &Key, signed_on: Day, host: &str, user: &str, alias: &str) -> [u8; 32] {
    let day = signed_on.0.to_string();
    let fields =
        ["countersign srs0 1", &day, &canonical_domain(host), &user.to_ascii_lowercase(), &canonical_domain(alias)];
    mac::own(&key.secret, &fields)
}

fn own_srs1(key: &Key, host: &str, rest: &str, alias: &str) -> [u8; 32] {
    let fields = ["countersign srs1 1", &canonical_domain(host), &rest.to_ascii_lowercase(), &canonical_domain(alias)];
    mac::own(&key.secret, &fields)
}

/// The first characters of the MAC in base32, which does not depend on case.
fn base32_prefix(mac: &[u8], length: u8) -> String {
    let mut text = base32::encode(base32::Alphabet::Rfc4648 { padding: false }, mac);
    text.truncate(usize::from(length));
    text
}
