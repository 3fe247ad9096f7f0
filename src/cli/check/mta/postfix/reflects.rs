//! Settings by which Postfix takes mail for unknown users, and bounces it later to senders that may be forged.

use crate::cli::check::mta::finding::Finding::{self, Careful};
use crate::cli::mta::postfix::{MasterService, Postfix};
use crate::config::Config;
use crate::envelope::site_policy::RecipientSource;

/// What the remedy is besides the setting itself.
const OR: &str = "Or let Countersign refuse them: inbound.recipients (docs/reverse-ndr.md)";

/// Finds settings by which unknown users are taken, for domains whose recipients Countersign leaves to the next hop.
pub(super) fn reflects(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let policy = &config.policy;
    let is_left = |name: &str| policy.inbound.recipients.of(name) == RecipientSource::NextHop;
    let ours = [policy.domains.local.names(), policy.domains.relay.names()].concat();
    if !ours.iter().any(|name| is_left(name)) {
        return;
    }
    for service in postfix.facing_strangers() {
        unlisted(service, postfix, found);
    }
    let has =
        |list: &str, name: &str| postfix.get(list).split([' ', ',', '\t']).any(|word| word.eq_ignore_ascii_case(name));
    let is_empty = |maps: &str| postfix.set.contains_key(maps) && postfix.get(maps).is_empty();
    let taken = ours.iter().filter(|name| is_left(name));
    for name in taken.clone().filter(|name| !name.starts_with('.')) {
        every_name(name, postfix, &has, found);
    }
    let boxes: Vec<&str> =
        taken.clone().filter(|name| has("virtual_mailbox_domains", name)).map(String::as_str).collect();
    if postfix.get("virtual_mailbox_maps").is_empty() && !boxes.is_empty() {
        found.push(Careful(format!(
            "virtual_mailbox_maps is empty, so mail for unknown users of {} is taken, and bounced to forged senders if it cannot be \
             delivered: list the mailboxes. {OR}",
            boxes.join(", ")
        )));
    }
    let local: Vec<&str> = taken.clone().filter(|name| has("mydestination", name)).map(String::as_str).collect();
    if is_empty("local_recipient_maps") && !local.is_empty() {
        found.push(Careful(format!(
            "local_recipient_maps is empty, so mail for unknown users of {} is taken and bounced to forged senders: \
             local_recipient_maps = proxy:unix:passwd.byname $alias_maps. {OR}",
            local.join(", ")
        )));
    }
    if !postfix.get("luser_relay").is_empty() {
        found.push(Careful(format!("luser_relay = {} takes mail for all unknown users", postfix.get("luser_relay"))));
    }
    // A domain that is in two lists counts as the local one.
    let is_relayed = |name: &&String| has("relay_domains", name) && !has("mydestination", name);
    let relayed: Vec<&str> = taken.filter(is_relayed).map(String::as_str).collect();
    if postfix.get("relay_recipient_maps").is_empty()
        && !relayed.is_empty()
        && !verifies(postfix.get("smtpd_recipient_restrictions"))
        && !verifies(postfix.get("smtpd_relay_restrictions"))
    {
        found.push(Careful(format!(
            "relay_recipient_maps is empty, so mail for unknown users of {} is taken, and bounced to forged senders when the \
             next server refuses it: relay_recipient_maps, or reject_unverified_recipient in smtpd_recipient_restrictions. {OR}",
            relayed.join(", ")
        )));
    }
}

/// A name that no user has.
const NOBODY: &str = "no-such-user-7f3a9c";

/// Finds tables that know every name of a domain.
fn every_name(domain: &str, postfix: &Postfix, has: &impl Fn(&str, &str) -> bool, found: &mut Vec<Finding>) {
    let finds = |tables: &str| {
        let tables = postfix.get(tables);
        let keys = [format!("@{domain}"), format!("{NOBODY}@{domain}")];
        keys.iter().find_map(|key| postfix.look_up(tables, key))
    };
    if let Some(target) = finds("virtual_alias_maps") {
        let target = target.trim();
        found.push(Careful(format!(
            "virtual_alias_maps takes every name at {domain} and sends it to {target}. Unless that is a mailbox, mail for unknown users \
             is bounced to forged senders: list the names. {OR}"
        )));
    }
    let lists = [
        ("mydestination", "local_recipient_maps"),
        ("relay_domains", "relay_recipient_maps"),
        ("virtual_mailbox_domains", "virtual_mailbox_maps"),
    ];
    for (_, maps) in lists.into_iter().filter(|(class, _)| has(class, domain)) {
        if finds(maps).is_some() {
            found.push(Careful(format!(
                "{maps} knows every name at {domain}, so mail for unknown users is taken, and bounced to forged senders if it cannot be \
                 delivered: list the names. {OR}"
            )));
        }
    }
}

/// Finds smtpd services that take recipients of strangers without looking them up.
fn unlisted(service: &MasterService, postfix: &Postfix, found: &mut Vec<Finding>) {
    let restrictions = postfix.of(service, "smtpd_recipient_restrictions");
    let looks_up = restrictions.contains("reject_unlisted_recipient") || verifies(restrictions);
    // A filter in the session asks the smtpd behind it.
    let is_filtered = !postfix.of(service, "smtpd_proxy_filter").is_empty();
    if looks_up || is_filtered {
        return;
    }
    let name = &service.name;
    if postfix.of(service, "smtpd_reject_unlisted_recipient") == "no" {
        found.push(Careful(format!(
            "{name} takes mail for unknown users, which is bounced to forged senders: smtpd_reject_unlisted_recipient = yes. {OR}"
        )));
    }
    if postfix.of(service, "receive_override_options").contains("no_unknown_recipient_checks") {
        found.push(Careful(format!(
            "{name} takes mail for unknown users, which is bounced to forged senders: remove no_unknown_recipient_checks from its \
             receive_override_options. {OR}"
        )));
    }
}

fn verifies(restrictions: &str) -> bool {
    restrictions.contains("reject_unverified_recipient")
}
