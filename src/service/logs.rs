//! Log lines on standard error, as text or JSON.
//!
//! Policy: one line at `info` for each decision and each message, with fields to search by; `warn` for what an
//! administrator should know, `error` for what needs action. A log line never contains a secret or a complete valid
//! tag.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::LogFormat;

/// Starts logging with this builder, and keeps the means to change its filter. The types of builders differ.
macro_rules! begin {
    ($builder:expr) => {{
        let builder = $builder.with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = SET_FILTER.set(Box::new(move |filter| handle.reload(filter)));
        builder.try_init().map_err(|error| error.to_string())
    }};
}

/// Changes the filter of the running process.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Starts logging for the process.
///
/// # Errors
/// The level is neither a level nor a filter. The message lists the levels.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(io::stderr).with_target(false);
    match (format, is_journal()) {
        (LogFormat::Text, false) => begin!(builder.with_ansi(io::stderr().is_terminal())),
        // The journal has times of its own.
        (LogFormat::Text, true) => begin!(builder.with_ansi(false).without_time().map_event_format(Prioritised)),
        (LogFormat::Json, is_journal) => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            // The journal takes the priority off, and what is left is JSON.
            if is_journal { begin!(builder.map_event_format(Prioritised)) } else { begin!(builder) }
        }
    }
}

/// Puts another level in force.
///
/// # Errors
/// As [`start`].
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter)).map_err(|error| error.to_string())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level)
        .map_err(|error| format!("log.level `{level}`: {error}; use error, warn, info, debug or trace"))
}

/// Whether standard error is the systemd journal: the variable has its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Lines with their priority in front, as the journal takes it (sd-daemon(3)).
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The priority of syslog for a level (syslog(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
