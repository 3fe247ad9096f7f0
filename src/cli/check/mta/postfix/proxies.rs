//! Checks of Postfix in front of the proxies and behind them.

use super::flow::flow_delay;
use crate::cli::check::mta::finding::Finding::{self, Careful, Wrong};
use crate::cli::mta::lists::{has_domain, networks};
use crate::cli::mta::postfix::{MasterService, Postfix};
use crate::cli::mta::tools::names;
use crate::config::{Config, Endpoint, Listener, Role, TlsMode};

/// Whether this is the instance behind the outbound proxy, not the one in front of it.
pub(super) fn is_behind(listener: &Listener, postfix: &Postfix) -> bool {
    let routes = ["relayhost", "default_transport", "content_filter"];
    listener.role == Role::Outbound
        && !postfix.is_where_mail_comes_in()
        && listener.next_hop.iter().any(|hop| postfix.listening(hop).is_some())
        && !routes.into_iter().any(|route| names(postfix.get(route), &listener.listen))
        && !postfix.services.iter().any(|s| s.own.get("content_filter").is_some_and(|f| names(f, &listener.listen)))
}

/// Checks the instance behind the outbound proxy: whether it listens and relays, and how its own bounces are routed.
pub(super) fn sends_to_the_world(config: &Config, listener: &Listener, postfix: &Postfix, found: &mut Vec<Finding>) {
    if !postfix.get("master_service_disable").is_empty() {
        found.push(Finding::wrong(
            "master_service_disable keeps this instance from listening, as postmulti has made it: master_service_disable =",
        ));
    }
    let maps = postfix.get("transport_maps");
    // The contents of table files are not read.
    let written_out = maps.is_empty() || maps.contains("inline:");
    let (local, srs) = (config.policy.domains.local.names(), config.policy.domains.srs.names());
    for name in local.into_iter().chain(srs).filter(|name| written_out && !has_domain(maps, name)) {
        found.push(Wrong(format!(
            "bounces that this instance makes go to tagged addresses in {name}, and it does not know the way to the inbound proxy: transport_maps"
        )));
    }
    if let Some(service) = listener.next_hop.iter().find_map(|hop| postfix.listening(hop))
        && !postfix.of(service, "smtpd_relay_restrictions").contains("permit_mynetworks")
        && !postfix.of(service, "smtpd_relay_restrictions").contains("permit_sasl_authenticated")
    {
        found.push(Careful(format!(
            "{} lets nobody relay: smtpd_relay_restrictions = permit_mynetworks, reject",
            service.name
        )));
    }
}

/// Checks the instance in front of the outbound proxy, to which users send.
pub(super) fn outbound(config: &Config, listener: &Listener, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &listener.listen;
    let routes =
        ["relayhost", "default_transport", "transport_maps", "sender_dependent_relayhost_maps", "content_filter"];
    let by_main = routes.into_iter().find(|route| names(postfix.get(route), listen));
    let by_filter =
        postfix.services.iter().any(|service| service.own.get("content_filter").is_some_and(|f| names(f, listen)));
    // The contents of table files are not read.
    let by_table =
        ["transport_maps", "sender_dependent_relayhost_maps"].into_iter().any(|maps| !postfix.get(maps).is_empty());
    if by_main.is_none() && !by_filter && !by_table {
        found.push(Wrong(format!(
            "nothing goes to the outbound proxy, so mail leaves unsigned: relayhost = {}",
            bracketed(listen)
        )));
    }
    if let (Some(route @ ("relayhost" | "default_transport")), Some(service)) =
        (by_main, listener.next_hop.iter().find_map(|hop| postfix.listening(hop)))
    {
        found.push(Wrong(format!(
            "a loop: {route} sends everything to Countersign, whose next hop is {} of this same instance; it has to be another one",
            service.name
        )));
    }
    let level = postfix.get("smtp_tls_security_level");
    if matches!(level, "encrypt" | "dane-only" | "fingerprint" | "verify" | "secure")
        && listener.tls == TlsMode::Off
        && postfix.get("smtp_tls_policy_maps").is_empty()
    {
        found.push(Wrong(format!(
            "smtp_tls_security_level = {level}, and the outbound proxy has no TLS: no mail leaves. smtp_tls_policy_maps = inline:{{ {{{} = none}} }}",
            bracketed(listen)
        )));
    }
    let limit = postfix.get("smtp_destination_recipient_limit");
    if config.policy.outbound.recipients_matter() && limit != "1" {
        found.push(Careful(format!(
            "recipients that want another sender (outbound.exempt_recipients) share messages with others, and wait for a retry: \
             smtp_destination_recipient_limit = 1 (it is {limit})"
        )));
    }
}

/// An endpoint as routes name it: the brackets prevent an MX lookup.
fn bracketed(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp { host, port } => format!("[{host}]:{port}"),
        other => other.to_string(),
    }
}

/// Checks the services in front of the inbound proxy and behind it.
pub(super) fn inbound(listener: &Listener, postfix: &Postfix, found: &mut Vec<Finding>) {
    let listen = &listener.listen;
    let hands_over = |service: &&MasterService| names(postfix.of(service, "smtpd_proxy_filter"), listen);
    let fronts: Vec<&MasterService> = postfix.running("smtpd").filter(hands_over).collect();
    let asked = !fronts.is_empty();
    for front in &fronts {
        in_front(front, postfix, found);
    }
    let filters = postfix.services.iter().filter_map(|service| service.own.get("content_filter"));
    if filters.chain([&postfix.get("content_filter").to_owned()]).any(|filter| names(filter, listen)) {
        found.push(Finding::wrong(
            "content_filter sends accepted mail to the inbound proxy: what that refuses, Postfix bounces to a forged sender. Use smtpd_proxy_filter",
        ));
    }
    // If the smtpd behind learns the client by XCLIENT, the proxy needs no smtpd in front of it.
    let told = |hop| {
        postfix.listening(hop).is_some_and(|behind| !postfix.of(behind, "smtpd_authorized_xclient_hosts").is_empty())
    };
    if !asked && listen.is_loopback() && !listener.next_hop.iter().any(told) {
        found.push(Wrong(format!("no smtpd hands its sessions to the inbound proxy: -o smtpd_proxy_filter={listen}")));
    }
    for hop in &listener.next_hop {
        nobody_listens(hop, "next_hop", postfix, found);
        if let Some(behind) = postfix.listening(hop) {
            behind_it(behind, listen, postfix, found);
            has_processes(behind, listener, &fronts, postfix, found);
        }
    }
}

/// Warns if the smtpd behind has fewer processes than there may be sessions: clients that only connect could occupy all
/// of them.
fn has_processes(
    behind: &MasterService,
    listener: &Listener,
    fronts: &[&MasterService],
    postfix: &Postfix,
    found: &mut Vec<Finding>,
) {
    let Some(most) = postfix.max_processes(behind) else { return };
    // The smtpds in front limit the number of sessions, too.
    let of_fronts = fronts.iter().map(|front| postfix.max_processes(front)).sum::<Option<usize>>();
    let sessions =
        of_fronts.filter(|_| !fronts.is_empty()).map_or(listener.connections, |n| n.min(listener.connections));
    if sessions > most {
        found.push(Careful(format!(
            "{} has at most {most} processes, and the inbound proxy lets in {sessions} sessions: who only connects takes all of them. \
             Write {sessions} before `smtpd` in its line of master.cf, or connections = {most} in the [[listener]] {}",
            behind.name, listener.listen
        )));
    }
}

/// Checks an smtpd that passes its sessions to the inbound proxy.
fn in_front(front: &MasterService, postfix: &Postfix, found: &mut Vec<Finding>) {
    let name = &front.name;
    if postfix.of(front, "smtpd_reject_unlisted_recipient") != "no" {
        found.push(Wrong(format!(
            "{name} looks recipients up itself, and refuses tagged ones as unknown: -o smtpd_reject_unlisted_recipient=no"
        )));
    }
    if postfix.of(front, "smtpd_proxy_options").contains("speed_adjust") {
        found.push(Wrong(format!(
            "{name} has smtpd_proxy_options = speed_adjust: one refused recipient takes the others with it"
        )));
    }
    for list in ["smtpd_recipient_restrictions", "smtpd_relay_restrictions", "smtpd_client_restrictions"] {
        for rule in ["reject_unlisted_recipient", "reject_unverified_recipient", "check_recipient_access"] {
            if postfix.of(front, list).contains(rule) {
                found.push(Careful(format!(
                    "{name} has {rule} in {list}: it sees tagged recipients, which are in no list; move it to the smtpd behind"
                )));
            }
        }
    }
}

/// Checks the smtpd behind the inbound proxy.
fn behind_it(behind: &MasterService, listen: &Endpoint, postfix: &Postfix, found: &mut Vec<Finding>) {
    let name = &behind.name;
    if names(postfix.of(behind, "smtpd_proxy_filter"), listen) {
        found.push(Wrong(format!("a loop: {name} hands its sessions to the proxy again: -o smtpd_proxy_filter=")));
    }
    let limit = postfix.of(behind, "smtpd_client_connection_count_limit");
    if limit != "0" {
        found.push(Careful(format!(
            "{name} takes {limit} sessions from one client, and the proxy is one: -o smtpd_client_connection_count_limit=0"
        )));
    }
    found.extend(flow_delay(postfix));
    let knows_clients = !postfix.of(behind, "smtpd_authorized_xclient_hosts").is_empty();
    let trusts = networks(postfix.of(behind, "mynetworks")).any(|net| net.addr().is_loopback());
    let permits = ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"]
        .into_iter()
        .any(|list| postfix.of(behind, list).contains("permit_mynetworks"));
    if trusts && permits && !knows_clients {
        found.push(Careful(format!(
            "{name} takes whoever comes through the proxy for mynetworks: -o mynetworks= -o smtpd_relay_restrictions=reject_unauth_destination"
        )));
    }
}

/// Warns about a next hop on loopback on whose port no smtpd listens.
pub(super) fn nobody_listens(hop: &Endpoint, setting: &str, postfix: &Postfix, found: &mut Vec<Finding>) {
    if hop.is_loopback() && matches!(hop, Endpoint::Tcp { .. }) && postfix.listening(hop).is_none() {
        found.push(Careful(format!("{setting} is {hop}, and no smtpd of this instance listens there")));
    }
}
