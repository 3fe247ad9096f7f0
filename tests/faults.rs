//! Every fault of a next hop, and the reply to it, which never loses mail. `docs/faults.md` has the table, which this
//! test compares.

use std::path::Path;

use crate::common::{At, Client, Daemon, Does as Fault, NextHop, folder, run_ok};

/// The place in the dialogue at which the next hop fails.
fn place(at: At) -> &'static str {
    match at {
        Connect => "connecting",
        Greeting => "greeting",
        Ehlo => "EHLO",
        Mail => "MAIL",
        Rcpt => "RCPT",
        Data => "DATA",
        Body => "in the message",
        End => "end of the message",
        Quit => "QUIT",
        At::Chunk | At::Other => unreachable!("{at:?} is in no row"),
    }
}

/// The fault of the next hop.
fn what(fault: Fault) -> String {
    match fault {
        Refuses => "nobody listens".into(),
        Closes => "closes".into(),
        Resets => "resets the connection".into(),
        Silent => "says nothing".into(),
        Says(text) if text.starts_with(|c: char| c.is_ascii_digit()) => format!("says `{text}`"),
        Says(_) => "says something that is no reply".into(),
        Endless => "a reply without end".into(),
        Fault::Holds(_) | Fault::SaysAfter(..) | Fault::SaysAndCloses(_) | Fault::Stuck => {
            unreachable!("{fault:?} is in no row")
        }
    }
}

/// How the message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// DATA, streamed.
    Streamed,
    /// A message to be inspected: buffered, with a late DATA.
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
use Fault::{Closes, Endless, Refuses, Resets, Says, Silent};
use Way::{Chunked, Held, Streamed};

/// The way, the place and the fault; the place and the text of the client's reply; whether the session continues.
type Row = (Way, At, Fault, At, &'static str, bool);

const JUNK: Fault = Says("what?");
const ROWS: &[Row] = &[
    (Streamed, Connect, Refuses, Greeting, "421 4.4.1", false),
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

/// Runs a whole transaction, and returns the first unexpected reply and its place. `failed` returns when the next hop
/// has failed in the middle of the message, if it is to fail there.
fn dialogue(client: &mut Client, way: Way, failed: impl FnOnce()) -> Option<(At, String)> {
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
    // In two pieces, so that the next hop can fail between them.
    let (head, tail) = text.split_at(14);
    if way == Chunked {
        client.write(format!("BDAT {} LAST\r\n", text.len()).as_bytes()).ok()?;
    }
    client.write(head.as_bytes()).ok()?;
    failed();
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
        let (way, at, heard) = (way.name(), place(*at), place(*heard));
        text.push_str(&format!("| {way} | {} | {at} | `{reply}` | {heard} | {session} |\n", what(*fault)));
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
    let (folder, hop) = (folder(), NextHop::offering(&["CHUNKING", "PIPELINING"]));
    run_ok(folder.path(), &["keys", "init"]);
    let config = |port: u16| {
        format!(
            "[domains]\nlocal = [\"our.example\"]\n[timeouts]\nconnect = \"1s\"\nnext_hop = \"1s\"\n[[listener]]\n\
             role = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{port}\"\n"
        )
    };
    let daemon = Daemon::start(folder.path(), &config(hop.port));
    let mut wrong = Vec::new();
    for row @ (way, at, fault, heard_at, want, goes_on) in ROWS {
        let nobody = (*at == Connect).then(|| NextHop::script().on(*at, *fault).start());
        let before_nobody = nobody.as_ref().map(|nobody| Daemon::start(folder.path(), &config(nobody.port)));
        let port = before_nobody.as_ref().unwrap_or(&daemon).ports[0];
        // The next hop fails on its first connection, and works on later ones.
        hop.forget();
        hop.next_session(*at, *fault);
        let (mut client, greeting) = Client::try_connect(port).unwrap();
        let failed = || {
            if *at == Body {
                hop.wait_at(Body);
            }
        };
        let heard = match greeting.starts_with("220") {
            true => dialogue(&mut client, *way, failed),
            false => Some((Greeting, greeting)),
        };
        let Some((place, reply)) = heard else { panic!("{row:?}: the dialogue broke off") };
        if place != *heard_at || !reply.starts_with(want) {
            wrong.push(format!("{row:?}: heard {reply:?} at {place:?}"));
        }
        // A message that was accepted is not refused, except after the end of data, where the result is unknown; a
        // message that was refused is not accepted.
        let (taken, said_yes) = (hop.count(), place == Quit);
        assert!(taken == usize::from(said_yes) || (*at == End && !said_yes), "{row:?}: {taken} messages taken");
        hop.forget();
        let next = client.try_say("RSET");
        if next.as_ref().is_ok_and(|reply| reply.starts_with("250")) != *goes_on {
            wrong.push(format!("{row:?}: then {next:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
