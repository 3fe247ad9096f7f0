//! What the DNS says about a server and its domains: entries in block lists, and the policies SPF and DMARC. Pure: the
//! records are looked up elsewhere.

use core::fmt::Write as _;
use core::net::IpAddr;

use serde::Serialize;

use crate::envelope::printable::printable;

/// Block lists that list senders of bounces to strangers, or of mail to spam traps, by themselves and for a time.
pub(crate) const BLOCK_LISTS: [&str; 3] = ["ips.backscatterer.org", "bl.spamcop.net", "psbl.surriel.com"];
/// An address that no list may have, and one that each has (RFC 5782 section 5).
pub(crate) const NEVER_LISTED: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(127, 0, 0, 1));
pub(crate) const ALWAYS_LISTED: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(127, 0, 0, 2));

/// What the DNS says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Published {
    pub listings: Vec<Listing>,
    pub domains: Vec<DomainPolicy>,
    pub advice: Vec<String>,
}

/// An address in a block list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Listing {
    pub address: IpAddr,
    pub list: String,
    pub state: Listed,
    /// What the list says about the entry; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Whether an address is in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Listed {
    Yes,
    No,
    /// The list has not answered, or not as lists do.
    Unknown,
}

/// The policies of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DomainPolicy {
    pub domain: String,
    pub spf: Spf,
    pub dmarc: Dmarc,
}

/// What SPF says about other hosts (RFC 7208): the mechanism `all` of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Spf {
    /// `-all`
    Fail,
    /// `~all`
    SoftFail,
    /// `?all`, or a record without `all`
    Neutral,
    /// `+all`: every host may send
    Pass,
    /// The record of this domain counts.
    Redirect(String),
    /// There is no record.
    Missing,
    /// There are several records, which count as an error.
    Several,
    /// No name server has answered.
    Unknown,
}

/// What DMARC asks receivers to do with mail that is neither in line with SPF nor signed by DKIM (RFC 7489).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dmarc {
    Reject,
    Quarantine,
    /// `p=none`: nothing
    Nothing,
    /// There is no record.
    Missing,
    /// There are several records, or one without a policy. They count for nothing.
    Broken,
    /// No name server has answered.
    Unknown,
}

/// The name under which an address is looked up in a list (RFC 5782 section 2.1 and 2.4).
pub(crate) fn name_in(list: &str, address: IpAddr) -> String {
    let mut name = String::new();
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().iter().rev() {
                let _ = write!(name, "{octet}.");
            }
        }
        IpAddr::V6(address) => {
            for octet in address.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
        }
    }
    name + list
}

impl Listed {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Yes => "LISTED",
            Self::No => "not listed",
            Self::Unknown => "no answer",
        }
    }

    /// What an answer means. Lists answer within 127.0.0.0/8; 127.255.255.0/24 stands for an error, such as a name
    /// server that asks too much. `None`: no answer.
    pub(crate) fn of(answer: Option<&[IpAddr]>) -> Self {
        let Some(addresses) = answer else { return Self::Unknown };
        let octets = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        match addresses {
            [] => Self::No,
            all if all.iter().all(|it| matches!(octets(it), [127, a, b, _] if (a, b) != (255, 255))) => Self::Yes,
            _ => Self::Unknown,
        }
    }
}

impl Spf {
    /// The policy in the TXT records of a domain.
    pub(crate) fn of(records: &[String]) -> Self {
        let is_spf = |text: &str| {
            let text = text.to_ascii_lowercase();
            text == "v=spf1" || text.starts_with("v=spf1 ")
        };
        let mut found = records.iter().filter(|text| is_spf(text));
        let (Some(record), None) = (found.next(), found.next()) else {
            return if records.iter().any(|text| is_spf(text)) { Self::Several } else { Self::Missing };
        };
        let record = record.to_ascii_lowercase();
        for term in record.split_ascii_whitespace() {
            match term {
                "-all" => return Self::Fail,
                "~all" => return Self::SoftFail,
                "?all" => return Self::Neutral,
                "all" | "+all" => return Self::Pass,
                _ => {}
            }
        }
        let redirect = record.split_ascii_whitespace().find_map(|term| term.strip_prefix("redirect="));
        redirect.map_or(Self::Neutral, |domain| Self::Redirect(printable(domain).into_owned()))
    }

    fn words(&self) -> String {
        match self {
            Self::Fail => "-all".to_owned(),
            Self::SoftFail => "~all".to_owned(),
            Self::Neutral => "no all".to_owned(),
            Self::Pass => "+all".to_owned(),
            Self::Redirect(domain) => format!("redirect={domain}"),
            Self::Missing => "none".to_owned(),
            Self::Several => "several records".to_owned(),
            Self::Unknown => "no answer".to_owned(),
        }
    }
}

impl Dmarc {
    /// The policy in the TXT records of `_dmarc`. `of_subdomain`: the records are those of a domain above.
    pub(crate) fn of(records: &[String], of_subdomain: bool) -> Self {
        let is_dmarc = |text: &&String| text.trim_start().to_ascii_lowercase().starts_with("v=dmarc1");
        let mut found = records.iter().filter(is_dmarc);
        let record = match (found.next(), found.next()) {
            (None, _) => return Self::Missing,
            (Some(record), None) => record.to_ascii_lowercase(),
            (Some(_), Some(_)) => return Self::Broken,
        };
        let tag = |name: &str| {
            let tags = record.split(';').filter_map(|tag| tag.split_once('='));
            tags.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let policy = if of_subdomain { tag("sp").or_else(|| tag("p")) } else { tag("p") };
        match policy {
            Some("reject") => Self::Reject,
            Some("quarantine") => Self::Quarantine,
            Some("none") => Self::Nothing,
            _ => Self::Broken,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Reject => "p=reject",
            Self::Quarantine => "p=quarantine",
            Self::Nothing => "p=none",
            Self::Missing => "none",
            Self::Broken => "a record that counts for nothing",
            Self::Unknown => "no answer",
        }
    }
}

/// The names at which the DMARC record of a domain may be, from the domain up: at most five, and none of one label.
pub(crate) fn dmarc_names(domain: &str) -> Vec<String> {
    let labels: Vec<&str> = domain.split('.').collect();
    let from = (0..labels.len().saturating_sub(1)).filter(|n| *n == 0 || labels.len() - n <= 4).take(5);
    from.filter_map(|n| labels.get(n..)).map(|labels| format!("_dmarc.{}", labels.join("."))).collect()
}

impl DomainPolicy {
    /// Both policies in words.
    pub(crate) fn words(&self) -> String {
        format!("SPF {}, DMARC {}", self.spf.words(), self.dmarc.words())
    }

    /// What would make servers refuse mail that is forged as this domain.
    fn advice(&self) -> Option<String> {
        let domain = &self.domain;
        let lacks = match (self.dmarc, &self.spf) {
            (Dmarc::Unknown, _) | (_, Spf::Unknown) => return None,
            (Dmarc::Reject | Dmarc::Quarantine, Spf::Missing | Spf::Several | Spf::Pass) => {
                return Some(format!("{domain} has no SPF record that names its hosts: v=spf1 mx -all, for example"));
            }
            (Dmarc::Reject | Dmarc::Quarantine, _) => return None,
            (dmarc, _) => dmarc.words(),
        };
        Some(format!(
            "Fewer servers accept mail forged as {domain} if its DMARC record says p=reject (now {lacks}). First make sure \
             that all of your own mail is signed by DKIM or in line with SPF"
        ))
    }
}

impl Published {
    /// What was found, with what to do about it.
    pub(crate) fn of(listings: Vec<Listing>, domains: Vec<DomainPolicy>) -> Self {
        let mut listed: Vec<String> = Vec::new();
        for it in listings.iter().filter(|it| it.state == Listed::Yes) {
            let address = it.address.to_string();
            if !listed.contains(&address) {
                listed.push(address);
            }
        }
        let mut advice = Vec::new();
        if !listed.is_empty() {
            advice.push(format!(
                "{} is in a block list. Such entries end by themselves, some weeks after the last bounce to a stranger: \
                 docs/reverse-ndr.md, and countersign probe",
                listed.join(", ")
            ));
        }
        advice.extend(domains.iter().filter_map(DomainPolicy::advice));
        Self { listings, domains, advice }
    }

    /// Whether an address is in a list.
    pub(crate) fn is_listed(&self) -> bool {
        self.listings.iter().any(|it| it.state == Listed::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_looked_up_backwards() {
        assert_eq!(name_in("bl.example", [192, 0, 2, 25].into()), "25.2.0.192.bl.example");
        let v6: IpAddr = "2001:db8::19".parse().unwrap();
        assert_eq!(
            name_in("bl.example", v6),
            "9.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example"
        );
    }

    #[test]
    fn answers_of_lists() {
        let of = |octets: &[[u8; 4]]| Listed::of(Some(&octets.iter().map(|it| IpAddr::from(*it)).collect::<Vec<_>>()));
        assert_eq!(of(&[]), Listed::No);
        assert_eq!(of(&[[127, 0, 0, 2], [127, 0, 0, 10]]), Listed::Yes);
        // An error, and a domain that somebody has bought.
        assert_eq!(of(&[[127, 255, 255, 254]]), Listed::Unknown);
        assert_eq!(of(&[[203, 0, 113, 9]]), Listed::Unknown);
        assert_eq!(Listed::of(None), Listed::Unknown);
    }

    #[test]
    fn spf_records() {
        let of = |records: &[&str]| Spf::of(&records.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["v=spf1 mx -all"]), Spf::Fail);
        assert_eq!(of(&["hello", "V=SPF1 a ~ALL"]), Spf::SoftFail);
        assert_eq!(of(&["v=spf1 mx"]), Spf::Neutral);
        assert_eq!(of(&["v=spf1 ?all"]), Spf::Neutral);
        assert_eq!(of(&["v=spf1 all"]), Spf::Pass);
        assert_eq!(of(&["v=spf1 redirect=_spf.our.example"]), Spf::Redirect("_spf.our.example".into()));
        assert_eq!(of(&["v=spf1 -all", "v=spf1 ~all"]), Spf::Several);
        assert_eq!(of(&["v=spf10 -all"]), Spf::Missing);
        assert_eq!(of(&[]), Spf::Missing);
    }

    #[test]
    fn dmarc_records() {
        let of = |records: &[&str]| Dmarc::of(&records.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), false);
        assert_eq!(of(&["v=DMARC1; p=reject; rua=mailto:a@b"]), Dmarc::Reject);
        assert_eq!(of(&["v=DMARC1;p = Quarantine"]), Dmarc::Quarantine);
        assert_eq!(of(&["other", "v=DMARC1; p=none"]), Dmarc::Nothing);
        assert_eq!(of(&["v=DMARC1; rua=mailto:a@b"]), Dmarc::Broken);
        assert_eq!(of(&["v=DMARC1; p=none", "v=DMARC1; p=reject"]), Dmarc::Broken);
        assert_eq!(of(&["v=spf1 -all"]), Dmarc::Missing);
        let above = ["v=DMARC1; p=reject; sp=none".to_owned()];
        assert_eq!((Dmarc::of(&above, false), Dmarc::of(&above, true)), (Dmarc::Reject, Dmarc::Nothing));
    }

    #[test]
    fn a_record_may_be_above_its_domain() {
        assert_eq!(dmarc_names("our.example"), ["_dmarc.our.example"]);
        assert_eq!(dmarc_names("a.our.example"), ["_dmarc.a.our.example", "_dmarc.our.example"]);
        let deep = dmarc_names("a.b.c.d.e.f.our.example");
        assert_eq!(deep.first().unwrap(), "_dmarc.a.b.c.d.e.f.our.example");
        assert_eq!(deep.get(1).unwrap(), "_dmarc.e.f.our.example");
        assert_eq!(deep.last().unwrap(), "_dmarc.our.example");
        assert!(dmarc_names("localhost").is_empty() && dmarc_names("").is_empty());
    }

    #[test]
    fn advice_is_about_what_is_missing() {
        let advice = |spf: Spf, dmarc: Dmarc| {
            let domain = DomainPolicy { domain: "our.example".into(), spf, dmarc };
            Published::of(Vec::new(), vec![domain]).advice.concat()
        };
        assert!(advice(Spf::Fail, Dmarc::Nothing).contains("p=reject (now p=none)"));
        assert!(advice(Spf::Missing, Dmarc::Missing).contains("(now none)"));
        assert!(advice(Spf::Missing, Dmarc::Reject).contains("no SPF record"));
        assert_eq!(advice(Spf::SoftFail, Dmarc::Reject) + &advice(Spf::Fail, Dmarc::Unknown), "");
    }
}
