//! Descriptors: each session takes two, and running out of them in the middle of the day is found out the hard way.

use std::io;

use crate::config::{Advice, Config};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is no session.
const OTHERS: u64 = 64;

/// Raises the soft limit to what the config may need.
///
/// # Errors
/// The hard limit is lower than that, or the system says no.
pub fn raise_descriptors(config: &Config) -> io::Result<()> {
    let connections = config.limits.connections;
    // A session has its client and its next hop; each milter counts its own connections.
    let milters = config.advisors.iter().filter(|advisor| advisor.advice == Advice::Milter).count();
    let needed = (connections as u64).saturating_mul(2 + milters as u64).saturating_add(OTHERS);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|hard| hard < needed) {
        let hard = limit.maximum.unwrap_or_default();
        return Err(io::Error::other(format!(
            "limits.connections = {connections} needs {needed} file descriptors, and only {hard} are allowed; \
             raise that (LimitNOFILE= in a unit, ulimit -Hn) or lower limits.connections"
        )));
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(io::Error::from)
}
