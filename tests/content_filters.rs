//! Content filters behind Countersign, which read its mark: rspamd and SpamAssassin with the rules in `packaging`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Client, Daemon, NextHop, can_run, dsn, folder, poll_for, reserved_port, run_ok, tcp, which};

/// A bounce to mail that never left, before Countersign and behind it.
fn false_bounce() -> [String; 2] {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let hop = NextHop::start();
    let config = format!(
        "domains.local = [\"our.example\"]\ninbound.mode = \"observe\"\n\
         [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n",
        hop.port
    );
    let daemon = Daemon::start(folder.path(), &config);
    let mut client = Client::connect(daemon.ports[0]);
    client.say("EHLO mail.else.example");
    let before = dsn("failed");
    assert!(client.send("", "ann@our.example", before.trim_end()).unwrap().starts_with("250"));
    let behind = hop.last().text;
    assert!(behind.starts_with("Countersign-Result: "), "{behind}");
    [before, behind]
}

/// The bounce with a mark that its sender has made up: Countersign removes it.
fn forged_mark(text: &str) -> String {
    format!("Countersign-Result: v=1; verdict=untagged; would=reject; reason=untagged-ndr\r\n{text}")
}

fn packaging(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

/// An rspamd with the configuration of its Debian package and our rules, without a network.
struct Rspamd {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Rspamd {
    fn start() -> Self {
        let (folder, port) = (folder(), reserved_port());
        let at = |name: &str| folder.path().join(name);
        for name in ["local.d", "run", "db", "log"] {
            fs::create_dir(at(name)).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let rules = format!("dofile('{}')\n", packaging("rspamd/countersign.lua").display());
        fs::write(at("rspamd.local.lua"), rules).unwrap();
        let local = |name: &str, text: &str| fs::write(at("local.d").join(name), text).unwrap();
        local("worker-normal.inc", &format!("bind_socket = \"127.0.0.1:{port}\";\ncount = 1;\n"));
        for worker in ["worker-controller.inc", "worker-proxy.inc", "worker-fuzzy.inc"] {
            local(worker, "enabled = false;\n");
        }
        local("options.inc", "dns { nameserver = [\"127.0.0.1:9\"]; timeout = 0.1s; retransmits = 1; }\n");
        local("logging.inc", &format!("type = \"file\";\nfilename = \"{}\";\n", at("log/rspamd.log").display()));
        let mut command = Command::new(which("rspamd").unwrap());
        command.args(["-f", "-i", "-c", "/etc/rspamd/rspamd.conf"]);
        for (name, place) in [("LOCAL_CONFDIR", "."), ("RUNDIR", "run"), ("DBDIR", "db"), ("LOGDIR", "log")] {
            command.arg(format!("--var={name}={}", at(place).display()));
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let rspamd = Self { child, port, folder };
        poll_for("rspamd", || tcp(port).ok());
        rspamd
    }

    /// The names of the symbols that a message has, with their scores.
    fn symbols(&self, text: &str) -> serde_json::Value {
        let mut stream = tcp(self.port).unwrap();
        let head = "POST /checkv2 HTTP/1.0\r\nFrom: <>\r\nRcpt: ann@our.example\r\nIP: 192.0.2.1";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let log = || fs::read_to_string(self.folder.path().join("log/rspamd.log")).unwrap_or_default();
        let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}\n{}", log()));
        answer["symbols"].clone()
    }
}

impl Drop for Rspamd {
    fn drop(&mut self) {
        // The main process ends its workers.
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn rspamd_knows_the_mark() {
    if !can_run(&["rspamd"], "rspamd_knows_the_mark") {
        return;
    }
    let rspamd = Rspamd::start();
    let [before, behind] = false_bounce();
    let score = |text: &str| rspamd.symbols(text)["COUNTERSIGN_FALSE_BOUNCE"]["score"].as_f64();
    assert_eq!(score(&before), None, "{}", rspamd.symbols(&before));
    assert_eq!(score(&behind), Some(8.0), "{}", rspamd.symbols(&behind));
    // In the returned message, the header means nothing.
    let inside = before.replace(
        "--b--",
        &format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{}\r\n--b--", forged_mark("x: y\r\n\r\nz")),
    );
    assert_eq!(score(&inside), None);
}

#[test]
fn spamassassin_knows_the_mark() {
    if !can_run(&["spamassassin"], "spamassassin_knows_the_mark") {
        return;
    }
    let folder = folder();
    // The plugins of the Debian package, and our rules alone.
    for file in fs::read_dir("/etc/spamassassin").unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "pre") {
            fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    fs::write(folder.path().join("user_prefs"), "").unwrap();
    fs::copy(packaging("spamassassin/countersign.cf"), folder.path().join("countersign.cf")).unwrap();
    let rules = |text: &str| {
        let mut child = Command::new(which("spamassassin").unwrap())
            .args(["--local", "--test-mode"])
            .arg(format!("--prefs-file={}", folder.path().join("user_prefs").display()))
            .arg(format!("--siteconfigpath={}", folder.path().display()))
            .env("HOME", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("Content analysis details"), "{said} {}", String::from_utf8_lossy(&output.stderr));
        said.contains(" 5.0 COUNTERSIGN_FALSE_BOUNCE")
    };
    let [before, behind] = false_bounce();
    assert!(!rules(&before) && rules(&behind));
}
