//! The milter protocol on the wire: negotiation, replies, and invalid input.
#![cfg(feature = "milter")]

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;

use crate::common::{Daemon, Signal, dsn, folder, run_ok, tcp};
use indymilter::{Actions, MacroStage, ProtoOpts};
use indymilter_test::{EomAction, Status, TestConnection};

/// A daemon with milters, one for each role; the first also listens on a Unix socket.
fn start(config: &str, roles: &[&str]) -> (tempfile::TempDir, Daemon) {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let listener = |role: &str, listen: &str| {
        format!("[[listener]]\nprotocol = \"milter\"\nrole = \"{role}\"\nlisten = \"{listen}\"\n")
    };
    let mut listeners: String = roles.iter().map(|role| listener(role, "127.0.0.1:0")).collect();
    listeners += &listener(roles[0], &format!("unix:{}/milter", folder.path().display()));
    let config = format!("domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\n{config}\n{listeners}");
    let daemon = Daemon::start(folder.path(), &config);
    (folder, daemon)
}

async fn open(port: u16) -> TestConnection {
    TestConnection::open((Ipv4Addr::LOCALHOST, port)).await.unwrap()
}

/// Sends the macros that name the client, as an MTA does with MAIL.
async fn from(mta: &mut TestConnection, address: &str, name: &str) {
    let macros = [("{client_addr}", address), ("{client_name}", name)];
    mta.macros(MacroStage::Mail, macros).await.unwrap();
}

fn text_of(status: &Status) -> String {
    match status {
        Status::Reject { message } | Status::Tempfail { message } => {
            message.as_ref().map(|m| m.to_string_lossy().into_owned()).unwrap_or_default()
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn mail_that_leaves_costs_few_events_and_gets_a_sender() {
    let (folder, daemon) = start("", &["outbound"]);
    let by_path = TestConnection::configure().open_unix(folder.path().join("milter")).await.unwrap();
    for mut mta in [open(daemon.ports[0]).await, by_path] {
        let options = mta.negotiated_opts();
        assert!(
            options.contains(ProtoOpts::NO_CONNECT | ProtoOpts::NO_HELO | ProtoOpts::NO_BODY | ProtoOpts::NOREPLY_RCPT)
        );
        assert_eq!(
            mta.negotiated_actions() & !Actions::REQUEST_MACROS & !Actions::ADD_RCPT_EXT,
            Actions::CHANGE_SENDER | Actions::ADD_HEADER
        );
        let macros = mta.requested_macros()[&MacroStage::Mail].to_str().unwrap().to_owned();
        assert!(
            macros.contains("{client_addr}") && macros.contains("{auth_authen}") && macros.contains("{daemon_name}")
        );
        // Several messages on one connection; an aborted one does not affect the next.
        for round in 0..3 {
            assert_eq!(mta.mail(["<ann@our.example>", "SIZE=9"]).await.unwrap(), Status::Continue);
            assert_eq!(mta.rcpt(["<bob@third.example>", "NOTIFY=NEVER"]).await.unwrap(), Status::Noreply);
            if round == 1 {
                mta.abort().await.unwrap();
                continue;
            }
            assert_eq!(mta.header("Message-ID", "<1@our.example>").await.unwrap(), Status::Noreply);
            let (done, status) = mta.eom().await.unwrap();
            assert_eq!(status, Status::Continue);
            let [EomAction::ChangeSender { mail, args: None }, EomAction::AddHeader { name, .. }] =
                done.actions.as_slice()
            else {
                panic!("{done:?}");
            };
            assert!(
                mail.to_str().unwrap().starts_with("<prvs=1") && mail.to_str().unwrap().ends_with("=ann@our.example>")
            );
            assert_eq!(name.to_str().unwrap(), "Countersign-Evidence");
        }
        mta.close().await.unwrap();
    }
}

#[tokio::test]
async fn mail_that_comes_in_is_read_as_far_as_it_matters() {
    let (_folder, daemon) = start("", &["inbound"]);
    let signed = run_ok(_folder.path(), &["sign", "--local", "our.example", "ann@our.example"]);
    let mut mta = open(daemon.ports[0]).await;
    from(&mut mta, "192.0.2.7", "client.example").await;
    // A bounce to a signed address: its body is not needed.
    assert_eq!(mta.mail(["<>"]).await.unwrap(), Status::Continue);
    assert_eq!(mta.rcpt([format!("<{}>", signed.trim())]).await.unwrap(), Status::Continue);
    mta.header("Subject", "x").await.unwrap();
    assert_eq!(mta.body("x").await.unwrap(), Status::Skip);
    let (done, status) = mta.eom().await.unwrap();
    assert_eq!(status, Status::Continue);
    // Some MTAs remove recipients that were added before the deletion, so the recipient is deleted first.
    assert!(
        matches!(done.actions.as_slice(), [EomAction::DeleteRecipient { .. }, EomAction::AddRecipient { rcpt, .. }] if rcpt.to_str() == Ok("<ann@our.example>")),
        "{done:?}"
    );
    // A bounce to an untagged address: its body is needed.
    assert_eq!(mta.mail(["<>"]).await.unwrap(), Status::Continue);
    assert_eq!(mta.rcpt(["<ann@our.example>"]).await.unwrap(), Status::Continue);
    let dsn = dsn("failed");
    let (head, body) = dsn.split_once("\r\n\r\n").unwrap();
    for line in head.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        mta.header(name, value).await.unwrap();
    }
    assert_eq!(mta.body(body.as_bytes().to_vec()).await.unwrap(), Status::Continue);
    let (done, status) = mta.eom().await.unwrap();
    assert!(done.actions.is_empty() && text_of(&status).starts_with("550 5.7.1 bounce refused"), "{status:?}");
    // A forged tag is refused at RCPT.
    assert_eq!(mta.mail(["<>"]).await.unwrap(), Status::Continue);
    let forged = mta.rcpt(["<prvs=1000abcdef=ann@our.example>"]).await.unwrap();
    assert!(text_of(&forged).starts_with("550 5.7.1 "), "{forged:?}");
}

#[tokio::test]
async fn what_an_mta_sends_without_order_is_answered_all_the_same() {
    let (_folder, daemon) = start("outbound.exempt_recipients = [\"@list.example\"]", &["auto"]);
    let mut mta = open(daemon.ports[0]).await;
    from(&mut mta, "127.0.0.1", "localhost").await;
    // No address, an invalid address, or an address without a domain: the MTA has accepted it, so it passes.
    for path in ["", "<not an address>", "<postmaster>", "<\u{e9}@our.example>", "<@a,@b:ann@our.example>"] {
        let status = mta.mail([path]).await.unwrap();
        assert!(matches!(status, Status::Continue | Status::Accept), "{path}: {status:?}");
        if status == Status::Continue {
            assert_eq!(mta.rcpt(["<postmaster>"]).await.unwrap(), Status::Continue);
            assert_eq!(mta.rcpt([path]).await.unwrap(), Status::Continue);
            mta.abort().await.unwrap();
        }
    }
    // MAIL is sent twice; the second one counts.
    mta.mail(["<bea@our.example>"]).await.unwrap();
    mta.abort().await.unwrap();
    assert_eq!(mta.mail(["<ann@our.example>"]).await.unwrap(), Status::Continue);
    assert_eq!(mta.rcpt(["<bob@third.example>"]).await.unwrap(), Status::Continue);
    let other = mta.rcpt(["<talk@list.example>"]).await.unwrap();
    assert!(text_of(&other).starts_with("452 4.5.3 "), "{other:?}");
    let (done, status) = mta.eom().await.unwrap();
    assert_eq!(status, Status::Continue);
    assert!(
        matches!(&done.actions[0], EomAction::ChangeSender { mail, .. } if mail.to_bytes().ends_with(b"=ann@our.example>")),
        "{done:?}"
    );
}

#[tokio::test]
async fn an_mta_that_cannot_change_a_sender_is_told_so_in_the_log() {
    let (_folder, daemon) = start("", &["outbound", "inbound"]);
    let old = TestConnection::configure().available_actions(Actions::ADD_HEADER | Actions::CHANGE_HEADER);
    let opened = old.clone().open_tcp((Ipv4Addr::LOCALHOST, daemon.ports[0])).await;
    assert!(opened.is_err(), "it was agreed on");
    daemon
        .log
        .wait("the complaint", 0, |line| line.contains("does not offer the changes") && line.contains("CHANGE_SENDER"));
    // Inbound mail needs other actions.
    let recipients = old.available_actions(
        Actions::ADD_HEADER
            | Actions::CHANGE_HEADER
            | Actions::ADD_RCPT
            | Actions::DELETE_RCPT
            | Actions::REQUEST_MACROS,
    );
    assert!(recipients.open_tcp((Ipv4Addr::LOCALHOST, daemon.ports[1])).await.is_ok());
}

#[tokio::test]
async fn an_mta_that_cannot_be_asked_for_macros_is_understood_by_those_it_sends() {
    let (_folder, daemon) = start("", &["outbound", "auto"]);
    let old = TestConnection::configure().available_actions(
        Actions::ADD_HEADER
            | Actions::CHANGE_HEADER
            | Actions::CHANGE_SENDER
            | Actions::ADD_RCPT
            | Actions::DELETE_RCPT,
    );
    let signs = |done: &indymilter_test::EomActions| {
        done.actions.iter().any(|action| matches!(action, EomAction::ChangeSender { .. }))
    };
    // If the direction is fixed, the MTA does not have to name the client.
    let mut mta = old.clone().open_tcp((Ipv4Addr::LOCALHOST, daemon.ports[0])).await.unwrap();
    mta.mail(["<ann@our.example>"]).await.unwrap();
    mta.rcpt(["<bob@third.example>"]).await.unwrap();
    assert!(signs(&mta.eom().await.unwrap().0));
    // Otherwise, it has to. If it does not, the mail is left unchanged, and the log says why.
    let mut mta = old.clone().open_tcp((Ipv4Addr::LOCALHOST, daemon.ports[1])).await.unwrap();
    let status = mta.mail(["<ann@our.example>"]).await.unwrap();
    assert!(matches!(status, Status::Tempfail { .. }), "{status:?}");
    daemon
        .log
        .wait("the complaint", 0, |line| line.contains("does not say who the client is") && line.contains("ERROR"));
    from(&mut mta, "127.0.0.1", "localhost").await;
    mta.mail(["<ann@our.example>"]).await.unwrap();
    mta.rcpt(["<bob@third.example>"]).await.unwrap();
    assert!(signs(&mta.eom().await.unwrap().0));
    // An authenticated client needs no address.
    let mut mta = open(daemon.ports[1]).await;
    mta.macros(MacroStage::Mail, [("{auth_authen}", "ann")]).await.unwrap();
    mta.mail(["<ann@our.example>"]).await.unwrap();
    mta.rcpt(["<bob@third.example>"]).await.unwrap();
    assert!(signs(&mta.eom().await.unwrap().0));
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_only() {
    let (_folder, mut daemon) = start("", &["auto"]);
    let negotiation = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";
    let frame = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    let mut noise: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\xff\xff\xff\xffO".to_vec(),
        b"\0\0\0\0".to_vec(),
        vec![0; 70_000],
        frame(b"O"),
        frame(b"O\0\0\0\x09\0\0\0\0\0\0\0\0"),
    ];
    for odd in [
        &b"?"[..],
        b"M",
        b"Mno end",
        b"R",
        b"R\0\0\0",
        b"L",
        b"Lname",
        b"B",
        b"E",
        b"A",
        b"Q",
        b"K",
        b"D",
        b"DX\0\0",
        b"DMi\0",
        b"C",
        b"Cx\0",
        b"Cx\x009\0\0x\0",
        b"C\xff\x004\0\x19192.0.2.300\0",
        b"U",
        b"T",
        b"N",
    ] {
        noise.push([negotiation.as_slice(), &frame(odd)].concat());
        noise.push([negotiation.as_slice(), &frame(b"M<ann@our.example>\0"), &frame(odd), &frame(b"E")].concat());
    }
    let mut pieces = Vec::new();
    for noise in &noise {
        let mut mta = tcp(daemon.ports[0]).unwrap();
        let _ = mta.write_all(noise);
        let _ = mta.shutdown(std::net::Shutdown::Write);
        // The connection is closed in the end, regardless of the earlier input.
        pieces.clear();
        let _ = mta.read_to_end(&mut pieces);
    }
    assert!(daemon.child.try_wait().unwrap().is_none(), "it has ended");
    let mut mta = open(daemon.ports[0]).await;
    from(&mut mta, "127.0.0.1", "localhost").await;
    assert_eq!(mta.mail(["<ann@our.example>"]).await.unwrap(), Status::Continue);
    assert!(!daemon.log.all().iter().any(|line| line.contains("panicked")));
    // No connection is left open, so the daemon stops without delay.
    mta.close().await.unwrap();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

#[tokio::test]
async fn a_client_without_an_address_is_ours_only_if_it_is_on_this_machine() {
    let (_folder, daemon) = start("", &["auto"]);
    for (address, name, leaves) in [
        ("0", "localhost", true),
        ("unknown", "unknown", false),
        ("127.0.0.1", "localhost", true),
        ("IPv6:::1", "localhost", true),
        ("::ffff:127.0.0.1", "localhost", true),
        ("IPv6:2001:db8::7", "client.example", false),
        ("::ffff:192.0.2.7", "client.example", false),
    ] {
        let mut mta = open(daemon.ports[0]).await;
        from(&mut mta, address, name).await;
        mta.mail(["<ann@our.example>"]).await.unwrap();
        mta.rcpt(["<bob@third.example>"]).await.unwrap();
        let (done, status) = mta.eom().await.unwrap();
        assert_eq!(status, Status::Continue);
        let signed = done.actions.iter().any(|action| matches!(action, EomAction::ChangeSender { .. }));
        assert_eq!(signed, leaves, "{address} {name}: {done:?}");
    }
}

#[tokio::test]
async fn strangers_write_addresses_that_can_be_read() {
    let (_folder, daemon) = start("domains.srs_domain = \"srs.our.example\"", &["auto"]);
    let mut mta = open(daemon.ports[0]).await;
    for (sender, resolved, recipient, want) in [
        ("<>", "", "<ann>", "553 5.1.3"),
        ("<>", "", "<ann%our.example>", "553 5.1.3"),
        ("<>", "", "<our.example!ann>", "553 5.1.3"),
        ("<>", "", "<ann%x@our.example>", "550 5.7.1"),
        ("<>", "", "<\"ann@our.example\"@our.example>", "550 5.7.1"),
        ("<>", "", "<ann @our.example>", "553 5.1.3"),
        ("<>", "", "<SRS0=AAAA=AA=else.example=bob%srs.our.example>", "553 5.1.3"),
        ("<>", "", "<prvs=1000abcdef=ann%our.example>", "553 5.1.3"),
        ("<>", "", "<postmaster>", "Continue"),
        ("<bob@else.example>", "", "<prvs=1000abcdef=ann@our.example>", "550 5.1.1"),
        ("<bob@else.example>", "", "<prvs=7000abcdef=ann@our.example>", "550 5.1.1"),
        // If the MTA has resolved the sender, that address is used.
        ("<MAILER-DAEMON>", "mailer-daemon@mta.example", "<ann@our.example>", "Continue"),
        ("<x @else.example>", "", "", "553 5.1.7"),
    ] {
        let macros = [("{client_addr}", "192.0.2.7"), ("{client_name}", "client.example"), ("{mail_addr}", resolved)];
        mta.macros(MacroStage::Mail, macros).await.unwrap();
        let mail = mta.mail([sender]).await.unwrap();
        let said = if recipient.is_empty() { mail } else { mta.rcpt([recipient]).await.unwrap() };
        assert!(text_of(&said).starts_with(want), "{sender} {recipient}: {said:?}");
        mta.abort().await.unwrap();
    }
    // Senders of this site whose address the MTA completes are signed.
    for (sender, resolved) in
        [("<ann>", "ann@our.example"), ("<ann%our.example>", "<ann@our.example>"), ("<ann@our.example.>", "")]
    {
        let macros = [("{client_addr}", "127.0.0.1"), ("{client_name}", "localhost"), ("{mail_addr}", resolved)];
        mta.macros(MacroStage::Mail, macros).await.unwrap();
        assert_eq!(mta.mail([sender]).await.unwrap(), Status::Continue);
        mta.rcpt(["<bob@third.example>"]).await.unwrap();
        let (done, _) = mta.eom().await.unwrap();
        let signed = done.actions.iter().any(|action| matches!(action, EomAction::ChangeSender { mail, .. } if mail.to_bytes().ends_with(b"=ann@our.example>")));
        assert!(signed, "{sender}: {done:?}");
    }
}

#[tokio::test]
async fn what_is_thrown_away_takes_nobody_elses_copy_along() {
    let (_folder, daemon) = start("inbound.action = \"discard\"", &["auto"]);
    let mut mta = open(daemon.ports[0]).await;
    let (forged, other) = ("<prvs=1000abcdef=ann@our.example>", "<bob@third.example>");
    for recipients in [[forged, other], [other, forged]] {
        from(&mut mta, "127.0.0.1", "localhost").await;
        mta.mail(["<>"]).await.unwrap();
        assert_eq!(mta.rcpt([recipients[0]]).await.unwrap(), Status::Continue);
        let second = mta.rcpt([recipients[1]]).await.unwrap();
        assert!(text_of(&second).starts_with("452 4.5.3 "), "{second:?}");
        let (_, status) = mta.eom().await.unwrap();
        assert_eq!(status, if recipients[0] == forged { Status::Discard } else { Status::Continue });
    }
}

#[tokio::test]
async fn a_daemon_that_stops_puts_new_messages_off() {
    let (_folder, daemon) = start("", &["outbound"]);
    let (mut busy, mut idle) = (open(daemon.ports[0]).await, open(daemon.ports[0]).await);
    assert_eq!(busy.mail(["<ann@our.example>"]).await.unwrap(), Status::Continue);
    daemon.signal(Signal::TERM);
    daemon.log.wait("the drain", 0, |line| line.contains("\"stopping"));
    // The daemon stops shortly after the log line.
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    while idle.mail(["<bea@our.example>"]).await.unwrap() == Status::Continue {
        assert!(std::time::Instant::now() < deadline, "it goes on taking messages");
        idle.abort().await.unwrap();
    }
    busy.rcpt(["<bob@third.example>"]).await.unwrap();
    let (done, status) = busy.eom().await.unwrap();
    assert!(status == Status::Continue && !done.actions.is_empty());
    drop((busy, idle));
    assert_eq!(daemon.wait(), Some(0));
}
