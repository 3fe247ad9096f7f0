//! What a mail server's own configuration says about the site.

use std::net::TcpListener;

use ipnet::IpNet;
use nix::unistd::{Group, User};

/// The group of a user.
pub(super) fn group_of(user: &str) -> Option<String> {
    let user = User::from_name(user).ok().flatten()?;
    Some(Group::from_gid(user.gid).ok().flatten()?.name)
}

/// The facts that a config is written from.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Domains with mailboxes or aliases here, each with the setting that names it.
    pub local: Vec<(String, String)>,
    /// Domains whose mail goes on to other servers.
    pub relay: Vec<String>,
    /// Settings that name domains in tables which cannot be listed.
    pub unlisted: Vec<String>,
    /// Networks whose mail is the site's own.
    pub networks: Vec<IpNet>,
    /// Entries of the list of networks that are no networks, such as tables.
    pub other_networks: Vec<String>,
    /// For how many days mail is kept in the queue.
    pub queue_days: u16,
    /// Ports that the mail server has itself.
    pub ports: Vec<u16>,
}

impl Server {
    /// Adds a local domain, unless it is only this machine's name for itself or known already.
    pub(super) fn add_local(&mut self, name: &str, source: &str) {
        let name = name.to_ascii_lowercase();
        let is_domain = !name.starts_with("localhost") && !name.starts_with('[') && name.contains('.');
        if is_domain && !self.local.iter().any(|(known, _)| *known == name) {
            self.local.push((name, source.to_owned()));
        }
    }

    /// The first port from `first` on that nobody has.
    pub(super) fn free_port(&self, first: u16) -> u16 {
        let is_free = |port: &u16| !self.ports.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
        (first..first.saturating_add(100)).find(is_free).unwrap_or(first)
    }
}
