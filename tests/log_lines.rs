//! Log lines as an administrator and a log server read them.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::abuse_counters::Site;
use crate::common::guard::Guard;
use crate::common::{Client, countersign, dsn, folder, poll_for, run, run_ok};

fn read(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_default()
}

#[test]
fn sessions_of_two_processes_have_different_names() {
    let site = Site::start("inbound.mode = \"enforce\"", None);
    let mut names = Vec::new();
    let forged = site.tag(true);
    site.rcpt(&mut site.inbound(), "", &forged);
    let line = site.daemon.log.wait("the refusal", 0, |line| read(line)["event"] == "recipient");
    names.push(read(&line)["session"].as_str().unwrap().to_owned());
    let Site { folder, sink, daemon, status } = site;
    drop(daemon);
    let daemon = Site::daemon(folder.path(), sink.port, status, "inbound.mode = \"enforce\"");
    let site = Site { folder, sink, daemon, status };
    site.rcpt(&mut site.inbound(), "", &forged);
    let line = site.daemon.log.wait("the refusal", 0, |line| read(line)["event"] == "recipient");
    names.push(read(&line)["session"].as_str().unwrap().to_owned());
    assert!(names[0] < names[1] && names.iter().all(|name| name.contains('-')), "{names:?}");
    // The name in the log is the name in the trace.
    poll_for("the trace", || {
        let output = run(site.folder.path(), &["trace", "-c", "countersign.toml", "ann@our.example"]);
        String::from_utf8_lossy(&output.stdout).contains(&format!("session={}", names[1])).then_some(())
    });
}

#[test]
fn messages_are_found_by_their_message_id() {
    let site = Site::start("inbound.mode = \"enforce\"", None);
    // What leaves, what comes in, what is refused by its content, and a chunk.
    let mut out = Client::connect(site.daemon.ports[0]);
    out.say("EHLO client.example");
    let text = "From: ann@our.example\r\nMessage-ID: <out@our.example>\r\n\r\nx";
    assert!(out.send("ann@our.example", "bob@else.example", text).unwrap().starts_with("250"));
    let text = "Subject: x\r\nMESSAGE-ID:\r\n <in@else.example>\r\n\r\nx";
    assert!(site.inbound().send("bob@else.example", "ann@our.example", text).unwrap().starts_with("250"));
    let bounce = format!("Message-ID: <bounce@else.example>\r\n{}", dsn("failed").trim_end());
    assert!(site.inbound().send("", "ann@our.example", &bounce).unwrap().starts_with("550"));
    let line = |event: &str, id: &str| {
        read(&site.daemon.log.wait(id, 0, |line| read(line)["event"] == event && read(line)["message_id"] == id))
    };
    line("message", "<out@our.example>");
    line("message", "<in@else.example>");
    line("content", "<bounce@else.example>");
    let refused = line("message", "<bounce@else.example>");
    assert_eq!(refused["code"], 550, "{refused}");
    // The bounce is found by its own id, too.
    poll_for("the trace", || {
        let output = run(site.folder.path(), &["trace", "-c", "countersign.toml", "<bounce@else.example>"]);
        String::from_utf8_lossy(&output.stdout).contains("refused").then_some(())
    });
}

#[test]
fn the_journal_gets_priorities_and_no_times() {
    for json in [false, true] {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        let format = if json { "log.format = \"json\"\n" } else { "" };
        let listener = "[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:9\"\n";
        let config = format!("domains.local = [\"our.example\"]\ncontrol.listen = \"none\"\n{format}{listener}");
        std::fs::write(folder.path().join("countersign.toml"), config).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let stat = rustix::fs::fstat(&writer).unwrap();
        let mut command = countersign();
        command.args(["serve", "-c", "countersign.toml"]).current_dir(folder.path()).stdout(Stdio::null());
        command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino)).stderr(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let _guard = Guard::process(&child);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("listening")).unwrap();
        let rest = line.strip_prefix("<6>").unwrap_or_else(|| panic!("{line}"));
        match json {
            true => {
                let value: serde_json::Value = serde_json::from_str(rest).unwrap();
                assert_eq!(value["message"], "listening");
            }
            false => assert!(rest.trim_start().starts_with("INFO listening"), "{line}"),
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
