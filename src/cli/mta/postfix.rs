//! The settings of a Postfix instance, as `postconf` prints them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tools::{ask, names, program};
use crate::config::Endpoint;

/// The parameters that are read.
const PARAMETERS: [&str; 53] = [
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
    "smtpd_milters",
    "smtpd_proxy_filter",
    "smtpd_proxy_options",
    "smtpd_recipient_restrictions",
    "smtpd_reject_unlisted_recipient",
    "smtpd_relay_restrictions",
    "transport_maps",
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
            None if table.starts_with('/') => std::fs::read_to_string(table).ok().map(|text| pairs(&text)),
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

/// The tables in a setting. White space and commas within braces belong to a table.
pub(in crate::cli) fn tables_of(setting: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = setting.split(move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(c, ' ' | ',' | '\t')
    });
    parts.filter(|table| !table.is_empty()).collect()
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

/// A milter in `smtpd_milters` or `non_smtpd_milters`, with the settings that Postfix 3.0 and later take in braces.
pub(in crate::cli) struct MilterEntry<'a> {
    /// Where it listens, as Postfix writes it.
    pub endpoint: &'a str,
    settings: Vec<(&'a str, &'a str)>,
}

impl MilterEntry<'_> {
    /// A setting of its own, such as `default_action`.
    pub(in crate::cli) fn own(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The milters in a setting.
pub(in crate::cli) fn milters(setting: &str) -> Vec<MilterEntry<'_>> {
    let one = |word| {
        let bare: &str = word;
        let inner = bare.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(bare);
        let mut words = inner.split([' ', ',', '\t']).filter(|word| !word.is_empty());
        let endpoint = words.next().unwrap_or_default();
        MilterEntry { endpoint, settings: words.filter_map(|word| word.split_once('=')).collect() }
    };
    tables_of(setting).into_iter().map(one).collect()
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

/// Whether a setting contains a domain as a whole word.
pub(in crate::cli) fn has_domain(setting: &str, domain: &str) -> bool {
    setting
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_')))
        .any(|word| word.eq_ignore_ascii_case(domain))
}

/// The networks and addresses in a list. Entries of other forms, such as tables, are skipped.
pub(in crate::cli) fn networks(list: &str) -> impl Iterator<Item = ipnet::IpNet> {
    list.split([' ', ',', '\t']).filter_map(|word| {
        let bare = word.replace(['[', ']'], "");
        bare.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(Into::into))
    })
}

/// Parses a time such as `5d` or `120h` into whole days, rounded up. Without a unit, it is in days.
pub(in crate::cli) fn days(text: &str) -> Option<u16> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milters_have_settings_of_their_own() {
        let all =
            milters("inet:localhost:8891, {unix:countersign/milter,default_action=tempfail} { inet:a:1, protocol=6 }");
        let named: Vec<(&str, Option<&str>)> = all.iter().map(|it| (it.endpoint, it.own("default_action"))).collect();
        assert_eq!(
            named,
            [("inet:localhost:8891", None), ("unix:countersign/milter", Some("tempfail")), ("inet:a:1", None)]
        );
        assert_eq!(all[2].own("protocol"), Some("6"));
        assert!(milters("").is_empty());
    }

    #[test]
    fn tables_are_told_apart() {
        assert_eq!(
            tables_of("inline:{ {a@b = c}, {d = e} }, hash:/etc/x  static:all"),
            ["inline:{ {a@b = c}, {d = e} }", "hash:/etc/x", "static:all"]
        );
        assert!(tables_of("").is_empty());
    }

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
