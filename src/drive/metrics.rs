//! Counters and gauges, for Prometheus, `check` and the log. No address is a label, and memory is bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::gauges::Gauges;
use crate::envelope::abuse::network;
use crate::envelope::top::Top;

/// Labels of a decision about a sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SenderLabels {
    /// `sign`, `rewrite`, `pass`, `reject`.
    pub action: &'static str,
    /// The name of an `OutboundReason`.
    pub reason: &'static str,
}

/// Labels of a request about an alias of a long sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AliasLabels {
    /// `stored`, `not-stored`, `found`, `unknown`.
    pub result: &'static str,
}

/// Labels of a question to a server about a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LookupLabels {
    /// `known`, `unknown`, `undecided`, `remembered`.
    pub result: &'static str,
}

/// Labels of a decision about a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RecipientLabels {
    /// The name of the verdict on the tag.
    pub verdict: &'static str,
    /// The name of a `Disposition` or a `MapAnswer`.
    pub action: &'static str,
    /// The name of an `InboundReason` or a `MapReason`.
    pub reason: &'static str,
}

/// Labels of a decision about the content of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ContentLabels {
    /// The name of a `MessageKind`.
    pub kind: &'static str,
    /// The name of a `ContentVerdict`.
    pub action: &'static str,
    /// The reason of the content verdict.
    pub reason: &'static str,
}

/// Labels of the reply to a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct MessageLabels {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// `2xx`, `4xx`, `5xx`.
    pub reply: &'static str,
}

/// A reason as the only label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    /// The name of a `RefusalReason`.
    pub reason: &'static str,
}

/// A limit as the only label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitLabels {
    /// The name of the limit in the config.
    pub limit: &'static str,
}

/// Time that this process has spent on each message, in seconds.
#[derive(Debug)]
pub(crate) struct AddedTime(pub Histogram);

impl Default for AddedTime {
    fn default() -> Self {
        Self(Histogram::new([25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.1, 1.0]))
    }
}

/// The metrics of this process since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Decisions about senders.
    pub senders: Family<SenderLabels, Counter>,
    /// Requests about aliases of long senders.
    pub aliases: Family<AliasLabels, Counter>,
    /// Decisions about recipients.
    pub recipients: Family<RecipientLabels, Counter>,
    /// Questions to servers about recipients.
    pub lookups: Family<LookupLabels, Counter>,
    /// Decisions about the content of messages.
    pub contents: Family<ContentLabels, Counter>,
    /// Messages that got a reply.
    pub messages: Family<MessageLabels, Counter>,
    /// Recipients that enforcing would have refused.
    pub would_refuse: Family<ReasonLabels, Counter>,
    /// Those of `would_refuse` with evidence that the bounce is genuine.
    pub would_refuse_genuine: Counter,
    /// Bounces without a tag that evidence has rescued.
    pub rescued: Counter,
    /// Accepted connections.
    pub connections: Counter,
    /// Open sessions.
    pub sessions: Gauge,
    /// Failed attempts to load a key ring.
    pub ring_failures: Counter,
    /// Failed attempts to write the state file.
    pub state_failures: Counter,
    /// Limits that were reached.
    pub limits: Family<LimitLabels, Counter>,
    /// Recipients that a next hop has refused as unknown users.
    pub unknown_users: Counter,
    /// Time that this process has spent on each message, in seconds, without waiting for client or next hop.
    pub added: AddedTime,
    /// Values that are filled in when metrics are read.
    pub gauges: Gauges,
    observed: Mutex<ObservedRefusals>,
}

/// The most networks, and the most hosts, of what enforcing would have refused.
pub(crate) const NAMES: usize = 1000;

/// What enforcing would have refused since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedRefusals {
    /// Recipients that enforcing would have refused, by the name of the reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The same recipients, by client network.
    pub networks: Top<NAMES>,
    /// How many of these carried evidence that the bounce is genuine.
    pub genuine: u64,
    /// The hosts through which originals of this site left unsigned.
    pub paths: Top<NAMES>,
}

impl Metrics {
    /// Counts a limit that was reached.
    pub(crate) fn limit(&self, limit: &'static str) {
        self.limits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// Counts a recipient that enforcing would have refused.
    pub(crate) fn would_refuse(
        &self,
        reason: &'static str,
        client: Option<IpAddr>,
        genuine: bool,
        path: Option<String>,
    ) {
        self.would_refuse.get_or_create(&ReasonLabels { reason }).inc();
        if genuine {
            self.would_refuse_genuine.inc();
        }
        let mut observed = self.observed();
        *observed.reasons.entry(reason).or_default() += 1;
        observed.genuine += u64::from(genuine);
        observed.networks.count(client.map_or_else(|| "local".into(), |client| network(client).to_string()));
        if let Some(path) = path {
            observed.paths.count(path);
        }
    }

    /// What enforcing would have refused since the start.
    pub(crate) fn observed(&self) -> MutexGuard<'_, ObservedRefusals> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics under their Prometheus names.
    #[must_use]
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("countersign");
        registry.register("senders", "Envelope senders asked about on the way out", self.senders.clone());
        registry.register("aliases", "Aliases of long senders stored or looked up", self.aliases.clone());
        registry.register("recipients", "Recipients asked about on the way in", self.recipients.clone());
        registry.register("recipient_lookups", "Queries to servers about recipients", self.lookups.clone());
        registry.register("contents", "Candidates judged by their content", self.contents.clone());
        registry.register("messages", "Messages answered", self.messages.clone());
        registry.register("would_refuse", "What enforcing would have refused", self.would_refuse.clone());
        registry.register(
            "would_refuse_genuine",
            "What enforcing would have refused although it carried evidence",
            self.would_refuse_genuine.clone(),
        );
        registry.register("rescued", "Untagged bounces rescued by evidence", self.rescued.clone());
        registry.register("connections", "Connections accepted", self.connections.clone());
        registry.register("limits_reached", "Limits that were reached", self.limits.clone());
        let unknown = "Recipients that a next hop has refused as unknown users";
        registry.register("unknown_users", unknown, self.unknown_users.clone());
        let added = "Time spent on a message, without waiting for client or next hop";
        registry.register_with_unit("message_added", added, Unit::Seconds, self.added.0.clone());
        registry.register("sessions", "Sessions open", self.sessions.clone());
        registry.register("state_failures", "Writes of the state file that have failed", self.state_failures.clone());
        registry.register("ring_failures", "Key rings that could not be loaded", self.ring_failures.clone());
        self.gauges.register(&mut registry);
        registry
    }
}
