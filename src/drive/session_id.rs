//! Names of sessions, for the log.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of a session. It is unique over restarts: the process, by the time of its start, and a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SessionId {
    process: ProcessId,
    number: u64,
}

/// A process, by the time of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId([u8; 9]);

impl Default for ProcessId {
    fn default() -> Self {
        Self::at(0)
    }
}

impl ProcessId {
    /// The process that starts now.
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self::at(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Milliseconds since 1970, in nine digits of base 36, which is enough until the year 5188.
    fn at(mut millis: u64) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut text = [b'0'; 9];
        for digit in text.iter_mut().rev() {
            let value = usize::try_from(millis % 36).ok();
            *digit = value.and_then(|value| DIGITS.get(value)).copied().unwrap_or(b'0');
            millis /= 36;
        }
        Self(text)
    }

    /// The session with this number.
    pub(crate) fn session(self, number: u64) -> SessionId {
        SessionId { process: self, number }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first digit stays 0 for decades.
        let text = std::str::from_utf8(&self.process.0).unwrap_or_default();
        write!(f, "{}-{}", text.strip_prefix('0').unwrap_or(text), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_two_processes_differ() {
        let (first, second) = (ProcessId::at(1_795_773_958_123), ProcessId::at(1_795_773_958_124));
        assert_eq!(first.session(42).to_string(), "mwytg63v-42");
        assert_ne!(first.session(1).to_string(), second.session(1).to_string());
        assert!(first.session(1).to_string() < second.session(1).to_string());
    }
}
