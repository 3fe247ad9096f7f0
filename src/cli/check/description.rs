//! What a config does, in words.

use super::warnings::writes_evidence;
use crate::cli::colours::BOLD;
use crate::config::{Config, Listener, MtaService, Protocol, Role, ServiceProtocol, Side, TlsMode, listed};
use crate::envelope::keyring::{KeyState, Keyring};
use crate::envelope::match_lists::Networks;
use crate::envelope::site_policy::{
    FailureAction, FailureReason, InboundMode, LongSrs, OutboundMode, Overflow, OwnBouncePolicy, RecipientSource,
    RejectAt,
};

/// All lines. `lists`: the number of entries of each list of recipients; `verbose`: with what each reason means.
pub(super) fn lines(config: &Config, ring: &Keyring, lists: &[usize], verbose: bool) -> Vec<String> {
    let mut lines = keys(config, ring);
    lines.extend(outbound(config));
    lines.extend(own_bounces(config));
    lines.extend(inbound(config, verbose));
    lines.extend(recipients(config, lists));
    lines.extend(config.listeners.iter().map(listener_line));
    lines.extend(config.mta_services.iter().map(service_line));
    lines
}

fn keys(config: &Config, ring: &Keyring) -> Vec<String> {
    let signer = ring.own_signer().map_or_else(String::new, |k| format!("Key {} signs", k.id));
    let in_state = |states: &[KeyState]| {
        let ids: Vec<String> =
            ring.keys().iter().filter(|k| states.contains(&k.state)).map(|k| k.id.to_string()).collect();
        if ids.is_empty() { "no other".to_owned() } else { ids.join(", ") }
    };
    let others = in_state(&[KeyState::Verifying, KeyState::Next]);
    let policy = &config.policy;
    vec![format!(
        "{BOLD}Keys{BOLD:#}: {signer}, {others} verifies. Tags live {} days, SRS addresses {}.",
        policy.batv.lifetime, policy.srs.lifetime
    )]
}

fn names(config: &Config) -> String {
    config.policy.domains.local.names().join(", ")
}

fn outbound(config: &Config) -> Vec<String> {
    let policy = &config.policy;
    let ours = match policy.outbound.mode {
        OutboundMode::Off => "nothing is signed (mode = \"off\")".to_owned(),
        OutboundMode::Pilot => "only senders in outbound.pilot are signed".to_owned(),
        OutboundMode::Sign if policy.domains.local.names().is_empty() => {
            "no domain is yours, so nothing is signed".to_owned()
        }
        OutboundMode::Sign => format!("senders in {} are signed", names(config)),
    };
    let foreign = match policy.domains.srs.alias_for("") {
        Some(alias) => format!("foreign senders are rewritten into {alias}"),
        None if policy.domains.srs.is_empty() => "foreign senders pass as they are (no srs_domain)".to_owned(),
        None => "foreign senders are rewritten as the table srs_domain says".to_owned(),
    };
    let long = match policy.outbound.overflow {
        Overflow::Pass => "pass unsigned",
        Overflow::Sign => "are signed all the same",
        Overflow::Reject => "are rejected",
    };
    let long_foreign = match policy.outbound.long_srs {
        _ if policy.domains.srs.is_empty() => "",
        LongSrs::Alias if config.state.path.is_some() => ", foreign ones get an SRS alias",
        LongSrs::Alias => "",
        LongSrs::Overflow(Overflow::Pass) => ", foreign ones pass as they are",
        LongSrs::Overflow(Overflow::Sign) => ", foreign ones are rewritten all the same",
        LongSrs::Overflow(Overflow::Reject) => ", foreign ones are rejected",
    };
    vec![format!("{BOLD}Outbound{BOLD:#}: {ours}; {foreign}; senders too long to be signed {long}{long_foreign}.")]
}

/// What becomes of bounces of this site; nothing if all are sent.
fn own_bounces(config: &Config) -> Option<String> {
    let ndr = &config.policy.outbound.ndr;
    if !ndr.is_active() {
        return None;
    }
    let mut parts = vec![match ndr.policy {
        OwnBouncePolicy::Pass => "sent".to_owned(),
        OwnBouncePolicy::Verified => {
            format!("sent if {} has authenticated who gets them (policy = \"verified\")", ndr.authserv_id)
        }
        OwnBouncePolicy::Drop => "not sent (policy = \"drop\")".to_owned(),
    }];
    let limits = [(ndr.per_domain_per_hour, "to a domain"), (ndr.per_hour, "to all")].into_iter();
    let limits: Vec<String> =
        limits.filter(|(limit, _)| *limit > 0).map(|(limit, what)| format!("{limit} an hour {what}")).collect();
    if !limits.is_empty() {
        parts.push(format!("at most {}", limits.join(" and ")));
    }
    let has_proxy = config.listeners.iter().any(|listener| listener.role == Role::Outbound);
    if ndr.strip_content {
        let only = if has_proxy { "" } else { ", but not here: only an outbound proxy does that" };
        parts.push(format!("without the content of what they return{only}"));
    }
    if let Some(to) = &ndr.copy_to {
        parts.push(format!("those that are not sent go to {to}"));
    }
    Some(format!("{BOLD}Own bounces{BOLD:#} to other sites: {}.", parts.join("; ")))
}

/// Who says which recipients exist; nothing if it is the next hop for all domains. `lists`: the entries of each file.
fn recipients(config: &Config, lists: &[usize]) -> Vec<String> {
    let policy = &config.policy;
    let names = [policy.domains.local.names(), policy.domains.relay.names()].concat();
    let of = |name: &String| match policy.inbound.recipients.of(name) {
        RecipientSource::NextHop => None,
        RecipientSource::Server(n) => Some(format!("{} is asked", config.recipients.servers.get(n)?.endpoint)),
        RecipientSource::File(n) => {
            let entries = lists.get(n).copied().unwrap_or(0);
            Some(format!("{} ({entries} entries)", config.recipients.files.get(n)?.display()))
        }
    };
    if names.iter().all(|name| of(name).is_none()) {
        return Vec::new();
    }
    let one = |name: &String| format!("{name}: {}", of(name).unwrap_or_else(|| "the next hop".to_owned()));
    vec![format!(
        "{BOLD}Recipients{BOLD:#}: unknown ones are refused. {}",
        names.iter().map(one).collect::<Vec<_>>().join("; ")
    )]
}

/// What becomes of bounces. `verbose`: with what each reason means.
fn inbound(config: &Config, verbose: bool) -> Vec<String> {
    let inbound = &config.policy.inbound;
    let mut lines = vec![match inbound.mode {
        InboundMode::Observe => format!(
            "{BOLD}Inbound{BOLD:#}: no bounce is refused yet (mode = \"observe\"); what would be is marked and logged."
        ),
        InboundMode::Ramp => format!(
            "{BOLD}Inbound{BOLD:#}: false bounces to a domain are delivered and marked in its first days, and refused after that (mode = \"ramp\")."
        ),
        InboundMode::Enforce => format!("{BOLD}Inbound{BOLD:#}: false bounces are acted on (mode = \"enforce\")."),
    }];
    let lenient = inbound.mode == InboundMode::Observe;
    if !reads_content(config) {
        lines.extend(without_content(config));
        return lines;
    }
    if !verbose {
        lines.extend(by_action(config, lenient));
    }
    for reason in FailureReason::ALL.into_iter().filter(|_| verbose) {
        let what = match reason {
            FailureReason::Forged => "a bounce to a tag that is not ours",
            FailureReason::Expired => "a bounce to a tag that is too old",
            FailureReason::Future => "a bounce to a tag from the future",
            FailureReason::UntaggedNdr => "a bounce to an address without a tag",
            FailureReason::DaemonNdr => "the same from MAILER-DAEMON@… instead of <>",
            FailureReason::TextNdr => "the same, in words only",
            FailureReason::DoubtfulNdr => "a notice in words that shows nothing of what it is about",
            FailureReason::Overflow => "a bounce to an address that is too long to be signed",
        };
        lines.push(format!("  {:13} {what}: {}", reason.name(), action(inbound.actions.of(reason), config, lenient)));
    }
    for (kind, what) in &inbound.actions.by_kind {
        lines.push(format!(
            "  {:13} of this kind, whatever the reason: {}",
            kind.name(),
            action(*what, config, lenient)
        ));
    }
    lines.push(match inbound.reject_at {
        RejectAt::Data => {
            "  Null-sender mail without a tag is judged by its content: replies and receipts are delivered.".into()
        }
        RejectAt::Rcpt => {
            "  Null-sender mail without a tag is refused at RCPT, replies and receipts included (reject_at = \"rcpt\")."
                .into()
        }
        RejectAt::Auto => {
            "  Null-sender mail without a tag is judged by its content, and put off at RCPT during a surge (reject_at = \"auto\")."
                .into()
        }
    });
    lines.push(match (config.policy.outbound.evidence, inbound.evidence) {
        (true, true) if !writes_evidence(config) => {
            "  Evidence is looked for; mail that leaves carries none from here: a map cannot add a header.".into()
        }
        (true, true) => {
            let unless = match inbound.reject_at {
                RejectAt::Data => "",
                RejectAt::Rcpt => ", where they are not refused at RCPT",
                RejectAt::Auto => ", but not during a surge",
            };
            format!("  Mail that leaves carries evidence, and untagged bounces that return it are delivered{unless}.")
        }
        (false, true) => "  Mail that leaves carries no evidence (outbound.evidence = false).".into(),
        (_, false) => "  Evidence is not looked for (inbound.evidence = false).".into(),
    });
    lines
}

/// What is done, each with the reasons for which it is done.
fn by_action(config: &Config, lenient: bool) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for reason in FailureReason::ALL {
        let done = action(config.policy.inbound.actions.of(reason), config, lenient);
        match groups.iter_mut().find(|(it, _)| *it == done) {
            Some((_, reasons)) => reasons.push(reason.name()),
            None => groups.push((done, vec![reason.name()])),
        }
    }
    groups.into_iter().map(|(done, reasons)| format!("  {done}: {}", reasons.join(", "))).collect()
}

/// Whether a listener shows the content of bounces to the rules. Without any listener, all rules are described.
fn reads_content(config: &Config) -> bool {
    let asks_nobody = config.listeners.is_empty() && config.mta_services.is_empty();
    let by_proxy = config.listeners.iter().any(|listener| listener.role == Role::Inbound);
    let by_milter =
        config.mta_services.iter().any(|a| a.protocol == ServiceProtocol::Milter && a.side != Side::Outbound);
    asks_nobody || by_proxy || by_milter
}

/// What remains of the rules if MTAs query them about addresses only.
fn without_content(config: &Config) -> Vec<String> {
    if !config.mta_services.iter().any(|a| a.protocol == ServiceProtocol::Policy) {
        return vec![
            "  A tag that does not hold is not found by the map, so the mail server refuses it as an unknown user."
                .into(),
            "  Bounces to an address without a tag are delivered: nothing here is asked about them.".into(),
        ];
    }
    let untagged = match config.policy.inbound.reject_at {
        RejectAt::Data => "is delivered: nothing here sees its content",
        RejectAt::Rcpt => "is refused at RCPT, replies and receipts included (reject_at = \"rcpt\")",
        RejectAt::Auto => "is delivered, and during a surge put off at RCPT (reject_at = \"auto\")",
    };
    vec![
        "  A tag that does not hold is refused at RCPT.".into(),
        format!("  Null-sender mail without a tag {untagged}."),
    ]
}

fn action(action: FailureAction, config: &Config, lenient: bool) -> String {
    let would = if lenient { "would be " } else { "" };
    match action {
        FailureAction::Reject => format!("{would}rejected with 550 5.7.1"),
        FailureAction::Defer => format!("{would}put off with 451 4.7.1"),
        FailureAction::Discard => format!("{would}taken and thrown away"),
        FailureAction::Mark => "delivered with the header Countersign-Result".into(),
        FailureAction::Quarantine => {
            let to = config.policy.inbound.quarantine_to.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{would}sent to {to} with the header Countersign-Result")
        }
    }
}

fn whom(clients: &Networks, loopback: &str) -> String {
    match clients {
        none if none.is_empty() => "everybody who can reach it".to_owned(),
        local if local.is_loopback() => loopback.to_owned(),
        listed => listed.names().join(", "),
    }
}

/// The line about a milter, policy service or socketmap.
fn service_line(mta_service: &MtaService) -> String {
    let (listen, clients) = (&mta_service.listen, whom(&mta_service.clients, "MTAs on this machine"));
    match mta_service.protocol {
        ServiceProtocol::Socketmap => format!(
            "{BOLD}Socketmap{BOLD:#} on {listen} for {clients}: its maps are sign (forward), verify (reverse) and strip; it refuses nothing by itself"
        ),
        ServiceProtocol::Policy => {
            format!("{BOLD}Policy service{BOLD:#} on {listen} for {clients}: refuses at RCPT, and sees no content")
        }
        ServiceProtocol::Milter => {
            let which = match mta_service.side {
                Side::Outbound => "all mail that it sees leaves".to_owned(),
                Side::Inbound => "all mail that it sees comes in".to_owned(),
                Side::Auto => {
                    let daemons = match mta_service.outbound_daemons.as_slice() {
                        [] => String::new(),
                        names => format!(" and of its listener {}", names.join(", ")),
                    };
                    let clients = whom(&mta_service.outbound_clients, "clients on loopback");
                    format!("mail of users who have logged in, of {clients}{daemons} leaves; all other comes in")
                }
            };
            format!("{BOLD}Milter{BOLD:#} on {listen} for {clients}: {which}")
        }
    }
}

fn listener_line(listener: &Listener) -> String {
    let clients = whom(&listener.clients, "loopback clients");
    let (role, listen, next_hop) = (listener.role.name(), &listener.listen, listed(&listener.next_hop));
    let protocol = if listener.protocol == Protocol::Lmtp { ", LMTP" } else { "" };
    let tls = |mode, off| match mode {
        TlsMode::Off => off,
        TlsMode::May => ", TLS where the other side can",
        TlsMode::Require => ", TLS required",
        TlsMode::Implicit => ", TLS from the first octet",
    };
    let verified = if listener.hop_tls.verify { ", certificate verified" } else { "" };
    let mut line = format!(
        "{BOLD}Listener{BOLD:#}: {role} on {listen} for {clients}{protocol}{}; next hop {next_hop}{}{verified}",
        tls(listener.tls, ""),
        tls(listener.hop_tls.mode, "")
    );
    for (domains, hops) in &listener.by_domain {
        line.push_str(&format!("; for {} {}", domains.names().join(", "), listed(hops)));
    }
    if !listener.trusted_proxies.is_empty() {
        let how = if listener.accept_proxy { "PROXY header, XCLIENT, XFORWARD" } else { "XCLIENT, XFORWARD" };
        line.push_str(&format!("; {} may say who the client is ({how})", listener.trusted_proxies.names().join(", ")));
    }
    line
}
