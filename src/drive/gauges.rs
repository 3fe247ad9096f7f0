//! Values that are kept elsewhere, and filled in when metrics are read.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A domain as the only label: an entry of `domains.local` or an SRS domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DomainLabels {
    /// The domain as the config names it.
    pub domain: String,
}

/// A listener and one of its next hops.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HopLabels {
    /// The listener as the config names it.
    pub listener: String,
    /// The next hop as the config names it.
    pub next_hop: String,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ListenerLabels {
    /// The listener as the config names it.
    pub listener: String,
}

/// A domain and the state of its ramp.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RampLabels {
    /// The domain as the config names it.
    pub domain: String,
    /// `not-started`, `waiting`, `held`, `observed`, `paused`, `enforced`.
    pub state: &'static str,
}

/// Values that are filled in when metrics are read.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Wrong tags since the state file began.
    pub guesses: Counter,
    /// Tags that were not verified because of a limit on guesses.
    pub guesses_limited: Counter,
    /// The chance that at least one of these guesses was a valid tag, 0 to 1.
    pub forgery_chance: Gauge<f64, AtomicU64>,
    /// Tags whose bounces are counted.
    pub tags_counted: Gauge,
    /// 1 during a surge of untagged null-sender mail to the domain.
    pub reject_at_rcpt: Family<DomainLabels, Gauge>,
    /// 1 if verdicts about the domain are enforced.
    pub enforcing: Family<DomainLabels, Gauge>,
    /// 1 for the state of each domain's ramp.
    pub ramp: Family<RampLabels, Gauge>,
    /// When the ramp of a domain ends, as far as the calendar decides, in seconds since 1970.
    pub ramp_end: Family<DomainLabels, Gauge>,
    /// Client networks that have found out about too many unknown recipients.
    pub harvest_networks: Gauge,
    /// 1 for each domain that takes mail for a made-up name.
    pub catch_all: Family<DomainLabels, Gauge>,
    /// Octets of buffered messages.
    pub held: Gauge,
    /// 1 for each next hop that can be reached.
    pub hop_up: Family<HopLabels, Gauge>,
    /// 1 for each next hop that greets with a refusal.
    pub hop_refusing: Family<HopLabels, Gauge>,
    /// When the certificate of a listener expires, in seconds since 1970.
    pub certificate_expiry: Family<ListenerLabels, Gauge>,
    /// Since when the key has signed that signs, in seconds since 1970.
    pub key_since: Gauge,
    /// When that key should be rotated, in seconds since 1970.
    pub key_due: Gauge,
    /// 1 if the state file was written when that was last tried.
    pub state_written: Gauge,
    /// 1 if the key ring was loaded when that was last tried.
    pub ring_loaded: Gauge,
    /// When the process started, in seconds since 1970.
    pub started: Gauge,
}

impl Gauges {
    /// Registers all of them under their names.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("forgery_guesses", "Tags with a bad MAC", self.guesses.clone());
        registry.register(
            "forgery_guesses_limited",
            "Tagged recipients put off for guessing",
            self.guesses_limited.clone(),
        );
        registry.register(
            "forgery_chance",
            "The chance that one of all guesses so far was a good tag, 0 to 1",
            self.forgery_chance.clone(),
        );
        registry.register("tags_counted", "Tags whose bounces are counted", self.tags_counted.clone());
        registry.register(
            "reject_at_rcpt",
            "1 while untagged null-sender mail of a domain is refused at RCPT (reject_at = auto)",
            self.reject_at_rcpt.clone(),
        );
        registry.register("enforcing", "1 where verdicts about a domain are carried out", self.enforcing.clone());
        registry.register("ramp", "1 for the state of the ramp of each domain", self.ramp.clone());
        let ramp_end = "When the ramp of a domain ends, as far as the calendar decides";
        registry.register_with_unit("ramp_end_timestamp", ramp_end, Unit::Seconds, self.ramp_end.clone());
        let harvest = "Client networks past limits.unknown_recipients_per_hour";
        registry.register("harvest_networks", harvest, self.harvest_networks.clone());
        let catch_all = "1 where a domain accepts mail for unknown recipients";
        registry.register("catch_all", catch_all, self.catch_all.clone());
        registry.register_with_unit("held", "Octets of messages held", Unit::Bytes, self.held.clone());
        registry.register("next_hop_up", "1 if a next hop can be reached", self.hop_up.clone());
        registry.register("next_hop_refusing", "1 if a next hop greets with a refusal", self.hop_refusing.clone());
        self.register_dates(registry);
        registry.register("state_written", "1 if the state file could be written last", self.state_written.clone());
        registry.register("ring_loaded", "1 if the key ring could be loaded last", self.ring_loaded.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the program", build);
    }

    fn register_dates(&self, registry: &mut Registry) {
        let mut date = |name: &str, help: &str, gauge: &Gauge| {
            registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        };
        date("signing_key_since_timestamp", "Since when the key signs that signs now", &self.key_since);
        date("signing_key_due_timestamp", "When the key that signs should be rotated", &self.key_due);
        date("start_timestamp", "When the process started", &self.started);
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate of a listener expires",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
    }
}
