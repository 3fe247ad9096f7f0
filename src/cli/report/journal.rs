//! Entries of the journal of systemd, as `journalctl -o export` prints them.
//! <https://systemd.io/JOURNAL_EXPORT_FORMATS/>

use std::io::{self, BufRead, Read as _};

use anyhow::{Result, bail};

use super::reader::Reader;
use crate::mail_log::line::Lines;

/// The largest field that is kept, in octets; more of it is skipped.
const MAX_FIELD: u64 = 64 << 10;

/// The fields of an entry that matter.
#[derive(Debug, Default)]
struct Entry {
    seconds: Option<i64>,
    host: Vec<u8>,
    identifier: Vec<u8>,
    message: Vec<u8>,
}

impl Entry {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"__REALTIME_TIMESTAMP" => {
                let micros = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
                self.seconds = micros.map(|micros| micros / 1_000_000);
            }
            b"_HOSTNAME" => self.host = value.to_owned(),
            b"SYSLOG_IDENTIFIER" => self.identifier = value.to_owned(),
            b"MESSAGE" => self.message = value.to_owned(),
            _ => {}
        }
    }
}

/// Reads an entry. `None`: there are no more.
fn entry(input: &mut dyn BufRead) -> Result<Option<Entry>> {
    let mut entry = Entry::default();
    let mut line = Vec::new();
    let mut is_empty = true;
    loop {
        line.clear();
        if (&mut *input).take(MAX_FIELD).read_until(b'\n', &mut line)? == 0 {
            return Ok((!is_empty).then_some(entry));
        }
        if line.last() != Some(&b'\n') {
            // A field that is too long, or the end of a file that is cut.
            skip_line(input)?;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.is_empty() {
            if is_empty {
                continue;
            }
            return Ok(Some(entry));
        }
        is_empty = false;
        match memchr::memchr(b'=', text) {
            Some(at) => entry.set(text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
            // A binary field: its name, its length in eight octets, its content, and a line end.
            None => {
                let value = binary(input)?;
                entry.set(text, &value);
            }
        }
    }
}

fn binary(input: &mut dyn BufRead) -> Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut value = Vec::new();
    (&mut *input).take(length.min(MAX_FIELD)).read_to_end(&mut value)?;
    let rest = length.saturating_sub(MAX_FIELD);
    if rest > 0 && io::copy(&mut (&mut *input).take(rest), &mut io::sink())? < rest {
        bail!("the export of the journal ends within an entry");
    }
    skip_line(input)?;
    Ok(value)
}

fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    input.skip_until(b'\n').map(drop)
}

/// The time of the first entry, in seconds since 1970 in UTC.
pub(super) fn first(input: &mut dyn BufRead) -> Result<Option<i64>> {
    Ok(entry(input)?.and_then(|entry| entry.seconds))
}

/// Reads all entries.
pub(super) fn read(input: &mut dyn BufRead, lines: &mut Lines, reader: &mut dyn Reader) -> Result<()> {
    while let Some(entry) = entry(input)? {
        let Entry { seconds, host, identifier, message } = entry;
        let seconds = seconds.unwrap_or_default();
        // A message may have more than one line.
        for text in message.split(|octet| *octet == b'\n').filter(|text| !text.is_empty()) {
            reader.entry(seconds, &host, &identifier, text, lines);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_fields() {
        let mut input =
            b"__CURSOR=x\n__REALTIME_TIMESTAMP=1795795370123456\n_HOSTNAME=mx\nSYSLOG_IDENTIFIER=postfix/smtpd\n\
            MESSAGE=connect from a\n\n__REALTIME_TIMESTAMP=1795795371000000\nMESSAGE\n\x05\0\0\0\0\0\0\0a\nb=c\n\
            SYSLOG_IDENTIFIER=countersign\n"
                .to_vec();
        input.push(b'\n');
        let mut input = &input[..];
        let one = entry(&mut input).unwrap().unwrap();
        assert_eq!(
            (one.seconds, &one.message[..], &one.host[..]),
            (Some(1_795_795_370), &b"connect from a"[..], &b"mx"[..])
        );
        let two = entry(&mut input).unwrap().unwrap();
        assert_eq!((&two.message[..], &two.identifier[..]), (&b"a\nb=c"[..], &b"countersign"[..]));
        assert!(entry(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_length_that_lies_is_an_error_and_takes_no_memory() {
        let mut input = &b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\x7fabc"[..];
        assert!(entry(&mut input).is_err());
    }
}
