//! Compares the proxies with HAProxy in TCP mode: throughput, latency, CPU time and memory. The rounds alternate
//! between the targets.
//!
//! Client and sink are threads of this process; each proxy is a process of its own, on loopback. `scripts/bench` runs
//! the benchmark, and installs HAProxy if it is missing. The speed of a machine varies over time, so each ratio is the
//! median of the ratios of all rounds.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The mail of one round.
struct Workload {
    name: &'static str,
    sessions: usize,
    /// Messages per round.
    messages: usize,
    size: usize,
    /// Messages per second on a fixed schedule; `None`: as fast as possible.
    rate: Option<f64>,
    /// Whether each message has its own session.
    fresh: bool,
    /// Whether MAIL, RCPT and DATA are sent in one packet.
    pipelined: bool,
}

const BASE: Workload =
    Workload { name: "20x1k", sessions: 20, messages: 8000, size: 1000, rate: None, fresh: false, pipelined: false };
const WORKLOADS: &[Workload] = &[
    BASE,
    Workload { name: "20x1k-pipelined", pipelined: true, ..BASE },
    Workload { name: "20x1k-new", messages: 3000, fresh: true, ..BASE },
    Workload { name: "20x1m", messages: 400, size: 1 << 20, ..BASE },
    Workload { name: "rate500", messages: 500, rate: Some(500.0), ..BASE },
];

/// A target of the benchmark: the sink itself, or a proxy in front of it.
struct Target {
    name: &'static str,
    port: u16,
    process: Option<Child>,
    sender: String,
    recipient: String,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The results of one round.
#[derive(Clone, Default)]
struct Round {
    per_second: f64,
    /// CPU time of the proxy per message, in milliseconds.
    cpu: f64,
    /// The latency of each message, in microseconds.
    latencies: Vec<u64>,
}

fn main() -> ExitCode {
    let rounds = argument("--rounds").and_then(|n| n.parse().ok()).unwrap_or(15);
    let only: Option<Vec<String>> = argument("--only").map(|names| names.split(',').map(str::to_owned).collect());
    if let Some(name) = only.iter().flatten().find(|name| WORKLOADS.iter().all(|workload| workload.name != **name)) {
        let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        eprintln!("there is no workload `{name}`; there are: {}", known.join(", "));
        return ExitCode::from(2);
    }
    // `cargo test --benches` runs this program, too; one short round then shows that it works.
    let trial = !std::env::args().any(|a| a == "--bench");
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink();
    let mut targets = vec![Target {
        name: "direct",
        port: sink,
        process: None,
        sender: "ann@our.example".into(),
        recipient: "bob@else.example".into(),
    }];
    match haproxy(folder.path(), sink) {
        Some(target) => targets.push(target),
        None => println!("HAProxy is not installed: there is nothing to compare with (scripts/bench gets it)"),
    }
    targets.extend(countersign(folder.path(), sink));
    for workload in WORKLOADS.iter().filter(|w| only.as_ref().is_none_or(|only| only.iter().any(|name| name == w.name)))
    {
        let rounds = if trial { 1 } else { rounds };
        let workload = &Workload { messages: if trial { 20 } else { workload.messages }, ..*workload };
        let mut results: Vec<Vec<Round>> = vec![Vec::new(); targets.len()];
        for round in 0..=rounds {
            for (target, results) in targets.iter().zip(&mut results) {
                let measured = run(workload, target);
                // The first round is a warm-up.
                if round > 0 {
                    results.push(measured);
                }
            }
        }
        report(workload, &targets, &results);
    }
    ExitCode::SUCCESS
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn run(workload: &Workload, target: &Target) -> Round {
    let next = Arc::new(AtomicUsize::new(0));
    let cpu = cpu_seconds(target);
    let start = Instant::now();
    let sessions: Vec<_> = (0..workload.sessions)
        .map(|_| {
            let next = Arc::clone(&next);
            let (port, messages, rate) = (target.port, workload.messages, workload.rate);
            let (fresh, pipelined) = (workload.fresh, workload.pipelined);
            let message = message(target, workload);
            std::thread::spawn(move || {
                let mut latencies = Vec::new();
                let mut session = None;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= messages {
                        return latencies;
                    }
                    let mut due = Instant::now();
                    if let Some(rate) = rate {
                        due = start + Duration::from_secs_f64(n as f64 / rate);
                        wait_until(due);
                    }
                    let mut open = session.take().unwrap_or_else(|| Session::open(port));
                    open.send(&message, pipelined);
                    latencies.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
                    session = (!fresh).then_some(open);
                }
            })
        })
        .collect();
    let latencies = sessions.into_iter().flat_map(|s| s.join().expect("a session failed")).collect();
    let per_second = workload.messages as f64 / start.elapsed().as_secs_f64();
    let cpu = (cpu_seconds(target) - cpu) * 1000.0 / workload.messages as f64;
    Round { per_second, cpu, latencies }
}

/// The commands of one message, and its text including the final dot.
struct Message {
    commands: [String; 3],
    text: Vec<u8>,
}

fn message(target: &Target, workload: &Workload) -> Arc<Message> {
    let line = format!("{}\r\n", "x".repeat(98));
    let text = format!("Subject: measured\r\n\r\n{}.\r\n", line.repeat(workload.size / 100));
    Arc::new(Message {
        commands: [
            format!("MAIL FROM:<{}>\r\n", target.sender),
            format!("RCPT TO:<{}>\r\n", target.recipient),
            "DATA\r\n".into(),
        ],
        text: text.into_bytes(),
    })
}

struct Session {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Session {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the target listens");
        stream.set_nodelay(true).expect("TCP");
        let replies = BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut session = Self { stream, replies };
        session.expect("220");
        session.say(b"EHLO bench.example\r\n", "250");
        session
    }

    fn send(&mut self, message: &Message, pipelined: bool) {
        if pipelined {
            self.stream.write_all(message.commands.concat().as_bytes()).expect("the target reads");
            ["250", "250", "354"].into_iter().for_each(|code| self.expect(code));
        } else {
            for (command, code) in message.commands.iter().zip(["250", "250", "354"]) {
                self.say(command.as_bytes(), code);
            }
        }
        self.say(&message.text, "250");
    }

    fn say(&mut self, octets: &[u8], code: &str) {
        self.stream.write_all(octets).expect("the target reads");
        self.expect(code);
    }

    fn expect(&mut self, code: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            self.replies.read_line(&mut line).expect("the target answers");
            assert!(line.starts_with(code), "{code} expected, not {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return;
            }
        }
    }
}

/// Starts a mail server that accepts every message with as little work as possible, and returns its port.
fn sink() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.write_all(b"220 sink.example\r\n").ok()?;
    let (mut unread, mut buffer, mut in_data) = (Vec::new(), vec![0; 1 << 16], false);
    loop {
        let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
        unread.extend_from_slice(&buffer[..n]);
        let mut replies = Vec::new();
        loop {
            if in_data {
                let Some(end) = memchr::memmem::find(&unread, b"\r\n.\r\n") else {
                    // The last four octets may be the beginning of the end of data.
                    unread.drain(..unread.len().saturating_sub(4));
                    break;
                };
                unread.drain(..end + 5);
                in_data = false;
                replies.extend_from_slice(b"250 queued\r\n");
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &unread) else { break };
            replies.extend_from_slice(match unread.get(..4) {
                Some(b"EHLO") => b"250-sink.example\r\n250 PIPELINING\r\n".as_slice(),
                Some(b"DATA") => {
                    in_data = true;
                    b"354 go\r\n"
                }
                Some(b"QUIT") => return stream.write_all(b"221 bye\r\n").ok(),
                _ => b"250 ok\r\n",
            });
            unread.drain(..=end);
        }
        stream.write_all(&replies).ok()?;
    }
}

fn haproxy(folder: &Path, sink: u16) -> Option<Target> {
    let program = ["/usr/sbin/haproxy", "/usr/bin/haproxy"].map(PathBuf::from).into_iter().find(|p| p.exists())?;
    let port = free_port();
    let config = format!(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n\
         listen smtp\n  bind 127.0.0.1:{port}\n  server sink 127.0.0.1:{sink}\n"
    );
    fs::write(folder.join("haproxy.cfg"), config).expect("a file");
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg")).stderr(Stdio::null());
    Some(start("haproxy", command, port, "ann@our.example", "bob@else.example"))
}

/// Starts an outbound proxy that signs each sender, and an inbound proxy where each recipient has a valid tag.
fn countersign(folder: &Path, sink: u16) -> [Target; 2] {
    let program = env!("CARGO_BIN_EXE_countersign");
    let keys = Command::new(program).current_dir(folder).args(["keys", "init"]).output().expect("it runs");
    assert!(keys.status.success());
    // With `--log info`, each decision and each message has a line, in a file.
    let level = argument("--log").unwrap_or_else(|| "warn".to_owned());
    ["outbound", "inbound"].map(|role| {
        let port = free_port();
        let config = format!(
            "log.level = \"{level}\"\n[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"enforce\"\n[[listener]]\n\
             role = \"{role}\"\nlisten = \"127.0.0.1:{port}\"\nnext_hop = \"127.0.0.1:{sink}\"\n"
        );
        let file = format!("{role}.toml");
        fs::write(folder.join(&file), config).expect("a file");
        let mut command = Command::new(program);
        command.current_dir(folder).args(["serve", "-c", &file]);
        command.stderr(fs::File::create(folder.join(format!("{role}.log"))).expect("a file"));
        let (sender, recipient) = match role {
            "outbound" => ("ann@our.example".to_owned(), "bob@else.example".to_owned()),
            _ => (String::new(), signed(folder, &file)),
        };
        start(role, command, port, &sender, &recipient)
    })
}

/// The signed address of ann@our.example.
fn signed(folder: &Path, config: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .current_dir(folder)
        .args(["sign", "-c", config, "--json", "ann@our.example"])
        .output()
        .expect("it runs");
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    line["result"].as_str().expect("an address").to_owned()
}

fn start(name: &'static str, mut command: Command, port: u16, sender: &str, recipient: &str) -> Target {
    let process = command.stdout(Stdio::null()).spawn().expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{name} does not listen");
        std::thread::yield_now();
    }
    Target { name, port, process: Some(process), sender: sender.into(), recipient: recipient.into() }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// CPU time of the target's process so far, in seconds.
fn cpu_seconds(target: &Target) -> f64 {
    let Some(process) = &target.process else { return 0.0 };
    let text = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of the target's process, in MiB.
fn memory(target: &Target) -> f64 {
    let Some(process) = &target.process else { return 0.0 };
    let text = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Waits for a moment on the clock: with a fixed rate, time is what is measured. Nobody unparks the thread, and one that
/// wakes early waits again.
fn wait_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(workload: &Workload, targets: &[Target], results: &[Vec<Round>]) {
    let base = targets.iter().position(|target| target.name == "haproxy").unwrap_or(0);
    println!("\n{} ({} rounds of {} messages)", workload.name, results[0].len(), workload.messages);
    let base_name = targets[base].name;
    println!(
        "{:10} {:>11} {:>10} {:>11} {:>9} {:>8} {:>8} {:>6}",
        "",
        "messages/s",
        format!("x {base_name}"),
        "CPU ms/msg",
        "x CPU",
        "p50 us",
        "p99 us",
        "MB"
    );
    for (target, rounds) in targets.iter().zip(results) {
        let per_round = |value: fn(&Round) -> f64| {
            median(rounds.iter().zip(&results[base]).map(|(a, b)| value(a) / value(b)).collect())
        };
        let total = |rounds: &[Round]| rounds.iter().map(|round| round.cpu).sum::<f64>();
        let mut latencies: Vec<u64> = rounds.iter().flat_map(|round| round.latencies.clone()).collect();
        latencies.sort_unstable();
        let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0);
        println!(
            "{:10} {:11.0} {:10.3} {:11.3} {:9.2} {:8} {:8} {:6.1}",
            target.name,
            median(rounds.iter().map(|round| round.per_second).collect()),
            per_round(|round| round.per_second),
            total(rounds) / rounds.len() as f64,
            total(rounds) / total(&results[base]),
            at(0.5),
            at(0.99),
            memory(target)
        );
    }
}
