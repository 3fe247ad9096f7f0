//! Snapshots of text for people: help, `check`, the demo, the page of numbers. `INSTA_UPDATE=always cargo test --test
//! all snapshots::` updates the snapshots; inspect the difference before it is committed.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use crate::common::{Daemon, folder, reserved_port, run_ok, tcp};

/// Compares text with the snapshot, after replacing what differs between runs.
macro_rules! same {
    ($text:expr, $($from:literal => $to:literal),*) => {
        insta::with_settings!({
            filters => vec![$(($from, $to)),*],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($text) })
    };
}

#[test]
fn help() {
    let folder = folder();
    let mut text = String::new();
    for command in [
        "",
        "demo",
        "init",
        "check",
        "serve",
        "status",
        "trace",
        "observe",
        "reload",
        "keys",
        "keys init",
        "keys list",
        "keys add",
        "keys promote",
        "keys rotate",
        "keys retire",
        "keys prune",
        "keys import",
        "keys export",
        "keys ramp-start",
        "keys ramp-stop",
        "ramp",
        "ramp enforce",
        "sign",
        "verify",
        "explain",
        "classify",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let _ = writeln!(text, "$ countersign {}\n{}", arguments.join(" "), run_ok(folder.path(), &arguments));
    }
    same!(text, r"(?m) +$" => "");
}

#[test]
fn check() {
    let folder = folder();
    run_ok(folder.path(), &["init", "--domain", "our.example", "--mta", "postfix"]);
    // Where this is installed, the folder of the sockets is there.
    same!(
        run_ok(folder.path(), &["check"]),
        r"Connection refused \(os error \d+\)" => "[error]",
        r"warning: there is no folder .*\n" => ""
    );
}

#[test]
fn demo() {
    let text = run_ok(folder().path(), &["demo"]);
    same!(
        text,
        r"prvs=(\d)\d{3}[0-9a-f]{6}" => "prvs=$1[day][hash]",
        r"d=\d{3}; n=[A-Z2-7]{16}; a=[A-Z2-7]{16}" => "d=[day]; n=[random]; a=[hash]",
        r"SRS0=[A-Z2-7]{6}=[A-Z2-7]{2}=" => "SRS0=[hash]=[day]=",
        r"in \d+\.\d seconds" => "in [time] seconds"
    );
}

#[test]
fn metrics() {
    let (folder, status) = (folder(), reserved_port());
    run_ok(folder.path(), &["keys", "init"]);
    let config = format!(
        "domains.local = [\"our.example\"]\nstatus.listen = \"127.0.0.1:{status}\"\n[[listener]]\nrole = \"inbound\"\n\
         listen = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n",
        reserved_port()
    );
    let _daemon = Daemon::start(folder.path(), &config);
    let mut stream = tcp(status).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    same!(
        text,
        r"(?m)^(date|content-length): .*$" => "$1: [varies]",
        r"(?m)\r$" => "",
        r#"next_hop="127.0.0.1:\d+""# => "next_hop=\"[address]\"",
        r"(?m)_timestamp_seconds \d+$" => "_timestamp_seconds [time]"
    );
}
