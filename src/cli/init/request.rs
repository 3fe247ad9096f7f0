//! What `init --from` is asked for.

use std::path::Path;

/// What `init --from` is asked for.
#[derive(Clone, Copy)]
pub(super) struct Fitted<'a> {
    /// The mail server's configuration.
    pub place: &'a Path,
    pub method: Option<&'a str>,
    /// Domains that were named on the command line.
    pub domains: &'a [String],
    pub srs_domain: Option<&'a str>,
    /// The folder of the config.
    pub dir: &'a Path,
    /// As whom the daemon runs.
    pub user: &'a str,
    /// Whether the mail server is changed.
    pub apply: bool,
}
