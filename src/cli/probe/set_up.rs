//! What a probe knows before its first test: who is asked about whom, from where, and with which tags.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use nix::unistd::{User, getuid};

use super::arguments::Probe;
use super::bounces::Bounces;
use super::ownership::is_own;
use super::real_server::{RealServer, SMTP, address_of, literal};
use crate::cli::common_args::now;
use crate::cli::dns::Dns;
use crate::config::Config;
use crate::drive::client_dialogue::host_name;
use crate::envelope::address::Address;
use crate::envelope::tag::batv::Prvs;
use crate::envelope::time::Day;
use crate::probe::finding::{Section, Test};
use crate::probe::messages::{Messages, OF_USER};
use crate::probe::run::shown;
use crate::probe::server::{Expected, transaction};
use crate::probe::site::{OtherHost, Site};
use crate::probe::tags::Tags;
use crate::state::ring_file;
use crate::state::time_format::mail_date;

/// The user whose name is put behind another user's tag. Every domain has this one (RFC 5321 section 4.5.1).
const ANOTHER: &str = "postmaster";
/// Domains that are tested.
const MAX_DOMAINS: usize = 8;
/// Other MX hosts that are asked.
const MAX_HOSTS: usize = 3;

/// The site, as far as the arguments describe it.
pub(super) fn site(args: &Probe, wanted: Vec<Test>) -> Result<Site> {
    let Some(user) = &args.user else { bail!("which mailbox of yours is on this server? --user ADDRESS") };
    let own = user.domain().to_ascii_lowercase();
    let mut domains: Vec<String> = args.domain.iter().map(|domain| domain.to_ascii_lowercase()).collect();
    if domains.len() > MAX_DOMAINS {
        bail!("a probe tests {MAX_DOMAINS} domains at most");
    }
    if !domains.is_empty() && !domains.contains(&own) {
        bail!("--user {user} is in none of the domains that --domain names: add --domain {own}");
    }
    domains.retain(|domain| *domain != own);
    domains.insert(0, own);
    let machine = host_name();
    let sender = match &args.sender {
        Some(sender) => sender.to_string(),
        None => format!("countersign-probe@{machine}"),
    };
    let sender_domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase();
    if domains.contains(&sender_domain) {
        bail!("--sender {sender} is in a domain of the server; name an address of yours elsewhere");
    }
    let config = args.config.as_deref().map(Config::load).transpose()?;
    let tags = match &args.signed {
        Some(signed) => {
            Ok(captured(signed, now().day(), &user.to_string()).with_context(|| format!("--signed {signed}"))?)
        }
        None => Err("needs a signed return address: --config, --signed, or --submit with --bounces".to_owned()),
    };
    let by = User::from_uid(getuid()).ok().flatten().map_or_else(|| getuid().to_string(), |user| user.name);
    Ok(Site {
        domains,
        user: user.to_string(),
        sender,
        literal: "192.0.2.25".to_owned(),
        tags,
        unsigned: None,
        run: random()?,
        by: format!("{by}@{machine}"),
        date: mail_date(now()),
        is_inside: false,
        needs_header: false,
        sees_bounces: args.bounces.is_some(),
        srs_domain: config.as_ref().and_then(|config| config.policy.domains.srs.names().into_iter().next()),
        other_hosts: Err("not looked up".to_owned()),
        wanted,
    })
}

/// Twelve hexadecimal digits that nobody can guess.
fn random() -> Result<String> {
    let mut octets = [0; 6];
    getrandom::fill(&mut octets).context("the system has no random numbers")?;
    Ok(data_encoding::HEXLOWER.encode(&octets))
}

/// The server, not connected to yet, and the place where its bounces arrive.
pub(super) fn server(args: &Probe, host: &str, site: &mut Site) -> Result<RealServer> {
    let (name, port) = split_port(host)?;
    let address = address_of(name, port).with_context(|| format!("{host} cannot be reached"))?;
    site.is_inside = args.from.is_none() && is_own(address.ip());
    site.literal = literal(address.ip());
    let machine = host_name();
    let name = args.helo.clone().or_else(|| machine.contains('.').then(|| machine.clone()));
    let mut server = RealServer::new(address, args.from, name);
    server.patience = args.patience();
    let domain = site.sender_parts().1;
    server.bounces =
        args.bounces.as_ref().map(|place| Bounces::open(place, &machine, domain, &site.run)).transpose()?;
    Ok(server)
}

/// Host and port of `host`, `host:25`, `192.0.2.25`, `[2001:db8::25]:25` or `2001:db8::25`.
pub(super) fn split_port(text: &str) -> Result<(&str, u16)> {
    let wrong = || format!("{text}: write HOST or HOST:PORT");
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, SMTP));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0).with_context(wrong)?),
        None => (text, SMTP),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host.is_empty() {
        true => bail!(wrong()),
        false => Ok((host, port)),
    }
}

/// Makes sure that the server is there, and takes mail for the user from the sender.
pub(super) fn greet(server: &mut RealServer, site: &mut Site) -> Result<()> {
    let address = server.address;
    let mut session = server.open_first().with_context(|| format!("{address} cannot be probed"))?;
    site.needs_header = server.needs_header;
    let (sender, user) = (&site.sender, &site.user);
    let reply = transaction(&mut session, sender, user, None, Expected::Accepted)?;
    let line = shown(&reply);
    match reply.code {
        200..300 => Ok(()),
        530 if !server.uses_tls => {
            drop(session);
            server.uses_tls = true;
            greet(server, site)
        }
        400..500 => bail!(
            "the server puts off mail from {sender} to {user}, so nothing can be tested now: {line}\n\
             Is this greylisting? Then run the probe again in some minutes"
        ),
        _ => bail!(
            "the server refuses mail from {sender} to {user}: {line}\n\
             Is that a mailbox there? If it is the sender that is refused, name an address of yours elsewhere by --sender"
        ),
    }
}

/// Gets signed return addresses of the user, in the way that the arguments name.
pub(super) fn tags(args: &Probe, server: &mut RealServer, site: &mut Site) -> Result<()> {
    let today = now().day();
    if let Some(path) = &args.config {
        let config = Config::load(path)?;
        let ring = ring_file::load(&config.ring)?;
        let key = ring.batv_signer().context("no key of the ring signs")?;
        let user = Address::parse(&site.user)?;
        site.tags = Ok(Tags::signed(key, &config.policy.batv, today, &user, ANOTHER)?);
    } else if let Some(through) = &args.submit {
        let sent = sent_by(through, server, site)?;
        match Tags::captured(&sent, today, ANOTHER) {
            Some(tags) => site.tags = Ok(tags),
            None => {
                site.tags = Err(format!("a message through {through} left unsigned, as {sent}"));
                site.unsigned = Some(sent);
            }
        }
    }
    Ok(())
}

/// Tags from an address that the person who runs the probe has named.
fn captured(signed: &Address, today: Day, user: &str) -> Result<Tags> {
    let local = signed.local();
    let prvs = Prvs::parse(local).context("it has no tag of the form prvs=…=name@domain")?;
    let of = format!("{}@{}", prvs.core, signed.domain());
    if !of.eq_ignore_ascii_case(user) {
        bail!("it is the return address of {of}, and --user is {user}");
    }
    if prvs.day.ahead_of(today) < 0 {
        bail!("it has expired; take it from a message that was sent today");
    }
    Tags::captured(signed.as_str(), today, ANOTHER).context("it cannot be used")
}

/// Sends a message as the user does, and returns the return address with which it arrives.
fn sent_by(through: &str, server: &mut RealServer, site: &Site) -> Result<String> {
    let (name, port) = split_port(through)?;
    let address = address_of(name, port)?;
    if !is_own(address.ip()) && address.ip() != server.address.ip() {
        bail!("--submit {through}: it must be the server that is probed, or a server of this machine");
    }
    let mut submission = RealServer::new(address, None, server.hello.clone());
    let message = Messages::of(site).of_user();
    server.sessions += 1;
    let mut session = submission.open_at(address).with_context(|| format!("--submit {through}"))?;
    let reply = transaction(&mut session, &site.user, &site.sender, Some(&message), Expected::Accepted)?;
    if !reply.is_positive() {
        bail!("--submit {through}: {}", shown(&reply));
    }
    let marker = format!("Subject: {OF_USER}");
    let bounces = server.bounces.as_ref().context("--submit needs --bounces")?;
    let arrived = bounces.wait(server.patience, |it| it.text.contains(&marker) && it.text.contains(&site.run));
    let seconds = server.patience.as_secs();
    let arrived = arrived
        .with_context(|| format!("the message to {} has not arrived at --bounces within {seconds} s", site.sender))?;
    Ok(if arrived.from.is_empty() { "<>".to_owned() } else { arrived.from })
}

/// Looks up the other MX hosts of the domain, if a test asks for them.
pub(super) fn other_hosts(args: &Probe, host: &str, site: &mut Site) {
    if !site.wanted.iter().any(|test| test.section() == Section::OtherHosts) {
        return;
    }
    site.other_hosts = match hosts(args, host, site) {
        Ok(hosts) if hosts.is_empty() => Err(format!("{} has no other MX host", site.domain())),
        Ok(hosts) => Ok(hosts),
        Err(error) => Err(format!("{error:#}")),
    };
}

fn hosts(args: &Probe, host: &str, site: &Site) -> Result<Vec<OtherHost>> {
    let dns = Dns::new(args.name_server)?;
    let (name, port) = split_port(host)?;
    let own: Vec<IpAddr> = address_of(name, port).into_iter().map(|address| address.ip()).collect();
    let mut others = Vec::new();
    let hosts = dns.mx(site.domain())?;
    if hosts.is_empty() {
        bail!("the DNS has no MX record of {}", site.domain());
    }
    for (_, exchange) in hosts.into_iter().take(2 * MAX_HOSTS) {
        // A null MX (RFC 7505) has no name.
        if exchange.is_empty() || exchange.eq_ignore_ascii_case(name) {
            continue;
        }
        // A host that cannot be looked up gets no mail, so it loses none.
        let addresses = dns.addresses(&exchange).unwrap_or_default();
        match addresses.first() {
            Some(first) if !addresses.iter().any(|address| own.contains(address)) => {
                others.push(OtherHost { name: exchange, address: *first });
            }
            _ => {}
        }
    }
    others.truncate(MAX_HOSTS);
    Ok(others)
}
