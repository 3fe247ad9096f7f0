//! What has happened, in numbers: for Prometheus, for `check`, for the log. No address is a label, and nothing grows
//! without bound.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::envelope::abuse::network;

/// What became of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SenderLabels {
    /// `sign`, `rewrite`, `pass`, `reject`.
    pub action: &'static str,
    /// The word of an `InboundReason`.
    pub reason: &'static str,
}

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RecipientLabels {
    /// About the tag.
    pub verdict: &'static str,
    /// About the mail.
    pub action: &'static str,
    /// The word of an `OutboundReason`.
    pub reason: &'static str,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ContentLabels {
    /// What it is.
    pub kind: &'static str,
    /// What was done.
    pub action: &'static str,
    /// The word for why the content verdict is as it is.
    pub reason: &'static str,
}

/// What clients heard about their messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct MessageLabels {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// `2xx`, `4xx`, `5xx`.
    pub reply: &'static str,
}

/// A reason by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    /// As in the config.
    pub reason: &'static str,
}

/// An entry of `domains.local`, or an SRS domain: there are as many as the config has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DomainLabels {
    /// As in the config.
    pub domain: String,
}

/// The numbers of one process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Senders that were asked about.
    pub senders: Family<SenderLabels, Counter>,
    /// Recipients that were asked about.
    pub recipients: Family<RecipientLabels, Counter>,
    /// Candidates whose content was asked about.
    pub contents: Family<ContentLabels, Counter>,
    /// Messages that were answered.
    pub messages: Family<MessageLabels, Counter>,
    /// What enforcing would have refused.
    pub would_refuse: Family<ReasonLabels, Counter>,
    /// Of these, those that carried evidence of being genuine.
    pub would_refuse_genuine: Counter,
    /// Bounces without a tag that evidence has rescued.
    pub rescued: Counter,
    /// Connections that were accepted.
    pub connections: Counter,
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Rings that could not be loaded.
    pub ring_failures: Counter,
    /// Filled in when somebody asks.
    pub asked: ScrapedCounters,
    observed: Mutex<ObservedRefusals>,
}

/// Numbers that are looked up when somebody asks.
#[derive(Debug, Default)]
pub(crate) struct ScrapedCounters {
    /// Bad tags since the start of the process.
    pub guesses: Counter,
    /// Answers about tags that were not given.
    pub guesses_limited: Counter,
    /// The chance that one of them was good.
    pub forgery_chance: Gauge<f64, AtomicU64>,
    /// Tags whose bounces are counted.
    pub tags_counted: Gauge,
    /// Whether untagged null-sender mail is refused at RCPT now.
    pub reject_at_rcpt: Family<DomainLabels, Gauge>,
    /// Whether verdicts are carried out.
    pub enforcing: Family<DomainLabels, Gauge>,
    /// Octets of held messages.
    pub held: Gauge,
}

/// What enforcing would have refused so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedRefusals {
    /// Messages that enforcing would have refused, by the word of the reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// By the network that sent it.
    pub networks: Top,
    /// How many carried evidence of being genuine.
    pub genuine: u64,
    /// The hosts by which originals of ours left without being signed.
    pub paths: Top,
}

/// The most frequent of many names, in bounded memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Top(HashMap<String, u64>);

impl Top {
    const MAX: usize = 1000;

    fn count(&mut self, name: String) {
        if self.0.len() >= Self::MAX && !self.0.contains_key(&name) {
            let mut counts: Vec<u64> = self.0.values().copied().collect();
            counts.sort_unstable();
            let median = counts.get(counts.len() / 2).copied().unwrap_or(0);
            let mut spare = Self::MAX / 2;
            self.0.retain(|_, count| {
                let stays = *count > median || spare == 0;
                spare -= usize::from(!stays);
                stays
            });
        }
        *self.0.entry(name).or_default() += 1;
    }

    /// The names with the most, and how often each.
    #[must_use]
    pub(crate) fn first(&self, n: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.0.iter().map(|(name, count)| (name.clone(), *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        all
    }
}

impl Metrics {
    /// One more that enforcing would have refused.
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

    /// What enforcing would have refused so far.
    pub(crate) fn observed(&self) -> MutexGuard<'_, ObservedRefusals> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it under the names that scrapers see.
    #[must_use]
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("countersign");
        registry.register("senders", "Envelope senders asked about on the way out", self.senders.clone());
        registry.register("recipients", "Recipients asked about on the way in", self.recipients.clone());
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
        registry.register("sessions", "Sessions open", self.sessions.clone());
        registry.register("ring_failures", "Key rings that could not be loaded", self.ring_failures.clone());
        let asked = &self.asked;
        registry.register("forgery_guesses", "Tags with a bad MAC", asked.guesses.clone());
        registry.register(
            "forgery_guesses_limited",
            "Tagged recipients put off for guessing",
            asked.guesses_limited.clone(),
        );
        registry.register(
            "forgery_chance",
            "The chance that one of all guesses so far was a good tag, 0 to 1",
            asked.forgery_chance.clone(),
        );
        registry.register("tags_counted", "Tags whose bounces are counted", asked.tags_counted.clone());
        registry.register(
            "reject_at_rcpt",
            "1 while untagged null-sender mail of a domain is refused at RCPT (reject_at = auto)",
            asked.reject_at_rcpt.clone(),
        );
        registry.register("enforcing", "1 where verdicts about a domain are carried out", asked.enforcing.clone());
        registry.register_with_unit("held", "Octets of messages held", Unit::Bytes, asked.held.clone());
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_the_frequent_stay() {
        let mut top = Top::default();
        for _ in 0..50 {
            top.count("often".into());
        }
        for n in 0..5000 {
            top.count(n.to_string());
        }
        assert!(top.0.len() <= Top::MAX);
        assert_eq!(top.first(1), [("often".to_owned(), 50)]);
    }
}
