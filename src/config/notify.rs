//! Who is told when something needs doing.

use super::choices::LocatedError;
use super::raw::RawNotify;
use super::words::Endpoint;
use crate::envelope::address::Address;

/// Who is told when something needs doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notify {
    /// Recipients of mail.
    pub mail_to: Vec<Address>,
    /// Its sender; `None`: postmaster of the first domain of `domains.local` by alphabet.
    pub mail_from: Option<Address>,
    /// The mail server that gets it; `None`: the next hop of the first outbound listener, or that of this machine.
    pub mail_via: Option<Endpoint>,
    /// The URL of an HTTP server that gets it as JSON.
    pub webhook: Option<String>,
}

impl Notify {
    /// Whether anybody is told.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.mail_to.is_empty() || self.webhook.is_some()
    }
}

pub(super) fn build(raw: RawNotify) -> Result<Notify, LocatedError> {
    let address = |name: &str, text: toml::Spanned<String>| {
        let at = text.span().start;
        Address::parse(text.get_ref()).map_err(|error| (Some(at), format!("notify.{name}: {error}")))
    };
    let webhook = match raw.webhook {
        Some(url) if !["https://", "http://"].iter().any(|scheme| url.get_ref().starts_with(scheme)) => {
            return Err((Some(url.span().start), "notify.webhook must be a URL with https:// or http://".into()));
        }
        url => url.map(toml::Spanned::into_inner),
    };
    Ok(Notify {
        mail_to: raw.mail_to.into_iter().map(|text| address("mail_to", text)).collect::<Result<_, _>>()?,
        mail_from: raw.mail_from.map(|text| address("mail_from", text)).transpose()?,
        mail_via: raw.mail_via,
        webhook,
    })
}
