//! What the rules cannot see, and has to be stored or found out before they are queried.

use std::future::Future;
use std::pin::Pin;

use super::harvest::PendingQuery;
use crate::envelope::rules::{RecipientFacts, StoredAlias};

/// The result of the work for a query.
#[derive(Debug)]
pub(super) enum Prepared {
    /// The alias of the sender or recipient, if the store has it.
    Alias(Option<StoredAlias>),
    /// What was found out about the recipient, and the query itself, while it is pending.
    Recipient(RecipientFacts, Option<PendingQuery>),
}

/// The work for a query.
pub(super) type Preparation = Pin<Box<dyn Future<Output = Prepared> + Send>>;
