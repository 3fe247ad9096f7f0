//! File descriptors: each proxy session needs two, so the limit is checked at the start. `drive::listener` refuses
//! connections over the limit of a listener, so that some descriptors are always left.

use std::io;

use crate::config::Config;
use crate::drive::REFUSED;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but sessions.
const OTHERS: u64 = 64;

/// Maximum number of descriptors in use. A proxy session has one for the client and one for the next hop.
fn needed(config: &Config) -> u64 {
    let sessions = config.listeners.iter().map(|listener| 2 * listener.connections as u64);
    let questions = config.mta_services.iter().map(|mta_service| mta_service.connections as u64);
    // Connections that are refused with a reply.
    let refused = REFUSED as u64 * (config.listeners.len() + config.mta_services.len()) as u64;
    sessions.chain(questions).chain([refused, OTHERS]).fold(0, u64::saturating_add)
}

/// Raises the soft limit of file descriptors to the hard limit.
///
/// # Errors
/// The hard limit is lower than the config may need, or the limit cannot be set.
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
