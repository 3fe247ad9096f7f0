//! The ramp over several days: restarts, kills, hosts that bypass signing, and decisions.
//!
//! Days pass by libfaketime: the daemon gets another date, and its timers are not affected.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::abuse_counters::Site;
use crate::common::wait::wait_for_state;
use crate::common::{Client, Sink, countersign, dsn, folder, poll_for, reserved_port, run, run_ok, skip};
use rustix::process::Signal;

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Whether libfaketime is installed.
pub(crate) fn has_faketime(test: &str) -> bool {
    let has = Path::new(FAKETIME).exists();
    if !has {
        skip::skip(test, "libfaketime is missing (Debian package faketime)");
    }
    has
}

/// A command that runs the program on a later day.
pub(crate) fn in_days(days: u32) -> Command {
    let mut program = countersign();
    program.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("+{days}d")).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    program
}

/// A command that runs the program so many seconds later, or earlier.
pub(crate) fn at_offset(seconds: i64) -> Command {
    let mut program = in_days(0);
    program.env("FAKETIME", format!("{seconds:+}"));
    program
}

/// A command that runs the program with a date that passes so many times faster.
pub(crate) fn faster(times: u32) -> Command {
    let mut program = in_days(0);
    program.env("FAKETIME", format!("+0 x{times}"));
    program
}

/// A site whose daemon is run on successive days.
struct Days {
    site: Site,
    config: String,
}

impl Days {
    fn start(config: &str) -> Self {
        Self { site: Site::start(config, None), config: config.to_owned() }
    }

    /// Restarts the daemon on another day, counted from the first. The running daemon is killed.
    fn on(self, days: u32) -> Self {
        self.site.daemon.signal(Signal::KILL);
        let Site { folder, sink, daemon, status } = self.site;
        drop(daemon);
        let daemon = Site::daemon_by(in_days(days), folder.path(), sink.port, status, &self.config);
        Self { site: Site { folder, sink, daemon, status }, config: self.config }
    }

    /// The running daemon's state of the ramp of our.example.
    fn ramp(&self) -> String {
        let observed: serde_json::Value = serde_json::from_str(&self.site.get("/observed")).unwrap();
        let ramps = observed["ramps"].as_array().unwrap();
        let ours = ramps.iter().find(|ramp| ramp[0] == "our.example").unwrap();
        ours[1].as_str().unwrap().to_owned()
    }

    /// Sends signed mail, and waits until the state file records it.
    fn send(&self) {
        wait_for_state(self.site.folder.path(), || self.site.send());
    }

    /// The reply to a bounce to a forged tag.
    fn bounce_to_a_forged_tag(&self) -> String {
        let mut client = self.site.inbound();
        self.site.rcpt(&mut client, "", &self.site.tag(true))
    }
}

/// A bounce that returns unsigned mail of Ann's, which was sent through this host.
pub(crate) fn bounce_to_unsigned_mail(host: &str) -> String {
    let original = format!(
        "--b\r\nContent-Type: message/rfc822\r\n\r\nReceived: from {host} by mx.third.example; now\r\n\
         Received: from localhost by {host}; now\r\nFrom: Ann <ann@our.example>\r\nMessage-ID: <1@x>\r\n\r\nx\r\n--b--\r\n"
    );
    dsn("failed").replace("--b--\r\n", &original).trim_end().to_owned()
}

#[test]
fn one_message_and_eight_silent_days_enforce_nothing() {
    if !has_faketime("one_message_and_eight_silent_days_enforce_nothing") {
        return;
    }
    let days = Days::start("");
    days.send();
    let days = days.on(8);
    assert!(days.ramp().starts_with("observed, signed mail has left on 1 day of 7"), "{}", days.ramp());
    assert!(days.bounce_to_a_forged_tag().starts_with("250"));
    let check = days.site.check();
    assert!(check.contains("our.example: observed, signed mail has left on 1 day of 7"), "{check}");
}

#[test]
fn mail_on_each_day_enforces_and_a_bypassing_host_holds_that() {
    if !has_faketime("mail_on_each_day_enforces_and_a_bypassing_host_holds_that") {
        return;
    }
    let mut days = Days::start("");
    for day in 0..7 {
        days = days.on(day);
        days.send();
        assert!(days.bounce_to_a_forged_tag().starts_with("250"), "day {day}");
    }
    // Two bounces on the sixth day; the ramp would end on the seventh.
    let mut client = days.site.inbound();
    // Spam in Ann's name from elsewhere, which somebody returns, holds nothing.
    let spam = bounce_to_unsigned_mail("evil.host.example");
    assert!(client.send("", "ann@our.example", &spam).unwrap().starts_with("250"));
    for _ in 0..2 {
        let reply = client.send("", "ann@our.example", &bounce_to_unsigned_mail("web1.our.example")).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    let held = "held, because 2 bounces return mail that web1.our.example sent unsigned";
    poll_for("the hold", || days.ramp().contains(held).then_some(()));
    days.send();
    let days = days.on(8);
    assert!(days.ramp().contains(held) && !days.ramp().contains("signed mail has left"), "{}", days.ramp());
    assert!(days.bounce_to_a_forged_tag().starts_with("250"));
    days.site.daemon.log.wait("the reminder", 0, |line| {
        line.contains("the ramp is held") && line.contains("web1.our.example") && line.contains("\"WARN\"")
    });
    // Fixed: three days later, the ramp is enforced.
    let days = days.on(10);
    assert_eq!(days.ramp(), "enforced");
    assert!(days.bounce_to_a_forged_tag().starts_with("550 5.7.1"));
    // A stranger forges such a bounce. That changes nothing, and neither does the loss of the state file.
    let mut client = days.site.inbound();
    let _ = client.send("", "ann@our.example", &bounce_to_unsigned_mail("web1.our.example")).unwrap();
    poll_for("the ring", || days.site.ring().ramp_note("our.example").enforced);
    fs::remove_file(days.site.folder.path().join("state/countersign.db")).unwrap();
    let days = days.on(11);
    assert_eq!(days.ramp(), "enforced");
}

#[test]
fn an_administrator_decides() {
    let site = Site::start("", None);
    let forged = site.tag(true);
    let ramp = |what: &str| run_ok(site.folder.path(), &["ramp", what, "-c", "countersign.toml", "our.example"]);
    for (what, says, reply) in [
        ("enforce", "our.example: enforced, as you have decided.\n", "550"),
        ("observe", "our.example: observed, as you have decided.\n", "250"),
        ("auto", "our.example: observed; its ramp begins with the first mail that leaves signed.\n", "250"),
    ] {
        assert_eq!(ramp(what), says);
        poll_for(what, || site.rcpt(&mut site.inbound(), "", &forged).starts_with(reply).then_some(()));
    }
    let unknown = run(site.folder.path(), &["ramp", "enforce", "-c", "countersign.toml", "else.example"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("does not name else.example"));
}

#[test]
fn a_damaged_or_unusable_state_stops_no_mail() {
    let (folder, sink, status) = (folder(), Sink::start(), reserved_port());
    run_ok(folder.path(), &["keys", "init"]);
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("countersign.db"), "this is no state").unwrap();
    let daemon = Site::daemon(folder.path(), sink.port, status, "");
    let site = Site { folder, sink, daemon, status };
    site.daemon.log.wait("the damage", 0, |line| line.contains("the state file was damaged"));
    site.send();
    let names = || fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names().filter(|name| name.starts_with("countersign.db.bad-")).count(), 1);

    // A path where a file cannot be created.
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    fs::write(folder.path().join("file"), "").unwrap();
    let daemon = Site::daemon(folder.path(), sink.port, status, "state.path = \"file/countersign.db\"");
    let site = Site { folder, sink, daemon, status };
    site.daemon.log.wait("the reason", 0, |line| line.contains("the state file cannot be used"));
    site.send();

    // A second daemon with the state file of the first.
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    let daemon = Site::daemon(folder.path(), sink.port, status, "");
    let other = Site::daemon(folder.path(), sink.port, reserved_port(), "");
    other.log.wait("the reason", 0, |line| line.contains("another process has opened"));
    let mut client = Client::connect(other.ports[0]);
    client.say("EHLO client.example");
    assert!(client.send("ann@our.example", "bob@third.example", "Subject: x\r\n\r\nx").unwrap().starts_with("250"));
    drop(daemon);
}

#[test]
fn a_state_file_that_is_full_stops_no_mail() {
    let site = Site::start("state.max_size = \"1 KiB\"", None);
    let (mut client, forged) = (site.inbound(), site.tag(true));
    for _ in 0..20 {
        assert!(site.rcpt(&mut client, "", &forged).starts_with("250"));
    }
    site.daemon.log.wait("the reason", 0, |line| line.contains("state.max_size is reached"));
    site.send();
    assert!(site.rcpt(&mut client, "", &forged).starts_with("250"));
}

#[test]
fn a_state_file_that_could_not_be_written_is_used_again() {
    let site = Site::start("", None);
    let (folder, hop) = (site.folder, site.sink.port);
    drop(site.daemon);
    // The signal of a file that is too long is ignored: writing fails, as on a full disk.
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", crate::common::PROGRAM]);
    let daemon = Site::daemon_by(command, folder.path(), hop, site.status, "");
    let site = Site { folder, sink: site.sink, daemon, status: site.status };
    let pid = rustix::process::Pid::from_child(&site.daemon.child);
    let limit = |octets: Option<u64>| {
        let limit = rustix::process::Rlimit { current: octets, maximum: None };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).unwrap();
    };
    let tag = site.tag(false);
    limit(Some(1));
    // Counted while nothing can be written.
    assert!(site.rcpt(&mut site.inbound(), "", &tag).starts_with("250"));
    site.daemon.log.wait("the failure", 0, |line| line.contains("the state file cannot be written"));
    assert_eq!(site.metric("countersign_state_written "), Some(0.0));
    limit(None);
    site.daemon.log.wait("the end of the failure", 0, |line| line.contains("the state file can be written again"));
    assert_eq!(site.metric("countersign_state_written "), Some(1.0));
    // It is in the file: a killed daemon has no other chance to write it.
    let Site { folder, sink, daemon, status } = site;
    poll_for("the bounce in the file", || {
        let copy = folder.path().join("copy.db");
        fs::copy(folder.path().join("state/countersign.db"), &copy).unwrap();
        String::from_utf8_lossy(&fs::read(copy).unwrap()).contains("\"genuine\":1").then_some(())
    });
    daemon.signal(Signal::KILL);
    daemon.wait();
    let daemon = Site::daemon(folder.path(), sink.port, status, "");
    let site = Site { folder, sink, daemon, status };
    let report = run(site.folder.path(), &["status", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["genuine"], 1, "{report}");
}
