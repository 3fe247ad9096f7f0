//! Checks of a Postfix that queries Countersign: milter, maps, policy service.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::flow::flow_delay;
use crate::cli::check::mta::dkim::Signer;
use crate::cli::check::mta::finding::Finding::{self, Careful, Wrong};
use crate::cli::mta::lists::{MilterEntry, milters, networks, tables_of};
use crate::cli::mta::postfix::{MasterService, Postfix};
use crate::cli::mta::tools::names;
use crate::config::{Config, Endpoint, MtaService, ServiceProtocol, Side};

/// Checks which services query the milter, and what happens to mail while the milter does not answer.
pub(super) fn milter(
    config: &Config,
    mta_service: &MtaService,
    postfix: &Postfix,
    signers: &[Signer],
    found: &mut Vec<Finding>,
) {
    let listen = &mta_service.listen;
    let asking: Vec<&MasterService> =
        postfix.running("smtpd").filter(|service| postfix.asks_milter(service, listen)).collect();
    if asking.is_empty() {
        found.push(Wrong(format!("no smtpd asks the milter: smtpd_milters = {}", as_milter(listen, postfix))));
        return;
    }
    for service in &asking {
        let (written, absolute) = (postfix.of(service, "smtpd_milters"), listen.to_string());
        let is_absolute = written.split([',', ' ', '\t']).any(|word| word == absolute);
        if is_absolute && as_milter(listen, postfix) != absolute {
            found.push(Careful(format!(
                "{} asks {absolute}, which a service in a chroot does not find, and mail then waits: smtpd_milters = {}",
                service.name,
                as_milter(listen, postfix)
            )));
        }
    }
    who_does_not_ask(config, postfix, found);
    who_asks_after(mta_service, &asking, postfix, signers, found);
    of_cleanup(listen, postfix, found);
    nobody_answers(listen, postfix, found);
    if mta_service.side != Side::Outbound {
        found.extend(flow_delay(postfix));
    }
    while_it_is_down(listen, &asking, postfix, found);
    if mta_service.side != Side::Inbound && !names(postfix.get("non_smtpd_milters"), listen) {
        found.push(Careful(format!(
            "mail that programs here hand to `sendmail` leaves unsigned: non_smtpd_milters = {}",
            as_milter(listen, postfix)
        )));
    }
    if mta_service.side == Side::Outbound {
        return;
    }
    for service in &asking {
        let looks_up = postfix.of(service, "smtpd_reject_unlisted_recipient") != "no";
        let maps = postfix.of(service, "recipient_canonical_maps");
        if looks_up && !a_map_finds(config, maps) {
            found.push(Wrong(format!(
                "{} looks recipients up before it asks the milter, and refuses tagged ones as unknown: \
                 recipient_canonical_maps = socketmap:…:strip ([[listener]] protocol = \"socketmap\")",
                service.name
            )));
        } else if looks_up && !maps.contains(":strip") {
            found.push(Careful(format!(
                "{} asks the map `verify`, so tags that do not hold are unknown users before the milter can say what is wrong with them, and guesses \
                 are not limited: ask `strip` beside a milter",
                service.name
            )));
        }
        // A port for mail that returns from a filter, or one that may be that.
        let is_settled = service.own.contains_key("milter_macro_daemon_name");
        let may_be = postfix.has_filter() && service.is_on_loopback() && !is_settled;
        if mta_service.side == Side::Auto
            && (service.takes_mail_back() || may_be)
            && mta_service.outbound_clients.contains([127, 0, 0, 1].into())
        {
            let unless = if service.takes_mail_back() { "" } else { ", unless programs of yours submit there" };
            found.push(Careful(format!(
                "{} asks the milter, too: what a filter hands back there counts as mail that leaves{unless}: -o smtpd_milters= with the \
                 other milters alone",
                service.name
            )));
        }
    }
    // The default of mynetworks is this machine's own addresses.
    if mta_service.side == Side::Auto && postfix.set.contains_key("mynetworks") {
        let outside =
            networks(postfix.get("mynetworks")).filter(|net| !mta_service.outbound_clients.contains(net.addr()));
        let outside: Vec<String> = outside.map(|net| net.to_string()).collect();
        if !outside.is_empty() {
            found.push(Careful(format!(
                "mail of {} in mynetworks counts as coming in, and leaves unsigned: name them in outbound_clients of the milter",
                outside.join(", ")
            )));
        }
    }
}

/// Warns about services that do not query the milter. A service for mail that returns from a filter need not.
fn who_does_not_ask(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let asks = |service: &MasterService| {
        let mut milters = config.mta_services.iter().filter(|a| a.protocol == ServiceProtocol::Milter);
        milters.any(|milter| postfix.asks_milter(service, &milter.listen))
    };
    for service in postfix.running("smtpd") {
        let list = postfix.of(service, "smtpd_milters");
        let maps = postfix.of(service, "smtpd_milter_maps");
        if !maps.is_empty() && !list.is_empty() {
            found.push(Careful(format!(
                "{} has smtpd_milter_maps = {maps}: clients that it names ask other milters. Are they all to leave unsigned, and unjudged?",
                service.name
            )));
        }
        // A port for mail that comes back from a filter, or one from which the site has taken all milters.
        let clients = postfix.of(service, "smtpd_client_restrictions");
        let is_inside = list.is_empty() && clients.contains("permit_mynetworks") && clients.contains("reject");
        let is_behind_a_filter = service.own.contains_key("content_filter") && list.is_empty();
        if !asks(service) && !is_inside && !is_behind_a_filter && !service.is_on_loopback() {
            found.push(Careful(format!(
                "{} does not ask the milter: what comes or leaves there is neither judged nor signed",
                service.name
            )));
        }
    }
}

/// Warns about cleanup services with settings of their own, which do not ask.
fn of_cleanup(listen: &Endpoint, postfix: &Postfix, found: &mut Vec<Finding>) {
    for service in postfix.running("cleanup") {
        if service.own.get("non_smtpd_milters").is_some_and(|own| !names(own, listen)) {
            found.push(Careful(format!(
                "{} has non_smtpd_milters of its own: mail of programs on this machine that passes it leaves unsigned",
                service.name
            )));
        }
        if service
            .own
            .get("recipient_canonical_maps")
            .is_some_and(|own| !own.contains(":strip") && !own.contains(":verify"))
        {
            found.push(Careful(format!(
                "{} has recipient_canonical_maps of its own: tagged recipients that pass it are unknown users",
                service.name
            )));
        }
    }
}

/// Says that Postfix runs and asks a milter that does not.
fn nobody_answers(listen: &Endpoint, postfix: &Postfix, found: &mut Vec<Finding>) {
    let Endpoint::Unix(path) = listen else { return };
    // Others may not look.
    let is_silent = nix::unistd::geteuid().is_root() && UnixStream::connect(path).is_err();
    if is_silent && postfix.is_running() {
        found.push(Wrong(format!(
            "Postfix asks the milter on {listen}, and nobody answers there, so all mail is put off: start Countersign, systemctl start \
             countersign"
        )));
    }
}

/// Warns about milters that see the evidence header because they come after Countersign, unless they are known to leave
/// it out.
fn who_asks_after(
    mta_service: &MtaService,
    asking: &[&MasterService],
    postfix: &Postfix,
    signers: &[Signer],
    found: &mut Vec<Finding>,
) {
    for service in asking {
        let milters = milters(postfix.of(service, "smtpd_milters"));
        let mut after = milters.iter().skip_while(|it| !names(it.endpoint, &mta_service.listen)).skip(1);
        // One that signs the header is reported by itself.
        let is_known = |it: &&MilterEntry<'_>| signers.iter().any(|signer| signer.is(it.endpoint));
        if let Some(next) = after.find(|it| !is_known(it)) {
            found.push(Careful(format!(
                "{} asks {} after Countersign: if that one signs with DKIM, it must leave out Countersign-Evidence",
                service.name, next.endpoint
            )));
        }
    }
}

/// Checks what Postfix does with mail while the milter does not answer, and which protocol it speaks.
fn while_it_is_down(listen: &Endpoint, asking: &[&MasterService], postfix: &Postfix, found: &mut Vec<Finding>) {
    let lists = asking.iter().map(|service| postfix.of(service, "smtpd_milters"));
    let entries: Vec<MilterEntry<'_>> = lists.chain([postfix.get("non_smtpd_milters")]).flat_map(milters).collect();
    let value = |name: &str, of_all: &str| {
        let ours = entries.iter().filter(|entry| names(entry.endpoint, listen));
        ours.map(|entry| entry.own(name).unwrap_or(postfix.get(of_all)).to_owned()).collect::<Vec<_>>()
    };
    if value("default_action", "milter_default_action").iter().any(|action| action == "accept") {
        found.push(Wrong(format!(
            "milter_default_action = accept: while Countersign is down, mail leaves unsigned, and its bounces are refused later; set it to \
             tempfail, or for this milter alone: {{ {}, default_action=tempfail }}",
            as_milter(listen, postfix)
        )));
    }
    let versions = value("protocol", "milter_protocol");
    if versions.iter().filter_map(|it| it.parse::<u32>().ok()).any(|version| version < 6) {
        found.push(Finding::wrong("milter_protocol is below 6: the sender cannot be changed. Leave it out"));
    }
}

/// The milter as Postfix writes it: a socket below its queue folder without that, as it is found inside and outside of a
/// chroot.
fn as_milter(listen: &Endpoint, postfix: &Postfix) -> String {
    let queue = Path::new(postfix.get("queue_directory"));
    match listen {
        Endpoint::Tcp { .. } => format!("inet:{listen}"),
        Endpoint::Unix(path) => match path.strip_prefix(queue) {
            Ok(inside) if !queue.as_os_str().is_empty() => format!("unix:{}", inside.display()),
            _ => listen.to_string(),
        },
        Endpoint::Systemd(_) => listen.to_string(),
    }
}

fn a_map_finds(config: &Config, setting: &str) -> bool {
    let mut maps = config.mta_services.iter().filter(|mta_service| mta_service.protocol == ServiceProtocol::Socketmap);
    let is_known = |word: &&str| ["verify", "reverse", "strip"].contains(&word.rsplit(':').next().unwrap_or_default());
    let words: Vec<&str> = tables_of(setting).into_iter().filter(is_known).collect();
    maps.any(|map| words.iter().any(|word| names(word, &map.listen)))
}

/// Checks which services query the map, and about which addresses.
pub(super) fn maps(config: &Config, mta_service: &MtaService, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &mta_service.listen;
    for (maps, classes, class) in [
        ("sender_canonical_maps", "sender_canonical_classes", "envelope_sender"),
        ("recipient_canonical_maps", "recipient_canonical_classes", "envelope_recipient"),
    ] {
        let mut others = Vec::new();
        for service in postfix.running("cleanup") {
            let setting = postfix.of(service, maps);
            if names(setting, listen) && postfix.of(service, classes).contains("header") {
                found.push(Wrong(format!(
                    "{} rewrites header fields by the map, too: {classes} = {class}",
                    service.name
                )));
            }
            others.extend(setting.split([' ', ',', '\t']).filter(|word| word.starts_with("tcp:")));
        }
        others.dedup();
        for other in others {
            found.push(Careful(format!(
                "{other} in {maps} is another program's (PostSRSd?): one of them may rewrite, not both"
            )));
        }
    }
    // A milter or a proxy takes care of recipients and senders itself.
    let alone =
        config.listeners.is_empty() && !config.mta_services.iter().any(|a| a.protocol == ServiceProtocol::Milter);
    if alone && !a_map_finds(config, postfix.get("recipient_canonical_maps")) {
        found.push(Wrong(format!(
            "bounces to tagged addresses are refused as unknown users: recipient_canonical_maps = socketmap:{}:verify",
            as_milter(listen, postfix)
        )));
    }
    if alone {
        who_signs(listen, postfix, found);
    }
    if names(postfix.get("sender_canonical_maps"), listen) && config.policy.domains.srs.is_empty() {
        found.push(Finding::careful(
            "sender_canonical_maps in main.cf signs mail from outside, too, that claims to be yours: put it into a cleanup for submission",
        ));
    }
    // What a filter hands back has passed a map before it.
    let comes_back = |service: &MasterService| service.takes_mail_back();
    let unmapped = |service: &&MasterService| {
        postfix.of(service, "receive_override_options").contains("no_address_mappings") && !comes_back(service)
    };
    for service in postfix.running("smtpd").filter(unmapped) {
        found.push(Careful(format!(
            "{} has no_address_mappings: its mail passes no canonical map. That is right only where it has passed one before",
            service.name
        )));
    }
}

/// Checks which services that put mail into the queue use a cleanup service that signs.
fn who_signs(listen: &Endpoint, postfix: &Postfix, found: &mut Vec<Finding>) {
    let mut signing = false;
    for service in postfix.running("smtpd").chain(postfix.running("pickup")) {
        let name = postfix.of(service, "cleanup_service_name");
        let Some(cleanup) = postfix.running("cleanup").find(|cleanup| cleanup.name == name) else {
            found.push(Wrong(format!("{} names the cleanup `{name}`, which is not in master.cf", service.name)));
            continue;
        };
        let maps = postfix.of(cleanup, "sender_canonical_maps");
        let signs = names(maps, listen) && (maps.contains(":sign") || maps.contains(":forward"));
        signing |= signs;
        if !signs && matches!(service.name.as_str(), "submission" | "submissions" | "smtps" | "587" | "465") {
            found.push(Careful(format!(
                "what comes in at {} is not signed: its cleanup, {name}, does not ask the map",
                service.name
            )));
        }
    }
    if !signing {
        found.push(Wrong(format!(
            "nothing is signed: no cleanup that is in use has sender_canonical_maps = socketmap:{}:sign",
            as_milter(listen, postfix)
        )));
    }
}

/// Checks whether the policy service is queried, and in which place of the restrictions.
pub(super) fn policy(mta_service: &MtaService, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &mta_service.listen;
    let lists = ["smtpd_recipient_restrictions", "smtpd_relay_restrictions"];
    let restrictions = |service| lists.into_iter().map(move |list| postfix.of(service, list));
    let asks = |list: &&str| list.contains("check_policy_service") && names(list, listen);
    let Some(list) = postfix.running("smtpd").flat_map(restrictions).find(asks) else {
        found.push(Wrong(format!(
            "no smtpd asks the policy service: smtpd_recipient_restrictions = …, check_policy_service {}",
            as_milter(listen, postfix)
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

/// Warns about settings that look up the sender after it has been signed.
pub(super) fn signed_before_the_queue(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let by_milter =
        config.mta_services.iter().any(|a| a.protocol == ServiceProtocol::Milter && a.side != Side::Inbound);
    let is_map = |a: &&MtaService| a.protocol == ServiceProtocol::Socketmap;
    let by_map = config.mta_services.iter().filter(is_map).any(|map| {
        postfix.running("cleanup").any(|service| names(postfix.of(service, "sender_canonical_maps"), &map.listen))
    });
    if !by_milter && !by_map {
        return;
    }
    for maps in ["sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps", "sender_bcc_maps"] {
        // cleanup asks for copies before the milter changes the sender.
        let is_asked_before = maps == "sender_bcc_maps" && !by_map;
        if !postfix.get(maps).is_empty() && !is_asked_before {
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
