//! `check`: validates the config, and prints what it means.

mod connect;
mod dangers;
mod mta;
mod warnings;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::common_args::{find_config, now};
use crate::cli::colours::{BOLD, GREEN, RED, YELLOW};
use crate::config::{Config, Listener, MtaService, Protocol, Role, ServiceProtocol, Side, TlsMode, listed};
use crate::drive::proxy_listener::ProxyListener;
use crate::envelope::keyring::{KeyState, Keyring};
use crate::envelope::match_lists::Networks;
use crate::envelope::rules::{Ramp, Rules};
use crate::envelope::site_policy::{
    FailureAction, FailureReason, InboundMode, LongSrs, OutboundMode, Overflow, OwnBouncePolicy, RecipientSource,
    RejectAt,
};
use crate::service::ramp_words;
use crate::service::report::Report;
use crate::state;
use crate::state::time_format::rfc3339;

pub(super) use self::warnings::all as warnings;
use self::warnings::writes_evidence;

/// `countersign check`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign check
  countersign check --mta-config /etc/postfix     does Postfix fit? What is missing, what is dangerous?
  countersign check --mta-config /etc/exim4

Exit status: 0 the config is good (warnings may still be worth reading), 1 the mail server's is not,
or with --strict there is a warning, 2 ours is wrong or dangerous.")]
pub(super) struct Check {
    /// Config file [default: countersign.toml here, then /etc/countersign/countersign.toml; or the files in
    /// COUNTERSIGN_CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check that Postfix (the folder of main.cf) or Exim (its folder or file) fits the config
    #[arg(long, value_name = "PLACE")]
    mta_config: Option<PathBuf>,
    /// Connect to each next hop, and warn of those that do not answer [default: on a terminal]
    #[arg(long)]
    connect: bool,
    /// Do not connect to next hops
    #[arg(long, conflicts_with = "connect")]
    no_connect: bool,
    /// Exit with 1 if there is a warning
    #[arg(long)]
    strict: bool,
}

/// Prints what the config means, with warnings about settings that have surprising effects. `false`: the mail server's
/// configuration is wrong.
pub(super) fn run(args: &Check) -> Result<bool> {
    let config = find_config(args.config.as_deref())?
        .context("there is no config; name one with -c FILE, or write one: countersign init --help")?;
    let ring = state::ring_file::load(&config.ring)?;
    for listener in &config.listeners {
        ProxyListener::new(listener, &config)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{}: TLS of the listener {}", config.path.display(), listener.listen))?;
    }
    let mut lists = Vec::new();
    for path in &config.recipients.files {
        let list = state::recipient_file::load(path).map_err(anyhow::Error::msg).context("inbound.recipients")?;
        lists.push(list.len());
    }
    let dangers = dangers::all(&config);
    let (good, colour) = if dangers.is_empty() { ("are good", GREEN) } else { ("can be read", YELLOW) };
    anstream::println!("{colour}{} and {} {good}.{colour:#}", config.path.display(), config.ring.display());
    match state::ring_file::sweep(&config.ring) {
        Ok(0) => {}
        Ok(1) => anstream::println!("  Removed a copy of the key ring that an interrupted change had left beside it."),
        Ok(n) => {
            anstream::println!("  Removed {n} copies of the key ring that interrupted changes had left beside it.");
        }
        Err(error) => anstream::println!(
            "{YELLOW}warning:{YELLOW:#} interrupted changes have left copies of the key ring beside it: {error}"
        ),
    }
    let lines = keys(&config, &ring).into_iter().chain(outbound(&config)).chain(own_bounces(&config));
    for line in lines.chain(inbound(&config)).chain(recipients(&config, &lists)) {
        anstream::println!("  {line}");
    }
    for listener in &config.listeners {
        anstream::println!("  {}", listener_line(listener));
    }
    for mta_service in &config.mta_services {
        anstream::println!("  {}", service_line(mta_service));
    }
    let running = super::status::running(&config);
    let daemon = super::status_client::daemon(&config);
    // Only the daemon knows on which days signed mail has left.
    let known = running.as_ref().map(|report| report.ramps.clone()).or(daemon.ramps);
    let ramps = known.filter(|ramps| !ramps.is_empty()).unwrap_or_else(|| ramps(&config, &ring));
    for (name, state) in ramps {
        anstream::println!("    {name}: {state}");
    }
    for line in daemon.lines.into_iter().chain(running.iter().flat_map(|report| of_the_daemon(report, &config))) {
        anstream::println!("  {line}");
    }
    let mut warnings = warnings(&config, &ring);
    if args.connect || (std::io::stdout().is_terminal() && !args.no_connect) {
        warnings.extend(connect::all(&config));
    }
    for danger in &dangers {
        anstream::println!("{RED}danger:{RED:#} {danger}");
    }
    for warning in &warnings {
        anstream::println!("{YELLOW}warning:{YELLOW:#} {warning}");
    }
    let fits = args.mta_config.as_deref().map_or(Ok(true), |place| mta::check(&config, place))?;
    match dangers.len() {
        0 => Ok(fits && (warnings.is_empty() || !args.strict)),
        1 => bail!("{} has a dangerous setting; see above", config.path.display()),
        n => bail!("{} has {n} dangerous settings; see above", config.path.display()),
    }
}

/// What only a running daemon knows.
fn of_the_daemon(report: &Report, config: &Config) -> Vec<String> {
    let mut lines = vec![super::status::compared(report, config)];
    if !report.aliases.is_empty() {
        let listed: Vec<String> = report.aliases.iter().map(|(result, count)| format!("{result} {count}")).collect();
        lines.push(format!("SRS aliases of long senders since the start: {}", listed.join(", ")));
    }
    lines.extend(report.catch_all.iter().map(|domain| {
        format!(
            "{YELLOW}catch-all{YELLOW:#}: {domain} accepts mail for unknown recipients. If that is not a catch-all mailbox, it is \
             bounced later to forged senders: see inbound.recipients"
        )
    }));
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

fn inbound(config: &Config) -> Vec<String> {
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
    for reason in FailureReason::ALL {
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

/// Whether this daemon signs outbound mail.
fn signs(config: &Config) -> bool {
    writes_evidence(config)
        || config.mta_services.iter().any(|mta_service| mta_service.protocol == ServiceProtocol::Socketmap)
}

/// The state of the ramp of each local domain, by the ring alone.
fn ramps(config: &Config, ring: &Keyring) -> Vec<(String, String)> {
    if config.policy.inbound.mode != InboundMode::Ramp {
        return Vec::new();
    }
    let rules = Rules::new(&config.policy, ring, now());
    let names = config.policy.domains.local.names();
    let one = |name: &String| {
        // `.our.example` stands for the domains below our.example.
        let domain = if name.starts_with('.') { format!("x{name}") } else { name.clone() };
        let ramp = rules.ramp(&domain);
        let since = ring.signing_since().get(name).filter(|_| ramp == Ramp::Enforcing);
        let since = since.map_or_else(String::new, |at| format!(", signed since {}", rfc3339(*at)));
        (name.clone(), format!("{}{since}", ramp_words::describe(&ramp, name, signs(config))))
    };
    names.iter().map(one).collect()
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
