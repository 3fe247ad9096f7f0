//! From what was counted to what is shown.

use super::event::{Refusal, Software};
use super::figures::{
    Backscatter, CauseOfBounces, Extent, HarvestSummary, Harvester, HourOfMail, Named, Network, Reflector, Summary,
    Unsigned, UnsignedHost,
};
use super::judgement;
use super::stamp::Wall;
use super::tally::{Cause, Counts, Decided, Forged, HARVEST_LIMIT, Hour, Pair, Tally};

/// How many names of each kind are listed.
const LISTED: usize = 10;
/// How many places of a cause are listed.
const PLACES: usize = 3;

/// What the lines of a log have said.
pub(crate) fn summary(tally: Tally, lines: Extent) -> Summary {
    let has_ours = lines.software.contains(&Software::Countersign);
    let has_server = lines.software.iter().any(|software| *software != Software::Countersign);
    let whose = Whose { has_ours, has_server };
    Summary {
        backscatter: backscatter(&tally, whose, lines.last.map_or(0, Wall::hour)),
        reflector: reflector(&tally, &lines),
        harvest: harvest(&tally),
        unsigned: unsigned(&tally, has_ours),
        queue: None,
        dns: None,
        lines,
    }
}

/// What a filter of the server has refused in an hour, as far as it is Countersign, and in its log, too.
fn in_both(hour: &Hour) -> Pair {
    hour.server.filtered.least(hour.countersign.refused)
}

/// Whose logs there are. Where both are, the same mail is in both.
#[derive(Debug, Clone, Copy)]
struct Whose {
    has_ours: bool,
    has_server: bool,
}

impl Whose {
    /// The mail that was refused in an hour.
    fn refused(self, hour: &Hour) -> Pair {
        let of_server =
            |counts: Counts| counts.refused.minus(if self.has_ours { in_both(hour) } else { Pair::default() });
        let servers = of_server(hour.server);
        if !self.has_ours {
            return servers.plus(hour.inner.refused);
        }
        let next_hop = if self.has_server { hour.inner.refused } else { hour.countersign.next_hop };
        servers.plus(next_hop).plus(hour.countersign.refused)
    }

    fn accepted(self, hour: &Hour) -> Pair {
        if self.has_server && hour.server.accepted != Pair::default() {
            hour.server.accepted
        } else {
            hour.countersign.accepted
        }
    }

    fn hour(self, (hour, counts): (i64, &Hour)) -> HourOfMail {
        let (refused, accepted) = (self.refused(counts), self.accepted(counts));
        let all = refused.plus(accepted);
        HourOfMail { hour, mail_in: all.null + all.other, null_sender: all.null, refused: refused.null }
    }
}

fn backscatter(tally: &Tally, whose: Whose, end: i64) -> Backscatter {
    let hours: Vec<HourOfMail> = tally.hours.iter().map(|hour| whose.hour(hour)).collect();
    let sum = |part: fn(&HourOfMail) -> u64| hours.iter().map(part).sum::<u64>();
    let (mail_in, null_sender, refused_null) = (sum(|h| h.mail_in), sum(|h| h.null_sender), sum(|h| h.refused));
    let attacks = judgement::attacks(&hours, end);
    let attack = judgement::worst(&attacks, &hours);
    let mut refused = Vec::new();
    let mut delivered = Vec::new();
    let ours = |decided: Decided| tally.decided.get(&decided).map(|top| top.first(LISTED)).unwrap_or_default();
    let in_both: u64 = if whose.has_ours { tally.hours.iter().map(|(_, hour)| in_both(hour).null).sum() } else { 0 };
    for (why, count) in &tally.refused {
        let count = if *why == Refusal::Filter { count.saturating_sub(in_both) } else { *count };
        if count > 0 {
            refused.push(Named { name: why.words().to_owned(), count });
        }
    }
    for decided in [Decided::Refused, Decided::Deferred] {
        refused.extend(
            ours(decided).into_iter().map(|(reason, count)| Named { name: judgement::reason(decided, &reason), count }),
        );
    }
    for decided in [Decided::Delivered, Decided::WouldRefuse] {
        delivered.extend(
            ours(decided).into_iter().map(|(reason, count)| Named { name: judgement::reason(decided, &reason), count }),
        );
    }
    let known: u64 = delivered.iter().map(|named| named.count).sum();
    let others = null_sender.saturating_sub(refused_null).saturating_sub(known);
    if others > 0 {
        delivered.push(Named { name: "no tag was looked for".to_owned(), count: others });
    }
    refused.sort_by_key(|named| std::cmp::Reverse(named.count));
    delivered.sort_by_key(|named| std::cmp::Reverse(named.count));
    let would_refuse = ours(Decided::WouldRefuse).iter().map(|(_, count)| count).sum();
    let (mut names, mut networks) = (tally.forged.names.clone(), tally.forged.networks.clone());
    if in_both == 0 {
        names.add(&tally.forged_in_filter.names);
        networks.add(&tally.forged_in_filter.networks);
    }
    let name_in = |network: &String| {
        let of = |forged: &Forged| forged.network_names.get(network).cloned();
        of(&tally.forged).or_else(|| of(&tally.forged_in_filter))
    };
    Backscatter {
        verdict: judgement::backscatter(attack, &hours, whose.has_ours, would_refuse),
        mail_in,
        null_sender,
        attack,
        refused,
        delivered,
        forged_as: named(names.first(LISTED)),
        unknown_names: tally.unknown_names.count(),
        networks: networks.len(),
        sent_by: networks
            .first(LISTED)
            .into_iter()
            .map(|(network, count)| Network { name: name_in(&network), network, count })
            .collect(),
        hours,
    }
}

fn named(list: Vec<(String, u64)>) -> Vec<Named> {
    list.into_iter().map(|(name, count)| Named { name, count }).collect()
}

fn reflector(tally: &Tally, lines: &Extent) -> Reflector {
    let own = &tally.own_bounces;
    let causes: Vec<CauseOfBounces> = Cause::ALL
        .iter()
        .filter_map(|cause| {
            let count = *own.causes.get(cause)?;
            let places = own.places.get(cause).map(|top| top.first(PLACES)).unwrap_or_default();
            let places = named(places).into_iter().filter(|place| !place.name.is_empty()).collect();
            Some(CauseOfBounces { cause: *cause, count, places })
        })
        .collect();
    let left = own.total.saturating_sub(own.held);
    Reflector {
        verdict: judgement::reflector(left, &causes, lines),
        bounces: left,
        domains: own.domains.count(),
        delivered: own.delivered,
        undeliverable: own.failed,
        held: own.held,
        causes,
    }
}

fn harvest(tally: &Tally) -> HarvestSummary {
    let found = tally.harvest.harvesters();
    let networks: Vec<Harvester> = found
        .iter()
        .map(|(network, it)| Harvester {
            network: network.to_string(),
            names: it.names,
            most_in_an_hour: it.most,
            first: Some(it.first),
            last: Some(it.last),
        })
        .collect();
    HarvestSummary { verdict: judgement::harvest(&networks, HARVEST_LIMIT), networks }
}

fn unsigned(tally: &Tally, has_ours: bool) -> Unsigned {
    let mut hosts: Vec<UnsignedHost> = tally
        .unsigned
        .iter()
        .map(|(host, (bounces, last))| UnsignedHost { host: host.clone(), bounces: *bounces, last: Some(*last) })
        .collect();
    hosts.sort_by(|a, b| b.bounces.cmp(&a.bounces).then_with(|| a.host.cmp(&b.host)));
    Unsigned { verdict: judgement::unsigned(&hosts, has_ours), hosts }
}
