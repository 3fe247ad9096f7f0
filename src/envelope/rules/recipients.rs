//! What has to be found out about a recipient before the rules are queried: whether its client may be told, and whether
//! it exists.

use core::net::IpAddr;
use std::borrow::Cow;

use super::{Caller, Rules};
use crate::envelope::address::Address;
use crate::envelope::site_policy::RecipientSource;
use crate::envelope::tag::{Verdict, batv, srs};

/// Mailboxes that each domain has (RFC 5321 section 4.5.1, RFC 2142), so that an answer about them tells nothing.
pub(super) const ALWAYS_THERE: [&str; 2] = ["postmaster", "abuse"];

/// What was found out about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecipientFacts {
    /// Whether the client's network has found out about too many unknown recipients
    /// ([`Admission::Limited`](crate::envelope::abuse::Admission::Limited)).
    pub is_limited: bool,
    /// Whether the recipient exists; `None`: that is left to the next hop.
    pub existence: Option<Existence>,
}

/// Whether a recipient exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It exists.
    Known,
    /// It does not exist.
    Unknown,
    /// The server or file cannot answer now.
    Undecided,
}

/// The recipient as this caller delivers to it: an MTA delivers `ann@our.example.` to Ann.
pub(super) fn without_dot(caller: Caller, recipient: &Address) -> Cow<'_, Address> {
    let bare = recipient.as_str().strip_suffix('.').filter(|_| caller.is_mta());
    let bare = bare.and_then(|bare| Address::parse(bare).ok());
    bare.map_or(Cow::Borrowed(recipient), Cow::Owned)
}

impl Rules<'_> {
    /// Whether the answer about this recipient may tell the client who is a user here. The postmaster and abuse mailboxes
    /// exist everywhere, a valid tag was given out by this site, and a map does not answer clients.
    #[must_use]
    pub fn reveals_users(&self, caller: Caller, client: Option<IpAddr>, recipient: &Address) -> bool {
        let recipient = &*without_dot(caller, recipient);
        let is_watched = client.is_some_and(|client| !self.policy.inbound.trusted_relays.contains(client));
        if !is_watched || caller == Caller::Map || !self.has_users(recipient.domain()) {
            return false;
        }
        let content = recipient.content();
        let is_general = ALWAYS_THERE.iter().any(|name| content.eq_ignore_ascii_case(name));
        !is_general && !self.is_srs_address(recipient) && !self.has_valid_tag(recipient)
    }

    /// Where a recipient has to be looked up (`inbound.recipients`), and its address without a tag, in the one spelling of
    /// its domain and without quotes that are not needed. `None`: nowhere.
    #[must_use]
    pub fn recipient_to_look_up(&self, caller: Caller, recipient: &Address) -> Option<(RecipientSource, Address)> {
        let recipient = &*without_dot(caller, recipient);
        let sources = &self.policy.inbound.recipients;
        if sources.are_left_to_the_next_hop() || !self.has_users(recipient.domain()) || self.is_srs_address(recipient) {
            return None;
        }
        let bare = if self.policy.domains.is_local(recipient.domain()) { batv::strip(recipient) } else { None };
        let bare = bare.unwrap_or_else(|| recipient.clone());
        let bare = Address::from_content(&bare.content(), &bare.canonical_domain()).unwrap_or(bare);
        // RFC 5321 section 4.5.1 has it exist.
        let is_postmaster = bare.content().eq_ignore_ascii_case("postmaster");
        let source = sources.of(bare.domain());
        (!is_postmaster && source != RecipientSource::NextHop).then_some((source, bare))
    }

    fn has_users(&self, domain: &str) -> bool {
        self.policy.domains.is_local(domain) || self.policy.domains.relay.contains(domain)
    }

    fn is_srs_address(&self, recipient: &Address) -> bool {
        self.policy.domains.srs.contains(recipient.domain()) && srs::looks_tagged(&recipient.content())
    }

    fn has_valid_tag(&self, recipient: &Address) -> bool {
        self.policy.domains.is_local(recipient.domain())
            && batv::strip(recipient).is_some()
            && matches!(batv::verify(self.ring.keys(), &self.policy.batv, self.now.day(), recipient), Verdict::Valid(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::abuse::Memory;
    use crate::envelope::address::ReversePath;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::match_lists::{AliasDomains, DomainSet};
    use crate::envelope::rules::{Disposition, OutboundAction};
    use crate::envelope::site_policy::{InboundMode, Policy, RecipientSources};
    use crate::envelope::time::Timestamp;

    const NOW: Timestamp = Timestamp(1_795_382_400);

    fn site() -> (Policy, Keyring) {
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        let mut policy = Policy::default();
        policy.domains.local.insert("our.example");
        policy.domains.local.insert("branch.example");
        policy.domains.relay.insert("other.example");
        policy.domains.srs = AliasDomains::one("srs.our.example");
        policy.inbound.mode = InboundMode::Enforce;
        policy.inbound.recipients = RecipientSources::new(
            RecipientSource::File(0),
            vec![(DomainSet::from_iter(["branch.example"]), RecipientSource::NextHop)],
        );
        policy.inbound.trusted_relays = "198.51.100.0/24".parse::<ipnet::IpNet>().into_iter().collect();
        (policy, Keyring::create(key, NOW).unwrap())
    }

    fn signed(rules: &Rules<'_>, sender: &str) -> Address {
        let sender = ReversePath::parse(sender).unwrap();
        match rules.outbound(None, &sender, None).action {
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => signed.address().clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn users_are_revealed_to_strangers_who_ask_for_them() {
        let (policy, ring) = site();
        let rules = Rules::new(&policy, &ring, NOW);
        let stranger = Some([192, 0, 2, 1].into());
        let asks =
            |caller, client, recipient: &str| rules.reveals_users(caller, client, &Address::parse(recipient).unwrap());
        for recipient in ["ann@our.example", "ann@OUR.example", "x@other.example", "prvs=1786a1b2c3=ann@our.example"] {
            assert!(asks(Caller::Proxy, stranger, recipient), "{recipient}");
            assert!(asks(Caller::Milter, stranger, recipient) && asks(Caller::Policy, stranger, recipient));
            assert!(!asks(Caller::Map, stranger, recipient) && !asks(Caller::Proxy, None, recipient));
            assert!(!asks(Caller::Proxy, Some([198, 51, 100, 7].into()), recipient), "a trusted relay");
        }
        for recipient in ["x@else.example", "Postmaster@our.example", "abuse@our.example"] {
            assert!(!asks(Caller::Proxy, stranger, recipient), "{recipient}");
        }
        let (tagged, srs) = (signed(&rules, "ann@our.example"), signed(&rules, "bob@third.example"));
        assert!(!rules.reveals_users(Caller::Proxy, stranger, &tagged));
        assert!(!rules.reveals_users(Caller::Proxy, stranger, &srs));
    }

    #[test]
    fn recipients_are_looked_up_without_a_tag() {
        let (policy, ring) = site();
        let rules = Rules::new(&policy, &ring, NOW);
        let look_up = |recipient: &str| rules.recipient_to_look_up(Caller::Proxy, &Address::parse(recipient).unwrap());
        let ann = (RecipientSource::File(0), Address::parse("ann@our.example").unwrap());
        assert_eq!(look_up("ann@our.example"), Some(ann.clone()));
        assert_eq!(rules.recipient_to_look_up(Caller::Proxy, &signed(&rules, "ann@our.example")), Some(ann.clone()));
        for spelling in ["\"ann\"@our.example", "ann@OUR.Example", "ann@\u{ff4f}ur.example"] {
            assert_eq!(look_up(spelling), Some(ann.clone()), "{spelling}");
        }
        let dotted = Address::parse("ann@our.example.").unwrap();
        assert_eq!(rules.recipient_to_look_up(Caller::Policy, &dotted), Some(ann));
        assert!(rules.reveals_users(Caller::Milter, Some([192, 0, 2, 1].into()), &dotted));
        assert!(look_up("x@other.example").is_some());
        for recipient in ["x@branch.example", "x@else.example", "postmaster@our.example"] {
            assert_eq!(look_up(recipient), None, "{recipient}");
        }
        assert_eq!(rules.recipient_to_look_up(Caller::Proxy, &signed(&rules, "bob@third.example")), None);
    }

    #[test]
    fn what_was_found_out_decides_before_anything_else() {
        let (policy, ring) = site();
        let tagged = signed(&Rules::new(&policy, &ring, NOW), "ann@our.example");
        let client = Some([192, 0, 2, 1].into());
        let bob = ReversePath::parse("bob@else.example").unwrap();
        let (ann, other) = (Address::parse("ann@our.example").unwrap(), Address::parse("x@other.example").unwrap());
        let facts = |is_limited, existence| RecipientFacts { is_limited, existence };
        for caller in [Caller::Proxy, Caller::Milter, Caller::Policy] {
            for sender in [&ReversePath::Null, &bob] {
                for recipient in [&ann, &other, &tagged] {
                    let code = |facts| {
                        let rules = Rules::new(&policy, &ring, NOW).with_recipient(facts);
                        let memory = &mut Memory::default();
                        match rules.inbound_for(caller, memory, client, sender, recipient).disposition {
                            Disposition::Refuse(refusal) => (refusal.code, refusal.status),
                            _ => (250, ""),
                        }
                    };
                    assert_eq!(code(facts(false, None)), (250, ""), "{sender:?} {recipient}");
                    assert_eq!(code(facts(false, Some(Existence::Known))), (250, ""));
                    assert_eq!(code(facts(false, Some(Existence::Unknown))), (550, "5.1.1"));
                    assert_eq!(code(facts(false, Some(Existence::Undecided))), (451, "4.4.3"));
                    assert_eq!(code(facts(true, None)), (450, "4.7.1"));
                    assert_eq!(code(facts(true, Some(Existence::Unknown))), (450, "4.7.1"));
                }
            }
        }
    }
}
