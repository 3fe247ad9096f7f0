//! Writes a made-up log of a Postfix, of which `tests/report.rs` knows what is in it, for `scripts/report-speed`.
//!
//!     cargo run --release --example mail_log -- FILE MEBIBYTES

#[path = "../tests/common/mail_log.rs"]
mod mail_log;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::{Duration, UNIX_EPOCH};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(size)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mail_log FILE MEBIBYTES".into());
    };
    // A message has 760 octets of lines.
    let hours = u64::try_from(mail_log::DAYS * 24)?;
    let an_hour = size.parse::<u64>()? * (1 << 20) / 760 / hours;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let content = mail_log::write(&mut out, an_hour)?;
    out.flush()?;
    out.get_ref().set_modified(UNIX_EPOCH + Duration::from_secs(u64::try_from(mail_log::end())?))?;
    println!("{content:?}");
    Ok(())
}
