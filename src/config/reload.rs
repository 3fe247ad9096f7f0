//! What a changed config means for a daemon that runs: which keys differ, and which of them need a restart.

use std::collections::{BTreeMap, BTreeSet};

/// Keys with their tables, and their values as text.
pub(super) type Settings = BTreeMap<String, String>;

/// Keys that take effect only at a start, or tables of such keys.
const NEED_RESTART: [&str; 13] = [
    "control",
    // It is safe only with the clients of the listeners, which need a restart.
    "inbound.foreign",
    "inbound.hold",
    "inbound.srs_next_hop",
    "keys.ring",
    "limits.connections",
    "limits.held",
    "listener",
    "log",
    "state",
    "status",
    "timeouts.connect",
    "timeouts.drain",
];
/// Keys that a milter tells its mail server when they connect.
const NEED_RESTART_OF_MILTERS: [&str; 5] = [
    // Its default depends on outbound.evidence.
    "inbound.actions.overflow",
    "outbound.evidence",
    "outbound.exempt_recipients",
    "outbound.mixed",
    "timeouts.transaction",
];

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

/// The differences between the settings of two configs.
pub(super) fn changes(old: &Settings, new: &Settings, has_milter: bool) -> ConfigChanges {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = ConfigChanges::default();
    for key in keys.into_iter().filter(|key| old.get(*key) != new.get(*key)) {
        let list = if needs_restart(key, has_milter) { &mut changes.need_restart } else { &mut changes.applied };
        list.push(key.to_owned());
    }
    changes
}

/// Puts the old values of keys that need a restart into the new settings: what a restart would change still differs
/// from the file.
pub(super) fn keep(old: &Settings, new: &mut Settings, has_milter: bool) {
    let keys: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    for key in keys.into_iter().filter(|key| needs_restart(key, has_milter)) {
        match old.get(&key) {
            Some(value) => new.insert(key, value.clone()),
            None => new.remove(&key),
        };
    }
}

fn needs_restart(key: &str, has_milter: bool) -> bool {
    let is_of = |name: &&str| key == *name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '[']));
    NEED_RESTART.iter().any(is_of) || (has_milter && NEED_RESTART_OF_MILTERS.iter().any(is_of))
}

/// All keys of a config as written, with their tables, and their values as text. A list of tables has numbers from 1:
/// `listener[1].listen`.
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
            for (n, value) in list.iter().enumerate() {
                collect(&format!("{name}[{}]", n + 1), value, all);
            }
        }
        value => {
            all.insert(name.to_owned(), value.to_string());
        }
    }
}
