//! Real clients through the proxies to real mail servers, in all combinations. `docs/matrix.md` has the table, which
//! this test compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::mtas::{self, DOMAIN, MAILBOXES, Server, find_message};
use crate::common::postfix::{Postfix, Role};
use crate::common::{Daemon, folder, poll_for, reserved_port, run_ok};

/// Clients, and the extensions that they use if offered.
const CLIENTS: &[(&str, &str)] = &[
    ("Postfix smtp(8)", "PIPELINING, SIZE=, ORCPT="),
    ("Exim", "PIPELINING, BDAT with QUIT in the same packet"),
    ("OpenSMTPD", "one command at a time"),
    ("swaks", "one command at a time"),
    ("swaks --pipeline", "PIPELINING"),
    ("msmtp", "PIPELINING"),
    ("Python smtplib", "SIZE="),
    ("smtp-source", "HELO"),
];
/// LMTP clients.
const LMTP_CLIENTS: &[(&str, &str)] = &[
    ("Postfix lmtp(8)", "PIPELINING, ORCPT="),
    ("swaks --protocol LMTP", "one command at a time"),
    ("msmtp --protocol=lmtp", "PIPELINING"),
    ("Python smtplib.LMTP", "one command at a time"),
];
/// Next hops, and the extensions that they offer.
const HOPS: &[(&str, &str)] = &[
    ("Postfix", "PIPELINING, CHUNKING, SMTPUTF8, DSN, XCLIENT"),
    ("Exim", "PIPELINING, CHUNKING, SMTPUTF8"),
    ("OpenSMTPD", "DSN; no PIPELINING"),
];

fn markdown() -> String {
    let mut text = String::from("| client | uses | next hops |\n| --- | --- | --- |\n");
    let hops: Vec<&str> = HOPS.iter().map(|(name, _)| *name).collect();
    for (client, uses) in CLIENTS {
        text.push_str(&format!("| {client} | {uses} | {} |\n", hops.join(", ")));
    }
    for (client, uses) in LMTP_CLIENTS {
        text.push_str(&format!("| {client} | {uses} | Dovecot LMTP |\n"));
    }
    text
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/matrix.md")).unwrap();
    assert!(page.contains(&markdown()), "docs/matrix.md should have this table:\n\n{}", markdown());
    for (hop, offers) in HOPS {
        assert!(page.contains(&format!("- {hop}: {offers}\n")), "docs/matrix.md: {hop}: {offers}");
    }
}

/// A mail server behind the proxy.
enum Hop {
    Postfix(Postfix),
    Other(Server),
}

impl Hop {
    fn folder(&self) -> PathBuf {
        match self {
            Self::Postfix(postfix) => postfix.folder().to_owned(),
            Self::Other(server) => server.folder.clone(),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Postfix(postfix) => postfix.log(),
            Self::Other(server) => server.log(),
        }
    }
}

fn start_hop(name: &str, base: &Path, port: u16) -> Hop {
    match name {
        "Postfix" => Hop::Postfix(Postfix::start(
            base,
            &Role {
                name: "postfix-server",
                domain: DOMAIN,
                mailboxes: &MAILBOXES,
                ports: &[(
                    port,
                    "smtpd_relay_restrictions=reject_unauth_destination mynetworks= smtpd_authorized_xclient_hosts=127.0.0.0/8",
                )],
                relayhost: 9,
                extra: "",
                ..Role::default()
            },
        )),
        "Exim" => Hop::Other(mtas::exim_server(base, port, false)),
        "OpenSMTPD" => Hop::Other(mtas::opensmtpd_server(base, port)),
        "Dovecot" => Hop::Other(mtas::dovecot(base, port)),
        _ => unreachable!("{name}"),
    }
}

/// A client with its message and its settings.
struct Sender<'a> {
    base: &'a Path,
    port: u16,
    message: PathBuf,
}

const FROM: &str = "ann@our.example";

impl Sender<'_> {
    /// Sends a message. `Err`: it was refused, and this is the client's output.
    fn send(&self, client: &str, to: &str) -> Result<(), String> {
        let (port, message) = (self.port, self.message.as_path());
        match client {
            "Postfix smtp(8)" => self.postfix(to, "smtp"),
            "Postfix lmtp(8)" => self.postfix(to, "lmtp"),
            "Exim" => done(&mtas::exim_send(self.base, port, FROM, to, message, &["hosts_avoid_tls = *"])),
            "OpenSMTPD" => self.opensmtpd(to),
            "swaks" => done(&mtas::swaks(port, FROM, to, message, &[])),
            "swaks --pipeline" => done(&mtas::swaks(port, FROM, to, message, &["--pipeline"])),
            "swaks --protocol LMTP" => done(&mtas::swaks(port, FROM, to, message, &["--protocol", "LMTP"])),
            "msmtp" => done(&mtas::msmtp(port, FROM, to, message, &["--tls=off", "--auth=off"])),
            "msmtp --protocol=lmtp" => {
                done(&mtas::msmtp(port, FROM, to, message, &["--tls=off", "--auth=off", "--protocol=lmtp"]))
            }
            "Python smtplib" => done(&mtas::smtplib("SMTP", port, FROM, to, message)),
            "Python smtplib.LMTP" => done(&mtas::smtplib("LMTP", port, FROM, to, message)),
            "smtp-source" => {
                let text = fs::read_to_string(message).unwrap();
                let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
                done(&mtas::smtp_source(port, FROM, to, subject))
            }
            _ => unreachable!("{client}"),
        }
    }

    /// Sends by a Postfix that relays all mail through the proxy; the result is read from its log.
    fn postfix(&self, to: &str, transport: &str) -> Result<(), String> {
        let submission = reserved_port();
        let postfix = Postfix::start(
            self.base,
            &Role {
                name: &format!("postfix-{transport}-{}", self.port),
                domain: "client.example",
                mailboxes: &[],
                ports: &[(submission, "smtpd_relay_restrictions=permit_mynetworks,reject")],
                relayhost: 0,
                extra: &format!("default_transport = {transport}:[127.0.0.1]:{}", self.port),
                ..Role::default()
            },
        );
        done(&mtas::swaks(submission, FROM, to, &self.message, &[]))?;
        poll_for("the outcome", || {
            let log = postfix.log();
            let line = log.lines().find(|line| line.contains(&format!("to=<{to}>")) && line.contains("status="))?;
            Some(if line.contains("status=sent") { Ok(()) } else { Err(line.to_owned()) })
        })
    }

    fn opensmtpd(&self, to: &str) -> Result<(), String> {
        let port = reserved_port();
        let url = format!("smtp+notls://127.0.0.1:{}", self.port);
        let server = mtas::opensmtpd_relay(self.base, port, &url, "");
        done(&mtas::swaks(port, FROM, to, &self.message, &[]))?;
        poll_for("the outcome", || {
            let log = server.log();
            let line = log.lines().find(|line| line.contains("mta delivery") && line.contains(to))?;
            Some(if line.contains("result=\"Ok\"") { Ok(()) } else { Err(line.to_owned()) })
        })
    }
}

fn done(output: &Output) -> Result<(), String> {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

fn config(hops: &[u16], lmtp: u16) -> String {
    let mut text = "[domains]\nlocal = [\"our.example\"]\n".to_owned();
    for hop in hops {
        text.push_str(&format!(
            "[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{hop}\"\n"
        ));
    }
    text.push_str(&format!(
        "[[listener]]\nrole = \"outbound\"\nprotocol = \"lmtp\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{lmtp}\"\n"
    ));
    text
}

/// Sends one message that is accepted and one that is refused.
fn cell(base: &Path, client: &str, hop: &Hop, port: u16) {
    let token = format!("cell-{port}-{}", client.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let message = base.join(format!("{token}.eml"));
    let body: String = (0..50).map(|n| format!("Line {n}, with a dot below.\n.\n..\n")).collect();
    fs::write(&message, format!("From: {FROM}\nTo: alice@{DOMAIN}\nSubject: {token}\n\n{body}")).unwrap();
    let sender = Sender { base, port, message };
    sender.send(client, &format!("alice@{DOMAIN}")).unwrap_or_else(|said| panic!("{client}: {said}\n{}", hop.log()));
    let text = poll_for(&format!("{token} in the mailbox: {}", hop.log()), || {
        find_message(&hop.folder(), "alice", &format!("Subject: {token}"))
    });
    let return_path = text.lines().find(|line| line.to_lowercase().starts_with("return-path:")).unwrap();
    assert!(return_path.contains("<prvs=1") && return_path.contains("=ann@our.example>"), "{client}: {return_path}");
    if client != "smtp-source" {
        let got = text.replace("\r\n", "\n");
        // A client that reads the message from a file may treat its last line end as its own.
        assert!(got.contains(body.trim_end()), "{client}: the body is not what it was:\n{got}");
    }
    let said = sender.send(client, &format!("nobody@{DOMAIN}")).expect_err("nobody is there");
    assert!(said.contains("550") || said.contains("refused") || client == "smtp-source", "{client}: {said}");
}

#[test]
fn each_client_reaches_each_next_hop() {
    if !mtas::can_run_all("each_client_reaches_each_next_hop") {
        return;
    }
    let folder = folder();
    let base = folder.path();
    run_ok(base, &["keys", "init"]);
    let ports: Vec<u16> = HOPS.iter().map(|_| reserved_port()).collect();
    let lmtp = reserved_port();
    let hops: Vec<Hop> = HOPS.iter().zip(&ports).map(|((name, _), port)| start_hop(name, base, *port)).collect();
    let dovecot = start_hop("Dovecot", base, lmtp);
    let daemon = Daemon::start(base, &config(&ports, lmtp));
    // Half of the time is spent waiting, so the cells run in parallel.
    std::thread::scope(|scope| {
        for (hop, port) in hops.iter().zip(&daemon.ports) {
            scope.spawn(|| CLIENTS.iter().for_each(|(client, _)| cell(base, client, hop, *port)));
        }
        let port = *daemon.ports.last().unwrap();
        LMTP_CLIENTS.iter().for_each(|(client, _)| cell(base, client, &dovecot, port));
    });
}
