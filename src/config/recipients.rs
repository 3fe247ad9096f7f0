//! Where recipients are looked up: `inbound.recipients`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::choices::LocatedError;
use super::words::{Endpoint, Name};
use crate::envelope::match_lists::{DomainSet, most_specific_first};
use crate::envelope::site_policy::{RecipientSource, RecipientSources, SiteDomains};

/// The setting as typed.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"next_hop\", \"ask:HOST:PORT\" or \"file:PATH\", or a table from domains to these"
)]
pub(super) enum RawRecipients {
    One(String),
    Table(BTreeMap<Name, String>),
}

/// A server that is asked about recipients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecipientServer {
    /// Its address.
    pub endpoint: Endpoint,
    /// Whether it speaks LMTP (RFC 2033) instead of SMTP.
    pub lmtp: bool,
}

/// The servers and files in which recipients are looked up, by the numbers in [`RecipientSources`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipientLookups {
    /// The servers.
    pub servers: Vec<RecipientServer>,
    /// The files.
    pub files: Vec<PathBuf>,
}

impl RecipientLookups {
    /// Reads the setting. Domains that a table does not name are left to the next hop.
    pub(super) fn of(
        raw: Option<Spanned<RawRecipients>>,
        domains: &SiteDomains,
        folder: &Path,
    ) -> Result<(Self, RecipientSources), LocatedError> {
        let Some(raw) = raw else { return Ok(Default::default()) };
        let at = Some(raw.span().start);
        let mut lookups = Self::default();
        let sources = match raw.into_inner() {
            RawRecipients::One(word) => lookups.source(&word, folder).map(|it| RecipientSources::new(it, Vec::new())),
            RawRecipients::Table(table) => lookups.by_domain(table, domains, folder),
        };
        match sources {
            Ok(sources) => Ok((lookups, sources)),
            Err(error) => Err((at, format!("inbound.recipients: {error}"))),
        }
    }

    fn by_domain(
        &mut self,
        table: BTreeMap<Name, String>,
        domains: &SiteDomains,
        folder: &Path,
    ) -> Result<RecipientSources, String> {
        let mut table: Vec<(String, String)> = table.into_iter().map(|(Name(name), word)| (name, word)).collect();
        most_specific_first(&mut table);
        let mut by_domain = Vec::new();
        for (name, word) in table {
            let entry = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&name).to_lowercase();
            let is_ours = domains.is_local(&name)
                || domains.relay.contains(&name)
                || [&domains.local, &domains.relay].iter().any(|set| set.names().contains(&entry));
            // A name that is misspelt would leave its domain open.
            if !is_ours {
                return Err(format!("{name} is neither in domains.local nor in domains.relay"));
            }
            by_domain.push((DomainSet::from_iter([&name]), self.source(&word, folder)?));
        }
        Ok(RecipientSources::new(RecipientSource::NextHop, by_domain))
    }

    /// The source in these words. Each server and file has one number.
    fn source(&mut self, word: &str, folder: &Path) -> Result<RecipientSource, String> {
        if word == "next_hop" {
            return Ok(RecipientSource::NextHop);
        }
        if let Some(path) = word.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(RecipientSource::File(number(&mut self.files, folder.join(path))));
        }
        if let Some(server) = word.strip_prefix("ask:") {
            let (endpoint, lmtp) = server.strip_prefix("lmtp:").map_or((server, false), |server| (server, true));
            let endpoint: Endpoint = endpoint.parse()?;
            if matches!(endpoint, Endpoint::Systemd(_)) {
                return Err(format!("`{word}` is a socket to listen on"));
            }
            return Ok(RecipientSource::Server(number(&mut self.servers, RecipientServer { endpoint, lmtp })));
        }
        let known = "\"next_hop\", \"ask:HOST:PORT\", \"ask:lmtp:HOST:PORT\", \"ask:lmtp:unix:/PATH\" or \"file:PATH\"";
        Err(format!("`{word}` is not {known}"))
    }
}

fn number<T: PartialEq>(list: &mut Vec<T>, wanted: T) -> usize {
    list.iter().position(|it| *it == wanted).unwrap_or_else(|| {
        list.push(wanted);
        list.len() - 1
    })
}
