//! Mail logs, and what they say about backscatter: for `countersign report`. Pure: lines in, a summary out.
//!
//! `line::Lines` reads lines of Postfix, Exim, Sendmail, OpenSMTPD and Countersign into `event::Event`s, and
//! `tally::Tally` counts them, in memory that does not grow with the log. `summary::summary` makes `figures` of it, with
//! a `verdict` for each.

pub(crate) mod event;
pub(crate) mod figures;
pub(crate) mod line;
pub(crate) mod published;
pub(crate) mod stamp;
pub(crate) mod summary;
pub(crate) mod tally;
pub(crate) mod verdict;
pub(crate) mod waiting;

mod countersign;
mod exim;
mod fields;
mod judgement;
mod opensmtpd;
mod postfix;
mod sendmail;

use self::figures::Extent;
use self::line::Lines;
use self::stamp::{Stamps, Wall};
use self::tally::Tally;
use crate::envelope::time::Timestamp;

/// What a log says, as `countersign report --json` prints it. `domains`: only mail to these counts; none: all mail.
/// `latest`: no line is later, which tells the year where a line has none. Times without a zone are taken for UTC.
///
/// ```
/// use countersign::{envelope::time::Timestamp, mail_log};
///
/// let log = b"Nov 27 16:02:50 mx1 postfix/smtpd[812]: NOQUEUE: reject: RCPT from unknown[203.0.113.5]: 550 5.1.1 \
///     <x@our.example>: User unknown; from=<> to=<x@our.example> proto=ESMTP helo=<x>\n";
/// let report = mail_log::json_report(log, &[], Timestamp(1_795_824_000));
/// assert!(report.contains("\"null_sender\":1") && report.contains("\"first\":\"2026-11-27T16:02:50\""));
/// ```
#[must_use]
pub fn json_report(log: &[u8], domains: &[String], latest: Timestamp) -> String {
    let mut lines = Lines::new(Stamps::new(|_| 0, Wall(latest.0)));
    let (mut tally, mut extent) = (Tally::new(domains), Extent::default());
    extent.octets = log.len() as u64;
    for line in log.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
        let read = lines.read(line, &mut |told| {
            let _ = tally.count(&told);
        });
        extent.count(&read, i64::MIN);
    }
    serde_json::to_string(&summary::summary(tally, extent)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of lines, from which odd ones are made.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: [&str; 36] = [
            "Nov 27 16:02:50 mx1 ",
            "2026-11-27T16:02:50Z mx1 ",
            "2026-11-27 16:02:50 ",
            "<22>",
            "1 ",
            "postfix/smtpd[1]: ",
            "postfix/qmgr[1]: ",
            "postfix/bounce[1]: ",
            "postfix/smtp[1]: ",
            "exim[1]: ",
            "sm-mta[1]: ",
            "smtpd[1]: ",
            "A1B2C3: ",
            "NOQUEUE: reject: RCPT from ",
            "x[203.0.113.5]: ",
            "550 5.1.1 ",
            "; from=<",
            "> to=<",
            "client=",
            "from=<",
            "to=<a@b>",
            ", relay=",
            ", dsn=5.1.1",
            ", status=bounced ",
            "(queued as B1)",
            "removed",
            "1xWyMB-0006pn-1V ",
            "<= ",
            "** ",
            " R=",
            " H=x [",
            "] F=<> rejected RCPT <",
            "countersign: INFO event=\"content\" action=\"",
            "message repeated 3 times: [ ",
            "{\"timestamp\":\"",
            "\n",
        ];
        prop_oneof![
            4 => proptest::sample::select(PIECES.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..9),
        ]
    }

    proptest! {
        #[test]
        fn any_log_is_read(pieces in proptest::collection::vec(piece(), 0..60)) {
            let log = pieces.concat();
            let report = json_report(&log, &[], Timestamp(1_795_824_000));
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let lines = log.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).count();
            prop_assert_eq!(report["lines"]["total"].as_u64(), Some(lines as u64));
        }
    }
}
