//! Starting, restarting and stopping under a service manager, and the cost of sessions.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::{At, Client, Daemon, Does, NextHop, PATIENCE, PROGRAM, Signal, Sink, folder, run, run_ok, tcp};

fn config(listen: &str, next_hop: u16) -> String {
    format!(
        "[domains]\nlocal = [\"our.example\"]\n[timeouts]\ndrain = \"5s\"\n[[listener]]\nrole = \"outbound\"\n\
         listen = \"{listen}\"\nclients = [\"127.0.0.0/8\"]\nnext_hop = \"127.0.0.1:{next_hop}\"\n"
    )
}

/// Passes a socket as systemd does: as descriptor 3, with its name in the environment.
fn with_socket(socket: &TcpListener) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp exec \"$0\" \"$@\"";
    command.args(["-c", script, PROGRAM]);
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    command
}

#[test]
fn a_restart_refuses_no_connection() {
    let (folder, sink) = (folder(), Sink::start());
    run_ok(folder.path(), &["keys", "init"]);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let text = config("systemd:smtp", sink.port);
    let mut daemon = Daemon::start_by(with_socket(&socket), folder.path(), &text);
    let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, taken) = (stop.clone(), taken.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let stream = tcp(port).expect("a connection was refused");
                    let mut client = Client::over(stream);
                    // A session that has just begun may be deferred.
                    let said = client.read_reply().and_then(|greeting| {
                        assert!(greeting.starts_with("220 ") || greeting.starts_with("421 4.3.2 "), "{greeting}");
                        client.try_say("EHLO client.example")?;
                        client.send("ann@our.example", "b@else.example", "x")
                    });
                    if said.is_ok_and(|reply| reply.starts_with("250")) {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for restart in 1..=3 {
        sink.wait_for_more_than(sink.count() + 50);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait(), Some(0), "restart {restart}");
        daemon = Daemon::start_by(with_socket(&socket), folder.path(), &text);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(sink.all().len(), taken.load(Ordering::Relaxed), "each message that was taken, and no other");
    drop(daemon);
}

#[test]
fn a_socket_that_systemd_has_not_passed_is_named() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    std::fs::write(folder.path().join("countersign.toml"), config("systemd:smtp", 9)).unwrap();
    let output = run(folder.path(), &["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("cannot listen on systemd:smtp: systemd has passed no such socket"), "{error}");
}

#[test]
fn the_service_manager_hears_how_it_is() {
    let (folder, sink) = (folder(), Sink::start());
    run_ok(folder.path(), &["keys", "init"]);
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\"", PROGRAM]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let daemon = Daemon::start_by(command, folder.path(), &config("127.0.0.1:0", sink.port));
    let hear = |what: &str| {
        let (mut said, begun) = (String::new(), std::time::Instant::now());
        // The watchdog never falls silent.
        while !said.contains(what) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}, last: {said}");
            let mut buffer = [0; 256];
            let n = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("waited in vain for {what}: {error}"));
            said = String::from_utf8_lossy(&buffer[..n]).into_owned();
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    hear("RELOADING=1\nMONOTONIC_USEC=");
    hear("READY=1");
    daemon.signal(Signal::TERM);
    hear("STOPPING=1");
    assert_eq!(daemon.wait(), Some(0));
}

/// The private memory of a process, in KiB.
fn memory(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A next hop that reads everything and sends all replies.
fn patient_hop() -> NextHop {
    NextHop::script().offers(&["PIPELINING"]).keeps_no_messages().start()
}

/// A next hop that stops reading once a message is in progress.
fn stuck_hop() -> NextHop {
    // The kernel's buffer is small, so that the daemon has to buffer the rest.
    NextHop::script().offers(&[]).receive_buffer(4096).on(At::Body, Does::Stuck).start()
}

/// The memory of the daemon for each of so many sessions, all brought to the same state, in KiB.
fn cost(folder: &Path, sessions: usize, role: &str, next_hop: u16, bring: impl Fn(&mut Client)) -> usize {
    let text = config("127.0.0.1:0", next_hop).replace("\"outbound\"", &format!("\"{role}\""));
    let daemon = Daemon::start(folder, &text);
    let open = || {
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        bring(&mut client);
        client
    };
    // Shared memory is allocated by the first few sessions.
    let first: Vec<Client> = (0..20).map(|_| open()).collect();
    let before = memory(daemon.child.id());
    let more: Vec<Client> = (0..sessions).map(|_| open()).collect();
    let after = memory(daemon.child.id());
    drop((first, more));
    (after - before) / sessions
}

#[test]
fn a_session_costs_little_memory() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let idle = cost(folder.path(), 300, "outbound", patient_hop().port, |_| {});
    let envelope = |client: &mut Client| {
        for line in ["MAIL FROM:<ann@our.example>", "RCPT TO:<ben@our.example>", "DATA"] {
            client.say(line);
        }
        client.write(b"Subject: a large one\r\n\r\n").unwrap();
    };
    let line = format!("{}\r\n", "x".repeat(998));
    // The first four of a hundred megabytes, sent at once.
    let flowing = |client: &mut Client| {
        envelope(client);
        (0..40).for_each(|_| client.write(line.repeat(100).as_bytes()).unwrap());
    };
    // As much of a message as is accepted while the next hop does not read.
    let stuck = |client: &mut Client| {
        envelope(client);
        client.fill(line.repeat(16).as_bytes());
    };
    let out = cost(folder.path(), 40, "outbound", patient_hop().port, flowing);
    let come_in = cost(folder.path(), 40, "inbound", patient_hop().port, flowing);
    let stuck = cost(folder.path(), 30, "inbound", stuck_hop().port, stuck);
    eprintln!(
        "a session costs {idle} KiB when idle; in the middle of a message {out} KiB outbound, {come_in} KiB inbound, \
         {stuck} KiB if the next hop takes no more"
    );
    assert!(out <= 24 && come_in <= 24 && stuck <= 24);
    assert!(idle <= 24, "{idle} KiB");
}

#[test]
fn no_core_holds_the_keys() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !crate::common::can_run(&["setpriv"], "cores of the daemon") {
        return;
    }
    let (folder, sink) = (folder(), Sink::start());
    let program = crate::common::mtas::copied(Path::new(PROGRAM), folder.path());
    run_ok(folder.path(), &["keys", "init"]);
    for path in ["keys", "keys/ring.toml", "keys/ring.toml.lock"] {
        chown(folder.path().join(path), Some(65_534), Some(65_534)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    let daemon = Daemon::start_by(command, folder.path(), &config("127.0.0.1:0", sink.port));
    // A process that may dump core is readable by its user. This one must not be: root owns its files in /proc.
    let owner = std::fs::metadata(format!("/proc/{}/mem", daemon.child.id())).unwrap().uid();
    assert_eq!(owner, 0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    assert!(status.contains("\nUid:\t65534"), "{status}");
}
