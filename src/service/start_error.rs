//! Errors of listeners, at the start and when the config is reloaded.

use std::fmt;
use std::io;

use crate::config::Endpoint;

/// Why the daemon does not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot be bound.
    Bind {
        /// The address or socket that could not be opened.
        listen: Endpoint,
        /// The error of the operating system.
        error: io::Error,
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

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listen, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {listen}: {error}; where this daemon's own listener has the port, the new address needs a restart"
            ),
            Self::Bind { listen, error } => write!(f, "cannot listen on {listen}: {error}"),
            Self::Tls { listen, error } => write!(f, "TLS of the listener {listen}: {error}"),
            Self::Recipients(error) => write!(f, "inbound.recipients: {error}"),
            Self::NoListener => f.write_str("the config has no [[listener]]; there is nothing to do"),
            Self::Stopping => f.write_str("the daemon stops"),
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
