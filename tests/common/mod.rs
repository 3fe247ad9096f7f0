//! Helpers of whole-program tests: a folder, a daemon, a scripted next hop, and a client.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod browser;
pub mod cases;
pub mod delivery;
pub mod guard;
pub mod mail_log;
pub mod map;
pub mod mtas;
pub mod name_server;
pub mod next_hop;
pub mod ports;
pub mod postfix;
pub mod site;
pub mod skip;
pub mod tls;
pub mod wait;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub use next_hop::{At, Does, Message, NextHop, Sink};
pub use ports::reserved_port;
pub use rustix::process::Signal;
pub use wait::{pace, poll_for};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");

/// A command that runs the program under test.
pub fn countersign() -> Command {
    alone(Command::new(PROGRAM))
}

/// Restricts a command that runs the program to a config in its working folder, so that tests cannot use the config or
/// key ring of this machine.
pub fn alone(mut command: Command) -> Command {
    command.env("NO_COLOR", "1").env("COUNTERSIGN_CONFIG_PATH", "countersign.toml");
    command
}

/// Runs the program in a folder, and returns its output and exit status.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    countersign().current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs the program, which must succeed, and returns its standard output.
pub fn run_ok(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A command that runs what follows under the system-call filter of the unit. `list`: the names of the calls.
pub fn under_filter(list: &Path) -> Command {
    // Debian's own: its module is not in others.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/under_unit_filter.py")).arg(list);
    command
}

/// A folder that other users may enter, as mail servers need.
pub fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::Builder::new().prefix("countersign-test-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Makes a folder in which sockets get this group, as the unit and the recipes have it.
pub fn folder_of_group(path: &Path, group: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path).unwrap();
    if let Some(group) = nix::unistd::Group::from_name(group).unwrap() {
        std::os::unix::fs::chown(path, None, Some(group.gid.as_raw())).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o2755)).unwrap();
    }
}

/// Lines of output that tests can wait for.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar, AtomicBool)>);

impl Lines {
    fn read(input: impl std::io::Read + Send + 'static) -> Self {
        let lines = Self::default();
        let store = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(input).lines().map_while(Result::ok) {
                store.0.0.lock().unwrap().push(line);
                store.0.1.notify_all();
            }
            let _last = store.0.0.lock();
            store.0.2.store(true, Ordering::Release);
            store.0.1.notify_all();
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits for the first line, from the `skip`th, for which `fits` is true.
    pub fn wait(&self, what: &str, skip: usize, fits: impl Fn(&str) -> bool) -> String {
        self.wait_with(what, |lines| lines.iter().skip(skip).find(|line| fits(line)).cloned())
    }

    /// Waits until `found` returns a value for all the lines.
    pub fn wait_with<T>(&self, what: &str, found: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = found(&lines) {
                return found;
            }
            let over = self.0.2.load(Ordering::Acquire);
            assert!(!over, "who writes the lines has ended, without {what}, after:\n{}", lines.join("\n"));
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what} in:\n{}", lines.join("\n"));
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// A running daemon, which is ended when dropped.
pub struct Daemon {
    pub child: Child,
    _guard: guard::Guard,
    pub log: Lines,
    pub ports: Vec<u16>,
}

impl Daemon {
    /// Starts the daemon with a config file, and waits until it listens.
    pub fn start(folder: &Path, config: &str) -> Self {
        // Set by the tests of the unit.
        let command = match std::env::var_os("COUNTERSIGN_UNDER_CALLS") {
            Some(list) => {
                let mut command = under_filter(Path::new(&list));
                command.arg(PROGRAM);
                command
            }
            None => countersign(),
        };
        Self::start_by(command, folder, config)
    }

    /// Starts the daemon by a command that ends in running the program.
    pub fn start_by(command: Command, folder: &Path, config: &str) -> Self {
        let listeners = config.matches("[[listener]]").count();
        let config = format!("log.format = \"json\"\n{config}");
        std::fs::write(folder.join("countersign.toml"), config).unwrap();
        let mut child = alone(command)
            .current_dir(folder)
            .args(["serve", "-c", "countersign.toml"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let guard = guard::Guard::process(&child);
        let log = Lines::read(child.stderr.take().unwrap());
        let ports = log.wait_with("the listeners", |lines| {
            let listening = lines.iter().filter(|line| line.contains("\"message\":\"listening\""));
            let ports: Vec<u16> = listening.map(|line| port_of(line)).collect();
            (ports.len() == listeners).then_some(ports)
        });
        Self { child, _guard: guard, log, ports }
    }

    pub fn signal(&self, signal: Signal) {
        guard::signal(&self.child, signal);
    }

    /// Waits for the end of the daemon, and returns its exit status.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// The port that a log line names; 0 for a path.
fn port_of(line: &str) -> u16 {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["listen"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap_or(0)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two directions of a connection.
pub trait Duplex: std::io::Read + std::io::Write + Send {
    /// Sets a timeout for writing.
    fn set_write_timeout(&self, _: Duration) {}
}

impl Duplex for TcpStream {
    fn set_write_timeout(&self, timeout: Duration) {
        TcpStream::set_write_timeout(self, Some(timeout)).unwrap();
    }
}

impl<C, S> Duplex for tokio_rustls::rustls::StreamOwned<C, TcpStream>
where
    C: std::ops::DerefMut<Target = tokio_rustls::rustls::ConnectionCommon<S>> + Send,
    S: tokio_rustls::rustls::SideData,
{
}

/// A scripted SMTP client.
pub struct Client {
    stream: BufReader<Box<dyn Duplex>>,
    /// All lines of the last reply.
    pub reply: Vec<String>,
}

impl Client {
    /// Connects, and reads the greeting.
    pub fn connect(port: u16) -> Self {
        let (client, greeting) = Self::try_connect(port).unwrap();
        assert!(greeting.starts_with("220 "), "{greeting}");
        client
    }

    /// Connects from another address of this machine.
    pub fn connect_from(address: [u8; 4], port: u16) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self::over(stream);
        client.read_reply().unwrap();
        client
    }

    pub fn try_connect(port: u16) -> std::io::Result<(Self, String)> {
        let mut client = Self::over(tcp(port)?);
        let greeting = client.read_reply()?;
        Ok((client, greeting))
    }

    /// Uses an open connection. Nothing is read yet.
    pub fn over(stream: impl Duplex + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)), reply: vec![] }
    }

    /// Sends a line, and returns the last line of the reply.
    pub fn say(&mut self, line: &str) -> String {
        self.try_say(line).unwrap()
    }

    pub fn try_say(&mut self, line: &str) -> std::io::Result<String> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.read_reply()
    }

    pub fn write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(octets)?;
        self.stream.get_mut().flush()
    }

    /// Writes octets repeatedly until no more are accepted for a while.
    pub fn fill(&mut self, octets: &[u8]) {
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Duration::from_millis(100));
        while retry(|| stream.write(octets)).is_ok() {}
    }

    pub fn read_reply(&mut self) -> std::io::Result<String> {
        self.reply.clear();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.reply.push(line.trim_end().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Whether the other side has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        retry(|| self.stream.read(&mut [0; 1])).is_ok_and(|n| n == 0)
    }

    /// Sends a whole message, and returns the reply that decided.
    pub fn send(&mut self, from: &str, to: &str, text: &str) -> std::io::Result<String> {
        for line in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".into()] {
            let reply = self.try_say(&line)?;
            if !reply.starts_with(['2', '3']) {
                return Ok(reply);
            }
        }
        self.try_say(&format!("{text}\r\n."))
    }
}

/// Repeats a call that was interrupted by a signal.
pub fn retry<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A connection to a port on this machine.
pub fn tcp(port: u16) -> std::io::Result<TcpStream> {
    let stream = retry(|| TcpStream::connect(("127.0.0.1", port)))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A delivery status notification.
pub fn dsn(action: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nsorry\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
         Final-Recipient: rfc822; x@else.example\r\nAction: {action}\r\nStatus: 5.1.1\r\n\r\n--b--\r\n"
    )
}

/// Whether this machine can run real mail servers. If not, prints which test is skipped.
pub fn can_run(programs: &[&str], test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let missing: Vec<&&str> = programs.iter().filter(|p| which(p).is_none()).collect();
    if root && missing.is_empty() {
        return true;
    }
    skip::skip(test, &format!("it needs root ({root}) and these programs: {missing:?}"));
    false
}

pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A signed outbound message without its evidence header: one line, at the end of its header block.
pub fn without_evidence(text: &str) -> String {
    let (before, rest) = text.split_once("Countersign-Evidence: v=1; k=").expect("the message carries evidence");
    let (line, after) = rest.split_once("\r\n").unwrap();
    assert!(before.ends_with("\r\n") && after.starts_with("\r\n"), "not the last header: {text}");
    assert!(line.len() == "1; d=000; n=; a=".len() + 32 && !after.contains("Countersign-Evidence"), "{text}");
    format!("{before}{after}")
}
