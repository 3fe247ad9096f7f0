//! Reservations: a bounce in progress counts before it is delivered, so that concurrent bounces do not exceed the limit
//! of a tag.

use std::sync::Arc;

use super::app_state::AppState;
use crate::envelope::abuse::TagId;

/// One of the bounces that a tag may receive, reserved for a bounce in progress. Released when dropped.
#[derive(Debug)]
pub(in crate::drive) struct Reservation {
    app: Arc<AppState>,
    tag: TagId,
}

impl Reservation {
    /// Takes over a reservation that has just been made in the memory of the rules.
    pub(super) fn of(app: &Arc<AppState>, tag: TagId) -> Self {
        Self { app: Arc::clone(app), tag }
    }

    /// The tag that the reservation is for.
    pub(super) fn tag(&self) -> TagId {
        self.tag
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.app.memory().replay.release(self.tag);
    }
}
