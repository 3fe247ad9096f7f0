//! Aliases of long senders: a daemon stores many, restarts, and finds them, asked as a mail server asks a map. The same
//! is asked about senders that fit into an SRS address, which need no store: the ratio of the two carries over to other
//! machines.
//!
//! `cargo bench --bench aliases -- [COUNT]`; without a number a million, which takes some minutes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 16;
/// Requests of a connection that wait for their answers.
const PIPELINED: usize = 64;
/// Lookups are measured with this many addresses.
const LOOKUPS: usize = 50_000;

const CONFIG: &str = "domains.local = [\"our.example\"]\ndomains.srs_domain = \"srs.our.example\"\nlog.level = \"warn\"\n\
    inbound.guesses_per_minute = 0\n[[listener]]\nprotocol = \"socketmap\"\nlisten = \"127.0.0.1:PORT\"\n";

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a daemon, and waits until it answers. Returns how long that took.
fn start(folder: &Path, port: u16) -> (Daemon, Duration) {
    let begin = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["serve", "-c", "countersign.toml"]).current_dir(folder).stdout(Stdio::null());
    let daemon = Daemon(command.spawn().expect("the program starts"));
    while ask(port, "sign", &["ann@our.example".to_owned()]).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the daemon does not answer");
        // The log says nothing at this level.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    (daemon, begin.elapsed())
}

/// Asks a map about these addresses on one connection. `None`: it does not answer.
fn ask(port: u16, map: &str, keys: &[String]) -> Option<Vec<String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut answers = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(PIPELINED) {
        let requests: String = chunk.iter().map(|key| format!("{}:{map} {key},", map.len() + 1 + key.len())).collect();
        stream.write_all(requests.as_bytes()).ok()?;
        for _ in chunk {
            let mut length = Vec::new();
            reader.read_until(b':', &mut length).ok()?;
            let length: usize = std::str::from_utf8(&length).ok()?.trim_end_matches(':').parse().ok()?;
            let mut answer = vec![0; length + 1];
            reader.read_exact(&mut answer).ok()?;
            answers.push(String::from_utf8_lossy(answer.get(3..length)?).into_owned());
        }
    }
    Some(answers)
}

/// Asks on many connections. Returns the answers in order, and the requests per second.
fn ask_all(port: u16, map: &str, keys: &[String]) -> (Vec<String>, f64) {
    let begin = Instant::now();
    let each = keys.len().div_ceil(CONNECTIONS).max(1);
    let answers = std::thread::scope(|scope| {
        let threads: Vec<_> = keys.chunks(each).map(|keys| scope.spawn(move || ask(port, map, keys))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread").expect("answers")).collect()
    });
    (answers, keys.len() as f64 / begin.elapsed().as_secs_f64())
}

fn long(n: usize) -> String {
    format!("0102019a7f0e1c2d-{n:08x}-4c3e-9f1a-8b2c-2b3c4d5e6f70-000000@eu-west-1.amazonses.com")
}

fn main() {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a folder");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    std::fs::write(folder.path().join("countersign.toml"), CONFIG.replace("PORT", &port.to_string()))
        .expect("a config");
    let made = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["keys", "init"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "a key ring");
    let (daemon, started) = start(folder.path(), port);
    println!("start without aliases: {:.0} ms", started.as_secs_f64() * 1e3);

    let mut some = Vec::new();
    let begin = Instant::now();
    for first in (0..count).step_by(LOOKUPS) {
        let keys: Vec<String> = (first..count.min(first + LOOKUPS)).map(long).collect();
        let (aliases, _) = ask_all(port, "forward", &keys);
        let stored = aliases.iter().filter(|alias| alias.contains("=alias=")).count();
        assert_eq!(stored, keys.len(), "{:?}", aliases.iter().find(|alias| !alias.contains("=alias=")));
        let step = (count / LOOKUPS).max(1);
        some.extend(keys.into_iter().zip(aliases).step_by(step));
        eprint!("\r{} of {count} stored", first + stored);
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!();
    println!("{count} aliases stored in {seconds:.1} s, {:.0} a second, each on disk first", count as f64 / seconds);
    let size = std::fs::metadata(folder.path().join("state/countersign.db")).map_or(0, |file| file.len());
    println!("state file: {} MiB, {:.0} octets an alias", size >> 20, size as f64 / count as f64);
    drop(daemon);

    let (daemon, started) = start(folder.path(), port);
    println!("start with {count} aliases: {:.0} ms", started.as_secs_f64() * 1e3);
    let (senders, aliases): (Vec<String>, Vec<String>) = some.into_iter().unzip();
    let short: Vec<String> = (0..aliases.len()).map(|n| format!("bob{n}@third.example")).collect();
    let (short_srs, _) = ask_all(port, "forward", &short);
    let mut ratios = Vec::new();
    for round in 0..5 {
        let (found, by_alias) = ask_all(port, "reverse", &aliases);
        assert_eq!(found, senders);
        let (found, by_hash) = ask_all(port, "reverse", &short_srs);
        assert_eq!(found, short);
        println!("look-ups, round {round}: {by_alias:.0} a second, SRS without alias {by_hash:.0}");
        ratios.push(by_alias / by_hash);
    }
    ratios.sort_by(f64::total_cmp);
    println!("look-ups by alias to those without, median: {:.2}", ratios[ratios.len() / 2]);
    let one = Instant::now();
    let mut asked = 0;
    while one.elapsed() < Duration::from_secs(2) {
        let key = aliases.get(asked % aliases.len()).cloned().unwrap_or_default();
        assert!(ask(port, "reverse", &[key]).is_some());
        asked += 1;
    }
    println!(
        "one at a time, with a new connection: {:.0} µs",
        one.elapsed().as_secs_f64() * 1e6 / f64::from(asked as u32)
    );
    drop(daemon);
}
