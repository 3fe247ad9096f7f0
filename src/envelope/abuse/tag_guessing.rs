//! Tag guessing: how many bad tags may be tried, and by which clients.
//!
//! A tag has 24 bits, so a client with unlimited tries would find a valid one; limits per minute make a valid guess
//! improbable. A limit can also be abused: a client that exhausts it blocks all others that share it. So limits are
//! shared by few clients: guesses of one network at one recipient do not affect its bounces to other recipients.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use ipnet::IpNet;

use crate::envelope::address::Address;
use crate::envelope::time::{SECONDS_PER_DAY, Timestamp};

/// Maximum number of accounts.
const MAX_GUESSERS: usize = 40_000;

/// Maximum number of accounts whose last alarm is remembered.
const MAX_ALARMS: usize = 1000;
/// Seconds before an alarm for the same account is repeated.
const QUIET: i64 = 600;
/// The steps of the forgery budget at which an alarm is raised (probabilities, 0 to 1).
const BUDGET: [f64; 3] = [0.001, 0.01, 0.1];

/// Seconds after which guesses count as those of an earlier period. What was guessed before that has expired.
const PERIOD: i64 = 30 * SECONDS_PER_DAY;

/// The limit of an IPv6 site (/48), as a multiple of that of one of its 256 networks (/56).
const SITE_FACTOR: u32 = 4;

/// The account that a bad tag is charged to. An IPv6 client has accounts for its /56 and for its /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuessAccount {
    /// Guesses of a client network at one recipient; see [`Guesses::recipient`].
    Recipient(IpNet, u64),
    /// Guesses of a client network at all recipients.
    Network(IpNet),
    /// Guesses of a client network in mail with an ordinary sender, for which only an MTA's answer depends on the tag.
    Ordinary(IpNet),
    /// Guesses through a map at one recipient. The map does not see the client.
    MapRecipient(u64),
    /// Guesses through all maps at all recipients.
    Map,
}

impl GuessAccount {
    /// The account's limit, as a multiple of the limit for one network at one recipient.
    fn share(self) -> u32 {
        let share = match self {
            Self::Recipient(..) | Self::Ordinary(_) => 1,
            Self::Network(_) | Self::MapRecipient(_) => 10,
            Self::Map => 1000,
        };
        let is_site = self.network().is_some_and(|network| network.prefix_len() == 48);
        share * if is_site { SITE_FACTOR } else { 1 }
    }

    /// The client network; `None` for maps.
    #[must_use]
    pub fn network(self) -> Option<IpNet> {
        match self {
            Self::Recipient(network, _) | Self::Network(network) | Self::Ordinary(network) => Some(network),
            Self::MapRecipient(_) | Self::Map => None,
        }
    }
}

/// Bad tags by account, and the chance that one of them was valid.
#[derive(Debug, Default)]
pub struct Guesses {
    guess_accounts: HashMap<GuessAccount, Bucket>,
    hasher: RandomState,
    /// Accounts that have reached their limit since the last call of `take_alarms`.
    alarms: Vec<GuessAccount>,
    /// When the last alarm of each account was raised.
    alarmed: HashMap<GuessAccount, Timestamp>,
    budget: ForgeryBudget,
}

/// All bad tags so far, to be kept over a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ForgeryBudget {
    /// Their number.
    pub seen: u64,
    /// Queries that were not answered because of a limit.
    pub limited: u64,
    /// The sum of the chances to be valid of those of this period.
    pub odds: f64,
    /// The same of the period before.
    pub earlier_odds: f64,
    /// The number of the period.
    pub period: i64,
    /// Number of budget steps that have been reported.
    pub said: usize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Guesses that are not forgiven yet, in sixtieths of a guess. Per second, `per_minute` sixtieths are forgiven.
    used: u64,
    at: Timestamp,
}

impl Bucket {
    fn used_now(self, per_minute: u32, now: Timestamp) -> u64 {
        let passed = u64::try_from(now.0.saturating_sub(self.at.0)).unwrap_or(0);
        self.used.saturating_sub(passed.saturating_mul(u64::from(per_minute)))
    }
}

impl Guesses {
    /// Identifies a recipient in [`GuessAccount::Recipient`]: a keyed hash of its address without a tag.
    #[must_use]
    pub fn recipient(&self, bare: &Address) -> u64 {
        self.hasher.hash_one((bare.content().to_ascii_lowercase(), bare.canonical_domain()))
    }

    /// Whether an account has reached its limit. Tags from it are not verified then, because one of them could be
    /// valid. `per_minute` is the limit of one network at one recipient.
    #[must_use]
    pub fn is_limited(&self, guesser: GuessAccount, per_minute: u32, now: Timestamp) -> bool {
        let per_minute = per_minute.saturating_mul(guesser.share());
        let used = self.guess_accounts.get(&guesser).map_or(0, |bucket| bucket.used_now(per_minute, now));
        // Counted in sixtieths of a guess.
        used > u64::from(per_minute.saturating_sub(1)).saturating_mul(60)
    }

    /// Charges a bad tag to some accounts. `chance`: the probability, 0 to 1, that a random guess would have been a
    /// valid tag.
    pub fn bad(
        &mut self,
        guess_accounts: impl IntoIterator<Item = GuessAccount>,
        per_minute: u32,
        chance: f64,
        now: Timestamp,
    ) {
        self.forget_old_guesses(now);
        self.budget.seen = self.budget.seen.saturating_add(1);
        self.budget.odds += chance;
        for guesser in guess_accounts {
            self.charge(guesser, per_minute, now);
        }
    }

    fn charge(&mut self, guesser: GuessAccount, per_minute: u32, now: Timestamp) {
        if self.guess_accounts.len() >= MAX_GUESSERS && !self.guess_accounts.contains_key(&guesser) {
            self.forget(per_minute, now);
        }
        let limited_before = self.is_limited(guesser, per_minute, now);
        let bucket = self.guess_accounts.entry(guesser).or_insert(Bucket { used: 0, at: now });
        let per_minute_here = per_minute.saturating_mul(guesser.share());
        // The excess over the limit is not kept, so that other clients that share the account wait about a second after
        // the last guess, and not hours.
        let most = u64::from(per_minute_here).saturating_mul(60);
        let used = bucket.used_now(per_minute_here, now).saturating_add(60).min(most.max(60));
        *bucket = Bucket { used, at: now };
        let fresh = !limited_before && self.is_limited(guesser, per_minute, now);
        // A network that keeps guessing reaches its limit again and again, so its alarm is repeated only after a pause.
        if fresh && per_minute > 0 && self.alarmed.insert(guesser, now).is_none_or(|at| now.0 - at.0 > QUIET) {
            self.alarms.push(guesser);
        }
        if self.alarmed.len() > MAX_ALARMS {
            self.alarmed.clear();
        }
    }

    /// Returns the accounts that have reached their limit since the last call.
    pub fn take_alarms(&mut self) -> Vec<GuessAccount> {
        std::mem::take(&mut self.alarms)
    }

    /// The largest step of the forgery budget reached since the last call: 0.001, 0.01 or 0.1.
    pub fn take_budget_alarm(&mut self) -> Option<f64> {
        let reached = BUDGET.iter().take_while(|step| self.chance_of_one() >= **step).count();
        let before = self.budget.said;
        self.budget.said = reached.max(before);
        (reached > before).then(|| BUDGET.get(reached.saturating_sub(1)).copied()).flatten()
    }

    /// Counts a query that was not answered because of a limit.
    pub fn count_limited(&mut self) {
        self.budget.limited = self.budget.limited.saturating_add(1);
    }

    /// Makes room: first drops the accounts whose guesses are all forgiven, then those with the fewest guesses.
    fn forget(&mut self, per_minute: u32, now: Timestamp) {
        let used =
            |guesser: &GuessAccount, bucket: &Bucket| bucket.used_now(per_minute.saturating_mul(guesser.share()), now);
        self.guess_accounts.retain(|guesser, bucket| used(guesser, bucket) > 0);
        if self.guess_accounts.len() < MAX_GUESSERS {
            return;
        }
        let mut all: Vec<u64> = self.guess_accounts.iter().map(|(guesser, bucket)| used(guesser, bucket)).collect();
        all.sort_unstable();
        let median = all.get(all.len() / 2).copied().unwrap_or(0);
        let mut spare = MAX_GUESSERS / 2;
        self.guess_accounts.retain(|guesser, bucket| {
            let stays = used(guesser, bucket) > median || spare == 0;
            spare -= usize::from(!stays);
            stays
        });
    }

    /// Forgets guesses of 30 to 60 days ago: tags of that time have expired.
    pub fn forget_old_guesses(&mut self, now: Timestamp) {
        let period = now.0.div_euclid(PERIOD);
        let budget = &mut self.budget;
        if period > budget.period {
            budget.earlier_odds = if period == budget.period + 1 { budget.odds } else { 0.0 };
            (budget.period, budget.odds, budget.said) = (period, 0.0, 0);
        }
    }

    /// All bad tags so far.
    #[must_use]
    pub fn budget(&self) -> ForgeryBudget {
        self.budget
    }

    /// Puts back what an earlier process has counted. Accounts of clients begin anew: what they have used is forgiven
    /// within a minute.
    pub fn restore(&mut self, budget: ForgeryBudget) {
        self.budget = budget;
    }

    /// Number of bad tags so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.budget.seen
    }

    /// Number of queries that were not answered because of a limit.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.budget.limited
    }

    /// The forgery budget: the chance, 0 to 1, that at least one of the guesses of the last 30 to 60 days was a valid
    /// tag.
    #[must_use]
    pub fn chance_of_one(&self) -> f64 {
        -(-self.budget.odds - self.budget.earlier_odds).exp_m1()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u32) -> IpNet {
        IpNet::new(core::net::Ipv4Addr::from(n << 8).into(), 24).unwrap()
    }

    fn ann(n: u32) -> GuessAccount {
        GuessAccount::Recipient(net(n), 7)
    }

    #[test]
    fn old_guesses_are_forgotten() {
        let mut guesses = Guesses::default();
        let at = |days: i64| Timestamp(1_795_392_000 + days * SECONDS_PER_DAY);
        guesses.bad([], 60, 0.5, at(0));
        let fresh = guesses.chance_of_one();
        guesses.forget_old_guesses(at(29));
        assert!((guesses.chance_of_one() - fresh).abs() < 1e-9);
        guesses.forget_old_guesses(at(60));
        assert!(guesses.chance_of_one().abs() < 1e-9 && guesses.seen() == 1);
    }

    #[test]
    fn a_network_has_so_many_guesses_a_minute_at_one_recipient() {
        let mut guesses = Guesses::default();
        let now = Timestamp(1_000_000);
        for _ in 0..60 {
            assert!(!guesses.is_limited(ann(1), 60, now));
            guesses.bad([ann(1)], 60, 0.0, now);
        }
        assert!(guesses.is_limited(ann(1), 60, now));
        assert_eq!((guesses.take_alarms(), guesses.take_alarms()), (vec![ann(1)], vec![]));
        assert!(!guesses.is_limited(ann(2), 60, now));
        assert!(!guesses.is_limited(GuessAccount::Recipient(net(1), 8), 60, now));
        // One guess is forgiven per second.
        assert!(!guesses.is_limited(ann(1), 60, Timestamp(now.0 + 1)));
        guesses.bad([ann(1)], 60, 0.0, Timestamp(now.0 + 1));
        assert!(guesses.is_limited(ann(1), 60, Timestamp(now.0 + 1)));
        // A clock that goes back forgives nothing.
        assert!(guesses.is_limited(ann(1), 60, Timestamp(now.0 - 500)));
        assert!(!guesses.is_limited(ann(1), 60, Timestamp(now.0 + 120)));
    }

    #[test]
    fn accounts_are_as_large_as_those_who_share_them_are_many() {
        for (guesser, most) in [
            (ann(1), 60),
            (GuessAccount::Ordinary(net(1)), 60),
            (GuessAccount::Network(net(1)), 600),
            (GuessAccount::MapRecipient(1), 600),
            (GuessAccount::Map, 60_000),
        ] {
            let mut guesses = Guesses::default();
            let now = Timestamp(1_000_000);
            for n in 0..most {
                assert!(!guesses.is_limited(guesser, 60, now), "{guesser:?} {n}");
                guesses.bad([guesser], 60, 0.0, now);
            }
            assert!(guesses.is_limited(guesser, 60, now), "{guesser:?}");
            assert!(!guesses.is_limited(guesser, 60, Timestamp(now.0 + 60)), "{guesser:?}");
        }
    }

    #[test]
    fn what_is_guessed_over_the_limit_costs_others_no_longer_time() {
        let (mut guesses, now) = (Guesses::default(), Timestamp(1_000_000));
        for _ in 0..100_000 {
            guesses.bad([ann(1), GuessAccount::Network(net(1))], 60, 0.0, now);
        }
        for guesser in [ann(1), GuessAccount::Network(net(1))] {
            assert!(guesses.is_limited(guesser, 60, now));
            assert!(!guesses.is_limited(guesser, 60, Timestamp(now.0 + 1)), "{guesser:?}");
        }
    }

    #[test]
    fn a_site_has_four_times_the_guesses_of_a_network() {
        let (site, network): (IpNet, IpNet) =
            ("2001:db8:7::/48".parse().unwrap(), "2001:db8:7:100::/56".parse().unwrap());
        for (guesser, most) in [
            (GuessAccount::Recipient(network, 7), 60),
            (GuessAccount::Recipient(site, 7), 240),
            (GuessAccount::Network(site), 2400),
        ] {
            let (mut guesses, now) = (Guesses::default(), Timestamp(1_000_000));
            (0..most - 1).for_each(|_| guesses.bad([guesser], 60, 0.0, now));
            assert!(!guesses.is_limited(guesser, 60, now), "{guesser:?}");
            guesses.bad([guesser], 60, 0.0, now);
            assert!(guesses.is_limited(guesser, 60, now), "{guesser:?}");
        }
    }

    #[test]
    fn recipients_are_told_apart_without_case() {
        let guesses = Guesses::default();
        let id = |text: &str| guesses.recipient(&Address::parse(text).unwrap());
        assert_eq!(id("ann@our.example"), id("Ann@OUR.example"));
        assert_ne!(id("ann@our.example"), id("ben@our.example"));
    }

    #[test]
    fn the_budget_adds_up_and_is_said_at_each_step() {
        let mut guesses = Guesses::default();
        let chance = 1.0 / f64::from(1 << 24);
        for _ in 0..1000 {
            guesses.bad([], 60, chance, Timestamp(0));
        }
        assert_eq!(guesses.seen(), 1000);
        assert!((guesses.chance_of_one() - 1000.0 * chance).abs() < 1e-8);
        assert_eq!(guesses.take_budget_alarm(), None);
        guesses.bad([], 60, 0.0011, Timestamp(0));
        assert_eq!((guesses.take_budget_alarm(), guesses.take_budget_alarm()), (Some(0.001), None));
        guesses.bad([], 60, 0.2, Timestamp(0));
        assert_eq!((guesses.take_budget_alarm(), guesses.take_budget_alarm()), (Some(0.1), None));
        guesses.bad([], 60, 1e9, Timestamp(0));
        assert!((guesses.chance_of_one() - 1.0).abs() < 1e-9);
        assert_eq!(guesses.take_budget_alarm(), None);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_kept() {
        let mut guesses = Guesses::default();
        let now = Timestamp(1_000_000);
        for _ in 0..100 {
            guesses.bad([ann(7)], 60, 0.0, now);
        }
        for n in 100..100 + u32::try_from(MAX_GUESSERS).unwrap() * 2 {
            guesses.bad([ann(n)], 60, 0.0, now);
        }
        assert!(guesses.guess_accounts.len() <= MAX_GUESSERS);
        assert!(guesses.is_limited(ann(7), 60, now));
    }
}
