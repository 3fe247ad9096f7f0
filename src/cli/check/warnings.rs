//! Warnings about a valid config: settings with surprising effects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::unistd::Group;

use super::rights::RUN_FOLDER;
use crate::cli::common_args::now;
use crate::config::{Config, Endpoint, Listener, MtaService, Protocol, Role, ServiceProtocol, Side, TlsMode};
use crate::envelope::address::Address;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::{Ramp, Rules};
use crate::envelope::site_policy::{InboundMode, Mixed, OutboundMode, Policy, RejectAt};
use crate::state::ownership::{daemon_user, make_folder};

pub(in crate::cli) fn all(config: &Config, ring: &Keyring) -> Vec<String> {
    let policy = &config.policy;
    let mut warnings = Vec::new();
    let lists = [
        ("outbound.pilot", &policy.outbound.pilot),
        ("outbound.exempt_senders", &policy.outbound.exempt_senders),
        ("outbound.exempt_recipients", &policy.outbound.exempt_recipients),
        ("inbound.exempt_senders", &policy.inbound.exempt_senders),
        ("inbound.exempt_recipients", &policy.inbound.exempt_recipients),
        ("inbound.daemon_senders", &policy.inbound.daemon_senders),
    ];
    for (list, word) in lists.into_iter().flat_map(|(list, set)| set.bare_words().into_iter().map(move |w| (list, w))) {
        warnings.push(format!(
            "`{word}` in {list} is taken for a domain; for a local part in every domain write `{word}@`"
        ));
    }
    for name in policy.domains.srs_below_a_wildcard() {
        warnings.push(format!(
            "domains.local has a wildcard above the SRS domain {name}. It does not count there: {name} holds SRS addresses, postmaster \
             and abuse, and all other recipients in it are refused. If it has users, name it in domains.local itself"
        ));
    }
    if policy.outbound.mode == OutboundMode::Pilot && policy.outbound.pilot.is_empty() {
        warnings.push("outbound.mode is \"pilot\" and outbound.pilot is empty: nothing is signed".into());
    }
    if policy.outbound.mixed == Mixed::Sign && !policy.outbound.exempt_recipients.is_empty() {
        warnings.push(
            "outbound.exempt_recipients has no effect, because outbound.mixed is \"sign\": every recipient gets the signed sender. \
             Remove outbound.mixed to exempt them"
                .into(),
        );
    }
    if policy.inbound.exempt_clients.contains([127, 0, 0, 1].into()) {
        warnings.push(
            "inbound.exempt_clients holds loopback: behind smtpd_proxy_filter every client is 127.0.0.1, and nothing would be refused"
                .into(),
        );
    }
    if !policy.outbound.exempt_clients.is_empty() && policy.inbound.mode != InboundMode::Observe {
        warnings.push(
            "mail of outbound.exempt_clients leaves unsigned, and bounces to it come back without a tag: name its senders in \
             outbound.exempt_senders, too, or they are refused"
                .into(),
        );
    }
    if policy.inbound.mode == InboundMode::Ramp && policy.outbound.mode == OutboundMode::Pilot {
        warnings.push(
            "outbound.mode = \"pilot\" leaves mail unsigned, so the ramp never ends; set inbound.mode = \"enforce\" to act on bounces to the pilots"
                .into(),
        );
    }
    if policy.inbound.mode == InboundMode::Enforce {
        let rules = Rules::new(policy, ring, now());
        for name in policy.domains.local.names().into_iter().filter(|name| !name.starts_with('.')) {
            if rules.ramp(&name) != Ramp::Enforcing {
                warnings.push(format!(
                    "inbound.mode is \"enforce\", and mail of {name} is not known to have been signed for long enough: bounces to what left \
                     unsigned are refused. inbound.mode = \"ramp\" waits for them; or say since when it is signed: countersign keys ramp-start --at TIME {name}"
                ));
            }
        }
    }
    if let Some(to) = policy.inbound.quarantine_to.as_ref().filter(|to| !policy.domains.is_local(to.domain())) {
        warnings.push(format!(
            "inbound.quarantine_to = \"{to}\" is in none of your domains: does next_hop take mail for it?"
        ));
    }
    if policy.inbound.own_senders_tagged && policy.outbound.mode != OutboundMode::Sign {
        warnings.push(
            "inbound.own_senders is \"tagged\", and outbound.mode not \"sign\": mail of your own users that leaves unsigned and comes \
             back, by a mailing list, is refused"
                .into(),
        );
    }
    let copy_to = policy.outbound.ndr.copy_to.as_ref().filter(|to| policy.domains.is_local(to.domain()));
    let is_exempt = |to: &Address| policy.inbound.exempt_recipients.contains(to);
    if let Some(to) = copy_to.filter(|to| policy.outbound.ndr.is_active() && !is_exempt(to)) {
        warnings.push(format!(
            "outbound.ndr.copy_to = \"{to}\" is one of your addresses: a copy has the null sender and no tag, so an inbound listener \
             on its way refuses it. Name it in inbound.exempt_recipients, or use postmaster@"
        ));
    }
    if config.status.as_ref().is_some_and(|status| !status.is_loopback()) {
        warnings.push("status.listen can be reached from outside, and asks for no password".into());
    }
    if policy.outbound.evidence && !policy.inbound.evidence {
        warnings.push("outbound.evidence is on and inbound.evidence off: nobody looks for what mail carries".into());
    }
    for (name, lifetime) in [("batv", policy.batv.lifetime), ("srs", policy.srs.lifetime)] {
        let least = policy.inbound.queue_lifetime.saturating_add(2);
        if lifetime < least {
            warnings.push(format!(
                "{name}.lifetime is {lifetime} days; mail may wait {} days in a queue before it bounces: use {least} or more",
                policy.inbound.queue_lifetime
            ));
        }
    }
    let inbound_proxy = config.listeners.iter().any(|listener| listener.role == Role::Inbound);
    if inbound_proxy && !policy.domains.srs.is_empty() && config.srs_next_hop.is_empty() && !policy.inbound.srs_stays {
        warnings.push(
            "srs_domain is set, and neither inbound.srs_next_hop nor srs_reverse = \"mta\": bounces of forwarded mail go to \
             next_hop with a foreign recipient, which it may refuse to relay"
                .into(),
        );
    }
    warnings.extend(config.listeners.iter().flat_map(|listener| of_listener(listener, policy)));
    warnings.extend(config.mta_services.iter().flat_map(|mta_service| of_mta_service(mta_service, config)));
    let now = now();
    for key in ring.keys() {
        if key.needed_until().is_some_and(|until| until <= now) {
            warnings.push(format!("key {} is not needed any more; see: countersign keys list", key.id));
        }
        if key.created > now {
            warnings.push(format!("key {} is from the future; is the clock right?", key.id));
        }
    }
    warnings.extend(missing_folders(config));
    warnings.extend(unknown_groups(config));
    if signs_and_strips_nothing(config) {
        warnings.push(
            "outbound mail is signed, and nothing here takes the tags off again: bounces go to prvs=…, which is not a user. Add \
             [[listener]] role = \"inbound\", or do that on another host with the same key ring"
                .into(),
        );
    }
    if let Some(name) = policy.domains.srs.names().into_iter().find(|name| policy.domains.local.names_exactly(name)) {
        warnings.push(format!(
            "srs_domain = \"{name}\" is one of domains.local: forwarded mail of others then leaves in the name of your own domain, and \
             its SPF and DMARC records answer for it. A domain of its own is better: srs_domain = \"srs.{name}\""
        ));
    }
    if config.listeners.is_empty() && config.mta_services.is_empty() {
        warnings.push("there is no [[listener]]: `serve` would have nothing to do".into());
    }
    warnings
}

/// Folders of sockets that do not exist.
fn missing_folders(config: &Config) -> Vec<String> {
    let sockets = config.listeners.iter().map(|it| (&it.listen, &it.access));
    let sockets = sockets.chain(config.mta_services.iter().map(|it| (&it.listen, &it.access)));
    let folders = sockets.filter_map(|(listen, access)| match listen {
        Endpoint::Unix(path) => Some((path.parent()?, access.group.as_deref())),
        Endpoint::Tcp { .. } | Endpoint::Systemd(_) => None,
    });
    // The unit makes its own when the daemon starts.
    let missing: BTreeMap<&Path, Option<&str>> =
        folders.filter(|(folder, _)| !folder.is_dir() && *folder != Path::new(RUN_FOLDER)).collect();
    let line = |(folder, group): (&Path, Option<&str>)| {
        format!(
            "there is no folder {} for the sockets in it: {}",
            folder.display(),
            make_folder(folder, &daemon_user(), group)
        )
    };
    missing.into_iter().map(line).collect()
}

/// Groups of sockets that this machine does not have.
fn unknown_groups(config: &Config) -> Vec<String> {
    let accesses = config.listeners.iter().map(|it| &it.access).chain(config.mta_services.iter().map(|it| &it.access));
    let named: BTreeSet<&str> = accesses.filter_map(|access| access.group.as_deref()).collect();
    let is_unknown = |name: &&str| name.parse::<u32>().is_err() && !matches!(Group::from_name(name), Ok(Some(_)));
    let line = |name| format!("group = \"{name}\": this machine has no such group, so `serve` would not start");
    named.into_iter().filter(is_unknown).map(line).collect()
}

/// Whether mail is signed here, and bounces to it are not taken by this config.
fn signs_and_strips_nothing(config: &Config) -> bool {
    let is_of = |side: Side| move |it: &MtaService| it.protocol == ServiceProtocol::Milter && it.side == side;
    // A map is asked about both, and a milter without a side sees both.
    let has_map = config.mta_services.iter().any(|it| it.protocol == ServiceProtocol::Socketmap);
    let has_both = config.mta_services.iter().any(is_of(Side::Auto));
    let signs = config.listeners.iter().any(|it| it.role == Role::Outbound)
        || config.mta_services.iter().any(is_of(Side::Outbound));
    let strips = config.listeners.iter().any(|it| it.role == Role::Inbound)
        || config.mta_services.iter().any(is_of(Side::Inbound));
    config.policy.outbound.mode != OutboundMode::Off && signs && !strips && !has_map && !has_both
}

fn of_listener(listener: &Listener, policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let outside = listener.role == Role::Inbound && listener.clients.is_empty() && !listener.listen.is_loopback();
    if outside && listener.tls == TlsMode::Off && listener.protocol == Protocol::Smtp {
        warnings.push(format!(
            "the inbound listener {} can be reached from outside and has no TLS; give it tls = \"may\", certificate and private_key",
            listener.listen
        ));
    }
    let loopback = [127, 0, 0, 1].into();
    let behind_an_mta =
        listener.role == Role::Inbound && listener.listen.is_loopback() && listener.trusted_proxies.is_empty();
    if behind_an_mta && policy.inbound.guesses_per_minute > 0 && !policy.inbound.trusted_relays.contains(loopback) {
        warnings.push(format!(
            "the inbound listener {} takes every client for 127.0.0.1, so one network that guesses tags puts off everybody's bounces: \
             let the MTA in front say who its client is (trusted_proxies), or name 127.0.0.1 in inbound.trusted_relays",
            listener.listen
        ));
    }
    if listener.trusted_proxies.contains([127, 0, 0, 1].into()) && outside {
        warnings.push(format!(
            "the listener {} trusts 127.0.0.1 to say who its client is: every local user may then be anybody",
            listener.listen
        ));
    }
    warnings
}

/// Warnings about a protocol by which an MTA queries the rules: what it does not show them.
fn of_mta_service(mta_service: &MtaService, config: &Config) -> Vec<String> {
    let policy = &config.policy;
    let mut warnings = Vec::new();
    let content_is_seen = config.listeners.iter().any(|listener| listener.role == Role::Inbound)
        || config.mta_services.iter().any(|a| a.protocol == ServiceProtocol::Milter && a.side != Side::Outbound);
    if mta_service.protocol == ServiceProtocol::Policy && policy.inbound.reject_at == RejectAt::Data && !content_is_seen
    {
        warnings.push(format!(
            "the policy service {} sees no content: with inbound.reject_at = \"data\" it refuses tags that do not hold, and no bounce to an \
             address without one. \"rcpt\" or \"auto\" refuses those, too, replies and receipts included; a milter or a proxy tells them apart",
            mta_service.listen
        ));
    }
    if matches!(mta_service.listen, Endpoint::Tcp { .. }) && mta_service.protocol == ServiceProtocol::Socketmap {
        warnings.push(format!(
            "the socketmap {} answers every local user: it signs for every user, and says whether a guessed tag is good. Use a socket in the \
             file system: listen = \"unix:/path\", mode = \"0660\", group = the mail server's",
            mta_service.listen
        ));
    }
    let outbound = &policy.outbound;
    for (name, used) in [
        ("exempt_recipients", !outbound.exempt_recipients.is_empty()),
        ("exempt_clients", !outbound.exempt_clients.is_empty()),
    ] {
        // Beside a milter or a proxy, a map is queried about recipients only.
        if used && mta_service.protocol == ServiceProtocol::Socketmap && !writes_evidence(config) {
            warnings.push(format!(
                "outbound.{name} does not count for the map sign on {}: a map is told the sender and nothing else",
                mta_service.listen
            ));
        }
    }
    warnings
}

/// Whether a listener sees the recipients and headers of outbound mail, so that it can add evidence.
pub(super) fn writes_evidence(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.role == Role::Outbound)
        || config.mta_services.iter().any(|a| a.protocol == ServiceProtocol::Milter && a.side != Side::Inbound)
}
