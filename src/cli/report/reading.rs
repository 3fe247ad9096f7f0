//! What is known while logs are read.

use std::io::{self, BufWriter, Write as _};

use anyhow::Result;

use super::progress::Progress;
use super::reader::Reader;
use super::sources::{Log, Position, lines_of};
use crate::envelope::printable::is_dangerous;
use crate::mail_log::figures::Extent;
use crate::mail_log::line::{Lines, Read, Told};
use crate::mail_log::tally::{Section, Sections, Tally};

/// Less than this is read by one thread, in octets.
const SMALL: usize = 64 << 10;
/// Lines that may stand before the first one with a time.
const HEAD: usize = 1000;

/// The state of a report, from the first log to the last.
pub(super) struct Reading {
    tally: Tally,
    extent: Extent,
    /// Only what is not older than this counts, in local time.
    since: i64,
    /// The section whose lines are printed.
    explain: Option<Section>,
    out: BufWriter<io::Stdout>,
    progress: Progress,
    /// Why a line could not be printed.
    error: Option<io::Error>,
}

impl Reading {
    pub(super) fn new(domains: &[String], since: i64, explain: Option<Section>, logs: &[Log]) -> Self {
        Self {
            tally: Tally::new(domains),
            extent: Extent::default(),
            since,
            explain,
            out: BufWriter::new(io::stdout()),
            progress: Progress::new(logs.iter().map(Log::size).sum()),
            error: None,
        }
    }

    /// Reads a log.
    ///
    /// # Errors
    /// The log cannot be read, or not to its end; or a line cannot be printed.
    pub(super) fn read(&mut self, log: &Log) -> Result<()> {
        let position = Position::default();
        self.progress.begin(&position);
        let result = log.read(&position, self);
        self.progress.end(&position);
        match self.error.take() {
            Some(error) => Err(error.into()),
            None => result,
        }
    }

    /// Removes the line about the progress.
    pub(super) fn clear(&mut self) {
        self.progress.clear();
    }

    /// What was found.
    ///
    /// # Errors
    /// The last lines cannot be printed.
    pub(super) fn end(mut self) -> io::Result<(Tally, Extent)> {
        self.progress.clear();
        self.out.flush()?;
        Ok((self.tally, self.extent))
    }

    /// Reads a line, and prints it if it belongs to the section that is asked for.
    fn line(&mut self, line: &[u8], shown: &[u8], read: impl FnOnce(&mut dyn FnMut(&Told<'_>)) -> Read) {
        let mut sections = Sections::default();
        let (tally, since) = (&mut self.tally, self.since);
        let read = read(&mut |told| {
            if told.at.0 >= since {
                sections = tally.count(told);
            }
        });
        self.extent.count(&read, since);
        let is_printed = self.explain.is_some_and(|section| sections.has(section)) && self.error.is_none();
        if is_printed {
            let line = if shown.is_empty() { line } else { shown };
            // A terminal must not obey what a stranger has written.
            let line = String::from_utf8_lossy(line).replace(|c: char| is_dangerous(c) && c != '\t', "?");
            self.error = writeln!(self.out, "{line}").err();
        }
    }

    /// Reads lines with two threads: the other one reads the second part while this one counts the first.
    fn halves(&mut self, text: &[u8], lines: &mut Lines, meanwhile: &mut dyn FnMut()) {
        // This thread also reads on, and counts the events of both parts.
        let middle = text.len() * 3 / 8;
        let middle =
            text.get(middle..).and_then(|rest| memchr::memchr(b'\n', rest)).map_or(text.len(), |at| middle + at + 1);
        let (first, second) = text.split_at_checked(middle).unwrap_or((text, b""));
        // The first time in a log tells the year of those that follow.
        let _ = lines_of(first).take(HEAD).find(|line| !matches!(lines.read(line, &mut |_| {}), Read::NotUnderstood));
        let (mut ahead, since) = (lines.clone(), self.since);
        let there = std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                let (mut events, mut extent) = (Vec::new(), Extent::default());
                for line in lines_of(second) {
                    let read = ahead.read(line, &mut |told| events.push(told));
                    extent.count(&read, since);
                }
                (events, extent, ahead)
            });
            for line in lines_of(first) {
                self.line(line, b"", |tell| lines.read(line, &mut |told| tell(&told)));
            }
            meanwhile();
            there.join()
        });
        // A report that lacks lines must not be printed.
        let (events, extent, ahead) = there.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        for told in events.iter().filter(|told| told.at.0 >= since) {
            self.tally.count(told);
        }
        self.extent.add(&extent);
        *lines = ahead;
    }
}

impl Reader for Reading {
    fn batch(&mut self, text: &[u8], lines: &mut Lines, meanwhile: &mut dyn FnMut()) {
        self.extent.octets += text.len() as u64;
        if self.explain.is_some() || text.len() < SMALL {
            for line in lines_of(text) {
                self.line(line, b"", |tell| lines.read(line, &mut |told| tell(&told)));
            }
            meanwhile();
        } else {
            self.halves(text, lines, meanwhile);
        }
        self.progress.show();
    }

    fn entry(&mut self, seconds: i64, host: &[u8], identifier: &[u8], text: &[u8], lines: &mut Lines) {
        let shown = if self.explain.is_some() { [identifier, b": ", text].concat() } else { Vec::new() };
        self.extent.octets += text.len() as u64;
        self.line(text, &shown, |tell| lines.journal(seconds, host, identifier, text, &mut |told| tell(&told)));
    }
}
