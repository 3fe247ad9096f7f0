//! kill -9 at bad moments: nothing accepted is lost, no ring is ever half written.

mod common;

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{Client, Daemon, Sink, countersign, folder, free_port, run_ok};
use countersign::state::ring;

const MESSAGES: usize = 2000;
const CLIENTS: usize = 20;
const KILLS: usize = 10;

#[test]
fn the_daemon_killed_ten_times_loses_nothing_and_doubles_nothing() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let sink = Sink::start();
    let port = free_port();
    let config = format!(
        "[domains]\nlocal = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:{port}\"\n\
         next_hop = \"127.0.0.1:{}\"\n",
        sink.port
    );
    let mut daemon = Daemon::start(folder.path(), &config);
    let next = Arc::new(AtomicUsize::new(0));
    // For each message: how often a client tried to hand it over, and how often it was told 250.
    let tally: Arc<Vec<Mutex<(usize, usize)>>> = Arc::new((0..MESSAGES).map(|_| Mutex::new((0, 0))).collect());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, tally) = (next.clone(), tally.clone());
            std::thread::spawn(move || send_all(port, &next, &tally))
        })
        .collect();
    for kill in 1..=KILLS {
        // Spread over the run: each when another eleventh of the messages has been begun.
        common::wait_for("messages under way", || {
            (next.load(Ordering::Relaxed) > kill * MESSAGES / (KILLS + 1)).then_some(())
        });
        daemon.signal("KILL");
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

#[test]
fn rotations_killed_in_the_middle_leave_a_good_ring() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init", "--at", "0"]);
    let path = folder.path().join("keys/ring.toml");
    let mut killed = 0;
    for round in 0..200u64 {
        // Old keys make room: each round is a month later.
        let at = ((round + 1) * 31 * 86_400).to_string();
        let mut child = countersign()
            .current_dir(folder.path())
            .args(["keys", "rotate", "--at", &at])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At a moment that differs from round to round, from before it has begun to after it has ended.
        let moment = std::time::Duration::from_micros(round * 37 % 6000);
        let started = std::time::Instant::now();
        while started.elapsed() < moment {
            std::thread::yield_now();
        }
        killed += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        let _ = child.wait();
        let good = ring::load(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        for key in good.keys().iter().filter(|k| k.state != countersign::envelope::keyring::KeyState::Signing) {
            run_ok(folder.path(), &["keys", "retire", "--force", "--at", &at, &key.id.to_string()]);
        }
        let later = ((round + 2) * 31 * 86_400 - 1).to_string();
        run_ok(folder.path(), &["keys", "prune", "--at", &later]);
    }
    assert!(killed > 20, "only {killed} of 200 rotations were killed on their way");
    assert!(ring::load(&path).unwrap().own_signer().is_some());
}
