//! Every fault of a next hop, and the reply that loses nothing. `docs/faults.md` shows the same table, and this test
//! compares it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{Client, Daemon, folder, free_port, run_ok};

/// Where in the dialogue the next hop fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Connect,
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// After the first line of the message.
    Body,
    /// After its end, instead of the answer.
    End,
    Quit,
}

impl At {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Body => "in the message",
            Self::End => "end of the message",
            Self::Quit => "QUIT",
        }
    }
}

/// What it does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Refused,
    Closes,
    Resets,
    Silent,
    Says(&'static str),
    /// A reply that never ends.
    Endless,
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Refused => "nobody listens".into(),
            Self::Closes => "closes".into(),
            Self::Resets => "resets the connection".into(),
            Self::Silent => "says nothing".into(),
            Self::Says(text) if text.starts_with(|c: char| c.is_ascii_digit()) => format!("says `{text}`"),
            Self::Says(_) => "says something that is no reply".into(),
            Self::Endless => "a reply without end".into(),
        }
    }
}

/// How the message goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// DATA, as it comes.
    Streamed,
    /// A candidate: held, and DATA said late.
    Held,
    /// BDAT.
    Chunked,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Streamed => "streamed",
            Self::Held => "held",
            Self::Chunked => "BDAT",
        }
    }
}

use At::{Body, Connect, Data, Ehlo, End, Greeting, Mail, Quit, Rcpt};
use Fault::{Closes, Endless, Refused, Resets, Says, Silent};
use Way::{Chunked, Held, Streamed};

/// Way, place, fault; what the client hears, in answer to what; whether the session goes on.
type Row = (Way, At, Fault, At, &'static str, bool);

const JUNK: Fault = Says("what?");
const ROWS: &[Row] = &[
    (Streamed, Connect, Refused, Greeting, "421 4.4.1", false),
    (Streamed, Greeting, Closes, Greeting, "421 4.4.1", false),
    (Streamed, Greeting, Silent, Greeting, "421 4.4.1", false),
    (Streamed, Greeting, Says("421 4.3.2 full"), Greeting, "421 4.3.2 full", false),
    (Streamed, Greeting, Says("554 5.7.1 no"), Greeting, "554 5.7.1 no", false),
    (Streamed, Greeting, JUNK, Greeting, "421 4.4.1", false),
    (Streamed, Greeting, Endless, Greeting, "421 4.4.1", false),
    (Streamed, Ehlo, Closes, Ehlo, "421 4.4.1", false),
    (Streamed, Ehlo, Silent, Ehlo, "421 4.4.1", false),
    (Streamed, Ehlo, Says("502 5.5.1 what"), Quit, "221 2.0.0", false),
    (Streamed, Ehlo, Says("451 4.3.0 later"), Ehlo, "451 4.3.0 later", true),
    (Streamed, Ehlo, JUNK, Ehlo, "421 4.4.1", false),
    (Streamed, Mail, Closes, Mail, "421 4.4.2", false),
    (Streamed, Mail, Resets, Mail, "421 4.4.2", false),
    (Streamed, Mail, Silent, Mail, "421 4.4.2", false),
    (Streamed, Mail, Says("451 4.3.0 later"), Mail, "451 4.3.0 later", true),
    (Streamed, Mail, Says("550 5.7.1 no"), Mail, "550 5.7.1 no", true),
    (Streamed, Mail, Says("421 4.3.2 bye"), Mail, "421 4.3.2 bye", false),
    (Streamed, Mail, Says("354 what"), Mail, "451 4.5.0", true),
    (Streamed, Mail, JUNK, Mail, "421 4.4.2", false),
    (Streamed, Mail, Endless, Mail, "421 4.4.2", false),
    (Streamed, Rcpt, Closes, Rcpt, "421 4.4.2", false),
    (Streamed, Rcpt, Silent, Rcpt, "421 4.4.2", false),
    (Streamed, Rcpt, Says("450 4.2.1 later"), Rcpt, "450 4.2.1 later", true),
    (Streamed, Rcpt, Says("550 5.1.1 nobody"), Rcpt, "550 5.1.1 nobody", true),
    (Streamed, Rcpt, JUNK, Rcpt, "421 4.4.2", false),
    (Streamed, Data, Closes, Data, "421 4.4.2", false),
    (Streamed, Data, Silent, Data, "421 4.4.2", false),
    (Streamed, Data, Says("451 4.3.0 later"), Data, "451 4.3.0 later", true),
    (Streamed, Data, Says("554 5.7.1 no"), Data, "554 5.7.1 no", true),
    (Streamed, Data, Says("250 what"), Data, "451 4.5.0", true),
    (Streamed, Data, JUNK, Data, "421 4.4.2", false),
    (Streamed, Body, Closes, End, "451 4.4.2", true),
    (Streamed, Body, Resets, End, "451 4.4.2", true),
    (Streamed, Body, Says("452 4.3.1 full"), End, "452 4.3.1 full", true),
    (Streamed, Body, Says("552 5.3.4 too big"), End, "552 5.3.4 too big", true),
    (Streamed, Body, Says("421 4.3.2 bye"), End, "451 4.4.2", true),
    (Streamed, Body, Says("250 2.0.0 thanks"), End, "451 4.4.2", true),
    (Streamed, Body, JUNK, End, "451 4.4.2", true),
    (Streamed, End, Closes, End, "451 4.4.2", true),
    (Streamed, End, Resets, End, "451 4.4.2", true),
    (Streamed, End, Silent, End, "451 4.4.2", true),
    (Streamed, End, Says("451 4.3.0 later"), End, "451 4.3.0 later", true),
    (Streamed, End, Says("554 5.7.1 spam"), End, "554 5.7.1 spam", true),
    (Streamed, End, Says("421 4.3.2 bye"), End, "421 4.3.2 bye", false),
    (Streamed, End, Says("354 more"), End, "451 4.5.0", true),
    (Streamed, End, JUNK, End, "451 4.4.2", true),
    (Streamed, End, Endless, End, "451 4.4.2", true),
    (Streamed, Quit, Closes, Quit, "221 2.0.0", false),
    (Streamed, Quit, Silent, Quit, "221 2.0.0", false),
    (Held, Data, Closes, End, "451 4.4.2", true),
    (Held, Data, Silent, End, "451 4.4.2", true),
    (Held, Data, Says("451 4.3.0 later"), End, "451 4.3.0 later", true),
    (Held, Data, Says("554 5.7.1 no"), End, "554 5.7.1 no", true),
    (Held, Data, Says("250 what"), End, "451 4.5.0", true),
    (Held, Data, JUNK, End, "451 4.4.2", true),
    (Held, End, Closes, End, "451 4.4.2", true),
    (Held, End, Silent, End, "451 4.4.2", true),
    (Held, End, Says("554 5.7.1 spam"), End, "554 5.7.1 spam", true),
    (Chunked, Body, Closes, End, "451 4.4.2", true),
    (Chunked, Body, Says("552 5.3.4 too big"), End, "552 5.3.4 too big", true),
    (Chunked, Body, Says("250 2.0.0 thanks"), End, "451 4.4.2", true),
    (Chunked, End, Closes, End, "451 4.4.2", true),
    (Chunked, End, Silent, End, "451 4.4.2", true),
    (Chunked, End, Says("452 4.3.1 full"), End, "452 4.3.1 full", true),
    (Chunked, End, JUNK, End, "451 4.4.2", true),
];

/// A next hop that fails as it is told, on its first connection; on later ones it is as it should be.
struct Faulty {
    port: u16,
    /// What the connections that come fail with.
    plan: Arc<Mutex<Option<(At, Fault)>>>,
    /// How many messages it has said yes to.
    taken: Arc<AtomicUsize>,
}

impl Faulty {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let faulty = Self { port: listener.local_addr().unwrap().port(), plan: Arc::default(), taken: Arc::default() };
        let (plan, taken) = (faulty.plan.clone(), faulty.taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (plan, taken) = (plan.lock().unwrap().take(), taken.clone());
                std::thread::spawn(move || converse(stream, plan, &taken));
            }
        });
        faulty
    }
}

/// `None`: the connection is over.
fn converse(stream: TcpStream, plan: Option<(At, Fault)>, taken: &AtomicUsize) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut out = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream);
    let mut say = |at: At, reply: &str| {
        let text = match plan {
            Some((here, fault)) if here == at => match fault {
                Refused | Closes => return None,
                Resets => {
                    // With unread input left, closing is a reset.
                    let linger = socket2::SockRef::from(&out);
                    linger.set_linger(Some(std::time::Duration::ZERO)).ok()?;
                    return None;
                }
                Silent => {
                    let _ = out.read_to_end(&mut Vec::new());
                    return None;
                }
                Says(text) => text.to_owned(),
                Endless => {
                    while out.write_all(b"250-and so on\r\n").is_ok() {}
                    return None;
                }
            },
            _ if reply.is_empty() => return Some(()),
            _ => reply.to_owned(),
        };
        out.write_all(format!("{text}\r\n").as_bytes()).ok()
    };
    say(Greeting, "220 faulty.example")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.get(..4)?.to_ascii_uppercase().as_str() {
            "EHLO" => say(Ehlo, "250-faulty.example\r\n250-CHUNKING\r\n250 PIPELINING")?,
            "MAIL" => say(Mail, "250 2.1.0 ok")?,
            "RCPT" => say(Rcpt, "250 2.1.5 ok")?,
            "DATA" => {
                say(Data, "354 go on")?;
                if plan.is_some_and(|(at, fault)| at == Data && fault != Says("354 go on")) {
                    continue;
                }
                let mut line = Vec::new();
                lines.read_until(b'\n', &mut line).ok()?;
                say(Body, "")?;
                while line != b".\r\n" {
                    line.clear();
                    if lines.read_until(b'\n', &mut line).ok()? == 0 {
                        return None;
                    }
                }
                say(End, "250 2.0.0 queued")?;
                taken.fetch_add(1, Ordering::SeqCst);
            }
            "BDAT" => {
                let size: usize = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
                let mut chunk = vec![0; size];
                let (head, tail) = chunk.split_at_mut(size / 2);
                lines.read_exact(head).ok()?;
                say(Body, "")?;
                lines.read_exact(tail).ok()?;
                say(End, "250 2.0.0 queued")?;
                taken.fetch_add(1, Ordering::SeqCst);
            }
            "QUIT" => return say(Quit, "221 2.0.0 bye"),
            _ => say(Connect, "250 2.0.0 ok")?,
        }
    }
}

/// Talks through a whole transaction; the first answer that is not as it should be, and what it answers.
fn dialogue(client: &mut Client, way: Way) -> Option<(At, String)> {
    let (sender, text) = match way {
        Held => ("", "Subject: away\r\n\r\nI am away.\r\n"),
        Streamed | Chunked => ("bob@else.example", "Subject: x\r\n\r\nHello.\r\n"),
    };
    let mail = format!("MAIL FROM:<{sender}>");
    let mut steps = vec![(Ehlo, "EHLO client.example".to_owned(), "250"), (Mail, mail, "250")];
    steps.push((Rcpt, "RCPT TO:<ann@our.example>".to_owned(), "250"));
    if way != Chunked {
        steps.push((Data, "DATA".to_owned(), "354"));
    }
    for (at, line, want) in steps {
        let reply = client.try_say(&line).unwrap_or_else(|error| format!("closed: {error}"));
        if !reply.starts_with(want) {
            return Some((at, reply));
        }
    }
    // In two pieces, so that the next hop can fail in between.
    let (head, tail) = text.split_at(14);
    if way == Chunked {
        client.write(format!("BDAT {} LAST\r\n", text.len()).as_bytes()).ok()?;
    }
    client.write(head.as_bytes()).ok()?;
    std::thread::park_timeout(std::time::Duration::from_millis(50));
    client.write(tail.as_bytes()).ok()?;
    if way != Chunked {
        client.write(b".\r\n").ok()?;
    }
    let reply = client.read_reply().unwrap_or_else(|error| format!("closed: {error}"));
    if !reply.starts_with("250") {
        return Some((End, reply));
    }
    let reply = client.try_say("QUIT").unwrap_or_else(|error| format!("closed: {error}"));
    Some((Quit, reply))
}

fn markdown() -> String {
    let mut text = String::from(
        "| message | when the next hop | at | the client hears | in answer to | session |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (way, at, fault, heard, reply, goes_on) in ROWS {
        let session = if *goes_on { "goes on" } else { "ends" };
        let (way, at, heard) = (way.name(), at.name(), heard.name());
        text.push_str(&format!("| {way} | {} | {at} | `{reply}` | {heard} | {session} |\n", fault.name()));
    }
    text
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")).unwrap();
    assert!(page.contains(&markdown()), "docs/faults.md should have this table:\n\n{}", markdown());
}

#[test]
fn each_fault_has_the_reply_that_loses_nothing() {
    let (folder, faulty) = (folder(), Faulty::start());
    run_ok(folder.path(), &["keys", "init"]);
    let config = |port: u16| {
        format!(
            "[domains]\nlocal = [\"our.example\"]\n[timeouts]\nconnect = \"1s\"\nnext_hop = \"1s\"\n[[listener]]\n\
             role = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{port}\"\n"
        )
    };
    let daemon = Daemon::start(folder.path(), &config(faulty.port));
    let mut wrong = Vec::new();
    for row @ (way, at, fault, heard_at, want, goes_on) in ROWS {
        let nobody = (*at == Connect).then(|| Daemon::start(folder.path(), &config(free_port())));
        let port = nobody.as_ref().unwrap_or(&daemon).ports[0];
        *faulty.plan.lock().unwrap() = Some((*at, *fault));
        let taken = faulty.taken.load(Ordering::SeqCst);
        let (mut client, greeting) = Client::try_connect(port).unwrap();
        let heard = if greeting.starts_with("220") { dialogue(&mut client, *way) } else { Some((Greeting, greeting)) };
        let Some((place, reply)) = heard else { panic!("{row:?}: the dialogue broke off") };
        if place != *heard_at || !reply.starts_with(want) {
            wrong.push(format!("{row:?}: heard {reply:?} at {place:?}"));
        }
        // Nothing that was taken is denied but after the end of data, where nobody can know; nothing denied is taken.
        let more = faulty.taken.load(Ordering::SeqCst) - taken;
        let said_yes = place == Quit;
        assert!(more == usize::from(said_yes) || (*at == End && !said_yes), "{row:?}: {more} messages taken");
        *faulty.plan.lock().unwrap() = None;
        let next = client.try_say("RSET");
        if next.as_ref().is_ok_and(|reply| reply.starts_with("250")) != *goes_on {
            wrong.push(format!("{row:?}: then {next:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
