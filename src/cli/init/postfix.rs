//! What Postfix says about the site, and the steps that tell it of Countersign's milter and map.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use ipnet::IpNet;

use super::fit::Fit;
use super::server::{Server, group_of};
use super::step::{Argv, Stage, Step};
use crate::cli::mta::postfix::{MasterService, Postfix, days, milters, networks, tables_of};
use crate::cli::mta::tools::names;
use crate::config::{Config, Endpoint};
use crate::recipes::Mta;

/// The folder of the sockets, below the queue folder: Postfix finds it inside and outside of a chroot.
const SOCKETS: &str = "countersign";
/// The sockets as Postfix names them, from its queue folder.
const MILTER: &str = "unix:countersign/milter";
const MAP: &str = "socketmap:unix:countersign/map:strip";

/// A Postfix that asks by a milter and a map.
pub(super) struct FittedPostfix {
    postfix: Postfix,
}

impl FittedPostfix {
    /// Reads the instance in a folder.
    pub(super) fn read(place: &Path) -> Result<Self> {
        Ok(Self { postfix: Postfix::read(place)? })
    }
}

impl Fit for FittedPostfix {
    fn method(&self) -> (Mta, &'static str) {
        (Mta::Postfix, "milter")
    }

    fn name(&self) -> &'static str {
        "Postfix"
    }

    fn facts(&self) -> Server {
        facts(&self.postfix)
    }

    fn recipe(&self, text: &str) -> String {
        text.replace("/var/spool/postfix/countersign", &socket_folder(&self.postfix))
            .replace("group = \"postfix\"", &format!("group = \"{}\"", self.group()))
    }

    fn group(&self) -> String {
        group_of(self.postfix.get("mail_owner")).unwrap_or_else(|| "postfix".to_owned())
    }

    fn socket_folder(&self) -> Option<String> {
        Some(socket_folder(&self.postfix))
    }

    fn files(&self) -> Vec<PathBuf> {
        ["main.cf", "master.cf"].map(|name| self.postfix.place.join(name)).to_vec()
    }

    fn lacks(&self, config: &Config) -> Option<String> {
        let milter = Endpoint::Unix(Path::new(&socket_folder(&self.postfix)).join("milter"));
        (!config.mta_services.iter().any(|it| it.listen == milter)).then(|| format!("no milter on {milter}"))
    }

    fn changes(&self, config: &Config, srs_domain: Option<&str>) -> Result<Vec<Step>> {
        let names = config.policy.domains.local.names();
        // The machine's own name seldom has people.
        let has_people = |name: &&String| !name.starts_with('.') && *name != self.postfix.get("myhostname");
        let domain = names.iter().find(has_people).or(names.first()).map(String::as_str).unwrap_or_default();
        steps(&self.postfix, srs_domain.map(|srs| (srs, domain)))
    }

    fn reload(&self) -> Vec<Step> {
        let command = |word| of_instance("postfix", &self.postfix, [word]);
        let mut steps = vec![Step::run(Stage::Reload, "Postfix looks at its configuration", command("check"), None)];
        if command("status").run().is_ok() {
            steps.push(Step::run(Stage::Reload, "and reads it", command("reload"), None));
        }
        steps
    }
}

/// Reads domains, networks, times and ports.
fn facts(postfix: &Postfix) -> Server {
    let mut server = Server::default();
    for setting in ["mydestination", "virtual_mailbox_domains", "virtual_alias_domains"] {
        for entry in tables_of(postfix.get(setting)) {
            let is_table = entry.contains(':') || entry.starts_with('/');
            match is_table.then(|| postfix.keys(entry)) {
                None => server.add_local(entry.trim_start_matches('!'), setting),
                // Of a table of aliases, the keys without a local part are domains.
                Some(Some(keys)) => {
                    keys.iter().filter(|key| !key.contains('@')).for_each(|key| server.add_local(key, setting));
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
    // ::ffff:127.0.0.0/104 is IPv4 by another name, which is listed as such, too.
    let is_mapped = |net: &IpNet| net.addr().is_ipv6() && net.addr().to_canonical().is_ipv4();
    server.networks = networks(postfix.get("mynetworks")).filter(|net| !is_mapped(net)).collect();
    let is_network = |word: &str| networks(word).next().is_some();
    let words = tables_of(postfix.get("mynetworks")).into_iter();
    server.other_networks = words.filter(|word| !is_network(word)).map(str::to_owned).collect();
    let longest = ["maximal_queue_lifetime", "bounce_queue_lifetime"];
    server.queue_days = longest.into_iter().filter_map(|name| days(postfix.get(name))).max().unwrap_or(5).max(1);
    server.ports = postfix.services.iter().filter_map(|service| service.port()?.parse().ok()).collect();
    server
}

/// The folder of the sockets, as a path of this machine.
fn socket_folder(postfix: &Postfix) -> String {
    format!("{}/{SOCKETS}", postfix.get("queue_directory").trim_end_matches('/'))
}

/// Sets parameters of one instance, and knows how each is taken back.
struct Changes<'a> {
    postfix: &'a Postfix,
    steps: Vec<Step>,
}

impl<'a> Changes<'a> {
    fn new(postfix: &'a Postfix) -> Self {
        Self { postfix, steps: Vec::new() }
    }

    fn postconf(&self, option: &str, what: &str) -> Argv {
        of_instance("postconf", self.postfix, [option, what])
    }

    /// Sets a parameter in main.cf.
    fn set(&mut self, why: &str, name: &str, value: &str) {
        let undo = match self.postfix.set.get(name) {
            Some(old) => self.postconf("-e", &format!("{name} = {old}")),
            None => self.postconf("-X", name),
        };
        self.push(why, self.postconf("-e", &format!("{name} = {value}")), undo);
    }

    /// Sets a parameter of one service in master.cf.
    fn set_of(&mut self, why: &str, service: &MasterService, name: &str, value: &str) {
        let key = format!("{}/{name}", service.key());
        let undo = match service.raw.get(name) {
            Some(old) => self.postconf("-P", &format!("{key}={old}")),
            None => self.postconf("-PX", &key),
        };
        self.push(why, self.postconf("-P", &format!("{key}={value}")), undo);
    }

    fn push(&mut self, why: &str, run: Argv, undo: Argv) {
        self.steps.push(Step::run(Stage::Configure, why, run, Some(undo)));
    }
}

/// The steps in Postfix's own configuration. `srs`: the SRS domain, and the domain of its postmaster.
fn steps(postfix: &Postfix, srs: Option<(&str, &str)>) -> Result<Vec<Step>> {
    obstacles(postfix)?;
    let mut changes = Changes::new(postfix);
    let socket = |name: &str| Endpoint::Unix(Path::new(&socket_folder(postfix)).join(name));
    let (milter, map) = (socket("milter"), socket("map"));
    let asks = |setting: &str| milters(setting).iter().any(|entry| names(entry.endpoint, &milter));
    let entry = milter_entry(postfix);
    if !asks(postfix.get("smtpd_milters")) {
        let list = appended(postfix.as_written("smtpd_milters"), &entry);
        changes.set("All smtpd services ask the milter, after the milters that are there", "smtpd_milters", &list);
    }
    // Where it names smtpd_milters, it follows.
    let written = postfix.as_written("non_smtpd_milters");
    if !asks(postfix.get("non_smtpd_milters"))
        && !written.contains("$smtpd_milters")
        && !written.contains("{smtpd_milters")
    {
        let list = appended(written, &entry);
        changes.set("So does mail of programs on this machine", "non_smtpd_milters", &list);
    }
    for service in postfix.running("smtpd") {
        of_service(service, &asks, &entry, &mut changes);
    }
    if !names(postfix.get("recipient_canonical_maps"), &map) {
        let others = postfix.as_written("recipient_canonical_maps");
        let list = if others.is_empty() { MAP.to_owned() } else { format!("{MAP}, {others}") };
        let why = "Tagged recipients are looked up as the users whom they lead to";
        changes.set(why, "recipient_canonical_maps", &list);
        if postfix.get("recipient_canonical_classes") != "envelope_recipient" {
            changes.set(
                "The map is for envelopes, not for headers",
                "recipient_canonical_classes",
                "envelope_recipient",
            );
        }
    }
    if !matches!(postfix.get("in_flow_delay"), "0" | "0s") {
        changes.set("Refused bounces do not slow other mail down", "in_flow_delay", "0");
    }
    if let Some((srs, domain)) = srs {
        srs_domain(srs, domain, &mut changes);
    }
    Ok(changes.steps)
}

/// The folder of the instance that Postfix's commands mean by themselves.
const USUAL: &str = "/etc/postfix";

/// A command of Postfix for one instance.
fn of_instance<const N: usize>(program: &str, postfix: &Postfix, words: [&str; N]) -> Argv {
    let place = postfix.place.display().to_string();
    let which: &[&str] = if place == USUAL { &[] } else { &["-c", &place] };
    Argv::of([program].into_iter().chain(which.iter().copied()).chain(words))
}

/// What stands in the way of the milter.
fn obstacles(postfix: &Postfix) -> Result<()> {
    let senders = postfix.get("sender_canonical_maps");
    if let Some(other) =
        tables_of(senders).into_iter().find(|it| it.starts_with("tcp:") || it.starts_with("socketmap:"))
    {
        bail!(
            "sender_canonical_maps has {other}: another program rewrites senders (PostSRSd?), and only one of the two may. \
             docs/mta/postfix.md#maps-and-policy-service says how to move from it"
        );
    }
    let has_filter = |service: &&&MasterService| !postfix.of(service, "smtpd_proxy_filter").is_empty();
    if let Some(service) = postfix.facing_strangers().iter().find(has_filter) {
        bail!(
            "{} hands its sessions to {} (smtpd_proxy_filter), and a milter in front of that sees no content. Put the milter into the \
             smtpd behind the filter by hand: docs/mta/postfix.md#milter",
            service.name,
            postfix.of(service, "smtpd_proxy_filter")
        );
    }
    let classes = postfix.get("recipient_canonical_classes");
    let maps = postfix.as_written("recipient_canonical_maps");
    if !maps.is_empty() && classes != "envelope_recipient" && !maps.contains("countersign/map") {
        bail!(
            "recipient_canonical_maps = {maps} rewrites header fields, too (recipient_canonical_classes = {classes}); Countersign's map \
             beside it is for envelopes only. Decide whether `recipient_canonical_classes = envelope_recipient` is right for {maps}, \
             set it, and run this again"
        );
    }
    Ok(())
}

/// The milter in a list: with settings of its own where those for all milters do not fit.
fn milter_entry(postfix: &Postfix) -> String {
    let mut own = String::new();
    if postfix.get("milter_default_action") != "tempfail" {
        own += ", default_action=tempfail";
    }
    if postfix.get("milter_protocol").parse::<u32>().is_ok_and(|version| version < 6) {
        own += ", protocol=6";
    }
    if own.is_empty() { MILTER.to_owned() } else { format!("{{ {MILTER}{own} }}") }
}

fn appended(list: &str, entry: &str) -> String {
    if list.is_empty() { entry.to_owned() } else { format!("{list}, {entry}") }
}

/// Services in master.cf with milters of their own, and those where mail comes back from a filter.
fn of_service(service: &MasterService, asks: &impl Fn(&str) -> bool, entry: &str, changes: &mut Changes<'_>) {
    let postfix = changes.postfix;
    let comes_back = service.is_on_loopback()
        && (service.own.contains_key("content_filter") || is_behind_a_filter(service, postfix));
    let has_none = postfix.of(service, "receive_override_options").contains("no_milters");
    match service.own.get("smtpd_milters") {
        // What a filter hands back has passed the milter before.
        _ if comes_back && has_none => {}
        None if comes_back => {
            changes.set_of(
                "Mail that a filter hands back has been signed or judged before",
                service,
                "smtpd_milters",
                "",
            );
        }
        Some(own) if !own.is_empty() && !comes_back && !asks(own) => {
            // White space would need another form in master.cf.
            let list = service.raw.get("smtpd_milters").unwrap_or(own).split_whitespace().collect::<Vec<_>>().join(",");
            let why = format!("{} has milters of its own", service.name);
            changes.set_of(&why, service, "smtpd_milters", &format!("{list},{}", entry.replace(' ', "")));
        }
        _ => {}
    }
}

/// Whether some content filter is in use, and this is a port of loopback other than those of the clients.
fn is_behind_a_filter(service: &MasterService, postfix: &Postfix) -> bool {
    let filters = !postfix.get("content_filter").is_empty()
        || postfix.services.iter().any(|it| it.own.get("content_filter").is_some_and(|filter| !filter.is_empty()));
    filters && !matches!(service.port(), Some("25" | "465" | "587"))
}

/// Postfix takes mail for the SRS domain, which has no users but two.
fn srs_domain(srs: &str, domain: &str, changes: &mut Changes<'_>) {
    let postfix = changes.postfix;
    let has = |list: &str| postfix.get(list).split([' ', ',', '\t']).any(|word| word.eq_ignore_ascii_case(srs));
    if !["mydestination", "relay_domains", "virtual_mailbox_domains"].into_iter().any(has) {
        let list = appended(postfix.as_written("relay_domains"), srs);
        changes.set("Postfix takes mail for the SRS domain", "relay_domains", &list);
    }
    if !postfix.get("virtual_alias_maps").contains(&format!("postmaster@{srs}")) {
        let aliases =
            format!("inline:{{ {{postmaster@{srs} = postmaster@{domain}}}, {{abuse@{srs} = postmaster@{domain}}} }}");
        let list = appended(postfix.as_written("virtual_alias_maps"), &aliases);
        changes.set("whose only users are postmaster and abuse", "virtual_alias_maps", &list);
    }
}
