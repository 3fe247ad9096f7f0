//! Sources of messages: files, mbox files, Maildirs, folders, standard input. Each is read in one pass, and memory does
//! not grow with its size.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::{Findings, Scanner};

/// One classified message.
pub(super) struct ClassifiedMessage {
    pub name: String,
    pub found: Findings,
    pub sender: ReversePath,
    pub recipient: Option<Address>,
}

/// The longest part of a line that is read at a time, in octets.
const MAX_LINE: u64 = 64 << 10;
/// The largest part of a header block that is searched for sender and recipient, in octets.
const MAX_HEAD: usize = 64 << 10;
/// The deepest level of nested folders.
const MAX_DEPTH: usize = 20;

/// A file or standard input.
#[derive(Debug)]
pub(super) enum MessageSource {
    Stdin,
    File(PathBuf),
}

impl fmt::Display for MessageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// All files under the paths, in order, and the errors of paths that could not be read.
pub(super) fn find(paths: &[PathBuf]) -> (Vec<MessageSource>, Vec<anyhow::Error>) {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(MessageSource::Stdin);
        } else if let Err(error) = walk(path, 0, &mut files) {
            errors.push(anyhow::Error::from(error).context(path.display().to_string()));
        }
    }
    (files, errors)
}

fn walk(path: &Path, depth: usize, files: &mut Vec<MessageSource>) -> io::Result<()> {
    if depth > 0 && !path.is_dir() || !fs::metadata(path)?.is_dir() {
        files.push(MessageSource::File(path.to_owned()));
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Ok(());
    }
    // In a Maildir, files in tmp are incomplete, and files beside the folders are not messages.
    let is_maildir = path.join("cur").is_dir() && path.join("new").is_dir();
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A link to a folder may lead back here.
        let metadata = fs::symlink_metadata(&entry)?;
        let wanted = if is_maildir {
            metadata.is_dir() && name != "tmp"
        } else {
            // A dangling link is reported when it is read.
            let file = metadata.is_file() || (metadata.is_symlink() && !entry.is_dir());
            metadata.is_dir() || (!name.starts_with('.') && file)
        };
        if wanted {
            walk(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

impl MessageSource {
    /// Passes each message in the source to `take`.
    pub(super) fn each(&self, take: &mut impl FnMut(ClassifiedMessage) -> Result<()>) -> Result<()> {
        match self {
            Self::Stdin => read(BufReader::with_capacity(64 << 10, io::stdin().lock()), "-", true, take),
            Self::File(path) => {
                let file = BufReader::with_capacity(64 << 10, File::open(path)?);
                // A file named .eml is one message, whatever its first line.
                let may_be_mbox = path.extension().is_none_or(|extension| extension != "eml");
                read(file, &path.display().to_string(), may_be_mbox, take)
            }
        }
    }
}

fn read(
    mut input: impl BufRead,
    name: &str,
    may_be_mbox: bool,
    take: &mut impl FnMut(ClassifiedMessage) -> Result<()>,
) -> Result<()> {
    let (mut line, mut first, mut blank) = (Vec::new(), true, true);
    let (mut number, mut is_mbox) = (0u64, false);
    let mut reader = Reader::new();
    // Some old systems end lines with CR alone.
    let begin = input.fill_buf()?;
    let end = if begin.contains(&b'\r') && !begin.contains(&b'\n') { b'\r' } else { b'\n' };
    loop {
        line.clear();
        let octets = input.by_ref().take(MAX_LINE).read_until(end, &mut line)?;
        if octets == 0 {
            break;
        }
        if let Some(last) = line.last_mut().filter(|last| **last == end) {
            *last = b'\n';
        }
        if first {
            is_mbox = may_be_mbox && is_separator(&line);
        }
        if is_mbox && blank && is_separator(&line) {
            if number > 0 {
                take(std::mem::replace(&mut reader, Reader::new()).message(format!("{name}:{number}")))?;
            }
            number += 1;
            (first, blank) = (false, false);
            continue;
        }
        first = false;
        blank = line.trim_ascii().is_empty();
        reader.push(&line);
    }
    let name = if number > 1 || (number == 1 && name == "-") { format!("{name}:{number}") } else { name.to_owned() };
    take(reader.message(name))
}

/// Whether a line separates messages of an mbox (RFC 4155): `From ann@our.example Mon Nov 23 02:15:55 2026`.
fn is_separator(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From ") else { return false };
    let text = String::from_utf8_lossy(rest);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let is_time =
        |word: &&str| word.len() >= 5 && word.contains(':') && word.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let is_year = |word: &&str| word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit());
    words.len() >= 5 && words.iter().any(is_time) && words.iter().any(is_year)
}

/// Reads and classifies one message.
struct Reader {
    scanner: Scanner,
    head: Vec<u8>,
    in_head: bool,
}

impl Reader {
    fn new() -> Self {
        Self { scanner: Scanner::of_text(), head: Vec::new(), in_head: true }
    }

    fn push(&mut self, line: &[u8]) {
        if self.in_head {
            self.in_head = self.head.is_empty() || !line.trim_ascii().is_empty();
            if self.head.len() + line.len() <= MAX_HEAD {
                self.head.extend_from_slice(line);
            }
        }
        self.scanner.push(line);
    }

    fn message(mut self, name: String) -> ClassifiedMessage {
        self.scanner.finish();
        let head = String::from_utf8_lossy(&self.head);
        let header = |wanted: &str| unfolded(&head, wanted).filter(|value| !value.is_empty());
        let address = |value: String| crate::envelope::evidence::author(&value);
        let sender = header("Return-Path").and_then(address).map_or(ReversePath::Null, ReversePath::Mailbox);
        let recipient =
            ["Delivered-To", "X-Original-To", "Envelope-To", "To"].into_iter().find_map(|name| address(header(name)?));
        ClassifiedMessage { name, found: self.scanner.found(), sender, recipient }
    }
}

/// The value of the first header of this name, with folded lines joined (RFC 5322 section 2.2.3).
fn unfolded(head: &str, wanted: &str) -> Option<String> {
    let mut lines = head
        .lines()
        .skip_while(|line| !line.split_once(':').is_some_and(|(name, _)| name.trim_end().eq_ignore_ascii_case(wanted)));
    let (_, first) = lines.next()?.split_once(':')?;
    let more = lines.take_while(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
    let value = std::iter::once(first).chain(more).map(str::trim).collect::<Vec<_>>().join(" ");
    Some(value.trim().to_owned())
}
