//! What `init --from` needs to know of a mail server.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use super::server::Server;
use super::step::Step;
use crate::config::Config;
use crate::recipes::Mta;

/// A mail server whose configuration was read.
pub(super) trait Fit {
    /// The mail server, and the method by which it uses Countersign.
    fn method(&self) -> (Mta, &'static str);

    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// What its configuration says about the site.
    fn facts(&self) -> Server;

    /// A recipe's config with the sockets and the group of this server.
    fn recipe(&self, text: &str) -> String;

    /// The group by which the mail server reaches the sockets.
    fn group(&self) -> String;

    /// The folder of the sockets, if it has to be made.
    fn socket_folder(&self) -> Option<String>;

    /// The files that are changed.
    fn files(&self) -> Vec<PathBuf>;

    /// What a config that is there already lacks for this server; `None`: nothing.
    fn lacks(&self, config: &Config) -> Option<String>;

    /// The steps in the mail server's own configuration. What is there already is left out.
    ///
    /// # Errors
    /// Something else is in the way that only a person can decide about.
    fn changes(&self, config: &Config) -> Result<Vec<Step>>;

    /// Where clients are greeted without TLS.
    fn greets_at(&self) -> Vec<SocketAddr>;

    /// The commands by which the mail server checks its configuration and, if it runs, reads it.
    fn reload(&self) -> Vec<Step>;
}
