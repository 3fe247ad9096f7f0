//! Postfix that asks: milter, maps, policy service.

use super::super::Finding::{self, Careful, Wrong};
use super::super::names;
use super::{Postfix, Service, networks};
use crate::config::{Advice, Advisor, Config, Endpoint, Side};

/// Who asks the milter, and what becomes of mail when nobody answers.
pub fn milter(config: &Config, advisor: &Advisor, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &advisor.listen;
    let asking: Vec<&Service> =
        postfix.running("smtpd").filter(|service| names(postfix.of(service, "smtpd_milters"), listen)).collect();
    if asking.is_empty() {
        found.push(Wrong(format!("no smtpd asks the milter: smtpd_milters = {}", as_milter(listen))));
        return;
    }
    let main = |parameter: &str| postfix.get(parameter).to_owned();
    let action = main("milter_default_action");
    if action == "accept" {
        found.push(Finding::wrong(
            "milter_default_action = accept: while Countersign is down, mail leaves unsigned, and its bounces are refused later. tempfail",
        ));
    }
    if main("milter_protocol").parse::<u32>().is_ok_and(|version| version < 6) {
        found.push(Finding::wrong("milter_protocol is below 6: the sender cannot be changed. Leave it out"));
    }
    if advisor.side != Side::Inbound && !names(&main("non_smtpd_milters"), listen) {
        found.push(Careful(format!(
            "mail that programs here hand to `sendmail` leaves unsigned: non_smtpd_milters = {}",
            as_milter(listen)
        )));
    }
    if advisor.side == Side::Outbound {
        return;
    }
    let filters = !postfix.get("content_filter").is_empty()
        || postfix.services.iter().any(|service| service.own.contains_key("content_filter"));
    for service in &asking {
        let looks_up = postfix.of(service, "smtpd_reject_unlisted_recipient") != "no";
        if looks_up && !a_map_verifies(config, postfix.of(service, "recipient_canonical_maps")) {
            found.push(Wrong(format!(
                "{} looks recipients up before it asks the milter, and refuses tagged ones as unknown: \
                 recipient_canonical_maps = socketmap:…:verify ([[listener]] protocol = \"socketmap\")",
                service.name
            )));
        }
        // A port for mail that comes back from a filter.
        let loopback = service.name.starts_with("127.") || service.name.starts_with("localhost");
        if filters && advisor.side == Side::Auto && loopback && advisor.outbound_clients.contains([127, 0, 0, 1].into())
        {
            found.push(Careful(format!(
                "{} asks the milter, too: what a filter hands back there counts as mail that leaves. -o smtpd_milters=",
                service.name
            )));
        }
    }
    // By default these are this machine's own addresses.
    if advisor.side == Side::Auto && postfix.set.contains_key("mynetworks") {
        let outside = networks(postfix.get("mynetworks")).filter(|net| !advisor.outbound_clients.contains(net.addr()));
        let outside: Vec<String> = outside.map(|net| net.to_string()).collect();
        if !outside.is_empty() {
            found.push(Careful(format!(
                "mail of {} in mynetworks counts as coming in, and leaves unsigned: name them in outbound_clients of the milter",
                outside.join(", ")
            )));
        }
    }
}

fn as_milter(listen: &Endpoint) -> String {
    match listen {
        Endpoint::Tcp { .. } => format!("inet:{listen}"),
        other => other.to_string(),
    }
}

fn a_map_verifies(config: &Config, setting: &str) -> bool {
    let mut maps = config.advisors.iter().filter(|advisor| advisor.advice == Advice::Socketmap);
    maps.any(|map| names(setting, &map.listen)) && (setting.contains(":verify") || setting.contains(":reverse"))
}

/// Who asks the map, and about what.
pub fn maps(config: &Config, advisor: &Advisor, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &advisor.listen;
    let mut used = false;
    for (maps, classes, class) in [
        ("sender_canonical_maps", "sender_canonical_classes", "envelope_sender"),
        ("recipient_canonical_maps", "recipient_canonical_classes", "envelope_recipient"),
    ] {
        let at = |service: &&Service| names(postfix.of(service, maps), listen);
        for service in postfix.running("cleanup").filter(at) {
            used = true;
            if postfix.of(service, classes).contains("header") {
                found.push(Wrong(format!(
                    "{} rewrites header fields by the map, too: {classes} = {class}",
                    service.name
                )));
            }
        }
    }
    if !used {
        found.push(Wrong(format!(
            "no cleanup asks the map: recipient_canonical_maps = socketmap:{}:verify",
            as_milter(listen)
        )));
    }
    if names(postfix.get("sender_canonical_maps"), listen) && config.policy.domains.srs.is_empty() {
        found.push(Finding::careful(
            "sender_canonical_maps in main.cf signs mail from outside, too, that claims to be yours: put it into a cleanup for submission",
        ));
    }
    let unmapped = |service: &&Service| postfix.of(service, "receive_override_options").contains("no_address_mappings");
    for service in postfix.running("smtpd").filter(unmapped) {
        found.push(Careful(format!(
            "{} has no_address_mappings: its mail passes no canonical map. That is right only where it has passed one before",
            service.name
        )));
    }
}

/// Who asks the policy service, and when.
pub fn policy(advisor: &Advisor, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &advisor.listen;
    let lists = ["smtpd_recipient_restrictions", "smtpd_relay_restrictions"];
    let restrictions = |service| lists.into_iter().map(move |list| postfix.of(service, list));
    let asks = |list: &&str| list.contains("check_policy_service") && names(list, listen);
    let Some(list) = postfix.running("smtpd").flat_map(restrictions).find(asks) else {
        found.push(Wrong(format!(
            "no smtpd asks the policy service: smtpd_recipient_restrictions = …, check_policy_service {}",
            as_milter(listen)
        )));
        return;
    };
    let before = list.split("check_policy_service").next().unwrap_or_default();
    if before.split([' ', ',']).any(|word| matches!(word, "permit" | "permit_auth_destination" | "permit_mx_backup")) {
        found.push(Finding::wrong(
            "the policy service stands behind a `permit` that lets all mail pass before it is asked",
        ));
    }
    if postfix.get("access_map_reject_code") != "550" {
        found.push(Careful(format!(
            "refused bounces get {}: access_map_reject_code = 550 says what the other ways in say",
            postfix.get("access_map_reject_code")
        )));
    }
}

/// What looks the sender up after it has been signed.
pub fn signed_before_the_queue(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let by_milter = config.advisors.iter().any(|a| a.advice == Advice::Milter && a.side != Side::Inbound);
    let is_map = |a: &&Advisor| a.advice == Advice::Socketmap;
    let by_map = config.advisors.iter().filter(is_map).any(|map| {
        postfix.running("cleanup").any(|service| names(postfix.of(service, "sender_canonical_maps"), &map.listen))
    });
    if !by_milter && !by_map {
        return;
    }
    for maps in ["sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps", "sender_bcc_maps"] {
        if !postfix.get(maps).is_empty() {
            found.push(Careful(format!(
                "{maps} is asked with the signed sender: entries by address are not found, those by domain (@our.example) are. \
                 The outbound proxy signs later"
            )));
        }
    }
    if postfix.get("smtp_sender_dependent_authentication") == "yes" {
        found.push(Finding::careful(
            "smtp_sender_dependent_authentication: passwords are looked up by the signed sender; entries by address are not found",
        ));
    }
}
