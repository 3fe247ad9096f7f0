//! Errors of listeners, at the start and when the config is reloaded.

use std::fmt;
use std::io;

use super::port_holder;
use crate::config::Endpoint;
use crate::state::ownership::{self, Wanted, make_folder};

/// Why the daemon does not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot be bound.
    Bind {
        /// The listener, in words.
        what: &'static str,
        /// The address or socket that could not be opened.
        listen: Endpoint,
        /// The error of the operating system.
        error: io::Error,
        /// Whose fault it is, and what would be right; may be empty.
        advice: String,
    },
    /// A certificate cannot be used.
    Tls {
        /// The listener with the certificate.
        listen: Endpoint,
        /// The error, as text.
        error: String,
    },
    /// A list of recipients cannot be read, for this reason.
    Recipients(String),
    /// The config has no listener.
    NoListener,
    /// The daemon stops.
    Stopping,
    /// A thread or runtime cannot be started.
    Runtime(io::Error),
}

impl StartError {
    /// A listener that cannot be bound, with what would be right.
    pub(super) fn bind(what: &'static str, listen: &Endpoint, group: Option<&str>, error: io::Error) -> Self {
        let advice = advice(listen, group, &error);
        Self::Bind { what, listen: listen.clone(), error, advice }
    }
}

/// Ports below this one are for root, or for who has the capability.
const FIRST_OF_ALL: u16 = 1024;

/// What stands in the way, and what would be right; empty if there is nothing to say.
fn advice(listen: &Endpoint, group: Option<&str>, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match (listen, error.kind()) {
        (Endpoint::Tcp { port, .. }, AddrInUse) => {
            let holders = port_holder::of(*port);
            match holders.iter().any(|holder| holder.is_this_process) {
                true => {
                    "this daemon has the port already, by another listener; the new address needs a restart".to_owned()
                }
                false if holders.is_empty() => format!(
                    "another program has the port. Which one: ss -ltnp 'sport = :{port}'. Stop it, or give one of them another port"
                ),
                false => {
                    let names: Vec<&str> = holders.iter().map(|holder| holder.name.as_str()).collect();
                    format!("{} has the port. Stop it, or give one of them another port", names.join(" and "))
                }
            }
        }
        (Endpoint::Tcp { port, .. }, PermissionDenied) if *port < FIRST_OF_ALL => format!(
            "{} may not open ports below {FIRST_OF_ALL}. Let systemd open it: packaging/countersign.socket, and here listen = \
             \"systemd:smtp\". Or let the unit do it: AmbientCapabilities=CAP_NET_BIND_SERVICE",
            ownership::own_name()
        ),
        (Endpoint::Tcp { host, .. }, AddrNotAvailable) => {
            format!("this machine has no address {host}. ip address shows which it has")
        }
        (Endpoint::Unix(path), AddrInUse) => format!("another program answers on {}. Stop it first", path.display()),
        (Endpoint::Unix(path), NotFound) => {
            let folder = path.parent().unwrap_or(path);
            let make = make_folder(folder, &ownership::daemon_user(), group);
            format!("there is no folder {}. Make it: {make}", folder.display())
        }
        (Endpoint::Unix(path), _) => {
            let folder = path.parent().unwrap_or(path);
            ownership::refused(folder, Wanted::WriteIn, error).unwrap_or_default()
        }
        _ => String::new(),
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { what, listen, error, advice } if advice.is_empty() => {
                write!(f, "{what} cannot listen on {listen}: {error}")
            }
            Self::Bind { what, listen, advice, .. } => write!(f, "{what} cannot listen on {listen}: {advice}"),
            Self::Tls { listen, error } => write!(f, "TLS of the listener {listen}: {error}"),
            Self::Recipients(error) => write!(f, "inbound.recipients: {error}"),
            Self::NoListener => f.write_str("the config has no [[listener]]; there is nothing to do"),
            Self::Stopping => f.write_str("the daemon stops"),
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
