//! How far a probe is.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line on the terminal.
#[derive(Default)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows how many of the steps are made.
    pub(super) fn show(&mut self, done: usize, all: usize) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = "{bar:30} step {pos} of {len}, {elapsed} {msg}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(all as u64).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        bar.set_message("");
        bar.set_position(done as u64);
        if done == all {
            bar.finish_and_clear();
        }
    }

    /// Shows what is waited for.
    pub(super) fn waits_for(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("waiting for {what}"));
        }
    }
}
