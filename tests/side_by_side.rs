//! Dialogues with a real Postfix, directly and through the proxy: the replies must be equal, except for the exceptions
//! declared here with their reasons.

use std::collections::BTreeSet;

use crate::common::postfix::{Postfix, Role};
use crate::common::{Client, Daemon, can_run, folder, reserved_port, run_ok};

/// One step of a client.
#[derive(Debug, Clone)]
enum Step {
    /// A command, whose reply is awaited.
    Say(String),
    /// Several commands in one packet.
    Pipeline(Vec<String>),
    /// A message, if DATA was answered with 354.
    Body(&'static str),
    /// A command that is followed by octets.
    Chunk(String, &'static str),
}

use Step::{Body, Chunk, Pipeline, Say};

fn say(line: &str) -> Step {
    Say(line.to_owned())
}

/// Where the proxy's replies differ from those of this Postfix, and why that is right.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("EHLO", "the list of extensions: ETRN and VRFY are not passed on"),
    ("MAIL without a hello", "the next hop has to be told who the client is before, and is by the hello"),
    ("VRFY", "252 always: the answer would tell which addresses exist, and not what RCPT would say"),
    ("ETRN", "502: a queue run is no business of the internet"),
    ("AUTH=", "555: AUTH is not offered; Postfix takes the parameter all the same"),
    ("XCLIENT", "550 from everybody who is not in trusted_proxies"),
    (
        "PATH",
        "501 for an address without a domain, or that is none; Postfix completes and mends some of them, and so a bounce to a bare `ann` would escape the rules",
    ),
    ("LINE", "500 for a command line longer than 2048 octets; Postfix takes the beginning of it"),
    ("BDAT", "other words, or another code for a chunk in a wrong place; the octets are swallowed by both"),
    ("LOCAL", "another text, or another code of the same class, for a mistake that the proxy answers itself"),
];

/// Runs a dialogue, and returns each command with its reply.
fn play(port: u16, steps: &[Step]) -> Vec<(String, Vec<String>)> {
    let mut client = Client::connect(port);
    let mut heard = Vec::new();
    let mut go_ahead = false;
    for step in steps {
        let (lines, sent): (Vec<String>, Vec<u8>) = match step {
            Say(line) => (vec![line.clone()], format!("{line}\r\n").into_bytes()),
            Pipeline(lines) => {
                (lines.clone(), lines.iter().map(|l| format!("{l}\r\n")).collect::<String>().into_bytes())
            }
            Body(_) if !go_ahead => continue,
            Body(text) => (vec!["end of data".into()], format!("{text}.\r\n").into_bytes()),
            Chunk(line, octets) => (vec![line.clone()], format!("{line}\r\n{octets}").into_bytes()),
        };
        if client.write(&sent).is_err() {
            heard.push((lines.concat(), vec!["closed".into()]));
            break;
        }
        for line in lines {
            match client.read_reply() {
                Ok(reply) => {
                    go_ahead = reply.starts_with("354");
                    heard.push((line, client.reply.clone()));
                }
                Err(_) => {
                    heard.push((line, vec!["closed".into()]));
                    return heard;
                }
            }
        }
    }
    heard
}

/// A reply without the parts that depend on time or on names.
fn normal(reply: &[String]) -> String {
    let mut text = reply.join("|");
    if let Some((head, _)) = text.split_once("queued as ") {
        text = format!("{head}queued as ID");
    }
    text
}

/// The code and the enhanced status of a reply.
fn codes(reply: &str) -> (&str, &str) {
    let status = reply.split(' ').nth(1).filter(|word| word.matches('.').count() == 2).unwrap_or("");
    (reply.get(..3).unwrap_or(reply), status)
}

/// The exception that covers a difference, if there is one.
fn exception(command: &str, hello: bool, direct: &str, proxied: &str) -> Option<&'static str> {
    let upper = command.to_uppercase();
    let name = match upper.split([' ', ':']).next().unwrap_or("") {
        "EHLO" => "EHLO",
        "MAIL" | "RCPT" | "DATA" if !hello => "MAIL without a hello",
        "VRFY" => "VRFY",
        "ETRN" => "ETRN",
        "MAIL" if upper.contains(" AUTH=") => "AUTH=",
        _ if upper.len() > 2048 => "LINE",
        "XCLIENT" | "XFORWARD" => "XCLIENT",
        "BDAT" => "BDAT",
        "MAIL" | "RCPT" if proxied.starts_with("501 5.1.") => "PATH",
        // Both refuse permanently.
        _ if direct.get(..1) == proxied.get(..1) && direct.starts_with('5') => "LOCAL",
        _ => return None,
    };
    EXCEPTIONS.iter().map(|(known, _)| *known).find(|known| *known == name)
}

const TEXT: &str = "Subject: x\r\n\r\nHello.\r\n";

fn dialogues() -> Vec<Vec<Step>> {
    let ehlo = || say("EHLO client.example");
    let mail = || say("MAIL FROM:<a@x.example>");
    let rcpt = || say("RCPT TO:<alice@dest.example>");
    let (data, quit) = (|| say("DATA"), || say("QUIT"));
    let mut all = Vec::new();
    let senders = [
        "<a@x.example>",
        "<>",
        "<a@x.example> SIZE=100",
        "<a@x.example> SIZE=99999999999",
        "<a@x.example> size=5",
        "<a@x.example> BODY=8BITMIME",
        "<a@x.example> BODY=7BIT",
        "<a@x.example> BODY=WHAT",
        "<a@x.example> RET=HDRS ENVID=q1",
        "<a@x.example> RET=WHAT",
        "<j\u{fc}rgen@x.example> SMTPUTF8",
        "<a@x.example> FOO=BAR",
        "<a@x.example> AUTH=<>",
        "<a@[127.0.0.1]>",
        "<a@x.example",
        "a@x.example",
        " <a@x.example>",
        "<\"quo ted\"@x.example>",
        "<@relay.example:a@x.example>",
        "<a b@x.example>",
        "<a@>",
        "<@x.example>",
        "<a@b@x.example>",
        "<a@x.example>x",
        "<a..b@x.example>",
        "<prvs=1234567890=a@x.example>",
        "<SRS0=AAAA=BB=x.example=a@y.example>",
        "",
        "<postmaster@x.example>",
        "<a@x..example>",
    ];
    for hello in ["EHLO client.example", "HELO client.example"] {
        for sender in senders {
            let sender = say(&format!("MAIL FROM:{sender}"));
            all.push(vec![say(hello), sender, rcpt(), data(), Body(TEXT), quit()]);
        }
    }
    let recipients = [
        "<alice@dest.example>",
        "<ALICE@DEST.EXAMPLE>",
        "<nobody@dest.example>",
        "<x@far.example>",
        "<postmaster>",
        "<>",
        "<alice@dest.example> NOTIFY=NEVER",
        "<alice@dest.example> NOTIFY=WHAT",
        "<alice@dest.example> ORCPT=rfc822;b@y.example",
        "<alice@dest.example> FOO=BAR",
        "alice@dest.example",
        " <alice@dest.example>",
        "<alice@dest.example",
        "<@relay.example:alice@dest.example>",
        "<alice%far.example@dest.example>",
        "<\"alice\"@dest.example>",
        "<alice@dest.example>x",
        "<al ice@dest.example>",
        "<alice@>",
        "<alice>",
        "<prvs=1000abcdef=alice@dest.example>",
        "<alice@[127.0.0.1]>",
        "",
        "<alice+tag@dest.example>",
    ];
    for recipient in recipients {
        let recipient = format!("RCPT TO:{recipient}");
        all.push(vec![ehlo(), mail(), say(&recipient), data(), Body(TEXT), quit()]);
        all.push(vec![
            ehlo(),
            Pipeline(vec!["MAIL FROM:<>".into(), recipient.clone(), "DATA".into()]),
            Body(TEXT),
            quit(),
        ]);
        let both =
            vec!["MAIL FROM:<a@x.example>".into(), recipient, "RCPT TO:<bob@dest.example>".into(), "DATA".into()];
        all.push(vec![ehlo(), Pipeline(both), Body(TEXT), quit()]);
    }
    let bodies = [
        TEXT,
        "",
        "\r\n",
        "no header\r\n",
        "..\r\n...\r\n.x\r\n",
        "Subject: x\r\n\r\n..\r\n",
        "Subject: \u{fc}\r\n\r\n\u{e4}\r\n",
        " folded first\r\n\r\nx\r\n",
        "A: b\r\n c\r\n\td\r\n\r\nx\r\n",
        "From a b\r\nSubject: x\r\n\r\nx\r\n",
        "Subject: x\r\n\r\na line\r\n\r\n\r\n",
    ];
    for body in bodies {
        all.push(vec![ehlo(), mail(), rcpt(), data(), Body(body), quit()]);
        let together = vec!["MAIL FROM:<a@x.example>".into(), "RCPT TO:<alice@dest.example>".into(), "DATA".into()];
        all.push(vec![
            ehlo(),
            Pipeline(together),
            Body(body),
            Pipeline(vec!["RSET".into(), "NOOP".into(), "QUIT".into()]),
        ]);
        if body.is_ascii() {
            let chunk = |text: &'static str, last: &str| Chunk(format!("BDAT {}{last}", text.len()), text);
            all.push(vec![ehlo(), mail(), rcpt(), chunk(body, " LAST"), quit()]);
            all.push(vec![ehlo(), mail(), rcpt(), chunk(TEXT, ""), chunk(body, ""), chunk("", " LAST"), quit()]);
        }
    }
    let odd = [
        "NOOP",
        "NOOP what",
        "HELP",
        "VRFY alice@dest.example",
        "EXPN list",
        "ETRN dest.example",
        "RSET",
        "RSET what",
        "QUIT now",
        "WHAT",
        "",
        "STARTTLS",
        "AUTH PLAIN AGEAYg==",
        "XCLIENT ADDR=192.0.2.1",
        "XFORWARD ADDR=192.0.2.1",
        "EHLO",
        "HELO",
        "MAIL",
        "RCPT",
        "DATA",
        "DATA now",
        "MAIL FROM",
        "MAIL TO:<a@x.example>",
        "RCPT FROM:<a@x.example>",
        "BDAT",
        "BDAT x",
        "BDAT 0",
        "BDAT 0 LAST",
        "LHLO x",
        "BURL x",
        "mail from:<a@x.example>",
        "EHLO other.example",
        "HELO other.example",
    ];
    for line in odd {
        // Before EHLO, after it, in a transaction, and after its recipient.
        for before in 0..4 {
            let mut steps: Vec<Step> = [ehlo(), mail(), rcpt()].into_iter().take(before).collect();
            steps.push(say(line));
            steps.extend((line == "DATA").then_some(Body(TEXT)));
            steps.extend([mail(), rcpt(), data(), Body(TEXT), quit()]);
            all.push(steps);
        }
    }
    all.push(vec![mail(), rcpt(), data(), Body(TEXT), quit()]);
    all.push(vec![ehlo(), mail(), rcpt(), data(), Body(TEXT), mail(), rcpt(), data(), Body(TEXT), quit()]);
    all.push(vec![ehlo(), say(&format!("NOOP {}", "x".repeat(3000))), mail(), quit()]);
    all.push(vec![ehlo(), Pipeline(vec!["NOOP".into(); 60]), quit()]);
    all.push(vec![
        ehlo(),
        mail(),
        say("RCPT TO:<nobody@dest.example>"),
        data(),
        say("RSET"),
        mail(),
        rcpt(),
        data(),
        Body(TEXT),
        quit(),
    ]);
    all
}

#[test]
fn the_proxy_says_what_the_next_hop_says() {
    if !can_run(&["postfix"], "the_proxy_says_what_the_next_hop_says") {
        return;
    }
    let folder = folder();
    let port = reserved_port();
    let role = Role {
        name: "mx",
        domain: "dest.example",
        mailboxes: &["alice", "bob", "postmaster"],
        ports: &[(
            port,
            "smtpd_relay_restrictions=reject_unauth_destination mynetworks= smtpd_error_sleep_time=0 smtpd_hard_error_limit=1000 smtpd_soft_error_limit=1000 smtpd_client_connection_count_limit=0",
        )],
        relayhost: 0,
        extra: "",
        ..Role::default()
    };
    let postfix = Postfix::start(folder.path(), &role);
    run_ok(folder.path(), &["keys", "init"]);
    // No domain in these dialogues is local, so nothing is changed.
    let config = format!(
        "[domains]\nlocal = [\"our.example\"]\n[inbound]\nforeign = \"pass\"\n[[listener]]\nrole = \"inbound\"\n\
         listen = \"127.0.0.1:0\"\nclients = [\"127.0.0.0/8\"]\nnext_hop = \"127.0.0.1:{port}\"\n"
    );
    let daemon = Daemon::start(folder.path(), &config);
    let dialogues = dialogues();
    assert!(dialogues.len() >= 200, "{}", dialogues.len());
    let (mut differences, mut used, mut same) = (Vec::new(), BTreeSet::new(), 0);
    for steps in &dialogues {
        let (direct, proxied) = (play(port, steps), play(daemon.ports[0], steps));
        let mut hello = false;
        for ((command, direct), (_, proxied)) in direct.iter().zip(&proxied) {
            let (direct, proxied) = (normal(direct), normal(proxied));
            if direct == proxied {
                same += 1;
            } else if let Some(name) = exception(command, hello, &direct, &proxied) {
                used.insert(name);
                if codes(&direct) != codes(&proxied) {
                    // From here on, the two are in different states.
                    break;
                }
            } else {
                differences
                    .push(format!("{command:?}: {direct:?} directly, {proxied:?} through the proxy; in {steps:?}"));
                break;
            }
            hello |= command.to_uppercase().contains("LO ") && proxied.starts_with("250");
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}\n{}", differences.len(), differences.join("\n"), postfix.log());
    assert!(same > 1000, "{same}");
    let unused: Vec<&str> = EXCEPTIONS.iter().map(|(name, _)| *name).filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "exceptions that are none any more: {unused:?}");
    eprintln!("{} dialogues, {same} replies the same, exceptions: {used:?}", dialogues.len());
}
