//! What a changed config means for a daemon that runs: which keys differ, and which of them need a restart.

use std::collections::{BTreeMap, BTreeSet};

/// Keys with their tables, and their values as text.
pub(super) type Settings = BTreeMap<String, String>;

/// Keys that take effect only at a start, or tables of such keys.
const NEED_RESTART: [&str; 5] = ["control", "log.format", "state.max_size", "state.path", "status.listen"];
/// Keys that a milter tells its mail server when they connect, or reads when it begins.
const NEED_RESTART_OF_MILTERS: [&str; 6] = [
    // Its default depends on outbound.evidence.
    "inbound.actions.overflow",
    "outbound.evidence",
    "outbound.exempt_recipients",
    "outbound.mixed",
    "timeouts.drain",
    "timeouts.transaction",
];
/// A milter for mail that leaves tells its mail server whether it inspects bounces.
const NEED_RESTART_OF_OUTBOUND_MILTERS: [&str; 1] = ["outbound.ndr"];
/// Protocols by which a mail server asks.
const SERVICES: [&str; 3] = ["milter", "policy", "socketmap"];
/// Keys of a listener that belong to its socket.
const OF_THE_SOCKET: [&str; 3] = ["group", "mode", "users"];

/// The keys in which two configs differ, with their tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Keys that take effect at once.
    pub applied: Vec<String>,
    /// Keys that keep their value until a restart.
    pub need_restart: Vec<String>,
}

impl ConfigChanges {
    /// Whether the configs say the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.need_restart.is_empty()
    }
}

/// Two versions of the settings of a daemon.
#[derive(Clone, Copy)]
pub(super) struct Versions<'a> {
    pub old: &'a Settings,
    pub new: &'a Settings,
    /// Whether the running daemon has a milter.
    pub has_milter: bool,
    /// Whether it has one for mail that leaves.
    pub has_outbound_milter: bool,
}

impl Versions<'_> {
    /// The differences.
    pub(super) fn changes(self) -> ConfigChanges {
        let keys: BTreeSet<&String> = self.old.keys().chain(self.new.keys()).collect();
        let mut changes = ConfigChanges::default();
        for key in keys.into_iter().filter(|key| self.old.get(*key) != self.new.get(*key)) {
            let list = if self.needs_restart(key) { &mut changes.need_restart } else { &mut changes.applied };
            list.push(key.to_owned());
        }
        changes
    }

    /// The new settings, with the old values of keys that need a restart, so that these still differ from the file.
    pub(super) fn kept(self) -> Settings {
        let mut kept = self.new.clone();
        let keys = self.old.keys().chain(self.new.keys());
        for key in keys.filter(|key| self.needs_restart(key)) {
            match self.old.get(key) {
                Some(value) => drop(kept.insert(key.clone(), value.clone())),
                None => drop(kept.remove(key)),
            }
        }
        kept
    }

    fn needs_restart(self, key: &str) -> bool {
        // It is safe only with the clients of the listeners, and open connections were admitted by the old ones. Its
        // end is safe at once.
        if key == "inbound.foreign" {
            return self.new.get(key).is_some_and(|value| value.trim_matches('"') == "pass");
        }
        let is_of =
            |name: &&str| key == *name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '[']));
        if key == "limits.connections" && self.has_services_with_default() {
            return true;
        }
        match key.strip_prefix("listener[").and_then(|rest| rest.rsplit_once("].")) {
            Some((number, name)) => self.of_listener(&format!("listener[{number}]"), name),
            None => {
                let of_milters = self.has_milter && NEED_RESTART_OF_MILTERS.iter().any(&is_of);
                let of_outbound = self.has_outbound_milter && NEED_RESTART_OF_OUTBOUND_MILTERS.iter().any(&is_of);
                NEED_RESTART.iter().any(&is_of) || of_milters || of_outbound
            }
        }
    }

    /// Whether a milter, socketmap or policy service has the default number of connections, which it keeps.
    pub(super) fn has_services_with_default(self) -> bool {
        let tables =
            self.old.iter().filter_map(|(key, value)| Some((key.strip_suffix(".protocol")?, value.trim_matches('"'))));
        let mut services = tables.filter(|(_, protocol)| SERVICES.contains(protocol));
        services.any(|(table, _)| !self.old.contains_key(&format!("{table}.connections")))
    }

    /// Whether a key of a listener needs a restart. A listener with another address is another listener.
    fn of_listener(self, table: &str, name: &str) -> bool {
        let both = |name: &str| {
            let key = format!("{table}.{name}");
            [self.old, self.new].map(|settings| settings.get(&key).map(|value| value.trim_matches('"')))
        };
        let [was, is] = both("listen");
        if was != is || was.is_none() {
            return false;
        }
        let [was, is] = both("protocol").map(|protocol| protocol.filter(|it| SERVICES.contains(it)));
        was != is || was == Some("milter") || OF_THE_SOCKET.contains(&name) || (name == "connections" && was.is_some())
    }
}

/// All keys of a config as written, with their tables, and their values as text. A listener is named by its address:
/// `listener[127.0.0.1:25].next_hop`. Other lists of tables have numbers from 1, and so have listeners that share an
/// address.
pub(super) fn settings(text: &str) -> Settings {
    let mut all = BTreeMap::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        collect("", &toml::Value::Table(table), &mut all);
    }
    all
}

fn collect(name: &str, value: &toml::Value, all: &mut Settings) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect(&name, value, all);
            }
        }
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
            let listen = |value: &toml::Value| value.get("listen").and_then(toml::Value::as_str).map(str::to_owned);
            let addresses: Vec<Option<String>> = list.iter().map(listen).collect();
            for ((n, value), listen) in list.iter().enumerate().zip(&addresses) {
                let is_alone = addresses.iter().filter(|other| *other == listen).count() == 1;
                let number = (n + 1).to_string();
                let name_of_table = listen.as_ref().filter(|_| is_alone).unwrap_or(&number);
                collect(&format!("{name}[{name_of_table}]"), value, all);
            }
        }
        value => {
            all.insert(name.to_owned(), value.to_string());
        }
    }
}
