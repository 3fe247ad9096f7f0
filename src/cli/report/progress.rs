//! How far the reading of logs is.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::sources::Position;

/// A line on the terminal with the time that is left, after a second.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    before: u64,
    position: Position,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        Self { bar: None, total, before: 0, position: Position::default(), begun: Instant::now() }
    }

    pub(super) fn begin(&mut self, position: &Position) {
        self.position = Position::clone(position);
    }

    pub(super) fn end(&mut self, position: &Position) {
        self.before += position.get();
    }

    /// Shows it. To be called often.
    pub(super) fn show(&mut self) {
        if self.begun.elapsed() < Duration::from_secs(1) || !io::stderr().is_terminal() {
            return;
        }
        let total = self.total;
        let bar = self.bar.get_or_insert_with(|| {
            let style = "{bar:30} {bytes} of {total_bytes}, {eta} left";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_elapsed(Duration::from_secs(1))
        });
        bar.set_position(self.before + self.position.get());
    }

    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
