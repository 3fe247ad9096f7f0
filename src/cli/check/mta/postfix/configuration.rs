//! What a Postfix is set to, as `postconf` shows it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::check::mta::finding::{ask, names, program};
use crate::config::Endpoint;

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
pub(super) struct Postfix {
    /// All parameters, with the default where main.cf does not set one.
    pub main: BTreeMap<String, String>,
    /// Those that main.cf sets.
    pub set: BTreeMap<String, String>,
    pub services: Vec<MasterService>,
}

/// A line of master.cf.
pub(super) struct MasterService {
    pub name: String,
    pub is_inet: bool,
    /// `-`: as `default_process_limit` says.
    pub max_processes: String,
    pub command: String,
    /// What `-o` says.
    pub own: BTreeMap<String, String>,
}

/// Ports that master.cf may call by name (services(5)).
const PORTS: [(&str, &str); 4] = [("smtp", "25"), ("submission", "587"), ("submissions", "465"), ("smtps", "465")];

impl MasterService {
    /// The port on which it listens, if that is over TCP.
    pub(super) fn port(&self) -> Option<&str> {
        let name = self.name.rsplit(':').next().filter(|_| self.is_inet)?;
        Some(PORTS.iter().find(|(known, _)| *known == name).map_or(name, |(_, port)| port))
    }

    /// Whether it listens where one of ours would.
    pub(super) fn takes(&self, endpoint: &Endpoint) -> bool {
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
    pub(super) fn read(place: &Path) -> Result<Self> {
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
    pub(super) fn get(&self, parameter: &str) -> &str {
        debug_assert!(PARAMETERS.contains(&parameter), "{parameter}");
        self.main.get(parameter).map_or("", String::as_str)
    }

    /// What holds for a service.
    pub(super) fn of<'a>(&'a self, service: &'a MasterService, parameter: &str) -> &'a str {
        service.own.get(parameter).map_or_else(|| self.get(parameter), String::as_str)
    }

    /// How many processes a service may have; `None`: any number.
    pub(super) fn max_processes(&self, service: &MasterService) -> Option<usize> {
        let own = service.max_processes.parse().ok();
        own.or_else(|| self.get("default_process_limit").parse().ok()).filter(|limit| *limit > 0)
    }

    pub(super) fn running<'a>(&'a self, command: &'a str) -> impl Iterator<Item = &'a MasterService> {
        self.services.iter().filter(move |service| service.command == command)
    }

    /// The smtpd that listens on a port of this machine.
    pub(super) fn listening(&self, endpoint: &Endpoint) -> Option<&MasterService> {
        let Endpoint::Tcp { port, .. } = endpoint else { return None };
        let port = port.to_string();
        self.running("smtpd").find(|service| service.port() == Some(port.as_str()))
    }

    /// Whether an smtpd asks a milter. `no_milters` is for ports where mail comes back from a filter.
    pub(super) fn asks_milter(&self, service: &MasterService, listen: &Endpoint) -> bool {
        names(self.of(service, "smtpd_milters"), listen)
            && !self.of(service, "receive_override_options").contains("no_milters")
    }

    /// Whether users or the world send to this instance: to one that only sends on what has been signed, none do.
    pub(super) fn is_where_mail_comes_in(&self) -> bool {
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

/// Whether a domain stands in a setting, by itself.
pub(super) fn has_domain(setting: &str, domain: &str) -> bool {
    setting
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_')))
        .any(|word| word.eq_ignore_ascii_case(domain))
}

/// The networks in a list, as far as they are written out.
pub(super) fn networks(list: &str) -> impl Iterator<Item = ipnet::IpNet> {
    list.split([' ', ',', '\t']).filter_map(|word| {
        let bare = word.replace(['[', ']'], "");
        bare.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(Into::into))
    })
}
