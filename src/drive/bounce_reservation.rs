//! Bounces on their way count before they are delivered, so that many at once are not more than one after the other.

use std::sync::Arc;

use super::app_state::AppState;
use crate::envelope::abuse::TagId;

/// A place among the bounces that a tag may get, for one that is on its way. Given back when dropped.
#[derive(Debug)]
pub(in crate::drive) struct Reservation {
    app: Arc<AppState>,
    tag: TagId,
}

impl Reservation {
    /// For a tag of which the memory has just been told that a bounce to it is on its way.
    pub(super) fn of(app: &Arc<AppState>, tag: TagId) -> Self {
        Self { app: Arc::clone(app), tag }
    }

    /// The tag that the place is reserved for.
    pub(super) fn tag(&self) -> TagId {
        self.tag
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.app.memory().replay.release(self.tag);
    }
}
