//! Checks of a Postfix configuration, as `postconf` prints it.

mod flow;
mod forwards;
mod mta_services;
mod own_bounces;
mod proxies;
mod reflects;
mod relays;

use std::path::Path;

use anyhow::Result;

use self::forwards::forwards;
use self::mta_services::{maps, milter, policy, signed_before_the_queue};
use self::own_bounces::own_bounces;
use self::proxies::{inbound, is_behind, nobody_listens, outbound, sends_to_the_world};
use self::reflects::reflects;
use self::relays::relays;
use super::dkim::{over_evidence, signers};
use super::finding::Finding::{self, Careful, Wrong};
use crate::cli::check::rights;
use crate::cli::mta::lists::{days, tables_of};
use crate::cli::mta::postfix::Postfix;
use crate::config::{Config, Role, ServiceProtocol};

/// All findings, in the order in which a message passes the settings.
pub(super) fn findings(config: &Config, place: &Path) -> Result<Vec<Finding>> {
    let postfix = Postfix::read(place)?;
    let mut found = Vec::new();
    let signers = signers(place.parent().unwrap_or(Path::new("/etc")));
    ports_of_ours(config, &postfix, &mut found);
    found.extend(rights::of_mail_server(config, postfix.get("mail_owner"))?.into_iter().map(Wrong));
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
    for mta_service in &config.mta_services {
        match mta_service.protocol {
            ServiceProtocol::Milter => milter(config, mta_service, &postfix, &signers, &mut found),
            ServiceProtocol::Socketmap => maps(config, mta_service, &postfix, &mut found),
            ServiceProtocol::Policy => policy(mta_service, &postfix, &mut found),
        }
    }
    signed_before_the_queue(config, &postfix, &mut found);
    for next_hop in &config.srs_next_hop {
        nobody_listens(next_hop, "inbound.srs_next_hop", &postfix, &mut found);
    }
    domains(config, &postfix, &mut found);
    subdomains(config, &postfix, &mut found);
    reflects(config, &postfix, &mut found);
    relays(&postfix, &mut found);
    forwards(config, &postfix, &mut found);
    over_evidence(&signers, &mut found);
    own_bounces(config, &postfix, &mut found);
    queue(config, &postfix, &mut found);
    Ok(found)
}

/// Finds services of Postfix on ports on which Countersign has to listen.
fn ports_of_ours(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listeners = config.listeners.iter().map(|listener| ("a listener", &listener.listen));
    let mta_services = config.mta_services.iter().map(|mta_service| ("a listener", &mta_service.listen));
    let status = config.status.iter().map(|listen| ("status.listen", listen));
    for (what, listen) in listeners.chain(mta_services).chain(status) {
        for service in postfix.services.iter().filter(|service| service.takes(listen)) {
            found.push(Wrong(format!(
                "{} is a service of this Postfix itself ({}), and {what} of Countersign: who starts second does not start, and mail goes \
                 to the wrong one. Give Countersign another port",
                service.name, service.command
            )));
        }
    }
}

/// Finds an SRS domain whose subdomains Postfix takes mail for, too.
fn subdomains(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let has =
        |list: &str, word: &str| postfix.get(list).split([' ', ',', '\t']).any(|it| it.eq_ignore_ascii_case(word));
    let matches_all = has("parent_domain_matches_subdomains", "relay_domains");
    for name in config.policy.domains.srs.names().into_iter().filter(|name| matches_all && has("relay_domains", name)) {
        found.push(Careful(format!(
            "relay_domains has {name}, and so takes mail for all of its subdomains (parent_domain_matches_subdomains), which nobody judges: \
             take it out, and write virtual_alias_domains = $virtual_alias_maps, {name}"
        )));
    }
}

/// Compares the domains in the config with those of Postfix.
fn domains(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let mut lists = vec!["mydestination", "relay_domains", "virtual_mailbox_domains"];
    // Its default is virtual_alias_maps, whose keys are mostly addresses.
    lists.extend(postfix.set.contains_key("virtual_alias_domains").then_some("virtual_alias_domains"));
    let (tables, mut words): (Vec<&str>, Vec<String>) = lists
        .into_iter()
        .flat_map(|list| tables_of(postfix.get(list)))
        .fold((Vec::new(), Vec::new()), |(mut tables, mut words), entry| {
            match entry.contains(':') || entry.starts_with('/') {
                true => tables.push(entry),
                false => words.push(entry.to_owned()),
            }
            (tables, words)
        });
    let listed: Vec<Option<Vec<String>>> = tables.into_iter().map(|table| postfix.keys(table)).collect();
    let is_unknown = listed.iter().any(Option::is_none);
    words.extend(listed.into_iter().flatten().flatten());
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
    // The contents of tables are not read.
    if is_unknown {
        return;
    }
    for name in config.policy.domains.srs.names() {
        if !words.iter().any(|word| word.eq_ignore_ascii_case(&name)) {
            found.push(Wrong(format!(
                "Postfix takes no mail for {name}, so bounces of forwarded mail are refused: virtual_alias_domains = $virtual_alias_maps, {name}"
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
