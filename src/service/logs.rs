//! Log lines on standard error, as text or JSON.
//!
//! Policy: one line at `info` for each decision and each message, with fields to search by; `warn` for what an
//! administrator should know, `error` for what needs action. A log line never contains a secret or a complete valid
//! tag.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging for the process.
///
/// # Errors
/// The level is neither a level nor a filter. The message lists the levels.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("log.level `{level}`: {error}; use error, warn, info, debug or trace"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let result = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    result.map_err(|error| error.to_string())
}
