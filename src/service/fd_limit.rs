//! Descriptors: each session takes two, and running out of them in the middle of the day is found out the hard way.
//! `drive::listener` refuses what is over the limit of a listener, so that there are always some left.

use std::io;

use crate::config::Config;
use crate::drive::REFUSED;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is no session.
const OTHERS: u64 = 64;

/// How many descriptors the sessions of all listeners may take. A session of a proxy has its client and its next hop.
fn needed(config: &Config) -> u64 {
    let sessions = config.listeners.iter().map(|listener| 2 * listener.connections as u64);
    let questions = config.advisors.iter().map(|advisor| advisor.connections as u64);
    // Those that are told that there are too many.
    let refused = REFUSED as u64 * (config.listeners.len() + config.advisors.len()) as u64;
    sessions.chain(questions).chain([refused, OTHERS]).fold(0, u64::saturating_add)
}

/// Raises the soft limit to the hard one.
///
/// # Errors
/// The hard limit is lower than what the config may need, or the system says no.
pub(crate) fn raise_descriptors(config: &Config) -> io::Result<()> {
    let needed = needed(config);
    let mut limit = getrlimit(Resource::Nofile);
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(io::Error::other(format!(
            "the listeners may need {needed} file descriptors for their connections, and only {hard} are allowed; \
             raise that (LimitNOFILE= in a unit, ulimit -Hn) or lower limits.connections"
        )));
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(io::Error::from)
}
