//! The table of cases through every front end, with a real Postfix: proxy, milter, and policy service with socketmap.
//!
//! The outcome of a case differs from the table only where the protocol requires it: `cases/differences.toml` lists
//! these cases, with reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::common::cases::{Came, Inbound, Outbound, config_text, content, expected, fill, fits, now, table};
use crate::common::postfix::{Postfix, Role};
use crate::common::{Client, Daemon, Message, Sink, can_run, folder, reserved_port, run_ok};
use countersign::envelope::keyring::Keyring;
use countersign::state::ring_file;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Differences {
    #[serde(default)]
    milter: Vec<Difference>,
    #[serde(default)]
    policy: Vec<Difference>,
    #[serde(default)]
    socketmap: Vec<Difference>,
}

/// Cases with the same outcome for the same reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    why: String,
    cases: Vec<String>,
    rcpt: Option<u16>,
    data: Option<u16>,
    mail: Option<u16>,
    /// The sender of the delivered message; "as it came" if it is unchanged.
    leaves: Option<String>,
    /// The recipient of the delivered message; "as it came" if it is unchanged.
    to: Option<String>,
    /// The result header; "" if there is none.
    mark: Option<String>,
}

const AS_IT_CAME: &str = "as it came";

/// A daemon for each config in the table, and one Postfix with services for all of them.
struct Site {
    sink: Sink,
    /// The ports for each config.
    ports: BTreeMap<String, Ports>,
    ring: Keyring,
    postfix: Postfix,
    _daemons: Vec<Daemon>,
    _folder: tempfile::TempDir,
}

/// The ports of the front ends.
struct Ports {
    /// The smtpd with the milter, and the smtpd with the maps.
    milter: u16,
    map: u16,
    /// The proxy, with an smtpd behind it.
    proxy: u16,
}

const OPEN: &str = "smtpd_reject_unlisted_recipient=no relay_domains_reject_code=550 smtpd_peername_lookup=no";

/// One direction of a message: the listeners that it needs in each daemon, a milter first, and the settings of Postfix
/// for them.
struct Way {
    /// The role of the proxy.
    role: &'static str,
    listeners: &'static [(&'static str, &'static str)],
    /// Settings of the smtpd with the milter.
    by_milter: &'static str,
    /// Settings of the smtpd with the maps, and of its cleanup.
    by_map: fn(&[u16]) -> (String, String),
}

const INBOUND: Way = Way {
    role: "inbound",
    listeners: &[("milter", "inbound"), ("policy", "inbound"), ("socketmap", "auto")],
    by_milter: "mynetworks= smtpd_relay_restrictions=reject_unauth_destination",
    by_map: |ports| {
        let smtpd = format!(
            "mynetworks= access_map_reject_code=550 access_map_defer_code=451 smtpd_relay_restrictions=reject_unauth_destination \
             smtpd_recipient_restrictions=check_policy_service,inet:127.0.0.1:{}",
            ports[1]
        );
        let map = format!("recipient_canonical_maps=socketmap:inet:127.0.0.1:{}:verify", ports[2]);
        (smtpd, format!("{map} recipient_canonical_classes=envelope_recipient"))
    },
};

const OUTBOUND: Way = Way {
    role: "outbound",
    listeners: &[("milter", "outbound"), ("socketmap", "auto")],
    by_milter: "smtpd_relay_restrictions=permit_mynetworks,reject",
    by_map: |ports| {
        let map = format!("sender_canonical_maps=socketmap:inet:127.0.0.1:{}:sign", ports[1]);
        (
            "smtpd_relay_restrictions=permit_mynetworks,reject".to_owned(),
            format!("{map} sender_canonical_classes=envelope_sender"),
        )
    },
};

impl Site {
    fn start(way: &Way, configs: impl Iterator<Item = String>) -> Self {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        let sink = Sink::offering(&["SMTPUTF8"]);
        let configs: BTreeSet<String> = configs.collect();
        let (mut daemons, mut ports) = (Vec::new(), BTreeMap::new());
        let behind = reserved_port();
        let (mut services, mut smtpd) = (String::new(), Vec::new());
        smtpd
            .push((behind, format!("{OPEN} mynetworks=127.0.0.0/8 smtpd_relay_restrictions=permit_mynetworks,reject")));
        for (n, config) in configs.into_iter().enumerate() {
            let mut listeners = String::new();
            for (protocol, role) in way.listeners {
                let words = format!("protocol = \"{protocol}\"\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\n");
                listeners += &format!("[[listener]]\n{words}");
            }
            let role = way.role;
            let words = format!("role = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{behind}\"\n");
            listeners += &format!("[[listener]]\n{words}");
            let daemon = Daemon::start(folder.path(), &config_text(&config, &listeners));
            // The ports of proxies are logged first.
            let (proxy, asked) = daemon.ports.split_first().unwrap();
            let (by_milter, by_map) = (reserved_port(), reserved_port());
            let milter = format!("smtpd_milters=inet:127.0.0.1:{} milter_default_action=tempfail", asked[0]);
            smtpd.push((by_milter, format!("{OPEN} {milter} {}", way.by_milter)));
            let (options, cleanup) = (way.by_map)(asked);
            smtpd.push((by_map, format!("{OPEN} cleanup_service_name=cleanup-{n} {options}")));
            let cleanup = cleanup.replace(' ', "\n  -o ");
            writeln!(services, "cleanup-{n} unix n - n - 0 cleanup\n  -o {cleanup}").unwrap();
            ports.insert(config, Ports { milter: by_milter, map: by_map, proxy: *proxy });
            daemons.push(daemon);
        }
        let smtpd: Vec<(u16, &str)> = smtpd.iter().map(|(port, options)| (*port, options.as_str())).collect();
        let postfix = Postfix::start(
            folder.path(),
            &Role {
                name: "mta",
                domain: "mta.example",
                ports: &smtpd,
                relayhost: sink.port,
                extra: "relay_domains = our.example, deep.our.example, srs.our.example, friend.example\n\
                    smtpd_client_connection_count_limit = 0",
                services: &services,
                ..Role::default()
            },
        );
        let ring = ring_file::load(&folder.path().join("keys/ring.toml")).unwrap();
        Self { sink, ports, ring, postfix, _daemons: daemons, _folder: folder }
    }

    /// Sends a message, and returns the outcome of the case. `id` identifies the message in the sink.
    fn send(&self, port: u16, case: &Inbound, id: &str) -> Came {
        let now = now();
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        let code = |reply: &str| reply[..3].parse::<u16>().unwrap();
        assert_eq!(
            code(&client.say(&format!("MAIL FROM:<{}>", fill(&case.sender, &self.ring, now)))),
            250,
            "{}",
            case.name
        );
        let recipient = client.say(&format!("RCPT TO:<{}>", fill(&case.to_address, &self.ring, now)));
        if code(&recipient) != 250 {
            return Came { rcpt: code(&recipient), data: None, to: None, mark: None };
        }
        assert_eq!(code(&client.say("DATA")), 354, "{}", case.name);
        let text = format!("X-Case: {id}\r\n{}.", content(&case.content, &self.ring, now));
        let data = code(&client.say(&text));
        client.say("QUIT");
        Came { rcpt: 250, data: Some(data), to: None, mark: None }
    }

    fn arrived(&self, id: &str) -> Option<Message> {
        self.sink.all().into_iter().find(|message| is_of(message, id))
    }

    fn wait_for(&self, name: &str, id: &str) -> Message {
        self.sink.wait_message(|| format!("{name}: {}", self.postfix.log()), |message| is_of(message, id))
    }
}

/// Whether the message belongs to this case.
fn is_of(message: &Message, id: &str) -> bool {
    message.text.contains(&format!("X-Case: {id}\r\n"))
}

fn differs(differences: &[Difference], case: &Inbound, ring: &Keyring, mut want: Came) -> (Came, Option<String>) {
    let Some(difference) = differences.iter().find(|difference| difference.cases.contains(&case.name)) else {
        return (want, None);
    };
    let came = fill(&case.to_address, ring, now());
    if let Some(code) = difference.rcpt {
        want = Came { rcpt: code, data: None, to: None, mark: None };
        if code == 250 {
            want.data = Some(250);
        }
    }
    if let Some(code) = difference.data {
        want.data = Some(code);
        if code != 250 {
            (want.to, want.mark) = (None, None);
        }
    }
    if let Some(to) = &difference.to {
        want.to = Some(if to == AS_IT_CAME { came } else { to.clone() });
    }
    if let Some(mark) = &difference.mark {
        want.mark = (!mark.is_empty()).then(|| mark.clone());
    }
    (want, Some(difference.why.clone()))
}

/// Runs the table. A message that must not arrive must be missing after all others have arrived.
fn run(site: &Site, front_end: &str, differences: &[Difference], port: impl Fn(&Ports) -> u16) {
    let mut wrong = String::new();
    let mut nothing = Vec::new();
    let cases = table().inbound;
    let known: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    for name in differences.iter().flat_map(|difference| &difference.cases) {
        assert!(known.contains(name.as_str()), "there is no case `{name}`");
    }
    for (n, case) in cases.iter().enumerate() {
        let id = format!("{front_end}-{n}-");
        let table = expected(case, &site.ring, now());
        let (want, why) = differs(differences, case, &site.ring, expected(case, &site.ring, now()));
        let mut came = site.send(port(&site.ports[&case.config]), case, &id);
        if came.data == Some(250) && want.to.is_some() {
            let message = site.wait_for(&case.name, &id);
            came.to = Some(message.to.concat());
            let head = message.text.split("\r\n\r\n").next().unwrap_or_default();
            let marks: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("Countersign-Result: ")).collect();
            assert!(marks.len() <= 1, "{}: {marks:?}", case.name);
            came.mark = marks.first().and_then(|mark| mark.split("reason=").nth(1)).map(str::to_owned);
        } else {
            nothing.push((id, case.name.clone()));
        }
        if came != want {
            writeln!(wrong, "{}\n   came {came:?}\n   want {want:?}", case.name).unwrap();
        }
        if why.is_some() && want == table {
            writeln!(wrong, "{}: it does not differ", case.name).unwrap();
        }
    }
    for (id, name) in nothing {
        if let Some(message) = site.arrived(&id) {
            writeln!(wrong, "{name}: it arrived all the same, at {:?}", message.to).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{front_end}:\n{wrong}");
}

fn differences() -> Differences {
    toml::from_str(include_str!("cases/differences.toml")).unwrap()
}

/// The sender of an outbound message, or the reply code of its refusal.
fn leave(site: &Site, port: u16, case: &Outbound, id: &str) -> Result<String, u16> {
    let mut client = Client::connect(port);
    client.say("EHLO client.example");
    let smtputf8 = if case.sender.is_ascii() { "" } else { " SMTPUTF8" };
    for line in [
        &format!("MAIL FROM:<{}>{smtputf8}", fill(&case.sender, &site.ring, now())),
        &format!("RCPT TO:<{}>", case.recipient),
        "DATA",
        &format!("X-Case: {id}\r\n\r\nx\r\n."),
    ] {
        let reply = client.say(line);
        if !reply.starts_with(['2', '3']) {
            return Err(reply[..3].parse().unwrap());
        }
    }
    Ok(site.wait_for(&case.name, id).from)
}

/// Runs the table of outbound cases.
fn run_outbound(site: &Site, front_end: &str, differences: &[Difference], port: impl Fn(&Ports) -> u16) {
    let mut wrong = String::new();
    let cases = table().outbound;
    let differing: usize = differences.iter().map(|difference| difference.cases.len()).sum();
    let known = |name: &String| cases.iter().any(|case| case.name == *name);
    assert!(differences.iter().flat_map(|difference| &difference.cases).all(known));
    let mut differed = 0;
    for (n, case) in cases.iter().enumerate() {
        let came = leave(site, port(&site.ports[&case.config]), case, &format!("{front_end}-{n}-"));
        let difference = differences.iter().find(|difference| difference.cases.contains(&case.name));
        differed += usize::from(difference.is_some());
        let mail = difference.and_then(|difference| difference.mail).unwrap_or(case.mail);
        let leaves = match difference.and_then(|difference| difference.leaves.as_deref()) {
            Some(AS_IT_CAME) => &case.sender,
            Some(other) => other,
            None => &case.leaves,
        };
        let want = fill(leaves, &site.ring, now());
        let good = match &came {
            Err(code) => *code == mail,
            Ok(sender) => mail == 250 && fits(sender, &want),
        };
        if !good {
            writeln!(wrong, "{}\n   came {came:?}\n   want {want} ({mail})", case.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{front_end}:\n{wrong}");
    assert_eq!(differed, differing);
}

#[test]
fn the_table_of_what_leaves_holds_behind_a_real_postfix() {
    if !can_run(&["postfix"], "the table of what leaves through milter and socketmap") {
        return;
    }
    let site = Site::start(&OUTBOUND, table().outbound.into_iter().map(|case| case.config));
    let differences = differences();
    run_outbound(&site, "leaving-proxy", &[], |ports| ports.proxy);
    run_outbound(&site, "leaving-milter", &[], |ports| ports.milter);
    run_outbound(&site, "leaving-socketmap", &differences.socketmap, |ports| ports.map);
}

#[test]
fn the_table_holds_behind_a_real_postfix() {
    if !can_run(&["postfix"], "the table of cases through milter, policy service and socketmap") {
        return;
    }
    let site = Site::start(&INBOUND, table().inbound.into_iter().map(|case| case.config));
    let differences = differences();
    run(&site, "proxy", &[], |ports| ports.proxy);
    run(&site, "milter", &differences.milter, |ports| ports.milter);
    run(&site, "policy", &differences.policy, |ports| ports.map);
}
