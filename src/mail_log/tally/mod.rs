//! Counts what has happened.

mod distinct;
mod forged;
mod harvest;
mod hours;
mod own_bounces;
mod queue;
mod sections;
mod sessions;

use core::net::IpAddr;
use std::collections::{BTreeMap, HashSet};

pub(crate) use self::distinct::Distinct;
pub(crate) use self::forged::Forged;
pub(crate) use self::harvest::{Harvest, LIMIT as HARVEST_LIMIT};
pub(crate) use self::hours::{Counts, Hour, Hours, Pair};
pub(crate) use self::own_bounces::{Cause, OwnBounces};
pub(crate) use self::sections::{Section, Sections};

use self::own_bounces::Failure;
use self::queue::{Message, Origin, OwnBounce, Queue};
use self::sessions::Sessions;
use super::event::{
    Client, Decision, DecisionResult, Delivery, Event, NoticeKind, Outcome, Received, Refusal, Refused, Software,
};
use super::fields::{after, domain_of, ip, text_of, until};
use super::line::Told;
use super::stamp::Wall;
use crate::envelope::top::Top;

/// Reasons in our own log; there are fewer than 40.
const MAX_REASONS: usize = 100;
/// Domains with mailboxes here.
const MAX_DOMAINS: usize = 100_000;

/// What all lines have said so far. Memory is bounded, whatever a log contains.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Only mail to these domains counts; empty: all mail.
    domains: Vec<String>,
    queue: Queue,
    sessions: Sessions,
    /// Domains with mailboxes here.
    ours: HashSet<Box<[u8]>>,
    /// The one to which mail was last delivered.
    local_before: Box<[u8]>,
    pub hours: Hours,
    /// Refused recipients of the null sender, by the server.
    pub refused: BTreeMap<Refusal, u64>,
    /// Decisions of Countersign about mail from the null sender, by its reasons.
    pub decided: BTreeMap<Decided, Top<MAX_REASONS>>,
    /// What was refused from the null sender.
    pub forged: Forged,
    /// The part of it that a filter of the server has refused, which may be Countersign.
    pub forged_in_filter: Forged,
    /// Recipients of refused mail from the null sender who do not exist.
    pub unknown_names: Distinct,
    pub own_bounces: OwnBounces,
    pub harvest: Harvest,
    /// Hosts by which mail has left unsigned, of genuine bounces, and when the last came.
    pub unsigned: BTreeMap<String, (u64, Wall)>,
}

/// What Countersign has done with a bounce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Decided {
    Refused,
    Deferred,
    WouldRefuse,
    Delivered,
}

impl Tally {
    /// `domains`: only mail to these counts; none: all mail.
    pub(crate) fn new(domains: &[String]) -> Self {
        let domains: Vec<String> = domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
        let ours = domains.iter().map(|domain| domain.as_bytes().into()).collect();
        Self { domains, ours, ..Self::default() }
    }

    /// Counts an event, and says where.
    pub(crate) fn count(&mut self, told: &Told<'_>) -> Sections {
        match &told.event {
            Event::Received(received) => self.received(told, received),
            Event::Sender { id, sender } => {
                let key = self.queue.key(told.host, id);
                self.queue.message(key).has_null_sender = Some(sender.is_empty());
                Sections::default()
            }
            Event::Bounced { id, notice, kind } => self.bounced(told.host, id, notice, *kind),
            Event::Delivery(delivery) => self.delivery(told, delivery),
            Event::Refused(refused) => self.refused(told, refused),
            Event::Gone { id } => {
                let key = self.queue.key(told.host, id);
                self.queue.remove(key);
                Sections::default()
            }
            Event::Decision(decision) => self.decision(told, decision),
            Event::Asked { client, to } => {
                let counts = self.is_of_interest(to) && !is_private(*client);
                if counts {
                    self.harvest.count(*client, to, told.at, told.times);
                }
                Sections::of(Section::Harvest, counts)
            }
            Event::Session { name, by } => {
                self.sessions.note(*name, *by);
                Sections::default()
            }
        }
    }

    /// Whether mail to this recipient counts.
    fn is_of_interest(&self, recipient: &[u8]) -> bool {
        let domain = domain_of(recipient);
        self.domains.is_empty() || self.domains.iter().any(|ours| domain.eq_ignore_ascii_case(ours.as_bytes()))
    }

    fn received(&mut self, told: &Told<'_>, received: &Received<'_>) -> Sections {
        if let Some(about) = received.bounce_of
            && self.is_bounce(told.host, about)
        {
            return self.bounced(told.host, about, received.id, NoticeKind::Failure);
        }
        let key = self.queue.key(told.host, received.id);
        let by = self.known(received.by);
        let message = self.queue.message(key);
        // The name may have been used before.
        *message = Message { origin: origin(by), ..Message::default() };
        if let Some(sender) = received.sender {
            message.has_null_sender = Some(sender.is_empty());
            // OpenSMTPD does not say what its bounces are about.
            let is_bounce = told.software == Software::Opensmtpd && message.origin == Origin::User && sender.is_empty();
            if is_bounce && message.bounce.is_none() {
                message.bounce = Some(OwnBounce::new(Cause::Other, "", Origin::Unknown));
            }
        }
        Sections::default()
    }

    /// Whether what Exim has made about a message is a bounce: of a message that is known, a recipient has failed. It may
    /// also be the reply of a vacation program.
    fn is_bounce(&self, host: &[u8], about: &[u8]) -> bool {
        self.queue.find(self.queue.key(host, about)).is_none_or(|message| message.failure.is_some())
    }

    /// A client, by its session if it has one.
    fn known(&self, by: Client) -> Client {
        match by {
            Client::OfSession(name) => self.sessions.client(name),
            other => other,
        }
    }

    fn bounced(&mut self, host: &[u8], id: &[u8], notice: &[u8], kind: NoticeKind) -> Sections {
        let about = self.queue.find(self.queue.key(host, id)).cloned().unwrap_or_default();
        let (cause, place) = match (kind, about.failure) {
            (NoticeKind::Failure, Some(failure)) => (failure.cause, failure.place),
            (NoticeKind::Failure, None) => (Cause::Other, "".into()),
            (NoticeKind::Delay, _) => (Cause::Delay, "".into()),
            (NoticeKind::Success, _) => (Cause::Success, "".into()),
        };
        let key = self.queue.key(host, notice);
        let message = self.queue.message(key);
        message.has_null_sender = Some(true);
        message.origin = Origin::User;
        message.bounce = Some(OwnBounce::new(cause, &place, about.origin));
        // Those about mail of this site's users go to them.
        Sections::of(Section::Reflector, about.origin == Origin::World)
    }

    fn delivery(&mut self, told: &Told<'_>, delivery: &Delivery<'_>) -> Sections {
        let key = self.queue.key(told.host, delivery.id);
        let domain = domain_of(delivery.to);
        // A gateway hands mail of the world to a server inside. What it forwards had another recipient before.
        let is_inside = self.queue.message(key).origin == Origin::World
            && delivery.asked.is_none_or(|asked| domain_of(asked).eq_ignore_ascii_case(domain))
            && host_of(delivery.by).is_some_and(|host| is_private(host) && !host.is_loopback());
        let is_here = (delivery.is_local || is_inside) && delivery.result == Outcome::Delivered;
        if is_here && *self.local_before != *domain && self.ours.len() < MAX_DOMAINS {
            self.ours.insert(domain.to_ascii_lowercase().into());
            self.local_before = domain.into();
        }
        let is_of_interest = self.is_of_interest(delivery.asked.unwrap_or(delivery.to));
        let message = self.queue.message(key);
        let mut counts = Sections::default();
        if message.bounce.is_some() {
            counts = self.own_bounce(key, told.at, delivery);
        } else {
            let is_first = !message.is_counted && message.origin == Origin::World && is_of_interest;
            if is_first && let Some(is_null) = message.has_null_sender {
                message.is_counted = true;
                self.hours.at(told.at).server.accepted.add(is_null, 1);
                counts = Sections::of(Section::Backscatter, is_null);
            }
            let message = self.queue.message(key);
            // What is deferred for too long is bounced, too.
            if delivery.result != Outcome::Delivered && is_of_interest {
                message.failure = Some(Box::new(Failure::of(delivery)));
                let is_told = delivery.result == Outcome::Failed && message.origin == Origin::World;
                counts = counts.and(Sections::of(Section::Reflector, is_told));
            }
        }
        self.pass_on(key, told.host, delivery);
        counts
    }

    /// A message that is handed to another part of this machine is the same one there.
    fn pass_on(&mut self, key: u64, host: &[u8], delivery: &Delivery<'_>) {
        if delivery.result != Outcome::Delivered || !is_this_machine(delivery.by) {
            return;
        }
        let Some(id) = after(delivery.words, b"queued as ") else { return };
        let id = until(until(id, b')'), b' ');
        let Some(Message { origin, bounce, .. }) = self.queue.find(key).cloned() else { return };
        let next = self.queue.key(host, id);
        let next = self.queue.message(next);
        if matches!(next.origin, Origin::Inside | Origin::Unknown) {
            // It is counted where it came in.
            next.is_counted = true;
            next.origin = origin;
        }
        next.bounce = bounce.or_else(|| next.bounce.take());
    }

    fn own_bounce(&mut self, key: u64, at: Wall, delivery: &Delivery<'_>) -> Sections {
        let is_ours = self.ours.contains(domain_of(delivery.to).to_ascii_lowercase().as_slice());
        let Some(bounce) = &mut self.queue.message(key).bounce else { return Sections::default() };
        let is_stranger = !is_ours && bounce.about != Origin::User;
        if !is_stranger {
            return Sections::default();
        }
        if !std::mem::replace(&mut bounce.is_counted, true) {
            self.own_bounces.count(bounce.cause, &bounce.place, delivery.to, at);
        }
        // What another part of this machine has accepted is not delivered yet.
        let is_final = delivery.result != Outcome::Deferred
            && (delivery.result == Outcome::Failed
                || after(delivery.words, b"queued as ").is_none()
                || !is_this_machine(delivery.by));
        if is_final && !std::mem::replace(&mut bounce.has_result, true) {
            self.own_bounces.result(delivery.result);
        }
        Sections::of(Section::Reflector, true)
    }

    fn refused(&mut self, told: &Told<'_>, refused: &Refused<'_>) -> Sections {
        let is_of_interest = refused.to.is_empty() || self.is_of_interest(refused.to);
        if !is_of_interest || refused.why == Refusal::RelayingDenied {
            return Sections::default();
        }
        let is_null = refused.sender.is_some_and(<[u8]>::is_empty);
        let client = refused.client.or_else(|| match self.sessions.client(refused.session?) {
            Client::Host(ip) => Some(ip),
            Client::Unknown | Client::User | Client::OfSession(_) => None,
        });
        let is_inner = client.is_some_and(|client| client.is_loopback());
        if client.is_some_and(is_private) && !is_inner {
            return Sections::default();
        }
        let hour = self.hours.at(told.at);
        let counts = if is_inner { &mut hour.inner } else { &mut hour.server };
        counts.refused.add(is_null, told.times);
        if refused.why == Refusal::Filter {
            counts.filtered.add(is_null, told.times);
        }
        let is_unknown = refused.why == Refusal::UnknownUser;
        if is_null {
            let count = self.refused.entry(refused.why).or_default();
            *count = count.saturating_add(told.times);
            let is_filter = refused.why == Refusal::Filter;
            let forged = if is_filter { &mut self.forged_in_filter } else { &mut self.forged };
            forged.count(refused.to, client, refused.name, told.times);
            if is_unknown {
                self.unknown_names.add(&refused.to.to_ascii_lowercase());
            }
        }
        let harvests = is_unknown && refused.sender.is_some_and(|sender| !sender.is_empty());
        if let Some(client) = client.filter(|_| harvests) {
            self.harvest.count(client, refused.to, told.at, told.times);
        }
        Sections::of(Section::Backscatter, is_null).and(Sections::of(Section::Harvest, harvests))
    }

    fn decision(&mut self, told: &Told<'_>, decision: &Decision<'_>) -> Sections {
        if !self.is_of_interest(decision.to.as_bytes()) {
            return Sections::default();
        }
        let is_null = decision.is_null_sender;
        let counts = &mut self.hours.at(told.at).countersign;
        let decided = match decision.result {
            DecisionResult::Held => {
                self.own_bounces.held += 1;
                return Sections::of(Section::Reflector, true);
            }
            DecisionResult::NextHopRefused => {
                counts.next_hop.add(is_null, 1);
                return Sections::default();
            }
            DecisionResult::Refused => Decided::Refused,
            DecisionResult::Deferred => Decided::Deferred,
            DecisionResult::WouldRefuse => Decided::WouldRefuse,
            DecisionResult::Delivered => Decided::Delivered,
        };
        match decided {
            Decided::Refused | Decided::Deferred => counts.refused.add(is_null, 1),
            Decided::WouldRefuse | Decided::Delivered => counts.accepted.add(is_null, 1),
        }
        let mut sections = Sections::default();
        let host = decision.unsigned_host.as_deref().map(|host| text_of(host.as_bytes()));
        if let Some(host) = host.filter(|host| self.unsigned.len() < MAX_REASONS || self.unsigned.contains_key(host)) {
            let seen = self.unsigned.entry(host).or_insert((0, told.at));
            *seen = (seen.0 + 1, seen.1.max(told.at));
            sections = Sections::of(Section::Unsigned, true);
        }
        if is_null {
            self.decided.entry(decided).or_default().count_text(&text_of(decision.reason.as_bytes()), 1);
            if matches!(decided, Decided::Refused | Decided::WouldRefuse) {
                self.forged.count(decision.to.as_bytes(), decision.client, None, 1);
            }
        } else if decision.reason == UNKNOWN_RECIPIENT
            && let Some(client) = decision.client
        {
            self.harvest.count(client, decision.to.as_bytes(), told.at, 1);
            sections = sections.and(Sections::of(Section::Harvest, true));
        }
        sections.and(Sections::of(Section::Backscatter, is_null))
    }
}

/// Countersign's reason for an unknown recipient.
const UNKNOWN_RECIPIENT: &str = "unknown-recipient";

impl OwnBounce {
    fn new(cause: Cause, place: &str, about: Origin) -> Self {
        Self { cause, place: place.into(), about, is_counted: false, has_result: false }
    }
}

fn origin(client: Client) -> Origin {
    match client {
        Client::Unknown | Client::OfSession(_) => Origin::Unknown,
        Client::User => Origin::User,
        Client::Host(ip) if is_private(ip) => Origin::Inside,
        Client::Host(_) => Origin::World,
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether a relay is this machine: `127.0.0.1[127.0.0.1]:10025`, `localhost`.
fn is_this_machine(relay: &[u8]) -> bool {
    match relay.contains(&b'[') {
        true => host_of(relay).is_some_and(|ip| ip.is_loopback()),
        false => relay == b"localhost" || relay.starts_with(b"127."),
    }
}

/// The address in a relay. The name before it is the server's own.
fn host_of(relay: &[u8]) -> Option<IpAddr> {
    let address = memchr::memchr(b'[', relay).and_then(|at| relay.get(at + 1..))?;
    ip(until(address, b']'))
}
