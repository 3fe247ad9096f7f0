//! Logs of mail servers, in which strangers write: each is read, and each line is counted once.
#![no_main]

use countersign::envelope::time::Timestamp;
use countersign::mail_log;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|log: &[u8]| {
    let report = mail_log::json_report(log, &[], Timestamp(1_795_824_000));
    let lines = log.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).count();
    assert!(report.contains(&format!("\"total\":{lines},")), "{report}");
});
