//! Logs: plain or compressed files, standard input, the journal. Each is read in one pass, and memory does not grow with
//! its size.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, bail};

use super::journal;
use super::reader::Reader;
use crate::mail_log::line::{Lines, Read as LineRead};
use crate::mail_log::stamp::{Stamps, Wall};

const BUFFER: usize = 256 << 10;
/// Octets at the beginning of a log that are searched for its first time.
const HEAD: u64 = 64 << 10;
/// Where mail servers write their logs.
const USUAL: [&str; 6] = [
    "/var/log/mail.log",
    "/var/log/maillog",
    "/var/log/mail",
    "/var/log/exim4/mainlog",
    "/var/log/exim/mainlog",
    "/var/log/exim/main.log",
];

/// A log.
#[derive(Debug)]
pub(super) enum Log {
    Stdin,
    File(PathBuf),
    /// What `journalctl` prints, since a moment in UTC, in seconds.
    Journal(Option<i64>),
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
            Self::Journal(_) => f.write_str("the journal"),
        }
    }
}

/// The usual logs of this machine, and those that logrotate has left beside them.
pub(super) fn usual() -> Vec<PathBuf> {
    let Some(log) = USUAL.iter().map(Path::new).find(|path| path.is_file()) else { return Vec::new() };
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return vec![log.to_owned()];
    };
    let entries = folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_one = |path: &PathBuf| {
        let rest = path.file_name().and_then(|it| it.to_str()).and_then(|it| it.strip_prefix(name));
        // `mail.log.1`, `mail.log-20261122.gz`; and not `mail.info` beside `mail`.
        let is_rotated = |rest: &str| {
            rest.starts_with(['.', '-']) && rest.get(1..).is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()))
        };
        rest.is_some_and(|rest| rest.is_empty() || is_rotated(rest))
    };
    entries.filter(is_one).collect()
}

/// How far local time is ahead of UTC at a moment, in seconds.
pub(super) fn offset(seconds: i64) -> i64 {
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    i64::from(jiff::tz::TimeZone::system().to_offset(at).seconds())
}

/// The local time at a moment.
pub(super) fn wall(seconds: i64) -> Wall {
    Wall(seconds.saturating_add(offset(seconds)))
}

/// Where the reading of a log is: octets of the file.
pub(super) type Position = Rc<Cell<u64>>;

impl Log {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stdin | Self::Journal(_) => None,
        }
    }

    /// The size in octets, as far as it is known.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File(path) => path.metadata().map_or(0, |metadata| metadata.len()),
            Self::Stdin | Self::Journal(_) => 0,
        }
    }

    /// The time of the first line that has one, by which logs are put in order. `None`: it is read last.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn begin(&self) -> Result<Option<Wall>> {
        // What is read of a pipe cannot be read again.
        let Some(path) = self.path().filter(|path| !path.exists() || path.is_file()) else { return Ok(None) };
        let mut lines = Lines::new(Stamps::new(offset, self.latest()));
        let mut first = None;
        let mut input = open(path, &Position::default())?;
        if is_export(&mut *input)? {
            return Ok(journal::first(&mut *input)?.map(wall));
        }
        let mut head = Vec::new();
        input.take(HEAD).read_to_end(&mut head)?;
        for line in lines_of(&head) {
            if let LineRead::Of(_, at) | LineRead::Foreign(at) = lines.read(line, &mut |_| {}) {
                first = first.or(Some(at));
            }
        }
        Ok(first)
    }

    /// No line of the log is later.
    fn latest(&self) -> Wall {
        let changed = match self {
            Self::File(path) => path.metadata().and_then(|metadata| metadata.modified()).ok(),
            Self::Stdin | Self::Journal(_) => None,
        };
        let since = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
        wall(since.and_then(|it| i64::try_from(it).ok()).unwrap_or_else(|| crate::cli::common_args::now().0))
    }

    /// Reads all lines.
    ///
    /// # Errors
    /// The log cannot be read, or not to its end.
    pub(super) fn read(&self, position: &Position, reader: &mut dyn Reader) -> Result<()> {
        let mut lines = Lines::new(Stamps::new(offset, self.latest()));
        match self {
            Self::Stdin => read(&mut BufReader::with_capacity(BUFFER, io::stdin().lock()), &mut lines, reader),
            Self::File(path) => read(&mut *open(path, position)?, &mut lines, reader),
            Self::Journal(since) => {
                let mut child = journalctl(*since)?;
                let output = child.stdout.take().context("journalctl has no output")?;
                let result = read(&mut BufReader::with_capacity(BUFFER, output), &mut lines, reader);
                if !child.wait()?.success() {
                    bail!("journalctl has failed");
                }
                result
            }
        }
    }
}

/// Octets that are read at a time. A line that is longer is cut.
const BATCH: usize = 4 << 20;

fn read(input: &mut dyn BufRead, lines: &mut Lines, reader: &mut dyn Reader) -> Result<()> {
    if is_export(input)? {
        return journal::read(input, lines, reader);
    }
    let (mut batch, mut next) = (Batch::new(), Batch::new());
    let mut result = batch.fill(input);
    while batch.length > 0 {
        let is_last = batch.length < BATCH || result.is_err();
        let (text, begun) = batch.lines(is_last);
        next.begin(begun);
        reader.batch(text, lines, &mut || {
            if !is_last {
                result = next.fill(input);
            }
        });
        std::mem::swap(&mut batch, &mut next);
    }
    // What was read before an error has counted.
    Ok(result?)
}

/// A part of a log.
struct Batch {
    octets: Vec<u8>,
    length: usize,
}

impl Batch {
    fn new() -> Self {
        Self { octets: vec![0; BATCH], length: 0 }
    }

    /// Begins with what is left of the batch before.
    fn begin(&mut self, begun: &[u8]) {
        self.length = begun.len();
        self.octets.iter_mut().zip(begun).for_each(|(to, from)| *to = *from);
    }

    /// Reads until it is full, or the input is at its end.
    fn fill(&mut self, input: &mut dyn BufRead) -> io::Result<()> {
        while let Some(room @ [_, ..]) = self.octets.get_mut(self.length..) {
            match input.read(room) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Its whole lines, and the beginning of another one.
    fn lines(&self, is_last: bool) -> (&[u8], &[u8]) {
        let text = self.octets.get(..self.length).unwrap_or_default();
        let end = memchr::memrchr(b'\n', text).filter(|_| !is_last).map_or(text.len(), |at| at + 1);
        text.split_at_checked(end).unwrap_or((text, b""))
    }
}

/// The lines of a text, without their ends.
pub(super) fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let is_empty = text.is_empty();
    let mut rest = Some(text).filter(|_| !is_empty);
    std::iter::from_fn(move || {
        let text = rest?;
        let (line, behind) = match memchr::memchr(b'\n', text) {
            Some(at) => (text.get(..at)?, text.get(at + 1..)),
            None => (text, None),
        };
        rest = behind;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

/// Whether an input is what `journalctl -o export` prints.
fn is_export(input: &mut dyn BufRead) -> io::Result<bool> {
    let start = input.fill_buf()?;
    Ok(start.starts_with(b"__CURSOR=") || start.starts_with(b"__REALTIME_TIMESTAMP="))
}

/// Counts the octets that are read of a file.
struct Counted(File, Position);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get().saturating_add(read as u64));
        Ok(read)
    }
}

/// A file, decompressed if its first octets say that it is compressed.
fn open(path: &Path, position: &Position) -> Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        bail!("it is a folder; name the files, for example {}/*", path.display());
    }
    let mut input = BufReader::with_capacity(BUFFER, Counted(file, Rc::clone(position)));
    let start = input.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(input))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(input).map_err(io::Error::other)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Box::new(BufReader::with_capacity(BUFFER, lzma_rust2::XzReader::new(input, true)))
        }
        [b'B', b'Z', b'h', ..] => bail!("bzip2 is not supported: bzcat it into this program"),
        _ => Box::new(input),
    })
}

fn journalctl(since: Option<i64>) -> Result<Child> {
    let mut command = Command::new("journalctl");
    command.args(["-o", "export", "--no-pager", "-q"]);
    command.arg("--output-fields=__REALTIME_TIMESTAMP,_HOSTNAME,SYSLOG_IDENTIFIER,MESSAGE");
    if let Some(since) = since {
        command.arg(format!("--since=@{since}"));
    }
    // The facility `mail`, and this program, which writes to standard error.
    command.args(["SYSLOG_FACILITY=2", "+", "SYSLOG_IDENTIFIER=countersign"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("journalctl cannot be run; is this machine without systemd? Then name the log files")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it is given.
    #[derive(Default)]
    struct Kept(Vec<String>, usize);

    impl Reader for Kept {
        fn batch(&mut self, text: &[u8], _: &mut Lines, meanwhile: &mut dyn FnMut()) {
            meanwhile();
            self.0.extend(lines_of(text).map(|line| String::from_utf8_lossy(line).into_owned()));
            self.1 += 1;
        }

        fn entry(&mut self, _: i64, _: &[u8], _: &[u8], _: &[u8], _: &mut Lines) {}
    }

    fn kept(input: &[u8]) -> Kept {
        let (mut kept, mut lines) = (Kept::default(), Lines::new(Stamps::new(|_| 0, Wall(0))));
        read(&mut BufReader::with_capacity(100, input), &mut lines, &mut kept).unwrap();
        kept
    }

    #[test]
    fn lines_end_anywhere() {
        assert_eq!(kept(b"one\r\ntwo\n\nthree and more\nfour").0, ["one", "two", "", "three and more", "four"]);
        assert_eq!(kept(b"one\n").0, ["one"]);
        assert!(kept(b"").0.is_empty());
        // More than a batch.
        let many: Vec<String> = (0..1_000_000).map(|n| format!("line {n}")).collect();
        let found = kept(many.join("\n").as_bytes());
        assert!(found.1 > 2 && found.0 == many);
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let long = vec![b'x'; 2 * BATCH + 10];
        assert_eq!(kept(&long).0.iter().map(String::len).collect::<Vec<_>>(), [BATCH, BATCH, 10]);
    }
}
