//! Lists that the rules search: domains, addresses, networks, and the SRS domains for foreign senders.

use core::net::IpAddr;
use std::collections::HashSet;

use ipnet::IpNet;

use super::address::{Address, canonical_domain};

/// A set of domains. An entry is a single domain, or all subdomains of a domain.
///
/// ```
/// use countersign::envelope::match_lists::DomainSet;
///
/// let domains = DomainSet::from_iter(["our.example", ".branch.example"]);
/// assert!(domains.contains("OUR.example") && domains.contains("a.branch.example"));
/// assert!(!domains.contains("a.our.example") && !domains.contains("branch.example"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct DomainSet {
    exact: HashSet<String>,
    /// Parent domains, without the leading dot.
    below: HashSet<String>,
}

impl DomainSet {
    /// Adds the domain `our.example`, or its subdomains as `.our.example` or `*.our.example`.
    pub fn insert(&mut self, name: &str) {
        match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            Some(parent) => self.below.insert(canonical_domain(parent).into_owned()),
            None => self.exact.insert(canonical_domain(name).into_owned()),
        };
    }

    /// Whether a domain, in any spelling, is in the set.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        if self.exact.is_empty() && self.below.is_empty() {
            return false;
        }
        let domain = canonical_domain(domain);
        if self.exact.contains(domain.as_ref()) {
            return true;
        }
        let mut rest = domain.as_ref();
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// Whether a domain has an entry of its own.
    #[must_use]
    pub fn names_exactly(&self, domain: &str) -> bool {
        self.exact.contains(canonical_domain(domain).as_ref())
    }

    /// The entry that includes a domain, as written in a config: the domain itself, or `.parent`.
    #[must_use]
    pub fn entry(&self, domain: &str) -> Option<String> {
        let domain = canonical_domain(domain);
        if self.exact.contains(domain.as_ref()) {
            return Some(domain.into_owned());
        }
        let mut rest = domain.as_ref();
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return Some(format!(".{parent}"));
            }
            rest = parent;
        }
        None
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// All entries as written in a config, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let below = self.below.iter().map(|parent| format!(".{parent}"));
        let mut names: Vec<String> = self.exact.iter().cloned().chain(below).collect();
        names.sort_unstable();
        names
    }
}

/// Sorts entries of a table by domain, so that the first one that includes a domain is the one that says most about it:
/// the domain itself, then its nearest parent, then `*`.
pub fn most_specific_first<T>(entries: &mut [(String, T)]) {
    let rank = |name: &str| {
        let parent = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        let labels = parent.unwrap_or(name).split('.').count();
        (name == "*", parent.is_some(), core::cmp::Reverse(labels))
    };
    entries.sort_by_key(|(name, _)| rank(name));
}

impl<S: AsRef<str>> FromIterator<S> for DomainSet {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut set = Self::default();
        names.into_iter().for_each(|name| set.insert(name.as_ref()));
        set
    }
}

/// The SRS domains into which foreign senders are rewritten.
///
/// ```
/// use countersign::envelope::match_lists::AliasDomains;
///
/// let srs = AliasDomains::one("srs.our.example");
/// assert_eq!(srs.alias_for("third.example"), Some("srs.our.example"));
/// assert!(srs.contains("srs.our.example"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct AliasDomains {
    rules: Vec<(DomainSet, String)>,
    default: Option<String>,
    all: DomainSet,
}

impl AliasDomains {
    /// One SRS domain for all senders.
    #[must_use]
    pub fn one(alias: &str) -> Self {
        let mut domains = Self::default();
        domains.insert("*", alias);
        domains
    }

    /// Adds the SRS domain for senders of a domain; `*` means all other senders. The first matching entry counts.
    pub fn insert(&mut self, sender_domain: &str, alias: &str) {
        self.all.insert(alias);
        if sender_domain == "*" {
            self.default = Some(alias.to_owned());
        } else {
            self.rules.push((DomainSet::from_iter([sender_domain]), alias.to_owned()));
        }
    }

    /// The SRS domain for a sender; `None` if SRS is off for it.
    #[must_use]
    pub fn alias_for(&self, sender_domain: &str) -> Option<&str> {
        let special = self.rules.iter().find(|(domains, _)| domains.contains(sender_domain)).map(|(_, alias)| alias);
        special.or(self.default.as_ref()).map(String::as_str)
    }

    /// All SRS domains, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.all.names()
    }

    /// Whether a domain is one of the SRS domains.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        self.all.contains(domain)
    }

    /// Whether SRS is off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// A set of addresses. An entry is an address, a local part in every domain (`postmaster@`), or a domain
/// (`our.example`, `@our.example`, `.our.example`).
///
/// ```
/// use countersign::envelope::address::Address;
/// use countersign::envelope::match_lists::AddressSet;
///
/// let exempt = AddressSet::from_iter(["postmaster@", "ann@our.example", "@list.example"]);
/// for address in ["postmaster@any.example", "ann@our.example", "bob@list.example"] {
///     assert!(exempt.contains(&Address::parse(address)?));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AddressSet {
    whole: HashSet<(String, String)>,
    locals: HashSet<String>,
    domains: DomainSet,
}

impl AddressSet {
    /// Adds one entry; for its forms, see the type.
    pub fn insert(&mut self, entry: &str) {
        match entry.rsplit_once('@') {
            Some(("", domain)) => self.domains.insert(domain),
            Some((local, "")) => {
                self.locals.insert(local.to_ascii_lowercase());
            }
            Some((local, domain)) => {
                self.whole.insert((local.to_ascii_lowercase(), canonical_domain(domain).into_owned()));
            }
            None => self.domains.insert(entry),
        }
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.locals.is_empty() && self.domains.is_empty()
    }

    /// Domains in the set without a dot, which are probably local parts with a missing `@`.
    #[must_use]
    pub fn bare_words(&self) -> Vec<String> {
        self.domains.names().into_iter().filter(|name| !name.contains('.')).collect()
    }

    /// Whether an address is in the set, ASCII case ignored.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        if !self.locals.is_empty() || !self.whole.is_empty() {
            let local = address.content().to_ascii_lowercase();
            if self.locals.contains(&local) {
                return true;
            }
            if !self.whole.is_empty() && self.whole.contains(&(local, address.canonical_domain().into_owned())) {
                return true;
            }
        }
        self.domains.contains(address.domain())
    }
}

impl<S: AsRef<str>> FromIterator<S> for AddressSet {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut set = Self::default();
        entries.into_iter().for_each(|entry| set.insert(entry.as_ref()));
        set
    }
}

/// A list of networks.
///
/// ```
/// use countersign::envelope::match_lists::Networks;
///
/// let networks = Networks::from_iter(["192.0.2.0/24".parse()?]);
/// assert!(networks.contains("192.0.2.7".parse()?) && networks.contains("::ffff:192.0.2.7".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether an address is in one of the networks. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|net| net.contains(&client))
    }

    /// Whether all networks are loopback, and there is at least one.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|net| net.network().is_loopback() && net.broadcast().is_loopback())
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A network that is wider than a prefix of this length, in bits of IPv4 and of IPv6.
    #[must_use]
    pub fn wider_than(&self, v4: u8, v6: u8) -> Option<IpNet> {
        let least = |net: &IpNet| if net.addr().is_ipv4() { v4 } else { v6 };
        self.0.iter().find(|net| net.prefix_len() < least(net)).copied()
    }

    /// The networks as written in a config.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        Self(nets.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_says_most_about_a_domain_comes_first() {
        let names =
            ["*", ".our.example", "a.our.example", "*.b.our.example", ".example", "z.b.our.example", "our.example"];
        let mut table: Vec<(String, usize)> = names.iter().enumerate().map(|(n, name)| (name.to_string(), n)).collect();
        most_specific_first(&mut table);
        let sorted: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            sorted,
            ["z.b.our.example", "a.our.example", "our.example", "*.b.our.example", ".our.example", ".example", "*"]
        );
    }

    #[test]
    fn domains_and_their_subdomains() {
        let set = DomainSet::from_iter(["our.example", ".deep.example", "*.star.example", "bücher.example"]);
        for yes in [
            "our.example",
            "OUR.Example",
            "a.deep.example",
            "a.b.deep.example",
            "x.star.example",
            "xn--bcher-kva.example",
        ] {
            assert!(set.contains(yes), "{yes}");
        }
        for no in ["a.our.example", "deep.example", "star.example", "example", "our.example.", "xour.example", ""] {
            assert!(!set.contains(no), "{no}");
        }
        assert_eq!(set.entry("OUR.example").as_deref(), Some("our.example"));
        assert_eq!(set.entry("a.b.deep.example").as_deref(), Some(".deep.example"));
        assert_eq!(set.entry("deep.example"), None);
    }

    #[test]
    fn address_lists() {
        let set = AddressSet::from_iter(["postmaster@", "ann@our.example", "@list.example", ".sub.example"]);
        for yes in ["PostMaster@any.example", "Ann@OUR.example", "x@list.example", "x@a.sub.example"] {
            assert!(set.contains(&Address::parse(yes).unwrap()), "{yes}");
        }
        for no in ["bob@our.example", "ann@else.example", "x@sub.example"] {
            assert!(!set.contains(&Address::parse(no).unwrap()), "{no}");
        }
    }

    #[test]
    fn clients_by_network() {
        let nets: Networks = ["192.0.2.0/24", "2001:db8::/32"].iter().map(|n| n.parse().unwrap()).collect();
        assert!(nets.contains("192.0.2.9".parse().unwrap()));
        assert!(nets.contains("::ffff:192.0.2.9".parse().unwrap()));
        assert!(!nets.contains("192.0.3.9".parse().unwrap()));
        assert!(!nets.is_loopback());
    }
}
