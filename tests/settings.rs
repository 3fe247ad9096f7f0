//! Each setting has an effect: a setting of the rules changes an answer, and every other setting is set by a test that
//! observes its effect.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::common::cases::{config_text, content, fill, now};
use crate::common::{folder, run_ok};
use countersign::config::Config;
use countersign::envelope::abuse::Memory;
use countersign::envelope::address::{Address, ReversePath};
use countersign::envelope::bounce;
use countersign::envelope::keyring::Keyring;
use countersign::envelope::rules::{Candidate, Disposition, Rules};
use countersign::envelope::time::Timestamp;
use countersign::state::ring_file;

/// A setting, a value that is not its default, and other settings for both runs.
const OF_THE_RULES: &[(&str, &str, &str)] = &[
    ("domains.local", "[\"our.example\", \"third.example\"]", ""),
    ("domains.relay", "[\"third.example\"]", ""),
    ("domains.srs_domain", "\"fwd.our.example\"", ""),
    ("outbound.mode", "\"off\"", ""),
    ("outbound.pilot", "[\"ann@our.example\"]", "outbound.mode = \"pilot\""),
    ("outbound.overflow", "\"sign\"", ""),
    ("outbound.mixed", "\"sign\"", "outbound.exempt_recipients = [\"@list.example\"]"),
    ("outbound.exempt_senders", "[\"ann@our.example\"]", ""),
    ("outbound.exempt_recipients", "[\"@list.example\"]", ""),
    ("outbound.exempt_clients", "[\"192.0.2.0/24\"]", ""),
    ("outbound.evidence", "false", ""),
    ("inbound.mode", "\"observe\"", ""),
    ("inbound.reject_at", "\"rcpt\"", ""),
    ("inbound.action", "\"discard\"", ""),
    ("inbound.actions.forged", "\"mark\"", ""),
    ("inbound.actions.expired", "\"mark\"", ""),
    ("inbound.actions.future", "\"mark\"", ""),
    ("inbound.actions.untagged-ndr", "\"mark\"", ""),
    ("inbound.actions.daemon-ndr", "\"mark\"", ""),
    ("inbound.actions.text-ndr", "\"reject\"", ""),
    ("inbound.actions.overflow", "\"mark\"", ""),
    ("inbound.actions.doubtful-ndr", "\"reject\"", ""),
    ("inbound.actions.dsn-failed", "\"mark\"", ""),
    ("inbound.actions.dsn-delayed", "\"mark\"", ""),
    ("inbound.actions.text-bounce", "\"mark\"", ""),
    ("inbound.exempt_senders", "[\"mailer-daemon@x.example\"]", ""),
    ("inbound.exempt_recipients", "[\"ann@our.example\"]", ""),
    ("inbound.exempt_clients", "[\"192.0.2.0/24\"]", ""),
    ("inbound.foreign", "\"pass\"", ""),
    ("inbound.own_senders", "\"tagged\"", ""),
    ("inbound.srs_reverse", "\"mta\"", ""),
    ("inbound.srs_for_senders", "true", ""),
    ("inbound.daemon_senders", "[\"bob@x.example\"]", ""),
    ("inbound.trusted_relays", "[\"192.0.2.0/24\"]", ""),
    ("inbound.guesses_per_minute", "5", ""),
    ("inbound.replay", "\"count\"", ""),
    ("inbound.quarantine_to", "\"bea@our.example\"", QUARANTINE),
    ("inbound.evidence", "false", ""),
    ("batv.lifetime", "9", ""),
    ("batv.queue_lifetime", "30", "inbound.mode = \"ramp\""),
    ("batv.mac", "\"long\"", ""),
    ("srs.lifetime", "40", ""),
    ("srs.separator", "\"+\"", ""),
    ("srs.hash_length", "8", ""),
    ("srs.hash_min", "4", ""),
    ("srs.always_rewrite", "true", ""),
    ("srs.long", "\"sign\"", ""),
    ("clock_tolerance", "12", ""),
];

const QUARANTINE: &str = "inbound.action = \"quarantine\"\ninbound.quarantine_to = \"carol@our.example\"";

/// The answers of the rules to a set of questions.
struct Questions {
    ring: Keyring,
    now: Timestamp,
}

impl Questions {
    fn answers(&self, settings: &str) -> String {
        let config = Config::parse(Path::new("settings.toml"), &config_text(settings, "")).unwrap();
        let rules = Rules::new(&config.policy, &self.ring, self.now);
        let mut answers = String::new();
        self.senders(&rules, &mut answers);
        self.recipients(&rules, &mut answers);
        self.often(&rules, &mut answers);
        answers
    }

    fn senders(&self, rules: &Rules<'_>, answers: &mut String) {
        let long = format!("{}@our.example", "x".repeat(60));
        let client = Some("192.0.2.7".parse().unwrap());
        let foreign = format!("{}@x.example", "x".repeat(60));
        for sender in
            ["", "ann@our.example", "bea@our.example", "bob@x.example", "bob@srs.our.example", &long, &foreign]
        {
            for recipient in [None, Some("talk@list.example")] {
                let recipient = recipient.map(|recipient| Address::parse(recipient).unwrap());
                let found = rules.outbound(client, &ReversePath::parse(sender).unwrap(), recipient.as_ref());
                writeln!(answers, "{sender} {recipient:?}: {found:?}").unwrap();
            }
        }
        writeln!(answers, "{}", rules.policy.outbound.recipients_matter()).unwrap();
    }

    fn recipients(&self, rules: &Rules<'_>, answers: &mut String) {
        let long = format!("{}@our.example", "x".repeat(60));
        let short_hash = self.shorter_hash();
        for to in [
            "ann@our.example",
            "{valid ann@our.example}",
            "{expired ann@our.example}",
            "{future ann@our.example}",
            "{forged ann@our.example}",
            "{unknown ann@our.example}",
            "postmaster@our.example",
            "{srs bob@else.example}",
            "{srs-expired bob@else.example}",
            "{srs-forged bob@else.example}",
            "carol@third.example",
            &short_hash,
            &long,
        ] {
            for from in ["", "mailer-daemon@x.example", "bob@x.example", "ann@our.example"] {
                self.one(rules, from, to, answers);
            }
        }
    }

    fn one(&self, rules: &Rules<'_>, from: &str, to: &str, answers: &mut String) {
        let mut memory = Memory::default();
        let client = Some("192.0.2.7".parse().unwrap());
        let recipient = Address::parse(&fill(to, &self.ring, self.now)).unwrap();
        let found = rules.inbound(&mut memory, client, &ReversePath::parse(from).unwrap(), &recipient);
        writeln!(answers, "{from} {to}: {} {:?}", found.verdict.name(), found.disposition).unwrap();
        let Disposition::Inspect(delivery, check) = &found.disposition else { return };
        for kind in ["ordinary", "dsn-failed", "dsn-delayed", "text-bounce", "doubtful", "evidence"] {
            let mut scanner = bounce::Scanner::of_data();
            scanner.push(content(kind, &self.ring, self.now).as_bytes());
            scanner.finish();
            let case = Candidate { client, check: *check, recipient: &delivery.to, complete: true };
            let content = rules.content(&mut memory, case, &scanner.found());
            writeln!(answers, "  {kind}: {} {}", content.name(), content.reason()).unwrap();
        }
    }

    /// Adds the answers to many guesses, and to many bounces to one tag.
    fn often(&self, rules: &Rules<'_>, answers: &mut String) {
        let client = Some("192.0.2.7".parse().unwrap());
        let mut memory = Memory::since(Timestamp(0));
        let forged = Address::parse(&fill("{forged ann@our.example}", &self.ring, self.now)).unwrap();
        let valid = Address::parse(&fill("{valid ann@our.example}", &self.ring, self.now)).unwrap();
        for (name, address) in [("valid", &valid), ("forged", &forged)] {
            for n in 0..70 {
                let found = rules.inbound(&mut memory, client, &ReversePath::Null, address);
                writeln!(answers, "{name} {n}: {:?}", found.disposition).unwrap();
                if let Some(tag) = found.tag {
                    if n == 0 {
                        memory.replay.sent(tag, 1, self.now.day());
                    }
                    memory.replay.bounced(tag, self.now.day());
                }
            }
        }
    }

    /// An SRS address whose hash was cut to four characters.
    fn shorter_hash(&self) -> String {
        let whole = fill("{srs bob@else.example}", &self.ring, self.now);
        let (head, rest) = whole.split_at("SRS0=".len());
        let (hash, rest) = rest.split_once('=').unwrap();
        format!("{head}{}={rest}", &hash[..4])
    }
}

#[test]
fn each_setting_of_the_rules_changes_an_answer() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let at = now().0 - 10 * 86_400;
    run_ok(folder.path(), &["keys", "ramp-start", "--at", &at.to_string(), "our.example"]);
    let ring = ring_file::load(&folder.path().join("keys/ring.toml")).unwrap();
    let questions = Questions { ring, now: now() };
    for (key, value, with) in OF_THE_RULES {
        let before = questions.answers(with);
        let after = questions.answers(&format!("{with}\n{key} = {value}").trim().replace("\n\n", "\n"));
        assert!(before != after, "{key} = {value} changes nothing");
    }
}

/// The keys that a config may have: the fields of the structs that it is parsed into.
fn keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in include_str!("../src/config/raw.rs").lines() {
        if let Some(name) = line.strip_prefix("pub(super) struct ") {
            let name = name.trim_end_matches(" {");
            // `RawInbound` is parsed from `[inbound]`, `Raw` from the whole file.
            section = name.strip_prefix("Raw").filter(|name| !name.is_empty()).unwrap_or(name).to_lowercase();
        } else if let Some((name, _)) = line.strip_prefix("    pub ").and_then(|field| field.split_once(':')) {
            let name = if section == "actions" { name.replace('_', "-") } else { name.to_owned() };
            match section.as_str() {
                "raw" if name == "clock_tolerance" => keys.insert(name),
                "raw" => false,
                "actions" => keys.insert(format!("inbound.actions.{name}")),
                "ndr" => keys.insert(format!("outbound.ndr.{name}")),
                section => !matches!(name.as_str(), "actions" | "ndr") && keys.insert(format!("{section}.{name}")),
            };
        }
    }
    keys
}

#[test]
fn each_setting_is_known_here_or_set_by_another_test() {
    let keys = keys();
    assert!(keys.len() > 90 && keys.contains("srs.always_rewrite"), "{keys:?}");
    let own = Path::new(file!()).file_name().unwrap();
    let sources = ["tests", "tests/common", "tests/fairness", "docs/mta"].map(|folder| fs::read_dir(folder).unwrap());
    let others = sources.into_iter().flatten().map(|entry| entry.unwrap().path());
    let others = others.filter(|path| path.is_file() && path.file_name() != Some(own));
    let text: String = others.map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
    let unset = keys.into_iter().filter(|key| {
        let name = key.rsplit_once('.').map_or(key.as_str(), |(_, name)| name);
        // `let header = …` sets a variable, not a key.
        let is_rust = |at: usize| ["let ", "mut ", "self."].iter().any(|before| text[..at].ends_with(before));
        let sets = |line: &str| text.match_indices(line).any(|(at, _)| !is_rust(at));
        let set = sets(&format!("{name} = ")) || sets(&format!("{key} = "));
        !set && !OF_THE_RULES.iter().any(|(known, ..)| known == key)
    });
    assert_eq!(unset.collect::<Vec<_>>(), Vec::<String>::new(), "these no test sets");
}

/// The rows of the tables of settings in `docs/config.md`: the key with its table, and the text in the column for the
/// default.
fn rows(page: &str) -> Vec<(String, String)> {
    let (mut table, mut rows) = (String::new(), Vec::new());
    for line in page.lines() {
        if let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with("##")) {
            table = match title {
                "Top level" => String::new(),
                "Listeners for queries" => "listener.".to_owned(),
                title => title.trim_matches(['[', ']']).to_owned() + ".",
            };
        } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) {
            let default = rest.split(" | ").next().unwrap();
            // Tables of log lines, pages and numbers have no defaults, and are below other headings.
            rows.push((format!("{table}{key}"), default.to_owned()));
        }
    }
    let keys = keys();
    rows.retain(|(key, _)| keys.contains(key));
    rows
}

/// The config in the page's example, loaded from a folder, with one more line in one of its tables.
fn load(example: &str, table: &str, line: &str) -> Result<Config, String> {
    let folder = folder();
    let heading = match table {
        "listener" => "[[listener]]\nrole = \"inbound\"".to_owned(),
        table => format!("[{table}]"),
    };
    let text = match (table, example.contains(&heading)) {
        ("", _) => format!("{line}\n{example}"),
        (_, true) => example.replace(&heading, &format!("{heading}\n{line}")),
        (_, false) => format!("{example}\n{heading}\n{line}\n"),
    };
    let path = folder.path().join("countersign.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|error| error.to_string())
}

#[test]
fn the_page_of_settings_has_each_key_and_its_default() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md")).unwrap();
    let rows = rows(&page);
    let shown: BTreeSet<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
    let missing: Vec<String> = keys().into_iter().filter(|key| !shown.contains(key.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new(), "these keys are not in docs/config.md");

    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let shows = |table: &str, line: &str| {
        // The paths depend on the folder, and are ignored.
        let mut config = Config { path: "x".into(), ring: "x".into(), ..load(example, table, line)? };
        config.state.path =
            config.state.path.and_then(|path| path.strip_prefix(path.ancestors().nth(2)?).ok().map(Into::into));
        config.state.is_default = true;
        let token = config.status_token.path;
        config.status_token.path = token.strip_prefix(token.ancestors().nth(2).unwrap()).unwrap().into();
        config.status_token.is_default = true;
        config.settings.clear();
        config.control.path =
            config.control.path.and_then(|path| path.strip_prefix(path.ancestors().nth(2)?).ok().map(Into::into));
        config.control.is_default = true;
        // Sets are printed in any order.
        let text = format!("{config:?}");
        let mut words: Vec<String> = text.split([' ', ',', '{', '}']).map(str::to_owned).collect();
        words.sort();
        Ok::<_, String>(words)
    };
    let without = shows("", "").expect("the example of docs/config.md is a config");
    let mut checked = 0;
    for (key, default) in &rows {
        // Only a value in TOML is a default: `-`, `none` and `see below` are words.
        let Some(value) = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { continue };
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        if toml::from_str::<toml::Table>(&format!("x = {value}")).is_err() || name == "protocol" {
            continue;
        }
        // Without a PROXY header, the setting is an error.
        let needed =
            if name == "proxy_unknown" { "accept_proxy = true\ntrusted_proxies = [\"192.0.2.1\"]\n" } else { "" };
        let without = if needed.is_empty() { without.clone() } else { shows(table, needed).unwrap() };
        let with = shows(table, &format!("{needed}{name} = {value}"));
        let with = with.unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
        assert!(with == without, "{key}: its default is not {value}");
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
}

/// Settings that the rules do not read, with values that are not their defaults.
const OTHERS: &[(&str, &str)] = &[
    ("keys.ring", "\"other/ring.toml\""),
    ("inbound.hold", "\"64 KiB\""),
    ("inbound.srs_next_hop", "\"127.0.0.1:9\""),
    ("listener.role", "\"outbound\""),
    ("listener.protocol", "\"lmtp\""),
    ("listener.listen", "\"127.0.0.1:10\""),
    ("listener.mode", "\"0660\""),
    ("listener.group", "\"mail\""),
    ("listener.users", "[\"nobody\"]"),
    ("listener.next_hop", "\"127.0.0.1:11\""),
    ("listener.by_domain", "{ \"our.example\" = \"127.0.0.1:12\" }"),
    ("listener.clients", "[\"192.0.2.0/24\"]"),
    ("listener.sync", "\"off\""),
    ("listener.stray_newline", "\"reject\""),
    ("listener.tls", "\"require\""),
    ("listener.certificate", "\"/etc/ssl/other.pem\""),
    ("listener.private_key", "\"/etc/ssl/other.key\""),
    ("listener.next_hop_tls", "\"require\""),
    ("listener.next_hop_verify", "true"),
    ("listener.next_hop_name", "\"mx.our.example\""),
    ("listener.next_hop_ca", "\"/etc/ssl/ca.pem\""),
    ("listener.trusted_proxies", "[\"192.0.2.1\"]"),
    ("listener.accept_proxy", "true"),
    ("listener.proxy_unknown", "\"proxy\""),
    ("listener.send_proxy", "\"v2\""),
    ("listener.connections", "7"),
    ("listener.outbound_clients", "[\"192.0.2.0/24\"]"),
    ("listener.outbound_daemons", "[\"MSA\"]"),
    ("limits.connections", "77"),
    ("limits.connections_per_client", "7"),
    ("limits.commands", "777"),
    ("limits.bad_commands", "7"),
    ("limits.refused_recipients", "7"),
    ("limits.recipients", "777"),
    ("limits.line", "4096"),
    ("limits.header", "\"10 KiB\""),
    ("limits.message", "\"1 MiB\""),
    ("limits.octets_per_second", "7"),
    ("limits.held", "\"32 MiB\""),
    ("inbound.recipients", "\"ask:127.0.0.1:25\""),
    ("outbound.ndr.policy", "\"drop\""),
    ("outbound.ndr.authserv_id", "\"mx.our.example\""),
    ("outbound.ndr.results_below_received", "true"),
    ("outbound.ndr.per_domain_per_hour", "7"),
    ("outbound.ndr.per_hour", "7"),
    ("outbound.ndr.strip_content", "true"),
    ("outbound.ndr.copy_to", "\"bea@our.example\""),
    ("limits.unknown_recipients_per_hour", "7"),
    ("limits.tarpit", "\"0s\""),
    ("timeouts.connect", "\"7s\""),
    ("timeouts.command", "\"7s\""),
    ("timeouts.transaction", "\"70s\""),
    ("timeouts.next_hop", "\"7s\""),
    ("timeouts.drain", "\"7s\""),
    ("log.format", "\"json\""),
    ("log.level", "\"debug\""),
    ("status.listen", "\"127.0.0.1:13\""),
    ("status.hosts", "[\"mail.our.example\"]"),
    ("status.token_file", "\"secret/token\""),
    ("status.token_for", "\"all\""),
    ("state.path", "\"none\""),
    ("state.max_size", "\"1 MiB\""),
    ("state.decisions", "7"),
    ("state.addresses", "\"masked\""),
    ("control.listen", "\"none\""),
    ("notify.mail_to", "[\"admin@our.example\"]"),
    ("notify.mail_from", "\"mx1@our.example\""),
    ("notify.mail_via", "\"127.0.0.1:14\""),
    ("notify.webhook", "\"https://hooks.our.example/x\""),
];

/// Other settings of a listener that a setting requires.
fn beside(key: &str) -> &'static str {
    match key {
        "listener.mode" | "listener.group" | "listener.users" => "listener.listen = \"unix:/run/in\"",
        "listener.certificate" | "listener.private_key" | "listener.tls" => {
            "listener.tls = \"may\"\nlistener.certificate = \"/a.pem\"\nlistener.private_key = \"/a.key\""
        }
        "listener.next_hop_verify" => "listener.next_hop_tls = \"require\"",
        "listener.next_hop_name" | "listener.next_hop_ca" => {
            "listener.next_hop_tls = \"require\"\nlistener.next_hop_verify = true"
        }
        "listener.accept_proxy" => "listener.trusted_proxies = [\"192.0.2.1\"]",
        "listener.proxy_unknown" => "listener.trusted_proxies = [\"192.0.2.1\"]\nlistener.accept_proxy = true",
        "inbound.foreign" => "listener.clients = [\"192.0.2.0/24\"]",
        "inbound.srs_next_hop" => "domains.srs_domain = \"srs.our.example\"",
        _ => "",
    }
}

/// A config with these lines of the form `table.key = value`. Settings of listeners are added to the only listener.
fn config_of(lines: &[&str]) -> Config {
    let listener = "role = \"inbound\"\nlisten = \"127.0.0.1:1\"\nnext_hop = \"127.0.0.1:2\"\n";
    let mut config: toml::Table =
        format!("domains.local = [\"our.example\"]\n[[listener]]\n{listener}").parse().unwrap();
    for line in lines.iter().flat_map(|lines| lines.lines()).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap();
        let value = format!("x = {value}").parse::<toml::Table>().unwrap().remove("x").unwrap();
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop().unwrap();
        let mut table = &mut config;
        for name in names {
            let inner = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = match inner {
                toml::Value::Array(list) => list[0].as_table_mut().unwrap(),
                inner => inner.as_table_mut().unwrap(),
            };
        }
        table.insert(last.to_owned(), value);
    }
    let text = config.to_string();
    Config::parse(Path::new("/etc/countersign.toml"), &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The address of the listener that a setting is about, as its new value or the setting beside it says.
fn address_of(key: &str) -> &'static str {
    match key {
        "listener.listen" => "127.0.0.1:10",
        "listener.mode" | "listener.group" | "listener.users" => "unix:/run/in",
        _ => "127.0.0.1:1",
    }
}

#[test]
fn own_bounces_need_a_restart_only_of_a_milter_for_mail_that_leaves() {
    for (role, needs_restart) in [("auto", false), ("outbound", true)] {
        let milter = format!("[[listener]]\nprotocol = \"milter\"\nrole = \"{role}\"\nlisten = \"127.0.0.1:1\"");
        let of = |line: &str| {
            let text = format!("domains.local = [\"our.example\"]\n{line}\n{milter}\n");
            Config::parse(Path::new("countersign.toml"), &text).unwrap()
        };
        let (running, newer) = (of(""), of("outbound.ndr.policy = \"drop\""));
        let changes = running.changes_to(&newer);
        assert_eq!(
            (changes.applied.len(), changes.need_restart.len()),
            if needs_restart { (0, 1) } else { (1, 0) },
            "{role}"
        );
        let reloaded = running.reloaded(newer);
        assert_eq!(reloaded.policy.outbound.ndr.is_active(), !needs_restart, "{role}");
    }
}

#[test]
fn each_setting_is_reloaded_or_named_as_needing_a_restart() {
    // Sets are printed in any order.
    let words = |config: &Config| {
        let text = format!("{config:?}");
        let mut words: Vec<String> = text.split([' ', ',', '{', '}', '[', ']']).map(str::to_owned).collect();
        words.sort();
        words
    };
    let mut applied = 0;
    for key in keys() {
        // These are settings of listeners for queries, which the recipes have.
        if key.starts_with("listener.outbound_") {
            continue;
        }
        let of_the_rules = OF_THE_RULES.iter().find(|(known, ..)| *known == key);
        let (value, with) = match (of_the_rules, OTHERS.iter().find(|(known, _)| *known == key)) {
            (Some((_, value, with)), _) => (*value, *with),
            (None, Some((_, value))) => (*value, ""),
            (None, None) => panic!("tests/settings.rs has no value for {key}"),
        };
        let line = format!("{key} = {value}");
        let running = config_of(&[with, beside(&key)]);
        let newer = config_of(&[with, beside(&key), &line]);
        let changes = running.changes_to(&newer);
        let shown = key.replace("listener.", &format!("listener[{}].", address_of(&key)));
        let named = |list: &[String]| list.iter().any(|name| *name == shown || name.starts_with(&format!("{shown}.")));
        assert!(named(&changes.applied) != named(&changes.need_restart), "{key}: {changes:?}");
        let reloaded = words(&running.reloaded(newer.clone()));
        if named(&changes.applied) {
            applied += 1;
            assert!(reloaded == words(&newer), "{key} is said to be in force, and something is not");
        } else {
            assert!(reloaded == words(&running), "{key} is said to need a restart, and something has changed");
        }
        assert_eq!(running.reloaded(newer.clone()).changes_to(&newer).applied, Vec::<String>::new(), "{key}");
    }
    assert!(applied > 50, "{applied}");
}
