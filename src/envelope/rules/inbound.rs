//! Mail that comes in: which recipients exist for it, and is a message without a good tag a bounce?

use core::net::IpAddr;

use super::refusals::{
    GUESSING, NO_SUCH_SRS, NO_SUCH_TAG, RELAYING_DENIED, REPLAYED, SRS_TAKES_BOUNCES, UNKNOWN_KEY, refusal_of,
};
use super::{Refusal, Rules};
use crate::envelope::address::{Address, ReversePath};
use crate::envelope::memory::{Memory, TagId, network};
use crate::envelope::policy::{Action, Reason, RejectAt};
use crate::envelope::tag::{Verdict, batv, chance, srs};

/// What becomes of a recipient, and what its tag proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// About the tag.
    pub verdict: Verdict,
    /// About the mail.
    pub action: InboundAction,
    /// Why, as a word for logs.
    pub reason: &'static str,
    /// What a bounce to it counts as, where its tag holds.
    pub tag: Option<TagId>,
}

/// What becomes of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundAction {
    /// It goes on, to this address.
    Deliver {
        /// The address for the next hop; the one that came, or the one behind its tag.
        to: Address,
        /// Which next hop.
        route: Route,
        /// What the message is marked with, because it would have been refused.
        mark: Option<Mark>,
        /// Whether the content decides.
        judge: Judge,
    },
    /// It is refused.
    Refuse(Refusal),
}

/// Which next hop a recipient has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// The MTA.
    #[default]
    NextHop,
    /// The listener of the MTA that may relay, where one is configured: the recipient is foreign.
    SrsNextHop,
}

/// Whether the content of a message decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Judge {
    /// No.
    #[default]
    No,
    /// The sender is null and there is no tag.
    Null,
    /// The sender speaks for a machine, and there is no good tag.
    Daemon,
    /// The sender is null, and mail of this recipient is too long to be signed: a bounce is marked, never refused.
    Overflow,
    /// Whatever it is, it is taken and goes nowhere.
    Discard,
}

/// The header that says what would have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// What the tag proved.
    pub verdict: &'static str,
    /// What would be done without it: `reject`, `defer`, `discard`, `quarantine`, or `mark` where that is all.
    pub would: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Whether enforcing would not have delivered it: it is only observed.
    pub observed: bool,
}

/// The name of that header.
pub const MARK: &str = "Countersign-Result";

impl Mark {
    /// The header line, without its line end.
    #[must_use]
    pub fn header(&self) -> String {
        format!("{MARK}: {}", self.value())
    }

    /// What stands behind the colon.
    #[must_use]
    pub fn value(&self) -> String {
        format!("v=1; verdict={}; would={}; reason={}", self.verdict, self.would, self.reason)
    }

    /// Whether it stands on what goes to the quarantine.
    pub(super) fn is_quarantine(&self) -> bool {
        self.would == Action::Quarantine.name() && !self.observed
    }
}

const ALWAYS_THERE: [&str; 2] = ["postmaster", "abuse"];

/// What is asked about one recipient, beside the recipient itself.
struct Asked<'m> {
    memory: &'m mut Memory,
    client: Option<IpAddr>,
    /// Nothing is refused for what it is.
    lenient: bool,
    /// An MTA asks that may take every tagged address for one of its users: what we did not make has to lead nowhere, or it would accept
    /// mail to users that there are not, and bounce it.
    at_mta: bool,
}

impl Rules<'_> {
    /// What becomes of this recipient.
    #[must_use]
    pub fn inbound(
        &self,
        memory: &mut Memory,
        client: Option<IpAddr>,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Inbound {
        self.inbound_asked(
            Asked { memory, client, lenient: self.is_lenient(client, recipient.domain()), at_mta: false },
            sender,
            recipient,
        )
    }

    fn inbound_asked(&self, asked: Asked<'_>, sender: &ReversePath, recipient: &Address) -> Inbound {
        let domains = &self.policy.domains;
        let domain = recipient.domain();
        let (local, alias) = (domains.is_local(domain), domains.srs.contains(domain));
        let is_srs = alias && srs::looks_tagged(&recipient.content());
        // An address that we signed ourselves may look like anything; see `tagged_recipient`.
        let bare = if local { batv::strip(recipient) } else { None };
        if !is_srs && bare.is_none() && routes_onward(recipient) {
            return refuse(Verdict::Untagged, RELAYING_DENIED);
        }
        if !local && !alias {
            return if domains.relay.contains(domain) {
                untouched(recipient, "relay-domain")
            } else if self.policy.inbound.pass_foreign {
                untouched(recipient, "foreign-recipient")
            } else {
                refuse(Verdict::Untagged, RELAYING_DENIED)
            };
        }
        if is_srs {
            return self.srs_recipient(asked, sender, recipient);
        }
        if !local {
            let exists = ALWAYS_THERE.iter().any(|name| recipient.content().eq_ignore_ascii_case(name));
            return if exists {
                untouched(recipient, "srs-domain-postmaster")
            } else {
                refuse(Verdict::Untagged, NO_SUCH_SRS)
            };
        }
        match bare {
            Some(bare) => self.tagged_recipient(asked, sender, recipient, bare),
            None => self.plain_recipient(asked, sender, recipient),
        }
    }

    /// The same for an MTA that has decided already for whom it relays (milter, policy service): what is not ours is its matter.
    /// What looks like an address of ours and was not made here leads nowhere, in every mode: the MTA would take it for a user's,
    /// and bounce what comes to users that there are not. Only bounces to `prvs` tags, which bounce no further, are observed.
    #[must_use]
    pub fn inbound_at_mta(
        &self,
        memory: &mut Memory,
        client: Option<IpAddr>,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Inbound {
        // For an MTA `ann@our.example.` is Ann.
        let bare = recipient.as_str().strip_suffix('.').and_then(|bare| Address::parse(bare).ok());
        let recipient = bare.as_ref().unwrap_or(recipient);
        let asked = Asked { memory, client, lenient: self.is_lenient(client, recipient.domain()), at_mta: true };
        let inbound = self.inbound_asked(asked, sender, recipient);
        match &inbound.action {
            // At a domain of ours it is a way round the rules, which the MTA may know.
            InboundAction::Refuse(refusal) if *refusal == RELAYING_DENIED && !self.is_ours(recipient.domain()) => {
                untouched(recipient, "foreign-recipient")
            }
            InboundAction::Refuse(_) | InboundAction::Deliver { .. } => inbound,
        }
    }

    /// Whether the hash of a tag holds, whatever its date. (A key that is not known has expired, too, where the date is far off.)
    pub(super) fn was_made_here(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Valid(_) => true,
            Verdict::Expired(tagged) | Verdict::Future(tagged) => {
                tagged.key.as_ref().is_some_and(|id| self.ring.key(id).is_some())
            }
            Verdict::Forged(_) | Verdict::UnknownKey(_) | Verdict::Malformed(_) | Verdict::Untagged => false,
        }
    }

    fn is_ours(&self, domain: &str) -> bool {
        self.policy.domains.is_local(domain) || self.policy.domains.srs.contains(domain)
    }

    fn srs_recipient(&self, mut asked: Asked<'_>, sender: &ReversePath, recipient: &Address) -> Inbound {
        let inbound = &self.policy.inbound;
        // Who has guessed one may relay, in every mode.
        if self.is_guessing(&mut asked, true) {
            return refuse(Verdict::Untagged, GUESSING);
        }
        let verdict = srs::verify(self.ring.keys(), &self.policy.srs, self.now.day(), recipient);
        let for_this_sender = *sender == ReversePath::Null || inbound.srs_for_senders;
        match &verdict {
            Verdict::Valid(found) if for_this_sender => {
                let (to, route) = if inbound.srs_stays {
                    (recipient.clone(), Route::NextHop)
                } else {
                    (found.address().clone(), Route::SrsNextHop)
                };
                self.valid(asked, verdict, recipient, to, route)
            }
            Verdict::Valid(_) => self.or_as_it_came(&asked, verdict, recipient, None),
            Verdict::Expired(_) => self.or_as_it_came(&asked, verdict, recipient, Some(Reason::Expired)),
            Verdict::Future(_) => self.or_as_it_came(&asked, verdict, recipient, Some(Reason::Future)),
            Verdict::Forged(_) | Verdict::UnknownKey(_) | Verdict::Malformed(_) | Verdict::Untagged => {
                if matches!(verdict, Verdict::Forged(_)) {
                    self.guessed(&mut asked, chance::of_srs(self.ring.keys(), &self.policy.srs));
                }
                self.or_as_it_came(&asked, verdict, recipient, Some(Reason::Forged))
            }
        }
    }

    /// Acts on an SRS address that does not hold, or observes it: then it goes on as it came, marked.
    fn or_as_it_came(
        &self,
        asked: &Asked<'_>,
        verdict: Verdict,
        recipient: &Address,
        reason: Option<Reason>,
    ) -> Inbound {
        if routes_onward(recipient) || asked.at_mta {
            // Unproven, it is a way onward, whatever the mode; and an MTA would find that nobody lives there, and bounce it.
            return refuse(verdict, reason.map_or(SRS_TAKES_BOUNCES, refusal_of));
        }
        self.act(asked, verdict, recipient.clone(), reason, SRS_TAKES_BOUNCES)
    }

    fn tagged_recipient(
        &self,
        mut asked: Asked<'_>,
        sender: &ReversePath,
        recipient: &Address,
        bare: Address,
    ) -> Inbound {
        let daemon = sender.address().is_some_and(|sender| self.is_daemon(sender));
        let hides_srs = self.policy.domains.srs.contains(bare.domain()) && srs::looks_tagged(&bare.content());
        // Where the answer to anything depends on the tag, it is an answer to a guess.
        let tells = *sender == ReversePath::Null || daemon || hides_srs || routes_onward(&bare) || asked.at_mta;
        let always = hides_srs || routes_onward(&bare);
        if tells && self.is_guessing(&mut asked, always) {
            return refuse(Verdict::Untagged, GUESSING);
        }
        let verdict = batv::verify(self.ring.keys(), &self.policy.batv, self.now.day(), recipient);
        if let Verdict::Valid(found) = &verdict {
            let to = found.address().clone();
            return if *sender == ReversePath::Null {
                self.valid(asked, verdict, recipient, to, Route::NextHop)
            } else {
                deliver(verdict, to, Route::NextHop, None, Judge::No, "valid")
            };
        }
        if tells && matches!(verdict, Verdict::Forged(_)) {
            self.guessed(&mut asked, chance::of_batv(self.ring.keys(), recipient));
        }
        if routes_onward(&bare) || hides_srs {
            // Behind a tag that is not ours stands no user of ours, but a way onward or round the rules for SRS.
            return refuse(verdict, refusal_of(Reason::Forged));
        }
        if asked.at_mta && *sender != ReversePath::Null && !self.was_made_here(&verdict) {
            return if matches!(verdict, Verdict::UnknownKey(_)) {
                refuse(verdict, UNKNOWN_KEY)
            } else {
                refuse(verdict, NO_SUCH_TAG)
            };
        }
        if *sender != ReversePath::Null {
            // Somebody answered the envelope address. It leads to our own user anyway.
            let judge = if daemon { Judge::Daemon } else { Judge::No };
            return deliver(verdict, bare, Route::NextHop, None, judge, "not-a-bounce");
        }
        let reason = match &verdict {
            Verdict::Expired(_) => Some(Reason::Expired),
            Verdict::Future(_) => Some(Reason::Future),
            Verdict::UnknownKey(_) => None,
            Verdict::Valid(_) | Verdict::Forged(_) | Verdict::Malformed(_) | Verdict::Untagged => Some(Reason::Forged),
        };
        self.act(&asked, verdict, bare, reason, UNKNOWN_KEY)
    }

    fn is_daemon(&self, sender: &Address) -> bool {
        let inbound = &self.policy.inbound;
        inbound.daemon_senders.contains(sender) && !inbound.exempt_senders.contains(sender)
    }

    /// A tag that holds, for a bounce: one of how many?
    fn valid(&self, asked: Asked<'_>, verdict: Verdict, tagged: &Address, to: Address, route: Route) -> Inbound {
        let today = self.now.day();
        let read = verdict.tagged();
        let from = read.and_then(|t| t.signed_on).unwrap_or(today);
        let until = read.and_then(|t| t.expires).unwrap_or(today);
        let tag = asked.memory.replay.id(tagged, from, until);
        if self.policy.inbound.replay_limit && asked.memory.replay.is_used_up(tag) {
            if !asked.lenient {
                return refuse(verdict, REPLAYED);
            }
            let mark = Mark { verdict: verdict.name(), would: "defer", reason: REPLAYED.reason, observed: true };
            return deliver(verdict, to, route, Some(mark), Judge::No, REPLAYED.reason).counted(tag);
        }
        deliver(verdict, to, route, None, Judge::No, "valid").counted(tag)
    }

    /// Does what the config says about a reason; without one, what `otherwise` says. `to` is where it goes if it goes.
    fn act(
        &self,
        asked: &Asked<'_>,
        verdict: Verdict,
        to: Address,
        reason: Option<Reason>,
        otherwise: Refusal,
    ) -> Inbound {
        let inbound = &self.policy.inbound;
        let refusal = reason.map_or(otherwise, refusal_of);
        let action = match reason {
            Some(reason) => inbound.actions.of(reason),
            None if refusal.is_temporary() => Action::Defer,
            None => Action::Reject,
        };
        let observed = asked.lenient && action != Action::Mark;
        let would = if action == Action::Mark && !asked.lenient { Action::Reject } else { action };
        let mark = Mark { verdict: verdict.name(), would: would.name(), reason: refusal.reason, observed };
        let word = refusal.reason;
        let marked = |verdict, to| deliver(verdict, to, Route::NextHop, Some(mark), Judge::No, word);
        match action {
            _ if asked.lenient => marked(verdict, to),
            Action::Mark => marked(verdict, to),
            Action::Reject => refuse(verdict, refusal),
            Action::Defer => refuse(verdict, if refusal.is_temporary() { refusal } else { refusal.later() }),
            Action::Discard => deliver(verdict, to, Route::NextHop, None, Judge::Discard, word),
            Action::Quarantine => match &inbound.quarantine_to {
                Some(quarantine) => marked(verdict, quarantine.clone()),
                None => marked(verdict, to),
            },
        }
    }

    fn plain_recipient(&self, asked: Asked<'_>, sender: &ReversePath, recipient: &Address) -> Inbound {
        let inbound = &self.policy.inbound;
        let judge = match sender {
            ReversePath::Null => Judge::Null,
            ReversePath::Mailbox(address) if self.is_daemon(address) => Judge::Daemon,
            ReversePath::Mailbox(_) => return untouched(recipient, "not-a-bounce"),
        };
        if inbound.exempt_recipients.contains(recipient) {
            return untouched(recipient, "exempt-recipient");
        }
        let judge = match self.leaves_unsigned(recipient) {
            None => judge,
            // Genuine bounces come without a tag. Anybody can write an address that is too long to be signed, so those
            // are not waved through unseen.
            Some("overflow") => Judge::Overflow,
            Some(_) => return untouched(recipient, "leaves-unsigned"),
        };
        let at_once = judge == Judge::Null && self.refuses_at_once(asked.memory, recipient);
        if at_once && asked.lenient {
            let action = inbound.actions.of(Reason::UntaggedNdr);
            let reason = Reason::UntaggedNdr.name();
            let mark = Mark { verdict: "untagged", would: action.name(), reason, observed: true };
            return deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, Some(mark), Judge::No, mark.reason);
        }
        if at_once {
            let refusal = refusal_of(Reason::UntaggedNdr);
            let defer = inbound.actions.of(Reason::UntaggedNdr) == Action::Defer;
            let refused = refuse(Verdict::Untagged, if defer { refusal.later() } else { refusal });
            let reason = if inbound.reject_at == RejectAt::Auto { "surge" } else { refused.reason };
            return Inbound { reason, ..refused };
        }
        deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, None, judge, "candidate")
    }

    /// Whether null-sender mail to an address without a tag is refused unseen. What is not to be refused has to be seen.
    fn refuses_at_once(&self, memory: &mut Memory, recipient: &Address) -> bool {
        let inbound = &self.policy.inbound;
        let refused = matches!(inbound.actions.of(Reason::UntaggedNdr), Action::Reject | Action::Defer);
        match inbound.reject_at {
            RejectAt::Data => false,
            RejectAt::Rcpt => refused,
            RejectAt::Auto => {
                let domain = self.policy.domains.local_entry(recipient.domain());
                domain.is_some_and(|domain| memory.surges.count(&domain, self.now)) && refused
            }
        }
    }

    /// Whether a client has used up its guesses: no question about a tag is answered, lest it be the lucky one.
    /// Observed mail is not limited, unless `always`: where the answer depends on the tag whatever the mode.
    fn is_guessing(&self, asked: &mut Asked<'_>, always: bool) -> bool {
        let inbound = &self.policy.inbound;
        let Some(client) = asked.client.filter(|_| always || !asked.lenient) else { return false };
        let limited = !inbound.trusted_relays.contains(client)
            && !inbound.exempt_clients.contains(client)
            && inbound.guesses_per_minute > 0
            && asked.memory.guesses.is_limited(network(client), inbound.guesses_per_minute, self.now);
        if limited {
            asked.memory.guesses.turned_away();
        }
        limited
    }

    fn guessed(&self, asked: &mut Asked<'_>, chance: f64) {
        let inbound = &self.policy.inbound;
        let stranger = asked.client.filter(|client| !inbound.trusted_relays.contains(*client));
        asked.memory.guesses.bad(stranger.map(network), inbound.guesses_per_minute, chance, self.now);
    }
}

/// Whether a local part asks to be sent on elsewhere (`user%host@ours`, `host!user@ours`, `"user@host"@ours`). An MTA that
/// trusts this proxy would do so for anybody.
fn routes_onward(recipient: &Address) -> bool {
    recipient.content().contains(['%', '!', '@'])
}

fn deliver(
    verdict: Verdict,
    to: Address,
    route: Route,
    mark: Option<Mark>,
    judge: Judge,
    reason: &'static str,
) -> Inbound {
    Inbound { verdict, action: InboundAction::Deliver { to, route, mark, judge }, reason, tag: None }
}

impl Inbound {
    fn counted(self, tag: TagId) -> Self {
        Self { tag: Some(tag), ..self }
    }
}

fn untouched(recipient: &Address, reason: &'static str) -> Inbound {
    deliver(Verdict::Untagged, recipient.clone(), Route::NextHop, None, Judge::No, reason)
}

fn refuse(verdict: Verdict, refusal: Refusal) -> Inbound {
    Inbound { verdict, reason: refusal.reason, action: InboundAction::Refuse(refusal), tag: None }
}
