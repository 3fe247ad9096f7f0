//! The status page during a flood: how long it takes, and what it takes from the mail path.
//!
//! `cargo bench --bench page`. A daemon with a full list of decisions refuses false bounces as fast as four clients can
//! send them. In every other round, somebody reads the page once a second, as ten open browsers do. Each ratio is the
//! median of the rounds.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Decisions in the store before the flood.
const DECISIONS: u64 = 100_000;
const CLIENTS: u64 = 4;
const ROUND: Duration = Duration::from_secs(3);
/// The pages that are read, in turn.
const PAGES: [&str; 4] = ["/", "/?time=week", "/?time=hour", "/?q=nobody@our.example"];

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let rounds = argument("--rounds").map_or(10, |text| text.parse().expect("--rounds N"));
    let folder = tempfile::tempdir().expect("a folder");
    let (smtp, status) = (free_port(), free_port());
    let daemon = start(folder.path(), sink(), smtp, status);
    fill(smtp);
    let wanted = Instant::now();
    while !get(status, "/metrics").0.contains("countersign_") || wanted.elapsed() < Duration::from_secs(3) {
        pause(Duration::from_millis(100));
    }
    let mut alone = Vec::new();
    let mut read = Vec::new();
    let mut times: Vec<Vec<f64>> = PAGES.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        alone.push(flood(smtp, || {}));
        let mut page = 0;
        let began = Instant::now();
        read.push(flood(smtp, || {
            // Ten browsers ask every ten seconds each.
            let due = began + Duration::from_millis(1000 * page as u64);
            pause(due.saturating_duration_since(Instant::now()));
            let (text, time) = get(status, PAGES[page % PAGES.len()]);
            assert!(text.contains("Working"), "{text}");
            times[page % PAGES.len()].push(time);
            page += 1;
        }));
    }
    let ratios = alone.iter().zip(&read).map(|(alone, read)| read / alone).collect();
    println!(
        "refused bounces a second: {:.0} alone, {:.0} with a reader; ratio {:.3}",
        median(alone),
        median(read),
        median(ratios)
    );
    for (page, times) in PAGES.iter().zip(times) {
        let most = times.iter().copied().fold(0.0, f64::max);
        println!("{page:24} median {:5.1} ms, most {most:5.1} ms", median(times));
    }
    // Without the flood.
    for page in PAGES {
        let times = (0..20).map(|_| get(status, page).1).collect();
        println!("{page:24} at rest {:4.1} ms, {} octets", median(times), get(status, page).0.len());
    }
    drop(daemon);
    ExitCode::SUCCESS
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// Sends false bounces for a round, and does something meanwhile. Returns how many were refused per second.
fn flood(port: u16, mut meanwhile: impl FnMut()) -> f64 {
    let (over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (over, refused) = (Arc::clone(&over), Arc::clone(&refused));
            std::thread::spawn(move || {
                let mut client = connect(port, &format!("203.0.{n}.7"));
                while !over.load(Ordering::Relaxed) {
                    say(&mut client, "MAIL FROM:<>");
                    say(&mut client, &format!("RCPT TO:<user{}@our.example>", refused.load(Ordering::Relaxed) % 50));
                    say(&mut client, "DATA");
                    assert!(say(&mut client, DSN).starts_with("550"));
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while began.elapsed() < ROUND {
        meanwhile();
        pause(Duration::from_millis(5));
    }
    over.store(true, Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    refused.load(Ordering::Relaxed) as f64 / seconds
}

const DSN: &str = "From: MAILER-DAEMON@mx.example\r\nSubject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nsorry\r\n--b\r\n\
    Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
    Final-Recipient: rfc822; x@else.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b\r\n\
    Content-Type: message/rfc822\r\n\r\nReceived: from pc.dyn.example by mx.example\r\nFrom: ann@our.example\r\n\
    Message-ID: <1@dyn.example>\r\n\r\nBuy\r\n--b--\r\n.";

/// Fills the list of decisions: bounces to tags that were not made here, in batches that are written once a second.
fn fill(port: u16) {
    let mut client = connect(port, "198.51.100.7");
    for batch in 0..DECISIONS / 4_000 {
        let began = Instant::now();
        for n in 0..4_000 {
            say(&mut client, "MAIL FROM:<>");
            assert!(say(&mut client, &format!("RCPT TO:<prvs=1786{n:06x}=u{batch}@our.example>")).starts_with('5'));
            say(&mut client, "RSET");
        }
        pause(Duration::from_millis(1100).saturating_sub(began.elapsed()));
    }
}

fn connect(port: u16, address: &str) -> BufReader<TcpStream> {
    let mut client = BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("the proxy"));
    client.get_ref().set_nodelay(true).expect("an option");
    read_reply(&mut client);
    for line in ["EHLO bench.example", &format!("XCLIENT ADDR={address}"), "EHLO bench.example"] {
        say(&mut client, line);
    }
    client
}

fn say(client: &mut BufReader<TcpStream>, line: &str) -> String {
    client.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("the proxy reads");
    read_reply(client)
}

fn read_reply(client: &mut BufReader<TcpStream>) -> String {
    loop {
        let mut line = String::new();
        client.read_line(&mut line).expect("a reply");
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}

/// A page, and how long it took, in milliseconds.
fn get(port: u16, page: &str) -> (String, f64) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the status listener");
    write!(stream, "GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    (text, began.elapsed().as_secs_f64() * 1e3)
}

/// A mail server that takes everything.
fn sink() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    stream.write_all(b"220 sink.example\r\n").ok()?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        stream.write_all(b"250 ok\r\n").ok()?;
    }
}

fn start(folder: &Path, sink: u16, smtp: u16, status: u16) -> Daemon {
    let config = format!(
        "domains.local = [\"our.example\"]\nkeys.ring = \"ring.toml\"\ninbound.mode = \"enforce\"\nlog.level = \"error\"\n\
         inbound.guesses_per_minute = 0\nlimits = {{ commands = 100000000, refused_recipients = 0 }}\n\
         status.listen = \"127.0.0.1:{status}\"\n[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:{smtp}\"\n\
         next_hop = \"127.0.0.1:{sink}\"\ntrusted_proxies = [\"127.0.0.1\"]\n"
    );
    fs::write(folder.join("countersign.toml"), config).expect("a config");
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.current_dir(folder).stdout(Stdio::null());
        command
    };
    assert!(program().args(["keys", "init", "--ring", "ring.toml"]).status().expect("keys init").success());
    let child = program().args(["serve", "-c", "countersign.toml"]).spawn().expect("the daemon");
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", smtp)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the daemon does not listen");
        pause(Duration::from_millis(20));
    }
    Daemon(child)
}

/// Waits for a while, on a clock: this is a load, not a test that waits for something.
fn pause(time: Duration) {
    let due = Instant::now() + time;
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
