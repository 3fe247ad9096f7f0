//! What Postfix says about the site: domains, networks, times and ports.

use ipnet::IpNet;

use super::server::Server;
use crate::cli::mta::lists::{days, networks, tables_of};
use crate::cli::mta::postfix::Postfix;

/// Reads domains, networks, times and ports.
pub(super) fn facts(postfix: &Postfix) -> Server {
    let mut server = Server::default();
    for setting in ["mydestination", "virtual_mailbox_domains", "virtual_alias_domains"] {
        for entry in tables_of(postfix.get(setting)) {
            let is_table = entry.contains(':') || entry.starts_with('/');
            match is_table.then(|| postfix.keys(entry)) {
                None if entry.starts_with('!') => {}
                None => server.add_local(entry, setting),
                Some(Some(keys)) => {
                    let has_aliases = tables_of(postfix.get("virtual_alias_maps")).contains(&entry);
                    domains_of(&keys, has_aliases).for_each(|key| server.add_local(key, setting));
                }
                // Tables of aliases hold domains only where a setting says so.
                Some(None) if setting == "virtual_alias_domains" && !postfix.set.contains_key(setting) => {}
                Some(None) => server.unlisted.push(format!("{setting} = {entry}")),
            }
        }
    }
    // The machine's own name last: it seldom has people.
    server.local.sort_by_key(|(name, _)| name == postfix.get("myhostname"));
    for entry in tables_of(postfix.get("relay_domains")) {
        let is_table = entry.contains(':') || entry.starts_with('/');
        let names = if is_table { postfix.keys(entry).unwrap_or_default() } else { vec![entry.to_owned()] };
        let known =
            |name: &String| server.local.iter().any(|(local, _)| local == name) || name.starts_with("localhost");
        server.relay.extend(names.into_iter().map(|name| name.to_ascii_lowercase()).filter(|name| !known(name)));
    }
    own_networks(postfix.get("mynetworks"), &mut server);
    let longest = ["maximal_queue_lifetime", "bounce_queue_lifetime"];
    server.queue_days = longest.into_iter().filter_map(|name| days(postfix.get(name))).max().unwrap_or(5).max(1);
    server.ports = postfix.services.iter().filter_map(|service| service.port()?.parse().ok()).collect();
    server
}

/// The domains among the keys of a table. In a table of aliases, a domain has addresses, too: others may be names of users
/// with a dot in them.
fn domains_of(keys: &[String], has_aliases: bool) -> impl Iterator<Item = &String> {
    let has_addresses = |name: &str| keys.iter().any(|key| key.rsplit_once('@').is_some_and(|(_, of)| of == name));
    keys.iter().filter(move |key| !key.contains(['@', '!']) && (!has_aliases || has_addresses(key)))
}

/// Reads `mynetworks`. A network of which a part is taken out is left to a person.
fn own_networks(list: &str, server: &mut Server) {
    // ::ffff:127.0.0.0/104 is IPv4 by another name, which is listed as such, too.
    let is_mapped = |net: &IpNet| net.addr().is_ipv6() && net.addr().to_canonical().is_ipv4();
    let words = tables_of(list);
    let without: Vec<(&str, IpNet)> =
        words.iter().filter_map(|word| Some((*word, networks(word.strip_prefix('!')?).next()?))).collect();
    for word in words {
        match networks(word).next() {
            Some(net) if is_mapped(&net) => {}
            Some(net) => match without.iter().find(|(_, part)| net.contains(part)) {
                Some((part, _)) => server.other_networks.push(format!("{net} ({part})")),
                None => server.networks.push(net),
            },
            None if word.starts_with('!') => {}
            None => server.other_networks.push(word.to_owned()),
        }
    }
}
