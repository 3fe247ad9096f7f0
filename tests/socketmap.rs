//! The maps as used by Postfix: many processes at once, pipelined requests, and a ring that changes meanwhile.

use std::collections::VecDeque;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::guard::Guard;
use crate::common::map::Map;
use crate::common::skip::{skip, skip_for_good};
use crate::common::{Daemon, Signal, folder, mtas, poll_for, reserved_port, run_ok, tcp};

/// Without a limit for guesses, because these tests make thousands.
const CONFIG: &str = "inbound.guesses_per_minute = 0\ndomains.local = [\"our.example\"]\ndomains.srs_domain = \"srs.our.example\"\n\
    inbound.mode = \"enforce\"\n[[listener]]\nprotocol = \"socketmap\"\nlisten = ";

fn start(folder: &Path) -> Daemon {
    run_ok(folder, &["keys", "init"]);
    Daemon::start(folder, &format!("{CONFIG}\"127.0.0.1:0\"\n"))
}

/// The expected answer.
enum Want {
    Exactly(String),
    /// A signed address for this address, which is then verified by the map.
    Tag(String),
}

impl Want {
    fn check(&self, answer: &str, tags: &mut Vec<(String, String)>) {
        match self {
            Self::Exactly(want) => assert_eq!(answer, want),
            Self::Tag(address) => {
                let tag = answer.strip_prefix("OK ").unwrap_or_else(|| panic!("{address}: {answer}"));
                let (local, domain) = address.split_once('@').unwrap();
                let fits = if domain == "our.example" {
                    tag.starts_with("prvs=") && tag.ends_with(&format!("={address}"))
                } else {
                    tag.starts_with("SRS0=") && tag.ends_with(&format!("={domain}={local}@srs.our.example"))
                };
                assert!(fits, "{address}: {tag}");
                tags.push((tag.to_owned(), address.clone()));
            }
        }
    }
}

/// One process of an MTA, which sends `count` requests, up to 16 of them at a time.
fn ask_many(port: u16, who: usize, count: usize) {
    let mut map = Map::connect(port);
    let mut waiting: VecDeque<Want> = VecDeque::new();
    let mut tags: Vec<(String, String)> = Vec::new();
    let exactly = |text: &str| Want::Exactly(text.to_owned());
    for n in 0..count {
        let (table, key, want) = match n % 8 {
            0 => ("sign", format!("user{n}@our.example"), None),
            1 => ("forward", format!("u{n}.{who}@else{n}.example"), None),
            2 => ("sign", format!("@else{n}.example"), Some(exactly("NOTFOUND "))),
            3 => ("verify", format!("user{n}@our.example"), Some(exactly("NOTFOUND "))),
            4 => ("reverse", format!("prvs=1000{:06x}=user{n}@our.example", n + who), Some(exactly("NOTFOUND "))),
            5 => (
                "other",
                format!("user{n}@our.example"),
                Some(exactly("PERM there is no such map; ask for sign (forward), verify (reverse) or strip")),
            ),
            // A signed address from an earlier answer, regardless of changes of the ring.
            _ => match tags.pop() {
                Some((tag, address)) => ("verify", tag, Some(Want::Exactly(format!("OK {address}")))),
                None => ("verify", "x".to_owned(), Some(exactly("NOTFOUND "))),
            },
        };
        map.send(table, &key);
        waiting.push_back(want.unwrap_or(Want::Tag(key)));
        // Every 100 requests, all answers are awaited; otherwise, only the oldest.
        let most = if n % 100 == 99 || n + 1 == count { 0 } else { 16 };
        while waiting.len() > most {
            let answer = map.answer().expect("an answer to each request");
            waiting.pop_front().unwrap().check(&answer, &mut tags);
        }
    }
}

#[test]
fn a_hundred_thousand_answers_are_right_while_the_ring_changes() {
    const PROCESSES: usize = 32;
    const REQUESTS: usize = 100_000;
    let folder = folder();
    let daemon = start(folder.path());
    let port = daemon.ports[0];
    let done = AtomicBool::new(false);
    let rotations = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut rotations = 0;
            while !done.load(Ordering::Relaxed) {
                // A ring has at most ten keys, but it is reloaded all the same.
                if rotations < 8 {
                    let lines = daemon.log.all().len();
                    run_ok(folder.path(), &["keys", "rotate"]);
                    daemon.signal(Signal::HUP);
                    daemon.log.wait("the new ring", lines, |line| line.contains("key ring loaded"));
                    rotations += 1;
                } else {
                    daemon.signal(Signal::HUP);
                    std::thread::yield_now();
                }
            }
            rotations
        });
        let noise = scope.spawn(|| {
            let garbage: [&[u8]; 6] =
                [b"GET / HTTP/1.0\r\n\r\n", b"999999999:", b"5:ab", b"3:abcd", b"\xff\xfe\0\0", b"0:,4:sign,00:,"];
            while !done.load(Ordering::Relaxed) {
                for garbage in garbage {
                    let mut map = Map::connect(port);
                    let _ = map.write(garbage);
                }
                // Connections are opened no faster than they are served, because a listener has a limit.
                assert!(Map::connect(port).ask("sign", "a@else.example").starts_with("OK SRS0="));
            }
        });
        let askers: Vec<_> =
            (0..PROCESSES).map(|who| scope.spawn(move || ask_many(port, who, REQUESTS / PROCESSES))).collect();
        let failed = askers.into_iter().map(|asker| asker.join().is_err()).filter(|failed| *failed).count();
        done.store(true, Ordering::Relaxed);
        noise.join().unwrap();
        let strange = |line: &String| !line.contains("\"INFO\"") && !line.contains("not a valid request");
        let strange: Vec<String> = daemon.log.all().into_iter().filter(strange).collect();
        assert_eq!(failed, 0, "processes that got a wrong answer: {:?}", strange.get(..20).unwrap_or(&strange));
        changes.join().unwrap()
    });
    assert!(rotations > 2, "the ring has changed {rotations} times only");
}

#[test]
fn two_hundred_who_come_at_once_are_all_let_in() {
    const MANY: usize = 200;
    let most: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    if most < MANY {
        skip_for_good("two hundred at once", &format!("the system lets only {most} wait (net.core.somaxconn)"));
        return;
    }
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let path = folder.path().join("map");
    let unix = format!("[[listener]]\nprotocol = \"socketmap\"\nlisten = \"unix:{}\"\n", path.display());
    let daemon = Daemon::start(folder.path(), &format!("{CONFIG}\"127.0.0.1:0\"\n{unix}"));
    // While the daemon accepts nothing, no connection is refused; a lost connection request is repeated after a second.
    daemon.signal(Signal::STOP);
    let mut tcps: Vec<_> = (0..MANY).map(|_| tcp(daemon.ports[0]).unwrap()).collect();
    let mut unixes: Vec<_> = (0..MANY).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let request = b"19:sign a@else.example,";
    assert_eq!(request.len(), 23);
    for stream in &mut tcps {
        stream.write_all(request).unwrap();
    }
    for stream in &mut unixes {
        stream.write_all(request).unwrap();
    }
    daemon.signal(Signal::CONT);
    let mut answers: Vec<&mut dyn Read> = Vec::new();
    answers.extend(tcps.iter_mut().map(|stream| stream as &mut dyn Read));
    answers.extend(unixes.iter_mut().map(|stream| stream as &mut dyn Read));
    for stream in answers {
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(b":OK SR"), "{:?}", String::from_utf8_lossy(&answer));
    }
}

/// PostSRSd 1.x, with its line-based protocol.
struct Postsrsd {
    child: std::process::Child,
    _guard: Guard,
    port: u16,
}

impl Postsrsd {
    fn start(folder: &Path, secret: &Path) -> Self {
        let (port, reverse) = (reserved_port(), reserved_port());
        let mut child = std::process::Command::new(mtas::unpacked("postsrsd").join("usr/sbin/postsrsd"))
            .args([
                "-4",
                "-l",
                "127.0.0.1",
                "-d",
                "srs.our.example",
                "-f",
                &port.to_string(),
                "-r",
                &reverse.to_string(),
            ])
            .arg("-s")
            .arg(secret)
            .current_dir(folder)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let guard = Guard::process(&child);
        poll_for("PostSRSd", || {
            assert!(child.try_wait().unwrap().is_none(), "PostSRSd has ended");
            tcp(port).ok()
        });
        Self { _guard: guard, child, port }
    }

    fn forward(&self, address: &str) -> String {
        let mut stream = tcp(self.port).unwrap();
        stream.write_all(format!("get {address}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut answer).unwrap();
        answer.trim_end().strip_prefix("200 ").unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

impl Drop for Postsrsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_site_moves_over_from_postsrsd_by_one_import() {
    if !mtas::unpacked("postsrsd").is_dir() {
        skip("moving over from PostSRSd", "scripts/mtas gets it");
        return;
    }
    let folder = folder();
    let secret = folder.path().join("postsrsd.secret");
    std::fs::write(&secret, "the-secret-that-it-has-had-for-years\nan-older-one\n").unwrap();
    let before = {
        let postsrsd = Postsrsd::start(folder.path(), &secret);
        ["bob@else.example", "Eve.Smith@else.example", "SRS0=abcd=AA=first.example=bob@else.example"]
            .map(|address| (postsrsd.forward(address), address))
    };
    run_ok(folder.path(), &["keys", "init"]);
    run_ok(folder.path(), &["keys", "import", "--from", "postsrsd1", "--sign", "postsrsd.secret"]);
    let daemon = Daemon::start(folder.path(), &format!("{CONFIG}\"127.0.0.1:0\"\n"));
    let mut map = Map::connect(daemon.ports[0]);
    for (rewritten, address) in &before {
        // Addresses that PostSRSd has rewritten are reversed here; an SRS1 address returns to the site that made the
        // SRS0 address in it.
        let want = if rewritten.starts_with("SRS1") { "SRS0=abcd=AA=first.example=bob@else.example" } else { address };
        assert_eq!(map.ask("reverse", rewritten), format!("OK {want}"), "{rewritten}");
        assert!(map.ask("reverse", &rewritten.replace("else", "evil")) == "NOTFOUND ", "{rewritten}");
        // Mail sent now is rewritten as by PostSRSd.
        assert_eq!(map.ask("forward", address), format!("OK {rewritten}"));
    }
    // PostSRSd does not rewrite the addresses of the site's domains; Countersign signs them.
    assert!(map.ask("forward", "ann@our.example").starts_with("OK prvs="));
}

#[test]
fn a_map_that_strangers_reach_begins_no_ramp() {
    let folder = folder();
    let config = CONFIG.replace("inbound.mode = \"enforce\"\n", "");
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &format!("{config}\"127.0.0.1:0\"\n"));
    let mut map = Map::connect(daemon.ports[0]);
    let begins = |line: &str, domain: &str| {
        line.contains("its ramp begins") && line.contains(&format!("\"domain\":\"{domain}\""))
    };
    // A stranger's mail may have a sender of ours. Mail of other senders leaves the site, so `forward` is queried about
    // it.
    assert!(map.ask("forward", "ann@our.example").starts_with("OK prvs="));
    assert!(map.ask("forward", "bob@else.example").starts_with("OK SRS0="));
    daemon.log.wait("the ramp of the SRS domain", 0, |line| begins(line, "srs.our.example"));
    assert!(!daemon.log.all().iter().any(|line| begins(line, "our.example")));
    assert!(map.ask("sign", "ann@our.example").starts_with("OK prvs="));
    daemon.log.wait("the ramp", 0, |line| begins(line, "our.example"));
}
