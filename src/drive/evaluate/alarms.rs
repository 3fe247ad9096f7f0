//! Alarms from the memory of the rules.

use ipnet::IpNet;
use tracing::warn;

use crate::drive::harvest::log_harvesters;
use crate::drive::log_flip;
use crate::envelope::abuse::{GuessAccount, Memory, SurgeChange};

/// Changes in the memory of the rules that are logged as alarms.
pub(super) struct Alarms {
    flips: Vec<SurgeChange>,
    guess_accounts: Vec<GuessAccount>,
    budget: Option<f64>,
    harvesters: Vec<IpNet>,
}

impl Alarms {
    pub(super) fn of(memory: &mut Memory) -> Self {
        let (guesses, surges) = (&mut memory.guesses, &mut memory.surges);
        Self {
            flips: surges.take_flips(),
            guess_accounts: guesses.take_alarms(),
            budget: guesses.take_budget_alarm(),
            harvesters: memory.harvests.take_alarms(),
        }
    }

    pub(super) fn log(self) {
        for guesser in self.guess_accounts {
            match guesser.network() {
                Some(network) => warn!(
                    %network,
                    limit = "guesses_per_minute",
                    "client network exceeded guesses_per_minute; its bounces to these tags need evidence"
                ),
                None => warn!(
                    limit = "guesses_per_minute",
                    "the map exceeded guesses_per_minute; it answers TEMP for tags until a second after the last guess"
                ),
            }
        }
        log_harvesters(&self.harvesters);
        for flip in self.flips {
            log_flip(&flip);
        }
        if let Some(chance) = self.budget {
            warn!(
                chance,
                "the forgery budget: this is the chance that one of all guessed tags was a good one; rotate the key (keys rotate), \
                 or write longer tags (batv.mac = \"long\")"
            );
        }
    }
}
