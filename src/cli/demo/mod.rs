//! `demo`: shows signing and verification in one process on loopback, for readers who do not know BATV.

mod client;
mod live;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tempfile::TempDir;
use tokio::sync::oneshot;

use self::client::{DemoReply, send};
use super::common_args::now;
use super::keys::{new_own_key, rotate_quietly};
use super::mail_sink::{MailSink, Takes};
use crate::cli::colours::{BOLD, DIM, GREEN, RED, YELLOW};
use crate::config::{Config, Endpoint, Role};
use crate::envelope::address::Address;
use crate::envelope::keyring::Keyring;
use crate::envelope::tag::batv;
use crate::service::{Reload, Service, runtime};
use crate::state::ring_file;

/// `countersign demo`
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep running afterwards, print commands to try, and show what passes
    #[arg(long)]
    stay: bool,
}

const ANN: &str = "ann@our.example";
const BOB: &str = "bob@else.example";

/// Runs all steps of the demo. `false`: a step failed.
pub(super) fn run(args: &Demo) -> Result<bool> {
    let started = Instant::now();
    let stage = Stage::set()?;
    let mut story = Story { stage, good: true };
    story.tell()?;
    let seconds = started.elapsed().as_secs_f64();
    if story.good {
        say(&format!(
            "\n{GREEN}All of it went as it should{GREEN:#}, in {seconds:.1} seconds, over real SMTP on this machine.\n"
        ));
    } else {
        say(&format!("\n{RED}Something did not go as it should{RED:#}: see the marks above.\n"));
    }
    if args.stay {
        story.stay()?;
    }
    let good = story.good;
    story.stage.clear()?;
    Ok(good)
}

fn say(text: &str) {
    anstream::println!("{text}");
}

/// The parts of the demo: two proxies, a mail server on each side, and a key ring.
struct Stage {
    folder: TempDir,
    config: Config,
    outbound: SocketAddr,
    inbound: SocketAddr,
    status: Endpoint,
    world: MailSink,
    ours: MailSink,
    reload: Reload,
    stop: oneshot::Sender<()>,
    daemon: std::thread::JoinHandle<Result<()>>,
}

impl Stage {
    fn set() -> Result<Self> {
        let folder = TempDir::with_prefix("countersign-demo-").context("no temporary folder")?;
        let users = ["ann", "postmaster"].map(str::to_owned).to_vec();
        let ours = Takes::Users { domain: "our.example".to_owned(), users };
        let (world, ours) = (sink("mx.else.example", Takes::All)?, sink("mail.our.example", ours)?);
        let text = format!(
            "[domains]\nlocal = [\"our.example\"]\nsrs_domain = \"srs.our.example\"\n[keys]\nring = \"ring.toml\"\n\
             [inbound]\nmode = \"enforce\"\nsrs_next_hop = \"{ours}\"\n\
             [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"{world}\"\n\
             [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"{ours}\"\n\
             [status]\nlisten = \"127.0.0.1:0\"\n",
            world = world.address,
            ours = ours.address,
        );
        let path = folder.path().join("countersign.toml");
        std::fs::write(&path, &text)?;
        let config = Config::parse(&path, &text)?;
        ring_file::create(&config.ring, &Keyring::create(new_own_key()?, now())?)?;
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = std::sync::mpsc::channel();
        let daemon_config = config.clone();
        let daemon = std::thread::spawn(move || -> Result<()> {
            runtime::control()?.block_on(async {
                let service = Service::bind(daemon_config.clone(), ring_file::load(&daemon_config.ring)?)?;
                ready.send((service.addresses(), service.status_address(), service.reload()))?;
                let stop = async {
                    let _ = stopped.await;
                };
                service.run(stop).await?;
                Ok(())
            })
        });
        let (addresses, status, reload) =
            started.recv_timeout(Duration::from_secs(5)).context("the proxies did not start")?;
        let of = |role| address_of(&addresses, role);
        let (outbound, inbound) = (of(Role::Outbound)?, of(Role::Inbound)?);
        let status = status.context("the status listener is missing")?;
        Ok(Self { folder, config, outbound, inbound, status, world, ours, reload, stop, daemon })
    }

    fn clear(self) -> Result<()> {
        let _ = self.stop.send(());
        match self.daemon.join() {
            Ok(result) => result?,
            Err(_) => bail!("the daemon of the demo has failed"),
        }
        self.folder.close().context("the demo's folder could not be removed")
    }
}

/// A mail server on a free port of loopback.
fn sink(name: &str, takes: Takes) -> Result<MailSink> {
    MailSink::start((std::net::Ipv4Addr::LOCALHOST, 0).into(), name, takes)
}

fn address_of(addresses: &[(Role, Endpoint)], role: Role) -> Result<SocketAddr> {
    let found = addresses.iter().find(|(r, _)| *r == role).map(|(_, endpoint)| endpoint.to_string());
    Ok(found.context("a listener is missing")?.parse()?)
}

struct Story {
    stage: Stage,
    good: bool,
}

impl Story {
    fn tell(&mut self) -> Result<()> {
        say(&format!(
            "{BOLD}Countersign signs the return address of every message you send, and refuses bounces to any other.{BOLD:#}\n\
             {DIM}Two proxies, a mail server of ours and one of the world run in this process.{DIM:#}\n"
        ));
        let signed = self.a_message_leaves()?;
        self.a_real_bounce(
            &signed,
            "2",
            "Bob's mailbox is gone. His server bounces the message to its return address.",
        )?;
        self.forgeries()?;
        self.an_expired_one()?;
        self.a_vacation_reply()?;
        self.a_stray_bounce()?;
        self.a_forwarded_message()?;
        self.a_rotation(&signed)
    }

    fn step(&self, number: &str, text: &str) {
        say(&format!("{BOLD}{number}. {text}{BOLD:#}"));
    }

    fn line(&self, who: &str, text: &str) {
        say(&format!("   {DIM}{who:>14}{DIM:#}  {text}"));
    }

    fn check(&mut self, good: bool, text: &str) {
        self.good &= good;
        if good {
            say(&format!("   {GREEN}{:>14}{GREEN:#}  {text}\n", "✓"));
        } else {
            say(&format!("   {RED}{:>14}{RED:#}  NOT SO: {text}\n", "✗"));
        }
    }

    fn shows(&self, outcome: &DemoReply) {
        let colour = if outcome.accepted { GREEN } else { YELLOW };
        self.line("answer", &format!("{colour}{}{colour:#} {DIM}(to {}){DIM:#}", outcome.reply, outcome.at));
    }

    fn a_message_leaves(&mut self) -> Result<String> {
        self.step("1", "Ann writes to Bob. Her message leaves through the outbound proxy.");
        let outcome =
            send(self.stage.outbound, ANN, BOB, "From: ann@our.example\r\nSubject: Hello\r\n\r\nHello Bob!\r\n")?;
        let signed = self.stage.world.last()?.from;
        self.line("Ann sends", &format!("MAIL FROM:<{ANN}>"));
        self.line("Bob's side gets", &format!("MAIL FROM:<{BOLD}{signed}{BOLD:#}>"));
        let good = outcome.accepted && signed.starts_with("prvs=") && signed.ends_with("=ann@our.example");
        self.check(
            good,
            "The return address now carries a date and a hash that only we can make. Ann's From: is untouched.",
        );
        Ok(signed)
    }

    fn a_real_bounce(&mut self, signed: &str, number: &str, text: &str) -> Result<()> {
        self.step(number, text);
        let before = self.stage.ours.count();
        let outcome = send(self.stage.inbound, "", signed, &dsn(BOB))?;
        self.line("bounce", &format!("MAIL FROM:<> RCPT TO:<{signed}>"));
        self.shows(&outcome);
        let arrived = self.stage.ours.count() > before;
        let to = if arrived { self.stage.ours.last()?.to.concat() } else { "nobody".into() };
        self.line("our server gets", &format!("RCPT TO:<{BOLD}{to}{BOLD:#}>"));
        self.check(
            outcome.accepted && to == ANN,
            "The hash holds: the bounce is genuine, and lands in Ann's mailbox under her plain address.",
        );
        Ok(())
    }

    /// Sends a bounce that must be refused.
    fn refused(&mut self, what: &str, to: &str, text: &str, why: &str) -> Result<()> {
        let before = self.stage.ours.count();
        let outcome = send(self.stage.inbound, "", to, text)?;
        self.line(what, &format!("MAIL FROM:<> RCPT TO:<{to}>"));
        self.shows(&outcome);
        let good = outcome.reply.starts_with("550 5.7.1") && self.stage.ours.count() == before;
        self.check(good, why);
        Ok(())
    }

    fn forgeries(&mut self) -> Result<()> {
        self.step("3", "A spammer writes to the world in Ann's name. The world bounces it \"back\" to her.");
        self.refused(
            "false bounce",
            ANN,
            &dsn("nobody@victim.example"),
            "It is a bounce, and not to an address that we signed: Ann never sent that. Her server never sees it.",
        )?;
        let day = now().day().plus(7).batv();
        let guess = format!("prvs=1{day}c0ffee={ANN}");
        self.refused("with a guess", &guess, &dsn("nobody@victim.example"), "A made-up hash does not help.")
    }

    fn an_expired_one(&mut self) -> Result<()> {
        self.step("4", "A spammer found a return address that we signed ten days ago.");
        let keys = ring_file::load(&self.stage.config.ring)?;
        let key = keys.own_signer().context("no key")?;
        let params = self.stage.config.policy.batv;
        let old = batv::sign(key, &params, now().day().plus(-10), &Address::parse(ANN)?)?;
        let old = old.address().to_string();
        self.refused(
            "old address",
            &old,
            &dsn("nobody@victim.example"),
            "The hash holds, the date is over: signed addresses live for a week.",
        )
    }

    fn a_vacation_reply(&mut self) -> Result<()> {
        self.step("5", "Carol's vacation program answers Ann. Like a bounce it has no sender; it is none.");
        let text = "From: carol@else.example\r\nTo: ann@our.example\r\nSubject: Out of office\r\n\
                    Auto-Submitted: auto-replied\r\n\r\nI am away until Monday.\r\n";
        let before = self.stage.ours.count();
        let outcome = send(self.stage.inbound, "", ANN, text)?;
        self.line("vacation", &format!("MAIL FROM:<> RCPT TO:<{ANN}>"));
        self.shows(&outcome);
        let good = outcome.accepted && self.stage.ours.count() == before + 1;
        self.check(good, "Only bounces need a signed address. Replies, receipts and reports are delivered.");
        Ok(())
    }

    fn a_stray_bounce(&mut self) -> Result<()> {
        self.step(
            "6",
            "Ann writes to a server that knows no envelope. It sends its bounce to the address in her From:.",
        );
        let text =
            "From: ann@our.example\r\nMessage-ID: <6@our.example>\r\nSubject: Hello\r\n\r\nIs anybody there?\r\n";
        send(self.stage.outbound, ANN, "someone@old.example", text)?;
        let sent = self.stage.world.last()?.text;
        let evidence = sent.lines().find(|line| line.starts_with("Countersign-Evidence:")).unwrap_or("no evidence");
        self.line("her message has", evidence);
        let returned = format!("--part\r\nContent-Type: message/rfc822\r\n\r\n{sent}\r\n--part--\r\n");
        let bounce = dsn("someone@old.example").replace("--part--\r\n", &returned);
        let before = self.stage.ours.count();
        let outcome = send(self.stage.inbound, "", ANN, &bounce)?;
        self.line("stray bounce", &format!("MAIL FROM:<> RCPT TO:<{ANN}>"));
        self.shows(&outcome);
        let good = outcome.accepted && self.stage.ours.count() == before + 1;
        self.check(
            good,
            "What it returns shows, to whoever has the key, that we sent it. It is delivered like one to a signed address.",
        );
        Ok(())
    }

    fn a_forwarded_message(&mut self) -> Result<()> {
        self.step("7", "Dan's mail to our server is forwarded to another one. The return address is not ours to sign.");
        let outcome = send(self.stage.outbound, "dan@far.example", BOB, "From: dan@far.example\r\n\r\nHi.\r\n")?;
        let rewritten = self.stage.world.last()?.from;
        self.line("forwarded as", &format!("MAIL FROM:<{BOLD}{rewritten}{BOLD:#}>"));
        let back = send(self.stage.inbound, "", &rewritten, &dsn(BOB))?;
        let to = self.stage.ours.last()?.to.concat();
        self.line("its bounce to", &format!("RCPT TO:<{BOLD}{to}{BOLD:#}>"));
        let good = outcome.accepted && back.accepted && rewritten.starts_with("SRS0=") && to == "dan@far.example";
        self.check(good, "It is rewritten into our domain (SRS), so SPF passes; a bounce finds its way back to Dan.");
        Ok(())
    }

    fn a_rotation(&mut self, signed: &str) -> Result<()> {
        self.step("8", "The key is rotated while all of this runs.");
        let id = rotate_quietly(&self.stage.config.ring)?;
        self.line("command", "countersign keys rotate");
        self.stage.reload.now();
        let deadline = Instant::now() + Duration::from_secs(4);
        let new = loop {
            send(self.stage.outbound, ANN, BOB, "From: ann@our.example\r\n\r\nHello again!\r\n")?;
            let new = self.stage.world.last()?.from;
            if new.starts_with(&format!("prvs={id}")) || Instant::now() > deadline {
                break new;
            }
        };
        self.line("Bob's side gets", &format!("MAIL FROM:<{BOLD}{new}{BOLD:#}>"));
        self.check(
            new.starts_with(&format!("prvs={id}")),
            "New mail is signed with the new key; the first digit says so.",
        );
        self.a_real_bounce(signed, "9", "A late bounce comes to the address of step 1, signed with the old key.")
    }

    fn stay(&self) -> Result<()> {
        let (outbound, inbound) = (self.stage.outbound.port(), self.stage.inbound.port());
        let status = &self.stage.status;
        let signed = self.stage.world.last()?.from;
        let dsn_file = self.stage.folder.path().join("bounce.eml");
        std::fs::write(&dsn_file, dsn(BOB))?;
        let config = self.stage.config.path.display();
        let dsn_file = dsn_file.display();
        // Before the line that says so: what passes at once is shown, too.
        live::begin();
        say(&format!(
            "{BOLD}Still running. Try these in another terminal, and end with Ctrl-C:{BOLD:#}\n\n\
             \x20 a message that leaves     swaks -s 127.0.0.1 -p {outbound} -f {ANN} -t {BOB}\n\
             \x20 a genuine bounce          swaks -s 127.0.0.1 -p {inbound} -f '<>' -t '{signed}' -d @{dsn_file}\n\
             \x20 a false bounce            swaks -s 127.0.0.1 -p {inbound} -f '<>' -t {ANN} -d @{dsn_file}\n\
             \x20 an ordinary message       swaks -s 127.0.0.1 -p {inbound} -f {BOB} -t {ANN}\n\
             \x20 what a tag says           countersign explain -c {config} '{signed}'\n\
             \x20 another key               countersign keys rotate -c {config}\n\
             \x20 the status page           http://{status}/\n\
             \x20 an audit                  countersign probe 127.0.0.1:{inbound} --user {ANN} --sender {BOB} -c {config}\n\n\
             {BOLD}What passes:{BOLD:#}"
        ));
        runtime::control()?.block_on(async {
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                done = tokio::signal::ctrl_c() => done?,
                _ = term.recv() => {}
            }
            Ok(())
        })
    }
}

/// A delivery status notification as mail servers send it (RFC 3464).
fn dsn(recipient: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.else.example\r\nSubject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"part\"\r\n\r\n\
         --part\r\nContent-Type: text/plain\r\n\r\nYour message could not be delivered to {recipient}.\r\n\r\n\
         --part\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.else.example\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--part--\r\n"
    )
}
