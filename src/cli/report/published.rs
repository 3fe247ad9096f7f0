//! Looks up what the DNS says about the server of a report and its domains.

use std::io::{self, IsTerminal as _};
use std::net::IpAddr;

use crate::cli::dns::Dns;
use crate::cli::interfaces::{is_public, own_addresses};
use crate::envelope::printable::printable;
use crate::mail_log::figures::Summary;
use crate::mail_log::published::{
    ALWAYS_LISTED, BLOCK_LISTS, Dmarc, DomainPolicy, Listed, Listing, NEVER_LISTED, Published, Spf, dmarc_names,
    name_in,
};

/// Addresses and domains that are looked up.
const MAX_ADDRESSES: usize = 8;
const MAX_DOMAINS: usize = 5;
/// The longest reason of an entry, in characters.
const MAX_REASON: usize = 160;

/// What is looked up, as it was typed.
pub(super) struct Subject<'a> {
    pub addresses: &'a [IpAddr],
    pub domains: &'a [String],
    /// Lists besides [`BLOCK_LISTS`].
    pub block_lists: &'a [String],
}

/// Looks everything up. What no name server answers is not known.
pub(super) fn look_up(dns: &Dns, subject: &Subject<'_>, summary: &Summary) -> Published {
    if io::stderr().is_terminal() {
        anstream::eprintln!(
            "Asking the DNS about block lists, SPF and DMARC. Lists that do not answer take some seconds each."
        );
    }
    let domains = domains(subject, summary);
    let addresses = addresses(dns, subject, &domains);
    let lists: Vec<&str> = BLOCK_LISTS.into_iter().chain(subject.block_lists.iter().map(String::as_str)).collect();
    let listings = lists.iter().flat_map(|list| of_list(dns, list, &addresses)).collect();
    Published::of(listings, domains.into_iter().map(|domain| policy(dns, domain)).collect())
}

/// The domains that are named, or those as which most bounces are forged.
fn domains(subject: &Subject<'_>, summary: &Summary) -> Vec<String> {
    let forged = summary.backscatter.forged_as.iter().filter_map(|named| named.name.rsplit_once('@'));
    let forged = forged.map(|(_, domain)| domain).filter(|domain| is_a_name(domain));
    let named = subject.domains.iter().map(String::as_str);
    let all: Vec<&str> = if subject.domains.is_empty() { forged.collect() } else { named.collect() };
    let mut domains: Vec<String> = Vec::new();
    for domain in all {
        let domain = domain.to_ascii_lowercase();
        if !domains.contains(&domain) && domains.len() < MAX_DOMAINS {
            domains.push(domain);
        }
    }
    domains
}

/// Whether a domain in a log can be looked up: a stranger may have written it.
fn is_a_name(domain: &str) -> bool {
    domain.len() < 254 && domain.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
}

fn addresses(dns: &Dns, subject: &Subject<'_>, domains: &[String]) -> Vec<IpAddr> {
    let mut all = subject.addresses.to_vec();
    if all.is_empty() {
        let hosts = domains.iter().flat_map(|domain| dns.mx(domain).unwrap_or_default());
        let of_hosts: Vec<IpAddr> = hosts.flat_map(|(_, host)| dns.addresses(&host).unwrap_or_default()).collect();
        all = own_addresses().into_iter().chain(of_hosts).filter(|address| is_public(*address)).collect();
    }
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in all {
        if !unique.contains(&address) && unique.len() < MAX_ADDRESSES {
            unique.push(address);
        }
    }
    unique
}

/// Looks addresses up in a list. A list is believed if it lists the address that each must have, and not the one that
/// none may have (RFC 5782 section 5).
fn of_list(dns: &Dns, list: &str, addresses: &[IpAddr]) -> Vec<Listing> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let state = |address: IpAddr| Listed::of(dns.ipv4(&name_in(list, address)).ok().as_deref());
    let works = state(ALWAYS_LISTED) == Listed::Yes && state(NEVER_LISTED) == Listed::No;
    let look_up = |address: &IpAddr| {
        let state = if works { state(*address) } else { Listed::Unknown };
        let reason = match state {
            Listed::Yes => dns.txt(&name_in(list, *address)).unwrap_or_default().join(" "),
            Listed::No | Listed::Unknown => String::new(),
        };
        let reason: String = printable(&reason).chars().take(MAX_REASON).collect();
        Listing { address: *address, list: list.to_owned(), state, reason }
    };
    addresses.iter().map(look_up).collect()
}

fn policy(dns: &Dns, domain: String) -> DomainPolicy {
    let spf = dns.txt(&domain).map_or(Spf::Unknown, |records| Spf::of(&records));
    let mut dmarc = Dmarc::Missing;
    for (n, name) in dmarc_names(&domain).iter().enumerate() {
        dmarc = dns.txt(name).map_or(Dmarc::Unknown, |records| Dmarc::of(&records, n > 0));
        if dmarc != Dmarc::Missing {
            break;
        }
    }
    DomainPolicy { domain, spf, dmarc }
}
