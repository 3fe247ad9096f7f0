//! The settings of a Postfix instance, as `postconf` prints them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::lists::tables_of;
use super::tools::{ask, names, program};
use crate::config::Endpoint;

/// The parameters that are read.
const PARAMETERS: [&str; 56] = [
    "access_map_reject_code",
    "bounce_queue_lifetime",
    "cleanup_service_name",
    "content_filter",
    "default_process_limit",
    "default_transport",
    "header_checks",
    "internal_mail_filter_classes",
    "local_recipient_maps",
    "alias_maps",
    "forward_path",
    "luser_relay",
    "mail_owner",
    "master_service_disable",
    "maximal_queue_lifetime",
    "milter_default_action",
    "milter_protocol",
    "mydestination",
    "myhostname",
    "mynetworks",
    "nested_header_checks",
    "non_smtpd_milters",
    "receive_override_options",
    "recipient_canonical_classes",
    "recipient_canonical_maps",
    "in_flow_delay",
    "relay_domains",
    "relay_recipient_maps",
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
    "smtpd_milter_maps",
    "smtpd_milters",
    "smtpd_proxy_filter",
    "smtpd_proxy_options",
    "smtpd_recipient_restrictions",
    "smtpd_reject_unlisted_recipient",
    "smtpd_relay_restrictions",
    "smtpd_tls_wrappermode",
    "transport_maps",
    "parent_domain_matches_subdomains",
    "queue_directory",
    "virtual_alias_domains",
    "virtual_alias_maps",
    "virtual_mailbox_domains",
    "virtual_mailbox_maps",
];

/// The settings of a Postfix instance.
pub(in crate::cli) struct Postfix {
    /// The values of all `PARAMETERS`: from main.cf, or Postfix's defaults.
    pub main: BTreeMap<String, String>,
    /// The parameters that main.cf sets, as they are written, with `$` in them.
    pub set: BTreeMap<String, String>,
    pub services: Vec<MasterService>,
    /// The folder of main.cf.
    pub place: PathBuf,
}

/// Kinds of tables that are in files, or in the setting itself. Others are servers, or tables of this machine.
const STATIC_TABLES: [&str; 10] =
    ["btree", "cdb", "hash", "inline", "lmdb", "pcre", "regexp", "static", "texthash", "dbm"];

/// A service in master.cf.
pub(in crate::cli) struct MasterService {
    pub name: String,
    /// `inet`, `unix`, `pass`, …
    pub kind: String,
    /// The limit of processes; `-`: `default_process_limit` applies.
    pub max_processes: String,
    pub command: String,
    /// Parameters that are overridden with `-o`.
    pub own: BTreeMap<String, String>,
    /// The same as they are written, with `$` in them.
    pub raw: BTreeMap<String, String>,
}

/// Service names that master.cf may have in place of port numbers (services(5)).
const PORTS: [(&str, &str); 4] = [("smtp", "25"), ("submission", "587"), ("submissions", "465"), ("smtps", "465")];

impl MasterService {
    /// Whether the service listens on TCP.
    pub(in crate::cli) fn is_inet(&self) -> bool {
        self.kind == "inet"
    }

    /// Its name and kind, as `postconf -M` and `-P` take them.
    pub(in crate::cli) fn key(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }

    /// Whether only programs of this machine reach it.
    pub(in crate::cli) fn is_on_loopback(&self) -> bool {
        ["127.", "[::1]", "localhost:"].iter().any(|local| self.name.starts_with(local))
    }

    /// Whether it is known that a content filter hands mail back here: it is on loopback, sends nothing to a filter itself,
    /// and leaves out what has been done before.
    pub(in crate::cli) fn takes_mail_back(&self) -> bool {
        let is_empty = |name: &str| self.own.get(name).is_some_and(String::is_empty);
        let leaves_out = self.own.contains_key("receive_override_options")
            || is_empty("local_recipient_maps")
            || self.own.contains_key("smtpd_authorized_xforward_hosts");
        self.is_on_loopback() && is_empty("content_filter") && leaves_out
    }

    /// The port on which the service listens; `None` if it does not use TCP.
    pub(in crate::cli) fn port(&self) -> Option<&str> {
        let name = self.name.rsplit(':').next().filter(|_| self.is_inet())?;
        Some(PORTS.iter().find(|(known, _)| *known == name).map_or(name, |(_, port)| port))
    }

    /// Whether the service listens on this address and port of Countersign.
    pub(in crate::cli) fn takes(&self, endpoint: &Endpoint) -> bool {
        let Endpoint::Tcp { host, port } = endpoint else { return false };
        let own = self.name.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
        // Without a host, a service listens on all addresses that inet_interfaces allows.
        let everywhere = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let local = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let same =
            own.is_none_or(|own| own == host || everywhere(host) || everywhere(own) || (local(own) && local(host)));
        same && self.port() == Some(port.to_string().as_str())
    }
}

impl Postfix {
    pub(in crate::cli) fn read(place: &Path) -> Result<Self> {
        let postconf = program(&["postconf"]).context("postconf is not here; run this where Postfix is")?;
        let asked = |options: &[&str]| {
            ask(&postconf, ["-c".as_ref(), place.as_os_str()].into_iter().chain(options.iter().map(AsRef::as_ref)))
        };
        let mut services = services(&asked(&["-M"])?);
        let (own, raw) = (overridden(&asked(&["-xP"])?), overridden(&asked(&["-P"])?));
        for service in &mut services {
            let of = |all: &Overridden| all.get(&service.key()).cloned().unwrap_or_default();
            (service.own, service.raw) = (of(&own), of(&raw));
        }
        Ok(Self {
            main: settings(&asked(&[["-x"].as_slice(), &PARAMETERS].concat())?),
            set: settings(&asked(&["-n"])?),
            services,
            place: place.to_owned(),
        })
    }

    /// What the first table of a list finds for a key. Tables that are not in files are not asked.
    pub(in crate::cli) fn look_up(&self, tables: &str, key: &str) -> Option<String> {
        let postmap = program(&["postmap"])?;
        tables_of(tables).into_iter().find_map(|table| {
            let kind = table.split(':').next().unwrap_or_default();
            let place = ["-c".as_ref(), self.place.as_os_str()].into_iter();
            let query = ["-q", key, table].into_iter().map(AsRef::as_ref);
            // Without a result, the exit status is 1.
            STATIC_TABLES.contains(&kind).then(|| ask(&postmap, place.chain(query)).ok()).flatten()
        })
    }

    /// The keys of a table, or the entries of a file of names; `None` if it cannot be listed.
    pub(in crate::cli) fn keys(&self, table: &str) -> Option<Vec<String>> {
        Some(self.entries(table)?.into_iter().map(|(key, _)| key).collect())
    }

    /// The entries of a table, each with its value; `None` if it cannot be listed.
    pub(in crate::cli) fn entries(&self, table: &str) -> Option<Vec<(String, String)>> {
        let table = table.strip_prefix("proxy:").unwrap_or(table);
        let pairs = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with([' ', '\t', '#']) && !line.trim().is_empty());
            let pair = |line: &str| {
                let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                // Of alias(5), a colon stands behind the key.
                (key.trim_end_matches(':').to_owned(), value.trim().to_owned())
            };
            lines.map(pair).collect()
        };
        match table.split_once(':') {
            // A file of names: any number of them in a line (postconf(5), mydestination).
            None if table.starts_with('/') => {
                let text = std::fs::read_to_string(table).ok()?;
                let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
                let names = lines.flat_map(|line| line.split([',', ' ', '\t'])).filter(|name| !name.is_empty());
                Some(names.map(|name| (name.to_owned(), String::new())).collect())
            }
            Some(("texthash", file)) => std::fs::read_to_string(file).ok().map(|text| pairs(&text)),
            Some(("inline", inner)) => {
                let entries = inner.trim_matches(['{', '}', ' ']).split(['{', '}', ',']);
                let pair =
                    |entry: &str| entry.split_once('=').map(|(key, value)| (key.trim().into(), value.trim().into()));
                Some(entries.filter_map(pair).collect())
            }
            Some(("hash" | "btree" | "cdb" | "lmdb" | "dbm" | "sdbm", _)) => {
                let arguments = ["-c".as_ref(), self.place.as_os_str(), "-s".as_ref(), table.as_ref()];
                ask(&program(&["postmap"])?, arguments).ok().map(|text| pairs(&text))
            }
            _ => None,
        }
    }

    /// The value of a parameter in main.cf, or its default.
    pub(in crate::cli) fn get(&self, parameter: &str) -> &str {
        debug_assert!(PARAMETERS.contains(&parameter), "{parameter}");
        self.main.get(parameter).map_or("", String::as_str)
    }

    /// A parameter as it is written in main.cf, with `$` in it; its default where main.cf does not set it.
    pub(in crate::cli) fn as_written(&self, parameter: &str) -> &str {
        self.set.get(parameter).map_or_else(|| self.get(parameter), String::as_str)
    }

    /// Whether this instance runs.
    pub(in crate::cli) fn is_running(&self) -> bool {
        let status =
            program(&["postfix"]).map(|it| ask(&it, ["-c".as_ref(), self.place.as_os_str(), "status".as_ref()]));
        status.is_some_and(|status| status.is_ok())
    }

    /// The value of a parameter for one service.
    pub(in crate::cli) fn of<'a>(&'a self, service: &'a MasterService, parameter: &str) -> &'a str {
        service.own.get(parameter).map_or_else(|| self.get(parameter), String::as_str)
    }

    /// The largest number of processes of a service; `None`: no limit.
    pub(in crate::cli) fn max_processes(&self, service: &MasterService) -> Option<usize> {
        let own = service.max_processes.parse().ok();
        own.or_else(|| self.get("default_process_limit").parse().ok()).filter(|limit| *limit > 0)
    }

    pub(in crate::cli) fn running<'a>(&'a self, command: &'a str) -> impl Iterator<Item = &'a MasterService> {
        self.services.iter().filter(move |service| service.command == command)
    }

    /// The smtpd that listens on this port of the local machine.
    pub(in crate::cli) fn listening(&self, endpoint: &Endpoint) -> Option<&MasterService> {
        let Endpoint::Tcp { port, .. } = endpoint else { return None };
        let port = port.to_string();
        self.running("smtpd").find(|service| service.port() == Some(port.as_str()))
    }

    /// The smtpd services to which strangers may send mail: those on port 25, behind postscreen if it is there, or
    /// without such a one, those that are not for submission.
    pub(in crate::cli) fn facing_strangers(&self) -> Vec<&MasterService> {
        let is_25 = |service: &&MasterService| service.port() == Some("25");
        let has_postscreen = self.running("postscreen").any(|service| is_25(&service));
        let all = self.running("smtpd").filter(|it| is_25(it) || (has_postscreen && it.kind == "pass"));
        let all: Vec<&MasterService> = all.collect();
        if !all.is_empty() {
            return all;
        }
        let is_for_users = |service: &MasterService| matches!(service.port(), Some("465" | "587"));
        let others = self.running("smtpd").filter(|service| service.port().is_some() && !service.is_on_loopback());
        others.filter(|service| !is_for_users(service)).collect()
    }

    /// Whether some content filter is in use, by `content_filter` or by an access table that says FILTER.
    pub(in crate::cli) fn has_filter(&self) -> bool {
        let is_set = |value: Option<&String>| value.is_some_and(|filter| !filter.is_empty());
        let says_filter = |value: &String| value.contains("FILTER");
        !self.get("content_filter").is_empty()
            || self.services.iter().any(|it| is_set(it.own.get("content_filter")))
            || self.set.values().chain(self.services.iter().flat_map(|it| it.own.values())).any(says_filter)
    }

    /// Whether an smtpd queries a milter. `no_milters` is for ports where mail returns from a filter.
    pub(in crate::cli) fn asks_milter(&self, service: &MasterService, listen: &Endpoint) -> bool {
        names(self.of(service, "smtpd_milters"), listen)
            && !self.of(service, "receive_override_options").contains("no_milters")
    }

    /// Whether users or the Internet send mail to this instance. An instance that only sends signed mail has no such
    /// port.
    pub(in crate::cli) fn is_where_mail_comes_in(&self) -> bool {
        self.running("smtpd").any(|service| service.port().is_some_and(|port| ["25", "465", "587"].contains(&port)))
    }
}

/// Parameters that master.cf overrides, by service.
type Overridden = BTreeMap<String, BTreeMap<String, String>>;

/// Reads lines such as `smtp/inet/content_filter = `.
fn overridden(text: &str) -> Overridden {
    let mut all = Overridden::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        // The name of a service may be a path.
        if let Some((service, parameter)) = key.trim().rsplit_once('/') {
            all.entry(service.to_owned()).or_default().insert(parameter.to_owned(), value.trim().to_owned());
        }
    }
    all
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
            kind: (*kind).to_owned(),
            max_processes: (*max_processes).to_owned(),
            command: (*command).to_owned(),
            own: BTreeMap::new(),
            raw: BTreeMap::new(),
        })
    };
    text.lines().filter(|line| !line.starts_with(' ')).filter_map(service).collect()
}
