//! Settings by which mail is lost, goes round, or is sent for strangers. Each names the line to write.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cli::mta::WIDEST;
use crate::config::{Config, Endpoint, Listener, Role, listed};
use crate::envelope::match_lists::Networks;

/// All that is dangerous in a valid config.
pub(in crate::cli) fn all(config: &Config) -> Vec<String> {
    let mut found = domains(config);
    for listener in &config.listeners {
        found.extend(of_listener(listener));
    }
    for service in &config.mta_services {
        if let Some(network) = everybody(&service.clients) {
            found.push(format!(
                "{} answers everybody ({network}), so it signs for everybody: clients = [\"192.0.2.0/24\"] with the networks of your \
                 mail servers",
                service.listen
            ));
        }
        if let Some(network) = everybody(&service.outbound_clients) {
            found.push(format!(
                "{} treats mail of everybody ({network}) as yours, and signs it: outbound_clients = [\"192.0.2.0/24\"] with your own \
                 networks",
                service.listen
            ));
        }
    }
    found.extend(round(&config.listeners));
    found.extend(files(config));
    found
}

fn domains(config: &Config) -> Vec<String> {
    let domains = &config.policy.domains;
    let mut found = Vec::new();
    for (list, set) in [("local", &domains.local), ("relay", &domains.relay)] {
        for name in set.names() {
            // `*.com` and `.com` are kept as `.com`.
            let is_wide = name == "*" || name.strip_prefix('.').is_some_and(|parent| !parent.contains('.'));
            if is_wide {
                let shown = if name == "*" { name } else { format!("*{name}") };
                found.push(format!(
                    "domains.{list} has \"{shown}\": domains of others would be treated as yours, their senders signed and their mail \
                     accepted. Name your own: {list} = [\"our.example\"]"
                ));
            }
        }
    }
    for name in domains.local.names().into_iter().filter(|name| domains.relay.names_exactly(name)) {
        found.push(format!(
            "{name} is in domains.local and in domains.relay. Its senders are signed and bounces to it judged only if it is local: \
             remove it from one of them"
        ));
    }
    found
}

fn of_listener(listener: &Listener) -> Vec<String> {
    let mut found = Vec::new();
    if listener.role == Role::Outbound
        && let Some(network) = everybody(&listener.clients)
    {
        found.push(format!(
            "the outbound listener {} sends mail for everybody ({network}): an open relay, with your signature. clients = \
             [\"192.0.2.0/24\"] with the networks of your mail servers",
            listener.listen
        ));
    }
    if let Some(network) = everybody(&listener.trusted_proxies) {
        found.push(format!(
            "the listener {} believes everybody ({network}) who says to be another client: trusted_proxies = [\"192.0.2.7\"] with \
             your proxies alone",
            listener.listen
        ));
    }
    found
}

/// A network of the list that is wider than any site has.
fn everybody(networks: &Networks) -> Option<String> {
    networks.wider_than(WIDEST.0, WIDEST.1).map(|network| network.to_string())
}

/// Listeners whose mail comes back to them by way of the others.
fn round(listeners: &[Listener]) -> Vec<String> {
    let next = |listener: &Listener| -> Vec<usize> {
        let hops: Vec<&Endpoint> =
            listener.by_domain.iter().flat_map(|(_, hops)| hops).chain(&listener.next_hop).collect();
        let is_next = |it: &Listener| hops.iter().any(|hop| hop.leads_to(&it.listen));
        listeners.iter().enumerate().filter(|(_, it)| is_next(it)).map(|(n, _)| n).collect()
    };
    let ways: BTreeMap<usize, Vec<usize>> = listeners.iter().enumerate().map(|(n, it)| (n, next(it))).collect();
    for start in ways.keys() {
        let (mut reached, mut open) = (Vec::new(), ways.get(start).cloned().unwrap_or_default());
        while let Some(at) = open.pop() {
            if at == *start {
                let of = |n: &usize| listeners.get(*n).map(|it| it.listen.clone());
                let hop = listeners.get(*start).map(|it| listed(&it.next_hop)).unwrap_or_default();
                let Some(listen) = of(start) else { continue };
                return vec![format!(
                    "mail of the listener {listen} comes back to it through its next hop {hop}, and goes round for ever: one next_hop \
                     must be a mail server, which queues"
                )];
            }
            if !reached.contains(&at) {
                reached.push(at);
                open.extend(ways.get(&at).into_iter().flatten());
            }
        }
    }
    Vec::new()
}

/// The folder of the key ring.
fn files(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let folder =
        |path: &Path| path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let ring = folder(&config.ring);
    if let Ok(about) = fs::metadata(&ring) {
        let mode = about.permissions().mode();
        // With the sticky bit, others cannot replace a file.
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            found.push(format!(
                "{} can be written by every user, who may put in another key ring: chmod o-w {}",
                ring.display(),
                ring.display()
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a config, given without the ring. `{D}` is a folder of the test.
    fn dangers(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let d = folder.path().to_str().unwrap();
        let text = text.replace("{D}", d);
        let path = folder.path().join("countersign.toml");
        let config = Config::parse(&path, &text).unwrap();
        all(&config).into_iter().map(|line| line.replace(d, "{D}")).collect()
    }

    const OUT: &str =
        "[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:10725\"\nnext_hop = \"127.0.0.1:10726\"\n";

    #[test]
    fn a_good_config_has_no_danger() {
        let milter = "[[listener]]\nprotocol = \"milter\"\nrole = \"auto\"\nlisten = \"127.0.0.1:10729\"\n\
                      outbound_clients = [\"10.0.0.0/8\"]\n";
        let good = format!(
            "domains.local = [\"our.example\", \"*.our.example\"]\ndomains.relay = [\"branch.example\"]\n{OUT}\
             [[listener]]\nrole = \"inbound\"\nlisten = \"unix:{{D}}/in\"\nnext_hop = \"127.0.0.1:10728\"\n{}",
            if cfg!(feature = "milter") { milter } else { "" }
        );
        assert_eq!(dangers(&good), [""; 0]);
    }

    #[test]
    fn each_danger_is_named_with_the_line_to_write() {
        let ours = "domains.local = [\"our.example\"]\n";
        let cases = [
            ("domains.local = [\"*.com\"]\n".to_owned(), "domains.local has \"*.com\"", "local = [\"our.example\"]"),
            ("domains.local = [\".com\"]\n".to_owned(), "domains.local has \"*.com\"", "Name your own"),
            (
                "domains.local = [\"our.example\"]\ndomains.relay = [\"our.example\"]\n".to_owned(),
                "our.example is in domains.local and in domains.relay",
                "remove it from one",
            ),
            (
                format!("{ours}{OUT}clients = [\"0.0.0.0/0\"]\n"),
                "the outbound listener 127.0.0.1:10725 sends mail for everybody (0.0.0.0/0): an open relay",
                "clients = [\"192.0.2.0/24\"]",
            ),
            (format!("{ours}{OUT}clients = [\"::/0\"]\n"), "sends mail for everybody (::/0)", "clients = ["),
            (
                format!("{ours}{OUT}clients = [\"10.0.0.0/8\", \"64.0.0.0/2\"]\n"),
                "everybody (64.0.0.0/2)",
                "clients = [",
            ),
            (
                format!("{ours}{OUT}trusted_proxies = [\"0.0.0.0/0\"]\n"),
                "believes everybody (0.0.0.0/0)",
                "trusted_proxies = [\"192.0.2.7\"]",
            ),
            (
                format!(
                    "{ours}[[listener]]\nprotocol = \"policy\"\nlisten = \"127.0.0.1:10729\"\nclients = [\"0.0.0.0/0\"]\n"
                ),
                "127.0.0.1:10729 answers everybody",
                "clients = [",
            ),
            (
                format!(
                    "{ours}[[listener]]\nprotocol = \"milter\"\nrole = \"auto\"\nlisten = \"127.0.0.1:10729\"\n\
                     outbound_clients = [\"0.0.0.0/0\"]\n"
                ),
                "treats mail of everybody (0.0.0.0/0) as yours",
                "outbound_clients = [",
            ),
            (
                format!(
                    "{ours}{OUT}[[listener]]\nrole = \"inbound\"\nlisten = \"0.0.0.0:10726\"\nnext_hop = \"localhost:10725\"\n"
                ),
                "mail of the listener 127.0.0.1:10725 comes back to it through its next hop 127.0.0.1:10726",
                "one next_hop must be a mail server",
            ),
        ];
        for (text, what, write) in cases {
            if cfg!(not(feature = "milter")) && text.contains("milter") {
                continue;
            }
            let found = dangers(&text);
            assert!(found.len() == 1 && found[0].contains(what) && found[0].contains(write), "{text}\n{found:?}");
        }
    }

    #[test]
    fn a_ring_that_every_user_can_replace_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countersign.toml");
        let config = Config::parse(&path, "domains.local = [\"our.example\"]\nkeys.ring = \"ring.toml\"\n").unwrap();
        let mode = |mode: u32| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        assert!(all(&config).concat().contains("can be written by every user"));
        mode(0o1777);
        assert_eq!(all(&config), [""; 0]);
    }
}
