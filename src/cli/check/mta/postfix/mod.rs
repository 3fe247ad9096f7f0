//! Postfix, as `postconf` shows it.

mod askers;
mod proxies;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};

use self::askers::{maps, milter, policy, signed_before_the_queue};
use self::proxies::{inbound, is_behind, nobody_listens, outbound, sends_to_the_world};
use super::Finding::{self, Careful, Wrong};
use super::{ask, names, program};
use crate::config::{Config, Endpoint, Role, ServiceProtocol};

/// What is asked for.
const PARAMETERS: [&str; 39] = [
    "access_map_reject_code",
    "bounce_queue_lifetime",
    "cleanup_service_name",
    "content_filter",
    "default_process_limit",
    "default_transport",
    "master_service_disable",
    "maximal_queue_lifetime",
    "milter_default_action",
    "milter_protocol",
    "mydestination",
    "mynetworks",
    "non_smtpd_milters",
    "receive_override_options",
    "recipient_canonical_classes",
    "recipient_canonical_maps",
    "relay_domains",
    "relayhost",
    "sender_bcc_maps",
    "sender_canonical_classes",
    "sender_canonical_maps",
    "sender_dependent_default_transport_maps",
    "sender_dependent_relayhost_maps",
    "smtp_destination_recipient_limit",
    "smtp_sender_dependent_authentication",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtpd_authorized_xclient_hosts",
    "smtpd_client_connection_count_limit",
    "smtpd_client_restrictions",
    "smtpd_milters",
    "smtpd_proxy_filter",
    "smtpd_proxy_options",
    "smtpd_recipient_restrictions",
    "smtpd_reject_unlisted_recipient",
    "smtpd_relay_restrictions",
    "transport_maps",
    "virtual_alias_domains",
    "virtual_mailbox_domains",
];

/// What a Postfix is set to.
struct Postfix {
    /// All parameters, with the default where main.cf does not set one.
    main: BTreeMap<String, String>,
    /// Those that main.cf sets.
    set: BTreeMap<String, String>,
    services: Vec<MasterService>,
}

/// A line of master.cf.
struct MasterService {
    name: String,
    is_inet: bool,
    /// `-`: as `default_process_limit` says.
    max_processes: String,
    command: String,
    /// What `-o` says.
    own: BTreeMap<String, String>,
}

/// Ports that master.cf may call by name (services(5)).
const PORTS: [(&str, &str); 4] = [("smtp", "25"), ("submission", "587"), ("submissions", "465"), ("smtps", "465")];

impl MasterService {
    /// The port on which it listens, if that is over TCP.
    fn port(&self) -> Option<&str> {
        let name = self.name.rsplit(':').next().filter(|_| self.is_inet)?;
        Some(PORTS.iter().find(|(known, _)| *known == name).map_or(name, |(_, port)| port))
    }

    /// Whether it listens where one of ours would.
    fn takes(&self, endpoint: &Endpoint) -> bool {
        let Endpoint::Tcp { host, port } = endpoint else { return false };
        let own = self.name.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
        // Without a host it listens on all addresses, as far as inet_interfaces allows.
        let everywhere = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let local = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let same =
            own.is_none_or(|own| own == host || everywhere(host) || everywhere(own) || (local(own) && local(host)));
        same && self.port() == Some(port.to_string().as_str())
    }
}

impl Postfix {
    fn read(place: &Path) -> Result<Self> {
        let postconf = program(&["postconf"]).context("postconf is not here; run this where Postfix is")?;
        let asked = |options: &[&str]| {
            ask(&postconf, ["-c".as_ref(), place.as_os_str()].into_iter().chain(options.iter().map(AsRef::as_ref)))
        };
        let mut services = services(&asked(&["-M"])?);
        for line in asked(&["-xP"])?.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let mut words = key.trim().split('/');
            let (Some(name), Some(kind), Some(parameter)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let same = |service: &&mut MasterService| service.name == name && service.is_inet == (kind == "inet");
            if let Some(service) = services.iter_mut().find(same) {
                service.own.insert(parameter.to_owned(), value.trim().to_owned());
            }
        }
        Ok(Self {
            main: settings(&asked(&[["-x"].as_slice(), &PARAMETERS].concat())?),
            set: settings(&asked(&["-n"])?),
            services,
        })
    }

    /// What holds in `main.cf`.
    fn get(&self, parameter: &str) -> &str {
        debug_assert!(PARAMETERS.contains(&parameter), "{parameter}");
        self.main.get(parameter).map_or("", String::as_str)
    }

    /// What holds for a service.
    fn of<'a>(&'a self, service: &'a MasterService, parameter: &str) -> &'a str {
        service.own.get(parameter).map_or_else(|| self.get(parameter), String::as_str)
    }

    /// How many processes a service may have; `None`: any number.
    fn max_processes(&self, service: &MasterService) -> Option<usize> {
        let own = service.max_processes.parse().ok();
        own.or_else(|| self.get("default_process_limit").parse().ok()).filter(|limit| *limit > 0)
    }

    fn running<'a>(&'a self, command: &'a str) -> impl Iterator<Item = &'a MasterService> {
        self.services.iter().filter(move |service| service.command == command)
    }

    /// The smtpd that listens on a port of this machine.
    fn listening(&self, endpoint: &Endpoint) -> Option<&MasterService> {
        let Endpoint::Tcp { port, .. } = endpoint else { return None };
        let port = port.to_string();
        self.running("smtpd").find(|service| service.port() == Some(port.as_str()))
    }

    /// Whether an smtpd asks a milter. `no_milters` is for ports where mail comes back from a filter.
    fn asks_milter(&self, service: &MasterService, listen: &Endpoint) -> bool {
        names(self.of(service, "smtpd_milters"), listen)
            && !self.of(service, "receive_override_options").contains("no_milters")
    }

    /// Whether users or the world send to this instance: to one that only sends on what has been signed, none do.
    fn is_where_mail_comes_in(&self) -> bool {
        self.running("smtpd").any(|service| service.port().is_some_and(|port| ["25", "465", "587"].contains(&port)))
    }
}

fn settings(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

fn services(text: &str) -> Vec<MasterService> {
    let service = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, kind, max_processes, command) = (words.first()?, words.get(1)?, words.get(6)?, words.get(7)?);
        Some(MasterService {
            name: (*name).to_owned(),
            is_inet: *kind == "inet",
            max_processes: (*max_processes).to_owned(),
            command: (*command).to_owned(),
            own: BTreeMap::new(),
        })
    };
    text.lines().filter(|line| !line.starts_with(' ')).filter_map(service).collect()
}

/// All that is wrong, in the order of a message's way.
pub(super) fn findings(config: &Config, place: &Path) -> Result<Vec<Finding>> {
    let postfix = Postfix::read(place)?;
    let mut found = Vec::new();
    ports_of_ours(config, &postfix, &mut found);
    if let Some(listener) = config.listeners.iter().find(|listener| is_behind(listener, &postfix)) {
        sends_to_the_world(config, listener, &postfix, &mut found);
        return Ok(found);
    }
    for listener in &config.listeners {
        match listener.role {
            Role::Outbound => outbound(config, listener, &postfix, &mut found),
            Role::Inbound => inbound(listener, &postfix, &mut found),
        }
    }
    for advisor in &config.advisors {
        match advisor.advice {
            ServiceProtocol::Milter => milter(config, advisor, &postfix, &mut found),
            ServiceProtocol::Socketmap => maps(config, advisor, &postfix, &mut found),
            ServiceProtocol::Policy => policy(advisor, &postfix, &mut found),
        }
    }
    signed_before_the_queue(config, &postfix, &mut found);
    for next_hop in &config.srs_next_hop {
        nobody_listens(next_hop, "inbound.srs_next_hop", &postfix, &mut found);
    }
    domains(config, &postfix, &mut found);
    queue(config, &postfix, &mut found);
    Ok(found)
}

/// Services of Postfix on ports that Countersign is to listen on.
fn ports_of_ours(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listeners = config.listeners.iter().map(|listener| ("a listener", &listener.listen));
    let advisors = config.advisors.iter().map(|advisor| ("a listener", &advisor.listen));
    let status = config.status.iter().map(|listen| ("status.listen", listen));
    for (what, listen) in listeners.chain(advisors).chain(status) {
        for service in postfix.services.iter().filter(|service| service.takes(listen)) {
            found.push(Wrong(format!(
                "{} is a service of this Postfix itself ({}), and {what} of Countersign: who starts second does not start, and mail goes \
                 to the wrong one. Give Countersign another port",
                service.name, service.command
            )));
        }
    }
}

/// Are the domains ours to the mail server, too?
fn domains(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let mut lists = vec!["mydestination", "relay_domains", "virtual_mailbox_domains"];
    // Else it is virtual_alias_maps, whose keys are addresses for the most part.
    lists.extend(postfix.set.contains_key("virtual_alias_domains").then_some("virtual_alias_domains"));
    let words: Vec<&str> = lists.into_iter().flat_map(|list| postfix.get(list).split([' ', ',', '\t'])).collect();
    let mailboxes = ["mydestination", "virtual_mailbox_domains"].into_iter();
    for name in mailboxes.flat_map(|list| postfix.get(list).split([' ', ',', '\t'])) {
        let table = name.contains(':') || name.contains('/') || name.is_empty();
        let known = &config.policy.domains;
        let ours = known.is_local(name) || known.relay.contains(name) || known.srs.contains(name);
        if !table && !ours && !name.starts_with("localhost") {
            found.push(Careful(format!(
                "{name} has mailboxes here, and is not in domains.local: its mail is not signed, and bounces to it are not judged"
            )));
        }
    }
    // Tables are not looked into.
    if words.iter().any(|word| word.contains(':') || word.starts_with('/')) {
        return;
    }
    for name in config.policy.domains.srs.names() {
        if !words.iter().any(|word| word.eq_ignore_ascii_case(&name)) {
            found.push(Wrong(format!(
                "Postfix takes no mail for {name}, so bounces of forwarded mail are refused: relay_domains = {name}"
            )));
        }
    }
    for name in config.policy.domains.local.names().into_iter().filter(|name| !name.starts_with('.')) {
        if !words.iter().any(|word| word.eq_ignore_ascii_case(&name)) {
            found.push(Careful(format!("{name} is in domains.local, and Postfix here has no such domain")));
        }
    }
}

fn queue(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let kept = config.policy.inbound.queue_lifetime;
    let longest = ["maximal_queue_lifetime", "bounce_queue_lifetime"].into_iter();
    if let Some(days) = longest.filter_map(|name| days(postfix.get(name))).max().filter(|days| *days > kept) {
        found.push(Careful(format!(
            "Postfix keeps mail for {days} days (maximal_queue_lifetime), and batv.queue_lifetime is {kept}: set it to {days}"
        )));
    }
}

/// `5d`, `120h`, …: whole days, rounded up.
fn days(text: &str) -> Option<u16> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" | "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    u16::try_from(number.parse::<u64>().ok()?.checked_mul(seconds)?.div_ceil(86_400)).ok()
}

/// Whether a domain stands in a setting, by itself.
fn has_domain(setting: &str, domain: &str) -> bool {
    setting
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_')))
        .any(|word| word.eq_ignore_ascii_case(domain))
}

/// The networks in a list, as far as they are written out.
fn networks(list: &str) -> impl Iterator<Item = ipnet::IpNet> {
    list.split([' ', ',', '\t']).filter_map(|word| {
        let bare = word.replace(['[', ']'], "");
        bare.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(Into::into))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days() {
        for (text, want) in
            [("5d", Some(5)), ("1w", Some(7)), ("25h", Some(2)), ("0", Some(0)), ("x", None), ("", None)]
        {
            assert_eq!(days(text), want, "{text}");
        }
    }

    #[test]
    fn networks_are_read_as_postfix_writes_them() {
        let found: Vec<String> =
            networks("127.0.0.0/8 [::1]/128, 192.0.2.1 hash:/etc/x !10.0.0.1").map(|net| net.to_string()).collect();
        assert_eq!(found, ["127.0.0.0/8", "::1/128", "192.0.2.1/32"]);
    }
}
