//! kill -9 at critical moments: no accepted message is lost, and no ring is damaged.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::guard::Guard;
use crate::common::{Client, Daemon, Signal, Sink, countersign, folder, pace, poll_for, reserved_port, run_ok};
use countersign::state::ring_file;

const MESSAGES: usize = 2000;
const CLIENTS: usize = 20;
const KILLS: usize = 10;

#[test]
fn the_daemon_killed_ten_times_loses_nothing_and_doubles_nothing() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let sink = Sink::start();
    let port = reserved_port();
    let config = format!(
        "[domains]\nlocal = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:{port}\"\n\
         next_hop = \"127.0.0.1:{}\"\n",
        sink.port
    );
    let mut daemon = Daemon::start(folder.path(), &config);
    let next = Arc::new(AtomicUsize::new(0));
    // For each message: the number of attempts to deliver it, and the number of 250 replies.
    let tally: Arc<Vec<Mutex<(usize, usize)>>> = Arc::new((0..MESSAGES).map(|_| Mutex::new((0, 0))).collect());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, tally) = (next.clone(), tally.clone());
            std::thread::spawn(move || send_all(port, &next, &tally))
        })
        .collect();
    for kill in 1..=KILLS {
        // The kills are spread over the run: one after each eleventh of the messages, while as many messages as there
        // are clients are in progress.
        sink.wait_for_more_than(kill * MESSAGES / (KILLS + 1));
        daemon.signal(Signal::KILL);
        drop(daemon);
        daemon = Daemon::start(folder.path(), &config);
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    let messages = sink.all();
    for (n, tally) in tally.iter().enumerate() {
        let (tries, accepted) = *tally.lock().unwrap();
        let copies = messages.iter().filter(|m| m.text.contains(&format!("Message-ID: <{n}@our.example>"))).count();
        assert_eq!(accepted, 1, "message {n}");
        assert!(copies >= 1, "message {n} was accepted and lost");
        assert!(copies <= tries, "message {n}: {copies} copies for {tries} tries");
    }
    assert!(messages.iter().all(|m| m.from.starts_with("prvs=1") && m.to == ["bob@else.example"]));
}

fn send_all(port: u16, next: &AtomicUsize, tally: &[Mutex<(usize, usize)>]) {
    let mut client = None;
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let Some(tally) = tally.get(n) else { return };
        let text = format!("Message-ID: <{n}@our.example>\r\n\r\n{}\r\n", "x".repeat(500));
        while tally.lock().unwrap().1 == 0 {
            let connected = client.take().or_else(|| {
                let (mut client, greeting) = Client::try_connect(port).ok()?;
                let ready = greeting.starts_with("220") && client.try_say("EHLO c.example").is_ok();
                ready.then_some(client)
            });
            let Some(mut connected) = connected else {
                std::thread::yield_now();
                continue;
            };
            tally.lock().unwrap().0 += 1;
            if let Ok(reply) = connected.send("ann@our.example", "bob@else.example", &text) {
                assert!(reply.starts_with(['2', '4']), "{reply}");
                tally.lock().unwrap().1 += usize::from(reply.starts_with('2'));
                client = Some(connected);
            }
        }
    }
}

/// A mail server as a process: Postfix's smtp-sink, which writes each message to a file before it replies 250.
struct SinkProcess {
    child: Child,
    _guard: Guard,
    port: u16,
    files: PathBuf,
}

impl SinkProcess {
    fn start(port: u16, files: &Path) -> Self {
        // It numbers its files from the beginning at each start, and fails if they exist.
        let mine = tempfile::tempdir_in(files).unwrap().keep();
        assert!(Command::new("chown").arg("nobody").arg(&mine).status().unwrap().success());
        let template = mine.join("%H%M%S.");
        let mut child = Command::new(crate::common::which("smtp-sink").unwrap())
            .args(["-u", "nobody", "-d", template.to_str().unwrap(), &format!("127.0.0.1:{port}"), "1000"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let guard = Guard::process(&child);
        poll_for("smtp-sink", || {
            assert!(child.try_wait().unwrap().is_none(), "smtp-sink has ended");
            Client::try_connect(port).ok()
        });
        Self { _guard: guard, child, port, files: files.to_owned() }
    }

    fn kill_and_start(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        *self = Self::start(self.port, &self.files.clone());
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Message n, and the reply expected for it: every fifth is a bounce to a forged tag, every fifth is a vacation reply,
/// and some are long.
fn message(n: usize) -> (&'static str, String) {
    let end = format!("X-End: {n}.\r\n");
    match n % 5 {
        0 => ("", format!("X-Number: {n}.\r\n{}{end}", crate::common::dsn("failed"))),
        1 => ("", format!("X-Number: {n}.\r\nAuto-Submitted: auto-replied\r\n\r\nAway.\r\n{end}")),
        2 => ("bob@else.example", format!("X-Number: {n}.\r\n\r\n{}{end}", "long enough to break\r\n".repeat(5000))),
        _ => ("bob@else.example", format!("X-Number: {n}.\r\n\r\nx\r\n{end}")),
    }
}

/// The number of messages: 1,000, unless `scripts/endurance` sets another.
fn messages() -> usize {
    std::env::var("COUNTERSIGN_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

#[test]
fn proxy_and_next_hop_killed_at_random_moments_lose_nothing_and_deliver_nothing_refused() {
    if !crate::common::can_run(&["smtp-sink"], "proxy_and_next_hop_killed_at_random_moments") {
        return;
    }
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let files = folder.path().join("sink");
    std::fs::create_dir(&files).unwrap();
    let mut sink = SinkProcess::start(reserved_port(), &files);
    let port = reserved_port();
    let config = format!(
        "[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"enforce\"\nhold = \"4 KiB\"\n\
         [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:{port}\"\nnext_hop = \"127.0.0.1:{}\"\n",
        sink.port
    );
    let mut daemon = Daemon::start(folder.path(), &config);
    let count = messages();
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // The final reply to each message: 250 or 550.
    let verdicts: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, done, verdicts) = (next.clone(), done.clone(), verdicts.clone());
            std::thread::spawn(move || {
                let mut client = None;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(verdict) = verdicts.get(n) else { return };
                    verdict.store(insist(port, &mut client, n), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // A simple xorshift is enough, because thread scheduling adds randomness.
    let (mut random, mut kills) = (u64::from(std::process::id()) | 1, [0, 0]);
    while done.load(Ordering::Relaxed) < count {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        pace(Duration::from_millis(5 + random % 60));
        let which = usize::from(random & 0x100 == 0);
        kills[which] += 1;
        if which == 0 {
            daemon.signal(Signal::KILL);
            drop(daemon);
            daemon = Daemon::start(folder.path(), &config);
        } else {
            sink.kill_and_start();
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    drop((daemon, sink));
    let mut copies = vec![0usize; count];
    let folders = std::fs::read_dir(&files).unwrap().map(|folder| folder.unwrap().path());
    for file in folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let text = String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned();
        let number = |name: &str| {
            let at = text.find(name)? + name.len();
            text.get(at..)?.split('.').next()?.trim().parse::<usize>().ok()
        };
        // A file without its end is a message that was not confirmed.
        if let (Some(n), Some(end)) = (number("X-Number:"), number("X-End:")) {
            assert_eq!(n, end, "two messages in one");
            copies[n] += 1;
        }
    }
    for (n, verdict) in verdicts.iter().enumerate() {
        match verdict.load(Ordering::Relaxed) {
            250 => assert!(copies[n] >= 1, "message {n} was accepted and lost"),
            550 => assert_eq!(copies[n], 0, "message {n} was refused and delivered"),
            other => panic!("message {n}: {other}"),
        }
        assert_eq!(verdict.load(Ordering::Relaxed) == 550, n % 5 == 0, "message {n}");
    }
    let twice = copies.iter().filter(|copies| **copies > 1).count();
    eprintln!(
        "{count} messages, proxy killed {} times, next hop {} times, {twice} messages came twice",
        kills[0], kills[1]
    );
    assert!(kills[0] > 1 && kills[1] > 1, "{kills:?}");
}

/// Delivers a message, with as many attempts as needed, and returns the final reply.
fn insist(port: u16, client: &mut Option<Client>, n: usize) -> usize {
    let (sender, text) = message(n);
    loop {
        let connected = client.take().or_else(|| {
            let (mut client, greeting) = Client::try_connect(port).ok()?;
            let ready =
                greeting.starts_with("220") && client.try_say("EHLO c.example").is_ok_and(|r| r.starts_with("250"));
            ready.then_some(client)
        });
        let Some(mut connected) = connected else {
            std::thread::yield_now();
            continue;
        };
        let Ok(reply) = connected.send(sender, "ann@our.example", text.trim_end()) else { continue };
        match reply.get(..3) {
            Some("250") => {
                *client = Some(connected);
                return 250;
            }
            Some("550") => {
                *client = Some(connected);
                return 550;
            }
            // Deferred: the rest of the transaction is discarded.
            _ if connected.try_say("RSET").is_ok_and(|reply| reply.starts_with("250")) => *client = Some(connected),
            _ => {}
        }
    }
}

#[test]
fn rotations_killed_in_the_middle_leave_a_good_ring() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init", "--at", "0"]);
    let path = folder.path().join("keys/ring.toml");
    let mut killed = 0;
    for round in 0..200u64 {
        // Old keys are removed, because each round is a month later.
        let at = ((round + 1) * 31 * 86_400).to_string();
        let mut child = countersign()
            .current_dir(folder.path())
            .args(["keys", "rotate", "--at", &at])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment differs between rounds, from before the rotation begins to after it ends.
        pace(Duration::from_micros(round * 37 % 6000));
        killed += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        let _ = child.wait();
        let good = ring_file::load(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        for key in good.keys().iter().filter(|k| k.state != countersign::envelope::keyring::KeyState::Signing) {
            run_ok(folder.path(), &["keys", "retire", "--force", "--at", &at, &key.id.to_string()]);
        }
        let later = ((round + 2) * 31 * 86_400 - 1).to_string();
        run_ok(folder.path(), &["keys", "prune", "--at", &later]);
    }
    assert!(killed > 20, "only {killed} of 200 rotations were killed on their way");
    assert!(ring_file::load(&path).unwrap().own_signer().is_some());
}
