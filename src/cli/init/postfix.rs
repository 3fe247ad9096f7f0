//! What Postfix says about the site, and the steps that tell it of Countersign's milter and map.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::argv::Argv;
use super::fit::Fit;
use super::postfix_facts::facts;
use super::server::{Server, group_of};
use super::setting::{Setting, in_master_cf};
use super::step::{Action, Stage, Step};
use crate::cli::mta::lists::{MilterEntry, milters, tables_of};
use crate::cli::mta::postfix::{MasterService, Postfix};
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

    fn changes(&self, config: &Config) -> Result<Vec<Step>> {
        let names = config.policy.domains.local.names();
        // The machine's own name seldom has people.
        let has_people = |name: &&String| !name.starts_with('.') && *name != self.postfix.get("myhostname");
        let domain = names.iter().find(has_people).or(names.first()).map(String::as_str).unwrap_or_default();
        steps(&self.postfix, &config.policy.domains.srs.names(), domain)
    }

    fn greets_at(&self) -> Vec<SocketAddr> {
        let has_tls = |service: &&MasterService| self.postfix.of(service, "smtpd_tls_wrappermode") == "yes";
        let services = self.postfix.running("smtpd").chain(self.postfix.running("postscreen"));
        let plain = services.filter(|service| service.is_inet() && !has_tls(service));
        let address = |service: &MasterService| {
            let host = service.name.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host.trim_matches(['[', ']']));
            let ip = host.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST.into());
            Some(SocketAddr::new(ip, service.port()?.parse().ok()?))
        };
        plain.filter_map(address).collect()
    }

    fn reload(&self) -> Vec<Step> {
        let command = |word| of_instance("postfix", &self.postfix, [word]);
        let action = Action::IfRunning(command("reload"), command("status"));
        vec![
            Step::run(Stage::Reload, "Postfix looks at its configuration", command("check"), None),
            Step { stage: Stage::Reload, why: "and, if it runs, reads it".to_owned(), action },
        ]
    }
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

    /// Sets a parameter in main.cf. `entry`: what of it is ours, if it is a list.
    fn set(&mut self, why: &str, name: &str, value: &str, entry: Option<&str>) {
        let old = self.postfix.set.get(name).cloned();
        self.push(why, Setting { service: None, old, ..self.setting(name, value, entry) });
    }

    /// Sets a parameter of one service in master.cf.
    fn set_of(&mut self, why: &str, service: &MasterService, name: &str, value: &str, entry: Option<&str>) {
        let old = service.raw.get(name).map(|old| in_master_cf(old));
        self.push(why, Setting { service: Some(service.key()), old, ..self.setting(name, value, entry) });
    }

    fn setting(&self, name: &str, value: &str, entry: Option<&str>) -> Setting {
        let place = self.postfix.place.display().to_string();
        Setting {
            place: (place != USUAL).then_some(place),
            service: None,
            name: name.to_owned(),
            value: value.to_owned(),
            old: None,
            entry: entry.map(str::to_owned),
        }
    }

    fn push(&mut self, why: &str, setting: Setting) {
        self.steps.push(Step { stage: Stage::Configure, why: why.to_owned(), action: Action::Set(setting) });
    }
}

/// The steps in Postfix's own configuration. `srs`: the SRS domains; `domain`: the one of their postmaster.
fn steps(postfix: &Postfix, srs: &[String], domain: &str) -> Result<Vec<Step>> {
    obstacles(postfix)?;
    let mut changes = Changes::new(postfix);
    let socket = |name: &str| Endpoint::Unix(Path::new(&socket_folder(postfix)).join(name));
    let (milter, map) = (socket("milter"), socket("map"));
    let asked = Asked { milter: &milter, entry: milter_entry(postfix), postfix };
    // Where one list names the other, it follows.
    let follows = |list: &str, other: &str| {
        let written = postfix.as_written(list);
        written.contains(&format!("${other}")) || written.contains(&format!("{{{other}"))
    };
    let lists = [
        ("smtpd_milters", "non_smtpd_milters", "All smtpd services ask the milter, after the milters that are there"),
        ("non_smtpd_milters", "smtpd_milters", "So does mail of programs on this machine"),
    ];
    for (name, other, why) in lists {
        if !asked.is_in(postfix.get(name)) && !follows(name, other) {
            let list = asked.added_to(postfix.as_written(name));
            changes.set(why, name, &list, Some(&asked.entry));
        }
    }
    for service in postfix.running("smtpd") {
        of_service(service, &asked, &mut changes);
    }
    if !names(postfix.get("recipient_canonical_maps"), &map) {
        let others = postfix.as_written("recipient_canonical_maps");
        let list = if others.is_empty() { MAP.to_owned() } else { format!("{MAP}, {others}") };
        let why = "Tagged recipients are looked up as the users whom they lead to";
        changes.set(why, "recipient_canonical_maps", &list, Some(MAP));
    }
    if postfix.get("recipient_canonical_classes") != "envelope_recipient" {
        let why = "The map is for envelopes, not for headers";
        changes.set(why, "recipient_canonical_classes", "envelope_recipient", None);
    }
    if !matches!(postfix.get("in_flow_delay"), "0" | "0s") {
        changes.set("Refused bounces do not slow other mail down", "in_flow_delay", "0", None);
    }
    srs_domains(srs, domain, &mut changes);
    // main.cf first, then master.cf: each file is written once.
    changes.steps.sort_by_key(|step| step.setting().is_some_and(|it| it.service.is_some()));
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
    let has_proxy = |service: &&MasterService| !postfix.of(service, "smtpd_proxy_filter").is_empty();
    if let Some(service) = postfix.running("smtpd").find(has_proxy) {
        bail!(
            "{} hands its sessions to {} (smtpd_proxy_filter), and a milter in front of that sees no content. Put the milter into the \
             smtpd behind the filter by hand: docs/mta/postfix.md#milter",
            service.name,
            postfix.of(service, "smtpd_proxy_filter")
        );
    }
    if postfix.has_filter()
        && let Some(service) = postfix.running("smtpd").find(|it| is_unclear(it, postfix))
    {
        let milter = Endpoint::Unix(Path::new(&socket_folder(postfix)).join("milter"));
        let asked = Asked { milter: &milter, entry: String::new(), postfix };
        let command = |name: &str, value: &str| {
            of_instance("postconf", postfix, ["-P", &format!("{}/{name}={value}", service.key())])
        };
        bail!(
            "mail passes a content filter here, and {} is on loopback: does the filter hand mail back there, or do programs of yours \
             submit there? For the first: {} ; for the second: {} ; then run this again",
            service.name,
            command("smtpd_milters", &asked.others()),
            command("milter_macro_daemon_name", "ORIGINATING")
        );
    }
    let has_maps = |service: &&MasterService| !postfix.of(service, "smtpd_milter_maps").is_empty();
    if let Some(service) = postfix.running("smtpd").find(has_maps) {
        bail!(
            "{} has smtpd_milter_maps = {}: for some clients it replaces the list of milters, so their mail would leave unsigned. Put {MILTER} \
             into its lists by hand: docs/mta/postfix.md#milter",
            service.name,
            postfix.of(service, "smtpd_milter_maps")
        );
    }
    let of_cleanup = ["non_smtpd_milters", "recipient_canonical_maps"];
    for service in postfix.running("cleanup") {
        if let Some(name) = of_cleanup.into_iter().find(|name| service.own.contains_key(*name)) {
            bail!(
                "{} has {name} of its own in master.cf, so mail through it would miss Countersign's: put it in there by hand, \
                 docs/mta/postfix.md#milter, or remove that line; then run this again",
                service.name
            );
        }
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

/// Whether it cannot be known what an smtpd on loopback is for: mail that a filter hands back must not be judged twice, and
/// mail of programs must be signed.
fn is_unclear(service: &MasterService, postfix: &Postfix) -> bool {
    let is_settled = service.takes_mail_back()
        || service.own.contains_key("smtpd_milters")
        || service.own.contains_key("milter_macro_daemon_name")
        || postfix.of(service, "receive_override_options").contains("no_milters");
    service.is_inet()
        && service.is_on_loopback()
        && !is_settled
        && !matches!(service.port(), Some("25" | "465" | "587"))
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

/// Our milter in lists of milters.
struct Asked<'a> {
    milter: &'a Endpoint,
    /// The entry of it.
    entry: String,
    postfix: &'a Postfix,
}

impl Asked<'_> {
    fn is_ours(&self, entry: &str) -> bool {
        milters(entry).iter().any(|it| names(it.endpoint, self.milter))
    }

    /// Whether a list has our milter, with settings under which no mail leaves unsigned.
    fn is_in(&self, list: &str) -> bool {
        let mut ours = milters(list).into_iter().filter(|it| names(it.endpoint, self.milter));
        let value =
            |it: &MilterEntry<'_>, own: &str, of_all: &str| it.own(own).unwrap_or(self.postfix.get(of_all)).to_owned();
        ours.next().is_some_and(|it| {
            let protocol = value(&it, "protocol", "milter_protocol").parse::<u32>();
            let is_new = protocol.is_ok_and(|version| version >= 6);
            value(&it, "default_action", "milter_default_action") == "tempfail" && is_new
        })
    }

    /// The other milters of main.cf, as master.cf takes them.
    fn others(&self) -> String {
        let all = self.postfix.get("smtpd_milters");
        let others: Vec<&str> = tables_of(all).into_iter().filter(|it| !self.is_ours(it)).collect();
        in_master_cf(&others.join(", "))
    }

    /// A list with our milter last; an entry of ours that does not fit is replaced.
    fn added_to(&self, list: &str) -> String {
        if !tables_of(list).into_iter().any(|it| self.is_ours(it)) {
            return appended(list, &self.entry);
        }
        let others: Vec<&str> = tables_of(list).into_iter().filter(|it| !self.is_ours(it)).collect();
        appended(&others.join(", "), &self.entry)
    }
}

/// Services in master.cf with milters of their own, and those where mail comes back from a filter.
fn of_service(service: &MasterService, asked: &Asked<'_>, changes: &mut Changes<'_>) {
    let postfix = changes.postfix;
    let comes_back = service.takes_mail_back();
    let has_none = postfix.of(service, "receive_override_options").contains("no_milters");
    match service.own.get("smtpd_milters") {
        // What a filter hands back has passed the milter before.
        _ if comes_back && has_none => {}
        None if comes_back => {
            // The milters that are there stay: one may sign with DKIM here.
            let others = asked.others();
            let why = "Mail that a filter hands back has been signed or judged before";
            changes.set_of(why, service, "smtpd_milters", &others, None);
        }
        // Beside a filter, a list of its own on loopback is how a person has settled what the port is for.
        Some(_) if service.is_on_loopback() && postfix.has_filter() => {}
        Some(own) if !own.is_empty() && !comes_back && !asked.is_in(own) => {
            let list = in_master_cf(&asked.added_to(service.raw.get("smtpd_milters").unwrap_or(own)));
            let why = format!("{} has milters of its own", service.name);
            changes.set_of(&why, service, "smtpd_milters", &list, Some(&in_master_cf(&asked.entry)));
        }
        _ => {}
    }
}

/// Postfix takes mail for the SRS domains, which have no users but two. As domains of aliases they have no subdomains:
/// `relay_domains` would take mail for them, too.
fn srs_domains(srs: &[String], domain: &str, changes: &mut Changes<'_>) {
    let postfix = changes.postfix;
    let has =
        |list: &str, name: &str| postfix.get(list).split([' ', ',', '\t']).any(|it| it.eq_ignore_ascii_case(name));
    let lists = ["mydestination", "relay_domains", "virtual_mailbox_domains", "virtual_alias_domains"];
    let missing: Vec<&str> =
        srs.iter().map(String::as_str).filter(|name| !lists.into_iter().any(|list| has(list, name))).collect();
    if !missing.is_empty() {
        let old = postfix.set.get("virtual_alias_domains").map_or("$virtual_alias_maps", String::as_str);
        let ours = missing.join(", ");
        let why = "Postfix takes mail for the SRS domain";
        changes.set(why, "virtual_alias_domains", &appended(old, &ours), Some(&ours));
    }
    let of_maps = postfix.get("virtual_alias_maps");
    let unknown = srs.iter().filter(|name| !of_maps.contains(&format!("postmaster@{name}")));
    let pairs: Vec<String> = unknown
        .flat_map(|name| ["postmaster", "abuse"].map(|user| format!("{{{user}@{name} = postmaster@{domain}}}")))
        .collect();
    if !pairs.is_empty() {
        let aliases = format!("inline:{{ {} }}", pairs.join(", "));
        let list = appended(postfix.as_written("virtual_alias_maps"), &aliases);
        changes.set("whose only users are postmaster and abuse", "virtual_alias_maps", &list, Some(&aliases));
    }
}
