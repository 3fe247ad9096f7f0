//! Observes all domains for a while, by command: `countersign observe`, and the button of the status page.

use tracing::{info, warn};

use super::ramp::states;
use super::ramp_words::describe;
use crate::drive::app_state::AppState;
use crate::envelope::time::Timestamp;
use crate::state::time_format::rfc3339;

/// The longest that all domains may be observed by command, in seconds: 31 days.
pub(crate) const LONGEST_PAUSE: i64 = 31 * 86_400;

/// Has all domains observed until a moment; `None`: not any more. Returns what holds now, in words.
///
/// # Errors
/// The moment is over, or too far away: in words.
pub(super) fn pause(app: &AppState, until: Option<Timestamp>) -> Result<String, String> {
    let now = app.now();
    if until.is_some_and(|until| until <= now || until.0 > now.0 + LONGEST_PAUSE) {
        return Err("the time must be in the future, and at most 31 days from now".to_owned());
    }
    app.pause_ramps(until);
    Ok(match until {
        Some(until) => {
            let until = rfc3339(until);
            warn!(until, "all domains are observed, by command: false bounces are only marked");
            format!("All domains are observed until {until}; false bounces are only marked.")
        }
        None => {
            info!("the command to observe all domains is lifted; domains are as their ramps say");
            let states = states(app).into_iter();
            let states = states.map(|(name, ramp)| format!("\n  {name}: {}", describe(&ramp, &name, true)));
            format!("The command is lifted. Each domain is now as its ramp says:{}", states.collect::<String>())
        }
    })
}
