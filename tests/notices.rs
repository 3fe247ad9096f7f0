//! Notices to an administrator, by mail to a real Postfix and by HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::common::next_hop::{At, Does, NextHop};
use crate::common::postfix::{Postfix, Role};
use crate::common::{Daemon, Signal, can_run, folder, poll_for, reserved_port, run_ok};

/// An HTTP server that keeps what it is sent. It answers the first requests with 500. A request with the id of another
/// is a repeat after a kill, and counts once.
pub(crate) struct HttpSink {
    pub port: u16,
    bodies: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl HttpSink {
    pub(crate) fn start(failures: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let mut reader = BufReader::new(stream);
                // A daemon that is killed does not finish.
                let Some(body) = request(&mut reader) else { continue };
                let code = if n < failures { "500 Internal Server Error" } else { "204 No Content" };
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let mut kept = kept.lock().unwrap();
                if n >= failures && !kept.iter().any(|it: &serde_json::Value| it["id"] == body["id"]) {
                    kept.push(body);
                }
                drop(kept);
                let _ = write!(reader.get_mut(), "HTTP/1.1 {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { port, bodies }
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.bodies.lock().unwrap().iter().map(|body| body["event"].as_str().unwrap().to_owned()).collect()
    }
}

/// The body of an HTTP request. `None`: it ends too early.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        let line = line.to_ascii_lowercase();
        length = line.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn config(next_hop: u16, notify: &str) -> String {
    format!(
        "domains.local = [\"our.example\"]\n[notify]\n{notify}\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\n\
         next_hop = \"127.0.0.1:{next_hop}\"\n"
    )
}

/// Spoils the key ring, and mends it.
fn spoil(folder: &Path, daemon: &Daemon) {
    let ring = folder.join("keys/ring.toml");
    let text = std::fs::read_to_string(&ring).unwrap();
    let before = daemon.log.all().len();
    std::fs::write(&ring, "this is no key ring").unwrap();
    daemon.log.wait("the error", before, |line| line.contains("the key ring cannot be loaded"));
    // It is looked at once a second.
    let after = daemon.log.all().len();
    crate::common::wait::pace(std::time::Duration::from_millis(1500));
    std::fs::write(&ring, text).unwrap();
    daemon.log.wait("the ring", after, |line| line.contains("key ring loaded"));
}

fn enforce(folder: &Path) {
    run_ok(folder, &["keys", "ramp-start", "our.example"]);
    run_ok(folder, &["ramp", "enforce", "-c", "countersign.toml", "our.example"]);
}

#[test]
fn each_event_is_told_once_by_mail_and_by_http() {
    if !can_run(&["postfix"], "each_event_is_told_once_by_mail_and_by_http") {
        return;
    }
    let (folder, port, http) = (folder(), reserved_port(), HttpSink::start(0));
    let role =
        Role { name: "ours", domain: "our.example", mailboxes: &["admin"], ports: &[(port, "")], ..Role::default() };
    let postfix = Postfix::start(folder.path(), &role);
    run_ok(folder.path(), &["keys", "init"]);
    let notify = format!("mail_to = [\"admin@our.example\"]\nwebhook = \"http://127.0.0.1:{}/hook\"", http.port);
    let daemon = Daemon::start(folder.path(), &config(port, &notify));
    // A ring that flaps is one event.
    for _ in 0..3 {
        spoil(folder.path(), &daemon);
    }
    enforce(folder.path());
    let told = poll_for("both events", || Some(http.events()).filter(|events| events.len() >= 2));
    assert_eq!(told, ["ring-bad", "enforced"]);
    let mails = poll_for("both messages", || Some(postfix.mailbox("admin")).filter(|mails| mails.len() >= 2));
    assert_eq!(mails.len(), 2, "{mails:?}");
    let mail = mails.iter().find(|mail| mail.contains("the key ring cannot be read")).unwrap();
    assert!(mail.contains("From: Countersign on ") && mail.contains("<postmaster@our.example>"), "{mail}");
    assert!(mail.contains("Auto-Submitted: auto-generated") && mail.contains("countersign check"), "{mail}");
    assert!(mails.iter().any(|mail| mail.contains("our.example is enforced: false bounces are refused")));
    // After a restart, nothing is told again.
    drop(daemon);
    let daemon = Daemon::start(folder.path(), &config(port, &notify));
    spoil(folder.path(), &daemon);
    run_ok(folder.path(), &["ramp", "auto", "-c", "countersign.toml", "our.example"]);
    assert_eq!(http.events().len(), 2);
    assert_eq!(postfix.mailbox("admin").len(), 2);
}

#[test]
fn what_cannot_be_sent_now_is_sent_later_and_once() {
    let (folder, http) = (folder(), HttpSink::start(2));
    let hop = NextHop::script().offers(&["8BITMIME"]).start();
    run_ok(folder.path(), &["keys", "init"]);
    let notify = format!(
        "mail_to = [\"admin@else.example\", \"refused@else.example\", \"night@else.example\"]\nmail_from = \"ann@our.example\"\n\
         webhook = \"http://127.0.0.1:{}/\"",
        http.port
    );
    let daemon = Daemon::start(folder.path(), &config(hop.port, &notify));
    hop.next_session(At::Mail, Does::Says("451 4.3.0 try again later"));
    enforce(folder.path());
    daemon.log.wait("the failure", 0, |line| line.contains("cannot be sent by mail") && line.contains("451 4.3.0"));
    daemon.log.wait("the failure", 0, |line| line.contains("cannot be sent to the webhook") && line.contains("500"));
    poll_for("the request", || (!http.events().is_empty()).then_some(()));
    daemon.log.wait("the mail", 0, |line| line.contains("notice sent by mail"));
    assert_eq!((http.events(), hop.count()), (vec!["enforced".to_owned()], 1));
    let mail = hop.last();
    assert_eq!(mail.to, ["admin@else.example", "night@else.example"]);
    // As all mail of this site, it leaves with a tag, so that its bounces come back.
    assert!(mail.from.starts_with("prvs=") && mail.from.ends_with("=ann@our.example"), "{}", mail.from);
    assert!(mail.text.contains("To: admin@else.example, refused@else.example, night@else.example"), "{}", mail.text);
    // One bad address does not silence the others.
    daemon.log.wait("the refusal", 0, |line| line.contains("did not reach a recipient") && line.contains("refused@"));
}

#[test]
fn a_kill_while_a_notice_is_sent_repeats_it_with_the_same_id() {
    let folder = folder();
    // The first request is received and not answered.
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let hop = NextHop::start();
    run_ok(folder.path(), &["keys", "init"]);
    let webhook = format!("http://127.0.0.1:{}/", server.local_addr().unwrap().port());
    let text = config(hop.port, &format!("mail_to = [\"admin@else.example\"]\nwebhook = \"{webhook}\""));
    let receive = || {
        let mut reader = BufReader::new(server.accept().unwrap().0);
        let body: serde_json::Value = serde_json::from_slice(&request(&mut reader).unwrap()).unwrap();
        (reader, body)
    };
    let daemon = Daemon::start(folder.path(), &text);
    enforce(folder.path());
    let (unanswered, first) = receive();
    assert_eq!(first["event"], "enforced");
    daemon.signal(Signal::KILL);
    drop((daemon, unanswered));
    let daemon = Daemon::start(folder.path(), &text);
    let (mut answered, again) = receive();
    assert_eq!(again, first);
    write!(answered.get_mut(), "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    drop(answered);
    // The mail, which was not sent before, has the same id.
    hop.wait_for_more_than(0);
    let id = format!("Message-ID: <countersign.{}@our.example>", first["id"].as_str().unwrap());
    assert!(hop.last().text.contains(&id), "{} {id}", hop.last().text);
    // What is sent is not sent again: after another kill, only the next notice is.
    daemon.log.wait("the mail", 0, |line| line.contains("notice sent by mail"));
    spoil(folder.path(), &daemon);
    let (unanswered, first) = receive();
    assert_eq!(first["event"], "ring-bad");
    daemon.signal(Signal::KILL);
    drop((daemon, unanswered));
    let _daemon = Daemon::start(folder.path(), &text);
    assert_eq!(receive().1, first);
}

#[test]
fn a_changed_address_holds_after_a_reload() {
    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &config(hop.port, ""));
    let text = config(hop.port, "mail_to = [\"admin@else.example\"]");
    std::fs::write(folder.path().join("countersign.toml"), text).unwrap();
    let said = run_ok(folder.path(), &["reload", "-c", "countersign.toml"]);
    assert!(said.contains("In force now: notify.mail_to."), "{said}");
    // What is looked at for the first time is no news.
    crate::common::wait::pace(std::time::Duration::from_millis(1500));
    enforce(folder.path());
    hop.wait_for_more_than(0);
    assert!(hop.last().text.contains("our.example is enforced"), "{}", hop.last().text);
    drop(daemon);
}

#[test]
fn without_an_outbound_listener_the_config_names_the_mail_server() {
    let (folder, hop) = (folder(), NextHop::start());
    run_ok(folder.path(), &["keys", "init"]);
    let text = format!(
        "domains.local = [\"our.example\"]\n[notify]\nmail_to = [\"admin@else.example\"]\nmail_via = \"127.0.0.1:{}\"\n\
         [[listener]]\nprotocol = \"socketmap\"\nlisten = \"127.0.0.1:0\"\n",
        hop.port
    );
    let _daemon = Daemon::start(folder.path(), &text);
    enforce(folder.path());
    hop.wait_for_more_than(0);
    assert_eq!(hop.last().to, ["admin@else.example"]);
}

#[test]
fn a_notice_that_is_refused_does_not_hold_up_the_others() {
    let folder = folder();
    // The mail server takes everything but this one.
    let hop = NextHop::script().when(At::End, "is enforced", Does::Says("554 5.7.1 not this one")).start();
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(folder.path(), &config(hop.port, "mail_to = [\"admin@else.example\"]"));
    enforce(folder.path());
    daemon.log.wait("the refusal", 0, |line| line.contains("cannot be sent by mail") && line.contains("554 5.7.1"));
    spoil(folder.path(), &daemon);
    hop.wait_for_more_than(0);
    assert!(hop.last().text.contains("the key ring cannot be read"), "{}", hop.last().text);
}
