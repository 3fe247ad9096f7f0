//! Guesses of tags: who is charged for a bad tag, and whose tags are not verified any more.

use core::net::IpAddr;

use super::query::RcptQuery;
use crate::envelope::abuse::{GuessAccount, network, site_network};
use crate::envelope::address::Address;
use crate::envelope::rules::{Caller, Rules};

impl Rules<'_> {
    /// Whether a client has reached its limit of guesses about this recipient, so that tags are not verified. Observed
    /// mail is not limited, unless `always` is set because the answer depends on the tag in every mode. `ordinary`: the
    /// sender is an ordinary one, for which only an MTA's answer depends on the tag.
    pub(super) fn is_guess_limited(
        &self,
        asked: &mut RcptQuery<'_>,
        always: bool,
        ordinary: bool,
        bare: &Address,
    ) -> bool {
        let per_minute = self.policy.inbound.guesses_per_minute;
        if per_minute == 0 || (asked.lenient && !always && asked.caller != Caller::Map) {
            return false;
        }
        let guesses = &mut asked.memory.guesses;
        let limited = guess_accounts(self, asked.caller, asked.client, ordinary, guesses.recipient(bare))
            .into_iter()
            .flatten()
            .any(|guesser| guesses.is_limited(guesser, per_minute, self.now));
        if limited {
            guesses.count_limited();
        }
        limited
    }

    /// Counts a bad tag. If guesses are not limited here, no account is charged, so that other bounces of the network
    /// are not affected.
    pub(super) fn count_guess(
        &self,
        asked: &mut RcptQuery<'_>,
        always: bool,
        ordinary: bool,
        bare: &Address,
        chance: f64,
    ) {
        let guesses = &mut asked.memory.guesses;
        let is_free = asked.lenient && !always && asked.caller != Caller::Map;
        let guess_accounts = if is_free {
            [None; 4]
        } else {
            guess_accounts(self, asked.caller, asked.client, ordinary, guesses.recipient(bare))
        };
        let per_minute = self.policy.inbound.guesses_per_minute;
        guesses.bad(guess_accounts.into_iter().flatten(), per_minute, chance, self.now);
    }
}

/// The accounts to which a guess is charged. A network has a small account for each recipient, so that guesses at one
/// recipient do not affect bounces to others, and a large one for all recipients. An IPv6 site has the same accounts
/// for all of its networks together. Mail with ordinary senders has accounts of its own.
fn guess_accounts(
    rules: &Rules<'_>,
    caller: Caller,
    client: Option<IpAddr>,
    ordinary: bool,
    recipient: u64,
) -> [Option<GuessAccount>; 4] {
    let inbound = &rules.policy.inbound;
    match client {
        // The caller of a map can invent the client's address, so the account of all maps is charged, too.
        Some(client) if caller == Caller::Map => {
            let site = site_network(client).map(|site| GuessAccount::Recipient(site, recipient));
            let network = network(client);
            [
                Some(GuessAccount::Recipient(network, recipient)),
                Some(GuessAccount::Network(network)),
                site,
                Some(GuessAccount::Map),
            ]
        }
        Some(client) if inbound.trusted_relays.contains(client) || inbound.exempt_clients.contains(client) => [None; 4],
        Some(client) if ordinary => [
            Some(GuessAccount::Ordinary(network(client))),
            site_network(client).map(GuessAccount::Ordinary),
            None,
            None,
        ],
        Some(client) => {
            let (network, site) = (network(client), site_network(client));
            [
                Some(GuessAccount::Recipient(network, recipient)),
                Some(GuessAccount::Network(network)),
                site.map(|site| GuessAccount::Recipient(site, recipient)),
                site.map(GuessAccount::Network),
            ]
        }
        // The map does not name the client.
        None if caller == Caller::Map => {
            [Some(GuessAccount::MapRecipient(recipient)), Some(GuessAccount::Map), None, None]
        }
        None => [None; 4],
    }
}
