//! Attacks by hostile clients and hostile next hops, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::{At, Client, Daemon, Does, NextHop, Sink, folder, pace, run_ok, tcp};
use At::{Data, Ehlo, End, Greeting, Mail, Rcpt};
use Does::{Holds, Says};

/// A next hop that accepts every kind of line end, as some did when smuggling was found. A dot between two such line
/// ends that passes the proxy makes two messages here.
fn credulous() -> NextHop {
    NextHop::script().offers(&["CHUNKING", "PIPELINING"]).takes_any_line_end().start()
}

fn daemon(folder: &std::path::Path, next_hop: u16, more: &str) -> Daemon {
    run_ok(folder, &["keys", "init"]);
    let listener = |role: &str| {
        format!(
            "[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{next_hop}\"\n{more}\n"
        )
    };
    let listeners = listener("outbound") + &listener("inbound");
    Daemon::start(folder, &format!("[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"enforce\"\n{listeners}"))
}

#[test]
fn nobody_smuggles_a_second_message() {
    let mut ends = vec!["\r\n\0.\r\n".to_owned(), "\n\r.\r\n".into(), "\r\n.\r\r\n".into(), "\r\r\n.\r\n\n".into()];
    for before in ["\r\n", "\n", "\r", "\n\n", "\r\r", "\r\n\r", "\n\r\n", "\u{85}", "\u{2028}", "\x0b", "\x0c"] {
        for after in ["\r\n", "\n", "\r", "\r\r\n", "\n\r\n", "\r\n\n", " \r\n", "\t\n", "\0\r\n"] {
            ends.push(format!("{before}.{after}"));
        }
    }
    std::thread::scope(|scope| {
        for (stray, role) in [("normalize", 0), ("normalize", 1), ("reject", 0), ("reject", 1)] {
            let ends = &ends;
            scope.spawn(move || {
                let (folder, next_hop) = (folder(), credulous());
                let daemon = daemon(folder.path(), next_hop.port, &format!("stray_newline = \"{stray}\""));
                for end in ends {
                    for sender in ["bob@else.example", ""] {
                        smuggle(daemon.ports[role], &next_hop, sender, end, false);
                        smuggle(daemon.ports[role], &next_hop, sender, end, true);
                    }
                }
            });
        }
    });
}

const EVIL: &str = "MAIL FROM:<evil@x.example>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\nevil\r\n.\r\n";

#[test]
fn without_the_proxy_a_second_message_is_smuggled() {
    let next_hop = credulous();
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n.\n"] {
        let mut client = Client::connect(next_hop.port);
        for line in ["EHLO client.example", "MAIL FROM:<>", "RCPT TO:<ann@our.example>", "DATA"] {
            client.say(line);
        }
        client.write(format!("Subject: x\r\n\r\na{end}{EVIL}").as_bytes()).unwrap();
        let replies: Vec<String> = (0..5).map(|_| client.read_reply().unwrap()).collect();
        assert!(replies[4].starts_with("250") && next_hop.count() == 2, "{end:?}: {replies:?}");
        assert!(next_hop.heard().iter().any(|line| line.contains("evil")), "{end:?}");
        next_hop.forget();
    }
}

/// Tries to smuggle a second message past the proxy after this line end.
fn smuggle(port: u16, next_hop: &NextHop, sender: &str, end: &str, chunked: bool) {
    // CR LF dot CR LF is a genuine end; what follows are commands of the client.
    if !chunked && format!("a{end}").contains("\r\n.\r\n") {
        return;
    }
    let mut client = Client::connect(port);
    client.say("EHLO client.example");
    client.say(&format!("MAIL FROM:<{sender}>"));
    client.say("RCPT TO:<ann@our.example>");
    let text = format!("Subject: x\r\n\r\na{end}{EVIL}");
    if chunked {
        let _ = client.write(format!("BDAT {} LAST\r\n{text}", text.len()).as_bytes());
    } else {
        client.say("DATA");
        let _ = client.write(text.as_bytes());
    }
    while client.try_say("QUIT").is_ok_and(|reply| !reply.starts_with("221")) {}
    let (heard, messages) = (next_hop.heard(), next_hop.count());
    next_hop.forget();
    assert!(!heard.iter().any(|line| line.contains("evil")), "{end:?} by {sender:?}, BDAT {chunked}: {heard:?}");
    assert!(messages <= 1, "{end:?} by {sender:?}, BDAT {chunked}: {messages} messages");
}

#[test]
fn nobody_puts_commands_into_addresses() {
    let (folder, sink) = (folder(), Sink::start());
    let daemon = daemon(folder.path(), sink.port, "");
    for port in &daemon.ports {
        for path in [
            "<a@our.example>\rRCPT TO:<evil@x.example>",
            "<a\rRCPT TO:<evil@x.example>",
            "<\"a\0evil\"@our.example>",
            "<a@our.example\0>evil",
            "<a>RCPT TO:<evil@x.example>",
            "<a@our.example> SIZE=1\rRCPT TO:<evil@x.example>",
            "<<evil@x.example>",
            "<\"a\\\"@our.example> evil",
            "<a@our.example>evil",
            "<\"evil>@our.example",
            "<evil@our.example\u{7f}>",
            "<evil\u{85}@our.example>",
            "<evil\u{2028}x@our.example>",
        ] {
            let mut client = Client::connect(*port);
            client.say("EHLO client.example");
            let reply = client.say(&format!("MAIL FROM:{path}"));
            assert!(reply.starts_with('5'), "{path:?}: {reply}");
            client.say("MAIL FROM:<bob@else.example>");
            let reply = client.say(&format!("RCPT TO:{path}"));
            assert!(reply.starts_with('5'), "{path:?}: {reply}");
            client.say("QUIT");
        }
    }
    let heard = sink.heard();
    assert!(!heard.iter().any(|line| line.contains("evil")), "{heard:?}");
}

#[test]
fn nothing_is_too_long_or_too_much() {
    let (folder, sink) = (folder(), Sink::start());
    let daemon = daemon(folder.path(), sink.port, "");
    // A line without end.
    let mut stream = tcp(daemon.ports[1]).unwrap();
    stream.read_exact(&mut [0; b"220 sink.example ESMTP\r\n".len()]).unwrap();
    let junk = vec![b'x'; 1 << 16];
    for _ in 0..100 {
        if stream.write_all(&junk).is_err() {
            break;
        }
    }
    let mut client = Client::over(stream);
    assert!(client.say("").starts_with("500 5.5.2 line too long"));
    client.say("EHLO client.example");
    assert!(client.say(&format!("MAIL FROM:<{}@x.example>", "a".repeat(3000))).starts_with("500 5.5.2 "));
    // Mistakes without end.
    let last = (0..100).map(|_| client.try_say("WHAT")).take_while(Result::is_ok).last().unwrap().unwrap();
    assert_eq!(last, "421 4.7.0 too many bad commands");
    // The octets of unexpected chunks are not buffered.
    let mut client = Client::connect(daemon.ports[1]);
    client.write(b"BDAT 50000000 LAST\r\n").unwrap();
    for _ in 0..50 {
        client.write(&vec![b'x'; 1_000_000]).unwrap();
    }
    assert!(client.read_reply().unwrap().starts_with("503 5.5.1 "));
    assert!(client.say("EHLO client.example").starts_with("250 "));
}

#[test]
fn a_hostile_next_hop_says_nothing_in_the_name_of_others() {
    // A reply that the client could read as two, a positive reply that is sent too early, and unsolicited replies.
    let cases: [(&[(At, &'static str)], &str); 4] = [
        (&[(Mail, "250 ok\r550 no"), (Data, "354 go"), (End, "250 \0queued")], "250  queued"),
        (&[(Data, "354 go\r\n250 queued"), (End, "250 again")], "451 4.4.2 "),
        (&[(Data, "354 go"), (End, "250-queued\r\n251 what")], "451 4.4.2 "),
        (&[(Rcpt, "250 ok\r\n354 go\r\n250 queued"), (Data, "")], "421 4.4.2 "),
    ];
    for (says, want) in cases {
        let hostile = NextHop::script().on(Ehlo, Says("250-hostile.example\r\n250 PIPELINING"));
        let hostile = says.iter().fold(hostile, |script, (at, text)| script.on(*at, Says(text))).start();
        let folder = folder();
        let daemon = daemon(folder.path(), hostile.port, "");
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        let reply = client.send("ann@our.example", "b@else.example", "x").unwrap_or_else(|_| "closed".into());
        let ended =
            reply.starts_with(want) || (want.starts_with("421") && reply.starts_with("451") || reply == "closed");
        assert!(ended, "{says:?}: {reply}");
    }
}

#[test]
fn many_clients_that_say_nothing_leave_room_for_others() {
    let (folder, sink) = (folder(), Sink::start());
    let daemon = daemon(folder.path(), sink.port, "");
    let idle: Vec<TcpStream> = (0..300).map(|_| tcp(daemon.ports[1]).unwrap()).collect();
    let mut client = Client::connect(daemon.ports[1]);
    client.say("EHLO client.example");
    assert!(client.send("bob@else.example", "ann@our.example", "x").unwrap().starts_with("250"));
    drop(idle);
}

#[test]
fn a_dialogue_that_was_written_blindly_is_not_carried_out() {
    let slow = NextHop::script().on(Greeting, Holds("220 slow.example")).takes_any_line_end().start();
    let folder = folder();
    let daemon = daemon(folder.path(), slow.port, "");
    let dialogue = "EHLO x\r\nMAIL FROM:<ann@our.example>\r\nRCPT TO:<evil@third.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n";
    let post = format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n{dialogue}");
    for at in [0, 1] {
        // Before the greeting, in one packet.
        let mut client = tcp(daemon.ports[at]).unwrap();
        client.write_all(dialogue.as_bytes()).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "554 5.5.0 you must wait for the server's answer before you send more\r\n");
        slow.release();
        // After the greeting: an HTTP request, as from a browser, and a client that waits for the greeting only.
        for (text, want) in [(post.as_str(), "421 4.7.0 this is SMTP and nothing else"), (dialogue, "554 5.5.0 ")] {
            slow.release();
            let mut client = Client::connect(daemon.ports[at]);
            client.write(text.as_bytes()).unwrap();
            let reply = client.read_reply().unwrap();
            assert!(reply.starts_with(want), "{reply}");
            assert!(client.is_closed());
        }
    }
    daemon.log.wait("the reason", 0, |line| line.contains("not-smtp") && line.contains("another-protocol"));
    assert!(!slow.heard().iter().any(|line| line.contains("evil") || line.starts_with("MAIL")));
}

#[test]
fn whom_a_trusted_proxy_names_has_to_wait_as_strangers_do() {
    let (folder, sink) = (folder(), Sink::start());
    let daemon = daemon(folder.path(), sink.port, "trusted_proxies = [\"127.0.0.1\"]");
    let blind = "EHLO x\r\nMAIL FROM:<bob@third.example>\r\nRCPT TO:<ann@our.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    for (client_address, waits) in [("203.0.113.7", true), ("127.0.0.1", false)] {
        let mut client = Client::connect(daemon.ports[1]);
        client.say("EHLO proxy.example");
        assert!(client.say(&format!("XCLIENT ADDR={client_address}")).starts_with("220 "));
        client.write(blind.as_bytes()).unwrap();
        let replies: Vec<String> = std::iter::from_fn(|| client.read_reply().ok()).collect();
        let last = if waits { "554 5.5.0 you must wait" } else { "221 " };
        assert!(replies.last().unwrap().starts_with(last), "{client_address}: {replies:?}");
    }
    assert_eq!(sink.all().len(), 1);
}

#[test]
fn a_listener_may_let_its_clients_be_hasty() {
    let (folder, sink) = (folder(), Sink::start());
    let daemon = daemon(folder.path(), sink.port, "sync = \"off\"");
    let mut client = Client::connect(daemon.ports[0]);
    client
        .write(b"EHLO x\r\nMAIL FROM:<ann@our.example>\r\nRCPT TO:<b@third.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
        .unwrap();
    let replies: Vec<String> = std::iter::from_fn(|| client.read_reply().ok()).collect();
    assert!(replies.last().unwrap().starts_with("221 "), "{replies:?}");
    assert_eq!(sink.all().len(), 1);
}

#[test]
fn limits_are_where_the_config_puts_them() {
    let (folder, sink) = (folder(), Sink::start());
    run_ok(folder.path(), &["keys", "init"]);
    let daemon = Daemon::start(
        folder.path(),
        &format!(
            "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\n[limits]\nbad_commands = 3\ncommands = 10\n\
             refused_recipients = 2\noctets_per_second = 100000\nheader = \"5 KiB\"\n[timeouts]\ncommand = \"1s\"\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{}\"\n",
            sink.port
        ),
    );
    let greeted = || {
        let mut client = Client::connect(daemon.ports[0]);
        client.say("EHLO client.example");
        client
    };
    // How often a command is answered until the session ends, and the last reply.
    let until_421 = |command: &str, before: &[&str]| {
        let mut client = greeted();
        before.iter().for_each(|line| drop(client.say(line)));
        let replies: Vec<String> = (0..50).map(|_| client.try_say(command)).map_while(Result::ok).collect();
        let at = replies.iter().position(|reply| reply.starts_with("421 ")).unwrap();
        (at, replies[at].clone())
    };
    assert_eq!(until_421("WHAT", &[]), (3, "421 4.7.0 too many bad commands".to_owned()));
    let (at, reply) = until_421("NOOP", &[]);
    assert_eq!((at, reply.as_str()), (9, "421 4.7.0 too many commands without a message"), "EHLO was one of ten");
    let (at, reply) = until_421("RCPT TO:<refused@our.example>", &["MAIL FROM:<bob@third.example>"]);
    assert!(at == 2 && reply.starts_with("421 4.7.0 "), "{at} {reply}");
    let mut client = greeted();
    for line in ["MAIL FROM:<bob@third.example>", "RCPT TO:<ann@our.example>", "DATA"] {
        assert!(client.say(line).starts_with(if line == "DATA" { "354" } else { "250" }));
    }
    client.write(format!("Subject: {}\r\n\r\n", "x ".repeat(3000)).as_bytes()).unwrap();
    assert_eq!(client.say("."), "552 5.3.4 the header of the message is too long");
    // Less than a tenth of the required rate in every second.
    let stream = tcp(daemon.ports[0]).unwrap();
    let mut pieces = stream.try_clone().unwrap();
    let mut client = Client::over(stream);
    client.read_reply().unwrap();
    for line in ["EHLO client.example", "MAIL FROM:<bob@third.example>", "RCPT TO:<ann@our.example>"] {
        assert!(client.say(line).starts_with("250"));
    }
    assert!(client.say("DATA").starts_with("354"));
    let slow = std::thread::spawn(move || {
        while pieces.write_all(&[b'x'; 500]).and_then(|()| pieces.write_all(b"\r\n")).is_ok() {
            pace(Duration::from_millis(50));
        }
    });
    assert!(client.read_reply().unwrap().starts_with("421 4.4.2 too slow"));
    drop(client);
    slow.join().unwrap();
}
